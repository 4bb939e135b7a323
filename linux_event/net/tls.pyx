"""TLS: a filter of streams, on an ``ssl.SSLObject`` between two memory BIOs.

What is written within a callback is gathered and encrypted at once when that has returned; what is written elsewhere, when the
stream is dispatched next, in the same iteration. What has come is decrypted as far as it goes, and makes one call.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.errno cimport ETIMEDOUT
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from linux_event.arguments cimport seconds_to_ns
from linux_event.core cimport LE_NS_NEVER, le_clock_after, le_clock_ns, le_heap_remove
from linux_event.net.native cimport (
    LE_COPY_MAX, LE_STREAM_ABOVE, LE_STREAM_BROKEN, LE_STREAM_CLOSING, LE_STREAM_ENDING, LE_STREAM_EOF_WANTED,
    LE_STREAM_EOF, LE_STREAM_GATHERED, LE_STREAM_SHUT, le_stream, le_stream_collect, le_stream_is_sending, le_stream_try,
    le_stream_unsent,
)
from linux_event.net.receiving cimport stream_reading_changed
from linux_event.net.transport cimport (
    Filter, Transport, stream_changed, stream_end, stream_fail, stream_hand, stream_hand_eof, stream_learn_peer, stream_send,
    stream_send_end, stream_set_timer, stream_wants,
)
from linux_event.requests cimport loop_guard

cdef extern from *:
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    RECORD_MAX = 16 << 10  # bytes of the user's in a record
    # Decrypted at a time: it stays in the cache, and the allocator has such pieces at hand, bigger ones it gives back to the
    # kernel.
    ROOM = 64 << 10
    ENCRYPT_MAX = 64 << 10  # at a time: it stays in the cache on its way
    # Writes of this size on are encrypted and tried at once.
    TRY_MIN = 16 << 10
    # When to look whether the other end has got everything: after that time, doubled each time, up to the second one.
    LINGER_MIN_NS = 2_000_000
    LINGER_MAX_NS = 1_000_000_000
    LINGER_TIMES = 40

# Of ssl, which is imported when it is needed first.
cdef object SSLContext = None
cdef object SSLObject, MemoryBIO, SSLWantReadError, SSLZeroReturnError
cdef object room_size = ROOM


cdef int load() except -1:
    global SSLContext, SSLObject, MemoryBIO, SSLWantReadError, SSLZeroReturnError
    if SSLContext is None:
        import ssl
        SSLObject, MemoryBIO = ssl.SSLObject, ssl.MemoryBIO
        SSLWantReadError, SSLZeroReturnError = ssl.SSLWantReadError, ssl.SSLZeroReturnError
        SSLContext = ssl.SSLContext
    return 0


@cython.final
cdef class _Window:
    """Shows some memory as a buffer to ssl, which is done with it when it returns."""
    cdef char *memory  # that it owns, or NULL
    cdef char *at
    cdef Py_ssize_t size
    cdef bint is_readonly
    cdef object owner  # of memory that is not its own

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.at, self.size, self.is_readonly, flags)

    def __dealloc__(self):
        free(self.memory)


# Room to decrypt into, that stays hot. ssl lets go of the GIL, so other loops may need one meanwhile.
cdef _Window spare = None


cdef _Window take_window():
    global spare
    cdef _Window window = spare
    spare = None
    if window is None:
        window = _Window.__new__(_Window)
        window.memory = <char *>malloc(ROOM)
        if window.memory == NULL:
            raise MemoryError
    return window


cdef int give_window(_Window window) except -1:
    global spare
    spare = window
    return 0


@cython.final
cdef class Tls(Filter):
    """TLS on a stream. Cannot be used from Python."""

    # -- What the socket brings --------------------------------------------------------------------------------------

    cdef int received(self, Transport stream, bytes data) except -1:
        if self.has_ended or self.failure is not None:
            return 0  # behind the end
        try:
            self.feed(data)
        except MemoryError as error:
            fail(self, stream, error)
        self.fed += PyBytes_GET_SIZE(data)
        if stream.io.many.results.first and self.fed < ENCRYPT_MAX:
            return 0  # more has come already, perhaps the rest of a record
        self.fed = 0
        return advance(self, stream)

    cdef int resumed(self, Transport stream) except -1:
        return advance(self, stream)

    cdef int ended(self, Transport stream) except -1:
        if not self.has_ended:
            self.incoming.write_eof()  # reading tells that this is no end
        return advance(self, stream)

    # -- What the user does ------------------------------------------------------------------------------------------

    cdef bint write(self, Transport stream, object data) except -1:
        cdef le_stream *io = &stream.io
        cdef Py_buffer view
        cdef Py_ssize_t size
        if unlikely(self.end_wanted or stream.closes_later):
            if stream.closes_later or io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING):
                return False
            raise RuntimeError(f"{stream!r}: write() after write_eof()")
        if unlikely(io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING | LE_STREAM_BROKEN)):
            return stream_send(stream, data)  # which refuses
        loop_guard(stream.owner)
        if PyBytes_CheckExact(data):
            size = PyBytes_GET_SIZE(data)
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            size = view.len
            try:
                if size <= LE_COPY_MAX:
                    data = PyBytes_FromStringAndSize(<char *>view.buf, size)
            finally:
                PyBuffer_Release(&view)
            if size > LE_COPY_MAX:
                data = memoryview(data).cast("B")
        if not size:
            return io.queued + self.queued <= io.high
        if self.gathered_one is None:
            self.gathered_one = data
        else:
            if self.gathered_more is None:
                self.gathered_more = []
            self.gathered_more.append(data)
        self.queued += size
        if size >= TRY_MIN and self.is_open:
            flush(self, stream)
            if io.flags & LE_STREAM_ENDING:
                return False
        elif not self.is_inside:
            call_again(stream)
        if unlikely(io.queued + self.queued > io.high):
            io.flags |= LE_STREAM_ABOVE
            return False
        return not io.flags & LE_STREAM_BROKEN

    cdef int write_end(self, Transport stream) except -1:
        if self.end_wanted:
            return 0
        self.end_wanted = True
        if self.is_open:
            finish_writing(self, stream)
        return 0

    cdef bint closing(self, Transport stream) except -1:
        flush(self, stream)
        if stream.io.flags & (LE_STREAM_BROKEN | LE_STREAM_ENDING):
            return False
        if not self.is_open and not self.queued:
            return False
        stream.closes_later = True
        return not farewell(self, stream)

    # -- Dispatch ----------------------------------------------------------------------------------------------------

    cdef int gathered(self, Transport stream) except -1:
        if not self.is_open:
            return 0
        flush(self, stream)
        return pump(self, stream)

    cdef int expired(self, Transport stream) except -1:
        if self.is_open:
            return settle(self, stream, False)
        try:
            text = f"the TLS handshake was not done within {self.timeout:g} seconds"
            error = TimeoutError(ETIMEDOUT, text, stream.io.fd)
        except MemoryError as failure:
            error = failure
        return fail(self, stream, error)

    cdef int lost(self, Transport stream, object error) except -1:
        function, owner = self.function, self.owner
        self.function = NULL
        self.owner = self.gathered_one = self.gathered_more = self.kept = self.failure = None
        self.queued = 0
        if function != NULL:
            if error is None:
                try:
                    from linux_event.cancellation import CancelledError
                    error = CancelledError("the stream was closed in the TLS handshake")
                except MemoryError as failure:
                    error = failure
            function(owner, stream, error)
        return 0


cdef int call_again(Transport stream) except -1:
    """Have gathered() called in this iteration."""
    stream.io.flags |= LE_STREAM_GATHERED
    le_stream_collect(&stream.io)
    return stream_changed(stream)


cdef bint is_over(Transport stream) noexcept:
    return stream.io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING) != 0


# -- The handshake -----------------------------------------------------------------------------------------------------

cdef int advance(Tls self, Transport stream) except -1:
    if unlikely(stream.io.flags & LE_STREAM_ENDING):
        return 0
    if unlikely(not self.is_open):
        shake(self, stream)
        return 0
    return pump(self, stream)


cdef int shake(Tls self, Transport stream) except -1:
    cdef bint is_done = False
    try:
        self.handshake()
        is_done = True
    except SSLWantReadError:
        pass
    except Exception as error:
        fail(self, stream, error)
    if not is_done:
        return 0 if is_over(stream) else send_out(self, stream)
    if stream.io.flags & LE_STREAM_ENDING:  # by a callback of the context
        return 0
    send_out(self, stream)
    if stream.io.flags & LE_STREAM_ENDING:
        return 0
    self.is_open = True
    stream.deadline_ns = 0
    le_heap_remove(&stream.owner.core.heap, &stream.core.head)
    stream.is_timed = False
    if stream.io.idle_ns:
        stream_set_timer(stream, LE_NS_NEVER)
    call_again(stream)  # what has come with it, and what was written before
    function, owner = self.function, self.owner
    self.function, self.owner = NULL, None
    function(owner, stream, None)
    return 0


cdef int fail(Tls self, Transport stream, object error) except -1:
    """It is over; the other end is told why, if that goes without waiting."""
    cdef le_stream *io = &stream.io
    if self.function != NULL and stream.peer is None:
        try:
            stream_learn_peer(stream)
        except MemoryError:
            pass
    send_last(self, stream, error)
    if io.queued and not io.flags & (LE_STREAM_BROKEN | LE_STREAM_ENDING) and not le_stream_is_sending(io):
        le_stream_try(io)
    return stream_end(stream, error)


# -- Receiving ---------------------------------------------------------------------------------------------------------

cdef bytes decrypt(Tls self):
    """What has come, as far as it goes, or None. Notes the end, and what has gone wrong."""
    cdef _Window window = None
    cdef bytes data = None
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t count
    if self.has_ended or self.failure is not None:
        return None
    try:
        window = take_window()
    except MemoryError as error:
        self.failure = error
    if window is None:
        return None
    try:
        while ROOM - used >= RECORD_MAX:
            window.at, window.size = window.memory + used, ROOM - used
            count = self.reader(room_size, window)
            if unlikely(not 0 <= count <= window.size):  # a class of the user's
                raise ValueError(f"{self.ssl_object!r}: read() has returned {count!r}")
            if not count:
                self.has_ended = True
                break
            used += count
            if not self.incoming.pending:
                break
    except SSLWantReadError:
        pass
    except SSLZeroReturnError:
        self.has_ended = True
    except Exception as error:
        self.failure = error
    finally:
        give_window(window)
    if used:
        try:
            data = PyBytes_FromStringAndSize(window.memory, used)
        except MemoryError as error:
            self.failure = error  # they are lost
    return data


cdef int pump(Tls self, Transport stream) except -1:
    """Hand over what there is: one call at most."""
    cdef bytes data = self.kept
    cdef bytes more
    cdef bint was_blocked = self.is_blocked
    if is_over(stream):
        return 0
    if data is None or was_blocked or stream.closes_later:
        more = decrypt(self)
        try:
            data = more if data is None else data if more is None else data + more
        except MemoryError as error:
            self.failure = error
        self.is_blocked = False
    if data is None or not stream_wants(stream):
        self.kept = None if stream.closes_later else data
        return settle(self, stream, data is None)
    self.kept = None
    self.is_inside = True
    try:
        stream_hand(stream, data)
    finally:
        self.is_inside = False
        settle(self, stream, False)
    return 0


cdef int settle(Tls self, Transport stream, bint may_call) except -1:
    """What follows from what has come and was written."""
    if stream.io.flags & LE_STREAM_ENDING:
        return 0
    flush(self, stream)
    if self.outgoing.pending:
        send_out(self, stream)  # an alert, a new key
    if is_over(stream):
        return 0
    if unlikely(stream.closes_later):
        if farewell(self, stream):
            return stream_fail(stream, stream.io.error) if stream.io.flags & LE_STREAM_BROKEN else stream_end(stream, None)
        return 0
    if unlikely(self.end_wanted and not self.end_sent and not self.queued):
        finish_writing(self, stream)
    if unlikely(self.kept is None and (self.failure is not None or self.has_ended and not self.has_told)):
        if self.failure is not None:
            return fail(self, stream, self.failure)
        if not stream.is_paused:
            if not may_call:
                call_again(stream)
            else:
                self.has_told = True
                update_reading(self, stream)
                return stream_hand_eof(stream)
    elif unlikely(self.kept is None and self.incoming.pending and not may_call):
        call_again(stream)
    return update_reading(self, stream)


cdef int update_reading(Tls self, Transport stream) except -1:
    """Receive whatever the user says, where TLS needs it; also where nobody has asked for data yet, to hear of the end."""
    cdef bint must = self.is_blocked or stream.closes_later or (
        self.kept is None and stream.data_function is None and not stream.is_paused and not self.has_ended)
    if must != stream.must_read:
        stream.must_read = must
        stream_reading_changed(stream)
    return 0


# -- Sending -----------------------------------------------------------------------------------------------------------

cdef int send_out(Tls self, Transport stream) except -1:
    """Send what ssl has made."""
    return send_last(self, stream, None)


cdef int send_last(Tls self, Transport stream, object failure) except -1:
    """The same. Short of memory the stream is over, by `failure` if that is known: the other end would wait, or miss a record."""
    cdef bytes data
    try:
        data = self.fetch()
        if data and not stream.io.flags & (LE_STREAM_EOF_WANTED | LE_STREAM_CLOSING | LE_STREAM_BROKEN | LE_STREAM_ENDING):
            stream_send(stream, data)
    except MemoryError as error:
        stream_end(stream, error if failure is None else failure)
    return 0


cdef int flush(Tls self, Transport stream) except -1:
    """Encrypt and send what the user has written."""
    cdef le_stream *io = &stream.io
    cdef list pieces
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t after
    if not self.queued or not self.is_open or self.is_blocked:
        return 0
    one, pieces = self.gathered_one, self.gathered_more
    self.gathered_one = self.gathered_more = None
    if unlikely(io.flags & (LE_STREAM_CLOSING | LE_STREAM_BROKEN | LE_STREAM_ENDING)):
        self.queued = 0
        return 0
    try:
        if pieces is None:
            encrypt(self, stream, one)
        else:
            pieces.insert(0, one)
            while first < len(pieces):
                after = first
                while after < len(pieces) and len(pieces[after]) < TRY_MIN:
                    after += 1
                if after > first + 1:
                    one = b"".join(pieces[first:after])
                else:
                    one, after = pieces[first], first + 1
                first = after
                encrypt(self, stream, one)
                if self.is_blocked:
                    self.gathered_more = pieces[first:]
                    break
    except Exception as error:
        fail(self, stream, error)
    if io.flags & (LE_STREAM_ABOVE | LE_STREAM_ENDING) == LE_STREAM_ABOVE and io.queued + self.queued <= io.low:
        le_stream_collect(io)
        stream_changed(stream)
    return 0


cdef int encrypt(Tls self, Transport stream, object data) except -1:
    """Of what is not encrypted, because the other end has to say something first, `gathered_one` is made."""
    cdef _Window window
    cdef Py_ssize_t size
    cdef Py_ssize_t left = 0
    cdef const char *at
    try:
        if PyBytes_CheckExact(data):
            at, left = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        else:
            at, left = <const char *>PyMemoryView_GET_BUFFER(data).buf, PyMemoryView_GET_BUFFER(data).len
        if left <= ENCRYPT_MAX:
            self.writer(data)
            self.queued -= left
            left = 0
            return send_out(self, stream)
        window = _Window.__new__(_Window)
        window.is_readonly, window.owner = True, data
        while left:
            size = min(left, ENCRYPT_MAX)
            window.at, window.size = <char *>at, size
            self.writer(window)
            at += size
            left -= size
            self.queued -= size
            send_out(self, stream)
    except SSLWantReadError:
        self.is_blocked = True
        self.gathered_one = memoryview(data)[len(data) - left:]
        send_out(self, stream)
        update_reading(self, stream)
    return 0


cdef int finish_writing(Tls self, Transport stream) except -1:
    """write_eof(): when all is encrypted say that this was all."""
    flush(self, stream)
    if self.queued or self.end_sent or is_over(stream):
        return 0
    if self.kept is None and not stream.io.flags & LE_STREAM_BROKEN:
        self.kept = decrypt(self)  # while saying goodbye ssl would stumble over it
    say_goodbye(self, stream)
    if stream.io.flags & LE_STREAM_ENDING:
        return 0
    call_again(stream)
    return stream_send_end(stream)


cdef bint farewell(Tls self, Transport stream) except -1:
    """close(): whether the fd may be closed. If something is received in between, a session ticket say, closing it would take
    back what the other end has not got yet. So the stream receives, and waits for the other end to have got everything."""
    cdef le_stream *io = &stream.io
    if self.queued and self.failure is None:
        return update_reading(self, stream)
    say_goodbye(self, stream)
    if io.flags & (LE_STREAM_BROKEN | LE_STREAM_ENDING):
        return True
    if not io.flags & LE_STREAM_EOF_WANTED:
        stream_send_end(stream)
    if not io.flags & LE_STREAM_SHUT:
        return update_reading(self, stream)
    if self.has_ended or self.failure is not None or io.flags & LE_STREAM_EOF or self.lingered == LINGER_TIMES:
        return True
    if not le_stream_unsent(io):
        return True
    if not stream.deadline_ns:
        stream.deadline_ns = le_clock_after(le_clock_ns(), min(LINGER_MIN_NS << min(self.lingered, 10), LINGER_MAX_NS))
        self.lingered += 1
        stream_set_timer(stream, stream.deadline_ns)
    return update_reading(self, stream)


cdef int say_goodbye(Tls self, Transport stream) except -1:
    """Send close_notify."""
    if self.end_sent or not self.is_open:
        return 0
    self.end_sent = True
    try:
        self.shut()
    except OSError:
        pass  # it waits for that of the other end, or the connection is broken
    except MemoryError as error:
        stream_end(stream, error)
    return send_out(self, stream)


# -- The beginning -----------------------------------------------------------------------------------------------------

cdef Tls tls_new(object context, bint server_side, object server_hostname):
    cdef Tls self = Tls.__new__(Tls)
    load()
    if not isinstance(context, SSLContext):
        raise TypeError(f"the TLS context must be an ssl.SSLContext, not {type(context).__name__} ({context!r})")
    if server_hostname is not None and not isinstance(server_hostname, str):
        raise TypeError(f"server_hostname must be a str, not {type(server_hostname).__name__} ({server_hostname!r})")
    if server_hostname is None and not server_side and context.check_hostname:
        # ssl itself would check no name then.
        raise ValueError("server_hostname must be given: the context has check_hostname set")
    self.incoming, self.outgoing = MemoryBIO(), MemoryBIO()
    self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname)
    self.feed, self.fetch = self.incoming.write, self.outgoing.read
    inner = self.ssl_object
    if type(inner) is SSLObject:
        # Its methods do nothing but call those of what it wraps.
        inner = inner._sslobj
        self.shut = inner.shutdown
    else:
        self.shut = inner.unwrap
    self.handshake, self.reader, self.writer = inner.do_handshake, inner.read, inner.write
    return self


cdef int tls_check(object context, bint server_side, object server_hostname) except -1:
    tls_new(context, server_side, server_hostname)
    return 0


cdef int64_t tls_timeout(object timeout) except -1:
    cdef int64_t timeout_ns
    if timeout is None:
        return 0
    timeout_ns = seconds_to_ns(timeout, "handshake_timeout")
    if not timeout_ns:
        raise ValueError(f"handshake_timeout must be more than 0 seconds, not {timeout!r}")
    return timeout_ns


cdef int tls_begin(
    Transport stream, object context, bint server_side, object server_hostname, int64_t timeout_ns, tls_function function,
    object owner,
) except -1:
    cdef Tls self = tls_new(context, server_side, server_hostname)
    self.function, self.owner = function, owner
    self.timeout = timeout_ns / 1e9
    stream.filter = self
    stream.must_read = True
    if timeout_ns:
        stream.deadline_ns = le_clock_after(le_clock_ns(), timeout_ns)
        stream_set_timer(stream, stream.deadline_ns)
    if not server_side:
        shake(self, stream)
    return stream_reading_changed(stream)
