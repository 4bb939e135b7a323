"""Operation: what all kinds share: callbacks, the end, cancel, timeout, the methods of a Future. Shown on read and close."""

import concurrent.futures
import errno
import gc
import os
import weakref

import pytest
from _support import BOUND, blocks_grown, finish, made_loop, open_fds, pipes, run_until, unraisable, unused_fd

from linux_event import Loop, LoopClosedError, Operation

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


# --- callbacks ----------------------------------------------------------------------------------------------------


def test_callback_gets_the_result(loop, pipe, calls):
    pipe.put(b"data")
    operation = loop.read(pipe.r, 100, -1, calls)
    assert isinstance(operation, Operation)
    assert operation.loop is loop
    finish(loop)
    assert calls == [(b"data", None)]
    assert operation.result() == b"data"
    assert operation.exception() is None


def test_callback_gets_the_error(loop, pipe, calls):
    operation = loop.read(closed_read_end(pipe), 100, -1, calls)
    finish(loop)
    result, error = calls.only()
    assert result is None
    assert type(error) is OSError
    assert (error.errno, error.strerror, error.filename) == (errno.EBADF, os.strerror(errno.EBADF), pipe.w)
    assert operation.exception() is error
    with pytest.raises(OSError) as raised:
        operation.result()
    assert raised.value is error


@pytest.mark.parametrize("keyword", [False, True])
def test_callback_by_position_and_by_name(loop, pipe, calls, keyword):
    pipe.put()
    if keyword:
        loop.read(fd=pipe.r, size=1, offset=-1, callback=calls)
    else:
        loop.read(pipe.r, 1, -1, calls)
    finish(loop)
    assert calls == [(b"x", None)]


@pytest.mark.parametrize("succeeds", [True, False])
@pytest.mark.parametrize("given", ["both", "on_success", "on_error", "neither"])
def test_on_success_and_on_error(loop, pipe, succeeds, given):
    """Exactly one call; a failure that nobody asked to hear of goes to the loop's on_error."""
    pipe.put(b"data")
    succeeded, failed, told = Calls(), Calls(), Calls()
    loop.on_error = told
    keywords = {}
    if given in ("both", "on_success"):
        keywords["on_success"] = succeeded
    if given in ("both", "on_error"):
        keywords["on_error"] = failed
    operation = loop.read(pipe.r if succeeds else closed_read_end(pipe), 100, **keywords)
    finish(loop)
    loop.on_error = None
    assert succeeded == ([(b"data",)] if succeeds and "on_success" in keywords else [])
    if succeeds:
        assert failed == told == []
    elif "on_error" in keywords:
        assert failed == [(operation.exception(),)]
        assert told == []
    else:
        assert told == [(operation, operation.exception())]


def test_a_failure_that_nobody_hears_of_is_logged(loop, pipe, caplog):
    loop.read(closed_read_end(pipe), 1)
    finish(loop)
    assert "nobody was told of the end of <Operation read" in caplog.text
    assert "Bad file descriptor" in caplog.text
    caplog.clear()


def test_a_done_callback_hears_of_the_failure(loop, pipe):
    told, done = Calls(), Calls()
    loop.on_error = told
    operation = loop.read(closed_read_end(pipe), 1)
    operation.add_done_callback(done)
    finish(loop)
    assert (told, done) == ([], [(operation,)])


@pytest.mark.parametrize("other", ["on_success", "on_error"])
def test_both_forms_are_refused(loop, pipe, other):
    with pytest.raises(TypeError, match="not both"):
        loop.read(pipe.r, 1, -1, print, **{other: print})
    assert loop.statistics().operations_in_flight == 0


@pytest.mark.parametrize("name", ["callback", "on_success", "on_error"])
@pytest.mark.parametrize("value", [1, "x", ()])
def test_what_cannot_be_called_is_refused(loop, pipe, name, value):
    with pytest.raises(TypeError, match=f"{name} must be callable"):
        loop.read(pipe.r, 1, **{name: value})
    assert loop.statistics().operations_in_flight == 0


def test_callbacks_never_run_inside_the_call(loop, pipe, calls):
    """What could be answered at once, and what is refused by the kernel, is told by a later iteration."""
    pipe.put(b"xy")
    loop.read(pipe.r, 1, -1, calls)
    loop.read(closed_read_end(pipe), 1, -1, calls)
    loop.fsync(pipe.r, calls).cancel()
    assert calls == []
    loop.run_once(BOUND)
    run_until(loop, lambda: len(calls) == 3)

    def start(result, error):
        started.append(loop.read(pipe.r, 1, -1, calls))
        started[0].cancel()
        assert len(calls) == 3

    started = []
    loop.read(pipe.r, 1, -1, start)
    finish(loop)
    assert len(calls) == 4


def test_callbacks_of_many_run_in_the_order_of_their_ends(loop):
    with pipes(50) as many:
        order = []
        for number, pipe in enumerate(many):
            loop.read(pipe.r, 1, -1, lambda result, error, number=number: order.append(number))
        loop.run_once(0)
        for pipe in reversed(many):
            pipe.put()
        finish(loop)
        assert order == list(reversed(range(50)))


# --- exceptions in callbacks --------------------------------------------------------------------------------------


class Expected(Exception):
    pass


class Leaving(BaseException):
    pass


def raising(exception):
    def function(*arguments):
        raise exception

    return function


FORMS = ["callback", "on_success", "on_error", "done"]


def read_with(loop, pipe, form, function):
    """Start a read whose callback of this form is called."""
    if form == "on_error":
        return loop.read(closed_read_end(pipe), 1, on_error=function)
    pipe.put()
    if form == "done":
        operation = loop.read(pipe.r, 1)
        operation.add_done_callback(function)
        return operation
    return loop.read(pipe.r, 1, **{form: function})


@pytest.mark.parametrize("form", FORMS)
def test_an_exception_in_a_callback_goes_to_on_error(loop, pipe, form):
    error, told, done = Expected(), Calls(), Calls()
    loop.on_error = told
    operation = read_with(loop, pipe, form, raising(error))
    operation.add_done_callback(done)
    finish(loop)
    assert told == [(operation, error)]
    assert done == [(operation,)]
    assert operation.done()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, Leaving])
def test_what_is_no_exception_leaves_run(loop, pipe, form, exception):
    done = Calls()
    operation = read_with(loop, pipe, form, raising(exception("mine")))
    operation.add_done_callback(done)
    other = loop.fsync(pipe.r, on_error=Calls())
    with pytest.raises(exception, match="mine"):
        loop.run(BOUND)
    assert done == [(operation,)]
    finish(loop)
    assert operation.done()
    assert other.done()
    assert loop.statistics().operations_in_flight == 0


def test_each_done_callback_is_called_though_others_raise(loop, pipe):
    """The last exception that is no Exception leaves run(), when all have been called."""
    told, done = Calls(), Calls()
    loop.on_error = told
    operation = loop.fsync(pipe.r, on_error=raising(Leaving("first")))
    for function in (raising(Expected()), done, raising(Leaving("second")), done, raising(Expected()), done):
        operation.add_done_callback(function)
    with pytest.raises(Leaving):
        loop.run(BOUND)
    assert done == [(operation,)] * 3
    assert len(told) == 2
    loop.on_error = None


def test_an_exception_in_on_error_of_the_loop_is_told_as_unraisable(loop, pipe):
    loop.on_error = raising(Expected("in the handler"))
    with unraisable() as seen:
        loop.read(closed_read_end(pipe), 1)
        finish(loop)
    assert len(seen) == 1
    assert "in the handler" in seen[0]


def test_callbacks_and_what_they_hold_are_let_go(loop, pipe):
    """Also where the callback holds the operation: the cycle is cut before the call."""

    class Callback:
        def __call__(self, *arguments):
            pass

    gc.collect()
    gc.disable()
    try:
        callbacks = [Callback() for _ in range(3)]
        pipe.put()
        operation = loop.read(pipe.r, 1, on_success=callbacks[0], on_error=callbacks[1])
        operation.add_done_callback(callbacks[2])
        callbacks[0].operation = callbacks[1].operation = callbacks[2].operation = operation
        refs = [weakref.ref(callback) for callback in callbacks]
        del callbacks
        finish(loop)
        del operation
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


# --- the methods of a Future --------------------------------------------------------------------------------------


def not_done(operation):
    assert operation.done() is False
    assert operation.cancelled() is False
    for method in (operation.result, operation.exception):
        with pytest.raises(InvalidStateError, match="not done yet"):
            method()


def test_before_it_is_done(loop, pipe):
    operation = loop.read(pipe.r, 1)
    not_done(operation)
    loop.run_once(0)
    not_done(operation)
    pipe.put()
    finish(loop)
    assert operation.done() is True
    assert operation.cancelled() is False
    assert operation.cancel() is False
    assert operation.result() == b"x"
    assert operation.result() == b"x"


def test_in_its_own_callback_it_is_done(loop, pipe):
    seen = []

    def look(result, error):
        seen.append((operation.done(), operation.cancelled(), operation.cancel(), operation.result()))

    pipe.put()
    operation = loop.read(pipe.r, 1, -1, look)
    finish(loop)
    assert seen == [(True, False, False, b"x")]


def test_a_result_of_none_is_a_result(loop, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        operation = loop.fsync(file)
        finish(loop)
        assert operation.result() is None
        assert operation.exception() is None


def test_add_done_callback(loop, pipe):
    """In their order after the other callbacks; at once when it is done."""
    order = []
    pipe.put()
    operation = loop.read(pipe.r, 1, -1, lambda *_: order.append("callback"))
    assert operation.add_done_callback(lambda operation: order.append(1)) is None
    operation.add_done_callback(lambda operation: order.append(2))
    assert order == []
    finish(loop)
    assert order == ["callback", 1, 2]
    operation.add_done_callback(lambda operation: order.append(operation.result()))
    assert order == ["callback", 1, 2, b"x"]


def test_add_done_callback_in_a_callback(loop, pipe):
    order = []

    def callback(result, error):
        operation.add_done_callback(lambda operation: order.append("at once"))
        order.append("callback")

    pipe.put()
    operation = loop.read(pipe.r, 1, -1, callback)
    finish(loop)
    assert order == ["at once", "callback"]


def test_an_exception_in_a_done_callback_that_is_called_at_once(loop, pipe):
    told = Calls()
    loop.on_error = told
    operation = loop.fsync(pipe.r, Calls())
    finish(loop)
    error = Expected()
    operation.add_done_callback(raising(error))
    assert told == [(operation, error)]
    with pytest.raises(Leaving):
        operation.add_done_callback(raising(Leaving()))


def test_a_done_callback_must_be_callable(loop, pipe):
    operation = loop.read(pipe.r, 1)
    with pytest.raises(TypeError, match="fn must be callable"):
        operation.add_done_callback(None)
    operation.cancel()
    finish(loop)


def test_done_callbacks_count_as_callbacks(loop, pipe):
    """So idle watchers stay quiet in an iteration that has called one."""
    pipe.put()
    operation = loop.read(pipe.r, 1)
    operation.add_done_callback(Calls())
    assert loop.run_once(BOUND) == 1
    pipe.put()
    loop.read(pipe.r, 1)
    assert loop.run_once(BOUND) == 0
    assert loop.statistics().callbacks == 1


# --- the object ---------------------------------------------------------------------------------------------------


def test_repr(loop, pipe):
    operation = loop.read(pipe.r, 1)
    assert repr(operation) == f"<Operation read {pipe.r} in flight>"
    pipe.put()
    finish(loop)
    assert repr(operation) == f"<Operation read {pipe.r} done>"
    operation = loop.open("/no/such/file", 0, on_error=Calls())
    assert repr(operation) == "<Operation open '/no/such/file' in flight>"
    finish(loop)
    assert repr(operation).startswith("<Operation open '/no/such/file' failed: FileNotFoundError(2,")
    operation = loop.read(pipe.r, 1)
    operation.cancel()
    assert repr(operation) == f"<Operation read {pipe.r} cancelled>"
    finish(loop)
    assert repr(operation) == f"<Operation read {pipe.r} cancelled>"


def test_class_getitem():
    assert Operation[bytes].__origin__ is Operation
    assert Operation[bytes].__args__ == (bytes,)


@pytest.mark.parametrize("arguments", [(), (1,), (None, None)])
def test_cannot_be_created(arguments):
    with pytest.raises(TypeError, match="cannot be created"):
        Operation(*arguments)


def test_an_object_made_without_a_loop_cannot_crash():
    operation = Operation.__new__(Operation)
    assert operation.cancel() is False
    assert operation.done() is False
    assert operation.cancelled() is False
    assert operation.loop is None
    assert "operation" in repr(operation)
    for method in (operation.result, operation.exception):
        with pytest.raises(InvalidStateError):
            method()
    for function in (print, raising(Expected())):
        with pytest.raises(RuntimeError, match="was not made by a loop"):
            operation.add_done_callback(function)
    with pytest.raises(TypeError):
        operation.__init__()


def test_attributes_are_read_only(loop, pipe):
    operation = loop.fsync(pipe.r, Calls())
    with pytest.raises(AttributeError):
        operation.loop = None
    with pytest.raises(AttributeError):
        operation.anything = 1
    finish(loop)


@pytest.mark.parametrize("kind", ["closed", "not a loop", "no loop"])
def test_a_loop_that_cannot(pipe, kind):
    loop = Loop()
    loop.close()
    loop = {"closed": loop, "not a loop": object(), "no loop": Loop.__new__(Loop)}[kind]
    with pytest.raises(TypeError if kind == "not a loop" else LoopClosedError):
        Loop.read(loop, pipe.r, 1)


@pytest.mark.parametrize("argument", ["fd", "size", "timeout"])
def test_a_loop_that_is_closed_while_an_argument_is_converted(pipe, argument):
    def closing(self):
        loop.close()
        return pipe.r

    hostile = type("Hostile", (), {"fileno" if argument == "fd" else "__index__": closing})()
    with made_loop() as loop:
        arguments = {"fd": pipe.r, "size": 1, argument: hostile}
        with pytest.raises(LoopClosedError):
            loop.read(**arguments)
        assert loop.statistics().operations_in_flight == 0


def test_an_operation_in_a_cycle_is_collected(loop, pipe):
    class Keeper:
        pass

    keeper = Keeper()
    pipe.put()
    keeper.operation = operation = loop.read(pipe.r, 1, -1, lambda *_, keeper=keeper: None)
    operation.add_done_callback(lambda _, keeper=keeper: None)
    ref = weakref.ref(keeper)
    finish(loop)
    del keeper, operation
    gc.collect()
    assert ref() is None


def test_an_operation_in_flight_is_kept_by_its_loop(loop, pipe, calls):
    loop.read(pipe.r, 1, -1, calls)
    gc.collect()
    pipe.put()
    finish(loop)
    assert calls == [(b"x", None)]


def test_no_memory_is_left_by_operations_that_come_and_go(loop, pipe, calls):
    loop.on_error = lambda *_: None

    def come_and_go():
        pipe.put(b"1234567890")
        loop.read(pipe.r, 4, -1, calls)
        loop.read(pipe.r, 100, on_success=calls)
        loop.read(closed_read_end(pipe), 100)
        loop.readinto(pipe.r, bytearray(3), timeout=0)
        loop.read(pipe.r, 100).cancel()
        finish(loop)
        calls.clear()
        for bad in ({"fd": -1, "size": 1}, {"fd": pipe.r, "size": -1}, {"fd": pipe.r, "size": 1, "timeout": -1}):
            with pytest.raises(ValueError):
                loop.read(**bad)

    assert blocks_grown(come_and_go) < 3


# --- fds and paths ------------------------------------------------------------------------------------------------


def test_an_object_with_fileno_is_kept_alive(loop):
    class File:
        def __init__(self, fd):
            self.fd = fd

        def fileno(self):
            return self.fd

        def __del__(self):
            os.close(self.fd)

    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    operation = loop.read(File(read_end), 1)
    loop.run_once(0)
    gc.collect()
    assert read_end in open_fds()
    os.write(write_end, b"x")
    finish(loop)
    assert operation.result() == b"x"
    assert read_end not in open_fds()
    os.close(write_end)


@pytest.mark.parametrize(
    "fd, error",
    [(-1, ValueError), (2**31, ValueError), (2**70, ValueError), (True, TypeError), (1.0, TypeError), ("0", TypeError)]
    + [(None, TypeError), (object(), TypeError)],
    ids=repr,
)
def test_a_bad_fd(loop, fd, error):
    with pytest.raises(error, match="fd"):
        loop.read(fd, 1)
    assert loop.statistics().operations_in_flight == 0


def test_an_fd_that_is_not_open(loop, pipe):
    pipe.close_read()
    with pytest.raises(OSError) as raised:
        loop.read(pipe.r, 1)
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, pipe.r)


@pytest.mark.parametrize("kind", ["object", "int of a class"])
def test_an_fd_that_is_not_open_is_refused_at_the_call(loop, kind):
    number = unused_fd()

    class Named:
        def fileno(self):
            return number

    class Number(int):
        pass

    with pytest.raises(OSError) as raised:
        loop.read(Named() if kind == "object" else Number(number), 1)
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, number)
