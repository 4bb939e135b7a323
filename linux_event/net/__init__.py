"""Names, streams and what makes these, above operations. Importing it gives every loop its methods."""

from linux_event.net import connect, datagram, listener, process, resolve, stream

__all__ = ["connect", "datagram", "listener", "process", "resolve", "stream"]
