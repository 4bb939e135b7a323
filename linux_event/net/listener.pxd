# listener.pxd: listeners, as those that stand between them and their users see them.

from libc.stdint cimport int32_t, int64_t, uint32_t
from linux_event.core cimport le_many, le_operation
from linux_event.engine cimport Engine
from linux_event.net.binding cimport Binding
from linux_event.net.stream cimport Stream

cdef struct listener_state:
    le_many many
    int32_t fd          # -1: closed
    uint32_t limit      # connections at a time; 0: any number
    uint32_t taken      # connections that were accepted and are not over
    bint owns_fd
    bint is_paused
    bint is_closing
    bint is_short       # fds are short, and that was told
    bint is_timed       # an entry was put into the heap of deadlines: if it is there no more, its time has come

cdef class Listener:
    cdef le_operation core  # has to be the first field
    cdef listener_state io
    cdef Engine owner
    cdef object function    # on_connect
    cdef object context     # the SSLContext, or None
    cdef int64_t handshake_ns  # how long a handshake may take; 0: as long as it takes
    cdef object data_value
    cdef Binding place
    cdef object sock        # the socket.socket of `socket`, or None
    cdef list parked        # fds that were accepted before a pause, or None
    cdef uint32_t connection_count
    cdef object __weakref__

# A connection is there: hand it over, and let it receive. Where TLS comes first, when that is through.
cdef int listener_connected(Listener self, Stream stream) except -1
