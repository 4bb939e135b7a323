"""Listeners: sockets that accept connections, and hand them over as streams. What they do is in acceptor.pyx."""

cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from linux_event.address cimport socket_of_fd
from linux_event.arguments cimport callable_argument, flag_argument, integer_within
from linux_event.core cimport le_results_reserve
from linux_event.engine cimport Engine
from linux_event.errors cimport check_memory
from linux_event.linux cimport SOMAXCONN
from linux_event.loop cimport add_method
from linux_event.net.acceptor cimport (
    Acceptor, acceptor_close, acceptor_drain, acceptor_init, acceptor_is_entered, acceptor_pause, acceptor_resume, acceptor_start,
)
from linux_event.net.binding cimport binding_new, binding_remove_path
from linux_event.net.tls cimport tls_check, tls_timeout
from linux_event.requests cimport loop_guard


@cython.final
cdef class Listener(Acceptor):
    """A socket that accepts connections, as ``loop.listen`` returns it. The loop keeps it alive until it is closed.

    Used in a ``with`` statement it is closed at the end. Stands on IORING_OP_ACCEPT with IORING_ACCEPT_MULTISHOT. See accept(2).
    """

    def pause(self):
        """Accept no more until ``resume``. Idempotent. Those who connect meanwhile wait in the queue of the socket.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.is_closing or self.io.is_draining:
            return
        loop_guard(self.owner)
        acceptor_pause(self)

    def resume(self):
        """End the pause. Idempotent.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.is_closing or self.io.is_draining:
            return
        loop_guard(self.owner)
        acceptor_resume(self)

    def drain(self, *, take_queue=None):
        """Let nobody in any more, hand over all who have connected already, and then close. Idempotent.

        For a server that ends, or makes way for another one: ``close`` resets the connections that wait in the queue of the
        socket, clients that have been told that they are connected. Here each of them comes to ``on_connect`` first, within
        ``limit``, which may take until streams have ended, and even where it is paused. Then the socket is closed, unless it
        was given, ``is_closed()`` is True, and ``on_close`` is called. Streams are not concerned: ``connections`` says how many
        are left. ``pause`` and ``resume`` do nothing any more; ``close`` ends it at once.

        :param take_queue: a bool. True: as told. Whoever has a copy of the socket gets no connections from it any more, and it
            does not block any more. False: the queue is left to those who accept from the same socket, and nobody is kept out;
            only what the listener has accepted is handed over. None: False for a socket that was given, True for others.

        What becomes of those who come too late, where the queue is taken:

        - TCP: their first packet is dropped, and sent again by their kernel a second later. By then another socket of the same
          address gets it (``reuse_port``); without one they are refused. Handshakes that have begun get a quarter of a second to
          end, which is what draining takes at least. One that takes longer is lost, unless the kernel may hand it on to another
          socket of the address (``reuse_port``, and ``net.ipv4.tcp_migrate_req`` is 1).
        - Unix: refused; the file is removed first.

        To replace processes so that no client notices it, let another one make the sockets and keep them, and give them to
        these: their queues outlive whoever ends or dies.

        :raises TypeError: ``take_queue`` is neither a bool nor None.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on IORING_OP_ASYNC_CANCEL, SO_ATTACH_FILTER of socket(7), shutdown(2) and accept(2).
        """
        takes_queue = self.io.owns_fd if take_queue is None else flag_argument(take_queue, "take_queue")
        if self.io.is_closing or self.io.is_draining:
            return
        loop_guard(self.owner)
        acceptor_drain(self, takes_queue)

    def close(self):
        """Accept no more, for good, and close the socket, unless it was given. Idempotent. Streams are not concerned.

        The file of a Unix socket is removed, if it is still that of this listener. Connections that nobody was told of are
        closed, and those that wait in the queue of the socket are reset; ``drain`` hands them over first.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on IORING_OP_ASYNC_CANCEL and close(2): the address is free when the loop has entered the kernel the next time.
        """
        if self.io.is_closing:
            return
        if acceptor_is_entered(self):
            loop_guard(self.owner)
        acceptor_close(self)

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
    def on_close(self):
        """``callback(listener, error)``, or None: it has ended, and calls ``on_connect`` no more. Called once, and last.

        ``error`` is None after ``close`` and ``drain``; an OSError if the kernel accepts no more, which is told to the loop's
        ``on_error`` where this is None; CancelledError (of ``concurrent.futures``) when the loop was closed. Assignable."""
        return self.close_function

    @on_close.setter
    def on_close(self, function):
        if function is not None:
            callable_argument(function, "on_close")
        self.close_function = function

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
        if type(self.place.kept) is not int and self.place.kept is not None:
            return self.place.kept
        if self.io.fd < 0:
            return None
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
        state = "open"
        if self.io.is_closing:
            state = "closed"
        elif self.io.is_draining:
            state = "draining"
        elif self.io.is_paused:
            state = "paused"
        return f"<{type(self).__name__} {self.place.local!r} connections={self.connection_count} {state}>"


# -- loop.listen -------------------------------------------------------------------------------------------------------

cdef Listener listener_new(object loop, object address, object backlog, object reuse_port, object limit):
    cdef Listener self = Listener.__new__(Listener)
    cdef Engine engine
    cdef uint32_t most = 0
    if not isinstance(loop, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
    engine = loop
    loop_guard(engine)
    if limit is not None:
        most = <uint32_t>integer_within(limit, "limit", 1, UINT32_MAX)
    check_memory(le_results_reserve(&engine.core.results, engine.batch_max))
    acceptor_init(self, engine, binding_new(address, backlog, flag_argument(reuse_port, "reuse_port")), most)
    return self


cdef int listener_start(Listener self, object on_connect) except -1:
    callable_argument(on_connect, "on_connect")
    loop_guard(self.owner)
    self.function = on_connect
    return acceptor_start(self)


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
        if self.listener is not None and not acceptor_is_entered(self.listener):
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
