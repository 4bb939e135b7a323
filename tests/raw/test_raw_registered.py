"""Registered files and buffers, workers, restrictions."""

import gc
import mmap
import os
from array import array
from errno import EACCES, EBADF, EBUSY, ENXIO

import pytest
from _raw import driven, made_ring
from _support import BOUND

from linux_event import Loop, Ring


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    with path.open("r+b", buffering=0) as file:
        yield file


def errno_of(call, *args):
    with pytest.raises(OSError) as caught:
        call(*args)
    return caught.value.errno


def test_files_stay_open_in_the_table(driver, tmp_path):
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    driver.ring.register_files([None, fd, -1])
    os.close(fd)
    assert driver.do("write", 1, b"data", 0, flags=Ring.FIXED_FILE) == 4
    assert (tmp_path / "file").read_bytes() == b"data"
    assert driver.do("write", 0, b"data", 0, flags=Ring.FIXED_FILE) == -EBADF
    assert driver.do("write", 3, b"data", 0, flags=Ring.FIXED_FILE) == -EBADF
    assert errno_of(driver.ring.register_files, [0]) == EBUSY
    driver.ring.unregister_files()
    assert driver.do("write", 1, b"data", 0, flags=Ring.FIXED_FILE) == -EBADF
    assert errno_of(driver.ring.unregister_files) == ENXIO


def test_changing_the_table(driver, file, pipe):
    assert errno_of(driver.ring.register_files_update, 0, [file]) == ENXIO
    driver.ring.register_files(3)
    assert driver.ring.register_files_update(1, [file, pipe.w]) == 2
    buffer = bytearray(5)
    assert driver.do("read", 1, buffer, 7, flags=Ring.FIXED_FILE) == 5
    assert bytes(buffer) == bytes(range(7, 12))
    assert driver.ring.register_files_update(1, [None]) == 1
    assert driver.do("read", 1, buffer, 7, flags=Ring.FIXED_FILE) == -EBADF
    assert driver.do("files_update", 0, [file, -1, None]) == 3
    assert driver.do("read", 0, buffer, 0, flags=Ring.FIXED_FILE) == 5
    assert driver.do("write", 2, b"x", flags=Ring.FIXED_FILE) == -EBADF
    assert driver.do("files_update", 3, [file]) < 0


def test_files_that_are_none(driver):
    cases = (
        ([], ValueError),
        ([-2], ValueError),
        (["x"], TypeError),
        (5.0, TypeError),
        (0, ValueError),
        (True, TypeError),
    )
    for wrong, error in cases:
        with pytest.raises(error):
            driver.ring.register_files(wrong)
    fd = os.dup(0)
    os.close(fd)
    assert errno_of(driver.ring.register_files, [fd]) == EBADF
    with pytest.raises(ValueError, match="empty"):
        driver.ring.register_files_update(0, [])


def test_opening_reading_and_closing_in_one_chain(driver, file):
    """What `read_file` of a loop is made of: a direct descriptor lives from link to link."""
    driver.ring.register_files(1)
    buffer = bytearray(256)
    requests = [
        driver.ring.openat(None, file.name, os.O_RDONLY, file_index=0, flags=Ring.IO_LINK),
        driver.ring.read(0, buffer, 0, flags=Ring.FIXED_FILE | Ring.IO_HARDLINK),
        driver.ring.close(0, flags=Ring.FIXED_FILE),
    ]
    assert driver.all(*requests) == [0, 256, 0]
    assert buffer == bytes(range(256))
    assert driver.do("read", 0, buffer, 0, flags=Ring.FIXED_FILE) == -EBADF


@pytest.mark.parametrize("who_first", ["loop", "user"])
def test_the_table_of_a_loop(who_first, file):
    """Whole files are read either way, and nobody takes the loop's table away."""
    with driven("loop") as driver:
        if who_first == "user":
            driver.ring.register_files([file])
        told = []
        driver.loop.read_file(file.name, lambda result, error: told.append((result, error)))
        driver.until(lambda: told)
        assert told == [(bytes(range(256)), None)]
        if who_first == "user":
            assert driver.do("read", 0, bytearray(5), 0, flags=Ring.FIXED_FILE) == 5
            driver.ring.unregister_files()
            return
        for method, args in (
            ("register_files", ([file],)),
            ("register_files_update", (0, [file])),
            ("files_update", (0, [file])),
            ("unregister_files", ()),
        ):
            with pytest.raises(RuntimeError, match="whole files"):
                getattr(driver.ring, method)(*args)


# -- Buffers -----------------------------------------------------------------------------------------------------------


def test_registered_buffers_are_held(driver):
    buffers = [bytearray(100), array("q", bytes(800)), mmap.mmap(-1, 4096)]
    driver.ring.register_buffers(buffers)
    for change in (lambda: buffers[0].append(1), lambda: buffers[1].append(1), buffers[2].close):
        with pytest.raises(BufferError):
            change()
    assert errno_of(driver.ring.register_buffers, [bytearray(1)]) == EBUSY
    driver.ring.unregister_buffers()
    buffers[0].append(1)
    buffers[2].close()
    assert errno_of(driver.ring.unregister_buffers) == ENXIO
    with pytest.raises(ValueError, match="index"):
        driver.ring.read_fixed(0, 0, 1)


@pytest.mark.parametrize("kind", ["alone", "loop"])
def test_closing_lets_go_of_registered_buffers(kind):
    buffer = bytearray(100)
    with driven(kind) as driver:
        driver.ring.register_buffers([buffer])
        driver.all(driver.ring.nop())
        with pytest.raises(BufferError):
            buffer.append(1)
    buffer.append(1)


@pytest.mark.parametrize("kind", ["alone", "loop"])
def test_a_request_keeps_its_registered_buffer(kind, pipe):
    buffer = bytearray(100)
    with driven(kind) as driver:
        driver.ring.register_buffers([buffer])
        request = driver.ring.read_fixed(pipe.r, 0, 10)
        driver.turn()
        driver.ring.unregister_buffers()
        with pytest.raises(BufferError):
            buffer.append(1)
        pipe.put(b"late")
        assert driver.all(request) == [4]
        assert buffer[:4] == b"late"
        buffer.append(1)


def test_buffers_that_are_none(driver):
    cases = (
        ([], ValueError),
        ([bytearray(1)] * 16385, ValueError),
        (bytearray(5), TypeError),
        ("x", TypeError),
        ([5], TypeError),
        ([b"read-only"], BufferError),
        ([memoryview(bytearray(10))[::2]], BufferError),
        (5, TypeError),
    )
    for wrong, error in cases:
        with pytest.raises(error):
            driver.ring.register_buffers(wrong)
    assert errno_of(driver.ring.unregister_buffers) == ENXIO


# -- Workers -----------------------------------------------------------------------------------------------------------


def test_workers_are_limited(driver):
    driver.all(driver.ring.nop())
    before = driver.ring.register_iowq_max_workers(3, 4)
    assert all(count > 0 for count in before)
    assert driver.ring.register_iowq_max_workers(0, 0) == (3, 4)
    driver.ring.register_iowq_max_workers(*before)
    for wrong in (-1, 1 << 32):
        with pytest.raises(ValueError, match="bounded"):
            driver.ring.register_iowq_max_workers(wrong, 1)


# -- Restrictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("nop", "read"), (["IORING_OP_NOP"], ("READ",)), ({"nop"}, "read")])
def test_what_was_not_allowed_is_refused(driver, pipe, names, tmp_path):
    driver.ring.restrict(*names)
    pipe.put()
    assert driver.do("read", pipe.r, bytearray(1)) == 1
    assert driver.do("openat", None, tmp_path, os.O_RDONLY) == -EACCES
    assert driver.do("write", pipe.w, b"x") == -EACCES
    assert driver.do("nop", flags=Ring.ASYNC) == 0
    requests = [driver.ring.nop(flags=Ring.IO_LINK), driver.ring.nop()]
    assert driver.all(*requests) == [0, 0]
    assert errno_of(driver.ring.register_files, [pipe.r]) == EACCES
    with pytest.raises(RuntimeError, match="before"):
        driver.ring.restrict("nop")


def test_registrations_can_be_allowed(driver, pipe):
    driver.ring.register_buffers([bytearray(10)])
    driver.ring.restrict("read_fixed", "cancel", registrations=True)
    driver.all(driver.ring.read_fixed(pipe.r, 0, 0))
    driver.ring.unregister_buffers()
    driver.ring.register_files([pipe.r])


def test_a_restricted_loop_does_its_own_things(pipe):
    with Loop() as loop:
        loop.ring.restrict("nop")
        told = []
        loop.io(pipe.r, "r", lambda watcher, events: (told.append("io"), watcher.stop()))
        loop.timer(0.001, lambda timer: told.append("timer"))
        signal = loop.signal("USR1", lambda watcher, number: (told.append("signal"), loop.stop()))
        loop.read(pipe.r, 1, callback=lambda result, error: told.append(error.errno))
        loop.timer(0.002, lambda timer: (pipe.put(), os.kill(os.getpid(), 10)))
        loop.run(BOUND)
        assert sorted(map(str, told)) == sorted(["io", "timer", "signal", str(EACCES)])
        signal.destroy()
        assert loop.fileno() >= 0


def test_it_is_too_late_or_wrong(pipe):
    with made_ring(8) as ring:
        ring.restrict("nop")
        assert errno_of(ring.restrict, "nop") == EBUSY
    with made_ring(8) as ring:
        with pytest.raises(ValueError, match="nonsense"):
            ring.restrict("nonsense")
        for wrong in (5, b"nop", None):
            with pytest.raises(TypeError, match="names"):
                ring.restrict(wrong)
        with pytest.raises(TypeError, match="registrations"):
            ring.restrict("nop", registrations=1)
        ring.submit()
        with pytest.raises(RuntimeError, match="first use"):
            ring.restrict("nop")


def test_nothing_is_allowed(driver, pipe):
    driver.ring.restrict()
    assert driver.do("nop") == -EACCES
    assert driver.do("poll_add", pipe.w, 4) == 4


def test_a_table_of_a_ring_that_is_dropped(tmp_path):
    buffer = bytearray(10)
    ring = Ring(8)
    ring.register_buffers([buffer])
    with pytest.warns(ResourceWarning, match="unclosed <Ring open"):
        del ring
        gc.collect()
    buffer.append(1)
