# binding.pxd: sockets with an address.

from libc.stdint cimport uint64_t

cdef class Binding:
    cdef int fd           # whoever takes it sets this to -1
    cdef bint owns_fd     # it was made here
    cdef object kept      # the socket that was given, or None
    cdef object local     # the address that it has
    cdef bytes path       # of a Unix socket, to be removed; or None
    cdef uint64_t path_inode
    cdef uint64_t path_device
    cdef int process      # that has bound it
    cdef int kind         # SOCK_STREAM, SOCK_DGRAM
    cdef int family       # of a datagram socket

# Make a listening socket of an address, or take one that is given. `backlog` and `address` are the user's.
cdef Binding binding_new(object address, object backlog, bint reuse_port)
# Make a datagram socket of the addresses that the user has written, or take one that is given as `local`.
cdef Binding binding_of_datagrams(object local, object remote, bint reuse_port, bint broadcast)
# Remove the file of a Unix socket, if it is still this one, and this process has made it.
cdef int binding_remove_path(Binding self) except -1
