from .. import chain as chain
from . import copies as copies
from . import files as files
from . import many as many
from . import messages as messages
from . import moving as moving
from . import paths as paths
from . import read_file as read_file
from . import sockets as sockets
from . import write_file as write_file

__all__ = ["chain", "copies", "files", "many", "messages", "moving", "paths", "read_file", "sockets", "write_file"]
