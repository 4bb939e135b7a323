"""What a workload asks of a loop."""

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

CONNECTIONS_AT_ONCE = 50  # asyncio's servers have a backlog of 100
PATIENCE = 30.0  # seconds without anything new, after which what has not come is lost


class NotOffered(Exception):
    """The loop has no such operation; the text says what is missing."""


class Driver:
    """One open loop, its operations in their fastest natural form.

    Operations done once per event are bound methods of the loop itself, so
    that the driver adds nothing to them; those that differ in form between
    loops do many at a time. What a subclass does not define is not offered.

    Attributes:
        defer: ``defer(callback)`` runs the callback in the next iteration.
        run: runs the loop until `stop`.
        stop: ends `run`.
        passes_watcher: callbacks of `watch` get ``(watcher, events)`` with
            ``watcher.fd`` and ``watcher.data``, not ``(fd, data)``.
    """

    defer: Callable[..., Any]
    run: Callable[[], Any]
    stop: Callable[[], Any]
    passes_watcher = False

    @classmethod
    def create_and_close(cls, count: int) -> None:
        """Create and close `count` loops, one after the other."""
        raise NotOffered("no loop to create")

    def close(self) -> None:
        """Close the loop."""

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        """Create, start and cancel `count` timers, one after the other."""
        raise NotOffered("no timers")

    def restart_timer(self, count: int, callback: Callable[..., Any]) -> None:
        """Start and stop one existing timer `count` times."""
        raise NotOffered("no timer object that can be started again")

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        """Start one timer for each delay, in seconds."""
        raise NotOffered("no timers")

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        """Call `callback` whenever an fd is readable.

        Args:
            fds: pairs of a file descriptor and what the callback is to get with it.
            callback: see `passes_watcher`.
        """
        raise NotOffered("no I/O watchers")

    def poster(self) -> Callable[[Callable[[], Any]], Any]:
        """Return what has the loop call a function, from any thread; `run` goes on until `stop` though nothing is called."""
        raise NotOffered("no calls from other threads")

    def notifier(self, callback: Callable[[int], Any]) -> Callable[[], Any]:
        """Return what tells the loop, from any thread, to call ``callback(count)`` for one call or more of it."""
        raise NotOffered("no calls from other threads")

    def read_files(self, paths: Sequence[str], at_once: int) -> int:
        """Read whole files, `at_once` of them at a time; return the bytes read."""
        raise NotOffered("no whole files")

    def write_files(self, paths: Sequence[str], data: bytes, at_once: int) -> int:
        """Write `data` to each file, `at_once` of them at a time; return the bytes written."""
        raise NotOffered("no whole files")

    def ping(self, pairs: Sequence[tuple[socket.socket, socket.socket]], count: int, data: bytes) -> int:
        """Send `data` from the first socket of each pair to the second and back, `count` times; return the bytes back."""
        raise NotOffered("no operations on sockets")

    def accept_and_close(self, server: socket.socket, count: int) -> int:
        """Accept and close `count` connections; return how many it were."""
        raise NotOffered("no operations on sockets")

    def hold(self, server: socket.socket, count: int, connect: Callable[[int], Any]) -> None:
        """Accept `count` connections and keep them, each with callbacks for data; return when all are there.

        Args:
            server: listens without blocking.
            connect: makes so many connections to it; called with few enough for its backlog.
        """
        raise NotOffered("no connections")

    def echo_datagrams(self, server: socket.socket, count: int) -> int:
        """Send `count` datagrams that come to a bound socket back to where they came from; return how many it were."""
        raise NotOffered("no datagrams")

    def spawn(self, command: Sequence[str], count: int, at_once: int) -> int:
        """Run a program `count` times, `at_once` at a time; return how many ended with status 0."""
        raise NotOffered("no child processes")

    def communicate(self, command: Sequence[str], data: bytes, count: int) -> int:
        """Run a program `count` times, give it `data` and take all it says; return how many bytes it said."""
        raise NotOffered("no pipes of child processes")

    def resolve(self, host: str, count: int) -> int:
        """Find the addresses of a host `count` times, one after the other; return how often there were some."""
        raise NotOffered("no names")

    def watch_tree(self, root: str) -> None:
        """Watch a directory and all below it, for new files; all is watched on return."""
        raise NotOffered("no trees of directories")

    def new_files(self, count: int) -> list[str]:
        """Wait until `count` new files have been told of, or nothing more comes; return their paths."""
        raise NotOffered("no trees of directories")
