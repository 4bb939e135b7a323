"""The kinds of operations, one file each. Importing them gives every loop their methods."""

from linux_event import chain
from linux_event.operations import copies, files, many, messages, moving, paths, read_file, sockets, write_file

__all__ = ["chain", "copies", "files", "many", "messages", "moving", "paths", "read_file", "sockets", "write_file"]
