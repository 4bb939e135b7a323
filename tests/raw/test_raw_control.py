"""Raw requests about requests: readiness, time, cancellation, links, messages."""

import select
import threading
import time
from errno import EALREADY, EBADFD, ECANCELED, EINVAL, ENOENT, ETIME

import pytest
from _raw import driven, made_ring
from _support import BOUND

from linux_event import LoopClosedError, Ring

POLLIN = select.POLLIN


def test_nop(driver):
    assert driver.do("nop") == 0
    assert driver.do("nop", flags=Ring.ASYNC) == 0


def test_drain(pipe):
    with driven("alone") as driver:
        reading = driver.ring.read(pipe.r, bytearray(1))
        last = driver.ring.nop(flags=Ring.IO_DRAIN)
        driver.turn()
        assert not last.done()
        pipe.put()
        assert driver.all(reading, last) == [1, 0]
        driver.ring.read(pipe.r, bytearray(1))
        driver.ring.nop(flags=Ring.IO_DRAIN)
        driver.ring.submit()
    with driven("loop") as driver, pytest.raises(ValueError, match="IO_DRAIN"):
        driver.ring.nop(flags=Ring.IO_DRAIN)


@pytest.mark.parametrize("flags", [-1, 32, 128, 1 << 70, "1", None, True])
def test_flags_that_are_none(driver, flags):
    with pytest.raises((ValueError, TypeError), match="flags"):
        driver.ring.nop(flags=flags)


# -- Readiness ---------------------------------------------------------------------------------------------------------


def test_poll_once(driver, pipe):
    request = driver.ring.poll_add(pipe.r, POLLIN)
    driver.turn()
    assert not request.done()
    pipe.put()
    assert driver.all(request) == [POLLIN]
    pipe.close_write()
    pipe.take()
    assert driver.do("poll_add", pipe.r, 0) == select.POLLHUP
    driver.ring.register_files([pipe.r])
    assert driver.do("poll_add", 0, 0, flags=Ring.FIXED_FILE) == select.POLLHUP
    assert driver.do("poll_add", 1, 0, flags=Ring.FIXED_FILE) < 0


def test_poll_many_times(driver, pipe):
    told = []
    request = driver.ring.poll_add(pipe.r, POLLIN, lambda *said: told.append(said), multishot=True)
    for count in range(1, 6):
        driver.turn() if count == 1 else None
        pipe.put()
        driver.until(lambda count=count: len(told) == count)
    assert all(said == (POLLIN, Ring.CQE_F_MORE) for said in told)
    assert driver.do("poll_remove", request) == 0
    assert driver.all(request) == [-ECANCELED]
    assert told[5:] == [(-ECANCELED, 0)]
    with pytest.raises(TypeError, match="callback"):
        driver.ring.poll_add(pipe.r, POLLIN, multishot=True)


def test_poll_update(driver, pipe):
    request = driver.ring.poll_add(pipe.w, select.POLLPRI)
    driver.turn()
    assert driver.do("poll_update", request, select.POLLOUT) == 0
    assert driver.all(request) == [select.POLLOUT]
    for method, args in (("poll_update", (POLLIN,)), ("poll_remove", ())):
        assert driver.do(method, request, *args) == -ENOENT


# -- Time --------------------------------------------------------------------------------------------------------------


def test_timeout(driver):
    begin = time.monotonic()
    assert driver.do("timeout", 0.02) == -ETIME
    assert time.monotonic() - begin >= 0.02
    assert driver.do("timeout", time.monotonic() + 0.01, timeout_flags=Ring.TIMEOUT_ABS) == -ETIME
    assert driver.do("timeout", 0, timeout_flags=Ring.TIMEOUT_BOOTTIME) == -ETIME
    assert driver.do("timeout", 1, timeout_flags=Ring.TIMEOUT_BOOTTIME | Ring.TIMEOUT_REALTIME) == -EINVAL
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="after"):
            driver.ring.timeout(wrong)
    with pytest.raises(TypeError, match="after"):
        driver.ring.timeout("1")


def test_a_timeout_that_counts(driver):
    request = driver.ring.timeout(BOUND, count=2)
    driver.all(driver.ring.nop(), driver.ring.nop())
    assert driver.all(request) == [0]


def test_a_timeout_many_times(driver):
    told = []
    request = driver.ring.timeout(0.002, lambda *said: told.append(said), count=3, timeout_flags=Ring.TIMEOUT_MULTISHOT)
    driver.until(request.done)
    if told[0][0] != -EINVAL:  # before Linux 6.4
        assert [res for res, flags in told] == [-ETIME] * 3
        assert [bool(flags & Ring.CQE_F_MORE) for res, flags in told] == [True, True, False]


def test_changing_a_timeout(driver):
    request = driver.ring.timeout(BOUND)
    driver.turn()
    assert driver.do("timeout_update", request, 0.001) == 0
    assert driver.all(request) == [-ETIME]
    assert driver.do("timeout_update", request, 1) == -ENOENT
    other = driver.ring.timeout(BOUND)
    driver.turn()
    assert driver.do("timeout_remove", other) == 0
    assert driver.all(other) == [-ECANCELED]
    assert driver.do("timeout_remove", other) == -ENOENT


def test_link_timeout(driver, pipe):
    reading = driver.ring.read(pipe.r, bytearray(1), flags=Ring.IO_LINK)
    limit = driver.ring.link_timeout(0.001)
    assert driver.all(reading, limit) == [-ECANCELED, -ETIME]
    pipe.put()
    reading = driver.ring.read(pipe.r, bytearray(1), flags=Ring.IO_LINK)
    limit = driver.ring.link_timeout(BOUND)
    assert driver.all(reading, limit) == [1, -ECANCELED]
    assert driver.do("link_timeout", 1) == -EINVAL  # of nothing
    reading = driver.ring.read(pipe.r, bytearray(1), flags=Ring.IO_LINK)
    limit = driver.ring.link_timeout(BOUND)
    driver.turn()
    assert driver.do("timeout_update", limit, 0.001) == 0
    assert driver.all(reading, limit) == [-ECANCELED, -ETIME]


# -- Cancellation ------------------------------------------------------------------------------------------------------


def test_cancel(driver, pipe):
    request = driver.ring.read(pipe.r, bytearray(1))
    driver.turn()
    assert driver.do("cancel", request) == 0
    assert driver.all(request) == [-ECANCELED]
    assert not request.cancelled()  # the kernel says so, not we
    assert driver.do("cancel", request) == -ENOENT


def test_cancel_by_fd(driver, pipe):
    requests = [driver.ring.read(pipe.r, bytearray(1)) for _ in range(5)]
    driver.turn()
    assert driver.do("cancel", pipe.r, cancel_flags=Ring.ASYNC_CANCEL_ALL) == 5
    assert driver.all(*requests) == [-ECANCELED] * 5
    assert driver.do("cancel", pipe.r) == -ENOENT
    driver.ring.register_files([pipe.r])
    request = driver.ring.read(0, bytearray(1), flags=Ring.FIXED_FILE)
    driver.turn()
    assert driver.do("cancel", 0, flags=Ring.FIXED_FILE) in (0, 1)
    assert driver.all(request) == [-ECANCELED]


def test_a_cancel_that_comes_too_late(driver):
    request = driver.ring.nop()
    assert driver.do("cancel", request) in (-ENOENT, -EALREADY)
    assert driver.all(request) == [0]


@pytest.mark.parametrize("method", ["poll_remove", "timeout_remove", "cancel"])
def test_a_request_of_another_ring(driver, method):
    with made_ring(8) as other:
        request = other.nop()
        with pytest.raises(ValueError, match="this ring"):
            getattr(driver.ring, method)(request)
        other.submit_and_wait()
        other.reap()
    with pytest.raises(TypeError):
        getattr(driver.ring, method)(None)


# -- Links -------------------------------------------------------------------------------------------------------------


def test_linked_requests_run_one_after_the_other(driver, pipe):
    buffer = bytearray(4)
    order = []
    writing = driver.ring.write(pipe.w, b"data", -1, lambda *said: order.append("write"), flags=Ring.IO_LINK)
    reading = driver.ring.read(pipe.r, buffer, -1, lambda *said: order.append("read"))
    other = driver.ring.nop()
    assert driver.all(writing, reading, other) == [4, 4, 0]
    assert order == ["write", "read"]
    assert buffer == b"data"


@pytest.mark.parametrize(("flag", "rest"), [(Ring.IO_LINK, -ECANCELED), (Ring.IO_HARDLINK, 0)])
def test_a_failure_in_a_chain(driver, pipe, flag, rest):
    first = driver.ring.nop(flags=flag)
    failing = driver.ring.read(pipe.r, bytearray(1), 0, rw_flags=1 << 30, flags=flag)  # no such flag
    last = [driver.ring.nop(flags=flag), driver.ring.nop()]
    free = driver.ring.nop()
    results = driver.all(first, failing, *last, free)
    if results[1] < 0 and flag == Ring.IO_LINK and results[0] == -ECANCELED:
        results[0] = 0  # a chain whose entry is refused is not begun at all
    assert results[1] < 0
    assert results[4] == 0
    assert results[2:4] in ([rest, rest], [-ECANCELED, -ECANCELED])


def test_a_link_that_leads_nowhere(driver, pipe):
    request = driver.ring.read(pipe.r, bytearray(1), flags=Ring.IO_LINK)
    driver.turn()
    other = driver.ring.nop()
    assert driver.all(other) == [0]
    assert not request.done()
    pipe.put()
    assert driver.all(request) == [1]


def test_watchers_between_the_links_are_not_linked(pipe):
    with driven("loop") as driver:
        events = []
        first = driver.ring.timeout(0.05, flags=Ring.IO_HARDLINK)
        driver.loop.io(pipe.w, "w", lambda watcher, got: (events.append(first.done()), watcher.stop()))
        second = driver.ring.nop()
        driver.loop.run_once()
        assert events == [False]
        assert not second.done()
        driver.all(first, second)


def test_a_cancelled_link_keeps_its_place(driver, pipe):
    requests = [driver.ring.nop(flags=Ring.IO_LINK) for _ in range(3)]
    requests.append(driver.ring.nop())
    assert requests[1].cancel()
    driver.until(lambda: all(request.done() for request in requests))
    driver.until(lambda: driver.ring.statistics().operations_in_flight == 0)
    assert requests[1].cancelled()
    assert requests[2].result() == requests[3].result() == -ECANCELED


def test_a_chain_has_to_fit():
    with made_ring(8) as ring:
        for _ in range(8):
            last = ring.nop(flags=Ring.IO_LINK)
        with pytest.raises(ValueError, match="8 entries"):
            ring.nop()
        ring.submit_and_wait(8)
        assert ring.reap() == 8
        assert last.result() == 0
        for _ in range(5):
            for _ in range(7):
                ring.nop(flags=Ring.IO_LINK)
            ring.nop()
        assert ring.submit() == 40
        ring.submit_and_wait(40)
        assert ring.reap() == 40


def test_links_inside_of_a_chain_of_the_loop(pipe):
    with driven("loop") as driver:
        with driver.loop.link() as chain:
            writing = driver.loop.write(pipe.w, b"12")
            reading = driver.ring.read(pipe.r, bytearray(2))
        assert chain.operations == [writing, reading]
        assert driver.all(writing, reading) == [2, 2]


def test_success_that_is_not_told(driver, pipe):
    told = []
    requests = [
        driver.ring.nop(lambda *said: told.append(said), flags=Ring.CQE_SKIP_SUCCESS),
        driver.ring.read(pipe.w, bytearray(1), -1, lambda *said: told.append(said), flags=Ring.CQE_SKIP_SUCCESS),
    ]
    assert driver.all(*requests)[0] == 0
    assert [res for res, flags in told] == [requests[1].result()]
    assert requests[1].result() < 0


# -- Messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["alone", "loop"])
def test_messages(driver, target):
    with driven(target) as other:
        assert driver.do("msg_ring", other.ring, 5) == -EBADFD  # it has not been used
        told = []
        other.ring.on_message(lambda *said: told.append(said[0]))
        if other.loop is not None:
            other.loop.timer(BOUND, print)  # the inbox alone does not keep it going
        other.all(other.ring.nop())
        for value in (1, 0, 2**31 - 1):
            assert driver.do("msg_ring", other.ring, value) == 0
        other.until(lambda: len(told) == 3)
        assert told == [1, 0, 2**31 - 1]
        assert driver.do("msg_ring", other.ring, 9) == 0
        other.ring.on_message(None)
        other.all(other.ring.nop())
        assert len(told) == 3
        other.ring.on_message(told.append)
        with pytest.raises(TypeError, match="callback"):
            other.ring.on_message(5)
    with pytest.raises(LoopClosedError):
        driver.ring.msg_ring(other.ring, 1)
    for wrong in (None, 5):
        with pytest.raises(TypeError, match="Ring"):
            driver.ring.msg_ring(wrong, 1)
    for wrong in (-1, 1 << 31):
        with pytest.raises(ValueError, match="value"):
            driver.ring.msg_ring(driver.ring, wrong)


def test_a_message_from_another_thread_ends_the_wait():
    ready = threading.Event()
    with made_ring(8) as ring:
        told = []
        ring.on_message(lambda res, flags: told.append(res))
        ring.submit()

        def send():
            ready.wait(BOUND)
            with Ring(8) as other:
                other.msg_ring(ring, 42)
                other.submit_and_wait()

        thread = threading.Thread(target=send)
        thread.start()
        ready.set()
        assert ring.submit_and_wait(1, BOUND) == 1
        assert ring.reap() == 1
        thread.join()
        assert told == [42]


# -- Buffers that are provided -----------------------------------------------------------------------------------------


def test_provided_buffers(driver):
    memory = bytearray(100)
    assert driver.do("provide_buffers", memory, 10, 10, 65535) == 0
    assert driver.do("remove_buffers", 4, 65535) == 4
    assert driver.do("provide_buffers", memory, 10, 4, 65535, 50) == 0
    assert driver.do("remove_buffers", 65536, 65535) == 10
    assert driver.do("remove_buffers", 1, 17) == -ENOENT
    with pytest.raises(ValueError, match="buffer"):
        driver.ring.provide_buffers(memory, 11, 10, 1)
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, -1), (1, 1, 65536), (1, 1, 1, 65536)):
        with pytest.raises(ValueError, match="must be within"):
            driver.ring.provide_buffers(memory, *wrong)
    with pytest.raises((TypeError, BufferError)):
        driver.ring.provide_buffers(b"x", 1, 1, 1)
