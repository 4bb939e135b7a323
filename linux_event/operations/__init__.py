"""The kinds of operations, one file each. Importing them gives every loop their methods."""

from linux_event import chain
from linux_event.operations import files, many, read_file, write_file

__all__ = ["chain", "files", "many", "read_file", "write_file"]
