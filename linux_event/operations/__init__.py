"""The kinds of operations, one file each. Importing them gives every loop their methods."""

from linux_event import chain
from linux_event.operations import files, messages, sockets

__all__ = ["chain", "files", "messages", "sockets"]
