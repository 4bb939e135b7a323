"""Streams as users see them. What they do is in transport.pyx."""

cimport cython
from cpython.buffer cimport PyObject_CheckBuffer
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t
from linux_event.address cimport address_from_sockaddr, socket_of_fd
from linux_event.arguments cimport callable_argument, fd_argument, flag_argument, integer_within, seconds_to_ns
from linux_event.core cimport LE_NS_NEVER, le_clock_ns, le_heap_remove
from linux_event.engine cimport Engine
from linux_event.linux cimport S_ISSOCK, fstat, getsockname, sockaddr, sockaddr_storage, socklen_t, stat
from linux_event.net.native cimport (
    LE_STREAM_ABOVE, LE_STREAM_CLOSING, LE_STREAM_ENDING, LE_STREAM_EOF, LE_STREAM_EOF_WANTED, LE_STREAM_NO_SOCKET,
    LE_STREAM_NO_READING, LE_STREAM_NO_WRITING, le_stream_collect,
)
from linux_event.net.receiving cimport stream_begin, stream_init, stream_reading_changed
from linux_event.net.tls cimport Tls, tls_begin, tls_timeout
from linux_event.net.transport cimport (
    Transport, stream_changed, stream_close, stream_end, stream_is_finished, stream_learn_peer, stream_send, stream_send_end,
    stream_set_timer, stream_wants,
)
from linux_event.requests cimport loop_guard

import os

cdef extern from *:
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    HIGH_DEFAULT = 64 << 10

cdef int64_t LIMIT_MAX = <int64_t>1 << 48


@cython.final
cdef class Stream(Transport):
    """A connection: bytes that come call back, bytes to be sent are queued. As ``loop.listen`` hands it over.

    Its callbacks are attributes, None by default, assignable at any time:

    - ``on_data(stream, data)``: bytes have come. Without it nothing is received: the bytes wait in the kernel.
    - ``on_eof(stream)``: the other end sends no more. Without it the stream is closed then, when what is queued is sent; with
      it, once ``write_eof`` has been called too, or at once where nothing can be written, as to the output of a process.
    - ``on_drain(stream)``: so much of what was queued is sent that ``write`` is welcome again.
    - ``on_close(stream, error)``: the stream is over. Called once, and last. ``error`` is None or what has ended it.

    The loop keeps an open stream alive, and an open stream keeps ``run`` going. Receiving stands on IORING_OP_RECV with
    IORING_RECV_MULTISHOT, sending on IORING_OP_SEND and IORING_OP_SENDMSG. See recv(2), send(2).
    """

    # -- Writing -----------------------------------------------------------------------------------------------------

    def write(self, data):
        """Send data: they are queued, and leave at the end of this iteration together with all that is written in it.

        :param data: bytes, or any other contiguous buffer. One that is not bytes and bigger than 4 KiB is held until it is
            sent, and must not be changed before.
        :returns: False if more than the high-water mark is queued now: wait for ``on_drain`` before the next call. Else True.
            False too where the data are dropped, because the stream was closed or broke; ``on_close`` tells, or has told.
        :raises RuntimeError: ``write_eof`` was called.
        :raises TypeError, BufferError: ``data`` is no buffer, or not contiguous.
        :raises MemoryError: there is no memory for the queue.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        16 KiB and more are tried at once, by send(2). A broken pipe is an error of the stream, never a signal.
        """
        if unlikely(self.filter is not None):
            return self.filter.write(self, data)
        return stream_send(self, data)

    def writelines(self, buffers):
        """``write`` each of some buffers.

        :param buffers: an iterable of what ``write`` takes. Nothing is queued where one of them is no buffer.
        :returns: as ``write``, a bool.

        Raises as ``write`` does.
        """
        cdef list pieces = list(buffers)
        for data in pieces:
            if not PyObject_CheckBuffer(data):
                raise TypeError(f"buffers must be bytes-like objects, not {type(data).__name__} ({data!r})")
        result = not self.io.flags & LE_STREAM_ABOVE
        for data in pieces:
            result = self.write(data)
        return result

    def write_eof(self):
        """Tell the other end, when all that is queued is sent, that nothing more comes. What it sends is still received.

        Idempotent; no effect once the stream was closed. ``write`` is an error from now on.

        :raises RuntimeError: the stream is only read from.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on shutdown(2).
        """
        if self.io.flags & LE_STREAM_NO_WRITING:
            raise RuntimeError(f"{self!r} is only read from")
        if self.io.flags & (LE_STREAM_EOF_WANTED | LE_STREAM_CLOSING | LE_STREAM_ENDING):
            return
        loop_guard(self.owner)
        if self.filter is not None:
            self.filter.write_end(self)
        else:
            stream_send_end(self)

    @property
    def write_buffer_size(self):
        """Bytes that were written and that the kernel has not taken yet, an int. With TLS: as they are after encryption."""
        return self.io.queued + (0 if self.filter is None else self.filter.queued)

    def set_write_limits(self, high=None, low=None):
        """Say how much may be queued.

        :param high: the high-water mark in bytes, an int, 0 or more: above it ``write`` returns False; None: 64 KiB, or four
            times ``low``.
        :param low: the low-water mark, 0 .. ``high``: when no more than this is left ``on_drain`` is called, if ``write`` has
            returned False before; None: a quarter of ``high``.
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
        if self.io.flags & LE_STREAM_ABOVE and self.io.queued <= self.io.low and not self.io.flags & LE_STREAM_ENDING:
            le_stream_collect(&self.io)
            stream_changed(self)

    @property
    def write_limits(self):
        """The marks that ``set_write_limits`` has set: ``(high, low)``."""
        return self.io.high, self.io.low

    # -- Reading -----------------------------------------------------------------------------------------------------

    def pause_reading(self):
        """Let ``on_data`` and ``on_eof`` not be called until ``resume_reading``. Idempotent. What has come stays.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.flags & LE_STREAM_ENDING:
            return
        loop_guard(self.owner)
        self.is_paused = True
        stream_reading_changed(self)

    def resume_reading(self):
        """End the pause. Idempotent.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        if self.io.flags & LE_STREAM_ENDING:
            return
        loop_guard(self.owner)
        self.is_paused = False
        stream_reading_changed(self)

    def is_reading(self):
        """Return whether ``on_data`` may be called: a bool."""
        return stream_wants(self) and not self.io.flags & LE_STREAM_EOF

    # -- Callbacks ---------------------------------------------------------------------------------------------------

    @property
    def on_data(self):
        """``callback(stream, data)``, or None: bytes have come, at least one. Assignable."""
        return self.data_function

    @on_data.setter
    def on_data(self, function):
        if function is not None:
            callable_argument(function, "on_data")
        if stream_is_finished(self):
            return
        if not self.io.flags & LE_STREAM_ENDING:
            loop_guard(self.owner)
        self.data_function = function
        stream_reading_changed(self)

    @property
    def on_eof(self):
        """``callback(stream)``, or None: the other end sends no more; write on, or ``close``. None: it is closed. Assignable."""
        return self.eof_function

    @on_eof.setter
    def on_eof(self, function):
        if function is not None:
            callable_argument(function, "on_eof")
        if not stream_is_finished(self):
            self.eof_function = function

    @property
    def on_drain(self):
        """``callback(stream)``, or None: ``write`` has returned False, and now no more than the low-water mark is queued.
        Assignable."""
        return self.drain_function

    @on_drain.setter
    def on_drain(self, function):
        if function is not None:
            callable_argument(function, "on_drain")
        if not stream_is_finished(self):
            self.drain_function = function

    @property
    def on_close(self):
        """``callback(stream, error)``, or None: the stream is over, its fd closed. Called once, and last.

        ``error`` is None after ``close``, ``abort`` and the end of the data; else an OSError such as ConnectionResetError,
        BrokenPipeError or ssl.SSLError, TimeoutError after ``idle_timeout``, CancelledError (of ``concurrent.futures``) when
        the loop was closed, MemoryError where bytes were lost for want of memory. Assignable."""
        return self.close_function

    @on_close.setter
    def on_close(self, function):
        if function is not None:
            callable_argument(function, "on_close")
        if not stream_is_finished(self):
            self.close_function = function

    # -- TLS ---------------------------------------------------------------------------------------------------------

    def start_tls(self, context, callback=None, *, server_side=False, server_hostname=None, handshake_timeout=60.0,
                  initial_data=b""):
        """Speak TLS from now on: first the handshake, then all that is written and received is encrypted.

        What was written before goes out first, as it is. What has come and was not handed over yet is taken for TLS. What is
        written in the handshake is sent after it, also if the stream is closed meanwhile.

        :param context: an ``ssl.SSLContext``: certificates, verification, ALPN, versions.
        :param callback: ``callback(stream, error)``, called once, when the handshake is done, ``error`` None; or when it has
            failed, right before ``on_close``, which gets the same error. None: ``on_close`` alone tells of failures.
        :param server_side: True: this end is the server.
        :param server_hostname: a str: the name that the certificate of the server has to be for, and that it is told (SNI). Of
            a client only; None: neither, which a context with ``check_hostname`` refuses.
        :param handshake_timeout: seconds, int or float, more than 0, after which the handshake fails with TimeoutError; None:
            never.
        :param initial_data: bytes that were handed over to ``on_data`` already, and are the beginning of TLS.
        :raises TypeError: an argument has a wrong type.
        :raises ValueError: as ``SSLContext.wrap_bio`` does: a server with a ``server_hostname``, a client without one where it
            is to be checked.
        :raises ssl.SSLError: the context is one for the other side.
        :raises RuntimeError: the stream has TLS already, is closed, ``write_eof`` was called, the end of the data has come, or
            it has one direction only.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        Errors of TLS are those of ``ssl``, which are OSErrors: ``ssl.SSLCertVerificationError`` for a certificate,
        ``ssl.SSLEOFError`` for a connection that ends without the farewell of TLS (close_notify), ``ssl.SSLError`` for anything
        else. They end the stream.

        ``on_eof`` is called for close_notify, and ``write_eof`` sends it, then shuts the connection down in this direction:
        from TLS 1.3 on the other end may go on sending, older ones mostly close. ``close`` sends it and does not wait for
        that of the other end.
        """
        cdef int64_t timeout_ns = tls_timeout(handshake_timeout)
        if callback is not None:
            callable_argument(callback, "callback")
        if not isinstance(initial_data, bytes):
            raise TypeError(f"initial_data must be bytes, not {type(initial_data).__name__} ({initial_data!r})")
        loop_guard(self.owner)
        if self.filter is not None:
            raise RuntimeError(f"{self!r}: start_tls() was called already")
        if self.is_closing():
            raise RuntimeError(f"{self!r}: start_tls() after close()")
        if self.io.flags & (LE_STREAM_EOF_WANTED | LE_STREAM_EOF | LE_STREAM_NO_READING | LE_STREAM_NO_WRITING):
            raise RuntimeError(f"{self!r}: TLS needs both directions")
        tls_begin(self, context, flag_argument(server_side, "server_side"), server_hostname, timeout_ns, tls_done, callback)
        if initial_data:
            self.filter.received(self, initial_data)
        stream_changed(self)

    @property
    def ssl_object(self):
        """The ``ssl.SSLObject`` of a stream with TLS, to ask for ``version()``, ``cipher()``, ``getpeercert()``,
        ``selected_alpn_protocol()`` and the like; None without TLS, and once the stream is over.

        Neither read, write, unwrap nor shake hands with it.
        """
        return (<Tls>self.filter).ssl_object if isinstance(self.filter, Tls) else None

    # -- The end -----------------------------------------------------------------------------------------------------

    def close(self):
        """Close the stream when all that is queued is sent. Idempotent. From now on only ``on_close`` is called.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        What has come and was not handed over is dropped. If there is something in the kernel, a TCP peer is told of a reset.
        Stands on IORING_OP_ASYNC_CANCEL and close(2).
        """
        if self.closes_later or self.io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING):
            return
        loop_guard(self.owner)
        stream_close(self)

    def abort(self):
        """Close the stream at once; what is queued is dropped. Idempotent. From now on only ``on_close`` is called.

        :raises LoopClosedError, WrongThreadError: as told by their names.

        What the kernel has taken already it goes on sending. Stands on IORING_OP_ASYNC_CANCEL and close(2).
        """
        if self.io.flags & LE_STREAM_ENDING:
            return
        loop_guard(self.owner)
        stream_end(self, None)

    def is_closing(self):
        """Return whether ``close`` or ``abort`` was called, or the stream has ended by itself: a bool."""
        return self.closes_later or (self.io.flags & (LE_STREAM_CLOSING | LE_STREAM_ENDING)) != 0

    def is_closed(self):
        """Return whether it is over, and ``on_close`` has been called or is being so: a bool."""
        return stream_is_finished(self)

    @property
    def idle_timeout(self):
        """Seconds, a float, after which the stream is aborted with TimeoutError if not a byte was received or sent; None: never.

        Assignable: int or float, more than 0, or None. It counts from then on. Raises ValueError, TypeError, WrongThreadError.
        """
        return self.io.idle_ns / 1e9 if self.io.idle_ns else None

    @idle_timeout.setter
    def idle_timeout(self, timeout):
        cdef int64_t idle_ns = 0
        if timeout is not None:
            idle_ns = seconds_to_ns(timeout, "idle_timeout")
            if not idle_ns:
                raise ValueError(f"idle_timeout must be more than 0 seconds, not {timeout!r}")
        if self.io.flags & LE_STREAM_ENDING:
            return
        loop_guard(self.owner)
        le_heap_remove(&self.owner.core.heap, &self.core.head)
        self.is_timed = False
        self.io.idle_ns = idle_ns
        self.io.active_ns = le_clock_ns()
        if idle_ns or self.deadline_ns:
            stream_set_timer(self, LE_NS_NEVER)
        stream_changed(self)

    # -- What it is --------------------------------------------------------------------------------------------------

    @property
    def loop(self):
        """The loop of the stream."""
        return self.owner

    @property
    def data(self):
        """Anything of the user's, default None. Assignable at any time."""
        return self.data_value

    @data.setter
    def data(self, data):
        self.data_value = data

    @property
    def peername(self):
        """The address of the other end, as ``socket.getpeername`` gives it; None where there is none, as after a reset.

        It is asked for when it is needed first, at the latest when the stream ends. See getpeername(2).
        """
        if self.peer is None:
            stream_learn_peer(self)
        return self.peer

    @property
    def sockname(self):
        """The address of this end, as ``socket.getsockname`` gives it; None once the stream is over, if it was not asked for
        before. See getsockname(2)."""
        cdef sockaddr_storage storage
        cdef socklen_t length = sizeof(storage)
        if self.local is None and self.io.fd >= 0 and not getsockname(self.io.fd, <sockaddr *>&storage, &length):
            self.local = address_from_sockaddr(&storage, length)
        return self.local

    @property
    def socket(self):
        """The ``socket.socket``, made when it is asked for first: for options. None for a pipe, and once the stream is over.

        Neither send, receive nor close with it. When the stream ends the object is detached.
        """
        if self.sock is None and self.io.fd >= 0 and not self.io.flags & LE_STREAM_NO_SOCKET:
            self.sock = socket_of_fd(self.io.fd, self.io.fd)
        return self.sock

    def fileno(self):
        """Return the fd, an int; -1 once it is closed."""
        return self.io.fd

    def __repr__(self):
        if stream_is_finished(self):
            state = "closed"
        elif self.is_closing():
            state = "closing"
        else:
            state = "open"
        peer = "" if self.peer is None else f" peer={self.peer!r}"
        return f"<{type(self).__name__} fd={self.io.fd}{peer} queued={self.write_buffer_size} {state}>"


cdef int tls_done(object callback, Transport stream, object error) except -1:
    """The handshake that start_tls() has begun is over."""
    if callback is not None:
        stream.owner.core.callbacks += 1
        callback(stream, error)
    return 0


cdef Stream stream_new(Engine loop, int fd, uint32_t flags):
    cdef Stream self = Stream.__new__(Stream)
    stream_init(self, loop, fd, flags)
    return self


def stream_of_fd(loop, fd, *, reads=True, writes=True):
    """Make a stream of an fd that is open: a pipe, a terminal, a connected socket.

    :param loop: the ``Loop``.
    :param fd: an int, which the stream takes over: it closes it. Where this raises it is still yours.
    :param reads: True: bytes are to be received.
    :param writes: True: bytes are to be sent.
    :returns: the ``Stream``. ``write_eof`` closes what is no socket.
    :raises OSError: the fd is not open (EBADF).
    :raises TypeError, ValueError: an argument has a wrong type, is negative.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    What is no socket is read by IORING_OP_READ, one request each time, and written by IORING_OP_WRITE and IORING_OP_WRITEV. See
    read(2), write(2), pipe(7).
    """
    cdef stat status
    cdef int number = fd_argument(fd)
    cdef uint32_t flags = 0
    cdef Stream self
    if not isinstance(loop, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
    if not flag_argument(reads, "reads"):
        flags |= LE_STREAM_NO_READING
    if not flag_argument(writes, "writes"):
        flags |= LE_STREAM_NO_WRITING
    loop_guard(<Engine>loop)
    if fstat(number, &status) < 0:
        raise OSError(errno, os.strerror(errno), number)
    if not S_ISSOCK(status.st_mode):
        flags |= LE_STREAM_NO_SOCKET
    self = stream_new(loop, number, flags)
    stream_begin(self)
    return self
