"""A loop in the middle of its work, for the tests of what must not disturb it."""

import os
import signal
import socket

from _fault import unexpected
from _support import finish, made_loop, pipes, run_until


class Traffic:
    """A loop with a watcher of each kind in the middle of its work, and the proof that all of them still work."""

    def __init__(self, loop):
        self.loop = loop
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.received, self.ticks, self.signals, self.calls = [], [], [], []
        self.reader = loop.io(self.ours, "r", lambda watcher, events: self.received.append(self.ours.recv(100)))
        self.edge = loop.io(self.ours, "r", lambda watcher, events: self.calls.append("edge"), edge=True)
        self.timer = loop.timer(3600, unexpected)
        self.periodic = loop.periodic(0.002, self.ticks.append)
        self.signal = loop.signal("USR1", lambda watcher, signum: self.signals.append(signum))
        loop.run_once(0)
        loop.defer(self.calls.append, "deferred")
        loop.post(self.calls.append, "posted")

    def expect(self):
        """Each of them calls, once for each cause."""
        requests = self.loop.statistics().requests_in_flight
        self.theirs.send(b"after")
        signal.raise_signal(signal.SIGUSR1)
        ticks = len(self.ticks)
        run_until(self.loop, lambda: self.received and self.signals and len(self.ticks) > ticks)
        self.loop.run_once(0)
        assert self.received == [b"after"]
        assert self.signals == [signal.SIGUSR1]
        assert sorted(self.calls) == ["deferred", "edge", "posted"]
        assert self.timer.is_active()
        assert self.loop.statistics().requests_in_flight == requests

    def close(self):
        self.loop.close()
        self.ours.close()
        self.theirs.close()


def make_a_loop(*_):
    """Make a loop of one's own, with a watcher of each kind that must be called, and close it."""
    with made_loop() as own, pipes(1) as [pipe]:
        called = []
        own.io(pipe.r, "r", lambda watcher, events: (called.append("io"), watcher.destroy()))
        own.timer(0.001, lambda watcher: called.append("timer"))
        own.signal("USR1", lambda watcher, signum: (called.append("signal"), watcher.destroy()))
        own.post(called.append, "post")
        pipe.put()
        os.kill(os.getpid(), signal.SIGUSR1)
        finish(own)
        assert sorted(called) == ["io", "post", "signal", "timer"]


def error_of(call, *arguments):
    """The name and text of the exception of a call."""
    try:
        call(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""
