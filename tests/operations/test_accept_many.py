"""accept_many: every connection once, whatever ends the request early."""

import _testcapi
import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
import weakref
from concurrent.futures import CancelledError

import pytest
from _fault import run_script
from _support import BOUND, blocks_grown, close_checked, finish, made_loop, open_fds, run_until, scaled

from linux_event import Loop

FAMILIES = ("inet", "inet6", "unix")


@contextlib.contextmanager
def listening(family="inet", tmp_path=None, backlog=1000):
    if family == "inet":
        server = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    elif family == "inet6":
        server = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=backlog)
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "socket"))
        server.listen(backlog)
    with server:
        yield server


def connect(server):
    client = socket.socket(server.family)
    client.connect(server.getsockname())
    return client


def sockets_open():
    return sum(target.startswith("socket:") for target in open_fds().values())


class Heard:
    """The callback: keeps connections and ends, and closes all in the end."""

    def __init__(self):
        self.accepted = []
        self.ends = []

    def __call__(self, result, error):
        assert not self.ends, "called after its end"
        if error is None:
            self.accepted.append(result)
        else:
            assert result is None
            self.ends.append(error)

    def close(self):
        for sock, _ in self.accepted:
            sock.close()


@pytest.fixture
def heard(nothing_left):
    heard = Heard()
    yield heard
    heard.close()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("as_number", [False, True])
def test_connections(loop, heard, family, as_number, tmp_path):
    with listening(family, tmp_path) as server, contextlib.ExitStack() as stack:
        op = loop.accept_many(server.fileno() if as_number else server, heard)
        clients = [stack.enter_context(connect(server)) for _ in range(3)]
        run_until(loop, lambda: len(heard.accepted) == 3)
        clients.append(stack.enter_context(connect(server)))
        run_until(loop, lambda: len(heard.accepted) == 4)
        for client, (sock, address) in zip(clients, heard.accepted, strict=True):
            assert type(sock) is socket.socket
            assert (sock.family, sock.type, sock.proto) == (
                server.family,
                server.type,
                server.proto if not as_number else sock.proto,
            )
            assert address == client.getsockname()
            assert fcntl.fcntl(sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            client.send(b"hello")
            assert sock.recv(10) == b"hello"
        assert not op.done()
        assert op.cancel()
        finish(loop)
        assert [type(error) for error in heard.ends] == [CancelledError]


def test_both_forms_of_callbacks(loop, heard):
    with listening() as server:
        failed = []
        op = loop.accept_many(server, on_success=lambda result: heard(result, None), on_error=failed.append)
        with connect(server):
            run_until(loop, lambda: heard.accepted)
        assert failed == []
        op.cancel()
        finish(loop)
        assert [type(error) for error in failed] == [CancelledError]


@pytest.mark.parametrize(
    "arguments", [{}, {"entries": 8, "cq_entries": 8}, {"max_events": 1}, {"sqpoll": True, "entries": 8}], ids=repr
)
def test_flood(heard, arguments):
    count = scaled(300, least=100)
    with made_loop(**arguments) as loop, listening() as server, contextlib.ExitStack() as stack:
        op = loop.accept_many(server, heard)
        names = [stack.enter_context(connect(server)).getsockname() for _ in range(count)]
        run_until(loop, lambda: len(heard.accepted) == count)
        assert sorted(address for _, address in heard.accepted) == sorted(names)
        # More, while it is running.
        names += [stack.enter_context(connect(server)).getsockname() for _ in range(20)]
        run_until(loop, lambda: len(heard.accepted) == count + 20)
        assert sorted(address for _, address in heard.accepted) == sorted(names)
        op.cancel()
        finish(loop)


def test_what_was_not_handed_over_is_closed(heard):
    """Cancelled by the callback of the first connection, while others were accepted already."""
    with made_loop() as loop, listening() as server, contextlib.ExitStack() as stack:
        before = sockets_open()

        def cancel(result, error):
            heard(result, error)
            op.cancel()

        op = loop.accept_many(server, cancel)
        clients = [stack.enter_context(connect(server)) for _ in range(50)]
        finish(loop)
        assert len(heard.accepted) == 1
        assert [type(error) for error in heard.ends] == [CancelledError]
        assert sockets_open() == before + len(clients) + 1


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("arguments", [{}, {"max_events": 3}, {"sqpoll": True}], ids=repr)
def test_loop_closed_under_flood(heard, iterations, arguments):
    before = open_fds()
    with listening() as server, contextlib.ExitStack() as stack:
        loop = Loop(**arguments)
        loop.accept_many(server, heard)
        for _ in range(50):
            stack.enter_context(connect(server))
        for _ in range(iterations):
            loop.run_once(0)
        close_checked(loop)
        assert [type(error) for error in heard.ends] == [CancelledError]
        heard.close()
    assert open_fds() == before


def test_a_callback_that_raises_loses_nothing(loop, heard):
    raised = []
    loop.on_error = lambda source, error: raised.append(error.args[0])

    def fail(result, error):
        heard(result, error)
        raise ValueError(len(heard.accepted))

    with listening() as server, contextlib.ExitStack() as stack:
        op = loop.accept_many(server, fail)
        names = [stack.enter_context(connect(server)).getsockname() for _ in range(10)]
        run_until(loop, lambda: len(heard.accepted) == 10)
        assert [address for _, address in heard.accepted] == names
        assert raised == list(range(1, 11))
        op.cancel()
        finish(loop)


def test_a_peer_that_has_gone_already(loop, heard):
    with listening() as server, listening("inet6") as server6:
        ops = [loop.accept_many(one, on_success=lambda result: heard(result, None)) for one in (server, server6)]
        for one in (server, server6):
            client = connect(one)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        run_until(loop, lambda: len(heard.accepted) == 2)
        assert sorted(len(address) for _, address in heard.accepted) == [2, 4]
        for op in ops:
            op.cancel()
        finish(loop)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_timeout(loop, heard, timeout):
    with listening() as server:
        op = loop.accept_many(server, heard, timeout=timeout)
        finish(loop)
        assert [type(error) for error in heard.ends] == [TimeoutError]
        assert not op.cancelled()
        assert op.exception() is heard.ends[0]


@pytest.mark.parametrize("make", [socket.socket, lambda: socket.socket(type=socket.SOCK_DGRAM)])
def test_what_does_not_listen(loop, heard, make):
    with make() as sock:
        loop.accept_many(sock, heard)
        finish(loop)
        (error,) = heard.ends
        assert error.errno in (errno.EINVAL, errno.EOPNOTSUPP)
        assert error.filename == sock.fileno()


def test_bad_arguments(loop, pipe):
    with listening() as server:
        for arguments, keywords, error, text in (
            ((server,), {}, TypeError, "accept_many needs a callback"),
            ((server, 3), {}, TypeError, "callback"),
            ((server, print), {"on_success": print}, TypeError, "both forms"),
            ((server, print), {"timeout": float("nan")}, ValueError, "timeout"),
            ((server, print), {"pool": None}, TypeError, "pool"),
            (("x", print), {}, TypeError, "fd"),
            ((-1, print), {}, ValueError, "fd"),
        ):
            with pytest.raises(error, match=text):
                loop.accept_many(*arguments, **keywords)
        with pytest.raises(ValueError, match="cannot be part of a chain"), loop.link():
            loop.accept_many(server, print)
    assert loop.statistics().operations_in_flight == 0


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_socket_is_kept_alive(loop, heard):
    server = socket.create_server(("127.0.0.1", 0))
    name = server.getsockname()
    gone = weakref.ref(server)
    op = loop.accept_many(server, heard)
    del server
    with socket.create_connection(name):
        run_until(loop, lambda: heard.accepted)
    assert gone() is not None
    op.cancel()
    finish(loop)
    del op
    assert gone() is None


def test_nothing_leaks():
    with listening() as server:

        def use():
            with Loop() as loop:
                op = loop.accept_many(server, lambda result, error: result and result[0].close())
                for _ in range(5):
                    connect(server).close()
                    loop.run_once(BOUND)
                op.cancel()
                loop.run(BOUND)

        assert blocks_grown(use) <= 0


SHORTAGE = """
    import os, resource, socket, sys, time
    from concurrent.futures import CancelledError
    from linux_event import Loop
    import linux_event.cancellation
    mode = sys.argv[1]
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    clients = [socket.create_connection(server.getsockname()) for _ in range(12)]
    loop = Loop()
    accepted, ends, taken = [], [], []

    def on_connection(result, error):
        if error is None:
            accepted.append(result[0])
        else:
            ends.append(error)

    loop.timer(0.01, lambda timer: None)
    loop.run()  # now the loop has the fds that it needs for itself
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, hard))
    op = loop.accept_many(server, on_connection, timeout=0.5 if mode == "timeout" else None)
    limit = time.monotonic() + 20
    while len(accepted) < 4 and time.monotonic() < limit:
        loop.run_once(1)
    before = loop.statistics()
    loop.run(0.45)
    after = loop.statistics()
    assert len(accepted) == 4, len(accepted)
    assert not op.done()
    # About four retries, each an enter for the submission and one for the sleep.
    assert 2 <= after.syscalls - before.syscalls <= 20, after.syscalls - before.syscalls
    assert after.callbacks == before.callbacks
    if mode == "freed":
        for number in range(8):
            accepted.pop().close()
            seen = 4 + number
            count = len(accepted)
            while len(accepted) == count and time.monotonic() < limit:
                loop.run_once(1)
        assert len(accepted) == 4
        op.cancel()
    elif mode == "raised":
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while len(accepted) < 12 and time.monotonic() < limit:
            loop.run_once(1)
        assert len(accepted) == 12
        op.cancel()
    elif mode == "cancelled":
        op.cancel()
    elif mode == "closed":
        loop.close()
    if mode != "closed":
        loop.run(60)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [type(error) for error in ends] == [TimeoutError if mode == "timeout" else CancelledError], ends
    assert loop.statistics().timers == 0
    print("well")
"""


@pytest.mark.parametrize("mode", ["freed", "raised", "cancelled", "closed", "timeout"])
def test_without_fds_it_pauses_and_goes_on(mode):
    run_script(SHORTAGE, mode).check(stdout="well")


def test_memory_that_runs_out_loses_nothing(heard):
    if sys.gettrace():
        pytest.skip("the tracing of lines fails before what is tested does")
    with made_loop() as loop, listening() as server, contextlib.ExitStack() as stack:
        loop.on_error = lambda source, error: None
        op = loop.accept_many(server, heard)
        loop.run_once(0)
        names = []
        for _ in range(10):
            for _ in range(3):
                names.append(stack.enter_context(connect(server)).getsockname())
            for n in range(25):
                _testcapi.set_nomemory(n, n + 1)
                try:
                    loop.run_once(0)
                except MemoryError:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
        run_until(loop, lambda: len(heard.accepted) == len(names))
        assert [address for _, address in heard.accepted] == names
        assert len({sock.fileno() for sock, _ in heard.accepted}) == len(names)
        for sock, _ in heard.accepted:
            os.fstat(sock.fileno())
        op.cancel()
        finish(loop)


def test_a_connection_of_which_no_socket_can_be_made_is_closed(loop, heard, monkeypatch):
    raised = []
    loop.on_error = lambda source, error: raised.append(str(error))

    def fail(*_):
        raise ValueError("odd")

    with listening() as server, contextlib.ExitStack() as stack:
        op = loop.accept_many(server, heard)
        client = stack.enter_context(connect(server))
        client.settimeout(BOUND)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "__init__", fail)
            run_until(loop, lambda: raised)
        assert raised == ["odd"]
        assert client.recv(1) == b""  # it was closed, and is not kept for another try
        stack.enter_context(connect(server))
        run_until(loop, lambda: heard.accepted)
        assert len(heard.accepted) == 1
        op.cancel()
        finish(loop)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_connection_is_kept_where_memory_is_short_or_the_user_interrupts(loop, heard, monkeypatch, error):
    failed = []
    loop.on_error = lambda source, caught: None

    def fail(*_):
        failed.append(error)
        raise error

    with listening() as server, connect(server):
        op = loop.accept_many(server, heard)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "__init__", fail)
            with contextlib.suppress(KeyboardInterrupt):
                run_until(loop, lambda: failed)
        assert failed
        run_until(loop, lambda: heard.accepted)
        assert len(heard.accepted) == 1
        op.cancel()
        finish(loop)
