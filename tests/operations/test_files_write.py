"""Operations on files: write, fsync, fallocate."""

import array
import concurrent.futures
import contextlib
import errno
import os

import _fault
import pytest
from _support import finish, run_until, scaled

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


# --- write --------------------------------------------------------------------------------------------------------


def test_write_offsets(loop, file):
    assert run(loop, loop.write, file, b"abc") == 3
    assert file.tell() == 3
    assert run(loop, loop.write, file, b"xyz", 10) == 3
    assert file.tell() == 3
    assert run(loop, loop.write, file, b"def", offset=-1) == 3
    assert content(file) == b"abcdef\0\0\0\0xyz"


def test_write_appends(loop, tmp_path):
    with open(tmp_path / "log", "ab", buffering=0) as file:
        for number in range(5):
            assert run(loop, loop.write, file, b"%d" % number) == 1
        assert run(loop, loop.write, file, b"5", 0) == 1
    assert (tmp_path / "log").read_bytes() == b"012345"


@pytest.mark.parametrize(
    "data",
    [b"data", bytearray(b"data"), memoryview(b"xdatax")[1:5], array.array("H", b"data"), b""],
    ids=lambda data: type(data).__name__,
)
def test_write_buffers(loop, file, data):
    assert run(loop, loop.write, file, data, 0) == len(bytes(data))
    assert content(file) == bytes(data)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("size", [1, 65536, 65537, 1_000_003])
def test_all_of_it_is_written_where_a_pipe_takes_parts(loop, pipe, blocking, size):
    os.set_blocking(pipe.w, blocking)
    data = os.urandom(size)
    got = []
    operation = loop.write(pipe.w, data)
    loop.io(pipe.r, "r", lambda watcher, events: got.append(pipe.take(7919)), ref=False)
    finish(loop)
    assert operation.result() == size
    run_until(loop, lambda: len(b"".join(got)) == size)
    assert b"".join(got) == data


def test_a_large_file(loop, file):
    """More than one part of the page cache at a time; offset and position move on together."""
    size = scaled(50_000_000, least=1_000_000)
    data = os.urandom(1000) * (size // 1000)
    assert run(loop, loop.write, file, data, 10) == len(data)
    assert os.fstat(file.fileno()).st_size == len(data) + 10
    assert run(loop, loop.read, file, len(data), 10) == data


@pytest.mark.parametrize("end", ["cancel", "timeout", "reader gone"])
def test_a_write_that_ends_in_its_middle(loop, pipe, end):
    """Part of the data has been written; the buffer is free afterwards."""
    buffer = bytearray(1_000_000)
    errors = []
    operation = loop.write(pipe.w, buffer, timeout=0.01 if end == "timeout" else None, on_error=errors.append)
    run_until(loop, lambda: end == "timeout" or pipe.take(1000))
    with pytest.raises(BufferError) if not operation.done() else contextlib.nullcontext():
        buffer.append(1)
    if end == "cancel":
        operation.cancel()
    elif end == "reader gone":
        pipe.close_read()
    finish(loop)
    [error] = errors
    kinds = {"cancel": concurrent.futures.CancelledError, "timeout": TimeoutError, "reader gone": BrokenPipeError}
    assert type(error) is kinds[end]
    buffer.append(1)


def test_write_to_a_full_device(loop):
    with open("/dev/full", "wb", buffering=0) as file:
        error = fails(loop, loop.write, file, b"data")
        assert error.errno == errno.ENOSPC
        assert error.filename == file.fileno()
        assert run(loop, loop.write, file, b"") == 0


def test_write_to_a_full_disk(tmp_path):
    """Part of the data goes in; the error tells of the rest, and the file holds what fits."""
    result = _fault.run_script(
        """
        import os, sys, _fault
        from linux_event import Loop
        os.chdir("/")
        try:
            _fault.mount_small(sys.argv[1], 64 * 1024)
        except OSError as error:
            print("not permitted", error)
            sys.exit()
        fd = os.open(sys.argv[1] + "/file", os.O_CREAT | os.O_RDWR)
        data = os.urandom(200_000)
        with Loop() as loop:
            operation = loop.write(fd, data, on_error=lambda error: print(error.errno, error.filename == fd))
            loop.run(60)
            size = os.fstat(fd).st_size
            print(0 < size <= 65536, os.pread(fd, 200_000, 0) == data[:size])
            loop.fallocate(fd, 0, 0, 10 ** 6, on_error=lambda error: print(error.errno))
            loop.run(60)
            os.ftruncate(fd, 0)
            operation = loop.write(fd, data[:30_000], 0)
            loop.run(60)
            print(operation.result())
        """,
        tmp_path,
    )
    if result.stdout.startswith("not permitted"):
        pytest.skip(result.stdout)
    result.check("28 True\nTrue True\n28\n30000")


def test_write_beyond_the_file_size_limit(tmp_path):
    """What fits is written, then EFBIG; the signal that comes with it is ignored by Python."""
    _fault.run_script(
        """
        import os, resource, sys
        from linux_event import Loop
        fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
        with Loop() as loop:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            loop.write(fd, bytes(10_000), on_error=lambda error: print(error.errno))
            loop.run(60)
            print(os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_CUR))
            loop.write(fd, b"x", 5000, on_error=lambda error: print(error.errno))
            loop.run(60)
            operation = loop.write(fd, b"x", 0)
            loop.run(60)
            print(operation.result())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        """,
        tmp_path / "file",
    ).check("27\n4096 4096\n27\n1")


@pytest.mark.parametrize(
    "arguments, error, named",
    [
        ((None,), TypeError, "buffer|bytes-like"),
        (("text",), TypeError, "buffer|bytes-like"),
        ((5,), TypeError, "buffer|bytes-like"),
        ((b"x", -2), ValueError, "offset"),
        ((b"x", "0"), TypeError, "offset"),
        ((), TypeError, "arguments"),
    ],
)
def test_write_with_bad_arguments(loop, file, arguments, error, named):
    with pytest.raises(error, match=named):
        loop.write(file, *arguments)
    assert loop.statistics().operations_in_flight == 0


def test_write_of_a_buffer_with_gaps(loop, file):
    with pytest.raises(BufferError):
        loop.write(file, memoryview(b"abcdef")[::2])


def test_writes_of_many_at_once(loop, file):
    """Each at its own offset, in whatever order the kernel likes."""
    count = scaled(2000, least=100)
    operations = [loop.write(file, b"%07d\n" % number, number * 8) for number in range(count)]
    finish(loop)
    assert all(operation.result() == 8 for operation in operations)
    assert content(file) == b"".join(b"%07d\n" % number for number in range(count))


# --- fsync, fallocate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datasync", [False, True])
def test_fsync(loop, file, datasync):
    file.write(b"data")
    assert run(loop, loop.fsync, file, datasync=datasync) is None
    got = []
    loop.fsync(file.fileno(), lambda *result: got.append(result), datasync=datasync)
    finish(loop)
    assert got == [(None, None)]


def test_fsync_fails(loop, pipe):
    error = fails(loop, loop.fsync, pipe.r)
    assert error.errno == errno.EINVAL
    assert error.filename == pipe.r


@pytest.mark.parametrize("datasync", [1, None, "x"])
def test_fsync_with_bad_arguments(loop, file, datasync):
    with pytest.raises(TypeError, match="datasync"):
        loop.fsync(file, datasync=datasync)


def test_fallocate(loop, file):
    assert run(loop, loop.fallocate, file, 0, 0, 5000) is None
    assert os.fstat(file.fileno()).st_size == 5000
    assert run(loop, loop.fallocate, file, FALLOC_FL_KEEP_SIZE, 5000, 5000) is None
    assert os.fstat(file.fileno()).st_size == 5000
    os.pwrite(file.fileno(), b"x" * 5000, 0)
    run(loop, loop.fallocate, file, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset=1000, length=100)
    assert content(file) == b"x" * 1000 + bytes(100) + b"x" * 3900


def test_fallocate_fails(loop, pipe, file):
    assert fails(loop, loop.fallocate, pipe.w, 0, 0, 1).errno in (errno.ESPIPE, errno.ENODEV)
    assert fails(loop, loop.fallocate, file, 0, 2**62, 2**62).errno == errno.EFBIG
    assert fails(loop, loop.fallocate, file, 0x7FFFFFFF, 0, 1).errno in (errno.EOPNOTSUPP, errno.EINVAL)


@pytest.mark.parametrize(
    "arguments, error, named",
    [
        ((-1, 0, 1), ValueError, "mode"),
        (("x", 0, 1), TypeError, "mode"),
        ((0, -1, 1), ValueError, "offset"),
        ((0, 0, 0), ValueError, "length"),
        ((0, 0, 2**63), ValueError, "length"),
        ((0, 0, "1"), TypeError, "length"),
        ((0, 0), TypeError, "arguments"),
    ],
)
def test_fallocate_with_bad_arguments(loop, file, arguments, error, named):
    with pytest.raises(error, match=named):
        loop.fallocate(file, *arguments)
