"""The micro-workloads: ``python -m benchmarks.guard.workloads [WORKLOAD ...]``.

Each keeps both ends of what it does in one loop and one thread, with nothing that depends on the clock, so that the same
code takes the same number of instructions each time. It runs three times: once to warm up, then with two sizes. Around the
part that counts stands a call of `os.getppid`, which nothing else calls: whoever traces the process cuts its count there.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from linux_event import Loop, Stream

WARM, SMALL, LARGE = 200, 200, 1000
MARK = "getppid"


def _run(loop: Loop) -> None:
    os.getppid()
    loop.run()
    os.getppid()


def deferred_call(loop: Loop, count: int) -> None:
    """A callback that defers the next one."""

    def step() -> None:
        nonlocal count
        count -= 1
        if count:
            loop.defer(step)

    loop.defer(step)
    _run(loop)


def deferred_calls_50(loop: Loop, count: int) -> None:
    """50 callbacks deferred at a time."""

    def nothing() -> None:
        pass

    def step() -> None:
        nonlocal count
        count -= 50
        for _ in range(49):
            loop.defer(nothing)
        if count:
            loop.defer(step)

    loop.defer(step)
    _run(loop)


def posted_call(loop: Loop, count: int) -> None:
    """A call by way of `post`, which wakes the loop."""

    def step() -> None:
        nonlocal count
        count -= 1
        if count:
            loop.post(step)
        else:
            loop.stop()

    loop.post(step)
    _run(loop)


def timer_new(loop: Loop, count: int) -> None:
    """A timer that is created, started and cancelled, among 100 others."""

    def never(timer: Any) -> None:
        raise AssertionError("a timer fired before its time")

    others = [loop.timer(3600 + number, never) for number in range(100)]
    os.getppid()
    for _ in range(count):
        loop.timer(60, never).destroy()
    os.getppid()
    for timer in others:
        timer.destroy()


def timer_restart(loop: Loop, count: int) -> None:
    """A timeout that is put off, among 100 timers."""

    def never(timer: Any) -> None:
        raise AssertionError("a timer fired before its time")

    others = [loop.timer(3600 + number, never) for number in range(100)]
    timer = loop.timer(60, never)
    os.getppid()
    for _ in range(count):
        timer.stop().start()
    os.getppid()
    for other in (*others, timer):
        other.destroy()


def timer_fires(loop: Loop, count: int) -> None:
    """A timer that is due at once."""

    def on_time(timer: Any) -> None:
        nonlocal count
        count -= 1
        if count:
            timer.stop().start()

    loop.timer(0, on_time)
    _run(loop)


def readable_fd(loop: Loop, count: int) -> None:
    """A byte through a pipe, which a watcher reads and writes again."""
    near, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_readable(watcher: Any, events: int) -> None:
        nonlocal count
        os.read(near, 1)
        count -= 1
        if count:
            os.write(far, b".")
        else:
            watcher.destroy()

    loop.io(near, "r", on_readable)
    os.write(far, b".")
    _run(loop)
    os.close(near)
    os.close(far)


def readable_of_100(loop: Loop, count: int) -> None:
    """An event of one of 100 eventfds, of which ten are readable at any time."""
    fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(100)]

    def on_readable(watcher: Any, events: int) -> None:
        nonlocal count
        os.eventfd_read(watcher.fd)
        count -= 1
        if count > 0:
            os.eventfd_write(fds[(watcher.data + 37) % 100], 1)
        else:
            loop.stop()

    watchers = [loop.io(fd, "r", on_readable, data=number) for number, fd in enumerate(fds)]
    for fd in fds[:10]:
        os.eventfd_write(fd, 1)
    _run(loop)
    for watcher in watchers:
        watcher.destroy()
    for fd in fds:
        os.close(fd)


def notification(loop: Loop, count: int) -> None:
    """A wakeup that notifies itself."""

    def on_wakeup(watcher: Any, times: int) -> None:
        nonlocal count
        count -= 1
        if count:
            watcher.notify()
        else:
            watcher.destroy()

    loop.wakeup(on_wakeup).notify()
    _run(loop)


def read_file(loop: Loop, count: int) -> None:
    """A cached file of 4 KiB read whole, 20 at once."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(4096))
        file.flush()
        left = count - 20

        def on_content(content: bytes | None, error: Exception | None) -> None:
            nonlocal left
            if content is None or len(content) != 4096:
                raise AssertionError(f"{error or len(content or b'')}")
            if left:
                left -= 1
                loop.read_file(file.name, on_content)

        for _ in range(20):
            loop.read_file(file.name, on_content)
        _run(loop)


def receive_and_send(loop: Loop, count: int) -> None:
    """64 bytes received and sent again by operations on a socket."""
    near, far = socket.socketpair()
    with near, far:

        def on_received(data: bytes | None, error: Exception | None) -> None:
            nonlocal count
            count -= 1
            if count and data is not None:
                loop.recv(near, 64, on_received)
                loop.send(far, data)

        loop.recv(near, 64, on_received)
        loop.send(far, bytes(64))
        _run(loop)


def _streams(loop: Loop, stack: ExitStack, count: int) -> tuple[list[Stream], list[Stream]]:
    """The connecting and the accepted ends of `count` connections."""
    near: list[Stream] = []
    far: list[Stream] = []
    name = f"\0linux_event-guard-{os.getpid()}"
    with closing(loop.listen(name, far.append)):
        for _ in range(count):
            loop.connect_stream(name, on_success=near.append)
        while len(near) < count or len(far) < count:
            loop.run_once()
    for stream in (*near, *far):
        stack.callback(_finish, loop, stream)
    return near, far


def _finish(loop: Loop, stream: Stream) -> None:
    stream.on_close = None
    stream.abort()
    while not stream.is_closed():
        loop.run_once()


def stream_echo(loop: Loop, count: int, connections: int = 1) -> None:
    """64 bytes written to a stream, echoed by another one and received."""
    with ExitStack() as stack:
        near, far = _streams(loop, stack, connections)

        def on_data(stream: Stream, data: bytes) -> None:
            nonlocal count
            count -= 1
            if count > 0:
                stream.write(data)
            else:
                loop.stop()

        def echo(stream: Stream, data: bytes) -> None:
            stream.write(data)

        for stream in near:
            stream.on_data = on_data
        for stream in far:
            stream.on_data = echo
        for stream in near:
            stream.write(bytes(64))
        _run(loop)


def stream_echo_20(loop: Loop, count: int) -> None:
    """The same on 20 connections at once."""
    stream_echo(loop, count, 20)


def broadcast_50(loop: Loop, count: int) -> None:
    """A message written to one of 50 streams that get it all, and received there."""
    with ExitStack() as stack:
        near, far = _streams(loop, stack, 50)
        message = bytes(64)
        received = 0

        def on_data(stream: Stream, data: bytes) -> None:
            nonlocal received
            received += 1
            if received % 50 == 0:
                if received < count:
                    say()
                else:
                    loop.stop()

        def say() -> None:
            for stream in far:
                stream.write(message)

        for stream in near:
            stream.on_data = on_data
        say()
        _run(loop)


def connection(loop: Loop, count: int) -> None:
    """A connection made, accepted and closed."""
    name = f"\0linux_event-guard-{os.getpid()}"

    def on_accepted(stream: Stream) -> None:
        stream.close()

    def on_connected(stream: Stream) -> None:
        stream.on_close = on_close

    def on_close(stream: Stream, error: Exception | None) -> None:
        nonlocal count
        count -= 1
        if count:
            loop.connect_stream(name, on_success=on_connected)
        else:
            loop.stop()

    with closing(loop.listen(name, on_accepted)):
        loop.connect_stream(name, on_success=on_connected)
        _run(loop)
    loop.run_once(0)


def datagram_echo(loop: Loop, count: int) -> None:
    """64 bytes sent as a datagram, echoed and received."""
    server = loop.datagram(("127.0.0.1", 0))
    client = loop.datagram(None, server.sockname)

    def echo(datagram: Any, data: bytes, address: Any) -> None:
        datagram.send(data, address)

    def on_answer(datagram: Any, data: bytes, address: Any) -> None:
        nonlocal count
        count -= 1
        if count:
            datagram.send(data)
        else:
            loop.stop()

    server.on_datagram = echo
    client.on_datagram = on_answer
    client.send(bytes(64))
    _run(loop)
    server.close()
    client.close()
    loop.run_once(0)


def address_in_numbers(loop: Loop, count: int) -> None:
    """A numeric address resolved."""

    def on_addresses(addresses: Any, error: Exception | None) -> None:
        nonlocal count
        count -= 1
        if count:
            loop.resolve("127.0.0.1", 80, on_addresses)

    loop.resolve("127.0.0.1", 80, on_addresses)
    _run(loop)


WORKLOADS: dict[str, Callable[[Loop, int], None]] = {
    workload.__name__: workload
    for workload in (
        deferred_call,
        deferred_calls_50,
        posted_call,
        timer_new,
        timer_restart,
        timer_fires,
        readable_fd,
        readable_of_100,
        notification,
        read_file,
        receive_and_send,
        stream_echo,
        stream_echo_20,
        broadcast_50,
        connection,
        datagram_echo,
        address_in_numbers,
    )
}


def main(*names: str) -> int:
    """Run the named workloads, or all, and print their names in order."""
    for name in names or WORKLOADS:
        for size in (WARM, SMALL, LARGE):
            with Loop() as loop:
                WORKLOADS[name](loop, size)
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
