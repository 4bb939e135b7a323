"""Operations with many results: accept_many, recv_many. One multishot request each, armed again whatever has ended it early.

What completions do is in le_many.h. Here their results are handed over, one with each call of dispatch: an operation that has
more goes to the end of its lane. So they count for max_events like everything else, and a busy connection starves nobody.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint32_t
from linux_event.address cimport is_socket_object, socket_of_fd
from linux_event.arguments cimport seconds_to_ns
from linux_event.core cimport (
    IORING_CQE_BUFFER_SHIFT, IORING_CQE_F_SOCK_NONEMPTY, LE_LANE_COMPLETIONS, LE_NOT_IN_HEAP, LE_NS_NEVER,
    LE_OPERATION_CANCELLED, LE_OPERATION_ENDED, LE_OPERATION_KEPT, LE_OPERATION_TIMED_OUT, LE_OP_ABI,
    LE_OP_EVERY_COMPLETION, LE_OP_QUEUED, LE_SHORTAGE_NEW, LE_SHORTAGE_NONE, LE_SHORTAGE_WAITS, le_clock_after, le_clock_ns,
    le_heap_add, le_heap_remove, le_loop, le_many, le_many_drop, le_many_end, le_many_leave, le_many_move, le_many_on_cqe,
    le_many_on_hangup, le_many_pool, le_many_prep, le_many_prep_accept, le_many_prep_hangup, le_many_prep_recv, le_op,
    le_op_class, le_op_is_out, le_op_owner, le_op_verdict, le_operation_end, le_pool, le_pool_buffer, le_pool_give,
    le_result, le_results_drop, le_results_first, le_results_reserve, le_watcher_collect, le_watcher_function,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.liburing cimport io_uring_sqe
from linux_event.linux cimport ECANCELED, SO_TYPE, SOCK_DGRAM, SOL_SOCKET, close, getsockopt, socklen_t
from linux_event.loop cimport add_method
from linux_event.operation cimport Operation, kind_begin, operation_begin, operation_enter, operation_fd, operation_kind
from linux_event.pool cimport BufferPool, big_pool, pool_argument
from linux_event.requests cimport op_start, op_stop

import os

cdef extern from *:
    PyObject *PyBytes_New "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size) noexcept
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *arg) noexcept
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t count, PyObject *names) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    # Without an fd to be had accepting pauses. Nobody tells when this process or, of ENFILE, another one closes some.
    SHORTAGE_PAUSE_NS = 100_000_000
    MEMORY_PAUSE_NS = 10_000_000
    # Pieces in a row: that have filled a small buffer with more behind them, or that a small buffer would have held.
    BIG_STREAK = 2
    SMALL_STREAK = 16


@cython.final
cdef class ManyOperation(Operation):
    """An operation that calls back once for each of its results, and once more at its end."""

    cdef le_many many
    cdef BufferPool buffers      # keeps many.pool alive
    cdef BufferPool big_buffers  # and many.other
    cdef bint is_adaptive        # those are the pools of the loop, to be used by turns


cdef void prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    le_many_prep(op, &(<ManyOperation>le_op_owner(op)).many, sqe)


cdef le_op_verdict on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    return le_many_on_cqe(loop, op, &(<ManyOperation>le_op_owner(op)).many, result, flags)


cdef operation_kind accept_kind
accept_kind.is_composite = True
accept_kind.abort = abort
kind_begin(&accept_kind, "accept_many")
cdef operation_kind recv_kind
recv_kind.is_composite = True
recv_kind.abort = abort
recv_kind.result = result_end
kind_begin(&recv_kind, "recv_many")
cdef le_watcher_function call_the_last_time = recv_kind.dispatch.on_dispatch
cdef le_op_class hangup_class
hangup_class.abi = LE_OP_ABI
hangup_class.name = "hangup of recv_many"
hangup_class.prep = le_many_prep_hangup
hangup_class.on_cqe = le_many_on_hangup
hangup_class.interest = LE_OP_EVERY_COMPLETION
hangup_class.owner_offset = hangup_offset(ManyOperation.__new__(ManyOperation))
accept_kind.request.prep = recv_kind.request.prep = prep
accept_kind.request.on_cqe = recv_kind.request.on_cqe = on_cqe
accept_kind.dispatch.on_dispatch = recv_kind.dispatch.on_dispatch = <le_watcher_function>dispatch


cdef uint32_t hangup_offset(ManyOperation self) noexcept:
    return <uint32_t>(<char *>&self.many.hangup - <char *><PyObject *>self)


cdef object result_end(Operation self):
    return b""


cdef ManyOperation begin(const operation_kind *kind, object loop, object callback, object on_success, object on_error,
                         object where):
    cdef ManyOperation self = ManyOperation.__new__(ManyOperation)
    operation_begin(self, kind, loop, callback, on_success, on_error, where)
    if callback is None and on_success is None:
        raise TypeError(f"{kind.name.decode()} needs a callback, or on_success: it has many results")
    self.many.op = &self.core.op
    self.many.hangup.cls = &hangup_class
    self.many.deadline_ns = LE_NS_NEVER
    check_memory(le_results_reserve(&self.owner.core.results, self.owner.batch_max))
    return self


cdef object start(ManyOperation self, object timeout):
    # The pool is in use from here on: the conversion of the timeout may run code of others, which closes it.
    if self.many.pool != NULL:
        self.many.pool.users += 1
    try:
        if timeout is not None:
            self.many.deadline_ns = le_clock_after(le_clock_ns(), seconds_to_ns(timeout, "timeout"))
            self.many.is_timed = True
        operation_enter(self, timeout)
    except BaseException:
        if self.many.pool != NULL:
            self.many.pool.users -= 1
        raise
    op_start(self.owner, &self.core.op)
    if self.many.pool != NULL and not self.many.is_datagram:
        op_start(self.owner, &self.many.hangup)
    loop_changed(self.owner)
    return self


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *operation) except -1:
    cdef ManyOperation self = <ManyOperation>operation
    if unlikely(self.core.flags & LE_OPERATION_ENDED):
        return finish(self)
    if unlikely(self.many.is_timed and self.core.head.heap_slot == LE_NOT_IN_HEAP):
        tick(self)
    elif self.many.results.first:
        if self.many.pool != NULL:
            return deliver_data(self)
        return deliver_connection(self)
    elif self.many.is_over:
        if le_op_is_out(&self.many.hangup):
            op_stop(self.owner, &self.many.hangup)
            if le_op_is_out(&self.many.hangup):
                self.owner.core.callbacks -= 1
                return 0  # until the kernel has let go of it
        le_operation_end(&self.owner.core, &self.core, self.many.outcome)
        return finish(self)
    elif self.many.shortage == LE_SHORTAGE_NEW:
        self.many.shortage = LE_SHORTAGE_WAITS
        set_timer(self, le_clock_after(le_clock_ns(), SHORTAGE_PAUSE_NS))
    self.owner.core.callbacks -= 1  # no callback has run
    collect_again(self)
    return 0


cdef inline void collect_again(ManyOperation self) noexcept:
    """To the end of the lane, if there is more to call back for."""
    if self.many.results.first or self.many.is_over or self.many.shortage == LE_SHORTAGE_NEW:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)


cdef int deliver_data(ManyOperation self) except -1:
    cdef const le_result *item = le_results_first(&self.owner.core.results, &self.many.results)
    cdef uint32_t number = item.flags >> IORING_CQE_BUFFER_SHIFT
    cdef le_pool *pool
    cdef PyObject *data
    if item.result > 0:
        pool = le_many_pool(&self.many, item.flags)
        data = PyBytes_New(le_pool_buffer(pool, number), item.result)
        if unlikely(data == NULL):
            later(self)  # the data stay, until there is memory
            return -1
        le_pool_give(pool, number)
        if self.is_adaptive:
            weigh(self, item)
    else:
        data = PyBytes_New(NULL, 0)
    le_results_drop(&self.owner.core.results, &self.many.results)
    collect_again(self)
    return hand_over(self, data)


cdef inline int weigh(ManyOperation self, const le_result *item) except -1:
    """See whether the buffers are of the right size for this connection."""
    cdef bint is_other_better
    if self.many.is_big:
        is_other_better = item.result <= <int32_t>self.buffers.pool.size
    else:
        is_other_better = item.result == <int32_t>self.buffers.pool.size and item.flags & IORING_CQE_F_SOCK_NONEMPTY
    if not is_other_better:
        self.many.streak = 0
        return 0
    self.many.streak += 1
    if self.many.streak >= (SMALL_STREAK if self.many.is_big else BIG_STREAK):
        self.many.streak = 0
        change_pool(self)
    return 0


cdef int change_pool(ManyOperation self) except -1:
    if self.big_buffers is None:
        try:
            self.big_buffers = big_pool(self.owner)
        except (MemoryError, OSError):
            self.is_adaptive = False
        if self.big_buffers is None:
            return 0
        self.big_buffers.pool.users += 1
        self.many.other = &self.big_buffers.pool
    if self.core.op.state == LE_OP_QUEUED:
        le_many_move(&self.many, &self.core)
    elif le_op_is_out(&self.core.op):
        self.many.is_moving = True
        op_stop(self.owner, &self.core.op)  # and it is armed again
    elif not self.many.is_over:  # it waits for a buffer
        le_many_leave(&self.owner.core, &self.many)
        le_many_move(&self.many, &self.core)
        op_start(self.owner, &self.core.op)
    return 0


cdef int deliver_connection(ManyOperation self) except -1:
    cdef int fd = le_results_first(&self.owner.core.results, &self.many.results).result
    try:
        result = accepted(self.kept, fd)
    except BaseException as error:
        # The connection stays, until there is memory, or the next time after Ctrl-C.
        if not isinstance(error, Exception) or isinstance(error, MemoryError):
            later(self)
        else:
            close(fd)
            le_results_drop(&self.owner.core.results, &self.many.results)
            collect_again(self)
        raise
    le_results_drop(&self.owner.core.results, &self.many.results)
    collect_again(self)
    Py_INCREF(result)
    return hand_over(self, <PyObject *>result)


cdef int hand_over(ManyOperation self, PyObject *value) except -1:
    """Call back, and drop the reference on the value."""
    cdef PyObject *args[2]
    cdef PyObject *function
    cdef PyObject *result
    if self.function is not None:
        function = <PyObject *>self.function
        args[0] = value
        args[1] = <PyObject *>None
        Py_INCREF(<object>function)
        result = PyObject_Vectorcall(function, args, 2, NULL)
    else:
        function = <PyObject *>self.succeeded
        Py_INCREF(<object>function)
        result = PyObject_CallOneArg(function, value)
    Py_DECREF(<object>function)
    Py_DECREF(<object>value)
    if unlikely(result == NULL):
        return -1
    Py_DECREF(<object>result)
    return 0


cdef int finish(ManyOperation self) except -1:
    """The last call: the end of the data, an error, or the cancellation."""
    if self.many.pool != NULL and not self.core.flags & LE_OPERATION_KEPT:
        self.buffers.pool.users -= 1
        if self.big_buffers is not None:
            self.big_buffers.pool.users -= 1
        self.many.pool = self.many.other = NULL
        self.buffers = self.big_buffers = None
    return call_the_last_time(<PyObject *>self)


# -- Deadlines, pauses, cancellation -----------------------------------------------------------------------------------

cdef void set_timer(ManyOperation self, int64_t at_ns) noexcept:
    """Have it called at that time, or at its deadline."""
    cdef Engine loop = self.owner
    le_heap_remove(&loop.core.heap, &self.core.head)
    self.many.is_timed = True
    if le_heap_add(&loop.core.heap, &self.core.head, min(at_ns, self.many.deadline_ns)):
        # No memory for that: the time has come, then.
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)


cdef void later(ManyOperation self) noexcept:
    """Memory is short, and an exception says so: a pause lets others free some."""
    set_timer(self, le_clock_after(le_clock_ns(), MEMORY_PAUSE_NS))


cdef int tick(ManyOperation self) except -1:
    """The time has come that was set: the deadline of the operation, or the end of a pause."""
    self.many.is_timed = False
    if self.many.is_over:
        return 0
    if le_clock_ns() >= self.many.deadline_ns:
        self.core.flags |= LE_OPERATION_TIMED_OUT
        abort(self)
        return 0
    if self.many.shortage == LE_SHORTAGE_WAITS:
        self.many.shortage = LE_SHORTAGE_NONE
        op_start(self.owner, &self.core.op)
    if self.many.deadline_ns != LE_NS_NEVER:
        set_timer(self, LE_NS_NEVER)
    return 0


cdef int abort(Operation operation) except -1:
    """Cancelled, or past the deadline. After a cancellation nothing is handed over any more."""
    cdef ManyOperation self = <ManyOperation>operation
    cdef Engine loop = self.owner
    le_heap_remove(&loop.core.heap, &self.core.head)
    self.many.is_timed = False
    self.many.shortage = LE_SHORTAGE_NONE
    le_many_leave(&loop.core, &self.many)
    if self.core.flags & LE_OPERATION_CANCELLED:
        le_many_drop(&loop.core, &self.many)
    op_stop(loop, &self.core.op)
    op_stop(loop, &self.many.hangup)
    if le_op_is_out(&self.core.op):
        return 0  # until the kernel has let go of it
    le_many_end(&loop.core, &self.many, -ECANCELED, &self.many.hangup)
    return 0


# -- accept_many -------------------------------------------------------------------------------------------------------

cdef object accepted(object listening, int fd):
    """The socket of a connection and the address of its other end."""
    sock = socket_of_fd(fd, listening)
    try:
        return sock, peer_address(sock)
    except BaseException:
        sock.detach()
        raise


cdef object peer_address(object sock):
    """A peer that has gone already leaves no address. What is told then has the form of one: programs unpack it."""
    peer = None
    try:
        peer = sock.getpeername()
    except OSError:
        pass
    if peer is not None:
        return peer
    address = sock.getsockname()
    if isinstance(address, tuple) and len(address) == 2:
        return "0.0.0.0", 0
    if isinstance(address, tuple) and len(address) == 4:
        return "::", 0, 0, 0
    return ""


@cython.binding(True)
def _accept_many(self, sock, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Accept connections, until it is cancelled.

    :param sock: a listening socket, or its fd.
    :param callback: ``callback(result, error)``. For each connection ``result`` is ``(socket, address)``, as for ``accept``, and
        ``error`` is None. At the end ``result`` is None. Never called within this method.
    :param on_success: ``on_success(result)``, for each connection, and
    :param on_error: ``on_error(error)``, at the end: the other form.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError; None: never.
    :returns: the ``Operation``. It ends on ``cancel()`` or an error only, so that it has no result.
    :raises TypeError: an argument has a wrong type, there is no callback, or both forms of them were given.
    :raises ValueError: ``sock`` is closed or negative, ``timeout`` out of range; inside ``link()``.
    :raises OSError: ``sock`` is an int and not open (EBADF).
    :raises MemoryError: there is no memory for the results.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    A shortage of fds or memory (EMFILE, ENFILE) does not end it: it goes on a tenth of a second later, and the connections stay
    in the queue of the socket meanwhile. Nor do connections that fail before they are accepted. The other end of a connection
    that has been reset already is told as ``("0.0.0.0", 0)``, or ``("::", 0, 0, 0)``. Connections that were accepted and not
    handed over when it was cancelled are closed.

    Stands on IORING_OP_ACCEPT with IORING_ACCEPT_MULTISHOT. See accept(2), getpeername(2).
    """
    is_socket_object(sock)  # imports socket now: it could not when fds are short
    cdef ManyOperation op = begin(&accept_kind, self, callback, on_success, on_error, sock)
    le_many_prep_accept(&op.core, operation_fd(op, sock))
    return start(op, timeout)


add_method("accept_many", _accept_many)


# -- recv_many ---------------------------------------------------------------------------------------------------------

cdef bint is_datagram(int fd) except -1:
    cdef int kind = 0
    cdef socklen_t size = sizeof(kind)
    if getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) < 0:
        raise OSError(errno, os.strerror(errno), fd)
    return kind == SOCK_DGRAM


@cython.binding(True)
def _recv_many(self, sock, callback=None, *, pool=None, on_success=None, on_error=None, timeout=None):
    """Receive from a socket all that comes, until the end of the data.

    :param sock: a connected socket, or its fd.
    :param callback: ``callback(result, error)``. For each piece of data ``result`` is bytes, and ``error`` is None; the last
        call gets ``b""`` at the end of the data, or None and the error. Never called within this method.
    :param pool: the ``BufferPool`` to receive into, whose ``size`` is the most that one call gets; None: the one of the loop.
    :param on_success: ``on_success(result)``, for each piece and ``b""`` at the end of the data, and
    :param on_error: ``on_error(error)``, at the end if there is an error: the other form.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError, once what
        has come by then is handed over; None: never.
    :returns: the ``Operation``; its result is ``b""``: what the last call gets.
    :raises TypeError: an argument has a wrong type, there is no callback, or both forms of them were given.
    :raises ValueError: ``sock`` is closed or negative, ``pool`` not of this loop, ``timeout`` out of range; inside ``link()``.
    :raises OSError: ``sock`` is an int and not open (EBADF), or it is no socket (ENOTSOCK); the kernel refuses the pool.
    :raises RuntimeError: ``pool`` is closed.
    :raises MemoryError: there is no memory for the results or the pool.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    The pieces come in their order, none is lost and none comes twice, also where buffers or memory are short: then the rest
    waits, in the end in the socket. After ``cancel()`` no data come any more, and those received and not handed over are lost.
    Where ``sock`` is one for datagrams each piece is one, cut to ``size``, and ``b""`` is an empty one: there is no end.

    Before the socket is closed the operation has to be done: while it is in flight the other end does not see the end.

    Stands on IORING_OP_RECV with IORING_RECV_MULTISHOT, and IORING_REGISTER_PBUF_RING. See recv(2).
    """
    cdef ManyOperation op = begin(&recv_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    op.many.is_datagram = is_datagram(fd)
    op.buffers = pool_argument(op.owner, pool)
    op.many.pool = &op.buffers.pool
    op.is_adaptive = pool is None and not op.many.is_datagram
    le_many_prep_recv(&op.core, &op.many, fd)
    return start(op, timeout)


add_method("recv_many", _recv_many)
