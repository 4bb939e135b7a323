from .. import chain as chain
from . import copies as copies
from . import files as files
from . import many as many
from . import moving as moving
from . import paths as paths
from . import read_file as read_file
from . import write_file as write_file

__all__ = ["chain", "copies", "files", "many", "moving", "paths", "read_file", "write_file"]
