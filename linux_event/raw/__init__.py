"""The raw requests of a ``Ring``, a file for each family. Importing them gives every ring their methods."""

from linux_event.raw import control, data, paths, registered, sockets, waits

__all__ = ["control", "data", "paths", "registered", "sockets", "waits"]
