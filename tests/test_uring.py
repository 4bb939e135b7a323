"""Ring: alone and beneath a loop; its life, threads, fork, garbage, small queues."""

import gc
import os
import select
import signal
import threading
import time
import weakref
from errno import ECANCELED

import pytest
from _raw import made_ring
from _support import BOUND, open_fds, rings, scaled

import linux_event
from linux_event import Loop, LoopClosedError, Ring, WrongThreadError
from linux_event.features import Features


def test_submit_and_reap():
    with made_ring(8) as ring:
        told = []
        assert ring.submit() == 0
        assert ring.reap() == 0
        first = ring.nop(lambda res, flags: told.append(1))
        ring.nop(lambda res, flags: told.append(2))
        ring.nop()
        assert ring.reap() == 0  # nothing was submitted
        assert ring.submit() == 3
        assert told == []
        assert ring.submit_and_wait(3) == 3
        assert told == []
        assert ring.reap() == 3
        assert told == [1, 2]
        assert first.result() == 0
        assert ring.reap() == 0


def test_waiting(pipe):
    with made_ring(8) as ring:
        assert ring.submit_and_wait() == 0  # nothing is in flight
        ring.read(pipe.r, bytearray(1))
        ring.nop()
        assert ring.submit_and_wait(0) in (0, 1)
        begin = time.monotonic()
        assert ring.submit_and_wait(2, 0.05) == 1
        assert time.monotonic() - begin >= 0.05
        threading.Timer(0.05, pipe.put).start()
        assert ring.submit_and_wait(2, BOUND) == 2
        assert ring.submit_and_wait(5, BOUND) == 2  # more cannot come
        assert ring.reap() == 2
        for wrong, error in ((-1, ValueError), (1.5, TypeError), ("1", TypeError), (1 << 40, ValueError)):
            with pytest.raises(error, match="n must"):
                ring.submit_and_wait(wrong)
        for wrong, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
            with pytest.raises(error, match="timeout"):
                ring.submit_and_wait(1, wrong)


def test_waiting_counts_each_result(pipe):
    with made_ring(8) as ring:
        told = []
        request = ring.poll_add(pipe.r, select.POLLIN, lambda *said: told.append(said), multishot=True)
        ring.submit()
        for count in range(1, 12):
            pipe.put()
            assert ring.submit_and_wait(count, BOUND) == count
        assert ring.reap() == 11
        pipe.put()
        ring.submit_and_wait()
        ring.cancel(request)
        assert ring.submit_and_wait(3, BOUND) == 3
        assert ring.reap() == 3
        assert len(told) == 13


def test_reap_takes_what_was_there(pipe):
    """A callback that submits again and again does not keep it."""
    with made_ring(8) as ring:
        count = []

        def again(res, flags):
            count.append(res)
            if len(count) > 4:
                return
            ring.nop(again)
            assert ring.submit() == 1
            ring.submit_and_wait(1)

        ring.nop(again)
        ring.nop(again)
        ring.submit_and_wait(2)
        assert ring.reap() == 2
        assert len(count) == 2
        assert ring.reap() == 2
        count.append(None)


def test_what_a_callback_cannot_do():
    with made_ring(8) as ring:
        told = []

        def wrong(res, flags):
            for call in (ring.reap, ring.close):
                with pytest.raises(RuntimeError):
                    call()
            told.append(res)

        ring.nop(wrong)
        ring.submit_and_wait()
        ring.reap()
        assert told == [0]


def test_thousands_of_requests_on_eight_entries(pipe):
    count = scaled(5000, least=100)
    with made_ring(8) as ring:
        told = []
        for number in range(count):
            ring.nop(lambda res, flags, number=number: told.append(number))
        assert ring.submit() == count
        assert ring.submit_and_wait(count) == count
        assert ring.reap() == count
        assert told == list(range(count))
        assert ring.statistics().submissions == count
        buffers = [bytearray(1) for _ in range(count)]
        requests = [ring.read(pipe.r, buffer) for buffer in buffers]
        ring.submit()
        written = 0
        while written < count:
            written += os.write(pipe.w, b"x" * min(1000, count - written))
            ring.submit_and_wait(written - sum(request.done() for request in requests), BOUND)
            ring.reap()
        assert [request.result() for request in requests] == [1] * count


def test_a_full_completion_queue(pipe):
    with made_ring(8, cq_entries=8) as ring:
        requests = [ring.poll_add(pipe.r, select.POLLIN) for _ in range(200)]
        ring.submit()
        pipe.put()
        assert ring.submit_and_wait(200, BOUND) == 200
        assert ring.reap() == 200
        assert all(request.result() == select.POLLIN for request in requests)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"entries": 0}, ValueError),
        ({"entries": 32769}, ValueError),
        ({"entries": "8"}, TypeError),
        ({"entries": 8, "cq_entries": 4}, ValueError),
        ({"sqpoll": 1}, TypeError),
    ],
)
def test_arguments_that_are_wrong(arguments, error):
    with pytest.raises(error):
        Ring(**arguments)


def test_a_thread_of_the_kernel_submits():
    with made_ring(8, sqpoll=True) as ring:
        requests = [ring.nop() for _ in range(100)]
        ring.submit_and_wait(100, BOUND)
        ring.reap()
        assert [request.result() for request in requests] == [0] * 100


def test_the_end():
    before = rings(open_fds())
    ring = Ring()
    assert len(rings(open_fds())) == len(before) + 1
    assert repr(ring) == "<Ring open requests=0>"
    assert not ring.is_closed()
    with pytest.raises(RuntimeError, match="twice"):
        ring.__init__()
    with ring as same:
        assert same is ring
    ring.close()
    assert ring.is_closed()
    assert repr(ring) == "<Ring closed requests=0>"
    assert rings(open_fds()) == before
    for call in (ring.submit, ring.submit_and_wait, ring.reap, ring.nop, ring.fileno, ring.__enter__):
        with pytest.raises(LoopClosedError, match="the ring is closed"):
            call()
    assert ring.statistics().requests_in_flight == 0


def test_a_ring_that_is_dropped_is_collected(pipe):
    ring = Ring(8)
    seen = weakref.ref(ring)
    told = []
    request = ring.read(pipe.r, bytearray(1), -1, lambda *said: told.append((ring, said)))
    ring.submit()
    del request
    with pytest.warns(ResourceWarning, match="unclosed <Ring open requests=1>"):
        ring = None
        gc.collect()
    assert ring is seen() is None
    assert told == []


def test_another_thread(pipe):
    with made_ring(8) as ring:
        ring.nop()
        ring.submit()
        errors = []

        def use():
            for call in (ring.submit, ring.reap, ring.nop, ring.close, lambda: ring.register_files([0])):
                try:
                    call()
                except WrongThreadError as error:
                    errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert len(errors) == 5
        ring.submit_and_wait()
        assert ring.reap() == 1


def test_a_ring_is_made_in_one_thread_and_used_in_another():
    ring = Ring(8)
    ring.nop()
    told = []

    def use():
        told.append(ring.submit_and_wait())
        told.append(ring.reap())
        ring.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert told == [1, 1]


def test_a_forked_child(pipe):
    with made_ring(8) as ring:
        request = ring.read(pipe.r, bytearray(1))
        ring.submit()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for call in (ring.submit, ring.reap, ring.nop, ring.submit_and_wait):
                    try:
                        call()
                    except RuntimeError as error:
                        assert "parent" in str(error)
                    else:
                        raise AssertionError
                assert repr(ring) == "<Ring dead after fork requests=1>"
                ring.close()
                with Ring(8) as own:
                    own.nop()
                    own.submit_and_wait()
                    assert own.reap() == 1
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pipe.put()
        ring.submit_and_wait()
        assert ring.reap() == 1
        assert request.result() == 1


def test_a_signal_ends_the_wait(pipe):
    with made_ring(8) as ring:
        request = ring.read(pipe.r, bytearray(1))

        def interrupt(number, frame):
            raise KeyboardInterrupt

        former = signal.signal(signal.SIGUSR1, interrupt)
        try:
            for _ in range(2):
                timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1))
                timer.start()
                with pytest.raises(KeyboardInterrupt):
                    ring.submit_and_wait(1, BOUND)
                timer.join()
        finally:
            signal.signal(signal.SIGUSR1, former)
        pipe.put()
        ring.submit_and_wait()
        ring.reap()
        assert request.result() == 1


def test_another_event_loop_waits_for_it(pipe):
    with made_ring(8) as ring:
        told = []
        with select.epoll() as epoll:
            epoll.register(ring, select.EPOLLIN)
            ring.read(pipe.r, bytearray(1), -1, lambda *said: told.append(said))
            ring.submit()
            assert epoll.poll(0) == []
            pipe.put()
            assert epoll.poll(BOUND) == [(ring.fileno(), select.EPOLLIN)]
            assert ring.reap() == 1
            assert told == [(1, 0)]
            assert epoll.poll(0) == []
            ring.nop(flags=Ring.IO_LINK)
            ring.nop()
            assert ring.submit() == 2
            assert epoll.poll(BOUND)
            assert ring.reap() == 2


def test_statistics(pipe):
    with made_ring(8) as ring:
        ring.read(pipe.r, bytearray(1))
        ring.submit()
        counts = ring.statistics()
        assert isinstance(counts, linux_event.Statistics)
        assert (counts.submissions, counts.operations_in_flight, counts.requests_in_flight) == (1, 1, 1)


def test_features():
    with made_ring(8) as ring:
        features = ring.features
        assert isinstance(features, frozenset)
        probed = linux_event.ring.probe()
        assert features == {*probed["operations"], *probed["features"]}
        for name in ("NOP", "nop", "IORING_OP_NOP", "EXT_ARG", "IORING_FEAT_EXT_ARG"):
            assert name in features
        for name in ("nonsense", 5, None):
            assert name not in features
    assert repr(Features(["b", "a"])) == "Features(['a', 'b'])"


# -- The ring of a loop ------------------------------------------------------------------------------------------------


def test_the_ring_of_a_loop(loop, pipe):
    ring = loop.ring
    assert loop.ring is ring
    assert repr(ring) == f"<Ring of {loop!r}>"
    told = []
    ring.nop(lambda *said: told.append(said))
    assert ring.statistics().operations_in_flight == 1
    for call in (ring.submit, ring.submit_and_wait, ring.reap, ring.close, ring.__enter__):
        with pytest.raises(RuntimeError, match="ring of a loop"):
            call()
    with pytest.raises(AttributeError):
        loop.ring = None
    loop.run(BOUND)
    assert told == [(0, 0)]
    assert not ring.is_closed()
    assert ring.fileno() == loop.fileno()


def test_the_ring_of_a_loop_that_is_dropped(loop):
    seen = weakref.ref(loop.ring)
    gc.collect()
    assert seen() is None
    assert isinstance(loop.ring, Ring)


def test_requests_and_operations_of_one_loop(loop, pipe):
    order = []
    loop.read(pipe.r, 3, -1, lambda result, error: order.append(result))
    loop.run_once(0)
    loop.ring.write(pipe.w, b"abc", -1, lambda res, flags: order.append(res))
    loop.run(BOUND)
    assert sorted(map(str, order)) == ["3", "b'abc'"]


def test_requests_keep_a_loop_going_until_it_is_closed(pipe):
    told = []
    with Loop() as loop:
        ring = loop.ring
        ring.read(pipe.r, bytearray(1), -1, lambda *said: told.append(said))
        begin = time.monotonic()
        loop.run(0.02)
        assert time.monotonic() - begin >= 0.02
    assert told == [(-ECANCELED, 0)]
    assert ring.is_closed()
    for call in (ring.nop, ring.unregister_files):
        with pytest.raises(LoopClosedError):
            call()


def test_requests_of_a_loop_that_another_one_waits_for(loop, pipe):
    """Links hold together though each request is handed over at once."""
    loop.fileno()
    told = []
    loop.ring.read(pipe.r, bytearray(3), -1, lambda res, flags: told.append(res), flags=Ring.IO_LINK)
    loop.ring.nop(lambda res, flags: told.append(res))
    loop.run_once(0)
    assert told == []
    pipe.put(b"abc")
    while len(told) < 2:
        loop.run_once(BOUND)
    assert told == [3, 0]
