"""The threads for names: how many there are, whose turn it is, and what ends them."""

import os
import signal
import socket
import threading
import time

import pytest
from _fault import count_threads, wait_until
from _names import Name, Told, asking, found
from _support import finish, run_until

ZONE = {
    "good.test": Name(a=("192.0.2.3",)),
    "slow.test": Name(a=("192.0.2.8",), delay=0.3),
    "slower.test": Name(a=("192.0.2.8",), delay=2.0),
    "*.silent.test": Name(fault="silent"),
    "*.dead.example": Name(fault="silent"),
    "*.many.test": Name(a=("192.0.2.4",)),
}
V4 = {"family": socket.AF_INET}


@pytest.fixture
def limits(monkeypatch):
    """Sets the limits of the pool; children inherit them."""
    from linux_event.net import dns_threads

    return lambda **values: [monkeypatch.setattr(dns_threads, name, value) for name, value in values.items()]


def ask(body, **keywords):
    return asking(body, ZONE, driver="threads", **keywords)


def test_equal_lookups_are_made_once():
    def body(loop, server):
        tolds = [Told() for _ in range(50)]
        for told in tolds:
            loop.resolve("slow.test", 80, told, **V4)
        other = Told()
        loop.resolve("slow.test", 81, other, **V4)
        finish(loop)
        assert all(found(told.result)[0] == "192.0.2.8" for told in tolds)
        assert tolds[0].result is not tolds[1].result  # each may do with it what it likes
        assert other.result[0][4][1] == 81
        return server.asked["slow.test"]

    assert ask(body) == 2


def test_equal_lookups_fail_for_each():
    def body(loop, server):
        tolds = [Told() for _ in range(3)]
        for told, host in zip(tolds, ("nosuch.test", b"nosuch.test", "nosuch.test"), strict=True):
            loop.resolve(host, 80, told)
        finish(loop)
        errors = [told.error for told in tolds]
        assert len({id(error) for error in errors}) == 3
        assert [error.filename for error in errors] == ["nosuch.test", b"nosuch.test", "nosuch.test"]

    ask(body)


def test_what_nobody_waits_for_is_not_asked(limits):
    limits(FRESH_MAX=1, FRESH_S=60)

    def body(loop, server):
        told = Told()
        loop.resolve("slower.test", 80, told)
        run_until(loop, lambda: server.asked["slower.test"])
        dropped = [loop.resolve(f"n{i}.many.test", 80, Told()) for i in range(20)]
        late = loop.resolve("n99.many.test", 80, Told(), timeout=0.01)
        loop.run_once(0.05)
        for operation in dropped:
            assert operation.cancel()
        finish(loop)
        assert told.result
        assert isinstance(late.exception(), TimeoutError)
        again = Told()
        loop.resolve("n5.many.test", 80, again)
        finish(loop)
        assert again.result
        return sorted(name for name in server.asked if "many" in name)

    assert ask(body, resolv="options timeout:9 attempts:1\n") == ["n5.many.test"]


def test_few_threads_are_enough_for_names_that_are_answered():
    def body(loop, server):
        before = count_threads()
        tolds = [Told() for _ in range(200)]
        for i, told in enumerate(tolds):
            loop.resolve(f"n{i}.many.test", 80, told)
        run_until(loop, lambda: all(told.calls for told in tolds))
        assert all(told.result for told in tolds)
        return count_threads() - before

    # Eight, and one that waits for the turn of the next.
    assert 1 <= ask(body, idle=5.0) <= 9


def test_threads_end_when_they_have_nothing_to_do():
    def body(loop, server):
        before = count_threads()
        told = Told()
        loop.resolve("good.test", 80, told)
        run_until(loop, lambda: told.calls)
        assert told.result
        wait_until(lambda: count_threads() == before)
        again = Told()
        loop.resolve("good.test", 80, again)
        finish(loop)
        assert again.result

    ask(body)


def test_a_domain_does_not_take_all_places(limits):
    limits(FRESH_MAX=2, FRESH_S=0.05, DOMAIN_MAX=4, THREADS_MAX=8)

    def body(loop, server):
        from linux_event.net import dns_threads

        for i in range(20):
            loop.resolve(f"n{i}.silent.test", 80, Told())
        run_until(loop, lambda: dns_threads.pool.running.get(b"silent.test") == 4)
        told = Told()
        started = time.monotonic()
        loop.resolve("n1.many.example", 80, told)  # no such name, which a server says
        run_until(loop, lambda: told.calls)
        assert told.error.errno == socket.EAI_NONAME
        assert dns_threads.pool.running[b"silent.test"] == 4
        assert dns_threads.pool.threads <= 8
        return time.monotonic() - started

    assert ask(body, resolv="options timeout:3 attempts:1\n") < 2.5


def test_there_is_a_limit_to_threads_and_then_a_turn_for_all(limits):
    limits(FRESH_MAX=2, FRESH_S=0.02, DOMAIN_MAX=100, THREADS_MAX=4)

    def body(loop, server):
        from linux_event.net import dns_threads

        silent = [Told() for _ in range(8)]
        for i, told in enumerate(silent):
            loop.resolve(f"n{i}.dead.example", 80, told)
        good = Told()
        loop.resolve("good.test", 80, good)
        highest = []
        loop.periodic(0.01, lambda _: highest.append(dns_threads.pool.threads), ref=False)
        finish(loop)
        assert good.result
        assert all(told.error.errno == socket.EAI_AGAIN for told in silent)
        return max(highest)

    assert ask(body) == 4


def test_no_thread_can_be_started(monkeypatch):
    def body(loop, server):
        with monkeypatch.context() as patch:

            def start(thread):
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            told, other = Told(), Told()
            loop.resolve("good.test", 80, told)
            loop.resolve("localhost", 80, other)
            assert not told.calls
            finish(loop)
            assert told.error.errno == socket.EAI_AGAIN
            assert "no thread could be started" in str(told.error)
            assert other.error.errno == socket.EAI_AGAIN
        again = Told()
        loop.resolve("good.test", 80, again)
        finish(loop)
        assert again.result

    ask(body)


def test_one_thread_is_enough_where_no_second_can_be_started(monkeypatch):
    def body(loop, server):
        start, started = threading.Thread.start, []

        def once(thread):
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", once)
        tolds = [Told() for _ in range(20)]
        for i, told in enumerate(tolds):
            loop.resolve(f"n{i}.many.test", 80, told)
        finish(loop)
        assert all(told.result for told in tolds)

    ask(body, idle=0.5)


def test_another_failure_than_that_of_a_name_is_told(monkeypatch):
    def body(loop, server):
        from linux_event.net import dns_threads

        def no_memory(*arguments):
            raise MemoryError

        monkeypatch.setattr(dns_threads, "getaddrinfo", no_memory)
        told = Told()
        loop.resolve("good.test", 80, told)
        finish(loop)
        assert isinstance(told.error, MemoryError)

    ask(body)


def test_the_loop_may_be_closed_before_the_answer():
    def body(loop, server):
        from linux_event import Loop

        for _ in range(5):
            with Loop() as other:
                other.resolve("slow.test", 80, Told())
                other.run_once(0.01)
        told = Told()
        loop.resolve("slow.test", 80, told)  # joins what those have asked for
        finish(loop)
        assert told.result
        return server.asked["slow.test"]

    assert ask(body) == 2


def test_a_signal_handler_may_ask_while_asking():
    def body(loop, server):
        tolds = []

        def handler(*_):
            tolds.append(Told())
            loop.resolve(f"s{len(tolds)}.many.test", 80, tolds[-1])

        signal.signal(signal.SIGUSR1, handler)
        plain = [Told() for _ in range(50)]
        for i, told in enumerate(plain):
            os.kill(os.getpid(), signal.SIGUSR1)
            loop.resolve(f"n{i}.many.test", 80, told)
        finish(loop)
        assert all(told.result for told in [*plain, *tolds])
        return len(tolds)

    assert ask(body) > 0


def test_a_forked_child_has_larger_stacks_than_its_parents(monkeypatch):
    import resource

    from linux_event.net import dns_threads

    monkeypatch.setattr(resource, "getrlimit", lambda which: (16 << 20, resource.RLIM_INFINITY))
    sizes = [dns_threads.own_stack_size(forks) for forks in range(5)]
    assert sizes == [0, 17 << 20, 18 << 20, 19 << 20, 20 << 20]
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert dns_threads.own_stack_size(1) == 9 << 20
