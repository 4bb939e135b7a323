"""Datagram sockets of a loop under test, and plain sockets that they talk to."""

import contextlib
import socket

from _support import run_until

FAMILIES = ("ipv4", "ipv6", "unix", "abstract")


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        return True
    return False


HAS_IPV6 = has_ipv6()


def address_of(family, folder, name):
    """An address to bind to."""
    return {
        "ipv4": ("127.0.0.1", 0),
        "ipv6": ("::1", 0),
        "unix": str(folder / name),
        "abstract": b"\0linux_event datagrams " + str(folder / name).encode(),
    }[family]


def socket_of(family):
    kind = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(family, socket.AF_UNIX)
    sock = socket.socket(kind, socket.SOCK_DGRAM)
    sock.settimeout(10)
    return sock


class Heard:
    """Assigns the callbacks of a datagram socket, and keeps what they are called with, in order."""

    def __init__(self, datagram):
        self.datagram = datagram
        self.got = []  # data and address
        self.errors = []
        self.ends = []
        self.calls = []
        datagram.on_datagram = self.on_datagram
        datagram.on_error = self.on_error
        datagram.on_drain = self.on_drain
        datagram.on_close = self.on_close

    def note(self, name, datagram):
        assert datagram is self.datagram
        assert not self.ends, f"{name} after on_close"
        self.calls.append(name)

    def on_datagram(self, datagram, data, address):
        self.note("datagram", datagram)
        assert type(data) is bytes
        self.got.append((data, address))

    def on_error(self, datagram, error):
        self.note("error", datagram)
        assert isinstance(error, OSError)
        self.errors.append(error)

    def on_drain(self, datagram):
        self.note("drain", datagram)

    def on_close(self, datagram, error):
        self.note("close", datagram)
        assert datagram.is_closed()
        assert datagram.is_closing()
        assert datagram.fileno() == -1
        self.ends.append(error)

    @property
    def data(self):
        return [data for data, _ in self.got]

    def wait_for(self, count):
        run_until(self.datagram.loop, lambda: len(self.got) >= count)
        assert len(self.got) == count


def end(loop, *datagrams):
    """Close them, and wait for it."""
    for datagram in datagrams:
        datagram.abort()
    run_until(loop, lambda: all(datagram.is_closed() for datagram in datagrams))
