"""Loop.resolve where nobody has to be asked: addresses in numbers, arguments, and what it has of an operation."""

import gc
import os
import select
import socket
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import pytest
from _fault import in_fork, in_thread, run_script
from _names import Told
from _support import blocks_grown, close_checked, finish, run_until

from linux_event import Loop, LoopClosedError, Operation, WrongThreadError
from linux_event.promise import fail, settle

NUMERIC = [
    ("127.0.0.1", 80, {}),
    ("127.0.0.1", 0, {}),
    ("127.0.0.1", 65535, {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", 53, {"type": socket.SOCK_DGRAM, "family": socket.AF_INET}),
    ("127.0.0.1", 80, {"proto": socket.IPPROTO_TCP}),
    ("127.0.0.1", None, {}),
    ("127.0.0.1", "80", {}),
    ("127.0.0.1", b"80", {}),
    ("127.0.0.1", "http", {}),
    ("127.0.0.1", b"domain", {}),
    ("127.0.0.1", "", {}),
    ("127.1", 80, {}),
    ("0x7f.0.0.1", 80, {}),
    ("017700000001", 80, {}),
    ("2130706433", 80, {}),
    (b"127.0.0.1", 80, {}),
    ("255.255.255.255", 80, {}),
    ("\uff11\uff12\uff17.0.0.1", 80, {}),  # fullwidth digits, by IDNA
    ("::1", 80, {}),
    ("::", 80, {"family": socket.AF_INET6}),
    ("2001:DB8::1", 80, {}),
    ("::ffff:192.0.2.1", 80, {}),
    ("fe80::1%lo", 80, {}),
    ("fe80::1%1", 80, {"type": socket.SOCK_STREAM}),
    (None, 80, {}),
    (None, "http", {}),
    (None, 80, {"flags": socket.AI_PASSIVE}),
    (None, 80, {"family": socket.AF_INET, "type": socket.SOCK_STREAM}),
    ("*", 80, {}),
    ("127.0.0.1", 80, {"flags": socket.AI_CANONNAME}),
    ("127.0.0.1", 80, {"flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV}),
    ("127.0.0.1", 80, {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED}),
]

FAILING = [
    ("127.0.0.1", 80, {"family": socket.AF_INET6}),
    ("::1", 80, {"family": socket.AF_INET}),
    ("127.0.0.1", 80, {"family": socket.AF_UNIX}),
    ("127.0.0.1", 80, {"type": 99}),
    ("127.0.0.1", 80, {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP}),
    ("127.0.0.1", 80, {"flags": 1 << 20}),
    ("127.0.0.1", "nosuchservice", {}),
    ("127.0.0.1", "http", {"flags": socket.AI_NUMERICSERV}),
    ("localhost", 80, {"flags": socket.AI_NUMERICHOST}),
    ("localhost", "nosuchservice", {}),
    ("::1%nosuchdevice", 80, {}),
    ("1:2:3", 80, {}),
    ("", 80, {}),
    (b"", 80, {}),
    (None, None, {}),
]


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch):
    """Nothing here may come to a driver."""
    from linux_event.net import resolver

    def driver(self, name, flags):
        raise AssertionError(f"somebody was to be asked for {name}")

    monkeypatch.setattr(resolver.Resolver, "driver", driver)


@pytest.mark.parametrize(("host", "port", "keywords"), NUMERIC)
def test_numbers_are_answered_as_by_getaddrinfo(loop, host, port, keywords):
    told = Told()
    operation = loop.resolve(host, port, told, **keywords)
    assert isinstance(operation, Operation)
    assert not told.calls
    assert not operation.done()
    assert loop.run_once(0) == 1
    want = socket.getaddrinfo(host, port, **keywords)
    assert told.result == want
    assert operation.result() == want
    assert [tuple(map(type, entry)) for entry in told.result] == [tuple(map(type, entry)) for entry in want]


@pytest.mark.parametrize(("host", "port", "keywords"), FAILING)
def test_what_getaddrinfo_refuses_fails_alike(loop, host, port, keywords):
    told = Told()
    loop.resolve(host, port, told, **keywords)
    assert not told.calls
    finish(loop)
    with pytest.raises(socket.gaierror) as refused:
        socket.getaddrinfo(host, port, **keywords)
    assert type(told.error) is socket.gaierror
    assert told.error.args == refused.value.args
    assert told.error.filename == host


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "text"),
    [
        ((5,), {}, TypeError, "host must be a str, bytes or None, not int"),
        ((bytearray(b"127.0.0.1"),), {}, TypeError, "host"),
        (("127.0.0.1\0x",), {}, ValueError, "host must not have a NUL"),
        ((b"127.0.0.1\0x",), {}, ValueError, "host must not have a NUL"),
        (("127.0.0.1", "80\0"), {}, ValueError, "port must not have a NUL"),
        (("127.0.0.1", -1), {}, ValueError, "port must be within 0 .. 65535, not -1"),
        (("127.0.0.1", 65536), {}, ValueError, "port must be within"),
        (("127.0.0.1", 1 << 99), {}, ValueError, "port must be within"),
        (("127.0.0.1", "65536"), {}, ValueError, "port must be within"),
        (("127.0.0.1", "\u0661"), {}, ValueError, "port"),
        (("127.0.0.1", 80.0), {}, TypeError, "port must be an int"),
        (("127.0.0.1", True), {}, TypeError, "port"),
        (("127.0.0.1", [80]), {}, TypeError, "port"),
        (("127.0.0.1", print, print), {}, TypeError, "port"),
        (("127.0.0.1", 80, 5), {}, TypeError, "callback"),
        (("127.0.0.1",), {"family": "inet"}, TypeError, "family"),
        (("127.0.0.1",), {"family": 1 << 40}, ValueError, "family"),
        (("127.0.0.1",), {"type": None}, TypeError, "type"),
        (("127.0.0.1",), {"proto": 1.0}, TypeError, "proto"),
        (("127.0.0.1",), {"flags": -(1 << 40)}, ValueError, "flags"),
        (("127.0.0.1",), {"timeout": -1}, ValueError, "timeout"),
        (("127.0.0.1",), {"timeout": "1"}, TypeError, "timeout"),
        (("127.0.0.1",), {"on_success": 1}, TypeError, "on_success"),
        (("127.0.0.1",), {"callback": print, "on_error": print}, TypeError, "both forms"),
        (("a..b",), {}, UnicodeError, "label empty"),
        (("x" * 64,), {}, UnicodeError, "label too long"),
        (("\u00fc" * 70,), {}, UnicodeError, "label"),
    ],
)
def test_bad_arguments_raise_at_the_call(loop, arguments, keywords, error, text):
    with pytest.raises(error, match=text):
        loop.resolve(*arguments, **keywords)
    assert loop.statistics().operations_in_flight == 0


def test_all_forms_of_callbacks(loop):
    told = []
    loop.resolve("127.0.0.1", lambda result, error: told.append((result[0][4], error)))
    loop.resolve("127.0.0.1", callback=lambda result, error: told.append((result[0][4], error)))
    loop.resolve("127.0.0.1", 9, on_success=lambda result: told.append(result[0][4]))
    loop.resolve("1:2", 9, on_error=lambda error: told.append(error.errno))
    loop.resolve("127.0.0.1", 7).add_done_callback(lambda operation: told.append(operation.result()[0][4]))
    assert told == []
    finish(loop)
    assert told == [
        (("127.0.0.1", 0), None),
        (("127.0.0.1", 0), None),
        ("127.0.0.1", 9),
        socket.EAI_NONAME,
        ("127.0.0.1", 7),
    ]


def test_a_failure_nobody_asked_for_goes_to_on_error(loop):
    seen = []
    loop.on_error = lambda source, error: seen.append((source, error))
    operation = loop.resolve("1:2")
    finish(loop)
    [(source, error)] = seen
    assert source is operation
    assert error is operation.exception()
    assert "1:2" in str(error)


def test_it_can_be_cancelled_until_it_is_told(loop):
    told = Told()
    operation = loop.resolve("127.0.0.1", 80, told)
    with pytest.raises(InvalidStateError):
        operation.result()
    assert operation.cancel()
    assert operation.cancel()
    assert operation.cancelled()
    finish(loop)
    assert isinstance(told.error, CancelledError)
    failing = loop.resolve("1:2", 80, told)
    assert failing.cancel()
    finish(loop)
    assert isinstance(told.calls[1][1], CancelledError)
    done = loop.resolve("127.0.0.1")
    finish(loop)
    assert not done.cancel()
    assert not done.cancelled()


def test_the_timeout_does_not_matter_when_the_answer_is_there(loop):
    told = Told()
    loop.resolve("127.0.0.1", 80, told, timeout=0)
    finish(loop)
    assert told.result
    assert loop.statistics().timers == 0


def test_no_more_than_a_portion_is_told_in_one_iteration():
    with Loop(max_events=4) as loop:
        calls = []

        def again(result, error):
            calls.append(result)
            if len(calls) < 10:
                loop.resolve("127.0.0.1", 80, again)

        loop.resolve("127.0.0.1", 80, again)
        loop.run_once(0)
        assert len(calls) == 4
        finish(loop)
        assert len(calls) == 10


def test_it_is_not_for_chains(loop):
    with pytest.raises(ValueError, match="resolve is more than one request"), loop.link():
        loop.resolve("127.0.0.1")


def test_closing_tells_what_was_found():
    told = Told()
    loop = Loop()
    loop.resolve("127.0.0.1", 80, told)
    close_checked(loop)
    assert told.result
    with pytest.raises(LoopClosedError):
        loop.resolve("127.0.0.1")


def test_another_thread_may_not(loop):
    loop.run_once(0)

    def call():
        with pytest.raises(WrongThreadError):
            loop.resolve("127.0.0.1")
        with pytest.raises(WrongThreadError):
            operation.cancel()

    operation = loop.resolve("127.0.0.1")
    in_thread(call)


def test_a_forked_child_may_not(loop):
    def call():
        with pytest.raises(RuntimeError, match="fork"):
            loop.resolve("127.0.0.1")

    in_fork(call)


def test_a_loop_around_is_told(loop):
    told = Told()
    fd = loop.fileno()
    assert not select.select([fd], [], [], 0)[0]
    loop.resolve("127.0.0.1", 80, told)
    assert select.select([fd], [], [], 0)[0]
    loop.run_once(0)
    assert told.result


def test_a_dropped_loop_is_collected():
    loop = Loop()
    told = Told()
    told.loop = loop
    loop.resolve("127.0.0.1", 80, told)
    gone = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del loop, told
        gc.collect()
    assert gone() is None


def test_the_program_may_bring_one_result_only(loop):
    told = Told()
    operation = loop.resolve("127.0.0.1", 80, told)
    assert not settle(operation, [])
    assert not fail(operation, OSError())
    finish(loop)
    assert told.result
    assert not settle(operation, [])
    with pytest.raises(TypeError):
        settle(None, [])


def test_the_promise_is_a_weakly_referable_operation(loop):
    operation = loop.resolve("127.0.0.1", 80)
    assert "resolve '127.0.0.1' in flight" in repr(operation)
    reference = weakref.ref(operation)
    del operation
    assert reference() is not None
    finish(loop)
    assert reference() is None


def test_nothing_is_left_in_memory(loop):
    def ask():
        for _ in range(200):
            loop.resolve("127.0.0.1", 80, lambda result, error: None)
            loop.resolve("1:2", 80, lambda result, error: None)
            loop.resolve("127.0.0.1", 80).cancel()
        finish(loop)

    assert blocks_grown(ask) <= 0


def test_no_fd_and_no_thread_is_taken(loop):
    before = os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")
    calls = []
    for _ in range(100):
        loop.resolve("127.0.0.1", 80, lambda result, error: calls.append(result))
    run_until(loop, lambda: len(calls) == 100)
    assert (os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")) == before


def test_the_import_of_the_package_brings_no_module_of_it():
    program = """
        import sys
        before = set(sys.modules)  # the measuring of coverage brings some
        import linux_event
        loop = linux_event.Loop()
        brought = set(sys.modules) - before
        print([name for name in ("socket", "_socket", "threading", "pycares", "linux_event.net.resolver") if name in brought])
        loop.close()
    """
    run_script(program, env={"LINUX_EVENT_RESOLVER": "no matter"}).check("[]")
