"""Operations on sockets: accept, connect, recv, recv_into, shutdown."""

import contextlib
import errno
import os
import re
import socket
import weakref

import pytest
from _fault import run_script
from _sockets import STREAMS, Calls, bound, connection, fill, listening, outcome, reset
from _support import BOUND, finish, made_loop, open_fds, run_until, scaled

from linux_event.cancellation import CancelledError

stream_kinds = pytest.mark.parametrize("kind", STREAMS)
blocking_or_not = pytest.mark.parametrize("blocking", [True, False])


# --- accept, connect ----------------------------------------------------------------------------------------------


@stream_kinds
@blocking_or_not
@pytest.mark.parametrize("by_fd", [False, True])
def test_accept_and_connect(loop, kind, blocking, by_fd, tmp_path):
    with listening(kind, tmp_path) as server, socket.socket(*STREAMS[kind]) as client:
        server.setblocking(blocking)
        client.setblocking(blocking)
        accepted, connected = Calls(), Calls()
        loop.accept(server.fileno() if by_fd else server, accepted)
        loop.run_once(0)
        assert not accepted, "nobody has connected yet"
        loop.connect(client.fileno() if by_fd else client, server.getsockname(), connected)
        finish(loop)
        assert connected == [(None, None)]
        [((new, address), error)] = accepted
        assert error is None
        with new:
            assert type(new) is socket.socket
            assert (new.family, new.type) == (server.family, server.type)
            # The kernel, asked by the fd, tells of a protocol where the listening socket was made with 0.
            assert new.proto == (server.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) if by_fd else server.proto)
            assert address == client.getsockname() == new.getpeername()
            assert new.getsockname() == client.getpeername()
            assert not new.get_inheritable()
            assert new.getblocking()
            assert new.gettimeout() is None
            client.setblocking(True)
            client.sendall(b"ping")
            assert new.recv(10) == b"ping"


def test_accept_gives_what_the_socket_module_gives(loop, tmp_path):
    path = str(tmp_path / "client")
    with (
        listening("unix", tmp_path) as server,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
    ):
        for client in (one, two):
            client.bind(path)
            client.connect(server.getsockname())
            os.unlink(path)
        theirs, their_address = server.accept()
        ours, our_address = outcome(loop, loop.accept, server)
        with theirs, ours:
            assert our_address == their_address == path
            assert re.sub(r"\bfd=\d+", "", repr(ours)) == re.sub(r"\bfd=\d+", "", repr(theirs))


def test_accept_keeps_to_the_default_timeout(loop, tmp_path):
    with (
        connection("tcp4", tmp_path),
        listening("tcp4", tmp_path) as server,
        socket.create_connection(server.getsockname()),
    ):
        socket.setdefaulttimeout(7)
        try:
            new, _ = outcome(loop, loop.accept, server)
        finally:
            socket.setdefaulttimeout(None)
        with new:
            assert new.gettimeout() == 7


def test_accept_of_a_socket_that_is_closed_meanwhile(loop, tmp_path):
    """The class of the new socket is known from the object, not from the fd, which may be another file by then."""
    server = listening("tcp4", tmp_path)
    with socket.create_connection(server.getsockname()):
        calls = Calls()
        loop.accept(server, calls)
        loop.run_once(0)  # the kernel has accepted; the callback comes with this or the next iteration
        server.close()
        run_until(loop, lambda: calls)
        [((new, _), error)] = calls
        assert error is None
        new.close()


def test_accept_where_the_result_cannot_be_made():
    """The fd is closed when the socket object cannot be had."""
    script = """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())

        class Refusing(socket.socket):
            def __init__(self, *arguments):
                raise MemoryError("no socket")

        socket.socket = Refusing
        from linux_event import Loop
        with Loop() as loop:
            seen = []
            loop.accept(server, lambda *got: seen.append(got))
            loop.run(60)
        print(seen)
        print(client.recv(1))  # the end: the other side was closed
    """
    run_script(script).check("[(None, MemoryError('no socket'))]\nb''")


def test_accept_out_of_fds():
    """EMFILE comes as an error; the connection waits for the next accept."""
    script = """
        import errno, os, resource, socket
        from linux_event import Loop
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        with Loop() as loop:
            seen = []
            loop.accept(server, lambda *got: seen.append(got))
            loop.run(60)
            seen[0][0][0].close()
            client = socket.create_connection(server.getsockname())
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            loop.accept(server, lambda *got: seen.append(got))
            loop.run(60)
            result, error = seen[1]
            print(result, errno.errorcode[error.errno], error.filename == server.fileno())
            os.close(taken.pop())
            loop.accept(server, lambda *got: seen.append(got))
            loop.run(60)
            (new, address), error = seen[2]
            print(address == client.getsockname(), error)
    """
    run_script(script).check("None EMFILE True\nTrue None")


@pytest.mark.parametrize("sqpoll", [False, True])
def test_a_connection_that_arrives_after_cancel_is_closed(sqpoll, tmp_path):
    """Nobody gets the fd, and the client sees the end. With a thread of the kernel at work the cancellation comes too late."""
    with listening("tcp4", tmp_path) as server, made_loop(sqpoll=sqpoll) as loop:
        loop.run_once(0)
        before = open_fds()
        late = 0
        for _ in range(scaled(200, least=40)):
            calls = Calls()
            operation = loop.accept(server, calls)
            loop.run_once(0)
            with socket.create_connection(server.getsockname()) as client:
                if calls:  # accepted already
                    calls[0][0][0].close()
                    continue
                assert operation.cancel()
                assert operation.cancelled()
                run_until(loop, lambda calls=calls: calls)
                assert calls.errors == [CancelledError]
                server.setblocking(False)
                try:
                    server.accept()[0].close()
                except BlockingIOError:
                    late += 1
                    client.settimeout(BOUND)
                    assert client.recv(1) == b""
            if late == 5:
                break
        assert late or not sqpoll, "no cancellation came too late: the test proves nothing"
        assert open_fds() == before


@blocking_or_not
def test_connection_refused(loop, blocking, tmp_path):
    with bound("tcp4", socket.AF_INET, socket.SOCK_STREAM, tmp_path) as nobody, socket.socket() as client:
        client.setblocking(blocking)
        with pytest.raises(ConnectionRefusedError) as caught:
            outcome(loop, loop.connect, client, nobody.getsockname())
        assert caught.value.errno == errno.ECONNREFUSED
        assert caught.value.filename == client.fileno()
    with bound("unix", socket.AF_UNIX, socket.SOCK_STREAM, tmp_path) as nobody, socket.socket(socket.AF_UNIX) as client:
        client.setblocking(blocking)
        with pytest.raises(ConnectionRefusedError) as caught:
            outcome(loop, loop.connect, client, nobody.getsockname())
        assert caught.value.filename == nobody.getsockname()
        missing = tmp_path / "missing"
        with pytest.raises(FileNotFoundError) as caught:
            outcome(loop, loop.connect, client, missing)
        assert caught.value.filename == missing


def test_connect_more_than_once(loop, tmp_path):
    with connection("tcp4", tmp_path) as (client, accepted):
        with pytest.raises(OSError) as caught:
            outcome(loop, loop.connect, client, accepted.getsockname())
        assert caught.value.errno == errno.EISCONN


def test_connect_of_datagrams(loop, tmp_path):
    with (
        bound("udp4", socket.AF_INET, socket.SOCK_DGRAM, tmp_path) as one,
        socket.socket(type=socket.SOCK_DGRAM) as two,
    ):
        assert outcome(loop, loop.connect, two, one.getsockname()) is None
        assert outcome(loop, loop.send, two, b"datagram") == 8
        assert outcome(loop, loop.recv, one, 100) == b"datagram"
        assert two.getpeername() == one.getsockname()


@pytest.fixture
def crowded(tmp_path):
    """A listening Unix socket whose queue is full, and a function that makes room."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(listening("unix", tmp_path, backlog=0))
        server.setblocking(False)

        def accept():
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(server.accept()[0])

        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(server.getsockname())
        yield server, accept


@blocking_or_not
def test_connect_waits_for_room_in_the_queue(loop, crowded, blocking):
    server, make_room = crowded
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(blocking)
        calls = Calls()
        operation = loop.connect(client, server.getsockname(), calls)
        # More than one pause of the client that does not block.
        loop.timer(0.01, lambda w: None)
        run_until(loop, lambda: not loop.watchers or loop.statistics().timers == 0)
        assert not calls
        assert not operation.done()
        make_room()
        finish(loop)
        assert calls == [(None, None)]
        make_room()
        client.setblocking(True)
        assert client.send(b"x") == 1


@blocking_or_not
@pytest.mark.parametrize("how", ["cancel at once", "cancel", "timeout", "close"])
def test_connect_ends_while_it_waits_for_room(crowded, blocking, how):
    server, _ = crowded
    with made_loop() as loop, socket.socket(socket.AF_UNIX) as client:
        client.setblocking(blocking)
        calls = Calls()
        operation = loop.connect(client, server.getsockname(), calls, timeout=0.02 if how == "timeout" else None)
        if how == "cancel at once":
            operation.cancel()
        if how == "cancel":
            loop.timer(0.01, lambda w: operation.cancel())
        if how == "close":
            loop.run_once(0)
            loop.close()
        else:
            finish(loop)
        assert calls.errors == [TimeoutError if how == "timeout" else CancelledError]


def test_connect_in_a_chain_tells_that_there_is_no_room(loop, crowded):
    server, _ = crowded
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        calls, after = Calls(), Calls()
        with loop.link():
            loop.connect(client, server.getsockname(), calls)
            loop.send(client, b"x", after)
        finish(loop)
        assert calls.errors == [BlockingIOError]
        assert issubclass(after.errors[0], CancelledError)


def test_connect_timeout_of_tcp(loop, tmp_path):
    """A listener whose queue is full does not answer."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(listening("tcp4", tmp_path, backlog=0))
        clients = [stack.enter_context(socket.socket()) for _ in range(8)]
        calls = [Calls() for _ in clients]
        for client, call in zip(clients, calls, strict=True):
            loop.connect(client, server.getsockname(), call, timeout=0.1)
        finish(loop)
        results = [call[0] for call in calls]
        assert (None, None) in results
        errors = [error for _, error in results if error is not None]
        assert errors
        assert {type(error) for error in errors} == {TimeoutError}
        assert errors[0].errno == errno.ETIMEDOUT


def test_a_chain_of_connect_send_shutdown(loop, tmp_path):
    with listening("tcp4", tmp_path) as server, socket.socket() as client:
        calls = Calls()
        with loop.link():
            loop.connect(client, server.getsockname(), calls)
            loop.send(client, b"all of it", calls)
            loop.shutdown(client, socket.SHUT_WR, calls)
        new, _ = outcome(loop, loop.accept, server)
        finish(loop)
        with new:
            assert calls == [(None, None), (9, None), (None, None)]
            assert new.recv(100) == b"all of it"
            assert new.recv(100) == b""


# --- recv, recv_into ----------------------------------------------------------------------------------------------


@stream_kinds
@blocking_or_not
@pytest.mark.parametrize("by_fd", [False, True])
def test_recv_waits(loop, kind, blocking, by_fd, tmp_path):
    with connection(kind, tmp_path, blocking) as (one, two):
        calls, buffer, counted = Calls(), bytearray(b"." * 10), Calls()
        loop.recv(one.fileno() if by_fd else one, 100, calls)
        loop.recv_into(two.fileno() if by_fd else two, buffer, counted)
        loop.run_once(0)
        assert not calls + counted
        two.send(b"first")
        one.send(b"second")
        finish(loop)
        assert calls == [(b"first", None)]
        assert counted == [(6, None)]
        assert buffer == b"second...."
        one.shutdown(socket.SHUT_WR)
        assert outcome(loop, loop.recv, two, 100) == b""
        assert outcome(loop, loop.recv_into, two, buffer) == 0


@pytest.mark.parametrize("size", [0, 1, 2, 5, 9, 10, 11, 19, 20, 21, 4096, 10**6])
def test_sizes_of_recv(loop, pair, size):
    one, two = pair
    two.send(b"0123456789")
    data = outcome(loop, loop.recv, one, size)
    assert type(data) is bytes
    assert data == b"0123456789"[:size]
    rest = b"0123456789"[size:]
    if rest:
        assert one.recv(100) == rest


def test_recv_into_parts_of_memory(loop, pair):
    one, two = pair
    buffer = bytearray(b"." * 8)
    two.send(b"0123456789")
    assert outcome(loop, loop.recv_into, one, memoryview(buffer)[2:6]) == 4
    assert buffer == b"..0123.."
    assert outcome(loop, loop.recv_into, one, b"" or bytearray()) == 0
    assert outcome(loop, loop.recv_into, one, buffer) == 6


def test_the_buffer_is_held_until_the_end(loop, pair):
    one, two = pair
    buffer = bytearray(10)

    def received(count, error):
        buffer.append(count)

    loop.recv_into(one, buffer, received)
    with pytest.raises(BufferError):
        buffer.append(0)
    loop.run_once(0)
    with pytest.raises(BufferError):
        buffer.clear()
    two.send(b"abc")
    finish(loop)
    assert buffer == b"abc" + bytes(7) + b"\3"


@pytest.mark.parametrize("method", ["recv", "recv_into", "recvfrom", "recvmsg"])
@pytest.mark.parametrize("when", ["at once", "in flight", "with the data"])
def test_a_cancelled_receive(loop, pair, method, when):
    one, two = pair
    calls = Calls()
    buffer = bytearray(10)
    operation = getattr(loop, method)(one, buffer if method == "recv_into" else 10, callback=calls)
    if when != "at once":
        loop.run_once(0)
    if when == "with the data":
        two.send(b"late")
    assert operation.cancel()
    assert operation.cancel()
    finish(loop)
    assert calls.errors == [CancelledError]
    buffer.append(1)
    if when != "with the data":  # that data are lost which were received before the end
        two.send(b"later")
        assert outcome(loop, loop.recv, one, 10) == b"later"


@pytest.mark.parametrize("method", ["accept", "recv", "recv_into", "recvfrom", "recvmsg", "send", "sendmsg"])
def test_timeouts(loop, method, tmp_path):
    with connection("tcp4", tmp_path) as (one, _), listening("tcp4", tmp_path) as server:
        if method.startswith("send"):
            fill(one)
        arguments = {
            "accept": (server,),
            "recv_into": (one, bytearray(10)),
            "send": (one, bytes(10**7)),
            "sendmsg": (one, [bytes(10**7)]),
        }.get(method, (one, 10))
        calls = Calls()
        began = loop.time()
        getattr(loop, method)(*arguments, callback=calls, timeout=0.05)
        finish(loop)
        assert loop.time() - began >= 0.05
        if method == "sendmsg" and calls[0][1] is None:
            assert calls[0][0] < 10**7  # the kernel tells of what it had taken
            return
        [(result, error)] = calls
        assert result is None
        assert type(error) is TimeoutError
        assert error.errno == errno.ETIMEDOUT
        assert method in error.strerror


@pytest.mark.parametrize("method", ["recv", "recv_into", "recvfrom", "recvmsg"])
@pytest.mark.parametrize("in_flight", [False, True])
def test_a_reset_of_the_peer(loop, method, in_flight, tmp_path):
    with connection("tcp4", tmp_path) as (one, two):
        calls = Calls()
        if not in_flight:
            reset(two)
        getattr(loop, method)(one, bytearray(10) if method == "recv_into" else 10, callback=calls)
        if in_flight:
            loop.run_once(0)
            reset(two)
        finish(loop)
        [(_, error)] = calls
        assert type(error) is ConnectionResetError
        assert error.filename == one.fileno()
        with pytest.raises(BrokenPipeError):
            outcome(loop, loop.send, one, b"x")


def test_half_close(loop, tmp_path):
    with connection("tcp4", tmp_path) as (one, two):
        calls = Calls()
        loop.recv(two, 10, calls)
        loop.run_once(0)
        assert outcome(loop, loop.shutdown, one, socket.SHUT_WR) is None
        run_until(loop, lambda: calls)
        assert calls == [(b"", None)]
        assert outcome(loop, loop.send, two, b"still") == 5
        assert outcome(loop, loop.recv, one, 10) == b"still"
        with pytest.raises(BrokenPipeError):
            outcome(loop, loop.send, one, b"x")


def test_shutdown_ends_what_is_in_flight(loop, tmp_path):
    with connection("tcp4", tmp_path) as (one, two):
        calls = Calls()
        loop.recv(one, 10, calls)
        loop.run_once(0)
        outcome(loop, loop.shutdown, one.fileno(), socket.SHUT_RD)
        run_until(loop, lambda: calls)
        assert calls == [(b"", None)]
        outcome(loop, loop.shutdown, one, socket.SHUT_RDWR)
        assert outcome(loop, loop.recv, two, 10) == b""
    with socket.socket() as never, pytest.raises(OSError) as caught:
        outcome(loop, loop.shutdown, never, socket.SHUT_WR)
    assert caught.value.errno == errno.ENOTCONN


def test_a_socket_that_could_not_be_made_is_closed_once(loop, monkeypatch):
    """By then its number may be that of another file."""
    init = socket.socket.__init__
    refs, opened = [], []

    def interrupted(self, *arguments):
        init(self, *arguments)
        refs.append(weakref.ref(self, lambda _: opened.append(os.open(os.devnull, os.O_RDONLY))))
        raise MemoryError("interrupted")

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        operation = loop.accept(server, on_error=lambda error: None)
        monkeypatch.setattr(socket.socket, "__init__", interrupted)
        finish(loop)
        monkeypatch.undo()
        assert type(operation.exception()) is MemoryError
        client.settimeout(BOUND)
        assert client.recv(1) == b""
    del operation
    assert len(opened) == 1
    os.close(opened[0])
