"""connect_stream: addresses, arguments, and how one attempt ends."""

import contextlib
import errno
import gc
import os
import pathlib
import resource
import select
import socket
from concurrent.futures import CancelledError

import pytest
from _net import Called, Heard, connect_failed, open_sockets, receive_all, run_until_called, settle, silence, talked
from _sockets import listening, outcome
from _support import blocks_grown, finish, made_loop, open_fds, run_until, scaled

from linux_event import Loop, Operation

LOCAL = "127.0.0.1"


@pytest.fixture
def server():
    with socket.create_server((LOCAL, 0)) as server:
        server.settimeout(60)
        yield server


@pytest.fixture
def silent():
    with silence() as address:
        yield address


@pytest.fixture
def refusing():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        yield sock.getsockname()


# -- Addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix", "abstract"])
def test_an_address_of_each_family(loop, kind, tmp_path):
    if kind == "tcp6" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with listening(kind, tmp_path) as server:
        called = Called()
        operation = loop.connect_stream(server.getsockname(), called)
        assert isinstance(operation, Operation)
        assert "connect_stream" in repr(operation)
        assert not operation.done()
        assert not called.calls
        run_until_called(loop, called)
        assert operation.result() is called.stream
        assert called.stream.peername == (server.getsockname() or None)
        assert talked(server, called, loop)


@pytest.mark.parametrize("form", [str, bytes, pathlib.Path])
def test_a_path_in_each_form(loop, form, tmp_path):
    with listening("unix", tmp_path) as server:
        path = server.getsockname()
        called = Called()
        loop.connect_stream(path.encode() if form is bytes else form(path), called)
        run_until_called(loop, called)
        assert talked(server, called, loop)


@pytest.mark.parametrize("host", ["localhost", b"localhost", "127.1", "127.0.0.1", b"127.0.0.1", None])
def test_a_host_in_each_form(loop, server, host):
    called = Called()
    loop.connect_stream([host, server.getsockname()[1]], called)
    run_until_called(loop, called)
    assert talked(server, called, loop)


def test_the_name_of_a_service(loop):
    error = connect_failed(loop, (LOCAL, "tcpmux"))
    assert isinstance(error, ConnectionRefusedError)
    assert error.filename == (LOCAL, "tcpmux")
    assert error.__notes__ == ["('127.0.0.1', 1): [Errno 111] Connection refused"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
@pytest.mark.parametrize("address", [("::1", 0, 0, 0), ("::1%lo", 0), ("::1", 0, 7)])
def test_an_address_of_ipv6_in_full(loop, address, tmp_path):
    with listening("tcp6", tmp_path) as server:
        called = Called()
        loop.connect_stream((address[0], server.getsockname()[1], *address[2:]), called)
        run_until_called(loop, called)
        assert talked(server, called, loop)


def test_tcp_does_not_wait_for_more(loop, server):
    called = Called()
    loop.connect_stream(server.getsockname(), called)
    run_until_called(loop, called)
    assert called.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not os.get_inheritable(called.stream.fileno())
    assert talked(server, called, loop)


# -- The callback ------------------------------------------------------------------------------------------------------


def test_the_other_form_of_callbacks(loop, server, refusing):
    streams, errors = [], []
    loop.connect_stream(server.getsockname(), on_success=streams.append, on_error=errors.append)
    loop.connect_stream(refusing, on_success=streams.append, on_error=errors.append)
    run_until(loop, lambda: streams and errors)
    [stream] = streams
    assert [type(error) for error in errors] == [ConnectionRefusedError]
    stream.close()
    finish(loop)


def test_without_a_callback(loop, server, refusing):
    errors = []
    loop.on_error = lambda source, error: errors.append((source, type(error)))
    operation = loop.connect_stream(server.getsockname())
    failing = loop.connect_stream(refusing)
    told = []
    operation.add_done_callback(told.append)
    run_until(loop, lambda: operation.done() and failing.done())
    assert told == [operation]
    assert errors == [(failing, ConnectionRefusedError)]
    heard = Heard(operation.result(), eof=False)
    with server.accept()[0] as peer:
        peer.sendall(b"to whom it may concern")
    finish(loop)
    assert heard.data == b"to whom it may concern"


def test_the_stream_receives_when_the_callback_has_returned(loop, server):
    """What the other end has sent in the meantime does not come before the callbacks are assigned, nor is it lost."""
    heard = []

    def called(stream, error):
        with server.accept()[0] as peer:
            peer.sendall(b"x" * 1000)
        heard.append(Heard(stream, eof=False))

    loop.connect_stream(server.getsockname(), called)
    finish(loop)
    assert heard[0].data == b"x" * 1000
    assert heard[0].errors == [None]


def test_a_callback_that_raises(loop, server):
    told = []
    loop.on_error = lambda source, error: told.append((source, str(error)))
    ended = []

    def called(stream, error):
        stream.on_close = lambda stream, error: ended.append(error)
        raise ValueError("no use for it")

    operation = loop.connect_stream(server.getsockname(), called)
    finish(loop)
    assert told == [(operation, "no use for it")]
    assert ended == [None]
    with server.accept()[0] as peer:
        assert peer.recv(1) == b""


def test_a_callback_that_is_interrupted(loop, server):
    def called(stream, error):
        raise KeyboardInterrupt

    loop.connect_stream(server.getsockname(), called)
    with pytest.raises(KeyboardInterrupt):
        finish(loop)
    finish(loop)
    with server.accept()[0] as peer:
        assert peer.recv(1) == b""


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_callback_that_ends_the_stream(loop, server, end):
    def called(stream, error):
        stream.write(b"good bye")
        getattr(stream, end)()

    loop.connect_stream(server.getsockname(), called)
    finish(loop)
    with server.accept()[0] as peer:
        assert receive_all(peer) == (b"good bye" if end == "close" else b"")


# -- Failures ----------------------------------------------------------------------------------------------------------


def test_nobody_listens(loop, refusing):
    error = connect_failed(loop, refusing)
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == errno.ECONNREFUSED
    assert error.filename == refusing
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("is_there", [False, True])
def test_nobody_listens_on_a_path(loop, tmp_path, is_there):
    path = tmp_path / "socket"
    if is_there:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    error = connect_failed(loop, path)
    assert type(error) is (ConnectionRefusedError if is_there else FileNotFoundError)
    assert error.filename == path


def test_no_such_name(loop):
    error = connect_failed(loop, ("no-such-name.invalid", 80))
    assert isinstance(error, socket.gaierror)
    assert "no-such-name.invalid" in str(error)


def test_a_timeout(loop, silent):
    before = open_sockets()
    error = connect_failed(loop, silent, timeout=0.05)
    assert type(error) is TimeoutError
    assert error.errno == errno.ETIMEDOUT
    assert error.filename == silent
    assert "within its timeout" in str(error)
    assert open_sockets() == before


def test_a_timeout_of_nothing(loop, silent):
    assert type(connect_failed(loop, silent, timeout=0)) is TimeoutError


def test_a_timeout_that_is_kept(loop, server):
    called = Called()
    loop.connect_stream(server.getsockname(), called, timeout=60)
    run_until_called(loop, called)
    assert talked(server, called, loop)


def test_a_full_queue_of_a_unix_socket(loop, tmp_path):
    """There is nothing to poll: it is tried until there is room."""
    with listening("unix", tmp_path, backlog=0) as server, socket.socket(socket.AF_UNIX) as first:
        first.connect(server.getsockname())
        called = Called()
        loop.connect_stream(server.getsockname(), called)
        assert type(failed_later(loop, server.getsockname(), 0.05)) is TimeoutError
        assert not called.calls
        server.accept()[0].close()
        run_until_called(loop, called)
        assert talked(server, called, loop)


def failed_later(loop, address, timeout):
    other = Called()
    loop.connect_stream(address, other, timeout=timeout)
    run_until_called(loop, other)
    return other.error


def test_no_fd_is_left(loop, server, limited_fds):
    with limited_fds():
        error = connect_failed(loop, server.getsockname())
    assert error.errno == errno.EMFILE
    assert error.filename == server.getsockname()


@pytest.fixture
def limited_fds():
    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 20, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)

    return limited


# -- Cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_cancel(loop, silent, begun):
    before = open_sockets()
    called = Called()
    operation = loop.connect_stream(silent, called, timeout=60)
    if begun:
        settle(loop)
    assert operation.cancel() is True
    assert operation.cancel() is True
    assert operation.cancelled()
    assert not called.calls
    finish(loop)
    assert type(called.error) is CancelledError
    assert open_sockets() == before


def test_cancel_when_it_is_connected(loop, server):
    """The connections are there, collected, and their callbacks have not been called yet: nobody hears of them."""
    calls, operations = [], []

    def called(stream, error):
        calls.append((stream, error))
        if stream is not None:
            stream.close()
            assert [operation.cancel() for operation in operations] == [False, True, True]

    operations += [loop.connect_stream(server.getsockname(), called) for _ in range(3)]
    finish(loop)
    assert [stream is None for stream, _ in calls] == [False, True, True]
    for _ in range(3):
        with server.accept()[0] as peer:
            assert peer.recv(1) == b""


def test_cancel_when_it_is_done(loop, server):
    called = Called()
    operation = loop.connect_stream(server.getsockname(), called)
    run_until_called(loop, called)
    assert operation.cancel() is False
    assert talked(server, called, loop)


def test_cancel_while_the_name_is_asked_for(loop):
    called = Called()
    operation = loop.connect_stream(("no-such-name.invalid", 80), called)
    assert operation.cancel()
    finish(loop)
    assert type(called.error) is CancelledError


# -- The end of the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["new", "silent", "name"])
def test_the_loop_is_closed(what, silent):
    before = open_fds()
    called = Called()
    with made_loop() as loop:
        loop.connect_stream(("no-such-name.invalid", 80) if what == "name" else silent, called, timeout=60)
        if what == "silent":
            settle(loop)
    assert type(called.error) is CancelledError
    assert set(open_fds()) <= set(before)


def test_a_loop_that_is_dropped(silent):
    loop = Loop()
    loop.connect_stream(silent, print)
    loop.connect_stream(("localhost", 1), print)
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()


def test_a_connection_that_is_in_when_the_loop_is_closed(server):
    """It is collected, and the call before it ends the run."""
    before = open_fds()
    loop = Loop()
    calls = []

    def called(stream, error):
        calls.append((stream, error))
        if stream is not None:
            raise KeyboardInterrupt

    operations = [loop.connect_stream(server.getsockname(), called) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        loop.run(60)
    loop.close()
    assert [type(error) for _, error in calls] == [type(None), CancelledError]
    assert [operation.cancelled() for operation in operations] == [False, True]
    assert calls[0][0].is_closed()
    assert open_fds() == before


# -- What it returns, and many of them ----------------------------------------------------------------------------------


def test_what_it_returns_cannot_be_made(loop, server):
    operation = loop.connect_stream(server.getsockname(), lambda stream, error: stream.close())
    with pytest.raises(TypeError, match="cannot be created"):
        type(operation)()
    finish(loop)


def test_many_connections_leave_nothing(loop):
    listener = loop.listen(
        (LOCAL, 0), lambda stream: setattr(stream, "on_data", lambda stream, data: stream.write(data))
    )
    count = scaled(200, 10)

    def once():
        heard = []

        def called(stream, error):
            stream.write(b"x")
            heard.append(Heard(stream, eof=False))
            stream.on_data = lambda stream, data: stream.close()
            stream.on_close = None

        for _ in range(count):
            loop.connect_stream(listener.sockname, called, timeout=60)
        run_until(loop, lambda: len(heard) == count and not listener.connections and loop.statistics().streams == 0)

    assert blocks_grown(once) < count
    listener.close()
    finish(loop)


def test_within_another_event_loop(server):
    """The loop shows that there is something to do when an attempt was begun outside of it."""
    with made_loop() as loop:
        fd = loop.fileno()
        loop.run_once(0)
        called = Called()
        loop.connect_stream(server.getsockname(), called)
        while not called.calls:
            assert select.select([fd], [], [], 60)[0]
            loop.run_once(0)
        assert talked(server, called, loop)


def test_outcome(loop, server):
    stream = outcome(loop, loop.connect_stream, server.getsockname())
    stream.abort()
    finish(loop)
