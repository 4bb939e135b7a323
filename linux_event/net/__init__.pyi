from . import connect as connect
from . import datagram as datagram
from . import listener as listener
from . import process as process
from . import resolve as resolve
from . import stream as stream

__all__ = ["connect", "datagram", "listener", "process", "resolve", "stream"]
