"""Readable file descriptors: one pipe, and few of many.

The descriptors are non-blocking and the callbacks survive being called with
nothing to read: some loops do call in vain now and then, and a program has to
cope. Such calls are counted, as the value ``in_vain``, per event.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from ..drivers import Driver, NotOffered
from ..meter import LostCallbacks, Meter
from ..peers import Peer

# What the interpreter and the loop have open themselves.
SPARE_FDS = 100


def pipe_ping(peer: Peer, size: int) -> dict[str, float]:
    """One pipe: the callback reads the byte and writes the next, `size` times."""
    left = size
    in_vain = 0
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with closing(peer.driver_class()()) as driver:
            read, write, stop = os.read, os.write, driver.stop

            def readable(_fd_or_watcher: Any, _data_or_events: Any) -> None:
                nonlocal left, in_vain
                try:
                    read(read_end, 1)
                except BlockingIOError:
                    in_vain += 1
                    return
                left -= 1
                if left:
                    write(write_end, b".")
                else:
                    stop()

            driver.watch([(read_end, None)], readable)
            write(write_end, b".")
            with Meter() as meter:
                driver.run()
    finally:
        os.close(read_end)
        os.close(write_end)
    if left:
        raise LostCallbacks(f"{left} of {size} bytes were not read")
    return meter.per(size) | {"in_vain": in_vain / size}


def fds_10(peer: Peer, size: int) -> dict[str, float]:
    """10 eventfds, one of them readable at a time; `size` events."""
    return few_of_many(peer, size, 10)


def fds_100(peer: Peer, size: int) -> dict[str, float]:
    """100 eventfds, one of them readable at a time; `size` events."""
    return few_of_many(peer, size, 100)


def fds_1000(peer: Peer, size: int) -> dict[str, float]:
    """1 000 eventfds, 10 of them readable at a time; `size` events."""
    return few_of_many(peer, size, 1000)


def fds_10000(peer: Peer, size: int) -> dict[str, float]:
    """10 000 eventfds, 100 of them readable at a time; `size` events."""
    return few_of_many(peer, size, 10000)


def few_of_many(peer: Peer, size: int, count: int) -> dict[str, float]:
    """`count` eventfds of which 1 % are readable at any time; `size` events.

    The callback of one reads it and makes readable the one that follows it by
    the number of active ones, so that activity wanders over all of them.
    """
    active = max(1, count // 100)
    with eventfds(count) as fds, closing(peer.driver_class()()) as driver:
        following = fds[active:] + fds[:active]
        events = _Events(driver)
        driver.watch(zip(fds, following, strict=True), events.callback)
        for fd in fds[:active]:
            os.eventfd_write(fd, 1)
        # Loops differ in when they tell the kernel of an fd: the first round over all of them is not counted.
        events.expect(count)
        driver.run()
        events.expect(size)
        with Meter() as meter:
            driver.run()
    if left := events.left():
        raise LostCallbacks(f"{left} of {size} events were not delivered")
    return meter.per(size) | {"in_vain": events.in_vain() / (count + size)}


class _Events:
    """The callback of `few_of_many` and what it counts.

    Attributes:
        callback: in the form that the loop calls.
        expect: ``expect(count)`` sets after how many events the loop is stopped.
        left: ``left()`` tells how many events are missing.
        in_vain: ``in_vain()`` tells how many calls found nothing to read.
    """

    def __init__(self, driver: Driver) -> None:
        left = in_vain = 0
        read, write, stop = os.eventfd_read, os.eventfd_write, driver.stop

        def with_arguments(fd: int, following: int) -> None:
            nonlocal left, in_vain
            try:
                read(fd)
            except BlockingIOError:
                in_vain += 1
                return
            write(following, 1)
            left -= 1
            if not left:
                stop()

        def with_watcher(watcher: Any, _events: Any) -> None:
            nonlocal left, in_vain
            try:
                read(watcher.fd)
            except BlockingIOError:
                in_vain += 1
                return
            write(watcher.data, 1)
            left -= 1
            if not left:
                stop()

        def expect(count: int) -> None:
            nonlocal left
            left = count

        self.expect = expect
        self.callback = with_watcher if driver.passes_watcher else with_arguments
        # Callbacks already collected may still run after stop().
        self.left = lambda: max(left, 0)
        self.in_vain = lambda: in_vain


def room_for_fds(count: int) -> None:
    """Raise the limit of open files where needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count + SPARE_FDS > hard:
        raise NotOffered(f"the hard limit of open files here is {hard}")
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    """Open `count` eventfds, having raised the limit of open files where needed."""
    room_for_fds(count)
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
