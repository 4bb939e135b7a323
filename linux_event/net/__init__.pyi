from . import datagram as datagram
from . import listener as listener
from . import resolve as resolve
from . import stream as stream

__all__ = ["datagram", "listener", "resolve", "stream"]
