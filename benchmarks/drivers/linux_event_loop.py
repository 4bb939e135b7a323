"""The loop of this package."""

from collections.abc import Callable, Iterable
from typing import Any

from linux_event import Loop

from .base import Driver


class LinuxEvent(Driver):
    """`linux_event.Loop` with default settings."""

    passes_watcher = True

    def __init__(self) -> None:
        self.loop = Loop()
        self.defer = self.loop.defer
        self.run = self.loop.run
        self.stop = self.loop.stop

    @classmethod
    def create_and_close(cls, count: int) -> None:
        for _ in range(count):
            Loop().close()

    def close(self) -> None:
        self.loop.close()

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        timer = self.loop.timer
        for _ in range(count):
            timer(60.0, callback).stop()

    def restart_timer(self, count: int, callback: Callable[..., Any]) -> None:
        watcher = self.loop.timer(60.0, callback, start=False)
        start, stop = watcher.start, watcher.stop
        for _ in range(count):
            start()
            stop()

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        timer = self.loop.timer
        for delay in delays:
            timer(delay, callback)

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        io = self.loop.io
        for fd, data in fds:
            io(fd, "r", callback, data=data)
