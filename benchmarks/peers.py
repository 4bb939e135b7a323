"""The loops that are compared, and the libraries that read and write files, or watch them."""

import importlib
import importlib.metadata
import platform
from dataclasses import dataclass

from .drivers import Driver

OURS = "linux_event"


@dataclass(frozen=True)
class Peer:
    """One loop, or library.

    Attributes:
        name: what it is called in tables and on the command line.
        driver: module and class of its driver, ``"module:Class"``.
        distribution: the name on PyPI; None for what comes with Python.
        statement: the import statement that a program using it begins with.
    """

    name: str
    driver: str
    distribution: str | None = None
    statement: str = ""

    def driver_class(self) -> type[Driver]:
        """Import and return the driver class; ImportError if the loop is missing."""
        module, _, name = self.driver.partition(":")
        return getattr(importlib.import_module(f"{__package__}.drivers.{module}"), name)

    def version(self) -> str:
        """Return distribution and version, after proof that the loop works.

        Raises ImportError if the loop is not installed, OSError if the kernel
        refuses it.
        """
        self.driver_class()().close()
        if self.name == OURS:
            # Built in place it is not installed, and no metadata tell its version.
            return f"{OURS} {importlib.import_module(OURS).__version__}"
        if self.distribution is None:
            return f"Python {platform.python_version()}"
        return f"{self.distribution} {importlib.metadata.version(self.distribution)}"


FLOOR = Peer("no loop", "floor:Floor")

# Servers in C, which `benchmarks.servers` starts, and Redis.
C_URING, C_EPOLL, REDIS = "C liburing", "C epoll", "redis-server"
# What no loop for Python can be measured by: the work without a loop, or without Python.
FLOORS = frozenset((FLOOR.name, C_URING, C_EPOLL, REDIS))

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "linux_event_loop:LinuxEvent", None, "import linux_event"),
        Peer("asyncio", "asyncio_loops:Asyncio", None, "import asyncio"),
        Peer("uvloop", "asyncio_loops:Uvloop", "uvloop", "import uvloop"),
        Peer("rloop", "asyncio_loops:Rloop", "rloop", "import rloop"),
        Peer("libev", "libev_loop:Libev", "gevent", "from gevent.libev.corecext import loop"),
        Peer("blocking Python", "files:Blocking"),
        Peer("aiofiles", "files:Aiofiles", "aiofiles"),
        Peer("anyio", "files:Anyio", "anyio"),
        Peer("caio", "files:Caio", "caio"),
        Peer("watchfiles", "trees:Watchfiles", "watchfiles"),
        Peer("watchdog", "trees:Watchdog", "watchdog"),
        FLOOR,
    )
}
