from .. import chain as chain
from . import files as files
from . import messages as messages
from . import sockets as sockets

__all__ = ["chain", "files", "messages", "sockets"]
