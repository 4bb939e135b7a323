# endpoint.pxd: what a datagram socket does, as Datagram sees it.

from linux_event.core cimport le_operation
from linux_event.engine cimport Engine
from linux_event.net.binding cimport Binding
from linux_event.net.packets cimport le_datagram
from linux_event.net.peer cimport Peer
from linux_event.pool cimport BufferPool

cdef class Endpoint:
    cdef le_operation core  # has to be the first field
    cdef le_datagram io
    cdef Engine owner
    cdef object datagram_function, error_function, drain_function, close_function  # on_datagram, ...
    cdef object data_value
    cdef Binding place
    cdef BufferPool buffers  # keeps io.many.pool alive
    cdef Peer received       # who has sent what came last, or None
    cdef Peer sent           # whom the user has sent to last, or None
    cdef Peer remote         # of a connected one, or None
    cdef list parked         # pairs that have come and wait for the end of a pause, or None
    cdef object failure      # what on_close gets
    cdef object sock         # the socket.socket of `socket`, or None
    cdef object __weakref__
    cdef bint is_paused      # pause_reading() was called

# Make it a datagram socket of what `place` has, which it takes over, and enter it into the loop.
cdef int endpoint_init(Endpoint self, Engine loop, Binding place) except -1
# What send() of the user has to be: its bytes, and its address, None where the socket is connected to that one.
cdef bytes endpoint_bytes(object data)
cdef Peer endpoint_receiver(Endpoint self, object address)
cdef int endpoint_refuse(Endpoint self) except -1  # raise that the queue is full
cdef int endpoint_reading_changed(Endpoint self) except -1  # is_paused or datagram_function have changed
cdef int endpoint_close(Endpoint self) except -1
cdef int endpoint_end(Endpoint self, object error) except -1  # what is queued is dropped; on_close gets `error`
cdef int endpoint_changed(Endpoint self) except -1  # loop_changed(), where that could have anything to do
cdef bint endpoint_is_finished(Endpoint self) noexcept
