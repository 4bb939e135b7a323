"""Listeners: addresses, pauses, limits, shortages, and their end."""

import contextlib
import errno
import gc
import os
import resource
import socket
import threading
import weakref

import pytest
from _net import Server, client_of, echoes, receive_all, settle
from _support import finish, made_loop, many_fds_allowed, open_fds, run_until, scaled

from linux_event import Listener, Loop, LoopClosedError, WrongThreadError


@pytest.fixture
def server(loop):
    server = Server()
    yield server
    if not loop.is_closed():
        server.end(loop)


# -- The decorator, attributes -----------------------------------------------------------------------------------------


def test_the_decorator(loop):
    streams = []

    @loop.listen(("127.0.0.1", 0))
    def listener(stream):
        streams.append(stream)

    assert type(listener) is Listener
    with client_of(listener):
        run_until(loop, lambda: streams)
    listener.close()
    finish(loop)


def test_a_decorator_that_is_not_used(loop, tmp_path):
    decorator = loop.listen(str(tmp_path / "socket"))
    with pytest.raises(TypeError, match="on_connect must be callable"):
        decorator(1)
    assert (tmp_path / "socket").exists()
    del decorator
    assert not (tmp_path / "socket").exists()
    used = loop.listen(("127.0.0.1", 0))
    used(print).close()
    with pytest.raises(RuntimeError, match="already made its listener"):
        used(print)
    finish(loop)


def test_attributes(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server, limit=7, backlog=5)
    assert listener.loop is loop
    assert listener.limit == 7
    assert listener.connections == 0
    assert listener.on_connect is server
    assert listener.data is None
    listener.data = "mine"
    assert listener.data == "mine"
    assert listener.socket.getsockname() == listener.sockname
    assert listener.socket is listener.socket
    other = []
    listener.on_connect = other.append
    with pytest.raises(TypeError, match="on_connect must be callable"):
        listener.on_connect = None
    with client_of(listener):
        run_until(loop, lambda: other)
        assert listener.connections == 1
        assert (loop.statistics().streams, loop.statistics().listeners) == (1, 1)
        assert loop.statistics().operations_in_flight == 0
    run_until(loop, lambda: listener.connections == 0)
    sock = listener.socket
    listener.close()
    settle(loop)
    assert sock.fileno() == listener.fileno() == -1
    assert "closed" in repr(listener)


# -- Accepting ---------------------------------------------------------------------------------------------------------


def test_many_connections(loop, server):
    count = scaled(1000, 50)
    listener = loop.listen(("127.0.0.1", 0), server)
    with many_fds_allowed(2 * count), contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(client_of(listener))
        run_until(loop, lambda: len(server.streams) == count)
        assert listener.connections == count
        server.end(loop)
    assert listener.connections == 0
    listener.close()


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit(loop, server, limit):
    listener = loop.listen(("127.0.0.1", 0), server, limit=limit)
    clients = [client_of(listener) for _ in range(limit + 4)]
    run_until(loop, lambda: len(server.streams) == limit)
    for number in range(4):
        settle(loop)
        assert len(server.streams) == limit + number
        assert listener.connections == limit
        server.streams[number].close()
        run_until(loop, lambda number=number: len(server.streams) == limit + number + 1)
    for client in clients:
        client.close()
    listener.close()
    finish(loop)


def test_a_pause(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server)
    with client_of(listener):
        run_until(loop, lambda: server.streams)
        listener.pause()
        listener.pause()
        assert listener.is_paused()
        assert "paused" in repr(listener)
        settle(loop)
        with client_of(listener), client_of(listener):
            settle(loop)
            assert len(server.streams) == 1
            listener.resume()
            listener.resume()
            assert not listener.is_paused()
            run_until(loop, lambda: len(server.streams) == 3)
    listener.close()
    listener.pause()
    listener.resume()
    finish(loop)


def test_a_pause_in_on_connect(loop):
    """Connections that were accepted together with it wait for the end of the pause."""
    streams = []

    def connected(stream):
        streams.append(stream)
        listener.pause()

    listener = loop.listen(("127.0.0.1", 0), connected)
    clients = [client_of(listener) for _ in range(5)]
    for number in range(5):
        run_until(loop, lambda number=number: len(streams) == number + 1)
        settle(loop)
        assert len(streams) == number + 1
        listener.resume()
    listener.pause()
    clients += [client_of(listener) for _ in range(3)]
    listener.resume()
    run_until(loop, lambda: len(streams) == 6)
    listener.close()
    for client in clients:
        client.close()
    finish(loop)


def limit_leaving(count):
    """The limit of fds that allows so many more."""
    used = open_fds()
    limit = 0
    while count:
        count -= limit not in used
        limit += 1
    return limit


@pytest.mark.parametrize("is_told", [True, False])
def test_fds_are_short(loop, server, is_told, caplog):
    told = []
    if is_told:
        loop.on_error = lambda source, error: told.append((source, error))
    listener = loop.listen(("127.0.0.1", 0), server)
    # The kernel notes the limit when the request is made.
    clients = [client_of(listener) for _ in range(12)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit_leaving(5), limits[1]))
    try:
        with contextlib.suppress(AssertionError):
            run_until(loop, lambda: len(server.streams) == 12, 0.5)
        some = len(server.streams)
        assert 0 < some < 12
        before = loop.statistics().iterations
        loop.run(0.5)
        assert loop.statistics().iterations - before < 30  # it does not spin
        # One that ends makes room for another one.
        server.streams[0].close()
        run_until(loop, lambda: len(server.streams) == some + 1, 30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    run_until(loop, lambda: len(server.streams) == 12)
    for client in clients:
        client.close()
    listener.close()
    if is_told:
        assert [(source, error.errno) for source, error in told[:1]] == [(listener, errno.EMFILE)]
        assert len(told) <= 3
        assert not caplog.records
        told.clear()
    else:
        assert "EMFILE" in caplog.text or "Too many open files" in caplog.text
        assert 1 <= len(caplog.records) <= 3
    loop.on_error = None


@contextlib.contextmanager
def pauses(loop, listener):
    """A function that has the listener paused in the next iteration, before what has happened to it is dispatched."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        watcher = loop.io(fd, "r", lambda watcher, events: (listener.pause(), watcher.destroy()), priority=1)
        settle(loop)
        yield lambda: os.eventfd_write(fd, 1)
        watcher.destroy()
    finally:
        os.close(fd)


def test_fds_are_short_where_a_pause_begins(loop, server):
    told = []
    loop.on_error = lambda source, error: told.append(error.errno)
    listener = loop.listen(("127.0.0.1", 0), server)
    clients = [socket.socket() for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pauses(loop, listener) as pause:
        listener.pause()
        settle(loop)
        # A loop that sleeps takes two for itself.
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_leaving(2), limits[1]))
        try:
            listener.resume()
            loop.run_once(0)  # the kernel notes the limit when the request is made
            for client in clients:
                client.connect(listener.sockname)
            pause()
            run_until(loop, listener.is_paused)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    settle(loop)
    assert server.streams == []
    listener.resume()
    run_until(loop, lambda: len(server.streams) == 3)
    for client in clients:
        client.close()
    listener.close()
    assert set(told) <= {errno.EMFILE}
    loop.on_error = None


def test_accepting_fails_where_a_pause_begins(loop, server):
    ends = []
    listener = loop.listen(("127.0.0.1", 0), server)
    listener.on_close = lambda listener, error: ends.append(error.errno)
    with pauses(loop, listener) as pause:
        listener.socket.shutdown(socket.SHUT_RD)
        pause()
        run_until(loop, listener.is_paused)
    settle(loop)
    assert ends == []
    listener.resume()
    finish(loop)
    assert ends == [errno.EINVAL]


def test_the_socket_of_a_listener_that_was_given_an_fd(loop, server):
    with socket.create_server(("127.0.0.1", 0)) as given:
        listener = loop.listen(given.fileno(), server)
        assert listener.socket.getsockname() == given.getsockname()
        listener.close()
        assert listener.socket is None
        finish(loop)


@pytest.mark.parametrize("limit", [None, 1])
def test_connections_that_cannot_be_streams(loop, limit):
    """Each is told of and closed, and the next one is accepted."""
    told = []
    loop.on_error = lambda source, error: told.append((source, error.errno))
    # No pool of buffers can be registered with the ring from now on.
    loop.ring.restrict("accept", "poll_add", "async_cancel", "nop", "timeout", "recv", "read", "send")
    with loop.listen(("127.0.0.1", 0), print, limit=limit) as listener:
        for count in range(1, 4):
            with client_of(listener) as client:
                run_until(loop, lambda count=count: len(told) == count)
                assert receive_all(client) == b""
        assert told == [(listener, errno.EACCES)] * 3
        assert listener.connections == 0
    loop.on_error = None
    finish(loop)


def test_an_exception_in_on_connect(loop):
    told, ends = [], []
    loop.on_error = lambda source, error: told.append((source, str(error)))

    def connected(stream):
        stream.on_close = lambda stream, error: ends.append(error)
        raise ValueError("not today")

    with loop.listen(("127.0.0.1", 0), connected) as listener, client_of(listener) as client:
        run_until(loop, lambda: ends)
        assert receive_all(client) == b""
        assert told == [(listener, "not today")]
        told.clear()
    assert ends == [None]


# -- The end -----------------------------------------------------------------------------------------------------------


def test_close_leaves_the_streams(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server)
    with client_of(listener) as client:
        run_until(loop, lambda: server.streams)
        listener.close()
        listener.close()
        assert listener.is_closed()
        settle(loop)
        with pytest.raises(ConnectionRefusedError):
            client_of(listener)
        client.sendall(b"still")
        run_until(loop, lambda: loop.run_once(0.1) or True)
        settle(loop)
        assert client.recv(100) == b"still"
        assert listener.connections == 1


def test_close_in_on_connect(loop):
    streams = []

    def connected(stream):
        streams.append(stream)
        listener.close()

    listener = loop.listen(("127.0.0.1", 0), connected)
    clients = [client_of(listener) for _ in range(4)]
    run_until(loop, lambda: streams)
    streams.pop().close()
    finish(loop)
    assert not streams
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(10) == b""
        client.close()


@pytest.mark.parametrize("is_paused", [True, False])
def test_the_loop_is_closed(tmp_path, is_paused):
    with made_loop() as loop:
        listener = loop.listen(str(tmp_path / "socket"), print)
        settle(loop)
        if is_paused:
            listener.pause()
        loop.close()
        assert listener.is_closed()
        assert not (tmp_path / "socket").exists()
        listener.close()
        with pytest.raises(LoopClosedError):
            loop.listen(("127.0.0.1", 0), print)


def test_the_socket_is_shut_down_by_others(loop, server):
    told = []
    loop.on_error = lambda source, error: told.append((source, type(error)))
    listener = loop.listen(("127.0.0.1", 0), server)
    settle(loop)
    listener.socket.shutdown(socket.SHUT_RDWR)
    finish(loop)
    assert told == [(listener, OSError)]
    assert listener.is_closed()
    told.clear()
    loop.on_error = None


def test_it_is_kept_alive_and_freed(loop):
    streams = []
    listener = loop.listen(("127.0.0.1", 0), streams.append)
    name, gone = listener.sockname, weakref.ref(listener)
    del listener
    gc.collect()
    with socket.create_connection(name):
        run_until(loop, lambda: streams)
    gone().close()
    streams.clear()
    finish(loop)
    assert gone() is None


def test_a_loop_that_is_dropped(tmp_path):
    loop = Loop()
    listener = loop.listen(str(tmp_path / "socket"), print)
    listener.data = loop
    loop.run_once(0)
    gone = weakref.ref(loop)
    del listener
    with pytest.warns(ResourceWarning, match="unclosed <Loop"):
        del loop
        gc.collect()
    assert gone() is None
    assert not (tmp_path / "socket").exists()


def test_another_thread_is_refused(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server)
    settle(loop)
    refused = []

    def run():
        calls = (listener.pause, listener.resume, listener.drain, listener.close)
        for call in (*calls, lambda: loop.listen(("127.0.0.1", 0), server)):
            try:
                call()
            except WrongThreadError as error:
                refused.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(refused) == 5
    listener.close()


def test_a_fork_leaves_it_alone(loop, server, tmp_path):
    listener = loop.listen(str(tmp_path / "socket"), server)
    settle(loop)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                listener.close()
            except RuntimeError as error:
                code = 0 if "dead in a forked child" in str(error) else 2
            loop.close()
            gc.collect()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert echoes(loop, server, listener, socket.AF_UNIX)
    listener.close()
