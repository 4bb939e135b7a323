"""Questions for the addresses of a name, and the form of the answers: that of socket.getaddrinfo."""

import socket
from _socket import (
    AF_INET,
    AF_UNSPEC,
    AI_NUMERICHOST,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    gaierror,
    getaddrinfo,
)
from typing import NamedTuple

__all__ = ["Question", "addresses_of", "as_enums", "gaierror", "getaddrinfo", "of_all_types", "of_ipv4"]

FAMILIES = {int(family): family for family in socket.AddressFamily}
TYPES = {int(kind): kind for kind in socket.SocketKind}
# As libc gives them for a port that is a number, in its order.
ALL_TYPES = tuple(
    (TYPES[kind], proto) for kind, proto in ((SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP), (SOCK_RAW, 0))
)

# By the type asked for.
ENTRIES = {0: ALL_TYPES, **{int(entry[0]): (entry,) for entry in ALL_TYPES}}
IPV4 = FAMILIES[AF_INET]


class Question(NamedTuple):
    """What getaddrinfo takes. host: as the user gave it; name: the same as bytes."""

    host: str | bytes
    name: bytes
    port: int | bytes | None
    family: int
    type: int
    proto: int
    flags: int


def as_enums(found):
    """What _socket.getaddrinfo has found, as socket.getaddrinfo gives it."""
    return [(FAMILIES.get(family, family), TYPES.get(kind, kind), *rest) for family, kind, *rest in found]


def of_all_types(entry):
    """The entries of all types for an address of which there is one."""
    family, _, _, name, address = entry
    family = FAMILIES[family]
    return [(family, kind, proto, name, address) for kind, proto in ALL_TYPES]


def of_ipv4(host, port, kind):
    """The entries for an address of IPv4, a str, and a port, an int: of the type given, or of all."""
    address = (host, port)
    return [(IPV4, *entry, "", address) for entry in ENTRIES[kind]]


def addresses_of(question, hosts):
    """The entries for addresses in numbers, bytes each, that are those of the name asked for."""
    _, _, port, _, kind, proto, flags = question
    found = []
    for host in hosts:
        if kind == 0 and proto == 0 and type(port) is int:
            found += of_all_types(*getaddrinfo(host, port, AF_UNSPEC, SOCK_STREAM, 0, flags | AI_NUMERICHOST))
        else:
            found += as_enums(getaddrinfo(host, port, AF_UNSPEC, kind, proto, flags | AI_NUMERICHOST))
    return found
