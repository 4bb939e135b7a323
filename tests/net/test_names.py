"""Names, by each of the two drivers, from a name server that the test runs; libc in the same process says what is right."""

import gc
import os
import re
import select
import signal
import socket
import threading
import time
import weakref
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from _fault import IS_SANITIZED, in_fork, in_thread, open_fds, run_script
from _names import FORMERR, NOTIMP, REFUSED, SERVFAIL, Name, Told, asking, found, put_file
from _support import BOUND, finish, made_loop, run_until, scaled

from linux_event import Loop

ZONE = {
    "both.test": Name(a=("192.0.2.1", "192.0.2.2"), aaaa=("2001:db8::1",)),
    "local.test": Name(a=("127.0.0.9", "127.0.0.2", "10.1.2.3"), aaaa=("::1", "fd00::7", "2002::9")),
    "v4.test": Name(a=("192.0.2.3",)),
    "v6.test": Name(aaaa=("::1", "2001:db8::1")),
    "alias.test": Name(cname="both.test"),
    "tcp.test": Name(a=("192.0.2.7",), fault="truncated"),
    "big.test": Name(a=tuple(f"10.0.{i}.1" for i in range(100))),
    "forged.test": Name(a=("192.0.2.9",), fault="wrong id"),
    "slow.test": Name(a=("192.0.2.8",), delay=0.3),
    "empty.test": Name(),
    "inner.corp.test": Name(a=("192.0.2.77",)),
    "two.dots": Name(a=("192.0.2.78",)),
    "xn--bcher-kva.test": Name(a=("192.0.2.79",)),
    "servfail.test": Name(rcode=SERVFAIL),
    "refused.test": Name(rcode=REFUSED),
    "notimp.test": Name(rcode=NOTIMP),
    "silent.test": Name(fault="silent"),
    "*.silent.test": Name(fault="silent"),
    "*.many.test": Name(a=("192.0.2.4",), aaaa=("2001:db8::4",)),
}
HOSTS = """127.0.0.1 localhost
192.0.2.50 Hosts-Name alias  # and a comment
192.0.2.51 several.test
192.0.2.52 several.test
2001:db8::5 several.test
::1 six.test
"""
RESOLV = "search corp.test\noptions timeout:1 attempts:1\n"

QUESTIONS = [
    *((name, 80, {}) for name in ZONE if "silent" not in name and "*" not in name and name != "forged.test"),
    ("both.test", "http", {}),
    ("both.test", None, {"family": socket.AF_INET}),
    ("both.test", 80, {"family": socket.AF_INET6, "type": socket.SOCK_STREAM}),
    ("both.test", 80, {"proto": socket.IPPROTO_UDP}),
    ("local.test", 80, {"type": socket.SOCK_DGRAM}),
    ("alias.test", 80, {"flags": socket.AI_CANONNAME}),
    ("v4.test", 80, {"family": socket.AF_INET6}),
    ("v6.test", 80, {"family": socket.AF_INET}),
    ("v4.test", 80, {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED}),
    ("both.test.", 80, {}),
    ("BOTH.test", 80, {}),
    (b"both.test", b"80", {}),
    ("b\u00fccher.test", 80, {}),
    ("inner", 80, {}),
    ("two.dots", 80, {}),
    ("nosuch.test", 80, {}),
    ("nosuch", 80, {}),
    ("hosts-name", 80, {}),
    ("ALIAS", 80, {"type": socket.SOCK_STREAM}),
    ("alias", 80, {"flags": socket.AI_CANONNAME}),
    ("several.test", 80, {}),
    ("several.test", 80, {"family": socket.AF_INET6}),
    ("hosts-name", 80, {"family": socket.AF_INET6}),
    ("six.test", 80, {}),
    ("localhost", 80, {}),
    ("localhost", "http", {"type": socket.SOCK_STREAM}),
    ("below.localhost", 80, {}),
    ("not a name", 80, {}),
    (".".join(["x" * 60] * 5), 80, {}),
]


@pytest.fixture(params=["threads", "cares"])
def driver(request):
    return request.param


def outcome(function, *arguments, **keywords):
    try:
        return function(*arguments, **keywords)
    except socket.gaierror as error:
        return error.args


def asked(loop, host, port=80, **keywords):
    told = Told()
    loop.resolve(host, port, told, **keywords)
    assert not told.calls
    finish(loop)
    return told.error.args if told.calls[0][1] else told.result


def test_the_answers_are_those_of_libc(driver):
    def body(loop, server):
        different = []
        for host, port, keywords in QUESTIONS:
            want = outcome(socket.getaddrinfo, host, port, **keywords)
            got = asked(loop, host, port, **keywords)
            if got != want:
                different.append((host, port, keywords, got, want))
            elif isinstance(got, list):
                assert [tuple(map(type, entry)) for entry in got] == [tuple(map(type, entry)) for entry in want]
        assert not different
        assert server.by_tcp["tcp.test"]
        assert server.by_tcp["big.test"]
        return len(asked(loop, "big.test", type=socket.SOCK_STREAM))

    assert asking(body, ZONE, driver=driver, hosts=HOSTS, resolv=RESOLV) == 100


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("nosuch.test", socket.EAI_NONAME),
        ("empty.test", socket.EAI_NODATA),
        ("servfail.test", socket.EAI_AGAIN),
        ("silent.test", socket.EAI_AGAIN),
    ],
)
def test_a_failure_names_the_host(driver, host, code):
    def body(loop, server):
        told = Told()
        loop.resolve(host, 80, on_error=lambda error: told(None, error))
        finish(loop)
        assert type(told.error) is socket.gaierror
        assert told.error.errno == code
        assert told.error.filename == host
        assert host in str(told.error)
        assert told.error.__traceback__ is None

    asking(body, ZONE, driver=driver)


@pytest.mark.parametrize("name", [Name(fault="garbage"), Name(rcode=FORMERR)])
def test_garbage_is_a_failure(driver, name):
    def body(loop, server):
        told = Told()
        loop.resolve("odd.test", 80, told)
        finish(loop)
        assert isinstance(told.error, socket.gaierror)
        assert asked(loop, "v4.test")

    asking(body, {**ZONE, "odd.test": name}, driver=driver)


def test_an_answer_with_a_wrong_number_is_not_believed(driver):
    def body(loop, server):
        return found(asked(loop, "forged.test", type=socket.SOCK_STREAM))

    assert asking(body, ZONE, driver=driver) == ["192.0.2.7"]


def test_the_loop_goes_on_while_a_server_is_slow(driver):
    def body(loop, server):
        ticks, told = [], Told()
        assert asked(loop, "v4.test")  # the modules are there
        loop.periodic(0.005, ticks.append, ref=False)
        loop.resolve("slow.test", 80, told)
        run_until(loop, lambda: told.calls)
        return len(ticks), found(told.result)[0]

    count, address = asking(body, ZONE, driver=driver)
    assert address == "192.0.2.8"
    assert count > 10


def test_threads_of_a_driver_take_no_signals(driver):
    def body(loop, server):
        before = set(os.listdir("/proc/self/task"))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        loop.resolve("slow.test", 80, told := Told(), type=socket.SOCK_STREAM)
        new = [
            Path(f"/proc/self/task/{task}/status").read_text() for task in set(os.listdir("/proc/self/task")) - before
        ]
        blocked = [int(re.search(r"SigBlk:\s*(\w+)", text)[1], 16) for text in new]
        finish(loop)
        assert found(told.result) == ["192.0.2.8"]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        wanted = sum(1 << (signum - 1) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGRTMIN))
        return [bits & wanted == wanted for bits in blocked]

    # pycares starts its thread once, which a child does not inherit.
    assert asking(body, ZONE, driver=driver) in ([[True]] if driver == "threads" else [[True], []])


def test_the_operation_keeps_run_going_and_nothing_else_does(driver):
    def body(loop, server):
        told = Told()
        operation = loop.resolve("slow.test", 80, told)
        assert loop.statistics().operations_in_flight == 1
        loop.run_once(0)
        assert not operation.done()
        finish(loop)
        assert told.result
        left = loop.statistics()
        assert (left.operations_in_flight, left.active_watchers, left.watchers, left.timers) == (0, 0, 0, 0)

    asking(body, ZONE, driver=driver)


def test_cancel(driver):
    def body(loop, server):
        assert asked(loop, "v4.test")  # the loop has opened what it sleeps with
        before = set(open_fds())
        tolds = []
        for rounds in range(6):
            told = Told()
            operation = loop.resolve("silent.test", 80, told)
            for _ in range(rounds):
                loop.run_once(0.01)
            assert operation.cancel()
            assert operation.cancelled()
            assert not told.calls
            finish(loop)
            tolds.append(told)
        assert all(isinstance(told.error, CancelledError) for told in tolds)
        assert loop.statistics().watchers == 0
        # What nobody waits for any more has no socket; that of a thread ends with its lookup.
        if driver == "cares":
            assert set(open_fds()) == before
        assert asked(loop, "v4.test")

    asking(body, ZONE, driver=driver)


def test_cancel_of_one_of_two(driver):
    def body(loop, server):
        first, second = Told(), Told()
        operation = loop.resolve("slow.test", 80, first)
        loop.resolve("slow.test", 81, second)
        loop.run_once(0.01)
        operation.cancel()
        finish(loop)
        assert isinstance(first.error, CancelledError)
        return found(second.result)[0]

    assert asking(body, ZONE, driver=driver) == "192.0.2.8"


def test_cancel_when_the_answer_is_in(driver):
    def body(loop, server):
        told, other = Told(), []
        # In the same iteration, one of the two is told first and cancels the other.
        operations = [loop.resolve("hosts-name", 80, lambda *_: other.append(operations[1].cancel()))]
        operations.append(loop.resolve("hosts-name", 80, told))
        finish(loop)
        assert other in ([True], [False])
        assert isinstance(told.calls[0][1], CancelledError) == other[0]

    asking(body, ZONE, driver=driver, hosts=HOSTS)


def test_timeout(driver):
    def body(loop, server):
        told, in_time = Told(), Told()
        loop.resolve("silent.test", 80, told, timeout=0.05)
        loop.resolve("slow.test", 80, in_time, timeout=BOUND)
        at_once = Told()
        loop.resolve("nosuch.test", 80, at_once, timeout=0)
        finish(loop)
        assert isinstance(told.error, TimeoutError)
        assert told.error.filename == "silent.test"
        assert isinstance(at_once.error, (TimeoutError, socket.gaierror))
        assert in_time.result

    asking(body, ZONE, driver=driver)


def test_closing_the_loop_cancels(driver):
    def body(loop, server):
        tolds = [Told() for _ in range(20)]
        before = set(open_fds())
        with made_loop() as other:
            for i, told in enumerate(tolds):
                other.resolve(f"n{i}.silent.test", 80, told)
            other.run_once(0.02)
        assert all(isinstance(told.error, CancelledError) for told in tolds)
        if driver == "cares":
            assert set(open_fds()) == before
        assert asked(loop, "v4.test")

    asking(body, ZONE, driver=driver)


def test_a_callback_may_stop_and_ask_again(driver):
    def body(loop, server):
        names = [f"n{i}.many.test" for i in range(5)]
        seen = []

        def next_one(result, error):
            seen.append(found(result)[0])
            if names:
                loop.resolve(names.pop(), 80, next_one)
            else:
                loop.stop()

        loop.resolve("v4.test", 80, next_one)
        loop.run(BOUND)
        return len(seen)

    assert asking(body, ZONE, driver=driver) == 6


def test_a_dropped_loop_is_collected(driver):
    def body(loop, server):
        dropped = Loop()
        told = Told()
        told.loop = dropped
        dropped.resolve("silent.test", 80, told)
        dropped.run_once(0.02)
        gone = weakref.ref(dropped)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del dropped, told
            gc.collect()
        assert gone() is None
        assert asked(loop, "v4.test")

    asking(body, ZONE, driver=driver)


def test_hundreds_at_once(driver):
    count = scaled(400, 40)

    def body(loop, server):
        tolds = [Told() for _ in range(count)]
        for i, told in enumerate(tolds):
            loop.resolve(f"n{i}.many.test", i, told, type=socket.SOCK_STREAM)
        finish(loop)
        for i, told in enumerate(tolds):
            assert sorted(entry[4][:2] for entry in told.result) == [("192.0.2.4", i), ("2001:db8::4", i)]

    asking(body, ZONE, driver=driver)


@pytest.mark.parametrize("pattern", ["n{}.silent.test", "silent.d{}.test"])
def test_names_that_are_never_answered_keep_nobody_waiting(driver, pattern):
    zone = {pattern.format(i): Name(fault="silent") for i in range(100)}

    def body(loop, server):
        tolds, good = [Told() for _ in range(100)], Told()
        for i, told in enumerate(tolds):
            loop.resolve(pattern.format(i), 80, told)
        loop.run_once(0.05)
        started = time.monotonic()
        loop.resolve("v4.test", 80, good)
        run_until(loop, lambda: good.calls)
        took = time.monotonic() - started
        assert good.result
        assert not any(told.calls for told in tolds)
        return took

    # Without room for it, the good name would wait until the configuration gives the others up.
    assert asking(body, {**ZONE, **zone}, driver=driver, resolv="options timeout:5 attempts:1\n") < 4


def test_the_hosts_file_may_change(driver):
    def body(loop, server):
        assert asked(loop, "new.test") == (socket.EAI_NONAME, "Name or service not known")
        put_file("/etc/hosts", "192.0.2.90 new.test\n")
        assert found(asked(loop, "new.test"))[0] == "192.0.2.90"
        put_file("/etc/hosts", "192.0.2.91 new.test\n")
        assert found(asked(loop, "new.test"))[0] == "192.0.2.91"

    asking(body, ZONE, driver=driver)


def test_the_configuration_may_change(driver):
    def body(loop, server):
        assert asked(loop, "inner")[0] == socket.EAI_NONAME
        before = Told()
        loop.resolve("slow.test", 80, before)
        loop.run_once(0.01)
        put_file("/etc/resolv.conf", f"nameserver {server.address}\nsearch corp.test\noptions timeout:1 attempts:1\n")
        assert found(asked(loop, "inner"))[0] == "192.0.2.77"
        assert before.result
        put_file(
            "/etc/resolv.conf", f"nameserver {server.address}\nsearch dots\noptions ndots:2 timeout:1 attempts:1\n"
        )
        return found(asked(loop, "two"))[0]

    assert asking(body, ZONE, driver=driver) == "192.0.2.78"


def test_no_server_at_all(driver):
    def body(loop, server):
        put_file("/etc/resolv.conf", "nameserver 127.255.255.253\noptions timeout:1 attempts:1\n")
        return asked(loop, "v4.test")[0]

    assert asking(body, ZONE, driver=driver) == socket.EAI_AGAIN


@pytest.mark.skipif(IS_SANITIZED, reason="with the sanitizer a child forked beside other threads may wait for ever")
def test_a_forked_child_asks_for_itself(driver):
    """Again and again: the child must not go on with the socket of a lookup that is in the middle."""

    def body(loop, server):
        for _ in range(scaled(20, 3)):
            fork_and_ask(loop)

    def fork_and_ask(loop):
        told = Told()
        operation = loop.resolve("slow.test", 80, told)
        loop.run_once(0.02)

        def child():
            with made_loop() as own:
                answer = found(asked(own, "both.test", type=socket.SOCK_STREAM))
            loop.close()
            assert operation.cancelled()
            gc.collect()
            return answer

        assert sorted(in_fork(child)) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        told.calls.clear()
        finish(loop)
        assert told.result

    asking(body, ZONE, driver=driver)


def test_loops_in_several_threads(driver):
    def body(loop, server):
        answers = []

        def work(number):
            with made_loop() as own:
                tolds = [Told() for _ in range(10)]
                for i, told in enumerate(tolds):
                    own.resolve(f"n{i % 5}.many.test", number, told)
                finish(own)
                answers.extend(told.result[0][4][1] for told in tolds)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == sorted(list(range(1, 5)) * 10)
        assert in_thread(lambda: len(answers)) == 40

    asking(body, ZONE, driver=driver)


def test_inside_another_event_loop(driver):
    def body(loop, server):
        told = Told()
        fd = loop.fileno()
        loop.resolve("slow.test", 80, told)
        limit = time.monotonic() + BOUND
        while not told.calls:
            assert time.monotonic() < limit
            select.select([fd], [], [], 1)
            loop.run_once(0)
        return found(told.result)[0]

    assert asking(body, ZONE, driver=driver) == "192.0.2.8"


def test_the_program_may_end_meanwhile(driver):
    def body(loop, server):
        program = """
            import linux_event
            loop = linux_event.Loop()
            for i in range(30):
                loop.resolve(f"n{i}.silent.test", 80, print)
            loop.run_once(0.05)
            loop.resolve("v4.test", 80, lambda result, error: (print(error or result[0][4]), loop.stop()))
            loop.run(50)
            import os, sys
            sys.stdout.flush()
        """
        started = time.monotonic()
        result = run_script(program, options=("-W", "ignore::ResourceWarning"))
        assert result.stdout == "('192.0.2.3', 80)\n", result
        assert "Error" not in result.stderr
        return time.monotonic() - started

    # Nobody waits for the threads, nor for the server.
    assert asking(body, ZONE, driver=driver, resolv="options timeout:30 attempts:1\n") < 25


def test_the_environment_has_to_name_a_driver(loop, monkeypatch):
    monkeypatch.setitem(os.environ, "LINUX_EVENT_RESOLVER", "dnsmasq")
    with pytest.raises(ValueError, match='must be "cares" or "threads", not \'dnsmasq\''):
        loop.resolve("some.test")
    assert loop.statistics().operations_in_flight == 0
