"""Transports: what a stream does. Connections that call back for what comes, and queue what is to be sent.

What the kernel does is in le_stream.h. To the loop a stream is an operation with many results, see operations/many.pyx, that
ends when the stream does. One call of dispatch makes one call of the user's.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport ETIMEDOUT
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free
from linux_event.address cimport address_from_sockaddr
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_NOT_IN_HEAP, LE_NS_NEVER, LE_OPERATION_ENDED, LE_OPERATION_KEPT, LE_WATCHER_OBJECT, le_clock_after,
    le_clock_ns, le_heap_add, le_heap_remove, le_loop, le_operation_end, le_operation_leave, le_watcher_collect,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.linux cimport SHUT_WR, close, getpeername, shutdown, sockaddr, sockaddr_storage, socklen_t
from linux_event.net.native cimport (
    LE_COPY_MAX, LE_STREAM_ABOVE, LE_STREAM_BROKEN, LE_STREAM_CLOSING, LE_STREAM_ENDING, LE_STREAM_EOF_WANTED,
    LE_STREAM_NO_SOCKET, LE_STREAM_NO_WRITING, LE_STREAM_SHUT, LE_STREAM_SPENT, LE_STREAM_TOLD, le_piece, le_stream,
    le_stream_break, le_stream_copy, le_stream_drop_input, le_stream_drop_queue, le_stream_is_sending, le_stream_refer,
    le_stream_settle, le_stream_try,
)
from linux_event.requests cimport loop_guard, op_start, op_stop

import os

cdef extern from *:
    """
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    """
    ctypedef int (*inquiry)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t count, PyObject *names) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    # Writes of this size on are tried at once, while the data are in the cache; smaller ones leave together.
    TRY_MIN = 16 << 10
    REFUSED = LE_STREAM_EOF_WANTED | LE_STREAM_CLOSING | LE_STREAM_BROKEN | LE_STREAM_ENDING | LE_STREAM_NO_WRITING


cdef class Filter:
    """Stands between the socket of a stream and its user. Cannot be used from Python."""

    cdef int received(self, Transport stream, bytes data) except -1:
        return stream_hand(stream, data)

    cdef int resumed(self, Transport stream) except -1:
        return 0

    cdef int ended(self, Transport stream) except -1:
        return stream_hand_eof(stream)

    cdef bint write(self, Transport stream, object data) except -1:
        return stream_send(stream, data)

    cdef int write_end(self, Transport stream) except -1:
        return stream_send_end(stream)

    cdef bint closing(self, Transport stream) except -1:
        return False

    cdef int gathered(self, Transport stream) except -1:
        return 0

    cdef int expired(self, Transport stream) except -1:
        return 0

    cdef int lost(self, Transport stream, object error) except -1:
        return 0


@cython.freelist(64)
cdef class Transport:
    """What a stream is without its methods. Cannot be used from Python."""

    def __cinit__(self):
        self.core.head.heap_slot = LE_NOT_IN_HEAP
        self.io.fd = -1
        if LE_WATCHER_OBJECT(&self.core.head) != <PyObject *>self:
            raise SystemError("the le_operation of a Transport is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be created: a Loop makes them, see listen")

    def __dealloc__(self):
        if self.io.fd >= 0:
            close(self.io.fd)


cdef bint stream_is_finished(Transport self) noexcept:
    return self.core.link.next == NULL


cdef int stream_changed(Transport self) except -1:
    """loop_changed(), where it could have anything to do."""
    if unlikely(self.owner.core.cancelling or self.owner.core.is_embedded):
        loop_changed(self.owner)
    return 0


cdef int stream_learn_peer(Transport self) except -1:
    cdef sockaddr_storage storage
    cdef socklen_t length = sizeof(storage)
    if self.io.fd >= 0 and not getpeername(self.io.fd, <sockaddr *>&storage, &length):
        self.peer = address_from_sockaddr(&storage, length)
    return 0


# -- Handing over -----------------------------------------------------------------------------------------------------

cdef bint stream_wants(Transport self) noexcept:
    return (not self.is_paused and self.data_function is not None and not self.closes_later
            and not self.io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING))


cdef int stream_hand_over(Transport self, object data) except -1:
    cdef PyObject *args[2]
    cdef PyObject *result
    cdef PyObject *function = <PyObject *>self.data_function
    args[0] = <PyObject *>self
    args[1] = <PyObject *>data
    Py_INCREF(<object>function)
    result = PyObject_Vectorcall(function, args, 2, NULL)
    Py_DECREF(<object>function)
    if unlikely(result == NULL):
        return -1
    Py_DECREF(<object>result)
    return 0


cdef int stream_hand(Transport self, bytes data) except -1:
    self.owner.core.callbacks += 1
    return stream_hand_over(self, data)


cdef int stream_hand_eof(Transport self) except -1:
    if self.eof_function is None:
        return stream_close(self)
    self.owner.core.callbacks += 1
    self.io.flags |= LE_STREAM_TOLD
    try:
        self.eof_function(self)
    finally:
        # Nothing can come, nothing can be sent: that it stays open would only keep the loop running.
        if self.io.flags & (LE_STREAM_NO_WRITING | LE_STREAM_SHUT):
            stream_close(self)
    return 0


# -- Writing -----------------------------------------------------------------------------------------------------------

cdef bint stream_send(Transport self, object data) except -1:
    cdef Py_buffer view
    if PyBytes_CheckExact(data):
        return send_bytes(self, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if view.len <= LE_COPY_MAX:
        try:
            return send_bytes(self, None, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
    PyBuffer_Release(&view)
    held = PyMemoryView_FromObject(data)
    return send_bytes(self, held, <const char *>PyMemoryView_GET_BUFFER(held).buf, PyMemoryView_GET_BUFFER(held).len)


cdef bint send_bytes(Transport self, object owner, const char *at, Py_ssize_t size) except -1:
    """Queue bytes, and see to it that they are sent. `owner` is the object that they belong to; None: they have to be copied."""
    cdef le_stream *io = &self.io
    cdef int error
    if unlikely(io.flags & REFUSED):
        return refuse(self)
    loop_guard(self.owner)
    if not size:
        return io.queued <= io.high
    if size <= LE_COPY_MAX and (owner is None or io.queued):
        check_memory(le_stream_copy(io, at, size))
    else:
        check_memory(le_stream_refer(io, at, size, <PyObject *>owner, not PyBytes_CheckExact(owner)))
        Py_INCREF(owner)  # dropped when they are sent
        if size >= TRY_MIN and not le_stream_is_sending(io) and not io.flags & LE_STREAM_NO_SOCKET:
            error = le_stream_try(io)
            if io.flags & LE_STREAM_SPENT:
                stream_drop_spent(self)  # which may run code of others
            if error or not io.queued:
                op_stop(self.owner, &io.send)
                if error:
                    le_stream_break(io, -error)
                    stream_changed(self)
                return not error
            if io.flags & LE_STREAM_ENDING:
                return False
    op_start(self.owner, &io.send)
    stream_changed(self)
    if unlikely(io.queued > io.high):
        io.flags |= LE_STREAM_ABOVE
        return False
    return True


cdef bint refuse(Transport self) except -1:
    if self.io.flags & LE_STREAM_NO_WRITING:
        raise RuntimeError(f"{self!r} is only read from")
    if not self.io.flags & (LE_STREAM_CLOSING | LE_STREAM_BROKEN | LE_STREAM_ENDING):
        raise RuntimeError(f"{self!r}: write() after write_eof()")
    return False


cdef int stream_send_end(Transport self) except -1:
    self.io.flags |= LE_STREAM_EOF_WANTED
    if not self.io.queued and not self.io.flags & LE_STREAM_BROKEN:
        stream_shut(self)
    return 0


cdef int stream_shut(Transport self) except -1:
    self.io.flags |= LE_STREAM_SHUT
    if self.io.flags & LE_STREAM_NO_SOCKET:
        return stream_close(self)
    self.owner.core.other_syscalls += 1
    shutdown(self.io.fd, SHUT_WR)  # where it fails the connection has ended, and that is told
    if self.io.flags & LE_STREAM_TOLD:
        return stream_close(self)
    return 0


cdef int stream_drop_spent(Transport self) except -1:
    """Let go of buffers that are sent. That may run code of others."""
    cdef le_piece *piece = self.io.spent
    cdef le_piece *following
    self.io.spent = NULL
    self.io.flags &= ~<uint32_t>LE_STREAM_SPENT
    while piece != NULL:
        following = piece.next
        Py_DECREF(<object>piece.owner)
        free(piece)
        piece = following
    return 0


# -- Deadlines ---------------------------------------------------------------------------------------------------------

cdef int stream_set_timer(Transport self, int64_t at_ns) except -1:
    """Have it dispatched at that time, at the deadline of the filter, or when it has been idle for too long."""
    cdef Engine loop = self.owner
    le_heap_remove(&loop.core.heap, &self.core.head)
    self.is_timed = True
    if self.deadline_ns:
        at_ns = min(at_ns, self.deadline_ns)
    if self.io.idle_ns:
        at_ns = min(at_ns, le_clock_after(self.io.active_ns, self.io.idle_ns))
    if le_heap_add(&loop.core.heap, &self.core.head, at_ns):
        # No memory for that: the time has come, then.
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)
    return 0


cdef bint stream_tick(Transport self) except -1:
    """The time has come that was set. Whether that was the end of the stream."""
    cdef int64_t now_ns = le_clock_ns()
    cdef int64_t due_ns = LE_NS_NEVER
    self.is_timed = False
    if self.deadline_ns and now_ns >= self.deadline_ns:
        self.deadline_ns = 0
        self.filter.expired(self)
        if self.io.flags & LE_STREAM_ENDING:
            return True
    if self.io.idle_ns:
        due_ns = le_clock_after(self.io.active_ns, self.io.idle_ns)
    if now_ns < due_ns:
        if due_ns != LE_NS_NEVER or self.deadline_ns:
            stream_set_timer(self, due_ns)
        return False
    stream_end(self, error_of(self, ETIMEDOUT, self.io.idle_ns / 1e9))
    return True


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int stream_close(Transport self) except -1:
    cdef le_stream *io = &self.io
    if io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING):
        return 0
    if self.filter is not None:
        self.closes_later = self.filter.closing(self)
        if self.closes_later or io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING):
            return stream_changed(self)
    io.flags |= LE_STREAM_CLOSING
    le_stream_drop_input(io)
    self.parked = None
    if io.flags & LE_STREAM_BROKEN:
        return stream_fail(self, io.error)
    if not io.queued:
        return stream_end(self, None)
    op_stop(self.owner, &self.core.op)
    op_stop(self.owner, &io.many.hangup)
    return stream_changed(self)


cdef int stream_fail(Transport self, int number) except -1:
    if self.closes_later and self.io.flags & LE_STREAM_SHUT:
        return stream_end(self, None)  # after the farewell of the filter, which nobody has to wait for
    return stream_end(self, error_of(self, number, 0))


cdef object error_of(Transport self, int number, double idle):
    """The OSError; idle: the seconds for which it was, or 0. It has to end also where there is no memory for that."""
    cdef object error
    try:
        text = f"nothing was received or sent for {idle:g} seconds" if idle else os.strerror(number)
        error = OSError(number, text, self.io.fd)
    except MemoryError as failure:
        error = failure
    return error


cdef int stream_end(Transport self, object error) except -1:
    cdef le_stream *io = &self.io
    cdef Engine loop = self.owner
    if io.flags & LE_STREAM_ENDING:
        return 0
    io.flags |= LE_STREAM_ENDING
    self.failure = error
    if self.close_function is not None and self.peer is None and not io.flags & LE_STREAM_NO_SOCKET:
        try:
            stream_learn_peer(self)
        except MemoryError:
            self.peer = None
    le_stream_drop_input(io)
    self.parked = None
    le_heap_remove(&loop.core.heap, &self.core.head)
    op_stop(loop, &self.core.op)
    op_stop(loop, &io.many.hangup)
    op_stop(loop, &io.send)
    le_stream_settle(io, NULL)
    return stream_changed(self)


cdef int stream_finish(Transport self) except -1:
    """The kernel has let go of it: the last call."""
    cdef le_stream *io = &self.io
    cdef le_loop *loop = &self.owner.core
    if not self.core.flags & LE_OPERATION_ENDED:
        le_operation_end(loop, &self.core, 0)
    le_operation_leave(loop, &self.core)
    loop.streams -= 1
    try:
        if io.fd >= 0:
            close(io.fd)
            io.fd = -1
        if not self.core.flags & LE_OPERATION_KEPT:
            if io.many.pool != NULL:
                io.many.pool.users -= 1
                io.many.pool = NULL
            le_stream_drop_queue(io)
        if self.sock is not None:
            self.sock.detach()
        conclude(self)
    finally:
        Py_DECREF(self)  # the loop's; the caller has one of its own
    return 0


cdef int conclude(Transport self) except -1:
    function, error, listener = self.close_function, self.failure, self.listener
    # Callbacks refer to what refers to them: a cycle, unless cut here.
    self.data_function = self.eof_function = self.drain_function = self.close_function = self.failure = None
    self.parked = self.sock = self.listener = self.kept = None
    if self.io.flags & LE_STREAM_SPENT:
        stream_drop_spent(self)
    if listener is not None:
        self.lost(listener)
    try:
        if self.filter is not None:
            self.filter.lost(self, error)
    finally:
        self.filter = None
        if function is not None:
            self.owner.core.callbacks += 1
            function(self, error)
    return 0


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *stream) noexcept:
    """Break cycles through what is the user's. The loop stays: the destructor needs it."""
    cdef Transport self = <Transport>stream
    self.data_function = self.eof_function = self.drain_function = self.close_function = None
    self.data_value = self.failure = self.parked = None
    return 0


LE_SET_CLEAR(Transport, clear)
