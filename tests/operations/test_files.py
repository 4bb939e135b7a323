"""Operations on files: open, close, read, readinto; what all methods have in common."""

import array
import contextlib
import errno
import mmap
import os
import stat

import _fault
import pytest
from _support import BOUND, Pipe, finish, made_loop, open_fds, unused_fd

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


def run(loop, start, *arguments, **keywords):
    """Start one operation, run the loop until it is done, and return its result or raise its error."""
    operation = start(*arguments, on_error=lambda error: None, **keywords)
    finish(loop)
    return operation.result()


def fails(loop, start, *arguments, **keywords):
    """The same for an operation that fails; returns the error."""
    with pytest.raises(OSError) as raised:
        run(loop, start, *arguments, **keywords)
    return raised.value


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        yield file


def content(file):
    return os.pread(file.fileno(), 1 << 20, 0)


# --- open ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path], ids=["str", "bytes", "PathLike"])
def test_open(loop, tmp_path, kind):
    path = tmp_path / "n\xe4me"
    path.write_bytes(b"data")
    fd = run(loop, loop.open, kind(path), os.O_RDONLY)
    try:
        assert type(fd) is int
        assert os.read(fd, 10) == b"data"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_open_with_a_mode(loop, tmp_path):
    previous = os.umask(0o027)
    try:
        for mode, expected in ((None, 0o640), (0o777, 0o750), (0, 0)):
            path = tmp_path / str(mode)
            arguments = () if mode is None else (mode,)
            os.close(run(loop, loop.open, path, os.O_CREAT | os.O_WRONLY, *arguments))
            assert stat.S_IMODE(path.stat().st_mode) == expected
    finally:
        os.umask(previous)


@pytest.mark.parametrize("as_object", [False, True])
def test_open_in_a_folder(loop, tmp_path, as_object):
    (tmp_path / "file").write_bytes(b"data")
    folder = os.open(tmp_path, os.O_DIRECTORY)
    try:
        dir_fd = type("Folder", (), {"fileno": lambda self: folder})() if as_object else folder
        fd = run(loop, loop.open, "file", os.O_RDONLY, dir_fd=dir_fd)
        assert os.read(fd, 10) == b"data"
        os.close(fd)
        assert fails(loop, loop.open, "missing", os.O_RDONLY, dir_fd=dir_fd).filename == "missing"
    finally:
        os.close(folder)


def test_open_a_nameless_file(loop, tmp_path):
    try:
        fd = run(loop, loop.open, tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
        pytest.skip("the file system has none")
    os.close(fd)


@pytest.mark.parametrize(
    "name, flags, error",
    [
        ("missing", os.O_RDONLY, FileNotFoundError),
        ("missing/file", os.O_RDONLY, FileNotFoundError),
        ("file/file", os.O_RDONLY, NotADirectoryError),
        ("file", os.O_CREAT | os.O_EXCL, FileExistsError),
        (".", os.O_WRONLY, IsADirectoryError),
        ("x" * 300, os.O_RDONLY, OSError),
    ],
)
@pytest.mark.parametrize("kind", [str, os.fsencode])
def test_open_fails(loop, tmp_path, name, flags, error, kind):
    (tmp_path / "file").touch()
    path = kind(tmp_path / name)
    raised = fails(loop, loop.open, path, flags)
    assert type(raised) is error
    assert raised.filename == path
    assert raised.strerror == os.strerror(raised.errno)


def test_open_without_permission(tmp_path):
    (tmp_path / "file").touch(mode=0)
    os.chmod(tmp_path, 0o755)
    _fault.run_script(
        """
        import os, sys, _fault
        os.chdir(sys.argv[1])
        _fault.become_unprivileged()
        from linux_event import Loop
        with Loop(entries=8) as loop:
            loop.open("file", os.O_RDONLY, on_error=lambda error: print(repr(error)))
            loop.run(60)
        """,
        tmp_path,
    ).check("PermissionError(13, 'Permission denied')")


def test_open_without_a_free_fd():
    _fault.run_script(
        """
        import os, _fault
        from linux_event import Loop
        with Loop() as loop:
            loop.timer(0.001, lambda watcher: None)
            loop.run(60)  # a loop that has slept needs no more fds of its own
            fds = _fault.fill_fds(0)
            operation = loop.open("/dev/null", os.O_RDONLY, on_error=lambda error: print(error.errno, error.filename))
            loop.run(60)
            os.close(fds.pop())
            operation = loop.open("/dev/null", os.O_RDONLY)
            loop.run(60)
            print(operation.result() >= 0)
        """
    ).check("24 /dev/null\nTrue")


@pytest.mark.parametrize(
    "arguments, keywords, error, named",
    [
        (("a\0b", 0), {}, ValueError, "null"),
        ((b"a\0b", 0), {}, ValueError, "null"),
        ((5, 0), {}, TypeError, "str, bytes or os.PathLike"),
        ((None, 0), {}, TypeError, "str, bytes or os.PathLike"),
        (("a", "r"), {}, TypeError, "flags"),
        (("a", -1), {}, ValueError, "flags"),
        (("a", 2**31), {}, ValueError, "flags"),
        (("a", 0, -1), {}, ValueError, "mode"),
        (("a", 0, 0o10000), {}, ValueError, "mode"),
        (("a", 0, "x"), {}, TypeError, "mode"),
        (("a", 0), {"dir_fd": -1}, ValueError, "fd"),
        (("a", 0), {"dir_fd": "x"}, TypeError, "fd"),
        (("a",), {}, TypeError, "arguments"),
    ],
)
def test_open_with_bad_arguments(loop, arguments, keywords, error, named):
    with pytest.raises(error, match=named):
        loop.open(*arguments, **keywords)
    assert loop.statistics().operations_in_flight == 0


def test_open_cancelled(loop):
    """Whatever the kernel does meanwhile, no fd is left."""
    before = None
    calls = []
    for iterations in range(3):
        calls.clear()
        operation = loop.open("/dev/null", os.O_RDONLY, callback=lambda result, error: calls.append((result, error)))
        for _ in range(iterations):
            if not operation.done():
                loop.run_once(0)
        if operation.cancel():
            finish(loop)
            assert operation.cancelled()
            assert calls[0][0] is None
        else:
            os.close(operation.result())
        assert len(calls) == 1
        before = before or open_fds()
        assert open_fds() == before


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_open_of_a_fifo_that_has_no_other_end(tmp_path, flags):
    """Whether the kernel opens it at once, refuses, or waits for the other end: the loop does not wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    with made_loop() as loop:
        operation = loop.open(tmp_path / "fifo", flags, timeout=0.01, on_error=lambda error: None)
        finish(loop)
        if operation.exception() is None:
            os.close(operation.result())
        else:
            assert operation.exception().errno in (errno.ETIMEDOUT, errno.ENXIO)
            assert operation.exception().filename == tmp_path / "fifo"
        loop.open(tmp_path / "fifo", flags, callback=lambda result, error: result is None or os.close(result))
        loop.run_once(0)


# --- close --------------------------------------------------------------------------------------------------------


def test_close(loop):
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    assert run(loop, loop.close, fd) is None
    assert fd not in open_fds()


def test_close_by_name_and_of_an_object(loop):
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    got = []
    loop.close(fd=fd, callback=lambda *result: got.append(result))
    assert fd in open_fds()
    finish(loop)
    assert got == [(None, None)]
    file = open("/dev/null", "rb", buffering=0)  # noqa: SIM115
    number = file.fileno()
    assert run(loop, loop.close, file) is None
    assert number not in open_fds()
    with contextlib.suppress(OSError):
        file.close()


def test_close_cancelled_before_it_is_submitted_closes_nothing(loop):
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    loop.close(fd).cancel()
    finish(loop)
    assert fd in open_fds()
    os.close(fd)


def test_close_fails(loop):
    loop.timer(0.001, lambda watcher: None)
    finish(loop)  # a loop that has slept opens no more fds of its own, which could have the same number
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    operation = loop.close(fd, on_error=lambda error: None)
    os.close(fd)
    finish(loop)
    assert operation.exception().errno == errno.EBADF
    assert operation.exception().filename == fd


@pytest.mark.parametrize(
    "fd, error", [(-1, ValueError), (None, TypeError), ("x", TypeError), (2**40, ValueError)], ids=repr
)
def test_close_with_bad_arguments(loop, fd, error):
    with pytest.raises(error, match="fd"):
        loop.close(fd)
    assert not loop.is_closed()
    with pytest.raises(OSError) as raised:
        loop.close(unused_fd())
    assert raised.value.errno == errno.EBADF


# --- read ---------------------------------------------------------------------------------------------------------


def test_read_offsets(loop, file):
    """-1: at the position, which moves on; others leave it where it is."""
    file.write(bytes(range(100)))
    file.seek(10)
    assert run(loop, loop.read, file, 5) == bytes(range(10, 15))
    assert file.tell() == 15
    assert run(loop, loop.read, file, 5, 50) == bytes(range(50, 55))
    assert file.tell() == 15
    assert run(loop, loop.read, file, 5, offset=-1) == bytes(range(15, 20))
    assert run(loop, loop.read, file, 5, 0) == bytes(range(5))
    assert file.tell() == 20


@pytest.mark.parametrize("size", [0, 1, 2, 49, 50, 51, 99, 100, 101, 200, 100_000, 10_000_000])
def test_read_sizes(loop, file, size):
    """Up to what is there; the object has exactly that size."""
    data = bytes(range(100))
    file.write(data)
    result = run(loop, loop.read, file, size, 0)
    assert type(result) is bytes
    assert result == data[:size]
    assert hash(result) == hash(data[:size])
    assert run(loop, loop.read, file, size, 100) == b""
    assert run(loop, loop.read, file, size, 2**40) == b""


def test_read_from_a_pipe(loop, pipe):
    pipe.put(b"abcdef")
    assert run(loop, loop.read, pipe.r, 3) == b"abc"
    assert run(loop, loop.read, pipe.r, 100) == b"def"
    pipe.close_write()
    assert run(loop, loop.read, pipe.r, 100) == b""


@pytest.mark.parametrize("blocking", [False, True])
def test_read_waits(loop, pipe, blocking):
    """Whether the fd is non-blocking makes no difference."""
    os.set_blocking(pipe.r, blocking)
    operation = loop.read(pipe.r, 10)
    loop.run_once(0)
    loop.run_once(0)
    assert not operation.done()
    pipe.put(b"data")
    finish(loop)
    assert operation.result() == b"data"


def test_read_at_a_high_offset(loop, tmp_path):
    """Files of more than 2 and more than 4 GiB: the hole costs no space."""
    with open(tmp_path / "sparse", "w+b", buffering=0) as file:
        for offset in (2**31 - 2, 2**31 + 5, 2**32 - 2, 2**32 + 5, 2**40):
            try:
                os.pwrite(file.fileno(), b"here", offset)
            except OSError as error:
                assert error.errno in (errno.EFBIG, errno.ENOSPC)
                continue
            assert run(loop, loop.read, file, 10, offset) == b"here"
            assert run(loop, loop.read, file, 2, offset + 2) == b"re"
            assert run(loop, loop.write, file, b"HERE", offset) == 4
            assert run(loop, loop.read, file, 6, offset - 2) == b"\0\0HERE"
            file.truncate(0)


@pytest.mark.parametrize("path", ["/proc/version", "/dev/zero", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_read_from_what_is_no_regular_file(loop, path):
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        pytest.skip("this machine has none")
    with file:
        result = run(loop, loop.read, file, 100, 0)
        assert 0 < len(result) <= 100
        assert result == (bytes(100) if path == "/dev/zero" else os.pread(file.fileno(), 100, 0))


def test_read_fails(loop, tmp_path, pipe):
    folder = os.open(tmp_path, os.O_DIRECTORY)
    try:
        error = fails(loop, loop.read, folder, 10)
        assert type(error) is IsADirectoryError
        assert error.filename == folder
    finally:
        os.close(folder)
    assert fails(loop, loop.read, pipe.w, 10).errno == errno.EBADF


def test_offsets_mean_nothing_where_there_is_no_position(loop, pipe):
    assert run(loop, loop.write, pipe.w, b"data", 1000) == 4
    assert run(loop, loop.read, pipe.r, 10, 1000) == b"data"


def test_a_file_that_is_truncated_while_it_is_read(loop, file):
    file.write(bytes(1000))
    operation = loop.read(file, 1000, 0)
    file.truncate(300)
    finish(loop)
    assert operation.result() == bytes(300)


@pytest.mark.parametrize(
    "arguments, error, named",
    [
        ((-1,), ValueError, "size"),
        ((2**31,), ValueError, "size"),
        ((2**70,), ValueError, "size"),
        (("1",), TypeError, "size"),
        ((1.0,), TypeError, "size"),
        ((1, -2), ValueError, "offset"),
        ((1, 2**63), ValueError, "offset"),
        ((1, None), TypeError, "offset"),
        ((), TypeError, "arguments"),
    ],
)
def test_read_with_bad_arguments(loop, file, arguments, error, named):
    with pytest.raises(error, match=named):
        loop.read(file, *arguments)
    assert loop.statistics().operations_in_flight == 0


@pytest.mark.skipif(_fault.IS_SANITIZED, reason="the sanitizer's own memory is beyond any limit")
def test_read_of_more_than_there_is_memory_for(file):
    """The largest size that is allowed: refused for lack of memory at the call, or read, but never a crash."""
    _fault.run_script(
        """
        import resource, sys
        from linux_event import Loop
        with Loop() as loop, open(sys.argv[1], "rb") as file:
            limits = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, limits[1]))
            try:
                loop.read(file, 0x7ffff000, 0)
            except MemoryError:
                print("MemoryError")
            operation = loop.read(file, 100, 0)
            loop.run(60)
            print(operation.result())
        resource.setrlimit(resource.RLIMIT_AS, limits)
        """,
        file.name,
    ).check("MemoryError\nb''")


# --- readinto -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(10),
        lambda: memoryview(bytearray(10)),
        lambda: memoryview(bytearray(20))[5:15],
        lambda: array.array("B", bytes(10)),
        lambda: mmap.mmap(-1, 10),
        lambda: memoryview(bytearray(10)).cast("H"),
    ],
    ids=["bytearray", "memoryview", "slice", "array", "mmap", "of other items"],
)
def test_readinto(loop, file, make):
    file.write(b"abcdefghijklmnop")
    buffer = make()
    assert run(loop, loop.readinto, file, buffer, 2) == 10
    assert bytes(buffer) == b"cdefghijkl"
    assert run(loop, loop.readinto, file, buffer, 12) == 4
    assert bytes(buffer) == b"mnopghijkl"
    assert run(loop, loop.readinto, file, buffer, 16) == 0
    file.seek(1)
    assert run(loop, loop.readinto, file, buffer) == 10
    assert file.tell() == 11


def test_readinto_nothing(loop, file):
    file.write(b"data")
    assert run(loop, loop.readinto, file, bytearray(), 0) == 0
    assert run(loop, loop.readinto, file, memoryview(bytearray(5))[5:], 0) == 0


@pytest.mark.parametrize("end", ["result", "error", "cancel", "timeout"])
def test_a_bytearray_cannot_be_resized_in_flight(loop, pipe, end):
    buffer = bytearray(10)
    released = []

    def callback(result, error):
        buffer.append(1)  # in the callback it is free
        released.append(error)

    operation = loop.readinto(
        pipe.w if end == "error" else pipe.r, buffer, -1, callback, timeout=0.01 if end == "timeout" else None
    )
    with pytest.raises(BufferError):
        buffer.append(1)
    if end == "cancel":
        loop.run_once(0)
        operation.cancel()
    elif end == "result":
        loop.run_once(0)
        pipe.put()
    with pytest.raises(BufferError):
        buffer.clear()
    finish(loop)
    assert len(released) == 1
    assert len(buffer) == 11
    assert (released[0] is None) == (end == "result")


@pytest.mark.parametrize("buffer", [b"bytes", memoryview(b"bytes"), memoryview(bytearray(10))[::2]], ids=repr)
def test_readinto_with_an_unfit_buffer(loop, pipe, buffer):
    with pytest.raises(BufferError):
        loop.readinto(pipe.r, buffer)
    assert loop.statistics().operations_in_flight == 0


@pytest.mark.parametrize("buffer", [None, 5, "text", [1]])
def test_readinto_with_no_buffer(loop, pipe, buffer):
    with pytest.raises(TypeError):
        loop.readinto(pipe.r, buffer)
    assert loop.statistics().operations_in_flight == 0


def test_a_call_that_is_refused_lets_go_of_the_buffer(loop, pipe):
    buffer = bytearray(10)
    for arguments, keywords in (((-5,), {}), ((2**63,), {}), ((-1,), {"timeout": -1}), ((-1, 5), {})):
        with pytest.raises((ValueError, TypeError)):
            loop.readinto(pipe.r, buffer, *arguments, **keywords)
        buffer.append(0)


# --- all of them --------------------------------------------------------------------------------------------------

METHODS = {
    "open": lambda loop, pipe: (loop.open, ("/dev/null", os.O_RDONLY)),
    "close": lambda loop, pipe: (loop.close, (os.dup(pipe.r),)),
    "read": lambda loop, pipe: (loop.read, (pipe.r, 1)),
    "readinto": lambda loop, pipe: (loop.readinto, (pipe.r, bytearray(1))),
    "write": lambda loop, pipe: (loop.write, (pipe.w, b"x")),
    "fsync": lambda loop, pipe: (loop.fsync, (pipe.r,)),
    "fallocate": lambda loop, pipe: (loop.fallocate, (pipe.r, 0, 0, 1)),
}


@pytest.mark.parametrize("name", METHODS)
def test_callback_forms_timeout_and_cancel_of_each(loop, pipe, name):
    """Exactly one call of one of them, whatever comes first; and all keywords are there."""
    for cancels in (False, True):
        for form in ("callback", "both"):
            calls = []
            method, arguments = METHODS[name](loop, pipe)
            pipe.put()

            def call(*result, calls=calls):
                calls.append(result)

            keywords = {"callback": call} if form == "callback" else {"on_success": call, "on_error": call}
            operation = method(*arguments, timeout=BOUND, **keywords)
            assert repr(operation).startswith(f"<Operation {name} ")
            if cancels:
                assert operation.cancel()
            finish(loop)
            assert len(calls) == 1
            assert operation.done()
            assert operation.cancelled() == cancels
            if name == "close" and cancels:
                os.close(arguments[0])
            if name == "open" and not cancels:
                os.close(operation.result())
            pipe.take()


def test_the_pipe_of_another_process(loop):
    """The other end is a child that writes in small pieces and exits."""
    pipe = Pipe()

    def child():
        for number in range(20):
            os.write(pipe.w, b"%02d" % number)

    pid = _fault.start_fork(child)
    pipe.close_write()
    got = []

    def callback(result, error):
        got.append(result)
        if result:
            loop.read(pipe.r, 100, -1, callback)

    loop.read(pipe.r, 100, -1, callback)
    finish(loop)
    assert b"".join(got) == b"".join(b"%02d" % number for number in range(20))
    assert _fault.wait_child(pid) == 0
    pipe.close()
