"""Endpoints: what a datagram socket does. Each datagram that comes is one call, each that is sent one packet.

What the kernel does is in le_datagram.h. To the loop an endpoint is an operation with many results, see operations/many.pyx, that
ends when it is closed. One call of dispatch makes one call of the user's.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBADF, EINVAL
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcmp
from linux_event.core cimport (
    IORING_CQE_BUFFER_SHIFT, LE_NOT_IN_HEAP, LE_NS_NEVER, LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_OPERATION_ENDED,
    LE_OPERATION_KEPT, LE_WATCHER_ABI, LE_WATCHER_OBJECT, le_heap_remove, le_link_leave, le_loop, le_many_prep, le_op,
    le_op_class, le_op_is_out, le_op_owner, le_op_verdict, le_operation_end, le_operation_enter, le_operation_leave,
    le_pool_give, le_result, le_results_drop, le_results_first, le_results_reserve, le_watcher_class, le_watcher_function,
)
from linux_event.engine cimport Engine, loop_changed, loop_was_closed
from linux_event.errors cimport check_memory
from linux_event.liburing cimport io_uring_sqe
from linux_event.linux cimport AF_UNIX, EMSGSIZE, ENOTSOCK, EOPNOTSUPP, close, socklen_t
from linux_event.net.binding cimport Binding, binding_remove_path
from linux_event.net.packets cimport (
    LE_DATAGRAM_ABOVE, LE_DATAGRAM_ATTENTION, LE_DATAGRAM_BLOCKED, LE_DATAGRAM_CLOSING, LE_DATAGRAM_CONNECTED,
    LE_DATAGRAM_ENDING, LE_DATAGRAM_FAILED, LE_DATAGRAM_OWNED, LE_DATAGRAM_PARKED, LE_DATAGRAM_PAUSE_MIN_NS,
    LE_DATAGRAM_PAUSED, LE_DATAGRAM_UNIX, io_uring_recvmsg_out, le_datagram, le_datagram_collect,
    le_datagram_count, le_datagram_data, le_datagram_drop_input, le_datagram_drop_queue, le_datagram_flush_later,
    le_datagram_forget_refused, le_datagram_free, le_datagram_head, le_datagram_is_drained, le_datagram_name,
    le_datagram_on_flush, le_datagram_on_recv, le_datagram_on_writable, le_datagram_pause, le_datagram_prep_recv,
    le_datagram_prep_writable, le_datagram_settle,
)
from linux_event.net.peer cimport Peer, peer_address, peer_name_room, peer_of_address, peer_of_name, peer_of_socket
from linux_event.pool cimport datagram_pool
from linux_event.requests cimport op_start, op_stop

import os

cdef extern from *:
    """
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    /* The loop enters the kernel with the GIL held (Requests.enter), in functions that are declared not to need it. To let go of
     * a bytes object, or of a Peer, runs no code of others. */
    static void le_object_hold(void *object) { Py_INCREF((PyObject *)object); }
    static void le_object_drop(void *object) { Py_DECREF((PyObject *)object); }
    """
    ctypedef int (*inquiry)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)
    void le_object_hold(void *object) noexcept nogil
    void le_object_drop(void *object) noexcept nogil
    PyObject *PyBytes_New "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size) noexcept
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t count, PyObject *names) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    HIGH_DEFAULT = 64 << 10
    MEMORY_PAUSE_NS = 10_000_000


cdef class Endpoint:
    """What a datagram socket is without its methods. Cannot be used from Python."""

    def __cinit__(self):
        self.core.head.heap_slot = LE_NOT_IN_HEAP
        self.io.fd = -1
        self.io.drop = le_object_drop
        if LE_WATCHER_OBJECT(&self.core.head) != <PyObject *>self:
            raise SystemError("the le_operation of an Endpoint is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be created: call datagram() of a Loop")

    def __dealloc__(self):
        le_link_leave(&self.io.flush.link)
        le_datagram_free(&self.io)
        close_fd(&self.io)


cdef void close_fd(le_datagram *io) noexcept nogil:
    if io.fd >= 0 and io.flags & LE_DATAGRAM_OWNED:
        close(io.fd)
    io.fd = -1


cdef bint endpoint_is_finished(Endpoint self) noexcept:
    return self.core.link.next == NULL


cdef int endpoint_changed(Endpoint self) except -1:
    if unlikely(self.owner.core.cancelling or self.owner.core.is_embedded):
        loop_changed(self.owner)
    return 0


# -- The requests ------------------------------------------------------------------------------------------------------

cdef void prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    le_many_prep(op, &(<Endpoint>le_op_owner(op)).io.many, sqe)


cdef le_op_verdict on_recv(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    return le_datagram_on_recv(&(<Endpoint>le_op_owner(op)).io, op, result, flags)


cdef le_op_class recv_class, writable_class
cdef le_watcher_class endpoint_class


cdef int begin_classes(Endpoint pattern) except -1:
    recv_class.abi = writable_class.abi = LE_OP_ABI
    recv_class.interest = writable_class.interest = LE_OP_EVERY_COMPLETION
    recv_class.name = "receive of a datagram socket"
    recv_class.owner_offset = <uint32_t>(<char *>&pattern.core.op - <char *><PyObject *>pattern)
    recv_class.prep = prep
    recv_class.on_cqe = on_recv
    writable_class.name = "poll of a datagram socket"
    writable_class.owner_offset = <uint32_t>(<char *>&pattern.io.writable - <char *><PyObject *>pattern)
    writable_class.prep = le_datagram_prep_writable
    writable_class.on_cqe = le_datagram_on_writable
    endpoint_class.abi = LE_WATCHER_ABI
    endpoint_class.name = "datagram socket"
    endpoint_class.on_dispatch = <le_watcher_function>dispatch
    endpoint_class.on_stop = <le_watcher_function>stop
    endpoint_class.on_release = <le_watcher_function>forget
    return 0


begin_classes(Endpoint.__new__(Endpoint))


cdef int endpoint_init(Endpoint self, Engine loop, Binding place) except -1:
    cdef le_datagram *io = &self.io
    check_memory(le_results_reserve(&loop.core.results, loop.batch_max))
    self.buffers = datagram_pool(loop)
    self.remote = peer_of_socket(place.fd)
    self.owner = loop
    self.place = place
    self.core.head.cls = &endpoint_class
    self.core.op.cls = &recv_class
    io.operation = &self.core
    io.loop = &loop.core
    io.hold = le_object_hold
    io.writable.cls = &writable_class
    io.flush.on_flush = le_datagram_on_flush
    io.many.op = &self.core.op
    io.many.deadline_ns = LE_NS_NEVER
    io.many.is_datagram = True
    io.many.pool = &self.buffers.pool
    io.many.pool.users += 1
    io.high, io.low = HIGH_DEFAULT, HIGH_DEFAULT // 4
    io.pause_ns = LE_DATAGRAM_PAUSE_MIN_NS
    io.flags = LE_DATAGRAM_PAUSED
    if place.owns_fd:
        io.flags |= LE_DATAGRAM_OWNED
    if place.family == AF_UNIX:
        io.flags |= LE_DATAGRAM_UNIX
    if self.remote is not None:
        io.flags |= LE_DATAGRAM_CONNECTED
    io.fd, place.fd = place.fd, -1
    le_datagram_prep_recv(io, peer_name_room(place.family))
    le_operation_enter(&loop.core, &self.core)
    loop.core.datagrams += 1
    Py_INCREF(self)  # the loop's, until on_close is called
    return 0


# -- Addresses ---------------------------------------------------------------------------------------------------------

cdef Peer endpoint_receiver(Endpoint self, object address):
    cdef Peer peer = self.received
    if peer is None or peer.address is not address:
        peer = self.sent
        if peer is None or peer.address is not address:
            peer = peer_of_address(address, self.place.family)
            if peer.address is not None:
                self.sent = peer
    if self.remote is None:
        return peer
    if peer.length == self.remote.length and not memcmp(&peer.storage, &self.remote.storage, peer.length):
        return None
    raise ValueError(f"address: the socket is connected to {self.remote.address!r}, not to {address!r}")


cdef inline int learn_sender(Endpoint self, const io_uring_recvmsg_out *head) except -1:
    """See to it that `received` is who has sent this. Whether it has an address."""
    cdef socklen_t length = min(head.namelen, self.io.layout.msg_namelen)
    cdef Peer peer = self.received
    if not length:
        return False
    if unlikely(peer is None or peer.length != length or memcmp(&peer.storage, le_datagram_name(head), length)):
        self.received = peer_of_name(le_datagram_name(head), length)
    return True


# -- Sending -----------------------------------------------------------------------------------------------------------

cdef bytes endpoint_bytes(object data):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return PyBytes_FromStringAndSize(<char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int endpoint_refuse(Endpoint self) except -1:
    raise BlockingIOError(EAGAIN, f"the queue is full: {le_datagram_count(&self.io)} datagrams, {self.io.queued} bytes; wait for "
                          "on_drain when send() has returned False", self.io.fd)


# -- Receiving ---------------------------------------------------------------------------------------------------------

cdef int endpoint_reading_changed(Endpoint self) except -1:
    """pause_reading(), resume_reading(), on_datagram: whether something may be handed over may have changed."""
    cdef le_datagram *io = &self.io
    if self.is_paused or self.datagram_function is None:
        io.flags |= LE_DATAGRAM_PAUSED  # what is in flight may go on until data come: a short pause costs nothing
    elif io.flags & LE_DATAGRAM_PAUSED:
        io.flags &= ~<uint32_t>LE_DATAGRAM_PAUSED
        if io.flags & LE_DATAGRAM_PARKED or io.many.is_over or io.many.results.first:
            le_datagram_collect(io)
        receive(self)
        endpoint_changed(self)
    return 0


cdef int receive(Endpoint self) except -1:
    """Let the kernel receive, unless something is against it."""
    cdef le_datagram *io = &self.io
    if io.flags & (LE_DATAGRAM_PAUSED | LE_DATAGRAM_PARKED | LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING) or io.many.is_over:
        return 0
    return op_start(self.owner, &self.core.op) if io.many.link.next == NULL else 0  # else it waits for a buffer


cdef void wait_for_memory(Endpoint self) noexcept:
    le_datagram_pause(&self.io, MEMORY_PAUSE_NS)  # a pause lets others free some


cdef int park(Endpoint self) except -1:
    """There is a pause: what has come leaves the pool, which others need, and nothing more is received."""
    try:
        while self.io.many.results.first:
            park_one(self, le_results_first(&self.owner.core.results, &self.io.many.results))
    except MemoryError:
        wait_for_memory(self)
        raise
    return op_stop(self.owner, &self.core.op)


cdef int park_one(Endpoint self, const le_result *item) except -1:
    cdef const io_uring_recvmsg_out *head = le_datagram_head(&self.io, item.flags >> IORING_CQE_BUFFER_SHIFT)
    address = self.received.address if learn_sender(self, head) else None
    if is_cut(self, item, head):
        data, address = None, cut_error(self, item, head, address)
    else:
        data = PyBytes_FromStringAndSize(le_datagram_data(&self.io, head), size_of(self, item))
    if self.parked is None:
        self.parked = []
    self.parked.append((data, address))
    self.io.flags |= LE_DATAGRAM_PARKED
    return drop_first(self, item)


cdef inline Py_ssize_t size_of(Endpoint self, const le_result *item) noexcept:
    return item.result - <Py_ssize_t>(sizeof(io_uring_recvmsg_out) + self.io.layout.msg_namelen)


cdef inline bint is_cut(Endpoint self, const le_result *item, const io_uring_recvmsg_out *head) noexcept:
    return head.payloadlen > <size_t>size_of(self, item)  # MSG_TRUNC was asked for: it tells the whole length


cdef object cut_error(Endpoint self, const le_result *item, const io_uring_recvmsg_out *head, object address):
    return OSError(EMSGSIZE, f"a datagram of {head.payloadlen} bytes has come: the kernel has cut it to {size_of(self, item)}, "
                   "it is dropped", self.io.fd if address is None else address)


cdef inline int drop_first(Endpoint self, const le_result *item) except -1:
    """The first result is through: its buffer goes back to the pool."""
    le_pool_give(self.io.many.pool, item.flags >> IORING_CQE_BUFFER_SHIFT)
    le_results_drop(&self.owner.core.results, &self.io.many.results)
    return 0


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *endpoint) except -1:
    cdef Endpoint self = <Endpoint>endpoint
    if unlikely(self.io.flags & LE_DATAGRAM_ATTENTION or self.io.many.is_over or self.io.many.is_timed
                or not self.io.many.results.first):
        return attend(self)
    return deliver(self)


cdef int attend(Endpoint self) except -1:
    """Whatever has happened: one call at most is made of it."""
    cdef le_datagram *io = &self.io
    self.owner.core.callbacks -= 1
    if io.flags & LE_DATAGRAM_ENDING or self.core.flags & LE_OPERATION_ENDED:
        if self.core.flags & LE_OPERATION_ENDED or not (le_op_is_out(&self.core.op) or le_op_is_out(&io.writable)):
            return finish(self)
        return 0
    if io.many.is_timed and self.core.head.heap_slot == LE_NOT_IN_HEAP:
        tick(self)
    if io.many.results.first and io.flags & (LE_DATAGRAM_PAUSED | LE_DATAGRAM_PARKED):
        park(self)
    if io.flags & LE_DATAGRAM_FAILED:
        return tell_failure(self)
    if io.flags & LE_DATAGRAM_CLOSING:
        return 0 if le_datagram_count(io) else endpoint_end(self, None)
    if io.flags & LE_DATAGRAM_ABOVE and le_datagram_is_drained(io):
        io.flags &= ~<uint32_t>LE_DATAGRAM_ABOVE
        if self.drain_function is not None:
            le_datagram_collect(io)  # there may be more to look at
            self.owner.core.callbacks += 1
            self.drain_function(self)
            return 0
    if io.many.is_over and not io.many.results.first:
        return receive_failed(self)
    if io.flags & LE_DATAGRAM_PAUSED:
        return 0
    if io.flags & LE_DATAGRAM_PARKED:
        return deliver_parked(self)
    if io.many.results.first:
        self.owner.core.callbacks += 1
        return deliver(self)
    return 0


cdef int deliver(Endpoint self) except -1:
    cdef le_datagram *io = &self.io
    cdef const le_result *item = le_results_first(&self.owner.core.results, &io.many.results)
    cdef const io_uring_recvmsg_out *head = le_datagram_head(io, item.flags >> IORING_CQE_BUFFER_SHIFT)
    cdef PyObject *data
    address = None
    if unlikely(is_cut(self, item, head)):
        return deliver_cut(self, item, head)
    try:
        if learn_sender(self, head):
            address = self.received.address
    except MemoryError:
        wait_for_memory(self)  # the datagram stays, until there is some
        raise
    data = PyBytes_New(le_datagram_data(io, head), size_of(self, item))
    if unlikely(data == NULL):
        wait_for_memory(self)
        return -1
    drop_first(self, item)
    if io.many.results.first or io.many.is_over:
        le_datagram_collect(io)
    return hand_over(self, data, address)


cdef int hand_over(Endpoint self, PyObject *data, object address) except -1:
    """Call on_datagram, and drop the reference on the data."""
    cdef PyObject *args[3]
    cdef PyObject *result
    cdef PyObject *function = <PyObject *>self.datagram_function
    args[0] = <PyObject *>self
    args[1] = data
    args[2] = <PyObject *>address
    Py_INCREF(<object>function)
    result = PyObject_Vectorcall(function, args, 3, NULL)
    Py_DECREF(<object>function)
    Py_DECREF(<object>data)
    if unlikely(result == NULL):
        return -1
    Py_DECREF(<object>result)
    return 0


cdef int deliver_cut(Endpoint self, const le_result *item, const io_uring_recvmsg_out *head) except -1:
    try:
        error = cut_error(self, item, head, self.received.address if learn_sender(self, head) else None)
    except MemoryError:
        wait_for_memory(self)
        raise
    drop_first(self, item)
    le_datagram_collect(&self.io)
    self.owner.core.callbacks -= 1
    return tell(self, error)


cdef int deliver_parked(Endpoint self) except -1:
    data, address = self.parked.pop(0)
    if not self.parked:
        self.parked = None
        self.io.flags &= ~<uint32_t>LE_DATAGRAM_PARKED
        receive(self)
        endpoint_changed(self)
    le_datagram_collect(&self.io)
    if data is None:
        return tell(self, address)
    self.owner.core.callbacks += 1
    Py_INCREF(data)
    return hand_over(self, <PyObject *>data, address)


# -- Errors ------------------------------------------------------------------------------------------------------------

cdef int tell(Endpoint self, object error) except -1:
    if self.error_function is None:
        return self.owner.tell(self, error)
    self.owner.core.callbacks += 1
    self.error_function(self, error)
    return 0


cdef object os_error(Endpoint self, int number, Peer peer):
    try:
        return OSError(number, os.strerror(number), self.io.fd if peer is None else peer_address(peer))
    except MemoryError:
        wait_for_memory(self)
        raise


cdef int tell_failure(Endpoint self) except -1:
    """Something could not be sent, or has come to nothing. Sending goes on when that is told."""
    cdef le_datagram *io = &self.io
    cdef Peer peer = None
    if io.earlier:
        error = os_error(self, io.earlier, self.remote)
        io.earlier = 0
    else:
        if io.refused_peer != NULL:
            peer = <Peer>io.refused_peer
        error = os_error(self, io.failed, self.remote if peer is None else peer)
        le_datagram_forget_refused(io)
    if not io.failed:
        io.flags &= ~<uint32_t>LE_DATAGRAM_FAILED
        if le_datagram_count(io):
            le_datagram_flush_later(io)
    le_datagram_collect(io)  # there may be more to look at
    return tell(self, error)


cdef int receive_failed(Endpoint self) except -1:
    """Receiving has ended with an error: most often that is one of what was sent, and it goes on."""
    cdef le_datagram *io = &self.io
    cdef int number = -io.many.outcome
    error = os_error(self, number, self.remote)
    io.many.is_over = False
    if number in (EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP):
        return endpoint_end(self, error)
    receive(self)
    return tell(self, error)


cdef int tick(Endpoint self) except -1:
    """The end of a pause."""
    cdef le_datagram *io = &self.io
    io.many.is_timed = False
    if not le_op_is_out(&io.writable):
        io.flags &= ~<uint32_t>LE_DATAGRAM_BLOCKED
    if le_datagram_count(io):
        le_datagram_flush_later(io)
    return receive(self)


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int endpoint_close(Endpoint self) except -1:
    cdef le_datagram *io = &self.io
    io.flags |= LE_DATAGRAM_CLOSING
    le_datagram_drop_input(io)
    self.parked = None
    if not le_datagram_count(io) and not io.flags & LE_DATAGRAM_FAILED:
        return endpoint_end(self, None)
    op_stop(self.owner, &self.core.op)
    return endpoint_changed(self)


cdef int endpoint_end(Endpoint self, object error) except -1:
    cdef le_datagram *io = &self.io
    cdef Engine loop = self.owner
    io.flags |= LE_DATAGRAM_ENDING
    self.failure = error
    le_datagram_drop_input(io)
    self.parked = None
    le_link_leave(&io.flush.link)
    le_datagram_drop_queue(io)
    le_heap_remove(&loop.core.heap, &self.core.head)
    op_stop(loop, &self.core.op)
    op_stop(loop, &io.writable)
    le_datagram_settle(io, NULL)
    binding_remove_path(self.place)
    return endpoint_changed(self)


cdef int finish(Endpoint self) except -1:
    """The kernel has let go of it: the last call."""
    cdef le_datagram *io = &self.io
    cdef le_loop *loop = &self.owner.core
    if not self.core.flags & LE_OPERATION_ENDED:
        le_operation_end(loop, &self.core, 0)
    le_operation_leave(loop, &self.core)
    loop.datagrams -= 1
    io.flags |= LE_DATAGRAM_ENDING
    try:
        le_link_leave(&io.flush.link)
        le_datagram_drop_queue(io)
        close_fd(io)
        if not self.core.flags & LE_OPERATION_KEPT:
            io.many.pool.users -= 1
            io.many.pool = NULL
        if self.sock is not None:
            self.sock.detach()
        conclude(self)
    finally:
        Py_DECREF(self)  # the loop's; the caller has one of its own
    return 0


cdef int conclude(Endpoint self) except -1:
    function, error = self.close_function, self.failure
    # Callbacks refer to what refers to them: a cycle, unless cut here.
    self.datagram_function = self.error_function = self.drain_function = self.close_function = self.failure = None
    self.parked = self.sock = self.place.kept = self.buffers = None
    if function is not None:
        self.owner.core.callbacks += 1
        function(self, error)
    return 0


cdef int stop(void *endpoint) except -1:
    """The loop is being closed."""
    cdef Endpoint self = <Endpoint>endpoint
    if self.io.flags & LE_DATAGRAM_ENDING:
        return 0
    return endpoint_end(self, loop_was_closed())


cdef int forget(void *endpoint) except -1:
    """Nobody is to be told of the end: the loop is being collected."""
    (<Endpoint>endpoint).close_function = None
    return 0


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *endpoint) noexcept:
    """Break cycles through what is the user's. The loop stays: the destructor needs it."""
    cdef Endpoint self = <Endpoint>endpoint
    self.datagram_function = self.error_function = self.drain_function = self.close_function = None
    self.data_value = self.failure = self.parked = None
    return 0


LE_SET_CLEAR(Endpoint, clear)
