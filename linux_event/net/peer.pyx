"""Peers: addresses that datagrams come from and go to, kept in both forms, since most come again."""

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcpy
from linux_event.address cimport address_from_sockaddr, address_to_sockaddr
from linux_event.linux cimport (
    AF_INET, AF_INET6, AF_UNIX, getpeername, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t,
)


@cython.final
@cython.freelist(32)
@cython.no_gc  # what is in it refers to nothing else: a str, bytes, or a tuple of these and ints
cdef class Peer:
    """An address. Cannot be used from Python."""


cdef uint32_t peer_name_room(int family) noexcept:
    if family == AF_INET:
        return sizeof(sockaddr_in)
    if family == AF_INET6:
        return sizeof(sockaddr_in6)
    return sizeof(sockaddr_un) if family == AF_UNIX else sizeof(sockaddr_storage)


cdef Peer peer_of_socket(int fd):
    cdef Peer peer = Peer.__new__(Peer)
    peer.length = sizeof(peer.storage)
    if getpeername(fd, <sockaddr *>&peer.storage, &peer.length) < 0:
        return None
    peer.address = address_from_sockaddr(&peer.storage, peer.length)
    return peer


cdef Peer peer_of_name(const char *name, socklen_t length):
    cdef Peer peer = Peer.__new__(Peer)
    memcpy(&peer.storage, name, length)
    peer.length = length
    peer.address = address_from_sockaddr(&peer.storage, length)
    return peer


cdef Peer peer_of_address(object address, int family):
    cdef Peer peer = Peer.__new__(Peer)
    try:
        peer.length = <socklen_t>address_to_sockaddr(address, family, &peer.storage)
    except ValueError as error:
        if "host of" in str(error):
            raise ValueError(f"{error}, with loop.resolve()") from None
        raise
    if is_plain(address):
        peer.address = address
    return peer


cdef bint is_plain(object address) except -1:
    if type(address) is not tuple:
        return type(address) is str or type(address) is bytes
    for item in <tuple>address:
        if type(item) is not str and type(item) is not bytes and type(item) is not int:
            return False
    return True


cdef object peer_address(Peer peer):
    return peer.address if peer.address is not None else address_from_sockaddr(&peer.storage, peer.length)
