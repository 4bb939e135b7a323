"""Operation: its end: cancel, timeout, close of the loop; what keeps run() going. Shown on read and fsync."""

import concurrent.futures
import errno
import threading
import time

import _fault
import pytest
from _support import BOUND, finish, made_loop, pipes, run_until, scaled

from linux_event import LoopClosedError, WrongThreadError

CancelledError = concurrent.futures.CancelledError
InvalidStateError = concurrent.futures.InvalidStateError


class Calls(list):
    """A callback that keeps what it was called with."""

    def __call__(self, *arguments):
        self.append(arguments)

    def only(self):
        assert len(self) == 1, self
        return self[0]


@pytest.fixture
def calls():
    return Calls()


def closed_read_end(pipe):
    """The number of a file that cannot be read from."""
    return pipe.w


class Expected(Exception):
    pass


class Leaving(BaseException):
    pass


def raising(exception):
    def function(*arguments):
        raise exception

    return function


def not_done(operation):
    assert operation.done() is False
    assert operation.cancelled() is False
    for method in (operation.result, operation.exception):
        with pytest.raises(InvalidStateError, match="not done yet"):
            method()


# --- cancel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [0, 1], ids=["before it is submitted", "in flight"])
def test_cancel(loop, pipe, calls, iterations):
    operation = loop.read(pipe.r, 1, -1, calls)
    for _ in range(iterations):
        loop.run_once(0)
    assert operation.cancel() is True
    assert operation.cancel() is True
    assert operation.done() is True
    assert operation.cancelled() is True
    for method in (operation.result, operation.exception):
        with pytest.raises(CancelledError):
            method()
    assert calls == []
    assert loop.statistics().operations_in_flight == 1
    finish(loop)
    result, error = calls.only()
    assert result is None
    assert type(error) is CancelledError
    assert operation.cancel() is True
    with pytest.raises(CancelledError):
        operation.exception()
    assert loop.statistics().operations_in_flight == 0
    pipe.put()
    assert pipe.take() == b"x"


def test_a_cancellation_that_was_asked_for_is_no_failure(loop, pipe):
    told, failed = Calls(), Calls()
    loop.on_error = told
    loop.read(pipe.r, 1).cancel()
    loop.read(pipe.r, 1, on_success=_fault.unexpected).cancel()
    loop.read(pipe.r, 1, on_error=failed).cancel()
    finish(loop)
    assert told == []
    assert type(failed.only()[0]) is CancelledError


def test_cancel_after_the_result_was_collected(loop, calls):
    """Two results of one iteration: the first callback comes too late to cancel the second."""
    with pipes(2) as (one, two):
        one.put()
        two.put()
        operations = [None, None]

        def callback(result, error, other):
            calls(result, error, operations[other].cancel())

        operations[0] = loop.read(one.r, 1, -1, lambda *result: callback(*result, 1))
        operations[1] = loop.read(two.r, 1, -1, lambda *result: callback(*result, 0))
        finish(loop)
        assert calls == [(b"x", None, False)] * 2
        assert not any(operation.cancelled() for operation in operations)


def test_operations_cancelled_by_callbacks_of_others(loop, calls):
    with pipes(20) as many:
        waiting = [loop.read(pipe.r, 1, -1, calls) for pipe in many[1:]]
        loop.read(many[0].r, 1, -1, lambda *_: [operation.cancel() for operation in waiting])
        loop.run_once(0)
        many[0].put()
        finish(loop)
        assert len(calls) == len(waiting)
        assert all(type(error) is CancelledError for _, error in calls)


def test_operations_started_by_callbacks_of_their_own(loop, pipe):
    """Each read starts the next one; the results come in order."""
    count = scaled(2000, least=50)
    got = []

    def callback(result, error):
        got.append(result)
        if len(got) < count:
            pipe.put(b"%d," % len(got))
            loop.read(pipe.r, 10, -1, callback)

    pipe.put(b"0,")
    loop.read(pipe.r, 10, -1, callback)
    finish(loop)
    assert got == [b"%d," % number for number in range(count)]


def test_cancel_on_a_closed_loop(pipe, calls):
    with made_loop() as loop:
        waiting = loop.read(pipe.r, 1, -1, calls)
        pipe.put()
        ready = loop.read(pipe.r, 1, -1, calls)
        run_until(loop, lambda: calls)
        done, left = (waiting, ready) if waiting.done() else (ready, waiting)
        loop.close()
        assert len(calls) == 2
        assert done.cancel() is False
        assert left.cancel() is True
        assert left.cancelled()


def test_close_cancels_before_anything_has_run(pipe, calls):
    """The ring is not even enabled; a deadline and a chain are on the way too."""
    with made_loop() as loop:
        operations = [loop.read(pipe.r, 1, -1, calls), loop.read(pipe.r, 1, -1, calls, timeout=5)]
        with loop.link():
            operations += [loop.read(pipe.r, 1, -1, calls), loop.read(pipe.r, 1, -1, calls)]
        loop.close()
        assert len(calls) == 4
        assert all(type(error) is CancelledError for _, error in calls)
        assert all(operation.cancelled() for operation in operations)


def test_callbacks_of_close_find_the_loop_closed(pipe):
    seen = []

    def callback(result, error):
        with pytest.raises(LoopClosedError):
            loop.read(pipe.r, 1)
        seen.append((loop.is_closed(), [other.cancel() for other in operations]))
        loop.close()

    with made_loop() as loop:
        operations = [loop.read(pipe.r, 1, -1, callback) for _ in range(3)]
        loop.run_once(0)
        before = loop.statistics().callbacks
        loop.close()
        assert loop.statistics().callbacks == before + 3
    assert seen == [(True, [True] * 3)] * 3


def test_close_without_callbacks_keeps_the_count_of_callbacks(pipe):
    with made_loop() as loop:
        for _ in range(3):
            loop.read(pipe.r, 1)
        loop.close()
        assert loop.statistics().callbacks == 0


def test_an_exception_in_a_callback_of_close(pipe):
    told = Calls()
    with made_loop() as loop:
        loop.on_error = told
        for function in (raising(Expected()), raising(Leaving()), told, told):
            loop.read(pipe.r, 1, -1, function)
        with pytest.raises(Leaving):
            loop.close()
        assert loop.is_closed()
        assert len(told) == 3
        loop.on_error = None


def test_from_another_thread(loop, pipe):
    operation = loop.read(pipe.r, 1)
    loop.run_once(0)
    with pytest.raises(WrongThreadError):
        _fault.in_thread(operation.cancel)
    with pytest.raises(WrongThreadError):
        _fault.in_thread(loop.read, pipe.r, 1)
    assert _fault.in_thread(operation.done) is False
    assert _fault.in_thread(repr, operation) == repr(operation)
    not_done(operation)
    operation.cancel()
    assert _fault.in_thread(operation.cancel) is True
    finish(loop)


def test_cancel_by_post(loop, pipe, calls):
    """The way from another thread."""
    operation = loop.read(pipe.r, 1, -1, calls)
    with _fault.WhenAsleep(lambda: loop.post(operation.cancel)):
        finish(loop)
    assert type(calls.only()[1]) is CancelledError


# --- timeout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.0, 0.01, 1e-12])
def test_timeout(loop, pipe, calls, seconds):
    began = time.monotonic()
    operation = loop.read(pipe.r, 1, -1, calls, timeout=seconds)
    finish(loop)
    assert time.monotonic() - began >= seconds
    result, error = calls.only()
    assert result is None
    assert type(error) is TimeoutError
    assert error.errno == errno.ETIMEDOUT
    assert error.filename == pipe.r
    assert "read" in str(error)
    assert operation.done() and not operation.cancelled()
    assert operation.exception() is error
    assert loop.statistics().timers == 0
    pipe.put()
    assert pipe.take() == b"x"


def test_a_timeout_loses_to_a_result(loop, pipe, calls):
    """Both are there in the same iteration: what the kernel has read is not thrown away."""
    for seconds in (0, 3600):
        pipe.put()
        loop.read(pipe.r, 1, -1, calls, timeout=seconds)
        finish(loop)
        assert calls.pop() == (b"x", None)
        assert loop.statistics().timers == 0


def test_a_timeout_is_a_failure_that_is_told(loop, pipe):
    told = Calls()
    loop.on_error = told
    operation = loop.read(pipe.r, 1, timeout=0)
    finish(loop)
    assert told == [(operation, operation.exception())]


@pytest.mark.parametrize("seconds", [-1, -0.5, float("nan"), float("inf"), -float("inf"), -(2**70)])
def test_a_timeout_out_of_range(loop, pipe, seconds):
    with pytest.raises(ValueError, match="timeout"):
        loop.read(pipe.r, 1, timeout=seconds)
    assert loop.statistics().operations_in_flight == loop.statistics().timers == 0


@pytest.mark.parametrize("seconds", ["1", 1j, [], object()])
def test_a_timeout_of_a_wrong_type(loop, pipe, seconds):
    with pytest.raises(TypeError, match="timeout"):
        loop.read(pipe.r, 1, timeout=seconds)
    assert loop.statistics().operations_in_flight == loop.statistics().timers == 0


@pytest.mark.parametrize("seconds", [1e300, 2**80, 10**9])
def test_a_huge_timeout(loop, pipe, calls, seconds):
    loop.read(pipe.r, 1, -1, calls, timeout=seconds)
    loop.run_once(0)
    assert loop.statistics().timers == 1
    pipe.put()
    finish(loop)
    assert calls == [(b"x", None)]


@pytest.mark.parametrize("first", ["cancel", "timeout"])
def test_cancel_and_timeout(loop, pipe, calls, first):
    """After cancel() it is cancelled, whatever else happens."""
    operation = loop.read(pipe.r, 1, -1, calls, timeout=0)
    if first == "timeout":
        loop.timer(0, lambda watcher: operation.cancel(), priority=-1)
    else:
        operation.cancel()
        assert loop.statistics().timers == 0
    finish(loop)
    assert type(calls.only()[1]) is CancelledError


def test_a_cancelled_operation_wants_no_deadline(loop, pipe):
    loop.run_once(0)
    operation = loop.read(pipe.r, 1, timeout=3600)
    loop.run_once(0)
    operation.cancel()
    assert loop.statistics().timers == 0
    finish(loop)


def test_timeouts_end_in_the_order_of_their_deadlines(loop, pipe):
    order = []
    for seconds in (0.02, 0.0, 0.01):
        loop.read(pipe.r, 1, -1, lambda result, error, seconds=seconds: order.append(seconds), timeout=seconds)
    finish(loop)
    assert order == [0.0, 0.01, 0.02]


def test_many_timeouts(loop, pipe, calls):
    count = scaled(2000, least=50)
    for _ in range(count):
        loop.read(pipe.r, 1, -1, calls, timeout=0.001)
    finish(loop)
    assert len(calls) == count
    assert {type(error) for _, error in calls} == {TimeoutError}


# --- what keeps run() going, statistics ---------------------------------------------------------------------------


def test_run_goes_on_for_an_operation_and_ends_after_it(loop, pipe, calls):
    assert loop.run(0) is None
    loop.read(pipe.r, 1, -1, calls)
    writer = threading.Thread(target=lambda: (_fault.wait_asleep(), pipe.put()))
    writer.start()
    try:
        finish(loop)
    finally:
        writer.join()
    assert calls == [(b"x", None)]
    began = time.monotonic()
    loop.run()
    assert time.monotonic() - began < BOUND


def test_run_ends_by_its_timeout_and_the_operation_goes_on(loop, pipe, calls):
    loop.read(pipe.r, 1, -1, calls)
    loop.run(0.001)
    assert calls == []
    assert loop.statistics().operations_in_flight == 1
    pipe.put()
    finish(loop)
    assert calls == [(b"x", None)]


def test_operations_in_flight(loop):
    with pipes(10) as many:
        for number, pipe in enumerate(many):
            assert loop.statistics().operations_in_flight == number
            loop.read(pipe.r, 1)
        assert loop.statistics().operations_in_flight == loop.statistics().requests_in_flight == 10
        for number, pipe in enumerate(many):
            pipe.put()
            run_until(loop, lambda number=number: loop.statistics().operations_in_flight == 9 - number)
        assert loop.statistics().requests_in_flight == 0


def test_one_submission_for_many(loop):
    with pipes(100) as many:
        loop.run_once(0)
        before = loop.statistics().syscalls
        for pipe in many:
            pipe.put()
            loop.read(pipe.r, 1)
        finish(loop)
        assert loop.statistics().syscalls - before <= 3


def test_max_events_bounds_the_callbacks_of_an_iteration(pipe, calls):
    with made_loop(max_events=3) as loop:
        for _ in range(10):
            loop.write(pipe.w, b"x", callback=calls)  # done as soon as it is submitted
        loop.run_once(BOUND)
        assert len(calls) == 3
        finish(loop)
        assert len(calls) == 10
