from .. import chain as chain
from . import files as files
from . import read_file as read_file
from . import write_file as write_file

__all__ = ["chain", "files", "read_file", "write_file"]
