# transport.pxd: what a stream does, as those that make streams and those that stand between them and their users see it.

from libc.stdint cimport int64_t, uint64_t
from linux_event.core cimport le_operation
from linux_event.engine cimport Engine
from linux_event.net.native cimport le_stream

cdef class Transport
ctypedef int (*lost_function)(object listener) except -1

# Stands between the socket of a stream and its user: TLS. By itself it changes nothing. Assigned to Transport.filter.
cdef class Filter:
    cdef uint64_t queued  # bytes that write() has taken and that were not given to stream_send() yet
    # Bytes have come. It calls stream_hand() while stream_wants(), and keeps the rest for resumed(), after a pause.
    cdef int received(self, Transport stream, bytes data) except -1
    cdef int resumed(self, Transport stream) except -1
    cdef int ended(self, Transport stream) except -1  # the socket has told the end of the data: stream_hand_eof() or stream_end()
    cdef bint write(self, Transport stream, object data) except -1  # of the user: stream_send(), and what that says
    cdef int write_end(self, Transport stream) except -1  # write_eof() of the user
    cdef bint closing(self, Transport stream) except -1  # close() of the user: last words. True: later, by stream_close()
    cdef int gathered(self, Transport stream) except -1  # from dispatch, after LE_STREAM_GATHERED was set
    cdef int expired(self, Transport stream) except -1  # it is deadline_ns
    cdef int lost(self, Transport stream, object error) except -1  # the stream is over, right before on_close

cdef class Transport:
    cdef le_operation core  # has to be the first field
    cdef le_stream io
    cdef Engine owner
    cdef object data_function, eof_function, drain_function, close_function, data_value  # on_data, ..., data
    cdef Filter filter       # or None
    cdef object listener     # the Listener that has accepted it, or None
    cdef lost_function lost  # tells it of the end
    cdef list parked         # bytes that have come and wait for the end of a pause, or None
    cdef int64_t deadline_ns  # of the filter; 0: none
    cdef object sock, peer, local  # the socket.socket of `socket` and the addresses of the two ends, once asked for
    cdef object failure, kept  # what on_close gets; whatever has to live as long as the stream
    cdef object __weakref__
    cdef bint is_paused      # pause_reading() was called
    cdef bint must_read      # by the filter: it needs data whatever the user says, as in a handshake
    cdef bint closes_later   # the filter was not ready for close()
    cdef bint is_timed       # an entry was put into the heap of deadlines: if it is there no more, its time has come
# End it: what is queued is dropped, and on_close gets `error`. stream_fail() takes an errno. stream_close() is close().
cdef int stream_end(Transport self, object error) except -1
cdef int stream_fail(Transport self, int number) except -1
cdef int stream_close(Transport self) except -1
# Past the filter: what the user has asked for, and what is handed over; stream_wants(): something may be.
cdef bint stream_send(Transport self, object data) except -1
cdef int stream_send_end(Transport self) except -1
cdef int stream_hand(Transport self, bytes data) except -1
cdef int stream_hand_eof(Transport self) except -1
cdef bint stream_wants(Transport self) noexcept
cdef int stream_set_timer(Transport self, int64_t at_ns) except -1  # at that time at the latest: see deadline_ns, io.idle_ns
cdef int stream_learn_peer(Transport self) except -1
cdef bint stream_is_finished(Transport self) noexcept
cdef int stream_changed(Transport self) except -1  # loop_changed(), where that could have anything to do
cdef int stream_hand_over(Transport self, object data) except -1
cdef int stream_drop_spent(Transport self) except -1
cdef int stream_shut(Transport self) except -1
cdef bint stream_tick(Transport self) except -1
cdef int stream_finish(Transport self) except -1
