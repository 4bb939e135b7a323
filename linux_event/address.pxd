# address.pxd: socket addresses, from Python to the kernel and back.

from linux_event.linux cimport sockaddr_storage

# Fill `storage` with what the address means to a socket of the family. Returns its length in bytes.
cdef int address_to_sockaddr(object address, int family, sockaddr_storage *storage) except -1
# What the kernel has put into `storage`; length 0: None.
cdef object address_from_sockaddr(const sockaddr_storage *storage, unsigned length)
# The family of a socket. Raises OSError (ENOTSOCK) where it is none.
cdef int socket_family(object sock, int fd) except -1
# Whether it is a Unix socket that keeps the bounds of packets: see le_retry.h.
cdef bint socket_is_unix_packet(object sock, int fd) except -1
# Whether it is a socket.socket. Imports the module socket at the first call.
cdef bint is_socket_object(object sock) except -1
# The socket.socket of an accepted fd, which it owns; `listening` is what has accepted it, or its fd. Where it raises, the fd
# is open, and still the caller's.
cdef object socket_of_fd(int fd, object listening)
