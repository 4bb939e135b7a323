"""copy_file: the copy is what cp would make, and nothing is left however it ends."""

import errno
import os
import random
import stat
import subprocess
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from _fault import run_script
from _moving import Calls
from _support import finish, made_loop, open_fds, run_until, scaled

DATA = random.Random(4).randbytes(9 << 20)


def copy(loop, source, target, **keywords):
    """What the callback got: result and error."""
    calls = Calls()
    operation = loop.copy_file(source, target, calls, **keywords)
    assert not calls, "called back within the call"
    finish(loop)
    assert len(calls) == 1
    assert operation.done()
    return calls[0]


def error_of(loop, source, target, **keywords):
    result, error = copy(loop, source, target, **keywords)
    assert result is None
    return error


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a few files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large").write_bytes(DATA)
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "folder").mkdir()
    os.mkfifo("fifo")
    return tmp_path


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, len(DATA)])
@pytest.mark.parametrize("before", [None, 0, 3, 2 << 20, 20 << 20])
def test_copies_content(loop, place, size, before):
    Path("source").write_bytes(DATA[:size])
    if before is not None:
        Path("target").write_bytes(b"y" * before)
    assert copy(loop, "source", "target") == (size, None)
    assert Path("target").read_bytes() == Path("source").read_bytes() == DATA[:size]


@pytest.mark.parametrize("name", ["large", b"large", Path("large")])
def test_takes_every_kind_of_path(loop, place, name):
    assert copy(loop, name, Path("target")) == (len(DATA), None)
    assert copy(loop, Path("target"), b"f\xffe") == (len(DATA), None)
    assert Path("f\udcffe").read_bytes() == DATA


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o400, 0o444, 0o600, 0o640, 0o755, 0o777, 0o4755])
def test_a_new_file_gets_the_permissions(loop, place, umask, mode):
    os.chmod("small", mode)
    former = os.umask(umask)
    try:
        assert copy(loop, "small", "target") == (5, None)
        subprocess.run(["cp", "small", "by cp"], check=True)
    finally:
        os.umask(former)
    assert stat.S_IMODE(os.stat("target").st_mode) == mode & 0o777 & ~umask
    if not mode & 0o7000:
        assert os.stat("target").st_mode == os.stat("by cp").st_mode


def test_a_file_that_is_there_keeps_its_permissions_and_names(loop, place):
    Path("target").write_bytes(DATA)
    os.chmod("target", 0o614)
    os.link("target", "other name")
    os.chmod("small", 0o755)
    assert copy(loop, "small", "target") == (5, None)
    assert stat.S_IMODE(os.stat("target").st_mode) == 0o614
    assert Path("other name").read_bytes() == b"small"


def test_follows_symbolic_links(loop, place):
    os.symlink("small", "soft")
    os.symlink("target", "soft target")
    assert copy(loop, "soft", "soft target") == (5, None)
    assert os.path.islink("soft target")
    assert Path("target").read_bytes() == b"small"
    assert not os.path.islink("target")


@pytest.mark.parametrize("target", ["large", "folder/../large", "hard", "soft"])
def test_the_same_file_is_refused_and_kept(loop, place, target):
    os.link("large", "hard")
    os.symlink("large", "soft")
    error = error_of(loop, "large", target)
    assert (error.errno, error.filename, error.filename2) == (errno.EINVAL, "large", target)
    assert "same file" in str(error)
    assert Path("large").read_bytes() == DATA


@pytest.mark.parametrize(
    ("source", "target", "number", "named"),
    [
        ("nothing", "target", errno.ENOENT, "nothing"),
        ("folder", "target", errno.EISDIR, "folder"),
        ("small", "folder", errno.EISDIR, "folder"),
        ("small", "nothing/target", errno.ENOENT, "nothing/target"),
        ("small/", "target", errno.ENOTDIR, "small/"),
        ("small", "n" * 256, errno.ENAMETOOLONG, "n" * 256),
        ("small", "fifo", errno.ENXIO, "fifo"),
        ("small", "/proc/self/status", errno.EACCES, "/proc/self/status"),
    ],
)
def test_an_error_names_its_file(loop, place, source, target, number, named):
    before = sorted(os.listdir("."))
    error = error_of(loop, source, target)
    if number == errno.EACCES and error.errno != number:  # root is let in, and refused later
        assert error.errno in (errno.EINVAL, errno.EIO)
        return
    assert (error.errno, error.filename, error.filename2) == (number, named, None)
    assert error.strerror == os.strerror(number)
    assert sorted(os.listdir(".")) == before


def test_a_full_disk(loop, place):
    for source in ("small", "large"):
        error = error_of(loop, source, "/dev/full")
        assert (error.errno, error.filename, error.filename2) == (errno.ENOSPC, source, "/dev/full")


def test_a_disk_that_fills_up(place):
    """A file system of 64 KiB: what fits is left of the copy, as cp leaves it."""
    script = """
        import errno, os, sys
        from linux_event import Loop

        with Loop() as loop:
            operation = loop.copy_file("large", "mounted/target", callback=lambda *call: None)
            loop.run(60)
            error = operation.exception()
            assert error.errno == errno.ENOSPC, error
            assert (error.filename, error.filename2) == ("large", "mounted/target")
        copied = open("mounted/target", "rb").read()
        assert 0 < len(copied) <= 1 << 16
        assert open("large", "rb").read().startswith(copied)
        print("done")
    """
    os.mkdir("mounted")
    mount = 'mount -t tmpfs -o size=64k none mounted && exec "$@"'
    probe = subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted: {probe.stderr.decode().strip()}")
    run_script(script, prefix=("unshare", "-m", "sh", "-c", mount, "sh"), cwd=place).check("done")


def test_no_permission(tmp_path_factory):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    folder = Path(f"/dev/shm/linux_event-{os.getpid()}")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        (folder / "mine").write_bytes(b"mine")
        (folder / "mine").chmod(0o600)
        (folder / "readable").write_bytes(b"readable")
        run_script(
            f"""
            import concurrent.futures, os
            from linux_event import Loop, diagnosis  # the library of Python may be out of reach later
            os.chdir({str(folder)!r})
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Loop() as loop:
                for source, target, named in (("mine", "new", "mine"), ("readable", "mine", "mine")):
                    operation = loop.copy_file(source, target, callback=lambda *call: None)
                    loop.run(60)
                    error = operation.exception()
                    assert isinstance(error, PermissionError), error
                    assert (error.filename, error.filename2) == (named, None)
                operation = loop.copy_file("readable", "new")
                loop.run(60)
                assert operation.result() == 8
            """
        ).check("")
        assert (folder / "mine").read_bytes() == b"mine"
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.parametrize("path", ["/proc/self/cmdline", "/proc/cpuinfo", "/proc/filesystems", "/proc/self/maps"])
def test_files_of_proc(loop, place, path):
    result, error = copy(loop, path, "target")
    assert error is None
    copied = Path("target").read_bytes()
    assert result == len(copied) > 0
    if path in ("/proc/self/cmdline", "/proc/filesystems"):
        assert copied == Path(path).read_bytes()


def test_proc_to_a_device_that_is_full(loop):
    assert error_of(loop, "/proc/self/cmdline", "/dev/full").errno == errno.ENOSPC


def test_devices(loop, place):
    assert copy(loop, "/dev/null", "target") == (0, None)
    assert copy(loop, "large", "/dev/null") == (len(DATA), None)
    assert isinstance(error_of(loop, "/dev/zero", "/dev/null", timeout=0.05), TimeoutError)


def test_a_fifo_is_read_to_its_end(loop, place):
    calls = Calls()
    operation = loop.copy_file("fifo", "target", calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 10)
    assert not operation.done()  # nobody has opened it for writing so far
    with open("fifo", "wb", buffering=0) as fifo:
        fifo.write(b"one ")
        run_until(loop, lambda: Path("target").exists() and Path("target").read_bytes() == b"one ")
        assert not operation.done()
        writer = threading.Thread(target=fifo.write, args=(DATA,))
        writer.start()
        run_until(loop, lambda: not writer.is_alive())
        writer.join()
    run_until(loop, operation.done)
    timer.destroy()
    assert calls == [(4 + len(DATA), None)]
    assert Path("target").read_bytes() == b"one " + DATA


def test_to_a_fifo_that_is_read_slowly(loop, place):
    with open(os.open("fifo", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as fifo:
        operation = loop.copy_file("large", "fifo")
        ticks = []
        timer = loop.periodic(0.001, ticks.append)
        run_until(loop, lambda: len(ticks) >= 10)
        assert not operation.done()
        read = bytearray()
        while not operation.done():
            read += fifo.read(1 << 20) or b""
            loop.run_once(0.01)
        timer.destroy()
        read += fifo.read() or b""
    assert operation.result() == len(DATA)
    assert read == DATA


HOLES = {
    "nothing but a hole": ([], 3 << 20),
    "a hole first": ([(2 << 20, b"data")], (2 << 20) + 4),
    "a hole last": ([(0, b"data")], 3 << 20),
    "holes between": ([(0, b"a" * 10000), (5 << 20, b"b" * (2 << 20)), (20 << 20, b"c")], 30 << 20),
    "five GiB": ([(5 << 30, b"far away")], 6 << 30),
}


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize("before", [None, 40 << 20])
def test_holes_stay_holes(loop, place, name, before):
    parts, size = HOLES[name]
    with open("source", "wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    if before:
        Path("target").write_bytes(b"y" * before)
    assert copy(loop, "source", "target") == (size, None)
    found = os.stat("target")
    assert found.st_size == size
    assert found.st_blocks <= os.stat("source").st_blocks + 16
    if size < 1 << 30:
        subprocess.run(["cmp", "source", "target"], check=True)
    with open("target", "rb") as target:
        for offset, data in parts:
            target.seek(offset)
            assert target.read(len(data)) == data


def test_holes_into_what_has_none(loop, place):
    with open("source", "wb") as file:
        file.write(b"x")
        file.truncate(1 << 20)
    with open(os.open("fifo", os.O_RDONLY | os.O_NONBLOCK), "rb") as fifo:
        operation = loop.copy_file("source", "fifo")
        read = bytearray()
        while not operation.done():
            read += fifo.read(1 << 20) or b""
            loop.run_once(0.01)
        read += fifo.read() or b""
    assert operation.result() == len(read) == 1 << 20
    assert read.startswith(b"x\0\0")


def test_a_file_that_grows(loop, place):
    calls = Calls()
    operation = loop.copy_file("large", "target", calls)
    with open("large", "ab", buffering=0) as file:
        while not operation.done():
            file.write(b"more" * 1000)
            loop.run_once(0.01)
    [(result, error)] = calls
    assert error is None
    copied = Path("target").read_bytes()
    assert len(copied) == result >= len(DATA)
    assert Path("large").read_bytes().startswith(copied)


def test_a_file_that_is_cut(loop, place):
    calls = Calls()
    operation = loop.copy_file("large", "target", calls)
    while not os.path.exists("target"):
        loop.run_once(0.01)
    os.truncate("large", 10)
    run_until(loop, operation.done)
    [(result, error)] = calls
    assert error is None
    assert 0 <= result <= len(DATA)
    assert os.stat("target").st_size == result


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("rounds", [*range(12), 20, 40])
@pytest.mark.parametrize("source", ["large", "fifo", "source", "/proc/self/maps"])
def test_ends_early_at_any_stage(place, source, rounds, how):
    with open("source", "wb") as file:
        file.truncate(1 << 30)
    Path("target").write_bytes(b"y" * 10000)
    calls = Calls()
    before = open_fds()
    with made_loop() as loop:
        operation = loop.copy_file(source, "target", calls)
        for _ in range(rounds):
            loop.run_once(0)
        was_done = operation.done()
        if how == "cancel":
            assert operation.cancel() is not was_done
            assert operation.cancel() is not was_done
            finish(loop)
            assert operation.cancelled() is not was_done
    assert open_fds() == before
    assert len(calls) == 1
    assert isinstance(calls[0][1], CancelledError) is not was_done


@pytest.mark.parametrize("timeout", [0, 0.0001, 0.0005, 0.001, 0.005, 60])
def test_with_a_timeout(loop, place, timeout):
    for _ in range(5):
        before = open_fds()
        result, error = copy(loop, "large", "target", timeout=timeout)
        after = [name for fd, name in open_fds().items() if fd not in before and not name.startswith(("pipe", "anon"))]
        assert not after
        if error is None:
            assert result == len(DATA)
        else:
            assert isinstance(error, TimeoutError)
            assert timeout < 60
            assert (error.filename, error.filename2) == ("large", "target")


def test_cancelled_at_random(place):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    before = open_fds()
    for entries in (1, 8, 256) * scaled(10):
        calls = Calls()
        with made_loop(entries=entries) as loop:
            operations = []
            for number in range(10):
                source = chance.choice(["large", "small", "fifo", "nothing", "folder", "/proc/self/maps"])
                timeout = chance.choice([None, None, 0.001, 0.01])
                operations.append(loop.copy_file(source, f"target{number}", calls, timeout=timeout))
            for _ in range(chance.randrange(30)):
                loop.run_once(0)
                if chance.random() < 0.3:
                    chance.choice(operations).cancel()
            if chance.random() < 0.5:
                for operation in operations:
                    operation.cancel()
                finish(loop)
        assert len(calls) == 10
        assert open_fds() == before


@pytest.mark.parametrize("entries", [1, 8, 256])
def test_hundreds_at_once(place, entries):
    count = scaled(200, 50)
    for number in range(count):
        Path(f"source{number}").write_bytes(DATA[: number * 40])
    with made_loop(entries=entries) as loop:
        operations = [loop.copy_file(f"source{number}", f"target{number}") for number in range(count)]
        finish(loop)
        assert [operation.result() for operation in operations] == [number * 40 for number in range(count)]
        for number in range(count):
            assert Path(f"target{number}").read_bytes() == DATA[: number * 40]


def test_no_more_fds(place):
    run_script(
        """
        import errno, os, resource
        from linux_event import Loop

        with Loop() as loop:
            loop.copy_file("small", "target")
            loop.run(60)
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for named in ("small", "target"):
                operation = loop.copy_file("small", "target", callback=lambda *call: None)
                loop.run(60)
                error = operation.exception()
                assert (error.errno, error.filename) == (errno.EMFILE, named), error
                os.close(taken.pop())
            for fd in taken:
                os.close(fd)
            operation = loop.copy_file("small", "target")
            loop.run(60)
            assert operation.result() == 5
        """,
        cwd=place,
    ).check("")


def test_a_pipe_that_cannot_be_made(place):
    run_script(
        """
        import errno, os, resource
        from linux_event import Loop

        with Loop() as loop:
            loop.truncate("small", 5)
            loop.timer(0.001, lambda timer: None)
            loop.run(60)
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for _ in range(2):
                os.close(taken.pop())
            operation = loop.copy_file("small", "target", callback=lambda *call: None)
            loop.run(60)
            error = operation.exception()
            assert (error.errno, error.filename, error.filename2) == (errno.EMFILE, "small", "target"), error
            os.close(os.dup(0))
            os.close(os.dup(0))
        """,
        cwd=place,
    ).check("")


def test_the_other_form_of_callbacks(loop, place):
    results, errors = [], []
    loop.copy_file("small", "target", on_success=results.append, on_error=errors.append)
    loop.copy_file("nothing", "target", on_success=results.append, on_error=errors.append)
    finish(loop)
    assert results == [5]
    assert [type(error) for error in errors] == [FileNotFoundError]


def test_it_is_not_for_chains(loop, place):
    with pytest.raises(ValueError, match="copy_file is more than one request"), loop.link():
        loop.copy_file("small", "target")
    finish(loop)
    assert not os.path.exists("target")


def test_it_tells_both_paths(loop, place):
    operation = loop.copy_file("small", "target")
    assert "copy_file 'small' 'target' in flight" in repr(operation)
    finish(loop)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "named"),
    [
        (("small\0", "target"), {}, ValueError, "null"),
        (("small", b"target\0"), {}, ValueError, "null"),
        (("small", None), {}, TypeError, "None"),
        ((1, "target"), {}, TypeError, "int"),
        (("small",), {}, TypeError, "argument"),
        (("small", "target"), {"timeout": -1}, ValueError, "timeout.*-1"),
        (("small", "target"), {"callback": 1}, TypeError, "callback"),
        (("small", "target"), {"callback": print, "on_success": print}, TypeError, "both"),
    ],
)
def test_wrong_arguments(loop, place, arguments, keywords, error, named):
    with pytest.raises(error, match=named):
        loop.copy_file(*arguments, **keywords)
    finish(loop)
    assert not os.path.exists("target")
