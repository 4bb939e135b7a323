# peer.pxd: addresses that datagrams come from and go to.

from libc.stdint cimport uint32_t
from linux_event.linux cimport sockaddr_storage, socklen_t

# An address as the kernel has it, and as the user does. Never changed.
cdef class Peer:
    cdef sockaddr_storage storage
    cdef socklen_t length
    cdef object address  # None: see peer_address()

# How much room an address of the family needs.
cdef uint32_t peer_name_room(int family) noexcept
# Whom the socket is connected to, or None.
cdef Peer peer_of_socket(int fd)
# Of what the user has written. `address` is kept only if it says the same for ever, and nobody hears when it is let go of.
cdef Peer peer_of_address(object address, int family)
# Of what the kernel has told.
cdef Peer peer_of_name(const char *name, socklen_t length)
# The address for a message, as the socket module would write it.
cdef object peer_address(Peer peer)
