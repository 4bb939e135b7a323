"""What all operations on sockets have in common: arguments, callbacks, what is kept, and the end of the loop."""

import contextlib
import errno
import gc
import socket
import weakref

import pytest
from _sockets import Calls, connection, listening, outcome
from _support import finish, made_loop, open_fds, scaled, unused_fd

from linux_event import LoopClosedError, WrongThreadError
from linux_event.cancellation import CancelledError


def test_success_and_failure_apart(loop, tmp_path):
    with connection("tcp4", tmp_path) as (one, two):
        good, bad = [], []
        forms = {"on_success": good.append, "on_error": bad.append}
        for start, arguments in (
            (loop.send, (one, b"x")),
            (loop.sendmsg, (one, [b"y"])),
            (loop.recv, (two, 1)),
            (loop.recv_into, (two, bytearray(1))),
        ):
            start(*arguments, **forms)
            finish(loop)
        assert good == [1, 1, b"x", 1]
        loop.shutdown(one, socket.SHUT_RDWR, **forms)
        finish(loop)
        assert good.pop() is None
        for start, arguments in (
            (loop.shutdown, (1,)),
            (loop.connect, (("127.0.0.1", 0),)),
            (loop.accept, ()),
            (loop.send, (b"x",)),
            (loop.sendmsg, ([b"x"],)),
            (loop.sendto, (b"x", ("127.0.0.1", 1))),
            (loop.recv, (1,)),
            (loop.recv_into, (bytearray(1),)),
            (loop.recvfrom, (1,)),
            (loop.recvmsg, (1,)),
        ):
            with socket.socket() as unconnected:
                bad.clear()
                start(unconnected, *arguments, **forms)
                finish(loop)
                assert len(bad) == 1, start
                assert isinstance(bad[0], OSError)
                assert bad[0].filename == unconnected.fileno()
        assert len(good) == 4


# What stands for a socket is SOCK.
SOCK = object()
COMPLETE = {
    "accept": (SOCK,),
    "connect": (SOCK, ("127.0.0.1", 1)),
    "recv": (SOCK, 10),
    "recv_into": (SOCK, bytearray(10)),
    "send": (SOCK, b"data"),
    "recvfrom": (SOCK, 10),
    "sendto": (SOCK, b"data", ("127.0.0.1", 1)),
    "sendmsg": (SOCK, [b"data"]),
    "recvmsg": (SOCK, 10),
    "shutdown": (SOCK, 0),
}
every_method = pytest.mark.parametrize("method", COMPLETE)


def complete(method, sock):
    return [sock if argument is SOCK else argument for argument in COMPLETE[method]]


@every_method
def test_bad_arguments_of_every_method(loop, method, pipe):
    start = getattr(loop, method)
    with socket.socket() as sock:
        for bad, error in (
            (-1, ValueError),
            (None, TypeError),
            ("3", TypeError),
            (True, TypeError),
            (2**31, ValueError),
        ):
            with pytest.raises(error):
                start(*complete(method, bad))
        with pytest.raises(OSError) as caught:
            start(*complete(method, unused_fd()))
        assert caught.value.errno == errno.EBADF
        good = complete(method, sock)
        with pytest.raises(TypeError, match="not both forms"):
            start(*good, callback=print, on_success=print)
        with pytest.raises(TypeError, match="callback"):
            start(*good, callback=7)
        with pytest.raises(TypeError, match="on_error"):
            start(*good, on_error=7)
        with pytest.raises(TypeError, match="timeout"):
            start(*good, timeout="1")
        with pytest.raises(ValueError, match="timeout"):
            start(*good, timeout=-1)
        with pytest.raises(TypeError):
            start(*good[:-1])
    with pytest.raises(ValueError, match="negative"):
        start(*complete(method, sock))  # closed
    assert loop.statistics().operations_in_flight == 0


@every_method
def test_an_fd_that_is_no_socket(loop, method, pipe):
    with pytest.raises(OSError) as caught:
        outcome(loop, getattr(loop, method), *complete(method, pipe.r))
    assert caught.value.errno == errno.ENOTSOCK
    assert caught.value.filename == pipe.r


@every_method
def test_a_loop_that_is_closed_or_of_another_thread(method):
    from _fault import in_thread

    with socket.socket() as sock, made_loop() as loop:
        start = getattr(loop, method)
        arguments = complete(method, sock)
        loop.run_once(0)

        def elsewhere():
            with pytest.raises(WrongThreadError):
                start(*arguments)

        in_thread(elsewhere)
        loop.close()
        with pytest.raises(LoopClosedError):
            start(*arguments)


@pytest.mark.parametrize(
    "method, arguments, error, text",
    [
        ("recv", (-1,), ValueError, "size"),
        ("recv", (2**31,), ValueError, "size"),
        ("recv", ("1",), TypeError, "size"),
        ("recv", (1.0,), TypeError, "size"),
        ("recvfrom", (-1,), ValueError, "size"),
        ("recvmsg", (-1,), ValueError, "size"),
        ("recvmsg", (1, -1), ValueError, "ancsize"),
        ("recvmsg", (1, 2**31), ValueError, "ancsize"),
        ("recvmsg", (1, b""), TypeError, "ancsize"),
        ("recv_into", (b"read only",), BufferError, None),
        ("recv_into", ("text",), TypeError, None),
        ("recv_into", (memoryview(bytearray(9))[::2],), BufferError, None),
        ("send", ("text",), TypeError, None),
        ("send", (7,), TypeError, None),
        ("send", (memoryview(b"123456789")[::2],), BufferError, None),
        ("sendto", (b"x", "127.0.0.1"), TypeError, "tuple"),
        ("sendto", (b"x", None), TypeError, "tuple"),
        ("sendto", (b"x", ("localhost", 1)), ValueError, "resolve"),
        ("sendto", ("x", ("127.0.0.1", 1)), TypeError, None),
        ("connect", (("localhost", 1),), ValueError, "resolve"),
        ("connect", (("127.0.0.1", 65536),), ValueError, "port"),
        ("connect", ("path",), TypeError, "tuple"),
        ("sendmsg", (7,), TypeError, None),
        ("sendmsg", (b"bytes",), TypeError, None),
        ("sendmsg", ([b"x", "y"],), TypeError, None),
        ("sendmsg", ([b"x"], 7), TypeError, None),
        ("sendmsg", ([b"x"], [(1, 2)]), TypeError, "ancdata"),
        ("sendmsg", ([b"x"], ["abc"]), TypeError, "ancdata"),
        ("sendmsg", ([b"x"], [("1", 2, b"")]), TypeError, "level"),
        ("sendmsg", ([b"x"], [(1, 2**31, b"")]), ValueError, "type"),
        ("sendmsg", ([b"x"], [(1, 2, "text")]), TypeError, None),
        ("sendmsg", ([b"x"], (), -1), ValueError, "flags"),
        ("sendmsg", ([b"x"], (), "0"), TypeError, "flags"),
        ("sendmsg", ([b"x"], (), 0x4000000), ValueError, "MSG_ZEROCOPY"),
        ("sendmsg", ([b"x"], (), 0, ("localhost", 1)), ValueError, "resolve"),
        ("shutdown", (3,), ValueError, "how"),
        ("shutdown", (-1,), ValueError, "how"),
        ("shutdown", ("rd",), TypeError, "how"),
    ],
)
def test_bad_arguments(loop, method, arguments, error, text):
    with socket.socket() as sock:
        with pytest.raises(error, match=text):
            getattr(loop, method)(sock, *arguments)
        with pytest.raises(error, match=text):
            getattr(loop, method)(sock.fileno(), *arguments)


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_zero_copy_is_a_bool(loop, pair, value):
    with pytest.raises(TypeError, match="zero_copy"):
        loop.send(pair[0], b"x", zero_copy=value)


def test_the_object_is_kept_until_the_end(loop):
    class Holder:
        def __init__(self, sock):
            self.sock = sock

        def fileno(self):
            return self.sock.fileno()

    with socket.socket(type=socket.SOCK_DGRAM) as sender, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        holder = Holder(sock)
        gone = weakref.ref(holder)
        calls = Calls()
        loop.recv(holder, 10, calls)
        del holder
        gc.collect()
        loop.run_once(0)
        assert gone() is not None
        sender.sendto(b"x", address)
        finish(loop)
        assert calls == [(b"x", None)]
        assert gone() is None


def test_closing_the_loop_with_hundreds_in_flight(tmp_path):
    """Everything is called back, every buffer is free afterwards, and not one fd is left."""
    count = scaled(300, least=50)
    buffers = [bytearray(100) for _ in range(count)]
    calls = Calls()
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(contextlib.closing(end)) for _ in range(count) for end in socket.socketpair()]
        server = stack.enter_context(listening("tcp4", tmp_path))
        before = open_fds()
        with made_loop(entries=8) as loop:
            for number, buffer in enumerate(buffers):
                loop.recv_into(pairs[2 * number], buffer, calls)
                loop.recv(pairs[2 * number + 1], 100, calls)
                loop.recvmsg(pairs[2 * number + 1], 100, 100, calls)
                loop.accept(server, calls)
            loop.run_once(0)
            with pytest.raises(BufferError):
                buffers[-1].append(0)
        assert calls.errors == [CancelledError] * 4 * count
        for buffer in buffers:
            buffer.append(0)
        before = {fd: name for fd, name in before.items() if "io_uring" not in name}
        assert open_fds() == before


def test_thousands_on_a_small_ring(tmp_path):
    count = scaled(2000, least=200)
    with made_loop(entries=8) as loop, contextlib.ExitStack() as stack:
        pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(100)]
        got, sent = Calls(), Calls()
        for number in range(count):
            one, two = pairs[number % 100]
            loop.recv(two, 4, got)
            loop.send(one, b"%04d" % number, sent)
        finish(loop)
        assert sent == [(4, None)] * count
        assert sorted(data for data, _ in got) == [b"%04d" % number for number in range(count)]


def test_from_callbacks_of_their_own(loop, pair):
    one, two = pair
    seen = []

    def received(data, error):
        seen.append(data)
        if len(seen) < 50:
            cancelled = loop.recv(two, 10, on_error=seen.append)
            cancelled.cancel()
            loop.recv(two, 10, received)
            loop.send(one, b"%d" % len(seen))

    loop.recv(two, 10, received)
    loop.send(one, b"0")
    finish(loop)
    assert [int(data) for data in seen if isinstance(data, bytes)][-1] < 50
    assert len(seen) >= 50
