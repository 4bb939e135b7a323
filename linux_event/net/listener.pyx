"""Listeners: sockets that accept connections, and hand them over as streams.

To the loop a listener is an operation with many results, as accept_many is, that ends when it is closed.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint32_t
from linux_event.address cimport socket_of_fd
from linux_event.arguments cimport callable_argument, flag_argument, integer_within
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_LOOP_OPEN, LE_NOT_IN_HEAP, LE_NS_NEVER, LE_OP_AGAIN, LE_OP_ABI, LE_OP_END, LE_OP_EVERY_COMPLETION,
    LE_OP_LATER, LE_OPERATION_ENDED, LE_SHORTAGE_NEW, LE_SHORTAGE_NONE, LE_SHORTAGE_WAITS, LE_WATCHER_ABI, LE_WATCHER_OBJECT,
    le_clock_after, le_clock_ns, le_heap_add, le_heap_remove, le_loop, le_many_drop, le_many_on_cqe, le_many_prep,
    le_many_prep_accept, le_op, le_op_class, le_op_is_out, le_op_owner, le_op_verdict, le_operation_end, le_operation_enter,
    le_operation_leave, le_results_drop, le_results_first, le_results_reserve, le_watcher_class, le_watcher_collect,
    le_watcher_function,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.liburing cimport IORING_CQE_F_MORE, io_uring_sqe
from linux_event.linux cimport SOMAXCONN, close
from linux_event.loop cimport add_method
from linux_event.net.binding cimport binding_new, binding_remove_path
from linux_event.net.receiving cimport stream_begin
from linux_event.net.stream cimport Stream, stream_new
from linux_event.net.tls cimport tls_begin, tls_check, tls_timeout
from linux_event.net.transport cimport Transport, stream_end
from linux_event.requests cimport loop_guard, op_start, op_stop

import os

cdef extern from *:
    """
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    """
    ctypedef int (*inquiry)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    # Without an fd to be had accepting pauses. Nobody tells when this process or, of ENFILE, another one closes some.
    SHORTAGE_PAUSE_NS = 100_000_000
    MEMORY_PAUSE_NS = 10_000_000


@cython.final
cdef class Listener:
    """A socket that accepts connections, as ``loop.listen`` returns it. The loop keeps it alive until it is closed.

    Used in a ``with`` statement it is closed at the end. Stands on IORING_OP_ACCEPT with IORING_ACCEPT_MULTISHOT. See accept(2).
    """

    def __cinit__(self):
        self.core.head.heap_slot = LE_NOT_IN_HEAP
        self.io.fd = -1
        if LE_WATCHER_OBJECT(&self.core.head) != <PyObject *>self:
            raise SystemError("the le_operation of a Listener is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError("Listener cannot be created: call listen() of a Loop")

    def pause(self):
        """Accept no more until ``resume``. Idempotent. Those who connect meanwhile wait in the queue of the socket.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.is_closing:
            return
        loop_guard(self.owner)
        self.io.is_paused = True
        op_stop(self.owner, &self.core.op)
        changed(self)

    def resume(self):
        """End the pause. Idempotent.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.is_closing:
            return
        loop_guard(self.owner)
        self.io.is_paused = False
        go_on(self)
        changed(self)

    def close(self):
        """Accept no more, for good, and close the socket, unless it was given. Idempotent. Streams are not concerned.

        The file of a Unix socket is removed, if it is still that of this listener. Connections that nobody was told of are
        closed.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on IORING_OP_ASYNC_CANCEL and close(2): the address is free when the loop has entered the kernel the next time.
        """
        if self.io.is_closing:
            return
        if is_entered(self):
            loop_guard(self.owner)
        listener_close(self)

    def is_paused(self):
        """Return whether ``pause`` was called: a bool. That ``limit`` is reached is no pause."""
        return self.io.is_paused

    def is_closed(self):
        """Return whether ``close`` was called, or the listener has ended by itself: a bool."""
        return self.io.is_closing

    @property
    def on_connect(self):
        """``callback(stream)``: a connection has been made. Assignable."""
        return self.function

    @on_connect.setter
    def on_connect(self, function):
        callable_argument(function, "on_connect")
        self.function = function

    @property
    def connections(self):
        """How many of its streams are not over yet, an int."""
        return self.connection_count

    @property
    def limit(self):
        """How many connections it has at a time at most, an int, or None."""
        return self.io.limit or None

    @property
    def sockname(self):
        """The address of the socket, as ``socket.getsockname`` gives it."""
        return self.place.local

    @property
    def socket(self):
        """The ``socket.socket``: the one that was given, or one that is made when it is asked for first; None once closed.

        For options. Neither accept nor close with it.
        """
        if self.io.fd < 0 or type(self.place.kept) is not int and self.place.kept is not None:
            return self.place.kept
        if self.sock is None:
            self.sock = socket_of_fd(self.io.fd, self.io.fd)
        return self.sock

    def fileno(self):
        """Return the fd, an int; -1 once it is closed."""
        return self.io.fd

    @property
    def loop(self):
        """The loop of the listener."""
        return self.owner

    @property
    def data(self):
        """Anything of the user's, default None. Assignable at any time."""
        return self.data_value

    @data.setter
    def data(self, data):
        self.data_value = data

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        state = "closed" if self.io.is_closing else "paused" if self.io.is_paused else "open"
        return f"<{type(self).__name__} {self.place.local!r} connections={self.connection_count} {state}>"

    def __dealloc__(self):
        close_fd(&self.io)


cdef inline bint is_entered(Listener self) noexcept:
    return self.core.link.next != NULL


cdef inline int changed(Listener self) except -1:
    """loop_changed(), where it could have anything to do."""
    if self.owner.core.cancelling or self.owner.core.is_embedded:
        loop_changed(self.owner)
    return 0


# -- The request -------------------------------------------------------------------------------------------------------

cdef inline bint wants(const listener_state *io) noexcept nogil:
    return not io.is_paused and not io.is_closing and (not io.limit or io.taken < io.limit)


cdef void close_fd(listener_state *io) noexcept nogil:
    if io.owns_fd and io.fd >= 0:
        close(io.fd)
    io.fd = -1


cdef void prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    le_many_prep(op, &(<Listener>le_op_owner(op)).io.many, sqe)


cdef le_op_verdict on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef listener_state *io = &(<Listener>le_op_owner(op)).io
    cdef le_op_verdict verdict
    if io.is_closing:
        if result >= 0:
            close(result)
        if not flags & IORING_CQE_F_MORE:
            close_fd(io)
            le_watcher_collect(loop, &(<Listener>le_op_owner(op)).core.head, LE_LANE_COMPLETIONS)
        return LE_OP_END
    verdict = le_many_on_cqe(loop, op, &io.many, result, flags)
    io.taken += result >= 0 and verdict != LE_OP_LATER
    return LE_OP_END if verdict == LE_OP_AGAIN and not wants(io) else verdict


cdef uint32_t offset(Listener self) noexcept:
    return <uint32_t>(<char *>&self.core.op - <char *><PyObject *>self)


cdef le_op_class accept_class
accept_class.abi = LE_OP_ABI
accept_class.name = "listener"
accept_class.owner_offset = offset(Listener.__new__(Listener))
accept_class.prep = prep
accept_class.on_cqe = on_cqe
accept_class.interest = LE_OP_EVERY_COMPLETION
cdef le_watcher_class listener_class
listener_class.abi = LE_WATCHER_ABI
listener_class.name = "listener"
listener_class.on_dispatch = <le_watcher_function>dispatch
listener_class.on_stop = <le_watcher_function>stop
listener_class.on_release = <le_watcher_function>forget


cdef int go_on(Listener self) except -1:
    """Accept, unless something is against it."""
    if self.parked or self.io.many.results.first:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    if wants(&self.io) and self.io.many.shortage == LE_SHORTAGE_NONE and not self.io.many.is_over:
        op_start(self.owner, &self.core.op)
    return 0


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *listener) except -1:
    cdef Listener self = <Listener>listener
    cdef listener_state *io = &self.io
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
    if self.parked:
        return deliver(self, self.parked[0], True)
    if io.many.results.first:
        return deliver(self, le_results_first(&self.owner.core.results, &io.many.results).result, False)
    if io.many.is_over:
        fail(self)
    return 0


cdef int park(Listener self) except -1:
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


cdef int deliver(Listener self, int fd, bint is_parked) except -1:
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
        raise
    take(self, is_parked)
    stream.listener = self
    stream.lost = lost
    self.connection_count += 1
    self.io.is_short = False
    if self.context is None:
        return listener_connected(self, stream)
    try:
        tls_begin(stream, self.context, True, None, self.handshake_ns, tls_done, self)
    except BaseException:  # the context was changed meanwhile
        stream_end(stream, None)
        raise
    return stream_begin(stream)


cdef int take(Listener self, bint is_parked) except -1:
    if is_parked:
        del self.parked[0]
        if not self.parked:
            self.parked = None
    else:
        le_results_drop(&self.owner.core.results, &self.io.many.results)
    if self.parked or self.io.many.results.first or self.io.many.is_over:
        le_watcher_collect(&self.owner.core, &self.core.head, LE_LANE_COMPLETIONS)
    return 0


cdef int listener_connected(Listener self, Stream stream) except -1:
    self.owner.core.callbacks += 1
    try:
        self.function(stream)
    except BaseException:
        stream_end(stream, None)  # nobody will look after it
        raise
    return stream_begin(stream)


cdef int tls_done(object listener, Transport stream, object error) except -1:
    """The TLS handshake with a connection is over."""
    cdef Listener self = listener
    if error is None:
        return listener_connected(self, <Stream>stream)
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
    cdef Listener self = listener
    self.connection_count -= 1
    self.io.taken -= 1
    if self.owner.core.state != LE_LOOP_OPEN or self.io.is_closing:
        return 0
    if self.io.many.shortage == LE_SHORTAGE_WAITS:
        end_pause(self)
    return go_on(self)


# -- Shortage ----------------------------------------------------------------------------------------------------------

cdef int set_timer(Listener self, int64_t after_ns) except -1:
    cdef Engine loop = self.owner
    le_heap_remove(&loop.core.heap, &self.core.head)
    self.io.is_timed = True
    if le_heap_add(&loop.core.heap, &self.core.head, le_clock_after(le_clock_ns(), after_ns)):
        # No memory for that: the time has come, then.
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)
    return 0


cdef int end_pause(Listener self) except -1:
    le_heap_remove(&self.owner.core.heap, &self.core.head)
    self.io.is_timed = False
    self.io.many.shortage = LE_SHORTAGE_NONE
    return go_on(self)


cdef int tell_shortage(Listener self) except -1:
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

cdef int listener_close(Listener self) except -1:
    cdef Engine loop = self.owner
    self.io.is_closing = True
    binding_remove_path(self.place)
    le_many_drop(&loop.core, &self.io.many)
    for fd in self.parked or ():
        close(fd)
    self.parked = None
    if not is_entered(self):
        close_fd(&self.io)
        return 0
    le_heap_remove(&loop.core.heap, &self.core.head)
    op_stop(loop, &self.core.op)
    if not le_op_is_out(&self.core.op):
        close_fd(&self.io)
        le_watcher_collect(&loop.core, &self.core.head, LE_LANE_COMPLETIONS)
    return changed(self)


cdef int fail(Listener self) except -1:
    """The kernel accepts no more: the socket was shut down, or closed."""
    number = -self.io.many.outcome
    error = OSError(number, os.strerror(number), self.io.fd)
    listener_close(self)
    return self.owner.tell(self, error)


cdef int finish(Listener self) except -1:
    cdef Engine loop = self.owner
    if not self.core.flags & LE_OPERATION_ENDED:
        le_operation_end(&loop.core, &self.core, 0)
    le_operation_leave(&loop.core, &self.core)
    loop.core.listeners -= 1
    self.io.is_closing = True
    close_fd(&self.io)
    if self.sock is not None:
        self.sock.detach()
    self.function = self.sock = self.place.kept = None
    Py_DECREF(self)  # the loop's; the caller has one of its own
    return 0


cdef int stop(void *listener) except -1:
    """The loop is being closed."""
    cdef Listener self = <Listener>listener
    if not self.io.is_closing:
        listener_close(self)
    return 0


cdef int forget(void *listener) except -1:
    return 0


# -- loop.listen -------------------------------------------------------------------------------------------------------

cdef Listener listener_new(object loop, object address, object backlog, object reuse_port, object limit):
    cdef Listener self = Listener.__new__(Listener)
    cdef Engine engine
    if not isinstance(loop, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
    engine = loop
    loop_guard(engine)
    if limit is not None:
        self.io.limit = <uint32_t>integer_within(limit, "limit", 1, UINT32_MAX)
    check_memory(le_results_reserve(&engine.core.results, engine.batch_max))
    self.owner = engine
    self.core.head.cls = &listener_class
    self.core.op.cls = &accept_class
    self.io.many.op = &self.core.op
    self.io.many.deadline_ns = LE_NS_NEVER
    self.place = binding_new(address, backlog, flag_argument(reuse_port, "reuse_port"))
    self.io.fd, self.place.fd = self.place.fd, -1
    self.io.owns_fd = self.place.owns_fd
    le_many_prep_accept(&self.core, self.io.fd)
    if self.io.limit:
        self.core.sqe.ioprio = 0  # one at a time: those beyond the limit are not to be accepted
    return self


cdef int listener_start(Listener self, object on_connect) except -1:
    callable_argument(on_connect, "on_connect")
    loop_guard(self.owner)
    self.function = on_connect
    le_operation_enter(&self.owner.core, &self.core)
    self.owner.core.listeners += 1
    Py_INCREF(self)  # the loop's, until it is closed
    op_start(self.owner, &self.core.op)
    return changed(self)


@cython.final
cdef class _Decorator:
    """Waits for the function below the decorator line, and returns the listener in its place."""
    cdef Listener listener

    def __call__(self, on_connect):
        """Make ``on_connect`` that of the listener, start it, and return it."""
        if self.listener is None:
            raise RuntimeError("this decorator has already made its listener: call listen() again")
        listener_start(self.listener, on_connect)
        listener, self.listener = self.listener, None
        return listener

    def __dealloc__(self):
        if self.listener is not None and not is_entered(self.listener):
            binding_remove_path(self.listener.place)


@cython.binding(True)
def _listen(self, address, on_connect=None, *, backlog=SOMAXCONN, reuse_port=False, tls=None, limit=None,
            handshake_timeout=60.0):
    """Listen for connections, and hand each of them over as a ``Stream``.

    :param address: ``(host, port)`` with a numeric host, ``"localhost"`` (127.0.0.1), or ``""`` or None: all addresses of IPv4
        and IPv6 (``"::"``: of IPv6 only); port 0: one that is free, see ``sockname``. Or a path for a Unix socket; what is
        there of one that nobody listens on any more is replaced; a name in the abstract namespace begins with a NUL. Or a
        listening stream socket, or its fd: it stays yours to close, when the listener is closed.
    :param on_connect: ``callback(stream)``: assign the callbacks of the stream in it. The stream receives when it has returned.
        Where it raises, the stream is closed. Left out: ``listen`` is a decorator, which returns the listener.
    :param backlog: connections that the kernel makes in advance, an int, 0 or more; ``net.core.somaxconn`` at most.
    :param reuse_port: True: other sockets may be bound to the same address, and the kernel spreads the connections. See
        socket(7).
    :param tls: an ``ssl.SSLContext``: the streams speak TLS, see ``Stream.start_tls``. ``on_connect`` is called when the
        handshake is done. One that fails is told to the loop's ``on_error``, with the listener; without,
        it is logged at level DEBUG.
    :param limit: connections at a time, an int, 1 or more; others wait in the queue of the socket. None: any number.
    :param handshake_timeout: seconds, int or float, more than 0, after which a TLS handshake has failed; None: never.
    :returns: the ``Listener``, which keeps ``run`` going until it is closed.
    :raises ValueError: a host that is not numeric (resolve it first), a socket that does not listen, a number out of range, a
        NUL in a path.
    :raises OSError: the address is in use (EADDRINUSE), not of this machine (EADDRNOTAVAIL), not allowed (EACCES), ...
    :raises ssl.SSLError: ``tls`` is not for servers.
    :raises TypeError: an argument has a wrong type.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Where fds are short (EMFILE, ENFILE) it is told once, by the loop's ``on_error`` or, without, by a warning on the logger
    ``linux_event``, and it goes on when one of its streams has ended, or a tenth of a second later. Sockets of TCP have
    TCP_NODELAY.

    Stands on IORING_OP_ACCEPT, socket(2), bind(2), listen(2). See ip(7), ipv6(7), unix(7).
    """
    cdef Listener listener
    cdef _Decorator decorator
    cdef int64_t handshake_ns = tls_timeout(handshake_timeout)
    if tls is not None:
        tls_check(tls, True, None)
    if on_connect is not None:
        callable_argument(on_connect, "on_connect")
    listener = listener_new(self, address, backlog, reuse_port, limit)
    listener.context, listener.handshake_ns = tls, handshake_ns
    if on_connect is None:
        decorator = _Decorator.__new__(_Decorator)
        decorator.listener = listener
        return decorator
    listener_start(listener, on_connect)
    return listener


add_method("listen", _listen)


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *listener) noexcept:
    """Break cycles through what is the user's. The loop stays: the destructor needs it."""
    cdef Listener self = <Listener>listener
    self.function = self.data_value = None
    return 0


LE_SET_CLEAR(Listener, clear)
