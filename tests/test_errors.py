"""The exceptions of the package, on_error, and what happens to exceptions of callbacks."""

import logging
import threading

import pytest
from _support import BOUND, finish, made_loop, unraisable

import linux_event
from linux_event import DestroyedError, Loop, LoopClosedError, UringUnavailableError, WrongThreadError

# --- classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LoopClosedError", "WrongThreadError", "DestroyedError"])
def test_misuse_derives_from_runtime_error(name):
    cls = getattr(linux_event, name)
    assert issubclass(cls, RuntimeError)
    assert cls.__name__ == name
    assert cls.__doc__
    assert str(cls("text")) == "text"


def test_the_three_are_apart():
    three = [LoopClosedError, WrongThreadError, DestroyedError]
    for one in three:
        for other in three:
            assert issubclass(one, other) == (one is other)


def test_uring_unavailable_is_an_os_error_with_its_errno():
    assert issubclass(UringUnavailableError, OSError)
    assert not issubclass(UringUnavailableError, PermissionError)
    error = UringUnavailableError(1, "because")
    assert type(error) is UringUnavailableError
    assert error.errno == 1
    assert error.strerror == "because"


def test_a_loop_that_another_thread_ran_refuses(loop, pipe):
    # The rules of threads have a file of their own; here only that each call names its error.
    watcher = loop.io(pipe.r, "r", print)
    loop.run_once(0)
    raised = {}

    def misuse():
        calls = {
            "run": loop.run,
            "run_once": lambda: loop.run_once(0),
            "stop": loop.stop,
            "defer": lambda: loop.defer(print),
            "close": loop.close,
            "timer": lambda: loop.timer(1, print),
            "io": lambda: loop.io(pipe.r, "r", print),
            "start": watcher.start,
            "stop of a watcher": watcher.stop,
            "destroy": watcher.destroy,
        }
        for name, call in calls.items():
            try:
                call()
            except WrongThreadError as error:
                raised[name] = str(error)
            else:
                raised[name] = None

    thread = threading.Thread(target=misuse)
    thread.start()
    thread.join(BOUND)
    assert raised
    assert [name for name, text in raised.items() if not text or "thread" not in text] == []
    assert watcher.is_active()


# --- on_error -----------------------------------------------------------------------------------------------------


def raising(error):
    def callback(*args):
        raise error

    return callback


def sources(loop, pipe, error):
    """One failing callback of each kind; returns them by name."""
    callback = raising(error)
    pipe.put()

    def once(watcher, *args):
        watcher.destroy()
        raise error

    loop.defer(callback)
    return {
        "io": loop.io(pipe.r, "r", once),
        "timer": loop.timer(0, callback),
        "periodic": loop.periodic(1e-9, once),
        "idle": loop.idle(once),
        "deferred": callback,
    }


def test_on_error_gets_source_and_exception(loop, pipe):
    seen = []
    error = ValueError("mine")
    loop.on_error = lambda source, error: seen.append((source, error))
    expected = sources(loop, pipe, error)
    finish(loop)
    assert len(seen) == 5
    assert {id(source) for source, _ in seen} == {id(source) for source in expected.values()}
    for _, got in seen:
        assert got is error
        assert got.__traceback__ is not None


def test_on_error_is_called_once_for_each_exception_and_nothing_is_swallowed_or_stopped(loop):
    seen = []
    loop.on_error = lambda source, error: seen.append(type(error))
    after = []
    for kind in (ValueError, OSError, Exception, StopIteration, StopAsyncIteration, AssertionError, MemoryError):
        loop.timer(0, raising(kind()))
        loop.timer(0, after.append)
    assert loop.run_once(0) == 14
    assert seen == [ValueError, OSError, Exception, StopIteration, StopAsyncIteration, AssertionError, MemoryError]
    assert len(after) == 7


def test_on_error_is_readable_and_none_restores_the_default(loop, caplog):
    default = loop.on_error
    handler = lambda source, error: None  # noqa: E731
    loop.on_error = handler
    assert loop.on_error is handler
    loop.timer(0, raising(ValueError()))
    finish(loop)
    assert caplog.records == []
    loop.on_error = None
    assert loop.on_error is default
    loop.timer(0, raising(ValueError()))
    finish(loop)
    assert len(caplog.records) == 1
    caplog.clear()


@pytest.mark.parametrize("value", [1, "log", []])
def test_on_error_must_be_callable(loop, value):
    before = loop.on_error
    with pytest.raises(TypeError, match="on_error") as caught:
        loop.on_error = value
    assert repr(value) in str(caught.value)
    assert loop.on_error is before


def test_the_default_logs_with_traceback(loop, caplog):
    def fails(watcher):
        raise ValueError("what went wrong")

    timer = loop.timer(0, fails)
    finish(loop)
    [record] = caplog.records
    assert record.name == "linux_event"
    assert record.levelno == logging.ERROR
    assert repr(timer) in record.getMessage() or "Timer" in record.getMessage()
    kind, value, traceback = record.exc_info
    assert kind is ValueError
    assert str(value) == "what went wrong"
    while traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code is fails.__code__
    assert "what went wrong" in caplog.text
    del traceback, value, record
    caplog.clear()


def test_a_failing_handler_goes_to_the_unraisable_hook_and_the_loop_goes_on(loop):
    def handler(source, error):
        raise LookupError("handler")

    after = []
    loop.on_error = handler
    loop.timer(0, raising(ValueError("callback")))
    loop.timer(0, after.append)
    with unraisable() as seen:
        finish(loop)
    assert len(seen) == 1
    assert "LookupError: handler" in seen[0]
    assert len(after) == 1


def test_a_handler_that_is_no_good_for_two_arguments(loop):
    loop.on_error = lambda: None
    loop.timer(0, raising(ValueError()))
    with unraisable() as seen:
        finish(loop)
    assert len(seen) == 1
    assert "TypeError" in seen[0]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_handler_leaves_run(loop, kind):
    after = []
    loop.on_error = raising(kind())
    loop.timer(0, raising(ValueError()))
    loop.timer(0, after.append)
    with pytest.raises(kind):
        loop.run()
    assert not loop.is_running()
    loop.on_error = None
    finish(loop)
    assert len(after) == 1


def test_the_handler_may_do_anything(loop, pipe):
    called = []

    def handler(source, error):
        called.append(source)
        source.destroy()
        other.destroy()
        loop.on_error = None
        loop.timer(0, called.append)
        loop.stop()

    loop.on_error = handler
    pipe.put()
    failing = loop.io(pipe.r, "r", raising(ValueError()))
    other = loop.io(pipe.r, "r", called.append)
    loop.run()
    assert called == [failing]
    finish(loop)
    assert len(called) == 2


def test_a_callback_with_a_wrong_signature_is_an_error_of_its_own(loop, pipe):
    seen = []
    loop.on_error = lambda source, error: (seen.append(type(error)), source.stop())
    pipe.put()
    loop.io(pipe.r, "r", lambda watcher: None)
    loop.timer(0, lambda: None)
    loop.idle(lambda a, b: None)
    finish(loop)
    assert seen == [TypeError] * 3


def test_a_watcher_stays_active_after_its_callback_raised(loop, pipe):
    seen = []

    def on_error(source, error):
        seen.append(error)
        if len(seen) == 3:
            source.stop()

    loop.on_error = on_error
    pipe.put()
    watcher = loop.io(pipe.r, "r", raising(ValueError()))
    finish(loop)
    assert len(seen) == 3
    assert not watcher.is_active()
    assert not watcher.is_destroyed()


# --- exceptions that leave run ------------------------------------------------------------------------------------


class Custom(BaseException):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, Custom])
@pytest.mark.parametrize("run", ["run", "run_once"])
def test_other_exceptions_leave_run_and_the_rest_of_the_batch_comes_next(loop, kind, run):
    called, seen = [], []
    error = kind("mine")
    loop.on_error = lambda source, error: seen.append(error)
    loop.timer(0, lambda w: called.append(1))
    loop.timer(0, raising(error))
    loop.timer(0, lambda w: called.append(2))
    loop.timer(0, lambda w: called.append(3))
    with pytest.raises(kind) as caught:
        getattr(loop, run)()
    assert caught.value is error
    assert called == [1]
    assert seen == []
    assert not loop.is_running()
    assert not loop.is_closed()
    finish(loop)
    assert called == [1, 2, 3]


def test_a_batch_interrupted_again_and_again_loses_and_repeats_nothing(loop, pipe):
    called = []

    def interrupt(watcher):
        called.append(watcher.data)
        raise KeyboardInterrupt

    for n in range(20):
        loop.timer(0, interrupt, data=n)
    for expected in range(1, 21):
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert len(called) == expected
    finish(loop)
    assert called == list(range(20))


def test_what_an_interrupt_left_behind_can_still_be_stopped(loop):
    called = []
    loop.timer(0, raising(KeyboardInterrupt()))
    left = [loop.timer(0, called.append) for _ in range(4)]
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    left[0].stop()
    left[1].destroy()
    finish(loop)
    assert called == left[2:]


def test_what_an_interrupt_left_behind_keeps_run_going(loop, pipe):
    called = []
    loop.timer(0, raising(KeyboardInterrupt()))
    loop.timer(0, called.append)
    loop.io(pipe.r, "r", print, ref=False)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    finish(loop)
    assert len(called) == 1


def test_what_an_interrupt_left_behind_is_dropped_by_close():
    called = []
    with made_loop() as loop:
        loop.timer(0, raising(KeyboardInterrupt()))
        for _ in range(5):
            loop.timer(0, called.append)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    assert called == []


def test_an_interrupt_leaves_with(pipe):
    with pytest.raises(KeyboardInterrupt), Loop() as loop:
        loop.io(pipe.r, "r", print)
        loop.timer(0, raising(KeyboardInterrupt()))
        loop.run()
    assert loop.is_closed()
    assert loop.statistics().requests_in_flight == 0


def test_an_interrupt_of_an_io_callback_keeps_the_other_events(loop, pair):
    called = []
    a, b = pair

    def interrupt(watcher, events):
        called.append(b.recv(100))
        raise KeyboardInterrupt

    loop.io(b, "r", interrupt, edge=True, priority=1)
    loop.io(b, "w", lambda w, events: called.append(str(events)), edge=True)
    loop.io(a, "w", lambda w, events: called.append(str(events)), edge=True, priority=-1)
    a.send(b"data")
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert called == [b"data"]
    loop.run(0)
    assert called == [b"data", "w", "w"]


def test_an_interrupt_of_an_idle_callback(loop):
    called = []
    loop.idle(lambda w: (w.destroy(), called.append(1)))
    loop.idle(lambda w: (w.destroy(), raising(KeyboardInterrupt())()))
    loop.idle(lambda w: (w.destroy(), called.append(2)))
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    finish(loop)
    assert sorted(called) == [1, 2]
