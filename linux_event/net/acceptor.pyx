"""What a listener does: it accepts connections, within its limit and while there are fds, and hands them over; its end.

To the loop it is an operation with many results, as accept_many is, that ends when it is closed. One call of dispatch makes one
call of the user's.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint32_t
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_LOOP_OPEN, LE_NOT_IN_HEAP, LE_NS_NEVER, LE_OP_AGAIN, LE_OP_ABI, LE_OP_END, LE_OP_EVERY_COMPLETION,
    LE_OP_LATER, LE_OPERATION_ENDED, LE_SHORTAGE_NEW, LE_SHORTAGE_NONE, LE_SHORTAGE_WAITS, LE_WATCHER_ABI, LE_WATCHER_OBJECT,
    le_clock_after, le_clock_ns, le_heap_add, le_heap_remove, le_loop, le_many, le_many_drop, le_many_on_cqe, le_many_prep,
    le_many_prep_accept, le_op, le_op_class, le_op_is_out, le_op_owner, le_op_verdict, le_operation_end, le_operation_enter,
    le_operation_leave, le_results_drop, le_results_first, le_watcher_class, le_watcher_collect,
    le_watcher_function,
)
from linux_event.engine cimport Engine, loop_changed, loop_was_closed
from linux_event.liburing cimport IORING_CQE_F_MORE, io_uring_sqe
from linux_event.linux cimport close
from linux_event.net.binding cimport Binding, binding_remove_path
from linux_event.net.receiving cimport stream_begin
from linux_event.net.stream cimport Stream, stream_new
from linux_event.net.tls cimport tls_begin
from linux_event.net.transport cimport Transport, stream_end
from linux_event.requests cimport op_start, op_stop

import os

cdef extern from *:
    """
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    """
    ctypedef int (*inquiry)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)

cdef extern from "le_accept.h" nogil:
    enum le_accept_verdict: LE_ACCEPT_EMPTY, LE_ACCEPT_TAKEN, LE_ACCEPT_SHORT, LE_ACCEPT_LATER
    bint le_accept_no_more(int fd)
    le_accept_verdict le_accept_waiting(le_loop *loop, le_many *many, int fd)

cdef enum:
    # Without an fd to be had accepting pauses. Nobody tells when this process or, of ENFILE, another one closes some.
    SHORTAGE_PAUSE_NS = 100_000_000
    MEMORY_PAUSE_NS = 10_000_000
    # What the handshakes that have begun get to end, when nobody is let in any more. Less than the second after which clients
    # that are not let in try again: they find the socket closed.
    HANDSHAKES_NS = 250_000_000
    # No queue is longer. It matters where the kernel goes on letting clients in while the queue is emptied.
    QUEUE_MAX = 1 << 16


cdef class Acceptor:
    """What ``Listener`` stands on. Cannot be used from Python."""

    def __cinit__(self):
        self.core.head.heap_slot = LE_NOT_IN_HEAP
        self.io.fd = -1
        if LE_WATCHER_OBJECT(&self.core.head) != <PyObject *>self:
            raise SystemError("the le_operation of an Acceptor is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be created: call listen() of a Loop")

    def __dealloc__(self):
        close_fd(&self.io)


cdef bint acceptor_is_entered(Acceptor self) noexcept:
    return self.core.link.next != NULL


cdef int acceptor_pause(Acceptor self) except -1:
    self.io.is_paused = True
    op_stop(self.owner, &self.core.op)
    return loop_changed(self.owner)


cdef int acceptor_resume(Acceptor self) except -1:
    self.io.is_paused = False
    go_on(self)
    return loop_changed(self.owner)


# -- The request -------------------------------------------------------------------------------------------------------

cdef inline bint wants(const acceptor_state *io) noexcept nogil:
    return not io.is_paused and not io.is_closing and not io.is_draining and (not io.limit or io.taken < io.limit)


cdef void close_fd(acceptor_state *io) noexcept nogil:
    if io.owns_fd and io.fd >= 0:
        close(io.fd)
    io.fd = -1


cdef void prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    le_many_prep(op, &(<Acceptor>le_op_owner(op)).io.many, sqe)


cdef le_op_verdict on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef acceptor_state *io = &(<Acceptor>le_op_owner(op)).io
    cdef le_op_verdict verdict
    if io.is_closing:
        if result >= 0:
            close(result)
        if not flags & IORING_CQE_F_MORE:
            close_fd(io)
            le_watcher_collect(loop, &(<Acceptor>le_op_owner(op)).core.head, LE_LANE_COMPLETIONS)
        return LE_OP_END
    verdict = le_many_on_cqe(loop, op, &io.many, result, flags)
    io.taken += result >= 0 and verdict != LE_OP_LATER
    if io.is_draining and not flags & IORING_CQE_F_MORE:
        le_watcher_collect(loop, &(<Acceptor>le_op_owner(op)).core.head, LE_LANE_COMPLETIONS)
    return LE_OP_END if verdict == LE_OP_AGAIN and not wants(io) else verdict


cdef uint32_t offset(Acceptor self) noexcept:
    return <uint32_t>(<char *>&self.core.op - <char *><PyObject *>self)


cdef le_op_class accept_class
accept_class.abi = LE_OP_ABI
accept_class.name = "listener"
accept_class.owner_offset = offset(Acceptor.__new__(Acceptor))
accept_class.prep = prep
accept_class.on_cqe = on_cqe
accept_class.interest = LE_OP_EVERY_COMPLETION
cdef le_watcher_class acceptor_class
acceptor_class.abi = LE_WATCHER_ABI
acceptor_class.name = "listener"
acceptor_class.on_dispatch = <le_watcher_function>dispatch
acceptor_class.on_stop = <le_watcher_function>stop
acceptor_class.on_release = <le_watcher_function>forget


cdef int go_on(Acceptor self) except -1:
    """Accept, unless something is against it. What was not looked at in a pause is looked at now."""
    cdef le_many *many = &self.io.many
    if self.parked or many.results.first or self.io.is_draining or many.is_over or many.shortage == LE_SHORTAGE_NEW:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    if wants(&self.io) and many.shortage == LE_SHORTAGE_NONE and not many.is_over:
        op_start(self.owner, &self.core.op)
    return 0


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *listener) except -1:
    cdef Acceptor self = <Acceptor>listener
    cdef acceptor_state *io = &self.io
    self.owner.core.callbacks -= 1
    if io.is_closing or self.core.flags & LE_OPERATION_ENDED:
        if self.core.flags & LE_OPERATION_ENDED or not le_op_is_out(&self.core.op):
            finish(self)
        return 0
    if io.is_timed and self.core.head.heap_slot == LE_NOT_IN_HEAP:
        end_pause(self)
    if io.is_paused:
        while io.many.results.first:
            park(self)
        return 0
    if io.many.shortage == LE_SHORTAGE_NEW:
        io.many.shortage = LE_SHORTAGE_WAITS
        set_timer(self, SHORTAGE_PAUSE_NS)
        tell_shortage(self)
        if io.is_closing:
            return 0
    if io.is_draining and self.parked is None and not io.many.results.first and not take_waiting(self):
        return 0
    if self.parked:
        return deliver(self, self.parked[0], True)
    if io.many.results.first:
        return deliver(self, le_results_first(&self.owner.core.results, &io.many.results).result, False)
    if io.many.is_over:
        fail(self)
    return 0


cdef int park(Acceptor self) except -1:
    """There is a pause: a connection leaves the room for results, which others need."""
    cdef int fd = le_results_first(&self.owner.core.results, &self.io.many.results).result
    try:
        if self.parked is None:
            self.parked = []
        self.parked.append(fd)
    except MemoryError:
        set_timer(self, MEMORY_PAUSE_NS)
        raise
    le_results_drop(&self.owner.core.results, &self.io.many.results)
    return 0


cdef int deliver(Acceptor self, int fd, bint is_parked) except -1:
    cdef Engine loop = self.owner
    cdef Stream stream
    try:
        stream = stream_new(loop, fd, 0)
    except MemoryError:
        set_timer(self, MEMORY_PAUSE_NS)  # the connection stays, until there is memory
        raise
    except BaseException:
        take(self, is_parked)
        close(fd)
        self.io.taken -= 1
        go_on(self)  # there is room for another one
        raise
    take(self, is_parked)
    stream.listener = self
    stream.lost = lost
    self.connection_count += 1
    self.io.is_short = False
    if self.context is None:
        return connected(self, stream)
    self.io.greeted += 1
    try:
        tls_begin(stream, self.context, True, None, self.handshake_ns, tls_done, self)
    except BaseException:  # the context was changed meanwhile
        self.io.greeted -= 1
        stream_end(stream, None)
        raise
    return stream_begin(stream)


cdef int take(Acceptor self, bint is_parked) except -1:
    if is_parked:
        del self.parked[0]
        if not self.parked:
            self.parked = None
    else:
        le_results_drop(&self.owner.core.results, &self.io.many.results)
    if self.parked or self.io.many.results.first or self.io.many.is_over or self.io.is_draining:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    return 0


cdef int connected(Acceptor self, Stream stream) except -1:
    self.owner.core.callbacks += 1
    try:
        self.function(stream)
    except BaseException:
        stream_end(stream, None)  # nobody will look after it
        raise
    return stream_begin(stream)


cdef int tls_done(object listener, Transport stream, object error) except -1:
    """The TLS handshake with a connection is over."""
    cdef Acceptor self = listener
    self.io.greeted -= 1
    if self.io.is_draining and not self.io.is_closing and self.owner.core.state == LE_LOOP_OPEN:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    if error is None:
        # Where it has been closed meanwhile nobody is to be told of connections any more.
        return stream_end(stream, None) if self.io.is_closing else connected(self, <Stream>stream)
    from linux_event.cancellation import CancelledError
    if isinstance(error, CancelledError):
        return 0
    error.add_note(f"in the TLS handshake with {stream.peer!r}")
    if self.owner.error_handler is not None:
        return self.owner.tell(self, error)
    from logging import getLogger
    getLogger("linux_event").debug(f"{self!r}: {error!r} in the TLS handshake with {stream.peer!r}")
    return 0


cdef int lost(object listener) except -1:
    """A connection is over: there is room for another one, and an fd."""
    cdef Acceptor self = listener
    self.connection_count -= 1
    self.io.taken -= 1
    if self.owner.core.state != LE_LOOP_OPEN or self.io.is_closing:
        return 0
    if self.io.many.shortage == LE_SHORTAGE_WAITS:
        end_pause(self)
    return go_on(self)


# -- Shortage ----------------------------------------------------------------------------------------------------------

cdef int set_timer(Acceptor self, int64_t after_ns) except -1:
    cdef Engine loop = self.owner
    le_heap_remove(&loop.core.heap, &self.core.head)
    self.io.is_timed = True
    if le_heap_add(&loop.core.heap, &self.core.head, le_clock_after(le_clock_ns(), after_ns)):
        # No memory for that: the time has come, then.
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)
    return 0


cdef int end_pause(Acceptor self) except -1:
    le_heap_remove(&self.owner.core.heap, &self.core.head)
    self.io.is_timed = False
    self.io.many.shortage = LE_SHORTAGE_NONE
    return go_on(self)


cdef int tell_shortage(Acceptor self) except -1:
    """Once, until a connection could be accepted again."""
    if self.io.is_short:
        return 0
    self.io.is_short = True
    number = -self.io.many.outcome
    error = OSError(number, f"{os.strerror(number)}: connections wait until there is an fd again", self.io.fd)
    if self.owner.error_handler is not None:
        return self.owner.tell(self, error)
    from logging import getLogger
    getLogger("linux_event").warning(f"{self!r}: {error}")  # the record is not to keep them alive
    return 0


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int acceptor_drain(Acceptor self, bint takes_queue) except -1:
    self.io.is_draining = True
    self.io.takes_queue = takes_queue
    self.io.is_paused = False
    self.io.waiting = QUEUE_MAX
    binding_remove_path(self.place)
    if takes_queue and le_accept_no_more(self.io.fd):
        self.io.closes_ns = le_clock_after(le_clock_ns(), HANDSHAKES_NS)
    op_stop(self.owner, &self.core.op)
    le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    return loop_changed(self.owner)


cdef bint take_waiting(Acceptor self) except -1:
    """While it is draining, and all that was accepted is handed over: take another one from the queue of the socket, if it is to.

    Returns whether there was one. If not, and nothing is waited for, this was the end.
    """
    cdef acceptor_state *io = &self.io
    cdef le_accept_verdict verdict = LE_ACCEPT_EMPTY
    cdef int64_t left_ns
    if le_op_is_out(&self.core.op) or io.many.shortage != LE_SHORTAGE_NONE or (io.limit and io.taken >= io.limit):
        return False  # it is called again when the request has ended, the pause, or a connection
    if io.takes_queue and io.fd >= 0 and io.waiting:
        verdict = le_accept_waiting(&self.owner.core, &io.many, io.fd)
    if verdict == LE_ACCEPT_TAKEN:
        io.waiting -= 1
        io.taken += 1
        return True
    left_ns = io.closes_ns - le_clock_ns() if io.fd >= 0 else 0
    if verdict == LE_ACCEPT_LATER:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    elif verdict == LE_ACCEPT_SHORT:
        io.many.shortage = LE_SHORTAGE_WAITS
        set_timer(self, SHORTAGE_PAUSE_NS)
        tell_shortage(self)
    elif left_ns > 0:
        set_timer(self, left_ns)
    else:
        close_socket(self)
        if not io.greeted:
            acceptor_close(self)
    return False


cdef int acceptor_close(Acceptor self) except -1:
    cdef Engine loop = self.owner
    self.io.is_closing = True
    binding_remove_path(self.place)
    le_many_drop(&loop.core, &self.io.many)
    for fd in self.parked or ():
        close(fd)
    self.parked = None
    if not acceptor_is_entered(self):
        close_fd(&self.io)
        return 0
    le_heap_remove(&loop.core.heap, &self.core.head)
    op_stop(loop, &self.core.op)
    if not le_op_is_out(&self.core.op):
        close_fd(&self.io)
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)
    return loop_changed(self.owner)


cdef int fail(Acceptor self) except -1:
    """The kernel accepts no more: the socket was shut down, or closed."""
    number = -self.io.many.outcome
    error = OSError(number, os.strerror(number), self.io.fd)
    acceptor_close(self)
    if self.close_function is None:
        return self.owner.tell(self, error)
    self.failure = error
    return 0


cdef int finish(Acceptor self) except -1:
    """The kernel has let go of it: the last call."""
    cdef Engine loop = self.owner
    if not self.core.flags & LE_OPERATION_ENDED:
        le_operation_end(&loop.core, &self.core, 0)
    le_operation_leave(&loop.core, &self.core)
    loop.core.listeners -= 1
    self.io.is_closing = True
    try:
        close_socket(self)
        conclude(self)
    finally:
        Py_DECREF(self)  # the loop's; the caller has one of its own
    return 0


cdef int close_socket(Acceptor self) except -1:
    close_fd(&self.io)
    sock, self.sock = self.sock, None
    if sock is not None:
        sock.detach()
    return 0


cdef int conclude(Acceptor self) except -1:
    function, error = self.close_function, self.failure
    # Callbacks refer to what refers to them: a cycle, unless cut here.
    self.function = self.close_function = self.failure = self.place.kept = None
    if function is not None:
        self.owner.core.callbacks += 1
        function(self, error)
    return 0


cdef int stop(void *listener) except -1:
    """The loop is being closed."""
    cdef Acceptor self = <Acceptor>listener
    if self.io.is_closing:
        return 0
    if self.close_function is not None:
        self.failure = loop_was_closed()
    return acceptor_close(self)


cdef int forget(void *listener) except -1:
    """Nobody is to be told of the end: the loop is being collected."""
    (<Acceptor>listener).close_function = None
    return 0


# -- What is made of a socket ------------------------------------------------------------------------------------------

cdef int acceptor_init(Acceptor self, Engine loop, Binding place, uint32_t limit) except -1:
    self.owner = loop
    self.core.head.cls = &acceptor_class
    self.core.op.cls = &accept_class
    self.io.many.op = &self.core.op
    self.io.many.deadline_ns = LE_NS_NEVER
    self.place = place
    self.io.fd, place.fd = place.fd, -1
    self.io.owns_fd = place.owns_fd
    self.io.limit = limit
    le_many_prep_accept(&self.core, self.io.fd)
    if limit:
        self.core.sqe.ioprio = 0  # one at a time: those beyond the limit are not to be accepted
    return 0


cdef int acceptor_start(Acceptor self) except -1:
    le_operation_enter(&self.owner.core, &self.core)
    self.owner.core.listeners += 1
    Py_INCREF(self)  # the loop's, until it is closed
    op_start(self.owner, &self.core.op)
    return loop_changed(self.owner)


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *acceptor) noexcept:
    """Break cycles through what is the user's. The loop stays: the destructor needs it."""
    cdef Acceptor self = <Acceptor>acceptor
    self.function = self.close_function = self.data_value = self.failure = None
    return 0


LE_SET_CLEAR(Acceptor, clear)
