from . import control as control
from . import data as data
from . import paths as paths
from . import registered as registered
from . import sockets as sockets
from . import waits as waits

__all__ = ["control", "data", "paths", "registered", "sockets", "waits"]
