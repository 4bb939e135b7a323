"""Listener.drain: nobody who has connected is lost. Listener.on_close: the end is told."""

import concurrent.futures
import errno
import gc
import os
import select
import socket
import threading

import pytest
from _fault import short_of_fds
from _net import FAMILIES, Server, address_of, client_of, receive_all, settle
from _support import finish, made_loop, run_until, unraisable
from _tls import Wire, server_context

from linux_event import Loop


class Ends:
    """What on_close was called with."""

    def __init__(self, listener):
        self.calls = []
        listener.on_close = self

    def __call__(self, listener, error):
        assert listener.is_closed()
        assert listener.fileno() == -1
        self.calls.append((listener, error))


@pytest.fixture
def server(loop):
    return Server()


def is_served(loop, stream, client):
    stream.write(b"hello")
    stream.close()
    run_until(loop, stream.is_closed)
    with client:
        return receive_all(client) == b"hello"


def is_refused(listener):
    with pytest.raises(ConnectionRefusedError):
        client_of(listener)
    return True


def knocking(listener):
    """A client whose first packet has been sent."""
    client = socket.socket()
    client.setblocking(False)
    assert client.connect_ex(listener.sockname) == errno.EINPROGRESS
    return client


def is_in(client):
    """Whether it is connected. It is not refused either way yet."""
    return bool(select.select([], [client], [], 0)[1])


def test_drain_in_on_connect(loop):
    """Those that were accepted together are all handed over."""
    streams = []

    def connected(stream):
        if not streams:
            listener.drain()
            listener.drain()
            listener.pause()
            assert not listener.is_paused()
            listener.resume()
            assert not listener.is_closed()
            assert "draining" in repr(listener)
        streams.append(stream)

    listener = loop.listen(("127.0.0.1", 0), connected)
    ends = Ends(listener)
    clients = [client_of(listener) for _ in range(4)]
    run_until(loop, listener.is_closed)
    assert len(streams) == listener.connections == 4
    assert is_refused(listener)
    for stream, client in zip(streams, clients, strict=True):
        assert is_served(loop, stream, client)
    listener.drain()
    finish(loop)
    assert ends.calls == [(listener, None)]
    assert listener.on_close is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("has_run", [True, False])
@pytest.mark.parametrize("end", ["drain", "close"])
def test_who_waits_in_the_queue(loop, server, family, has_run, end, tmp_path):
    """They are connected, as far as they know: drain() serves them, close() cannot."""
    listener = loop.listen(address_of(family, tmp_path), server)
    ends = Ends(listener)
    if has_run:
        settle(loop)
        listener.pause()
        settle(loop)
        # Others do with it what they like.
        listener.socket.setblocking(True)
    sock = listener.socket
    clients = [client_of(listener, family) for _ in range(3)]
    getattr(listener, end)()
    assert not (tmp_path / "listening").exists()
    run_until(loop, lambda: ends.calls)
    assert listener.is_closed()
    assert listener.socket is None
    assert sock.fileno() == -1
    assert ends.calls == [(listener, None)]
    if end == "drain":
        for stream, client in zip(server.streams, clients, strict=True):
            assert is_served(loop, stream, client)
    else:
        assert not server.streams
        for client in clients:
            with client, pytest.raises(ConnectionResetError):
                client.recv(1)
                client.send(b"Unix: the end is seen in the second system call")
                client.recv(1)
                raise ConnectionResetError
    server.end(loop)
    finish(loop)


def test_drain_after_a_pause_in_on_connect(loop):
    streams = []

    def connected(stream):
        streams.append(stream)
        listener.pause()

    listener = loop.listen(("127.0.0.1", 0), connected)
    clients = [client_of(listener) for _ in range(3)]
    run_until(loop, lambda: streams)
    settle(loop)
    assert len(streams) == 1
    listener.drain()
    run_until(loop, listener.is_closed)
    assert len(streams) == 3
    for stream, client in zip(streams, clients, strict=True):
        assert is_served(loop, stream, client)
    finish(loop)


def test_drain_with_nobody_there(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server)
    settle(loop)
    listener.drain()
    finish(loop)
    assert listener.is_closed()
    assert is_refused(listener)


@pytest.mark.parametrize("has_another", [True, False])
def test_nobody_is_let_in_while_it_drains(loop, server, has_another):
    """Who comes too late comes to another socket of the same address, or is refused; nobody is connected, and then reset."""
    listener = loop.listen(("127.0.0.1", 0), server, reuse_port=True, limit=1)
    first, second = client_of(listener), client_of(listener)
    run_until(loop, lambda: server.streams)
    listener.drain()
    late = [knocking(listener) for _ in range(5)]
    settle(loop)
    assert not any(is_in(client) for client in late)
    others = Server()
    if has_another:
        other = loop.listen(listener.sockname, others, reuse_port=True)
    assert is_served(loop, server.streams[0], first)
    run_until(loop, lambda: len(server.streams) == 2)
    assert is_served(loop, server.streams[1], second)
    run_until(loop, listener.is_closed)
    # Their kernel sends the first packet again.
    for client in late:
        run_until(loop, lambda client=client: is_in(client))
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert error == (0 if has_another else errno.ECONNREFUSED)
    assert len(server.streams) == 2
    if has_another:
        run_until(loop, lambda: len(others.streams) == 5)
        other.close()
    for client in late:
        client.close()
    others.end(loop)
    finish(loop)


def test_nobody_is_let_in_while_it_drains_unix(loop, server):
    listener = loop.listen("\0of linux_event, draining", server, limit=1)
    clients = [client_of(listener, "unix") for _ in range(3)]
    run_until(loop, lambda: server.streams)
    listener.drain()
    with pytest.raises(ConnectionRefusedError):
        client_of(listener, "unix")
    for number, client in enumerate(clients):
        run_until(loop, lambda number=number: len(server.streams) == number + 1)
        assert is_served(loop, server.streams[number], client)
    run_until(loop, listener.is_closed)
    finish(loop)


def test_drain_within_the_limit(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server, limit=2)
    clients = [client_of(listener) for _ in range(7)]
    listener.drain()
    for number, client in enumerate(clients):
        run_until(loop, lambda number=number: len(server.streams) >= min(number + 2, 7))
        settle(loop)
        assert listener.connections == len(server.streams) - number <= 2
        assert is_served(loop, server.streams[number], client)
    run_until(loop, listener.is_closed)
    finish(loop)


def test_drain_while_fds_are_short(loop, server):
    told = []
    loop.on_error = lambda source, error: told.append((source, error.errno))
    listener = loop.listen(("127.0.0.1", 0), server)
    loop.run(0.01)  # a loop has all its fds when it has slept
    listener.pause()
    settle(loop)
    clients = [client_of(listener) for _ in range(5)]
    with short_of_fds(leave=2):
        listener.drain()
        run_until(loop, lambda: len(server.streams) == 2)
        assert is_served(loop, server.streams[0], clients[0])
        run_until(loop, lambda: len(server.streams) >= 3)
        before = loop.statistics().iterations
        loop.run(0.3)
        assert loop.statistics().iterations - before < 30  # it does not spin
        assert not listener.is_closed()
    run_until(loop, listener.is_closed)
    assert len(server.streams) == 5
    for stream, client in zip(server.streams[1:], clients[1:], strict=True):
        assert is_served(loop, stream, client)
    assert set(told) == {(listener, errno.EMFILE)}
    assert len(told) <= 3
    loop.on_error = None
    finish(loop)


def test_drain_leaves_the_queue_of_a_socket_that_was_given(loop, server):
    with socket.create_server(("127.0.0.1", 0)) as given:
        given.settimeout(60)
        listener = loop.listen(given, server)
        with client_of(listener):
            run_until(loop, lambda: server.streams)
            listener.drain()
            with client_of(listener) as client:
                run_until(loop, listener.is_closed)
                assert len(server.streams) == 1
                accepted, name = given.accept()
                accepted.close()
                assert name == client.getsockname()
    server.end(loop)
    finish(loop)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_blocking", [True, False])
def test_drain_takes_the_queue_of_a_socket_that_was_given(loop, server, family, is_blocking, tmp_path):
    with socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET) as given:
        given.bind(address_of(family, tmp_path))
        given.listen()
        given.setblocking(is_blocking)
        listener = loop.listen(given, server)
        settle(loop)
        listener.pause()
        settle(loop)
        clients = [client_of(listener, family) for _ in range(3)]
        listener.drain(take_queue=True)
        run_until(loop, listener.is_closed)
        assert given.fileno() >= 0
        # Others who have it may be in the middle of accepting: what it is like is not put back.
        assert not os.get_blocking(given.fileno())
        for stream, client in zip(server.streams, clients, strict=True):
            assert is_served(loop, stream, client)
    finish(loop)


def test_drain_leaves_the_queue_of_its_own_socket(loop, server):
    """A copy of it is served by somebody else."""
    listener = loop.listen(("127.0.0.1", 0), server)
    with socket.socket(fileno=os.dup(listener.fileno())) as copy, client_of(listener) as first:
        run_until(loop, lambda: server.streams)
        listener.drain(take_queue=False)
        with client_of(listener) as second:
            run_until(loop, listener.is_closed)
            copy.settimeout(60)
            accepted, name = copy.accept()
            accepted.close()
            assert name == second.getsockname()
        assert is_served(loop, server.streams[0], first)
    assert len(server.streams) == 1
    finish(loop)


def test_arguments_of_drain(loop, server):
    with loop.listen(("127.0.0.1", 0), server) as listener:
        with pytest.raises(TypeError, match="take_queue must be True or False, not int"):
            listener.drain(take_queue=1)
        with pytest.raises(TypeError):
            listener.drain(True)
        assert not listener.is_closed()
    finish(loop)


@pytest.mark.parametrize("end", ["drain", "close"])
def test_a_client_in_its_tls_handshake(loop, server, end):
    """Nobody was told of it: drain() waits for it, close() ends it as soon as the handshake has come to its end."""
    listener = loop.listen(("127.0.0.1", 0), server, tls=server_context())
    ends = Ends(listener)
    with client_of(listener) as client:
        run_until(loop, lambda: listener.connections)
        getattr(listener, end)()
        if end == "drain":
            run_until(loop, lambda: listener.fileno() == -1)
            settle(loop)
            assert not listener.is_closed()
            assert not ends.calls
        else:
            run_until(loop, lambda: ends.calls)
        wire = Wire(loop, client)
        wire.handshake()
        if end == "drain":
            run_until(loop, lambda: ends.calls)
            assert len(server.streams) == 1
        else:
            run_until(loop, lambda: not listener.connections)
            assert not server.streams
    server.end(loop)
    finish(loop)
    assert ends.calls == [(listener, None)]


@pytest.mark.parametrize("end", ["close", "loop"])
def test_the_end_while_draining(server, end):
    with made_loop() as loop:
        listener = loop.listen(("127.0.0.1", 0), server)
        ends = Ends(listener)
        settle(loop)
        listener.drain()
        (listener if end == "close" else loop).close()
        if end == "close":
            finish(loop)
            assert ends.calls == [(listener, None)]
    assert listener.is_closed()
    assert len(ends.calls) == 1


def test_on_close_where_the_loop_is_closed(server):
    with made_loop() as loop:
        listener = loop.listen(("127.0.0.1", 0), server)
        ends = Ends(listener)
        settle(loop)
        assert listener.on_close is ends
        loop.close()
        ((source, error),) = ends.calls
        assert source is listener
        assert isinstance(error, concurrent.futures.CancelledError)


@pytest.mark.parametrize("is_draining", [True, False])
def test_on_close_where_the_kernel_accepts_no_more(loop, server, is_draining):
    with socket.create_server(("127.0.0.1", 0)) as given:
        listener = loop.listen(given, server)
        ends = Ends(listener)
        settle(loop)
        if is_draining:
            listener.drain()
        given.shutdown(socket.SHUT_RDWR)
        run_until(loop, lambda: ends.calls)
    ((source, error),) = ends.calls
    assert source is listener
    assert error is None if is_draining else error.errno == errno.EINVAL
    finish(loop)


def test_an_exception_in_on_close(loop, server):
    told = []
    loop.on_error = lambda source, error: told.append((source, str(error)))
    listener = loop.listen(("127.0.0.1", 0), server)

    def ended(listener, error):
        raise ValueError("not today")

    listener.on_close = ended
    listener.close()
    finish(loop)
    assert told == [(listener, "not today")]
    loop.on_error = None


def test_on_close_has_to_be_a_function(loop, server):
    with loop.listen(("127.0.0.1", 0), server) as listener:
        with pytest.raises(TypeError, match="on_close"):
            listener.on_close = 5
        listener.on_close = print
        listener.on_close = None
    finish(loop)


def test_on_close_is_not_called_where_the_loop_is_collected(nothing_left):
    calls = []

    class Held:
        pass

    with unraisable():
        loop = Loop()
        listener = loop.listen(("127.0.0.1", 0), print)
        held = Held()
        held.listener, held.loop = listener, loop
        listener.on_close = lambda listener, error, held=held: calls.append(error)
        settle(loop)
        del loop, listener, held
        gc.collect()
    assert calls == []


# -- Servers that take each other's place under traffic ----------------------------------------------------------------


class Traffic:
    """Clients in threads, each of which connects, asks, reads the answer to its end, and begins again."""

    def __init__(self, address, count):
        self.address = address
        self.is_over = False
        self.served = [0] * count
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        while not self.is_over:
            try:
                with socket.create_connection(self.address, timeout=60) as client:
                    client.sendall(b"question")
                    assert receive_all(client) == b"answer to question"
            except Exception as error:
                self.failures.append(error)
                return
            self.served[number] += 1

    def end(self, loop):
        self.is_over = True
        run_until(loop, lambda: not any(thread.is_alive() for thread in self.threads))
        for thread in self.threads:
            thread.join()


def answering(stream):
    def on_data(stream, data):
        stream.write(b"answer to " + data)
        stream.close()

    stream.on_data = on_data


@pytest.mark.parametrize("variant", ["reuse_port", "given"])
def test_servers_are_replaced_under_traffic(loop, variant):
    """Either the new one has a socket of its own at the same port, or both have one that somebody else keeps."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as kept:
        if variant == "reuse_port":
            listener = loop.listen(("127.0.0.1", 0), answering, reuse_port=True)
        else:
            listener = loop.listen(kept, answering)
        traffic = Traffic(listener.sockname, 4)
        for _ in range(4):
            before = sum(traffic.served)
            run_until(loop, lambda before=before: sum(traffic.served) >= before + 20 or traffic.failures)
            old = listener
            if variant == "reuse_port":
                listener = loop.listen(old.sockname, answering, reuse_port=True)
            else:
                listener = loop.listen(kept, answering)
            old.drain()
            run_until(loop, old.is_closed)
        traffic.end(loop)
        listener.close()
        finish(loop)
    assert traffic.failures == []


def test_loops_in_threads_share_a_port():
    """Each has a listener of its own, the kernel spreads the clients, and one that drains leaves them to the others."""
    ready = threading.Barrier(4)
    posts, counts, errors = {}, {}, []
    with socket.socket() as reserved:
        # Bound and not listening: the port is nobody else's until each has bound to it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()

        def run(number):
            def connected(stream):
                counts[number] += 1
                answering(stream)

            try:
                with Loop() as loop:
                    counts[number] = 0
                    listener = loop.listen(address, connected, reuse_port=True)
                    posts[number] = lambda: loop.post(listener.drain)
                    ready.wait(60)
                    loop.run()
                    assert listener.is_closed()
                    assert not listener.connections
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        ready.wait(60)
        with made_loop() as loop:
            traffic = Traffic(address, 4)
            run_until(loop, lambda: all(count >= 50 for count in counts.values()) or traffic.failures)
            for number in (0, 1):
                posts[number]()
                run_until(loop, lambda number=number: not threads[number].is_alive() or traffic.failures)
                # The others have all of them now.
                before = sum(traffic.served)
                run_until(loop, lambda before=before: sum(traffic.served) >= before + 50 or traffic.failures)
            traffic.end(loop)
            posts[2]()
            run_until(loop, lambda: not threads[2].is_alive())
    for thread in threads:
        thread.join(60)
    assert traffic.failures == []
    assert errors == []
    assert sum(counts.values()) == sum(traffic.served)
