"""Operations on paths, compared with what the functions of os do."""

import errno
import os
import stat
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from _fault import run_script
from _paths import Opened, error_of, make_place, outcome, result_of, tree
from _support import finish


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with something of each kind in it."""
    monkeypatch.chdir(tmp_path)
    make_place(tmp_path)
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
        assert (error.errno, error.filename) == (errno.EINVAL, file.fileno())
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
                assert (result, error.errno) == (None, number)
                assert error.filename == (given if type(given) is str else given.fileno())
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
    make_place(other)
    monkeypatch.chdir(other)
    getattr(os, method)(*arguments)
    assert ours == tree()


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


def test_an_object_made_without_a_loop_closes_nothing(loop, place):
    """fd 0 in particular."""
    kind = type(loop.truncate("file", 1))
    finish(loop)
    run_script(
        """
        import os
        import linux_event

        with linux_event.Loop() as loop:
            kind = type(loop.truncate(__file__, 10**6))
            loop.run()
        before = os.fstat(0)
        kind.__new__(kind)
        assert os.fstat(0) == before
        """
    )
    assert kind.__new__(kind).done() is False
