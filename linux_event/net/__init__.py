"""Names and the network, above operations. Importing it gives every loop its methods."""

from linux_event.net import resolve

__all__ = ["resolve"]
