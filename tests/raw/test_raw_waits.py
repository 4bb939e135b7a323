"""Raw requests that wait for children, futexes and epoll."""

import ctypes
import mmap
import os
import select
import struct
import subprocess
import sys
from array import array
from errno import EAGAIN, EBADF, ECHILD, EEXIST, EINVAL, ENOENT

import pytest


def lacks(driver, name, *args):
    """Whether the kernel does not have the operation; then the method says so."""
    if name in driver.ring.features:
        return False
    with pytest.raises(NotImplementedError, match="Linux 6"):
        getattr(driver.ring, name)(*args)
    return True


def test_waitid(driver):
    if lacks(driver, "waitid", os.P_ALL, 0, os.WEXITED):
        return
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(7)"], stdin=subprocess.PIPE)
    info = bytearray(128)
    request = driver.ring.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT, info=info)
    driver.turn()
    assert not request.done()
    child.stdin.close()
    assert driver.all(request) == [0]
    assert child.wait() == 7
    signo, _errno, _code = struct.unpack_from("=iii", info)
    pid, _uid, status = struct.unpack_from("=iIi", info, 16)
    assert (signo, pid, status) == (17, child.pid, 7)
    assert driver.do("waitid", os.P_PID, child.pid, os.WEXITED) == -ECHILD
    with pytest.raises(ValueError, match="128"):
        driver.ring.waitid(os.P_ALL, 0, os.WEXITED, info=bytearray(127))


def test_futexes(driver):
    memory = mmap.mmap(-1, 4096)
    if lacks(driver, "futex_wait", memory, 0):
        return
    assert driver.do("futex_wait", memory, 1) == -EAGAIN
    assert driver.do("futex_wake", memory) == 0
    waiting = [driver.ring.futex_wait(memory, 0) for _ in range(3)]
    masked = driver.ring.futex_wait(memory, 0, mask=2)
    driver.turn()
    assert driver.do("futex_wake", memory, 10, mask=1) == 3
    assert driver.all(*waiting) == [0, 0, 0]
    assert not masked.done()
    assert driver.do("futex_wake", memory, mask=2) == 1
    assert driver.all(masked) == [0]
    assert driver.do("futex_wait", memory, 0, futex_flags=3) == -EINVAL
    assert driver.do("futex_wake", memory, futex_flags=3) == -EINVAL
    memory.close()


def test_one_of_several_futexes(driver):
    words = (ctypes.c_uint32 * 3)(5, 6, 7)
    views = [memoryview(words).cast("B")[4 * place :] for place in range(3)]
    if lacks(driver, "futex_waitv", [(views[0], 5)]):
        return
    request = driver.ring.futex_waitv([(views[0], 5), (views[2], 7)])
    driver.turn()
    assert not request.done()
    assert driver.do("futex_wake", views[2]) == 1
    assert driver.all(request) == [1]
    assert driver.do("futex_waitv", [(views[0], 6)]) == -EAGAIN
    for wrong in ([], [(views[0], 5)] * 129):
        with pytest.raises(ValueError, match="waiters"):
            driver.ring.futex_waitv(wrong)


def test_what_is_no_futex(driver):
    if lacks(driver, "futex_wait", array("i", [0]), 0):
        return
    for wrong in (bytearray(3), memoryview(array("i", [0, 0])).cast("B")[1:]):
        with pytest.raises(ValueError, match="futex"):
            driver.ring.futex_wait(wrong, 0)
        with pytest.raises(ValueError, match="futex"):
            driver.ring.futex_wake(wrong)
    with pytest.raises(ValueError, match="mask"):
        driver.ring.futex_wait(array("i", [0]), 0, mask=0)


def test_epoll(driver, pipe):
    with select.epoll() as epoll:
        assert driver.do("epoll_ctl", epoll, 1, pipe.r, select.EPOLLIN, pipe.r) == 0
        assert driver.do("epoll_ctl", epoll, 1, pipe.r, select.EPOLLIN, pipe.r) == -EEXIST
        assert epoll.poll(0) == []
        pipe.put()
        assert epoll.poll(0) == [(pipe.r, select.EPOLLIN)]
        size = 12 if os.uname().machine == "x86_64" else 16
        if not lacks(driver, "epoll_wait", epoll, bytearray(size)):
            buffer = bytearray(4 * size)
            assert driver.do("epoll_wait", epoll, buffer) == 1
            assert struct.unpack_from("=I", buffer)[0] == select.EPOLLIN
            assert struct.unpack_from("=Q", buffer, size - 8)[0] == pipe.r
            assert driver.do("epoll_wait", pipe.r, buffer) == -EINVAL
            with pytest.raises(ValueError, match="bytes"):
                driver.ring.epoll_wait(epoll, bytearray(size - 1))
        assert driver.do("epoll_ctl", epoll, 3, pipe.r, select.EPOLLOUT) == 0
        assert epoll.poll(0) == []
        assert driver.do("epoll_ctl", epoll, 2, pipe.r) == 0
        assert driver.do("epoll_ctl", epoll, 2, pipe.r) == -ENOENT


def test_madvise(driver):
    memory = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[0] = 1
    assert driver.do("madvise", memory, mmap.MADV_WILLNEED) in (0, -EBADF)
    assert driver.do("madvise", memory, mmap.MADV_DONTNEED) == 0
    assert memory[0] == 0
    assert driver.do("madvise", memory, 12345) == -EINVAL
    memory.close()
