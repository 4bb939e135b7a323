"""Datagram sockets as users see them. What they do is in endpoint.pyx."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from linux_event.address cimport socket_of_fd
from linux_event.arguments cimport callable_argument, flag_argument, integer_within
from linux_event.core cimport LE_NOT_IN_HEAP, le_link_leave
from linux_event.engine cimport Engine
from linux_event.errors cimport check_memory
from linux_event.linux cimport sockaddr
from linux_event.loop cimport add_method
from linux_event.net.binding cimport binding_of_datagrams, binding_remove_path
from linux_event.net.endpoint cimport (
    Endpoint, endpoint_bytes, endpoint_changed, endpoint_close, endpoint_end, endpoint_init, endpoint_is_finished,
    endpoint_reading_changed, endpoint_receiver, endpoint_refuse,
)
from linux_event.net.packets cimport (
    LE_DATAGRAM_ABOVE, LE_DATAGRAM_CLOSING, LE_DATAGRAM_CONNECTED, LE_DATAGRAM_ENDING, LE_DATAGRAM_FULL, LE_DATAGRAM_PARTS,
    LE_DATAGRAM_PAUSED, le_datagram, le_datagram_collect, le_datagram_count, le_datagram_flush_later, le_datagram_is_above,
    le_datagram_is_drained, le_datagram_on_flush, le_datagram_push, le_packet,
)
from linux_event.net.peer cimport Peer
from linux_event.requests cimport loop_guard

cdef extern from *:
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    HIGH_DEFAULT = 64 << 10
    FULL_BYTES = 1 << 20  # in the queue, or 16 times the high-water mark if that is more

cdef int64_t LIMIT_MAX = <int64_t>1 << 48


cdef inline bint is_full(const le_datagram *io) noexcept nogil:
    return io.queued > FULL_BYTES and io.queued > 16 * io.high or le_datagram_count(io) >= LE_DATAGRAM_FULL


@cython.final
cdef class Datagram(Endpoint):
    """A socket for datagrams, as ``loop.datagram`` returns it. The loop keeps it alive until it is closed.

    Its callbacks are attributes, None by default, assignable at any time:

    - ``on_datagram(datagram, data, address)``: a datagram has come: bytes, perhaps none, and the address of its sender, None of a
      Unix socket without a name. Without it nothing is received: datagrams wait in the kernel, as far as it has room.
    - ``on_error(datagram, error)``: something has failed, and the datagram socket goes on, see there.
    - ``on_drain(datagram)``: so much of what was queued is sent that ``send`` is welcome again.
    - ``on_close(datagram, error)``: it is over. Called once, and last. ``error`` is None or what has ended it.

    It keeps ``run`` going. Used in a ``with`` statement it is closed at the end. Receiving stands on IORING_OP_RECVMSG with
    IORING_RECV_MULTISHOT, sending on sendto(2) and sendmmsg(2).
    """

    # -- Sending -----------------------------------------------------------------------------------------------------

    def send(self, data, address=None):
        """Send a datagram: it is queued, and leaves at the end of this iteration together with all that is sent in it.

        :param data: bytes, or any other contiguous buffer, which is copied. No bytes at all are a datagram too.
        :param address: of the receiver: ``(host, port)`` with a numeric host, ``("<broadcast>", port)``, or of a Unix socket the
            path, a str, bytes or path object; a name in the abstract namespace begins with a NUL. None: that of the socket
            that it is connected to.
        :returns: False if more than the high-water mark is queued now: wait for ``on_drain`` before the next call. Else True.
            False too where the datagram is dropped, because the socket was closed; ``on_close`` tells, or has told.
        :raises BlockingIOError: the queue is full: 16 times the high-water mark, and 1 MiB at least, or 65536 datagrams. Nothing
            is queued.
        :raises ValueError: the host is a name (resolve it first, with ``loop.resolve``); there is no address, and it is not
            connected; or it is, and to another one; a number is out of range; there is a NUL in a path.
        :raises TypeError, BufferError: ``data`` is no buffer, or not contiguous; ``address`` has another form.
        :raises OSError: a path is too long (ENAMETOOLONG), there is no such interface.
        :raises MemoryError: there is no memory for the queue.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        Datagrams leave in their order. What the kernel refuses, ``on_error`` is told of. A Unix receiver without room keeps what
        is for it waiting, and nothing else. Stands on sendto(2) and sendmmsg(2). See udp(7), unix(7).
        """
        cdef le_datagram *io = &self.io
        cdef le_packet packet
        cdef Peer peer = None
        if unlikely(io.flags & (LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING)):
            return False
        loop_guard(self.owner)
        if not PyBytes_CheckExact(data):
            data = endpoint_bytes(data)
        if address is not None:
            peer = endpoint_receiver(self, address)
        elif unlikely(not io.flags & LE_DATAGRAM_CONNECTED):
            raise ValueError("address: None, but the socket is not connected")
        # The conversion of arguments may have run code of others.
        if unlikely(io.flags & (LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING)):
            return False
        packet.data = <PyObject *>data
        packet.at = PyBytes_AS_STRING(data)
        packet.size = <uint32_t>min(PyBytes_GET_SIZE(data), <Py_ssize_t>0x7fffffff)  # the kernel refuses that
        packet.peer = NULL
        packet.name = NULL
        packet.name_length = 0
        if peer is not None:
            packet.peer = <PyObject *>peer
            packet.name = <sockaddr *>&peer.storage
            packet.name_length = peer.length
        if unlikely(is_full(io)):
            endpoint_refuse(self)
        check_memory(le_datagram_push(io, &packet))
        Py_INCREF(data)  # dropped when they have left the queue
        if peer is not None:
            Py_INCREF(peer)
        if unlikely((le_datagram_is_above(io) or le_datagram_count(io) % LE_DATAGRAM_PARTS == 0)
                    and self.core.head.heap_slot == LE_NOT_IN_HEAP):
            # As much as one system call takes has come together; unless it has just been found that there is no room.
            le_link_leave(&io.flush.link)
            le_datagram_on_flush(io.loop, &io.flush)
        if le_datagram_count(io):
            le_datagram_flush_later(io)
        endpoint_changed(self)
        if unlikely(le_datagram_is_above(io)):
            io.flags |= LE_DATAGRAM_ABOVE
            return False
        return True

    @property
    def write_buffer_size(self):
        """Bytes of the datagrams that were sent and that the kernel has not taken yet, an int."""
        return self.io.queued

    def set_write_limits(self, high=None, low=None):
        """Say how much may be queued.

        :param high: the high-water mark in bytes, an int, 0 or more: above it, or with more than 4096 datagrams in the queue,
            ``send`` returns False; None: 64 KiB, or four times ``low``.
        :param low: the low-water mark, 0 .. ``high``: when no more than this is left, and no more than 1024 datagrams,
            ``on_drain`` is called, if ``send`` has returned False before; None: a quarter of ``high``.
        :raises ValueError, TypeError: out of range; of a wrong type.
        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        cdef int64_t low_mark, high_mark
        if high is None:
            high_mark = HIGH_DEFAULT if low is None else 4 * integer_within(low, "low", 0, LIMIT_MAX)
        else:
            high_mark = integer_within(high, "high", 0, LIMIT_MAX)
        low_mark = high_mark // 4 if low is None else integer_within(low, "low", 0, high_mark)
        loop_guard(self.owner)
        self.io.high, self.io.low = high_mark, low_mark
        if self.io.flags & LE_DATAGRAM_ABOVE and le_datagram_is_drained(&self.io) and not self.io.flags & LE_DATAGRAM_ENDING:
            le_datagram_collect(&self.io)
            endpoint_changed(self)

    @property
    def write_limits(self):
        """The marks that ``set_write_limits`` has set: ``(high, low)``."""
        return self.io.high, self.io.low

    # -- Receiving ---------------------------------------------------------------------------------------------------

    def pause_reading(self):
        """Let ``on_datagram`` not be called until ``resume_reading``. Idempotent.

        What has come stays; what comes waits in the kernel, which drops datagrams of the internet when its buffer is full.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.flags & LE_DATAGRAM_ENDING:
            return
        loop_guard(self.owner)
        self.is_paused = True
        endpoint_reading_changed(self)

    def resume_reading(self):
        """End the pause. Idempotent.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.flags & LE_DATAGRAM_ENDING:
            return
        loop_guard(self.owner)
        self.is_paused = False
        endpoint_reading_changed(self)

    def is_reading(self):
        """Return whether ``on_datagram`` may be called: a bool."""
        return not self.io.flags & (LE_DATAGRAM_PAUSED | LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING)

    # -- Callbacks ---------------------------------------------------------------------------------------------------

    @property
    def on_datagram(self):
        """``callback(datagram, data, address)``, or None: a datagram has come, whole. Assignable.

        The address is of the form that ``socket.recvfrom`` gives it, and the same object as long as the same sender goes on."""
        return self.datagram_function

    @on_datagram.setter
    def on_datagram(self, function):
        if function is not None:
            callable_argument(function, "on_datagram")
        if endpoint_is_finished(self):
            return
        if not self.io.flags & LE_DATAGRAM_ENDING:
            loop_guard(self.owner)
        self.datagram_function = function
        endpoint_reading_changed(self)

    @property
    def on_error(self):
        """``callback(datagram, error)``, or None: something has failed; the datagram socket goes on. Assignable.

        ``error`` is an OSError. Its ``filename`` is the address that it concerns, or the fd:

        - The kernel has refused to send a datagram, to that address, which is lost: EMSGSIZE (it is too long), ENETUNREACH,
          EACCES (a broadcast that was not asked for), of a Unix socket ENOENT, ECONNREFUSED, ...
        - A datagram that was sent before has come to nothing: ECONNREFUSED and others, of a connected socket.
        - A datagram from that address was longer than 215 000 bytes and has been cut by the kernel (EMSGSIZE): it is not handed
          over.

        None: the loop's ``on_error`` is called instead, or it is logged.
        """
        return self.error_function

    @on_error.setter
    def on_error(self, function):
        if function is not None:
            callable_argument(function, "on_error")
        if not endpoint_is_finished(self):
            self.error_function = function

    @property
    def on_drain(self):
        """``callback(datagram)``, or None: ``send`` has returned False, and now no more than the low-water mark is queued.
        Assignable."""
        return self.drain_function

    @on_drain.setter
    def on_drain(self, function):
        if function is not None:
            callable_argument(function, "on_drain")
        if not endpoint_is_finished(self):
            self.drain_function = function

    @property
    def on_close(self):
        """``callback(datagram, error)``, or None: it is over, its fd closed. Called once, and last.

        ``error`` is None after ``close`` and ``abort``; an OSError if the fd was closed by somebody else (EBADF); CancelledError
        (of ``concurrent.futures``) when the loop was closed. Assignable."""
        return self.close_function

    @on_close.setter
    def on_close(self, function):
        if function is not None:
            callable_argument(function, "on_close")
        if not endpoint_is_finished(self):
            self.close_function = function

    # -- The end -----------------------------------------------------------------------------------------------------

    def close(self):
        """Close it when all that is queued is sent. Idempotent. Nothing is received any more, and what has come is dropped.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        ``on_error`` is told of what cannot be sent, and then ``on_close`` is called. The file of a Unix socket is removed, if it
        is still that of this one. A socket that was given is not closed. Stands on IORING_OP_ASYNC_CANCEL and close(2).
        """
        if self.io.flags & (LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING):
            return
        loop_guard(self.owner)
        endpoint_close(self)

    def abort(self):
        """Close it at once; what is queued is dropped. Idempotent. From now on only ``on_close`` is called.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on IORING_OP_ASYNC_CANCEL and close(2).
        """
        if self.io.flags & LE_DATAGRAM_ENDING:
            return
        loop_guard(self.owner)
        endpoint_end(self, None)

    def is_closing(self):
        """Return whether ``close`` or ``abort`` was called, or it has ended by itself: a bool."""
        return (self.io.flags & (LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING)) != 0

    def is_closed(self):
        """Return whether it is over, and ``on_close`` has been called or is being so: a bool."""
        return endpoint_is_finished(self)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # -- What it is --------------------------------------------------------------------------------------------------

    @property
    def sockname(self):
        """The address of the socket, as ``socket.getsockname`` gives it."""
        return self.place.local

    @property
    def peername(self):
        """The address that it is connected to, as ``socket.getpeername`` gives it; None: it is not connected."""
        return None if self.remote is None else self.remote.address

    @property
    def socket(self):
        """The ``socket.socket``: the one that was given, or one that is made when it is asked for first; None once it is over.

        For options. Neither send, receive nor close with it.
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
        """The loop of the datagram socket."""
        return self.owner

    @property
    def data(self):
        """Anything of the user's, default None. Assignable at any time."""
        return self.data_value

    @data.setter
    def data(self, data):
        self.data_value = data

    def __repr__(self):
        if endpoint_is_finished(self):
            state = "closed"
        elif self.io.flags & (LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING):
            state = "closing"
        else:
            state = "open"
        peer = "" if self.remote is None else f" peer={self.remote.address!r}"
        return f"<{type(self).__name__} {self.place.local!r}{peer} queued={self.io.queued} {state}>"


# -- loop.datagram -----------------------------------------------------------------------------------------------------

@cython.binding(True)
def _datagram(self, local_address=None, remote_address=None, *, reuse_port=False, broadcast=False):
    """Make a socket for datagrams: UDP, or Unix.

    :param local_address: where it receives: ``(host, port)`` with a numeric host, ``"localhost"`` (127.0.0.1), or ``""`` or
        None: all addresses of IPv4 (``"::"``: of IPv6); port 0: one that is free, see ``sockname``. Or the path of a Unix socket;
        what is there of one that nobody has any more is replaced; a name in the abstract namespace begins with a NUL, and
        ``""`` is one that the kernel makes up. Or a datagram socket, or its fd: it stays yours to close, when ``on_close`` was
        called. None: what the kernel chooses when it is needed, and without ``remote_address`` IPv4.
    :param remote_address: of the same forms: the address to connect to. Then only what comes from there is received, ``send``
        needs no address, and one learns what has become of datagrams that were sent. None: not connected.
    :param reuse_port: True: other sockets may be bound to the same address, and the kernel spreads the senders. See socket(7).
    :param broadcast: True: it may send to broadcast addresses.
    :returns: the ``Datagram``, which keeps ``run`` going until it is closed. It receives from when ``on_datagram`` is assigned.
    :raises ValueError: a host that is a name (resolve it first, with ``loop.resolve``), two addresses of different families, a
        socket of another type, a number out of range, a NUL in a path.
    :raises OSError: the address is in use (EADDRINUSE), not of this machine (EADDRNOTAVAIL), not allowed (EACCES), nobody is
        there (ENOENT, ECONNREFUSED of Unix sockets), ...; the kernel refuses a pool of buffers.
    :raises TypeError: an argument has a wrong type.
    :raises MemoryError: there is no memory for the pool.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on socket(2), bind(2), connect(2), IORING_OP_RECVMSG, sendto(2), sendmmsg(2). See udp(7), ip(7), ipv6(7), unix(7).
    """
    if not isinstance(self, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(self).__name__} ({self!r})")
    loop_guard(<Engine>self)
    cdef Datagram datagram = Datagram.__new__(Datagram)
    place = binding_of_datagrams(local_address, remote_address, flag_argument(reuse_port, "reuse_port"),
                                 flag_argument(broadcast, "broadcast"))
    try:
        loop_guard(<Engine>self)  # the conversion of arguments may have run code of others
        endpoint_init(datagram, self, place)
    except BaseException:
        binding_remove_path(place)
        raise
    return datagram


add_method("datagram", _datagram)
