"""Five seconds in the life of one loop, with every count checked: ``python -m linux_event demo``.

One loop, in one thread, serves TCP connections to clients in other processes, reads a regular file and a FIFO, fires
timers and periodics, takes signals, idles, and runs calls that were deferred or posted from another thread. Each part
below adds its watchers to the loop and says at the end what it saw and what it should have seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from . import Events, IOWatcher, Loop, Periodic, Timer, __version__
from . import demo_peers as peers

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Idle, Signal

CLIENTS = 4
CONNECTIONS = 8
FILE_BYTES = 1 << 20
FIFO_LINES = 2000
TIMERS = 50
RESTARTS = 5
INTERVALS = (0.05, 0.25)
SIGNALS = 20
IDLE_CALLS = 100
DEFERRED = 1000
POSTED = 1000
#: Seconds that the parts get beyond their time, and that of the machine, before the demo gives up.
PATIENCE = 20.0

#: Bytes that a connection may have waiting to be sent before the server stops reading from it.
QUEUE_MAX = 1 << 18


class Check(NamedTuple):
    """One line of the table: what was counted, how often it happened, what was expected, whether that was met."""

    what: str
    seen: int
    expected: str
    good: bool


def exactly(what: str, count: int, expected: int) -> Check:
    """A count that has one right value."""
    return Check(what, count, str(expected), count == expected)


def at_least(what: str, count: int, least: int) -> Check:
    """A count that has a lowest right value."""
    return Check(what, count, f">= {least}", count >= least)


class Peer:
    """Another process that does its part and prints a line of JSON, which the loop reads through a pipe."""

    def __init__(self, loop: Loop, on_end: Callable[[], None], what: str, *arguments: object) -> None:
        # Running the file by its path, with -P, keeps this package out of the process: it is a client of its own. It
        # gets a process group of its own too, so that Ctrl-C is for the demo alone, which then ends the others.
        command = [sys.executable, "-P", peers.__file__, what, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        self.on_end = on_end
        self.output = b""
        self.is_running = True
        assert self.process.stdout is not None
        self.watcher = loop.io(self.process.stdout, "r", self.on_output)

    def on_output(self, watcher: IOWatcher, events: Events) -> None:
        data = os.read(watcher.fd, 65536)
        self.output += data
        if not data:
            watcher.destroy()
            self.is_running = False
            self.process.wait(10)
            self.on_end()

    def acknowledge(self) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), b"!")

    def reported(self, name: str) -> int:
        """Return the count ``name`` that the process printed; 0 if it failed or printed none."""
        if self.process.returncode != 0 or not self.output:
            return 0
        count = json.loads(self.output)[name]
        assert isinstance(count, int)
        return count

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


class Connection:
    """One client of the echo server: what was received and not sent back yet."""

    def __init__(self, server: EchoServer, connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.queue = bytearray()
        self.at_end = False
        self.poll = "r"
        self.watcher = server.loop.io(connection, self.poll, self.on_event)

    def on_event(self, watcher: IOWatcher, events: Events) -> None:
        try:
            if "r" in self.poll and events & Events.READ:
                self.receive()
            if self.queue:
                self.send()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.server.broken += 1
            self.close()
            return
        if self.at_end and not self.queue:
            self.close()
            return
        # Waiting for room only while there is something to send keeps a level-triggered watcher quiet.
        reads = not self.at_end and len(self.queue) < QUEUE_MAX
        poll = ("r" if reads else "") + ("w" if self.queue else "")
        if poll != self.poll:
            self.server.waits += "w" in poll
            self.poll = watcher.poll = poll

    def receive(self) -> None:
        data = self.socket.recv(65536)
        self.server.received += len(data)
        self.queue += data
        self.at_end = not data

    def send(self) -> None:
        count = self.socket.send(self.queue)
        self.server.sent += count
        del self.queue[:count]

    def close(self) -> None:
        self.watcher.destroy()
        self.socket.close()
        self.server.connections.discard(self)


class EchoServer:
    """A TCP server that sends back what it gets, and its clients in other processes."""

    def __init__(self, loop: Loop, on_end: Callable[[], None], seconds: float) -> None:
        self.loop = loop
        self.connections: set[Connection] = set()
        self.accepted = self.received = self.sent = self.waits = self.broken = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS * CONNECTIONS)
        self.listener.setblocking(False)
        self.watcher = loop.io(self.listener, "r", self.on_connect)
        port = self.listener.getsockname()[1]
        arguments = (port, CONNECTIONS, seconds)
        self.clients = [Peer(loop, on_end, "echo-clients", *arguments, seed) for seed in range(CLIENTS)]

    def on_connect(self, watcher: IOWatcher, events: Events) -> None:
        # More may wait, but then the watcher is called again: one each time is fair to all the others.
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = self.listener.accept()
            self.accepted += 1
            self.connections.add(Connection(self, connection))

    def stop(self) -> None:
        self.watcher.stop()

    def checks(self) -> list[Check]:
        clients = self.clients
        size = sum(client.reported("bytes") for client in clients)
        return [
            exactly(
                "client processes that got all bytes back", sum(c.process.returncode == 0 for c in clients), CLIENTS
            ),
            exactly("TCP connections accepted", self.accepted, CLIENTS * CONNECTIONS),
            exactly("TCP connections broken or left open", self.broken + len(self.connections), 0),
            at_least("messages echoed", sum(c.reported("messages") for c in clients), CLIENTS * CONNECTIONS),
            exactly("bytes received", self.received, size),
            exactly("bytes sent back", self.sent, size),
            at_least("times that a socket had no room for the rest", self.waits, 1),
        ]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for connection in tuple(self.connections):
            connection.close()
        self.listener.close()


class RegularFile:
    """A file on a disk, read one block per call: poll(2) says of such files that they are always ready."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        path = folder / "file"
        data = random.Random(0).randbytes(FILE_BYTES)
        path.write_bytes(data)
        self.digest = hashlib.sha256(data).digest()
        self.hash = hashlib.sha256()
        self.size = 0
        self.file = path.open("rb", buffering=0)
        loop.io(self.file, "r", self.on_readable)

    def on_readable(self, watcher: IOWatcher, events: Events) -> None:
        data = self.file.read(65536)
        self.size += len(data)
        self.hash.update(data)
        if not data:
            watcher.destroy()

    def checks(self) -> list[Check]:
        return [
            exactly("bytes of a regular file read", self.size, FILE_BYTES),
            exactly("regular files with the right contents", int(self.hash.digest() == self.digest), 1),
        ]

    def close(self) -> None:
        self.file.close()


class Fifo:
    """A named pipe that another process writes lines to."""

    def __init__(self, loop: Loop, on_end: Callable[[], None], folder: Path) -> None:
        path = folder / "fifo"
        os.mkfifo(path)
        self.rest = b""
        self.lines = self.wrong = 0
        # A reader that does not block need not wait for the writer to come.
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        loop.io(self.fd, "r", self.on_readable)
        self.writer = Peer(loop, on_end, "fifo-writer", path, FIFO_LINES)

    def on_readable(self, watcher: IOWatcher, events: Events) -> None:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.wrong += line != b"line %d" % self.lines
            self.lines += 1
        if not data:
            watcher.destroy()

    def checks(self) -> list[Check]:
        return [
            exactly("lines read from a FIFO", self.lines, FIFO_LINES),
            exactly("lines wrong or unfinished", self.wrong + bool(self.rest), 0),
        ]

    def close(self) -> None:
        os.close(self.fd)
        self.writer.close()


class Timers:
    """One-shot timers started in a random order, one that starts itself again, and one that is stopped in time."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self.loop = loop
        self.fired: list[float] = []
        self.early = self.restarts = self.stopped_fired = 0
        delays = [seconds * number / TIMERS for number in range(TIMERS)]
        random.Random(0).shuffle(delays)
        for delay in delays:
            loop.timer(delay, self.on_fired, data=loop.time() + delay)
        loop.timer(seconds / 2 / RESTARTS, self.on_restart)
        stopped = loop.timer(seconds / 2, self.on_stopped)
        loop.timer(seconds / 4, lambda timer: stopped.stop())

    def on_fired(self, timer: Timer) -> None:
        self.early += self.loop.time() < timer.data
        self.fired.append(timer.data)

    def on_restart(self, timer: Timer) -> None:
        self.restarts += 1
        if self.restarts < RESTARTS:
            timer.start()

    def on_stopped(self, timer: Timer) -> None:
        self.stopped_fired += 1

    def checks(self) -> list[Check]:
        in_order = sum(deadline == right for deadline, right in zip(self.fired, sorted(self.fired), strict=True))
        return [
            exactly("one-shot timers fired", len(self.fired), TIMERS),
            exactly("of these in the order of their deadlines", in_order, TIMERS),
            exactly("timers fired too early", self.early, 0),
            exactly("times a timer fired that starts itself again", self.restarts, RESTARTS),
            exactly("times a timer fired that was stopped", self.stopped_fired, 0),
        ]


class Periodics:
    """Periodics on fixed grids: calls and merged ticks together are as many as the clock says."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.begin = loop.time()
        self.seconds = 0.0
        self.early = 0
        self.ticks = dict.fromkeys(INTERVALS, 0)
        self.periodics = [loop.periodic(interval, self.on_tick, data=interval) for interval in INTERVALS]

    def on_tick(self, periodic: Periodic) -> None:
        interval = periodic.data
        self.ticks[interval] += 1 + periodic.missed
        self.early += self.loop.time() < self.begin + self.ticks[interval] * interval

    def stop(self) -> None:
        for periodic in self.periodics:
            periodic.stop()
        self.seconds = self.loop.time() - self.begin

    def checks(self) -> list[Check]:
        # A tick that fell due in the same iteration in which the periodic was stopped may be missing.
        rows = []
        for interval, ticks in self.ticks.items():
            most = int(self.seconds / interval)
            rows.append(Check(f"ticks every {interval} s", ticks, f"{most - 1} or {most}", most - 1 <= ticks <= most))
        return [*rows, exactly("ticks too early", self.early, 0)]


def caught_signals() -> set[int]:
    """Return which of the two signals of the demo this process has handlers for, as the kernel sees it."""
    mask = int(Path("/proc/self/status").read_text().partition("SigCgt:")[2].split()[0], 16)
    return {number for number in (signal.SIGUSR1, signal.SIGUSR2) if mask >> (number - 1) & 1}


class Signals:
    """Signals from another process, which says who it is, and from this one."""

    def __init__(self, loop: Loop, on_end: Callable[[], None]) -> None:
        self.taken = self.own = self.known = 0
        self.before = caught_signals()
        self.watchers = [loop.signal("USR1", self.on_signal), loop.signal(signal.SIGUSR2, self.on_own_signal)]
        self.sender = Peer(loop, on_end, "signal-sender", os.getpid(), SIGNALS)
        loop.defer(signal.raise_signal, signal.SIGUSR2)

    def on_signal(self, watcher: Signal, signum: int) -> None:
        self.taken += 1
        self.known += watcher.info is not None and watcher.info.pid == self.sender.process.pid
        self.sender.acknowledge()

    def on_own_signal(self, watcher: Signal, signum: int) -> None:
        # The kernel merges signals that nobody has taken yet, so each is sent when the last one has arrived.
        self.own += 1
        if self.own < SIGNALS:
            signal.raise_signal(signum)

    def stop(self) -> None:
        for watcher in self.watchers:
            watcher.stop()

    def checks(self) -> list[Check]:
        return [
            exactly("signals taken from another process", self.taken, SIGNALS),
            exactly("of these with the number of that process", self.known, SIGNALS),
            exactly("signals that it saw acknowledged", self.sender.reported("signals"), SIGNALS),
            exactly("signals taken from this process", self.own, SIGNALS),
            exactly("signals still caught afterwards", len(caught_signals() - self.before), 0),
        ]

    def close(self) -> None:
        self.sender.close()


class Calls:
    """Calls deferred by this thread, calls posted by another one, and calls for when there is nothing else to do."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.deferred = self.idle = 0
        self.posted: list[tuple[int, int]] = []
        loop.defer(self.on_deferred)
        loop.idle(self.on_idle)
        self.thread = threading.Thread(target=self.post, name="poster")
        self.thread.start()

    def on_deferred(self) -> None:
        self.deferred += 1
        if self.deferred < DEFERRED:
            self.loop.defer(self.on_deferred)

    def on_idle(self, idle: Idle) -> None:
        self.idle += 1
        if self.idle == IDLE_CALLS:
            idle.destroy()

    def post(self) -> None:
        for number in range(POSTED):
            self.loop.post(self.on_posted, number)

    def on_posted(self, number: int) -> None:
        self.posted.append((number, threading.get_ident()))

    def checks(self) -> list[Check]:
        thread = threading.get_ident()
        in_order = self.posted == [(number, thread) for number in range(POSTED)]
        return [
            exactly("calls deferred one by the other", self.deferred, DEFERRED),
            exactly("calls posted by another thread", len(self.posted), POSTED),
            exactly("of these in order and in the loop's thread", len(self.posted) if in_order else 0, POSTED),
            exactly("idle calls", self.idle, IDLE_CALLS),
        ]

    def close(self) -> None:
        self.thread.join()


class Demo:
    """All parts on one loop, which runs until nothing is left to do.

    ``seconds`` (float, 1 or more) is how long the parts that go on for ever are let go on.
    """

    def __init__(self, loop: Loop, seconds: float, stack: contextlib.ExitStack) -> None:
        self.loop = loop
        self.errors = 0
        self.is_late = False
        self.is_time_up = False
        loop.on_error = self.on_error
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linux-event-demo-")))
        # What runs late must fail, not hang: this timer does not keep the loop going, but can end it.
        self.limit = loop.timer(3 * seconds + PATIENCE, self.on_late, ref=False)
        loop.timer(seconds, self.on_time_up)
        self.timers = Timers(loop, seconds * 0.9)
        self.periodics = Periodics(loop)
        self.server = EchoServer(loop, self.on_end, seconds * 0.7)
        stack.callback(self.server.close)
        self.file = RegularFile(loop, folder)
        stack.callback(self.file.close)
        self.fifo = Fifo(loop, self.on_end, folder)
        stack.callback(self.fifo.close)
        self.signals = Signals(loop, self.on_end)
        stack.callback(self.signals.close)
        self.calls = Calls(loop)
        stack.callback(self.calls.close)

    def on_error(self, source: object, exception: BaseException) -> None:
        self.errors += 1
        traceback.print_exception(exception)

    def on_late(self, timer: Timer) -> None:
        self.is_late = True
        self.loop.stop()

    def on_time_up(self, timer: Timer) -> None:
        self.is_time_up = True
        self.on_end()

    def on_end(self) -> None:
        """Stop what would go on for ever once the time is up and no other process needs it any more."""
        processes = [*self.server.clients, self.fifo.writer, self.signals.sender]
        if self.is_time_up and not any(process.is_running for process in processes):
            self.server.stop()
            self.periodics.stop()
            self.signals.stop()

    def checks(self) -> list[Check]:
        self.limit.destroy()
        return [
            *self.server.checks(),
            *self.file.checks(),
            *self.fifo.checks(),
            *self.timers.checks(),
            *self.periodics.checks(),
            *self.signals.checks(),
            *self.calls.checks(),
            exactly("callbacks that raised", self.errors, 0),
            exactly("watchers still active", self.loop.statistics().active_watchers, 0),
            exactly("times the loop had to be stopped", int(self.is_late), 0),
        ]


def run(seconds: float = 5.0, output: TextIO | None = None) -> bool:
    """Run the demo and print its table.

    ``seconds`` (1 or more) is how long it goes on; ``output`` is a text file (None: standard output). Returns whether
    everything happened as often as it should. Raises ``UringUnavailableError`` when no loop can be made.
    """
    output = output or sys.stdout
    with Loop() as loop, contextlib.ExitStack() as stack:
        print(f"linux_event {__version__}: one loop, about {seconds:g} seconds", file=output, flush=True)
        demo = Demo(loop, seconds, stack)
        begin = loop.time()
        loop.run()
        taken = loop.time() - begin
        checks = demo.checks()
        statistics = loop.statistics()
    left = loop.statistics()
    checks.append(exactly("watchers and requests left after close", left.watchers + left.requests_in_flight, 0))
    print_table(checks, output)
    failed = sum(not check.good for check in checks)
    print(
        f"\nThe loop ran for {taken:.2f} s: {statistics.iterations} iterations, {statistics.callbacks} callbacks, "
        f"{statistics.completions} completions, {statistics.syscalls} system calls.",
        file=output,
    )
    verdict = f"{failed} of {len(checks)} checks FAILED" if failed else f"All {len(checks)} checks passed"
    print(f"{verdict}.", file=output, flush=True)
    return not failed


def print_table(checks: list[Check], output: TextIO) -> None:
    """Print one line for each check, in columns."""
    rows = [("what", "count", "expected", "")]
    rows += [(c.what, str(c.seen), c.expected, "ok" if c.good else "WRONG") for c in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for what, count, expected, verdict in rows:
        line = f"{what:<{widths[0]}}  {count:>{widths[1]}}  {expected:>{widths[2]}}  {verdict}"
        print(line.rstrip(), file=output)
