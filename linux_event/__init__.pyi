from .errors import DestroyedError, LoopClosedError, UringUnavailableError, WrongThreadError
from .events import Events
from .loop import Loop
from .net.datagram import Datagram
from .net.listener import Listener
from .net.process import Process
from .net.stream import Stream
from .operation import Operation
from .pool import BufferPool
from .statistics import Statistics
from .uring import Ring
from .watcher import Watcher
from .watchers.child import Child
from .watchers.idle import Idle
from .watchers.io import IOWatcher
from .watchers.mount import MountWatcher
from .watchers.path import PathWatcher
from .watchers.signal import Signal
from .watchers.timer import Periodic, Timer
from .watchers.wakeup import Wakeup

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

__version__: str

def get_include() -> str: ...
