"""Receiving, and dispatch: what a stream does when the loop calls it. What it calls for that is in transport.pyx."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, ENOMEM, EPIPE, errno
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport malloc
from linux_event.core cimport (
    IORING_CQE_BUFFER_SHIFT, LE_NOT_IN_HEAP, LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_OPERATION_ENDED, LE_WATCHER_ABI,
    le_clock_after, le_clock_ns, le_loop, le_many_leave, le_many_pool, le_many_prep_hangup, le_op, le_op_class, le_op_is_out,
    le_op_owner, le_op_verdict, le_operation_enter, le_operation_prep, le_pool, le_pool_buffer, le_pool_give, le_result,
    le_results_drop, le_results_first, le_results_reserve, le_watcher_class, le_watcher_function,
)
from linux_event.engine cimport Engine, loop_was_closed
from linux_event.errors cimport check_memory
from linux_event.linux cimport ENOBUFS, MSG_DONTWAIT, MSG_PEEK, POLLIN, poll, pollfd, recv
from linux_event.net.native cimport (
    LE_BIG_BYTES, LE_BIG_PIECE, LE_SMALL_STREAK, LE_STREAM_ABOVE, LE_STREAM_ATTENTION, LE_STREAM_BEGUN, LE_STREAM_READY,
    LE_STREAM_BROKEN, LE_STREAM_CLOSING, LE_STREAM_ENDING, LE_STREAM_EOF, LE_STREAM_EOF_WANTED, LE_STREAM_GATHERED,
    LE_STREAM_HUNG, LE_STREAM_NO_READING, LE_STREAM_NO_SOCKET, LE_STREAM_PARKED, LE_STREAM_PAUSED, LE_STREAM_SHUT,
    LE_STREAM_SPENT, le_stream, le_stream_collect, le_stream_is_out, le_stream_on_hangup, le_stream_on_recv, le_stream_on_send,
    le_stream_prep_recv, le_stream_prep_send, le_stream_is_active, le_stream_resize, le_stream_wants, le_stream_weigh,
)
from linux_event.net.transport cimport (
    Transport, stream_changed, stream_drop_spent, stream_end, stream_fail, stream_finish, stream_hand_eof, stream_hand_over,
    stream_set_timer, stream_shut, stream_tick,
)
from linux_event.pool cimport pool_argument
from linux_event.requests cimport op_start, op_stop

cdef extern from *:
    """
    /* Completions are read with the GIL held (Requests.enter), in functions that are declared not to need it. To let go of a
     * bytes object runs no code of others. */
    static void le_bytes_drop(void *bytes) { Py_DECREF((PyObject *)bytes); }
    """
    void le_bytes_drop(void *bytes) noexcept nogil
    PyObject *PyBytes_New "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    HIGH_DEFAULT = 64 << 10
    MEMORY_PAUSE_NS = 10_000_000


# What big streams receive into. No other thread comes in between: the GIL is held until the data have been copied.
cdef char *hot = NULL


# -- The requests ------------------------------------------------------------------------------------------------------

cdef le_op_verdict on_recv(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    return le_stream_on_recv(&(<Transport>le_op_owner(op)).io, op, result, flags)


cdef uint32_t offset(Transport self, const void *field) noexcept:
    return <uint32_t>(<char *>field - <char *><PyObject *>self)


cdef int begin_class(le_op_class *cls, const char *name, uint32_t owner_offset) except -1:
    cls.abi = LE_OP_ABI
    cls.name = name
    cls.owner_offset = owner_offset
    cls.interest = LE_OP_EVERY_COMPLETION
    return 0


cdef le_op_class recv_class, hangup_class, send_class
cdef le_watcher_class stream_class


cdef int begin_classes(Transport pattern) except -1:
    begin_class(&recv_class, "receive of a stream", offset(pattern, &pattern.core.op))
    recv_class.prep = le_operation_prep
    recv_class.on_cqe = on_recv
    begin_class(&hangup_class, "hangup of a stream", offset(pattern, &pattern.io.many.hangup))
    hangup_class.prep = le_many_prep_hangup
    hangup_class.on_cqe = le_stream_on_hangup
    begin_class(&send_class, "send of a stream", offset(pattern, &pattern.io.send))
    send_class.prep = le_stream_prep_send
    send_class.on_cqe = le_stream_on_send
    stream_class.abi = LE_WATCHER_ABI
    stream_class.name = "stream"
    stream_class.on_dispatch = <le_watcher_function>dispatch
    stream_class.on_stop = <le_watcher_function>stop
    stream_class.on_release = <le_watcher_function>forget
    return 0


begin_classes(Transport.__new__(Transport))


cdef int stream_init(Transport self, Engine loop, int fd, uint32_t flags) except -1:
    cdef le_stream *io = &self.io
    check_memory(le_results_reserve(&loop.core.results, loop.batch_max))
    self.owner = loop
    self.core.head.cls = &stream_class
    self.core.op.cls = &recv_class
    io.operation = &self.core
    io.loop = &loop.core
    io.drop = le_bytes_drop
    io.many.op = &self.core.op
    io.many.hangup.cls = &hangup_class
    io.many.is_datagram = False
    io.send.cls = &send_class
    io.high, io.low = HIGH_DEFAULT, HIGH_DEFAULT // 4
    io.flags = flags | LE_STREAM_PAUSED
    if not flags & LE_STREAM_NO_READING:
        io.many.pool = &pool_argument(loop, None).pool
    io.fd = fd
    if io.many.pool != NULL:
        io.many.pool.users += 1
        le_stream_prep_recv(io)
    le_operation_enter(&loop.core, &self.core)
    loop.core.streams += 1
    Py_INCREF(self)  # the loop's, until on_close is called
    return 0


cdef int stream_begin(Transport self) except -1:
    cdef le_stream *io = &self.io
    if io.flags & (LE_STREAM_BEGUN | LE_STREAM_CLOSING | LE_STREAM_ENDING):
        return 0
    io.flags |= LE_STREAM_BEGUN
    if not io.flags & LE_STREAM_PAUSED:
        start_reading(self)
    else:
        self.core.sqe.fd = io.fd
        op_start(self.owner, &io.many.hangup)  # to hear of the end all the same
    return stream_changed(self)


# -- Reading -----------------------------------------------------------------------------------------------------------

cdef int stream_reading_changed(Transport self) except -1:
    """pause_reading(), resume_reading(), on_data: whether something may be handed over may have changed."""
    cdef le_stream *io = &self.io
    if io.flags & LE_STREAM_NO_READING:
        return 0
    if not self.must_read and (self.is_paused or self.data_function is None):
        io.flags |= LE_STREAM_PAUSED  # what is in flight may go on until data come: a short pause costs nothing
        if io.flags & LE_STREAM_BROKEN:
            le_stream_collect(io)  # nobody takes what has come, so that it is over
        elif not self.is_paused:
            look_again(self)
    elif io.flags & LE_STREAM_PAUSED:
        io.flags &= ~<uint32_t>LE_STREAM_PAUSED
        if io.flags & LE_STREAM_BEGUN and not io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING):
            start_reading(self)
            stream_changed(self)
    return 0


cdef int start_reading(Transport self) except -1:
    cdef le_stream *io = &self.io
    if self.filter is not None:
        io.flags |= LE_STREAM_PARKED  # it may have kept something
    if io.flags & LE_STREAM_PARKED or io.many.is_over or io.many.results.first:
        le_stream_collect(io)
    if not io.flags & LE_STREAM_PARKED and not io.many.is_over and io.many.link.next == NULL:  # else it waits for a buffer
        op_start(self.owner, &self.core.op)
    return 0


cdef int park(Transport self) except -1:
    """There is a pause: what has come leaves the pool, which others need, and nothing more is received."""
    try:
        while self.io.many.results.first:
            park_one(self)
    except MemoryError:
        wait_for_memory(self)
    return op_stop(self.owner, &self.core.op)


cdef int park_one(Transport self) except -1:
    if self.parked is None:
        self.parked = []
    self.parked.append(None)  # the room first: what has left its buffer must not be lost for want of it
    try:
        self.parked[-1] = take_data(self, le_results_first(&self.owner.core.results, &self.io.many.results))
    except BaseException:
        del self.parked[-1]
        raise
    self.io.flags |= LE_STREAM_PARKED
    le_results_drop(&self.owner.core.results, &self.io.many.results)
    return 0


cdef int wait_for_memory(Transport self) except -1:
    stream_set_timer(self, le_clock_after(le_clock_ns(), MEMORY_PAUSE_NS))  # a pause lets others free some
    raise MemoryError


cdef object take_data(Transport self, const le_result *item):
    """The bytes of a result; its buffer goes back to the pool. Where there is no memory nothing has happened."""
    cdef uint32_t number = item.flags >> IORING_CQE_BUFFER_SHIFT
    cdef le_pool *pool = le_many_pool(&self.io.many, item.flags)
    cdef PyObject *data = PyBytes_New(le_pool_buffer(pool, number), item.result)
    if unlikely(data == NULL):
        wait_for_memory(self)
    le_pool_give(pool, number)
    result = <object>data
    Py_DECREF(result)
    return result


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *stream) except -1:
    cdef Transport self = <Transport>stream
    if unlikely(self.io.flags & LE_STREAM_ATTENTION or self.io.many.is_over or self.is_timed
                or not self.io.many.results.first):
        return attend(self)
    return deliver_data(self)


cdef int attend(Transport self) except -1:
    """Whatever has happened: one call at most is made of it."""
    cdef le_stream *io = &self.io
    self.owner.core.callbacks -= 1
    if io.flags & LE_STREAM_ENDING or self.core.flags & LE_OPERATION_ENDED:
        if self.core.flags & LE_OPERATION_ENDED or not le_stream_is_out(io, NULL):
            return stream_finish(self)
        return 0
    if self.is_timed and self.core.head.heap_slot == LE_NOT_IN_HEAP and stream_tick(self):
        return 0
    if io.flags & LE_STREAM_SPENT:
        stream_drop_spent(self)
    if io.many.results.first and io.flags & (LE_STREAM_PAUSED | LE_STREAM_PARKED):
        park(self)
    if io.flags & LE_STREAM_HUNG:
        look_for_end(self)
    if io.flags & LE_STREAM_GATHERED and not io.flags & LE_STREAM_ENDING:
        io.flags &= ~<uint32_t>LE_STREAM_GATHERED
        self.filter.gathered(self)
    # Each of these may have ended it.
    if io.flags & LE_STREAM_ENDING:
        return 0
    if io.flags & LE_STREAM_BROKEN and (not le_stream_wants(io) or not io.flags & LE_STREAM_BEGUN):
        return stream_fail(self, io.error)
    if io.flags & LE_STREAM_EOF_WANTED and not io.flags & (LE_STREAM_SHUT | LE_STREAM_BROKEN) and not io.queued:
        stream_shut(self)
        if self.closes_later:
            return self.filter.gathered(self)
    if io.flags & LE_STREAM_CLOSING:
        return 0 if io.queued else stream_end(self, None)
    if io.flags & LE_STREAM_ABOVE and not io.flags & LE_STREAM_BROKEN and is_drained(self):
        io.flags &= ~<uint32_t>LE_STREAM_ABOVE
        if self.drain_function is not None:
            le_stream_collect(io)  # there may be more to look at
            self.owner.core.callbacks += 1
            self.drain_function(self)
            return 0
    if io.flags & LE_STREAM_PAUSED:
        io.flags &= ~<uint32_t>LE_STREAM_READY  # it is polled again after the pause
        if io.many.is_over and not io.flags & (LE_STREAM_EOF | LE_STREAM_PARKED) and (io.many.outcome < 0 or not self.is_paused):
            return end_of_data(self)
        return 0
    if io.flags & LE_STREAM_PARKED:
        return deliver_parked(self)
    if io.many.results.first:
        self.owner.core.callbacks += 1
        return deliver_data(self)
    if io.flags & LE_STREAM_READY:
        return receive(self)
    if io.many.is_over and not io.flags & LE_STREAM_EOF:
        return end_of_data(self)
    return 0


cdef bint is_drained(Transport self) noexcept:
    return (self.io.queued + (0 if self.filter is None else self.filter.queued) <= self.io.low) and not self.closes_later


cdef int deliver_data(Transport self) except -1:
    cdef le_stream *io = &self.io
    cdef const le_result *item = le_results_first(&self.owner.core.results, &io.many.results)
    data = take_data(self, item)
    if le_stream_weigh(io, item):
        if le_stream_resize(io):
            op_stop(self.owner, &self.core.op)  # and it is armed again
        elif io.many.link.next != NULL:
            le_many_leave(&self.owner.core, &io.many)  # it needs no buffer any more
            op_start(self.owner, &self.core.op)
    le_results_drop(&self.owner.core.results, &io.many.results)
    if io.many.results.first or io.many.is_over or io.flags & LE_STREAM_READY:
        le_stream_collect(io)
    if unlikely(self.core.sqe.ioprio and not le_op_is_out(&io.many.hangup)):
        op_start(self.owner, &io.many.hangup)  # see le_many.h: from the first data on the end may be missed
    if unlikely(self.filter is not None):
        self.owner.core.callbacks -= 1  # it counts the calls that it makes
        return self.filter.received(self, data)
    return stream_hand_over(self, data)


cdef int receive(Transport self) except -1:
    """A big stream has something to receive."""
    global hot
    cdef le_stream *io = &self.io
    cdef Py_ssize_t size
    io.flags &= ~<uint32_t>LE_STREAM_READY
    if unlikely(hot == NULL):
        hot = <char *>malloc(LE_BIG_BYTES)
        if hot == NULL:
            wait_for_memory(self)
    size = recv(io.fd, hot, LE_BIG_BYTES, MSG_DONTWAIT)
    self.owner.core.other_syscalls += 1
    if unlikely(size <= 0):
        if size < 0 and errno in (EAGAIN, EINTR, ENOMEM, ENOBUFS):
            return op_start(self.owner, &self.core.op)
        io.many.is_over = True
        io.many.outcome = 0 if size == 0 else -errno
        return end_of_data(self)
    le_stream_is_active(io)
    if size >= LE_BIG_PIECE:
        io.many.streak = 0
    else:
        io.many.streak += 1
        if io.many.streak == LE_SMALL_STREAK:
            le_stream_resize(io)
    whole = None
    try:
        whole = PyBytes_FromStringAndSize(hot, size)
    except MemoryError as error:
        stream_end(self, error)  # the bytes are lost: that is not to be overlooked
    if whole is None:
        return 0
    op_start(self.owner, &self.core.op)
    if unlikely(self.filter is not None):
        return self.filter.received(self, whole)
    self.owner.core.callbacks += 1
    return stream_hand_over(self, whole)


cdef int deliver_parked(Transport self) except -1:
    cdef le_stream *io = &self.io
    if self.filter is not None:
        self.filter.resumed(self)
        if io.flags & (LE_STREAM_PAUSED | LE_STREAM_CLOSING | LE_STREAM_ENDING):
            return 0
    if not self.parked:
        self.parked = None
        io.flags &= ~<uint32_t>LE_STREAM_PARKED
        start_unparked(self)
        return 0
    data = self.parked.pop(0)
    if not self.parked:
        self.parked = None
        io.flags &= ~<uint32_t>LE_STREAM_PARKED
        start_unparked(self)
    else:
        le_stream_collect(io)
    if self.filter is not None:
        return self.filter.received(self, data)
    self.owner.core.callbacks += 1
    return stream_hand_over(self, data)


cdef int start_unparked(Transport self) except -1:
    """All that was put aside is handed over, or about to be: receive again."""
    if self.io.many.is_over or self.io.many.results.first:
        le_stream_collect(&self.io)
    if not self.io.many.is_over and self.io.many.link.next == NULL:
        op_start(self.owner, &self.core.op)
    return stream_changed(self)


cdef int end_of_data(Transport self) except -1:
    cdef le_stream *io = &self.io
    if io.flags & LE_STREAM_BROKEN:
        return stream_fail(self, io.error)
    if io.many.outcome < 0:
        return stream_fail(self, -io.many.outcome)
    io.flags |= LE_STREAM_EOF
    op_stop(self.owner, &io.many.hangup)
    if self.filter is not None:
        return self.filter.ended(self)
    return stream_hand_eof(self)


cdef int look_again(Transport self) except -1:
    """A pause has ended and nobody asks for data: the end may have come in the pause, and was not told."""
    cdef le_stream *io = &self.io
    if not io.flags & LE_STREAM_BEGUN or io.flags & (LE_STREAM_EOF | LE_STREAM_CLOSING | LE_STREAM_ENDING):
        return 0
    if self.filter is not None:
        io.flags |= LE_STREAM_GATHERED  # it looks at what it has, and receives where it has to
    elif not io.flags & LE_STREAM_HUNG and not io.many.is_over:
        if not le_op_is_out(&io.many.hangup):  # it has told of the end while somebody asked for data
            self.core.sqe.fd = io.fd
            op_start(self.owner, &io.many.hangup)
        return 0
    le_stream_collect(io)
    return stream_changed(self)


cdef int look_for_end(Transport self) except -1:
    """The other end may have gone, while nothing is received."""
    cdef le_stream *io = &self.io
    cdef Py_ssize_t count
    cdef char byte = 0
    if io.flags & LE_STREAM_NO_READING:
        if io.queued or io.flags & LE_STREAM_BROKEN:
            return stream_fail(self, EPIPE)
        return stream_end(self, None)
    if not io.flags & LE_STREAM_PAUSED or io.flags & LE_STREAM_PARKED or io.many.is_over:
        io.flags &= ~<uint32_t>LE_STREAM_HUNG  # receiving will tell
        return 0
    op_stop(self.owner, &self.core.op)  # it may have taken data that have not been seen yet
    if le_op_is_out(&self.core.op):
        return 0
    self.owner.core.other_syscalls += 1
    if io.flags & LE_STREAM_NO_SOCKET:
        count = 0 if is_at_end(io.fd) else 1
    else:
        count = recv(io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
    if count == 0 and self.is_paused:
        return 0  # it is told when the pause ends
    io.flags &= ~<uint32_t>LE_STREAM_HUNG
    if count < 0 and errno != EAGAIN:
        return stream_fail(self, errno)
    if count == 0:
        io.many.is_over = True
        io.many.outcome = 0
        return end_of_data(self)
    return 0


cdef bint is_at_end(int fd) noexcept:
    """Whether nobody writes to a pipe any more, and nothing is left in it."""
    cdef pollfd asked
    asked.fd, asked.events, asked.revents = fd, POLLIN, 0
    return poll(&asked, 1, 0) == 1 and not asked.revents & POLLIN


# -- The end of the loop --------------------------------------------------------------------------------------------

cdef int stop(void *stream) except -1:
    """The loop is being closed."""
    cdef Transport self = <Transport>stream
    if self.io.flags & LE_STREAM_ENDING:
        return 0
    return stream_end(self, loop_was_closed())


cdef int forget(void *stream) except -1:
    """Nobody is to be told of the end: the loop is being collected."""
    (<Transport>stream).close_function = None
    return 0
