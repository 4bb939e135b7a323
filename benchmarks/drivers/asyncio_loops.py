"""The loops with asyncio's interface: asyncio's own, uvloop, rloop."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from .base import Driver


class AsyncioDriver(Driver):
    """A loop with asyncio's interface.

    Subclasses name the module whose ``new_event_loop`` makes the loop.
    """

    module: str

    def __init__(self) -> None:
        self.loop = importlib.import_module(self.module).new_event_loop()
        self.defer = self.loop.call_soon
        self.run = self.loop.run_forever
        self.stop = self.loop.stop

    @classmethod
    def create_and_close(cls, count: int) -> None:
        new_event_loop = importlib.import_module(cls.module).new_event_loop
        for _ in range(count):
            new_event_loop().close()

    def close(self) -> None:
        self.loop.close()

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        call_later = self.loop.call_later
        for _ in range(count):
            call_later(60.0, callback).cancel()

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        call_later = self.loop.call_later
        for delay in delays:
            call_later(delay, callback)

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        add_reader = self.loop.add_reader
        for fd, data in fds:
            add_reader(fd, callback, fd, data)


class Asyncio(AsyncioDriver):
    """The loop of the standard library."""

    module = "asyncio"


class Uvloop(AsyncioDriver):
    """The loop on libuv."""

    module = "uvloop"


class Rloop(AsyncioDriver):
    """The loop on Rust's mio."""

    module = "rloop"
