from . import listener as listener
from . import resolve as resolve
from . import stream as stream

__all__ = ["listener", "resolve", "stream"]
