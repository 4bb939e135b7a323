"""An event loop for Linux on io_uring: sockets, pipes, timers, signals and idle work in one loop, in C.

    from linux_event import Loop

    with Loop() as loop:
        loop.timer(1.5, lambda timer: print("one and a half seconds later"))
        loop.run()

See README.md for what it can do, and ``help(linux_event.Loop)`` for the reference.
"""

from linux_event import net as net
from linux_event import operations as operations
from linux_event import raw as raw
from linux_event.errors import DestroyedError, LoopClosedError, UringUnavailableError, WrongThreadError
from linux_event.events import Events
from linux_event.loop import Loop
from linux_event.net.datagram import Datagram
from linux_event.net.listener import Listener
from linux_event.net.process import Process
from linux_event.net.stream import Stream
from linux_event.operation import Operation
from linux_event.pool import BufferPool
from linux_event.statistics import Statistics
from linux_event.uring import Ring
from linux_event.watcher import Watcher
from linux_event.watchers.child import Child
from linux_event.watchers.idle import Idle
from linux_event.watchers.io import IOWatcher
from linux_event.watchers.mount import MountWatcher
from linux_event.watchers.path import PathWatcher
from linux_event.watchers.signal import Signal
from linux_event.watchers.timer import Periodic, Timer
from linux_event.watchers.wakeup import Wakeup

__all__ = [
    "BufferPool",
    "Child",
    "Datagram",
    "DestroyedError",
    "Events",
    "IOWatcher",
    "Idle",
    "Listener",
    "Loop",
    "LoopClosedError",
    "MountWatcher",
    "Operation",
    "PathWatcher",
    "Periodic",
    "Process",
    "Ring",
    "Signal",
    "Statistics",
    "Stream",
    "Timer",
    "UringUnavailableError",
    "Wakeup",
    "Watcher",
    "WrongThreadError",
    "__version__",
    "get_include",
]

__version__ = "0.1.0"


def get_include():
    """The folder of the C headers, for extensions that define watchers of their own: the ``include_dirs`` of their build."""
    from os.path import dirname, join

    return join(dirname(__file__), "include")
