"""Promises: operations whose result the program brings. Loop.resolve is one; here a test stands for who is asked."""

import gc
import socket
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import pytest
from _fault import in_fork, in_thread
from _names import Told
from _support import blocks_grown, close_checked, finish

from linux_event import Loop
from linux_event.net import resolver
from linux_event.promise import fail, settle, when_abandoned


@pytest.fixture
def questions(monkeypatch):
    """The questions that came to the driver: pairs of operation and question, which the test has to answer."""
    asked = []

    def driver(self, name, flags):
        return lambda operation, question: asked.append((operation, question))

    monkeypatch.setattr(resolver.Resolver, "driver", driver)
    yield asked
    asked.clear()


def test_the_result_is_told_by_the_loop(loop, questions):
    told = Told()
    operation = loop.resolve("some.test", 80, told, type=socket.SOCK_STREAM)
    [(asked, question)] = questions
    assert asked is operation
    assert (question.host, question.name, question.port) == ("some.test", b"some.test", 80)
    loop.run_once(0)
    with pytest.raises(InvalidStateError):
        operation.result()
    assert settle(operation, ["found"])
    assert not told.calls
    assert not operation.done()
    finish(loop)
    assert told.result == operation.result() == ["found"]
    assert not settle(operation, ["more"])
    assert not fail(operation, OSError())


def test_a_failure_is_told_as_it_is(loop, questions):
    told = Told()
    operation = loop.resolve("some.test", 80, told)
    error = ConnectionError("of a test")
    assert fail(operation, error)
    assert not settle(operation, [])
    finish(loop)
    assert told.error is error
    assert operation.exception() is error
    with pytest.raises(ConnectionError):
        operation.result()


@pytest.mark.parametrize("end", ["cancel", "timeout", "close"])
def test_who_is_asked_hears_that_nobody_waits(questions, end):
    loop = Loop()
    told, heard = Told(), []
    operation = loop.resolve("some.test", 80, told, timeout=0.01 if end == "timeout" else None)
    when_abandoned(operation, lambda: heard.append(settle(operation, ["late"])))
    if end == "cancel":
        assert operation.cancel()
        assert heard == [False]
        assert operation.cancel()
    if end != "close":
        finish(loop)
    close_checked(loop)
    assert heard == [False]
    assert isinstance(told.error, TimeoutError if end == "timeout" else CancelledError)
    assert operation.cancelled() == (end != "timeout")


def test_who_has_answered_hears_nothing(loop, questions):
    heard = []
    operations = [loop.resolve("some.test"), loop.resolve("other.test", on_error=heard.remove)]
    for operation in operations:
        when_abandoned(operation, lambda: heard.append("abandoned"))
    settle(operations[0], [])
    error = OSError()
    heard.append(error)
    fail(operations[1], error)
    assert operations[0].cancel()
    finish(loop)
    assert heard == []


@pytest.mark.parametrize("error", [None, OSError("of a test")])
def test_it_can_be_taken_back_until_it_is_told(loop, questions, error):
    told = Told()
    operation = loop.resolve("some.test", 80, told)
    if error:
        fail(operation, error)
    else:
        settle(operation, [])
    assert operation.cancel()
    assert operation.cancel()
    assert operation.cancelled()
    with pytest.raises(CancelledError):
        operation.result()
    finish(loop)
    assert isinstance(told.error, CancelledError)


def test_only_its_thread_may_take_it_back(loop, questions):
    loop.run_once(0)
    operation = loop.resolve("some.test")
    settle(operation, [])

    def call():
        with pytest.raises(RuntimeError, match="thread"):
            operation.cancel()

    in_thread(call)
    finish(loop)
    assert not operation.cancelled()
    assert not operation.cancel()


def test_a_driver_that_raises_is_a_failure_of_the_operation(loop, monkeypatch):
    def driver(self, name, flags):
        def ask(operation, question):
            raise RuntimeError("out of order")

        return ask

    monkeypatch.setattr(resolver.Resolver, "driver", driver)
    told = Told()
    loop.resolve("some.test", 80, told)
    finish(loop)
    assert isinstance(told.error, RuntimeError)


def test_a_name_is_asked_for_by_idna(loop, questions):
    loop.resolve("b\u00fccher.test")
    loop.resolve(b"b\xfccher.test")
    assert [question.name for _, question in questions] == [b"xn--bcher-kva.test", b"b\xfccher.test"]
    for operation, _ in list(questions):
        operation.cancel()
    finish(loop)


def test_a_loop_around_is_told(loop, questions):
    told = Told()
    operation = loop.resolve("some.test", 80, told)
    loop.fileno()
    settle(operation, [])
    loop.run_once(0)
    assert told.result == []


def test_a_forked_child_ends_its_copy(loop, questions):
    operation = loop.resolve("some.test")
    heard = []
    when_abandoned(operation, lambda: heard.append(True))

    def child():
        loop.close()
        return operation.cancelled(), heard

    assert in_fork(child) == (True, [True])
    assert not operation.done()
    assert settle(operation, [])
    finish(loop)


def test_a_cycle_through_it_is_collected(questions):
    class Asker:
        def __init__(self, loop):
            self.loop = loop
            self.operation = loop.resolve("some.test", 80, self.told)
            when_abandoned(self.operation, self.abandoned)
            self.heard = 0

        def told(self, result, error):
            raise AssertionError("nobody is to be told")

        def abandoned(self):
            heard.append(True)

    heard = []
    loop = Loop()
    gone = weakref.ref(Asker(loop))
    questions.clear()
    assert gone() is not None
    with pytest.warns(ResourceWarning, match="unclosed"):
        del loop
        gc.collect()
    assert gone() is None
    assert heard == [True]


def test_nothing_is_left_in_memory(loop, questions):
    def ask():
        for _ in range(100):
            settle(loop.resolve("some.test", 80, lambda result, error: None), [])
            fail(loop.resolve("some.test", 80, lambda result, error: None), OSError())
            operation = loop.resolve("some.test", 80, timeout=60)
            when_abandoned(operation, lambda: None)
            operation.cancel()
        questions.clear()
        finish(loop)

    assert blocks_grown(ask) <= 0
