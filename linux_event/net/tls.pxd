# tls.pxd: TLS on a stream, as those that make streams see it.

from libc.stdint cimport int64_t
from linux_event.net.transport cimport Filter, Transport

# The handshake is done, error None; or it has failed, and the stream is over: called right before its on_close, which gets the
# same error. Where the stream was closed or aborted meanwhile `error` is a CancelledError. Called once, never by tls_begin().
ctypedef int (*tls_function)(object owner, Transport stream, object error) except -1

cdef class Tls(Filter):
    cdef object ssl_object            # the ssl.SSLObject
    cdef object incoming, outgoing    # its ssl.MemoryBIOs
    cdef object feed, fetch, handshake, reader, writer, shut  # methods of these
    cdef object gathered_one          # what write() has taken: bytes or a memoryview; None: nothing
    cdef list gathered_more           # and what else
    cdef bytes kept                   # decrypted, and not handed over yet; or None
    cdef object failure               # what ends the stream when `kept` was handed over
    cdef tls_function function
    cdef object owner
    cdef double timeout
    cdef Py_ssize_t fed               # bytes that have come and were not looked at yet
    cdef int lingered                 # how often it was looked whether the other end has got everything
    cdef bint is_open                 # the handshake is done
    cdef bint is_inside               # the user is being called: what is written is sent when that has returned
    cdef bint is_blocked              # to write it needs data from the other end, as in a renegotiation
    cdef bint end_wanted, end_sent    # write_eof() was called; nothing more is sent, close_notify was the last
    cdef bint has_ended, has_told     # close_notify has come; the user knows

# Begin TLS on a stream that has no filter, is open in both directions and has not told the end of its data. `context` is an
# ssl.SSLContext and `server_hostname` a str or None: ssl raises for what it refuses. `timeout_ns`: for the handshake; 0: none.
# For a new stream call stream_begin() next. Where this raises the stream is as it was.
cdef int tls_begin(
    Transport stream, object context, bint server_side, object server_hostname, int64_t timeout_ns, tls_function function,
    object owner,
) except -1
# Check the arguments of tls_begin() before there is a stream: raises as it does.
cdef int tls_check(object context, bint server_side, object server_hostname) except -1
# The keyword handshake_timeout: seconds, or None. In nanoseconds; 0: none.
cdef int64_t tls_timeout(object timeout) except -1
