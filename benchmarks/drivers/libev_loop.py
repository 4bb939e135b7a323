"""gevent's loop on libev, used without gevent's greenlets."""

from collections.abc import Callable, Iterable
from typing import Any

from gevent.libev import corecext

from .base import Driver


class Libev(Driver):
    """The loop class that gevent's hub runs on."""

    def __init__(self) -> None:
        self.loop = corecext.loop(default=False)
        self.defer = self.loop.run_callback
        self.run = self.loop.run
        self.stop = self.loop.break_

    @classmethod
    def create_and_close(cls, count: int) -> None:
        loop = corecext.loop
        for _ in range(count):
            loop(default=False).destroy()

    def close(self) -> None:
        self.loop.destroy()

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        timer = self.loop.timer
        for _ in range(count):
            watcher = timer(60.0)
            watcher.start(callback)
            watcher.stop()

    def restart_timer(self, count: int, callback: Callable[..., Any]) -> None:
        watcher = self.loop.timer(60.0)
        start, stop = watcher.start, watcher.stop
        for _ in range(count):
            start(callback)
            stop()

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        # Delays count from the loop's cached time, which is old outside run().
        self.loop.update_now()
        timer = self.loop.timer
        for delay in delays:
            timer(delay).start(callback)

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        io = self.loop.io
        for fd, data in fds:
            io(fd, corecext.READ).start(callback, fd, data)
