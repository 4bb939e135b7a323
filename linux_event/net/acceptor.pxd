# acceptor.pxd: what a listener does, as Listener sees it.

from libc.stdint cimport int32_t, int64_t, uint32_t
from linux_event.core cimport le_many, le_operation
from linux_event.engine cimport Engine
from linux_event.net.binding cimport Binding

cdef struct acceptor_state:
    le_many many
    int32_t fd          # -1: closed
    uint32_t limit      # connections at a time; 0: any number
    uint32_t taken      # connections that were accepted and are not over
    uint32_t greeted    # those of `taken` that are in their TLS handshake
    uint32_t waiting    # while it is draining: how many more may be taken from the queue of the socket
    int64_t closes_ns   # while it is draining: when the socket is closed at the earliest
    bint owns_fd
    bint is_paused
    bint is_closing
    bint is_draining    # it is closed when all that was accepted is handed over
    bint takes_queue    # and what waits in the queue of the socket
    bint is_short       # fds are short, and that was told
    bint is_timed       # an entry was put into the heap of deadlines: if it is there no more, its time has come

cdef class Acceptor:
    cdef le_operation core  # has to be the first field
    cdef acceptor_state io
    cdef Engine owner
    cdef object function, close_function  # on_connect, on_close
    cdef object context     # the SSLContext, or None
    cdef int64_t handshake_ns  # how long a handshake may take; 0: as long as it takes
    cdef object data_value
    cdef Binding place
    cdef object failure     # what on_close gets
    cdef object sock        # the socket.socket of `socket`, or None
    cdef list parked        # fds that were accepted before a pause, or None
    cdef uint32_t connection_count
    cdef object __weakref__

# Make it accept from what `place` has, which it takes over; limit 0: none. acceptor_start() begins, and enters it.
cdef int acceptor_init(Acceptor self, Engine loop, Binding place, uint32_t limit) except -1
cdef int acceptor_start(Acceptor self) except -1
cdef bint acceptor_is_entered(Acceptor self) noexcept
cdef int acceptor_pause(Acceptor self) except -1
cdef int acceptor_resume(Acceptor self) except -1
cdef int acceptor_drain(Acceptor self, bint takes_queue) except -1
cdef int acceptor_close(Acceptor self) except -1
