"""Operations on sockets: send, with zero copy and without, and datagrams that have to wait."""

import contextlib
import errno
import os
import select
import signal
import socket

import pytest
from _fault import run_script
from _sockets import Calls, bound, connection, outcome
from _support import finish, made_loop, run_until, scaled

from linux_event.cancellation import CancelledError

blocking_or_not = pytest.mark.parametrize("blocking", [True, False])


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
@pytest.mark.parametrize("zero_copy", [False, True])
def test_all_of_a_big_send(loop, kind, zero_copy, tmp_path):
    """To a reader that takes little at a time. Every byte is looked at."""
    size = scaled(64, least=4) * 2**20
    pattern = os.urandom(65521)  # of a length that is no power of two: a part that is lost or repeated shows
    data = (pattern * (size // len(pattern) + 1))[:size]
    with connection(kind, tmp_path) as (one, two):
        got, sent = bytearray(), Calls()

        def received(part, error):
            assert error is None
            got.extend(part)
            if len(got) < size:
                loop.recv(two, 30011, received)

        loop.send(one, data, sent, zero_copy=zero_copy)
        loop.recv(two, 1000, received)
        finish(loop)
        assert sent == [(size, None)]
        assert got == data


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("data", [b"", b"x", bytearray(b"abc"), memoryview(b"0123456789")[2:5]])
def test_data_of_send(loop, pair, data, zero_copy):
    one, two = pair
    assert outcome(loop, loop.send, one, data, zero_copy=zero_copy) == len(data)
    one.send(b"end")
    assert two.recv(100) == bytes(data) + b"end"


def is_readable(sock):
    return bool(select.select([sock], [], [], 0)[0])


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_the_peer_goes_away_in_the_middle(loop, kind, zero_copy, tmp_path):
    with connection(kind, tmp_path) as (one, two):
        calls = Calls()
        data = bytearray(32 * 2**20)
        loop.send(one, data, calls, zero_copy=zero_copy)
        run_until(loop, lambda: is_readable(two))
        two.recv(100)
        two.close()
        finish(loop)
        [(result, error)] = calls
        assert result is None
        assert error.errno in (errno.ECONNRESET, errno.EPIPE)
        assert error.filename == one.fileno()
        data.append(0)  # the buffer is free


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_a_send_that_is_ended(loop, kind, how, zero_copy, tmp_path):
    """Zero copy holds on to what is in the socket's queue until the other end has taken it, or the socket is reset."""
    with connection(kind, tmp_path) as (one, two):
        calls = Calls()
        data = bytearray(32 * 2**20)
        limit = 0.05 if how == "timeout" else None
        operation = loop.send(one, data, calls, zero_copy=zero_copy, timeout=limit)
        run_until(loop, lambda: is_readable(two))
        with pytest.raises(BufferError):
            data.append(0)
        if how == "cancel":
            assert operation.cancel()
        else:
            loop.timer(0.1, lambda w: None)
            run_until(loop, lambda: loop.statistics().timers == 0)
        two.setblocking(False)

        def drain(watcher):
            with contextlib.suppress(BlockingIOError):
                while two.recv(2**20):
                    continue
            if calls:
                watcher.destroy()

        loop.periodic(0.001, drain)
        finish(loop)
        assert calls.errors == [TimeoutError if how == "timeout" else CancelledError]
        data.append(0)


def test_zero_copy_holds_the_buffer_until_the_notification(loop, tmp_path):
    """All of it fits into the socket's queue, which the first completion tells; from there it is read until it has gone."""
    with connection("tcp4", tmp_path) as (one, two):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)  # of which the kernel makes twice as much
        two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 60_000)
        before = loop.statistics().completions
        data = bytearray(os.urandom(250_000))
        calls, got = Calls(), bytearray()
        operation = loop.send(one, data, calls, zero_copy=True)
        loop.run_once(0)
        loop.run_once(0)
        assert loop.statistics().completions > before, "the result is not there yet: the test proves nothing"
        assert not operation.done()
        with pytest.raises(BufferError):
            data.append(0)

        def received(part, error):
            got.extend(part)
            if len(got) < 250_000:
                loop.recv(two, 2**16, received)

        loop.recv(two, 2**16, received)
        finish(loop)
        assert calls == [(250_000, None)]
        assert got == data
        data.append(0)


def test_zero_copy_falls_back(loop, tmp_path):
    """A Unix socket refuses it: what counts completions sees the attempt and the ordinary send."""
    completions = {}
    for zero_copy in (False, True):
        with connection("unix", tmp_path) as (one, two):
            before = loop.statistics().completions
            assert outcome(loop, loop.send, one, b"text", zero_copy=zero_copy) == 4
            completions[zero_copy] = loop.statistics().completions - before
            assert two.recv(10) == b"text"
        (tmp_path / "socket").unlink()
    assert completions[True] > completions[False]


def test_zero_copy_in_a_chain(loop, pair):
    """A fallback would break the chain: there it is an ordinary send from the start."""
    one, two = pair
    calls = Calls()
    with loop.link():
        loop.send(one, b"first", calls, zero_copy=True)
        loop.send(one, b"second", calls, zero_copy=True)
    finish(loop)
    assert calls == [(5, None), (6, None)]
    assert two.recv(100) == b"firstsecond"


def test_zero_copy_beyond_the_limit_of_locked_memory():
    """A user who may lock little memory gets an ordinary send."""
    script = """
        import socket
        from _fault import become_unprivileged
        from linux_event import Loop
        server = socket.create_server(("127.0.0.1", 0))
        one = socket.create_connection(server.getsockname())
        two, _ = server.accept()
        become_unprivileged(65536)
        data = bytes(range(256)) * 8192
        with Loop(entries=8) as loop:
            got, sent = bytearray(), []

            def received(part, error):
                got.extend(part)
                if len(got) < len(data):
                    loop.recv(two, 65536, received)

            loop.send(one, data, lambda *result: sent.append(result), zero_copy=True)
            loop.recv(two, 65536, received)
            loop.run(60)
        print(sent, got == data)
    """
    run_script(script).check(f"[({256 * 8192}, None)] True")


def test_no_sigpipe():
    script = """
        import signal, socket
        from linux_event import Loop
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with Loop() as loop:
            for zero_copy in (False, True):
                one, two = socket.socketpair()
                two.close()
                loop.send(one, b"x", print, zero_copy=zero_copy)
                loop.sendmsg(one, [b"x"], callback=print)
                loop.sendto(one, b"x", b"", print)
            loop.run(60)
    """
    result = run_script(script)
    assert result.returncode == 0, result
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    for line in lines:
        assert line.startswith("None ")
    assert result.stdout.count("Broken pipe") >= 4
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_icmp_refusal_of_a_datagram(loop, tmp_path):
    with bound("udp4", socket.AF_INET, socket.SOCK_DGRAM, tmp_path) as nobody:
        address = nobody.getsockname()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        calls = Calls()
        loop.recv(sock, 10, calls)
        assert outcome(loop, loop.send, sock, b"x") == 1
        finish(loop)
        assert calls.errors == [ConnectionRefusedError]


# --- datagrams of Unix sockets whose receiver's queue is full: le_retry.h -----------------------------------------------


@contextlib.contextmanager
def crowded_receiver(folder, connected):
    """A receiver, a sender that finds the queue full, the address, and how many datagrams of b"fill" are in it."""
    with (
        bound("unix", socket.AF_UNIX, socket.SOCK_DGRAM, folder) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        address = receiver.getsockname()
        if connected:
            sender.connect(address)
        sender.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += bool(sender.send(b"fill") if connected else sender.sendto(b"fill", address))
        yield receiver, sender, address, count


@blocking_or_not
@pytest.mark.parametrize("method", ["send", "zero copy", "sendmsg", "sendto", "sendmsg to"])
def test_a_datagram_waits_for_room_and_arrives_whole(loop, method, blocking, tmp_path):
    """The kernel by itself would send an empty one in its place."""
    with crowded_receiver(tmp_path, method in ("send", "zero copy", "sendmsg")) as (receiver, sender, address, count):
        sender.setblocking(blocking)
        start, arguments, keywords = {
            "send": (loop.send, (b"whole",), {}),
            "zero copy": (loop.send, (b"whole",), {"zero_copy": True}),
            "sendmsg": (loop.sendmsg, ([b"who", b"le"],), {}),
            "sendto": (loop.sendto, (b"whole", address), {}),
            "sendmsg to": (loop.sendmsg, ([b"who", b"le"],), {"address": address}),
        }[method]
        calls = Calls()
        start(sender, *arguments, callback=calls, **keywords)
        # Longer than the first pauses.
        loop.timer(0.02, lambda w: None)
        run_until(loop, lambda: loop.statistics().timers == 0)
        assert not calls
        for _ in range(count):
            assert receiver.recv(10) == b"fill"
        finish(loop)
        assert calls == [(5, None)]
        assert receiver.recv(10) == b"whole"
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(10)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("how", ["cancel at once", "cancel", "timeout", "close"])
def test_a_datagram_that_waits_is_ended(connected, how, tmp_path):
    with crowded_receiver(tmp_path, connected) as (receiver, sender, address, count), made_loop() as loop:
        calls = Calls()
        data = bytearray(b"never")
        limit = 0.02 if how == "timeout" else None
        if connected:
            operation = loop.send(sender, data, calls, timeout=limit)
        else:
            operation = loop.sendto(sender, data, address, calls, timeout=limit)
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
        data.append(0)
        for _ in range(count):
            assert receiver.recv(10) == b"fill"
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(10)


def test_datagrams_in_a_chain(loop, tmp_path):
    """To wait would break the chain: a full queue is told."""
    with crowded_receiver(tmp_path, True) as (receiver, sender, _, count):
        for start, data in ((loop.send, b"one"), (loop.sendmsg, [b"one"])):
            calls, after = Calls(), Calls()
            with loop.link():
                start(sender, data, callback=calls)
                loop.send(sender, b"two", after)
            finish(loop)
            assert calls.errors == [BlockingIOError]
            assert issubclass(after.errors[0], CancelledError)
        for _ in range(count):
            assert receiver.recv(10) == b"fill"
        calls = Calls()
        with loop.link():
            loop.send(sender, b"one", calls)
            loop.sendmsg(sender, [b"two"], callback=calls)
        finish(loop)
        assert calls == [(3, None), (3, None)]
        assert [receiver.recv(10), receiver.recv(10)] == [b"one", b"two"]
