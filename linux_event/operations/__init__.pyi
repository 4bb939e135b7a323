from .. import chain as chain
from . import files as files
from . import many as many
from . import read_file as read_file
from . import write_file as write_file

__all__ = ["chain", "files", "many", "read_file", "write_file"]
