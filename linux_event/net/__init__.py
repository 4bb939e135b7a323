"""Names, streams and what makes these, above operations. Importing it gives every loop its methods."""

from linux_event.net import datagram, listener, resolve, stream

__all__ = ["datagram", "listener", "resolve", "stream"]
