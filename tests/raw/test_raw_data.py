"""Raw requests that move data of files, each compared with what the system calls do."""

import os
from array import array
from errno import EBADF, EFBIG, EINVAL, EISDIR, ESPIPE

import pytest

from linux_event import Ring

PATTERN = bytes(range(256)) * 32


@pytest.fixture
def file(tmp_path):
    """An fd of a file with PATTERN, for reading and writing."""
    path = tmp_path / "file"
    path.write_bytes(PATTERN)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def folder(tmp_path):
    """An fd of a folder, which can be neither read nor written."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def content(fd):
    return os.pread(fd, 1 << 20, 0)


def test_read(driver, file, folder):
    buffer = bytearray(100)
    assert driver.do("read", file, buffer, 300) == 100
    assert bytes(buffer) == PATTERN[300:400]
    assert driver.do("read", file, buffer) == 100  # at the current position
    assert bytes(buffer) == PATTERN[:100]
    assert os.lseek(file, 0, os.SEEK_CUR) == 100
    assert driver.do("read", file, memoryview(buffer)[10:20], len(PATTERN) - 5) == 5
    assert bytes(buffer[10:15]) == PATTERN[-5:]
    assert driver.do("read", file, buffer, 1 << 40) == 0
    assert driver.do("read", folder, buffer) == -EISDIR


def test_readv(driver, file, folder):
    buffers = [bytearray(3), bytearray(0), array("B", bytes(5))]
    assert driver.do("readv", file, buffers, 1) == 8
    assert b"".join(map(bytes, buffers)) == PATTERN[1:9]
    assert driver.do("readv", file, [], 0) == 0
    assert driver.do("readv", folder, buffers) == -EISDIR


def test_write(driver, file, pipe):
    assert driver.do("write", file, b"hello", 10) == 5
    assert content(file) == PATTERN[:10] + b"hello" + PATTERN[15:]
    assert driver.do("write", file, array("i", [1, 2]), 0) == 8
    assert content(file)[:8] == array("i", [1, 2]).tobytes()
    assert driver.do("write", pipe.r, b"x") == -EBADF  # not open for writing
    assert (
        driver.do("write", pipe.w, b"x", 5) == -ESPIPE or pipe.take() == b"x"
    )  # the kernel ignores the offset, or not


def test_writev(driver, file, pipe):
    assert driver.do("writev", file, [b"ab", bytearray(b"c"), b""], 2) == 3
    assert content(file)[:6] == PATTERN[:2] + b"abc" + PATTERN[5:6]
    assert driver.do("writev", pipe.r, [b"x"]) == -EBADF


def test_the_flags_of_preadv2(driver, file, folder):
    assert driver.do("write", file, b"end", 0, rw_flags=os.RWF_APPEND) == 3
    assert content(file) == PATTERN + b"end"
    assert driver.do("read", file, bytearray(1), 0, rw_flags=1 << 30) < 0


def test_fixed_buffers(driver, file, folder):
    buffers = [bytearray(64), bytearray(4096)]
    driver.ring.register_buffers(buffers)
    assert driver.do("read_fixed", file, 1, 100, 50, start=10) == 100
    assert bytes(buffers[1]) == bytes(10) + PATTERN[50:150] + bytes(4096 - 110)
    buffers[0][:3] = b"abc"
    assert driver.do("write_fixed", file, 0, 2, 7, start=1) == 2
    assert content(file)[:10] == PATTERN[:7] + b"bc" + PATTERN[9:10]
    assert driver.do("read_fixed", folder, 0, 8) == -EISDIR
    assert driver.do("write_fixed", folder, 0, 8) == -EBADF


@pytest.mark.parametrize(
    ("index", "size", "start", "named"),
    [
        (2, 1, 0, "index"),
        (0, 65, 0, "size"),
        (0, 1, 64, "size"),
        (0, 64, 1, "size"),
        (0, 0, 65, "start"),
        (1, -1, 0, "size"),
    ],
)
def test_what_is_not_within_a_fixed_buffer_is_refused(driver, file, index, size, start, named):
    driver.ring.register_buffers([bytearray(64), bytearray(64)])
    with pytest.raises(ValueError, match=named):
        driver.ring.read_fixed(file, index, size, start=start)
    with pytest.raises(ValueError, match="index"):
        driver.ring.write_fixed(file, -1, 1)


def test_fixed_vectors(driver, file, folder):
    if "READV_FIXED" not in driver.ring.features:
        with pytest.raises(NotImplementedError, match=r"6\.15"):
            driver.ring.readv_fixed(file, 0, [])
        return
    buffer = bytearray(4096)
    driver.ring.register_buffers([buffer])
    assert driver.do("readv_fixed", file, 0, [(100, 10), (0, 5)], 20) == 15
    assert bytes(buffer[100:110] + buffer[:5]) == PATTERN[20:35]
    assert driver.do("writev_fixed", file, 0, [(0, 1), (100, 2)], 0) == 3
    assert content(file)[:3] == bytes([PATTERN[30], PATTERN[20], PATTERN[21]])
    assert driver.do("readv_fixed", folder, 0, [(0, 1)]) == -EISDIR
    assert driver.do("writev_fixed", folder, 0, [(0, 1)]) == -EBADF


def test_splice_and_tee(driver, file, pipe):
    assert driver.do("splice", file, pipe.w, 100, 50) == 100
    assert os.lseek(file, 0, os.SEEK_CUR) == 0
    r, w = os.pipe2(os.O_CLOEXEC)
    try:
        assert driver.do("tee", pipe.r, w, 60) == 60
        assert os.read(r, 1000) == PATTERN[50:110]
    finally:
        os.close(r)
        os.close(w)
    assert driver.do("splice", pipe.r, file, 100, offset_out=0) == 100
    assert content(file)[:100] == PATTERN[50:150]
    assert driver.do("splice", file, file, 100) == -EINVAL  # neither is a pipe
    assert driver.do("tee", file, pipe.w, 1) == -EINVAL


def test_splice_from_a_direct_descriptor(driver, file, pipe):
    driver.ring.register_files([file, pipe.w])
    assert driver.do("splice", 0, pipe.w, 5, 3, splice_flags=Ring.SPLICE_F_FD_IN_FIXED) == 5
    assert driver.do("splice", file, 1, 2, 0, flags=Ring.FIXED_FILE) == 2
    assert pipe.take() == PATTERN[3:8] + PATTERN[:2]


def test_pipe(driver):
    if "PIPE" not in driver.ring.features:
        with pytest.raises(NotImplementedError, match=r"6\.16"):
            driver.ring.pipe(array("i", [0, 0]))
        return
    fds = array("i", [0, 0])
    assert driver.do("pipe", fds, os.O_NONBLOCK) == 0
    assert not os.get_inheritable(fds[0])
    assert not os.get_blocking(fds[1])
    os.write(fds[1], b"through")
    assert os.read(fds[0], 10) == b"through"
    for fd in fds:
        os.close(fd)
    assert driver.do("pipe", fds, os.O_APPEND) == -EINVAL
    driver.ring.register_files(4)
    assert driver.do("pipe", fds, file_index=1) >= 0
    assert driver.do("write", 2, b"x", flags=Ring.FIXED_FILE) == 1
    for wrong in (bytearray(4), bytearray(12)):
        with pytest.raises(ValueError, match="8 bytes"):
            driver.ring.pipe(wrong)


def test_fixed_fd_install(driver, file):
    if "FIXED_FD_INSTALL" not in driver.ring.features:
        return
    driver.ring.register_files([file, None])
    fd = driver.do("fixed_fd_install", 0)
    assert os.path.sameopenfile(fd, file)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert driver.do("fixed_fd_install", 1) == -EBADF


def test_close(driver, tmp_path):
    r, w = os.pipe2(os.O_CLOEXEC)
    driver.ring.register_files([r])
    assert driver.do("close", w) == 0
    with pytest.raises(OSError, match=str(EBADF)):
        os.fstat(w)
    with pytest.raises(OSError, match=str(EBADF)):
        driver.ring.close(w)
    assert driver.do("close", 0, flags=Ring.FIXED_FILE) == 0
    assert driver.do("close", 0, flags=Ring.FIXED_FILE) == -EBADF
    os.close(r)


def test_fsync_and_sync_file_range(driver, file, pipe):
    assert driver.do("fsync", file) == 0
    assert driver.do("fsync", file, fsync_flags=Ring.FSYNC_DATASYNC, offset=5, length=10) == 0
    assert driver.do("fsync", pipe.w) == -EINVAL
    assert driver.do("sync_file_range", file, 0, 0, sync_flags=7) == 0
    assert driver.do("sync_file_range", pipe.w, 0, 0) == -ESPIPE


def test_space(driver, file, pipe):
    assert driver.do("fallocate", file, 0, 0, 10000) == 0
    assert os.fstat(file).st_size == 10000
    assert driver.do("fallocate", file, 0, 0, 0) == -EINVAL
    assert driver.do("fadvise", file, 0, 0, os.POSIX_FADV_WILLNEED) == 0
    assert driver.do("fadvise", pipe.r, 0, 0, os.POSIX_FADV_WILLNEED) == -ESPIPE
    if "FTRUNCATE" in driver.ring.features:
        assert driver.do("ftruncate", file, 17) == 0
        assert content(file) == PATTERN[:17]
        assert driver.do("ftruncate", pipe.w, 0) == -EINVAL
        assert driver.do("ftruncate", file, (1 << 63) - 1) in (-EFBIG, -EINVAL)


def test_read_from_buffers_that_were_provided(driver, pipe):
    memory = bytearray(40)
    assert driver.do("provide_buffers", memory, 10, 4, 7, 100) == 0
    told = []
    pipe.put(b"some data")
    driver.ring.read(pipe.r, 0, -1, lambda *said: told.append(said), group=7)
    driver.until(lambda: told)
    res, flags = told[0]
    assert res == 9
    assert flags & Ring.CQE_F_BUFFER
    place = (flags >> Ring.CQE_BUFFER_SHIFT) - 100
    assert memory[10 * place : 10 * place + 9] == b"some data"
    assert driver.do("remove_buffers", 100, 7) == 3
    assert driver.do("read", pipe.r, 0, group=7) < 0
    with pytest.raises(BufferError):
        memory.append(1)


def test_read_multishot(driver, pipe):
    if "READ_MULTISHOT" not in driver.ring.features:
        with pytest.raises(NotImplementedError, match=r"6\.7"):
            driver.ring.read_multishot(pipe.r, 1, print)
        return
    told = []
    assert driver.do("provide_buffers", bytearray(64), 16, 4, 1) == 0
    request = driver.ring.read_multishot(pipe.r, 1, lambda *said: told.append(said))
    for count in (1, 2):
        pipe.put(b"x" * 5)
        driver.until(lambda count=count: len(told) >= count)
    assert [res for res, flags in told[:2]] == [5, 5]
    request.cancel()
    driver.until(request.done)
    driver.until(lambda: not told[-1][1] & Ring.CQE_F_MORE)
    with pytest.raises(TypeError, match="callback"):
        driver.ring.read_multishot(pipe.r, 1)
