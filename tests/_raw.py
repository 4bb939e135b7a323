"""Rings for the tests of raw requests: alone, and that of a loop."""

import contextlib
import struct
import time

from _support import BOUND, close_checked

from linux_event import Loop, Ring


class Driver:
    """A ring, and how to wait for what it does."""

    def __init__(self, ring, loop=None):
        self.ring = ring
        self.loop = loop

    def turn(self):
        """Submit, wait a little, call callbacks."""
        if self.loop is not None:
            self.loop.run_once(0.1)
        else:
            self.ring.submit_and_wait(1, 0.1)
            self.ring.reap()

    def until(self, condition):
        limit = time.monotonic() + BOUND
        while not condition():
            assert time.monotonic() < limit, "what the test waits for did not happen"
            self.turn()

    def all(self, *requests):
        """The results of these requests, when all of them are done."""
        self.until(lambda: all(request.done() for request in requests))
        return [request.result() for request in requests]

    def do(self, method, *args, **keywords):
        """Make one request, and return its result."""
        told = []
        request = getattr(self.ring, method)(*args, callback=lambda *said: told.append(said), **keywords)
        assert told == []
        self.until(lambda: told)
        assert request.done()
        assert told == [(request.result(), told[0][1])]
        return request.result()


@contextlib.contextmanager
def made_ring(*args, **keywords):
    """A Ring that is used alone, closed and checked at the end."""
    ring = Ring(*args, **keywords)
    try:
        yield ring
    finally:
        ring.close()
    left = ring.statistics()
    assert left.requests_in_flight == left.operations_in_flight == left.timers == left.deferred == 0
    assert ring.is_closed()


@contextlib.contextmanager
def driven(kind, **keywords):
    """A Driver of a ring of the kind, "alone" or "loop"."""
    if kind == "alone":
        with made_ring(**keywords) as ring:
            yield Driver(ring)
        return
    loop = Loop(**keywords)
    try:
        yield Driver(loop.ring, loop)
    finally:
        close_checked(loop)


def inet(address):
    """The sockaddr of ("127.0.0.1", port)."""
    host, port = address
    return struct.pack(
        "=HH4s8x", 2, int.from_bytes(port.to_bytes(2, "big"), "little"), bytes(map(int, host.split(".")))
    )


def unix(path):
    """The sockaddr of a Unix socket."""
    return struct.pack("=H", 1) + str(path).encode() + b"\0"
