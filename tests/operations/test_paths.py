"""Operations on paths, compared with what the functions of os do."""

import errno
import os
import socket
import stat
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from _fault import run_script
from _support import finish, made_loop, scaled, unused_fd

TWO_PATHS = ("rename", "link", "symlink")


class Opened:
    """An object with fileno() that closes its fd when it is freed."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)

    def fileno(self):
        return self.fd

    def __del__(self):
        os.close(self.fd)


def outcome(loop, method, *args, **keywords):
    """What the callback of an operation got: result and error."""
    calls = []
    operation = getattr(loop, method)(*args, callback=lambda *call: calls.append(call), **keywords)
    assert not calls, "called back within the call"
    finish(loop)
    assert len(calls) == 1
    result, error = calls[0]
    assert operation.done()
    assert operation.exception() is error
    if error is None:
        assert operation.result() is result
    else:
        assert result is None
    return result, error


def result_of(loop, method, *args, **keywords):
    result, error = outcome(loop, method, *args, **keywords)
    assert error is None, error
    return result


def error_of(loop, method, *args, **keywords):
    result, error = outcome(loop, method, *args, **keywords)
    assert result is None
    return error


PLACE = {"file", "empty", "folder", "to file", "to folder", "to nothing", "to itself", "fifo", "socket"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with something of each kind in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x" * 5000)
    (tmp_path / "empty").touch(mode=0o640)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_text("inner")
    (tmp_path / "to file").symlink_to("file")
    (tmp_path / "to folder").symlink_to("folder")
    (tmp_path / "to nothing").symlink_to("nothing")
    (tmp_path / "to itself").symlink_to("to itself")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    return tmp_path


# --- stat ----------------------------------------------------------------------------------------------------------


def assert_same(found, expected):
    assert type(found) is os.stat_result
    for name in dir(expected):
        if name.startswith("st_"):
            assert (name, getattr(found, name)) == (name, getattr(expected, name))
            assert type(getattr(found, name)) is type(getattr(expected, name))
    assert found == expected
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    "path",
    [
        "file",
        "empty",
        "folder",
        "to file",
        "to folder",
        "fifo",
        "socket",
        ".",
        "/",
        "/dev/null",
        "/dev/shm",
        "/proc/self",
    ],
)
def test_stat_tells_what_os_tells(loop, place, path, follow):
    expected = os.stat(path, follow_symlinks=follow)
    assert_same(result_of(loop, "stat", path, follow_symlinks=follow), expected)


def test_stat_of_a_block_device(loop):
    devices = [entry.path for entry in os.scandir("/dev") if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode)]
    if not devices:
        pytest.skip("no block device in /dev")
    assert_same(result_of(loop, "stat", devices[0]), os.stat(devices[0]))


@pytest.mark.parametrize("path", ["file", b"file", Path("file"), "f\udcffe", b"f\xffe", "ünï", "n" * 255])
def test_stat_takes_every_kind_of_path(loop, place, path):
    Path(os.fsdecode(path)).touch()
    assert_same(result_of(loop, "stat", path), os.stat(path))


def test_stat_of_an_fd(loop, place, pair):
    with open("file", "rb") as file:
        assert_same(result_of(loop, "stat", file), os.stat("file"))
        assert_same(result_of(loop, "stat", file.fileno()), os.stat("file"))
        os.unlink("file")
        assert_same(result_of(loop, "stat", file), os.stat(file.fileno()))
    assert_same(result_of(loop, "stat", pair[0]), os.fstat(pair[0].fileno()))


def test_stat_keeps_a_file_object_alive(loop, place):
    operation = loop.stat(Opened("file"))
    # Were it closed by now, its number would be that of this one.
    fd = os.open(".", os.O_RDONLY)
    finish(loop)
    os.close(fd)
    assert operation.result().st_size == 5000


def test_stat_starts_from_a_folder(loop, place):
    folder = os.open("folder", os.O_RDONLY)
    try:
        assert_same(result_of(loop, "stat", "inner", dir_fd=folder), os.stat("folder/inner"))
        error = error_of(loop, "stat", "file", dir_fd=folder)
        assert isinstance(error, FileNotFoundError)
    finally:
        os.close(folder)


@pytest.mark.parametrize("when_ns", [-1, -1_500_000_000, 0, 1, 999_999_999, 4_000_000_000 * 10**9 + 123_456_789])
def test_stat_of_all_times(loop, place, when_ns):
    os.utime("file", ns=(when_ns, when_ns))
    assert_same(result_of(loop, "stat", "file"), os.stat("file"))


def test_stat_of_times_out_of_range(loop):
    # The nanoseconds of such a year need more than 64 bits. Most file systems cut it; tmpfs does not.
    path = f"/dev/shm/linux_event-{os.getpid()}"
    try:
        with open(path, "w"):
            os.utime(path, (2**40, 2**40))
        assert_same(result_of(loop, "stat", path), os.stat(path))
    finally:
        os.unlink(path)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("nothing", errno.ENOENT),
        ("to nothing", errno.ENOENT),
        ("to itself", errno.ELOOP),
        ("file/inner", errno.ENOTDIR),
        ("n" * 256, errno.ENAMETOOLONG),
        ("n" * 5000, errno.ENAMETOOLONG),
        ("", errno.ENOENT),
    ],
)
def test_stat_fails_as_os_does(loop, place, path, number):
    error = error_of(loop, "stat", path)
    with pytest.raises(OSError) as raised:
        os.stat(path)
    assert (type(error), error.errno, error.filename) == (type(raised.value), number, path)
    assert str(error) == str(raised.value)


# --- truncate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 4999, 5000, 5001, 1 << 33])
@pytest.mark.parametrize("form", ["path", "bytes", "fd", "object"])
def test_truncate(loop, place, form, length):
    with open("file", "r+b") as file:
        given = {"path": "file", "bytes": b"file", "fd": file.fileno(), "object": file}[form]
        assert result_of(loop, "truncate", given, length) is None
        assert os.stat("file").st_size == length
        assert file.read(5000) == b"x" * min(5000, length)


@pytest.mark.parametrize(
    ("path", "number"),
    [("nothing", errno.ENOENT), ("folder", errno.EISDIR), ("fifo", errno.ENXIO), ("/dev/null", errno.EINVAL)],
)
def test_truncate_fails(loop, place, path, number):
    error = error_of(loop, "truncate", path, 10)
    assert (error.errno, error.filename) == (number, path)


def test_truncate_of_an_fd_for_reading_fails(loop, place):
    with open("file", "rb") as file:
        error = error_of(loop, "truncate", file, 10)
        assert (error.errno, error.filename) == (errno.EINVAL, file)
    assert os.stat("file").st_size == 5000


def test_truncate_closes_what_it_opened_when_it_fails(loop, place):
    # Beyond what the file system can hold: the middle request fails, the last has to be made all the same.
    error = error_of(loop, "truncate", "file", 2**63 - 1)
    assert error.errno in (errno.EFBIG, errno.EINVAL)
    assert os.stat("file").st_size == 5000


@pytest.mark.parametrize("rounds", range(8))
def test_truncate_is_cancelled_at_any_stage(loop, place, rounds):
    calls = []
    operation = loop.truncate("file", 10, lambda *call: calls.append(call))
    for _ in range(rounds):
        loop.run_once(0.001)
    was_done = operation.done()
    assert operation.cancel() is not was_done
    assert operation.cancel() is not was_done
    finish(loop)
    assert len(calls) == 1
    assert isinstance(calls[0][1], CancelledError) is not was_done
    assert os.stat("file").st_size in (10, 5000)


@pytest.mark.parametrize("timeout", [0, 0.00001, 0.0001, 60])
def test_truncate_with_a_timeout(loop, place, timeout):
    for _ in range(10):
        result, error = outcome(loop, "truncate", "file", 10, timeout=timeout)
        assert result is None
        assert error is None or (isinstance(error, TimeoutError) and timeout < 60)


def test_truncate_on_a_kernel_that_lacks_the_request(place):
    run_script(
        """
        import errno, os
        from linux_event import Loop, ring

        asked = []
        ring.probe = lambda: asked.append(1) or {"features": (), "operations": ("READ", "WRITE")}
        with Loop() as loop, open("file", "r+b") as file, open("file", "rb") as reading:
            calls = []
            loop.truncate("file", 100, lambda *call: calls.append(call))
            assert os.stat("file").st_size == 5000  # not within the call
            loop.run(60)
            assert os.stat("file").st_size == 100
            loop.truncate(file, 200, lambda *call: calls.append(call))
            loop.run(60)
            assert os.stat("file").st_size == 200
            assert calls == [(None, None)] * 2
            for given, number in (("nothing", errno.ENOENT), ("fifo", errno.EINVAL), (reading, errno.EINVAL)):
                loop.truncate(given, 1, lambda *call: calls.append(call))
                loop.run(60)
                result, error = calls.pop()
                assert (result, error.errno, error.filename) == (None, number, given)
            operation = loop.truncate("file", 1)
            assert operation.cancel()
            loop.run(60)
            assert os.stat("file").st_size == 200
            assert asked == [1]
            try:
                with loop.link():
                    loop.truncate(file, 1)
            except ValueError as error:
                assert "chain" in str(error)
            else:
                raise AssertionError
            # A copy cuts its target by itself then.
            open("longer", "wb").write(b"y" * 9000)
            with open("sparse", "wb") as sparse:
                sparse.truncate(1 << 20)
            for source in ("file", "sparse"):
                operation = loop.copy_file(source, "longer")
                loop.run(60)
                assert operation.result() == os.stat(source).st_size == os.stat("longer").st_size
                assert open(source, "rb").read() == open("longer", "rb").read()
        """,
        cwd=place,
    ).check("")


# --- rename, unlink, rmdir, mkdir, link, symlink ----------------------------------------------------------------------


def tree():
    """Everything in the current folder: name, type and what it says."""
    found = {}
    for folder, folders, files in os.walk("."):
        for name in folders + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            text = os.readlink(path) if stat.S_ISLNK(mode) else Path(path).read_bytes() if stat.S_ISREG(mode) else None
            found[path] = (stat.S_IFMT(mode), text)
    return found


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("rename", ("file", "new")),
        ("rename", ("file", "empty")),
        ("rename", (b"to file", Path("folder/new"))),
        ("rename", ("folder", "new folder")),
        ("unlink", ("file",)),
        ("unlink", (b"to file",)),
        ("unlink", ("fifo",)),
        ("mkdir", ("new",)),
        ("mkdir", (b"folder/new", 0o700)),
        ("link", ("file", "new")),
        ("link", (Path("file"), b"folder/new")),
        ("symlink", ("anything at all", "new")),
        ("symlink", (b"../file", "folder/new")),
    ],
)
def test_does_what_os_does(loop, place, method, arguments, tmp_path_factory, monkeypatch):
    assert result_of(loop, method, *arguments) is None
    ours = tree()
    # The same once more, by os, in a folder of the same kind.
    other = tmp_path_factory.mktemp("other")
    place_again(other)
    monkeypatch.chdir(other)
    getattr(os, method)(*arguments)
    assert ours == tree()


def place_again(folder):
    for path, kind in (("file", b"x" * 5000), ("empty", b""), ("folder", None), ("folder/inner", b"inner")):
        (folder / path).mkdir() if kind is None else (folder / path).write_bytes(kind)
    for name in ("file", "folder", "nothing", "itself"):
        (folder / f"to {name}").symlink_to(name if name != "itself" else "to itself")
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)


def test_rmdir(loop, place):
    os.mkdir("new")
    assert result_of(loop, "rmdir", "new") is None
    assert not os.path.exists("new")


@pytest.mark.parametrize("mode", [0, 0o700, 0o755, 0o777, 0o1777])
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_mkdir_takes_the_umask_off(loop, place, mode, umask):
    before = os.umask(umask)
    try:
        result_of(loop, "mkdir", "new", mode)
        os.mkdir("by os", mode)
    finally:
        os.umask(before)
    assert os.stat("new").st_mode == os.stat("by os").st_mode


def test_link_follows_symbolic_links_or_not(loop, place):
    result_of(loop, "link", "to file", "followed")
    assert os.path.samefile("followed", "file")
    assert not os.path.islink("followed")
    result_of(loop, "link", "to file", "not followed", follow_symlinks=False)
    assert os.readlink("not followed") == "file"


@pytest.mark.parametrize(
    ("method", "arguments", "number"),
    [
        ("rename", ("nothing", "new"), errno.ENOENT),
        ("rename", ("file", "nothing/new"), errno.ENOENT),
        ("rename", ("file", "folder"), errno.EISDIR),
        ("rename", ("folder", "folder/new"), errno.EINVAL),
        ("rename", ("file", "/dev/shm/new"), errno.EXDEV),
        ("link", ("nothing", "new"), errno.ENOENT),
        ("link", ("file", "empty"), errno.EEXIST),
        ("link", ("folder", "new"), errno.EPERM),
        ("symlink", ("file", "empty"), errno.EEXIST),
        ("symlink", ("file", "nothing/new"), errno.ENOENT),
        ("unlink", ("nothing",), errno.ENOENT),
        ("unlink", ("folder",), errno.EISDIR),
        ("rmdir", ("folder",), errno.ENOTEMPTY),
        ("rmdir", ("file",), errno.ENOTDIR),
        ("mkdir", ("file",), errno.EEXIST),
        ("mkdir", ("nothing/new",), errno.ENOENT),
        ("mkdir", ("n" * 256,), errno.ENAMETOOLONG),
    ],
)
def test_fails_as_os_does(loop, place, method, arguments, number):
    if number == errno.EXDEV and os.stat("/dev/shm").st_dev == os.stat(".").st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    before = tree()
    error = error_of(loop, method, *arguments)
    assert error.errno == number
    assert (error.filename, error.filename2) == (*arguments, None)[:2]
    with pytest.raises(OSError) as raised:
        getattr(os, method)(*arguments)
    assert type(error) is type(raised.value)
    assert str(error) == str(raised.value)
    assert tree() == before


def test_folders_to_start_from(loop, place):
    os.mkdir("second")
    one, two = os.open("folder", os.O_RDONLY), os.open("second", os.O_RDONLY)
    try:
        result_of(loop, "rename", "inner", "moved", src_dir_fd=one, dst_dir_fd=two)
        assert os.listdir("second") == ["moved"]
        result_of(loop, "link", "moved", "again", src_dir_fd=two, dst_dir_fd=one)
        result_of(loop, "symlink", "again", "soft", dir_fd=one)
        assert Path("folder/soft").read_text() == "inner"
        result_of(loop, "unlink", "again", dir_fd=one)
        result_of(loop, "mkdir", "deep", dir_fd=one)
        assert sorted(os.listdir("folder")) == ["deep", "soft"]
        result_of(loop, "rmdir", "deep", dir_fd=one)
        result_of(loop, "rename", "second/moved", "here", dst_dir_fd=one)
        assert sorted(os.listdir("folder")) == ["here", "soft"]
    finally:
        os.close(one)
        os.close(two)


def test_folders_given_as_objects_are_kept_alive(loop, place):
    os.mkdir("second")
    operation = loop.rename("inner", "moved", src_dir_fd=Opened("folder"), dst_dir_fd=Opened("second"))
    # Were one of them closed by now, its number would be that of this one.
    fd = os.open(".", os.O_RDONLY)
    finish(loop)
    os.close(fd)
    assert operation.result() is None
    assert os.listdir("second") == ["moved"]


# --- What all of them share -------------------------------------------------------------------------------------------

EVERY = {
    "stat": ("file",),
    "truncate": ("file", 10),
    "rename": ("file", "new"),
    "unlink": ("file",),
    "rmdir": ("folder",),
    "mkdir": ("new",),
    "link": ("file", "new"),
    "symlink": ("file", "new"),
}


@pytest.mark.parametrize("method", EVERY)
def test_the_other_form_of_callbacks(loop, place, method):
    results, errors = [], []
    forms = {"on_success": results.append, "on_error": errors.append}
    getattr(loop, method)(
        *[argument.replace("file", "nothing") if isinstance(argument, str) else argument for argument in EVERY[method]],
        **forms,
    ) if method != "symlink" else loop.symlink("file", "empty", **forms)
    if method == "mkdir":
        loop.mkdir("file", **forms)
    finish(loop)
    assert len(errors) == 1
    assert isinstance(errors[0], OSError)
    results.clear()
    if method == "rmdir":
        os.unlink("folder/inner")
    arguments = ("newer",) if method == "mkdir" else EVERY[method]
    getattr(loop, method)(*arguments, **forms)
    finish(loop)
    assert len(results) == len(errors) == 1


@pytest.mark.parametrize("method", EVERY)
def test_a_nul_in_a_path(loop, place, method):
    for place_of_nul in range(2 if method in TWO_PATHS else 1):
        arguments = list(EVERY[method])
        arguments[place_of_nul] += "\0"
        with pytest.raises(ValueError, match="null byte"):
            getattr(loop, method)(*arguments)
        arguments[place_of_nul] = arguments[place_of_nul].encode()
        with pytest.raises(ValueError, match="null byte"):
            getattr(loop, method)(*arguments)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("wrong", [None, 1.5, []])
def test_a_path_of_another_type(loop, place, method, wrong):
    with pytest.raises(TypeError):
        getattr(loop, method)(wrong, *EVERY[method][1:])
    if method in TWO_PATHS:
        with pytest.raises(TypeError):
            getattr(loop, method)("file", wrong)


@pytest.mark.parametrize(
    ("method", "arguments", "keywords", "error", "named"),
    [
        ("stat", ("file",), {"follow_symlinks": 1}, TypeError, "follow_symlinks.*1"),
        ("stat", (0,), {"follow_symlinks": False}, ValueError, "follow_symlinks"),
        ("stat", (0,), {"dir_fd": 0}, ValueError, "dir_fd"),
        ("stat", (-1,), {}, ValueError, "-1"),
        ("stat", (True,), {}, TypeError, "True"),
        ("truncate", ("file", -1), {}, ValueError, "length.*-1"),
        ("truncate", ("file", 2**63), {}, ValueError, "length"),
        ("truncate", ("file", 1.0), {}, TypeError, "length.*1.0"),
        ("truncate", ("file",), {}, TypeError, "argument"),
        ("mkdir", ("new", -1), {}, ValueError, "mode.*-1"),
        ("mkdir", ("new", 0o10000), {}, ValueError, "mode"),
        ("mkdir", ("new", "700"), {}, TypeError, "mode.*700"),
        ("unlink", ("file",), {"dir_fd": -1}, ValueError, "-1"),
        ("link", ("file", "new"), {"follow_symlinks": None}, TypeError, "follow_symlinks.*None"),
        ("link", ("file", "new"), {"hard": True}, TypeError, "hard"),
        ("link", ("file",), {}, TypeError, "target"),
        ("link", (), {"target": "file"}, TypeError, "source"),
        ("link", (), {"callback": print}, TypeError, "callback"),
        ("link", (), {"timeout": 1}, TypeError, "timeout"),
        ("link", (), {"src_dir_fd": 1}, TypeError, "src_dir_fd"),
        ("rename", ("file", "new"), {"timeout": -1}, ValueError, "timeout.*-1"),
        ("rename", ("file", "new"), {"callback": 1}, TypeError, "callback.*1"),
    ],
)
def test_wrong_arguments(loop, place, method, arguments, keywords, error, named):
    before = tree()
    with pytest.raises(error, match=named):
        getattr(loop, method)(*arguments, **keywords)
    finish(loop)
    assert tree() == before


@pytest.mark.parametrize("keyword", ["dir_fd", "src_dir_fd", "dst_dir_fd"])
def test_a_folder_that_is_not_open(loop, place, keyword):
    method, arguments = ("unlink", ("file",)) if keyword == "dir_fd" else ("rename", ("file", "new"))
    with pytest.raises(OSError) as raised:
        getattr(loop, method)(*arguments, **{keyword: unused_fd()})
    assert raised.value.errno == errno.EBADF


@pytest.mark.parametrize("method", EVERY)
def test_cancelled_before_it_began(loop, place, method):
    before = tree()
    calls = []
    operation = getattr(loop, method)(*EVERY[method], callback=lambda *call: calls.append(call))
    assert operation.cancel()
    assert operation.cancelled()
    finish(loop)
    assert [(result, type(error)) for result, error in calls] == [(None, CancelledError)]
    assert tree() == before


@pytest.mark.parametrize("method", EVERY)
def test_cancelled_on_its_way(loop, place, method):
    calls = []
    operation = getattr(loop, method)(*EVERY[method], callback=lambda *call: calls.append(call))
    loop.run_once(0)
    was_done = operation.done()
    assert operation.cancel() is not was_done
    finish(loop)
    assert len(calls) == 1


@pytest.mark.parametrize("entries", [8, 256])
def test_hundreds_at_once(entries, place):
    count = scaled(1000, 100)
    with made_loop(entries=entries) as loop:
        made, told = [], []
        for number in range(count):
            loop.mkdir(f"n{number}", on_success=made.append)
        finish(loop)
        assert made == [None] * count
        before = loop.statistics()
        operations = [loop.stat(f"n{number}") for number in range(count)]
        finish(loop)
        for number, operation in enumerate(operations):
            assert operation.result().st_ino == os.stat(f"n{number}").st_ino
        if entries == 256:
            after = loop.statistics()
            assert after.submissions - before.submissions == count
        for number in range(count):
            loop.rmdir(f"n{number}", on_success=told.append)
        finish(loop)
        assert told == [None] * count


def test_the_loop_is_closed_meanwhile(place):
    calls = []
    with made_loop() as loop:
        for number in range(100):
            loop.mkdir(f"n{number}", callback=lambda *call: calls.append(call))
            loop.truncate("file", number, lambda *call: calls.append(call))
            loop.stat("file", lambda *call: calls.append(call))
        loop.run_once(0)
    assert len(calls) == 300


def test_a_chain_of_them(loop, place):
    with open("file", "r+b") as file:
        with loop.link() as chain:
            loop.mkdir("new")
            loop.rename("file", "new/file")
            loop.link("new/file", "new/hard")
            loop.symlink("new/hard", "soft")
            loop.truncate(file, 10)
            loop.stat("soft")
            loop.unlink("new/file")
            loop.unlink("new/hard")
            loop.rmdir("new")
        finish(loop)
    assert [operation.exception() for operation in chain.operations] == [None] * 9
    assert chain.operations[5].result().st_size == 10
    assert not os.path.exists("new")


FAILING = {
    "stat": ("nothing",),
    "rename": ("nothing", "new"),
    "unlink": ("nothing",),
    "rmdir": ("nothing",),
    "mkdir": ("file",),
    "link": ("nothing", "new"),
    "symlink": ("new", "file"),
}


@pytest.mark.parametrize("method", [*FAILING, "truncate", "fsync", "fallocate"])
def test_a_chain_ends_where_one_fails(loop, place, method):
    # The kernel would go on behind each of these.
    with open("file", "rb") as reading, open("/dev/null", "rb") as null:
        arguments = FAILING | {"truncate": (reading, 1), "fsync": (null,), "fallocate": (reading, 0, 0, 1)}
        with loop.link() as chain:
            loop.mkdir("first")
            getattr(loop, method)(*arguments[method], callback=lambda *call: None)
            loop.unlink("file")
            loop.mkdir("second")
            loop.read(reading, 5000)
            loop.mkdir("third")
        finish(loop)
    first, failed, *rest = chain.operations
    assert first.exception() is None
    assert isinstance(failed.exception(), OSError)
    assert not failed.cancelled()
    assert len(rest) == 4
    for operation in rest:
        assert operation.cancelled()
    assert sorted(os.listdir(".")) == sorted([*PLACE, "first"])


def test_a_hard_chain_goes_on(loop, place):
    with loop.link(hard=True) as chain:
        for method, arguments in FAILING.items():
            getattr(loop, method)(*arguments, callback=lambda *call: None)
        loop.mkdir("last")
    finish(loop)
    assert all(isinstance(operation.exception(), OSError) for operation in chain.operations[:-1])
    assert os.path.isdir("last")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("rounds", range(3))
def test_a_member_of_a_chain_is_cancelled(loop, place, number, rounds):
    with loop.link() as chain:
        for name in "abcde":
            loop.mkdir(name)
    for _ in range(rounds):
        loop.run_once(0)
    cancelled = chain.operations[number].cancel()
    finish(loop)
    made = [operation.exception() is None for operation in chain.operations if not operation.cancelled()]
    assert all(made)
    # What comes behind it is not begun; it may have been done itself all the same.
    assert len(made) == (number if cancelled else 5)
    assert set(os.listdir(".")) - PLACE in (set("abcde"[: len(made)]), set("abcde"[: len(made) + 1]))


def test_the_loop_is_closed_with_a_chain_on_its_way(place):
    for rounds in range(3):
        with made_loop() as loop:
            with loop.link() as chain:
                for name in "abcde":
                    loop.mkdir(f"{name}{rounds}")
                    loop.stat(f"{name}{rounds}")
            for _ in range(rounds):
                loop.run_once(0)
        assert all(operation.done() for operation in chain.operations)


def test_a_chain_that_is_longer_than_what_waits(place):
    with made_loop(entries=8) as loop:
        with loop.link() as chain:
            for number in range(8):
                loop.mkdir(f"n{number}")
        with loop.link() as second:
            for number in range(8):
                loop.rmdir(f"m{number}", callback=lambda *call: None)
        finish(loop)
        assert [operation.exception() for operation in chain.operations] == [None] * 8
        assert [operation.cancelled() for operation in second.operations] == [False] + [True] * 7


def test_what_is_more_than_one_request_is_not_for_chains(loop, place):
    with pytest.raises(ValueError, match="truncate is more than one request"), loop.link():
        loop.truncate("file", 10)


def test_an_operation_tells_both_paths(loop, place):
    operation = loop.rename("file", "new")
    assert repr(operation) == "<Operation rename 'file' 'new' in flight>"
    finish(loop)
    assert repr(operation) == "<Operation rename 'file' 'new' done>"


def test_permission_is_denied(place):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    folder = Path(f"/dev/shm/linux_event-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        (folder / "file").touch(mode=0o600)
        run_script(
            f"""
            import concurrent.futures, os
            from linux_event import Loop, diagnosis  # the library of Python may be out of reach later
            os.chdir({str(folder)!r})
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Loop() as loop:
                for method, arguments in {EVERY | {"stat": ("/proc/1/fd/0",)}!r}.items():
                    if method in ("rmdir", "symlink"):
                        continue
                    operation = getattr(loop, method)(*arguments, callback=lambda *call: None)
                    loop.run(60)
                    error = operation.exception()
                    assert isinstance(error, PermissionError), (method, error)
                    assert error.filename == arguments[0]
            """,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        ).check("")
    finally:
        (folder / "file").unlink()
        folder.rmdir()
