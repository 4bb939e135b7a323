"""Names by c-ares: what the loop does for it, and when it is not asked."""

import gc
import itertools
import math
import socket
import sys
import time

import pytest
from _fault import open_fds, wait_until
from _names import Name, Told, asking, found, put_file
from _support import finish, made_loop, run_until, scaled

from linux_event.net import resolver

ZONE = {
    "good.test": Name(a=("192.0.2.3",)),
    "slow.test": Name(a=("192.0.2.8",), delay=0.6),
    "tcp.test": Name(a=("192.0.2.7",), fault="truncated", delay=0.1),
    "*.silent.test": Name(fault="silent"),
    "*.many.test": Name(a=("192.0.2.4",)),
}


def ask(body, **keywords):
    keywords.setdefault("driver", "cares")
    return asking(body, keywords.pop("zone", ZONE), **keywords)


def asked(loop, host, port=80, **keywords):
    told = Told()
    loop.resolve(host, port, told, **keywords)
    finish(loop)
    return told.result


@pytest.fixture
def in_threads(monkeypatch):
    """The names that are left to the threads, as the children see it."""
    from linux_event.net import dns_threads

    names, plain = [], dns_threads.ask

    def note(operation, question):
        names.append(question.name)
        plain(operation, question)

    monkeypatch.setattr(dns_threads, "ask", note)
    return names


def test_sockets_and_deadlines_are_watched_without_keeping_the_loop():
    def body(loop, server):
        asked(loop, "good.test")
        assert loop.statistics().watchers == 0
        before = set(open_fds())
        operation = loop.resolve("n1.silent.test")
        loop.run_once(0)
        kinds = sorted(type(watcher).__name__ for watcher in loop.watchers.values())
        assert set(kinds) == {"IOWatcher", "Timer"}
        assert not any(watcher.ref for watcher in loop.watchers.values())
        operation.cancel()
        loop.run()
        assert loop.statistics().watchers == 0
        assert set(open_fds()) == before

    ask(body)


def test_no_thread_waits_for_an_answer(in_threads):
    def body(loop, server):
        tolds = [Told() for _ in range(50)]
        for i, told in enumerate(tolds):
            loop.resolve(f"n{i}.many.test", 80, told)
        finish(loop)
        assert all(told.result for told in tolds)
        return in_threads

    assert ask(body) == []


@pytest.mark.parametrize(
    ("host", "keywords", "files"),
    [
        ("localhost", {}, {}),
        ("LOCALHOST", {}, {}),
        ("below.localhost", {}, {}),
        ("good.test", {"flags": socket.AI_CANONNAME}, {}),
        ("good.test", {"flags": socket.AI_ADDRCONFIG}, {}),
        ("good.test", {}, {"nsswitch": "passwd: files\nhosts: files mymachines dns\n"}),
        ("good.test", {}, {"nsswitch": "hosts: files [NOTFOUND=return] dns\n"}),
        ("good.test", {}, {"gai": "# a comment\nprecedence ::ffff:0:0/96 100\n"}),
        ("good.test", {}, {"resolv": "options timeout:1 no-aaaa attempts:1\n"}),
    ],
)
def test_what_only_libc_knows_is_left_to_it(in_threads, host, keywords, files):
    def body(loop, server):
        told = Told()
        loop.resolve(host, 80, told, **keywords)
        finish(loop)
        assert told.calls
        return in_threads

    # Without a word about who is to be asked: "cares" stands over the configuration of the system.
    names = ask(body, driver="" if files else "cares", **files)
    assert names == [host.encode()]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"nsswitch": "hosts: dns\n"},
        {"nsswitch": "# nothing about hosts\n"},
        {"gai": "# comments\n\n# alone\n"},
        {"resolv": "# options no-aaaa\noptions edns0 timeout:1\n"},
    ],
)
def test_otherwise_cares_is_asked_where_it_is_installed(in_threads, files):
    pytest.importorskip("pycares")

    def body(loop, server):
        assert asked(loop, "good.test")
        return in_threads

    assert ask(body, driver="", **files) == []


def test_cares_may_be_insisted_on(in_threads):
    def body(loop, server):
        assert asked(loop, "good.test")
        return in_threads

    assert ask(body, nsswitch="hosts: files mymachines dns\n") == []


@pytest.mark.parametrize("version", [None, "4.11.0"])
def test_without_pycares(in_threads, monkeypatch, version):
    module = None if version is None else type(sys)("pycares")
    if module:
        module.__version__ = version

    def body(loop, server):
        monkeypatch.setitem(sys.modules, "pycares", module)
        assert found(asked(loop, "good.test"))[0] == "192.0.2.3"
        assert in_threads == [b"good.test"]
        monkeypatch.setenv("LINUX_EVENT_RESOLVER", "cares")
        with pytest.raises(ImportError, match=r"linux-event\[dns\]") as missing:
            loop.resolve("good.test")
        assert missing.value.name == "pycares"
        assert loop.statistics().operations_in_flight == 0

    ask(body, driver="")


def test_a_quick_server_may_be_slow_for_once():
    def body(loop, server):
        for _ in range(10):
            asked(loop, "good.test")
        return found(asked(loop, "slow.test"))[0]

    # c-ares alone would ask again after a quarter of a second, and give up at the end of the attempts.
    assert ask(body) == "192.0.2.8"


def test_it_asks_as_long_as_the_configuration_says():
    def body(loop, server):
        for _ in range(10):
            asked(loop, "good.test")
        started = time.monotonic()
        told = Told()
        loop.resolve("n1.silent.test", 80, told)
        finish(loop)
        assert told.error.errno == socket.EAI_AGAIN
        return time.monotonic() - started

    took = ask(body, resolv="options timeout:1 attempts:1\n")
    assert 2.9 < took < 20


def test_as_many_are_asked_at_a_time_as_their_answers_find_room():
    count = scaled(2000, 300)

    def body(loop, server):
        from linux_event.net import dns_cares

        tolds = [Told() for _ in range(count)]
        for i, told in enumerate(tolds):
            loop.resolve(f"n{i}.many.test", 80, told)
        [channel] = dns_cares.channels
        assert len(channel.fresh) == dns_cares.FRESH_MAX
        dropped = loop.resolve("n-1.many.test")
        dropped.cancel()
        finish(loop)
        assert all(told.result for told in tolds)
        assert not channel.waiting
        assert not channel.queue
        assert not channel.begun
        assert not channel.fresh
        return server.asked["n-1.many.test"]

    assert ask(body) == 0


def test_by_tcp_and_cancelled_meanwhile():
    def body(loop, server):
        asked(loop, "good.test")
        before = set(open_fds())
        assert found(asked(loop, "tcp.test"))[0] == "192.0.2.7"
        told = Told()
        operation = loop.resolve("tcp.test", 80, told)
        run_until(loop, lambda: server.by_tcp["tcp.test"] > 2)
        operation.cancel()
        finish(loop)
        assert told.calls
        # The other end is closed by the server, when it has seen the end of this one.
        wait_until(lambda: set(open_fds()) <= before)

    ask(body)


def test_channels_of_former_configurations_end_by_themselves():
    def body(loop, server):
        from linux_event.net import dns_cares

        tolds = []
        for i in range(5):
            put_file("/etc/resolv.conf", f"nameserver {server.address}\noptions timeout:2 attempts:1\n# {i}\n")
            tolds.append(Told())
            loop.resolve("slow.test", 80 + i, tolds[-1])
        assert len(dns_cares.channels) == 5
        finish(loop)
        assert [told.result[0][4][1] for told in tolds] == [80, 81, 82, 83, 84]
        gc.collect()
        assert len(dns_cares.channels) == 1

    ask(body)


def test_a_channel_goes_with_its_loop():
    def body(loop, server):
        from linux_event.net import dns_cares

        with made_loop() as other:
            assert asked(other, "good.test")
            assert len(dns_cares.channels) == 1
        assert len(dns_cares.channels) == 0

    ask(body)


def test_ctrl_c_while_an_answer_is_handed_over(monkeypatch):
    def body(loop, server):
        from linux_event.net import dns_cares

        plain, raised = dns_cares.in_order, []

        def interrupted(hosts):
            if not raised:
                raised.append(True)
                raise KeyboardInterrupt
            return plain(hosts)

        monkeypatch.setattr(dns_cares, "in_order", interrupted)
        told, other = Told(), Told()
        loop.resolve("good.test", 80, told)
        loop.resolve("n1.many.test", 80, other)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert not told.calls or not other.calls
        finish(loop)
        assert told.result
        assert other.result

    ask(body)


def test_a_failure_within_is_told(monkeypatch):
    def body(loop, server):
        from linux_event.net import dns_cares

        def no_memory(hosts):
            raise MemoryError

        monkeypatch.setattr(dns_cares, "in_order", no_memory)
        told = Told()
        loop.resolve("good.test", 80, told)
        finish(loop)
        assert isinstance(told.error, MemoryError)

    ask(body)


def test_a_link_local_address_keeps_its_scope():
    dns_cares = pytest.importorskip("linux_event.net.dns_cares")

    class Node:
        addr = (b"fe80::1", 0, 0, 1)

    assert dns_cares.numbers_of(Node) == b"fe80::1%1"
    Node.addr = (b"fe80::1", 0, 0, 0)
    assert dns_cares.numbers_of(Node) == b"fe80::1"
    Node.addr = (b"192.0.2.1", 0)
    assert dns_cares.numbers_of(Node) == b"192.0.2.1"


def test_errors_of_cares_are_those_of_getaddrinfo():
    dns_cares = pytest.importorskip("linux_event.net.dns_cares")
    import pycares

    for status in pycares.errno.errorcode:
        error = dns_cares.error_of(status, "some.test")
        assert error.filename == "some.test"
        assert error.errno in vars(socket).values()
        assert error.strerror


@pytest.mark.parametrize(
    ("text", "environment", "seconds"),
    [
        ("", "", 5 + 10),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", "", 2 * 5 + 10),
        ("nameserver 192.0.2.1\n" * 5, "", 3 * 5 + 10),
        ("options timeout:1 attempts:1\n", "", 3),
        ("options timeout:2 attempts:3\n", "", 2 + 4 + 8),
        ("options timeout:99 attempts:99\n", "", 30 * (1 + 2 + 4 + 8 + 16)),
        ("options timeout:x attempts:0 rotate\n", "", 15),
        ("options timeout:1 attempts:1\n", "timeout:3", 9),
        ("domain corp.test\noptions timeout:1 attempts:1\n", "", 6),
        ("search a.test b.test\nsearch c.test d.test e.test ; f.test\noptions timeout:1 attempts:1 # no\n", "", 12),
    ],
)
def test_the_patience_is_that_of_the_configuration(monkeypatch, tmp_path, text, environment, seconds):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(file))
    monkeypatch.setenv("RES_OPTIONS", environment)
    assert resolver.patience_s() == seconds
    file.unlink()
    monkeypatch.delenv("RES_OPTIONS")
    assert math.isclose(resolver.patience_s(), 15)
    assert resolver.version_of(str(file)) is None


def test_many_questions_one_after_the_other():
    def body(loop, server):
        left, seen = itertools.count(), []

        def told(result, error):
            seen.append(result[0][4])
            if (number := next(left)) < 300:
                loop.resolve(f"n{number}.many.test", number, told)

        loop.resolve("good.test", 80, told)
        finish(loop)
        return len(seen)

    assert ask(body) == 301
