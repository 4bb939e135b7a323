"""No loop at all: what the callbacks of a workload cost by themselves.

The difference between a loop and this floor is what the loop adds; a floor
near a target shows how much of it no loop could save.
"""

import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, repeat
from queue import SimpleQueue
from subprocess import Popen
from typing import Any

from .base import Driver


class Floor(Driver):
    """Calls what is deferred or watched from a bare ``for`` or ``while``."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], Any]] = deque()
        self._running = False
        self.defer = self._queue.append
        self.run = self._run_queue

    def stop(self) -> None:
        self._running = False

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        # A built-in object that holds the callback and a number, and one call of a method with next to nothing to do.
        for _ in range(count):
            repeat(callback, 60).__length_hint__()

    def restart_timer(self, count: int, callback: Callable[..., Any]) -> None:
        # Two calls of built-in methods that have next to nothing to do.
        empty: list[object] = []
        start, stop = empty.clear, empty.reverse
        for _ in range(count):
            start()
            stop()

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        # The workloads make fds readable in the order in which they gave them.
        pairs = list(fds)

        def run_watched() -> None:
            self._running = True
            for fd, data in cycle(pairs):
                callback(fd, data)
                if not self._running:
                    break

        self.run = run_watched

    def poster(self) -> Callable[[Callable[[], Any]], Any]:
        # Two threads and a queue in C: what handing over the processor and the GIL takes.
        queue: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        next_call = queue.get

        def run_posted() -> None:
            self._running = True
            while self._running:
                next_call()()

        self.run = run_posted
        return queue.put

    def spawn(self, command: Sequence[str], count: int, at_once: int) -> int:
        succeeded = 0
        for left in range(count, 0, -at_once):
            processes = [Popen(command) for _ in range(min(left, at_once))]
            succeeded += sum(process.wait() == 0 for process in processes)
        return succeeded

    def resolve(self, host: str, count: int) -> int:
        return sum(bool(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)) for _ in range(count))

    def _run_queue(self) -> None:
        self._running = True
        next_call = self._queue.popleft
        while self._running:
            next_call()()
