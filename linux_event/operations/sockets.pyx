"""Operations on sockets: accept, connect, receive, send, shut down.

The kernel waits by itself, whether the socket blocks or not: O_NONBLOCK means nothing to these requests, with the exceptions
of which le_retry.h tells.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int32_t, uint32_t
from linux_event.address cimport (
    address_from_sockaddr, address_to_sockaddr, is_socket_object, socket_family, socket_is_unix_packet, socket_of_fd,
)
from linux_event.arguments cimport flag_argument, integer_within
from linux_event.core cimport (
    LE_OP_AGAIN, LE_OP_END, LE_OPERATION_OF_OP, LE_PART_MAX, le_loop, le_op, le_op_verdict, le_operation,
    le_operation_is_unwanted, le_retry, le_retry_init, le_retry_on_cqe, le_retry_on_part,
)
from linux_event.liburing cimport (
    IORING_CQE_F_MORE, IORING_CQE_F_NOTIF, IORING_OP_SEND, IORING_OP_SEND_ZC, io_uring_prep_accept, io_uring_prep_connect,
    io_uring_prep_recv, io_uring_prep_send, io_uring_prep_send_zc, io_uring_prep_shutdown,
)
from linux_event.linux cimport (
    AF_UNIX, ECANCELED, ENOBUFS, EOPNOTSUPP, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL, SHUT_RD, SHUT_RDWR, SOCK_CLOEXEC,
    close, sockaddr, sockaddr_storage, socklen_t,
)
from linux_event.loop cimport add_method
from linux_event.operation cimport (
    Operation, kind_begin, operation_buffer, operation_bytes, operation_fd, operation_kind, operation_kind_set, operation_new,
    operation_start, result_bytes, result_count,
)


# -- accept ------------------------------------------------------------------------------------------------------------

cdef struct peer_name:
    sockaddr_storage address
    socklen_t length

cdef operation_kind accept_kind
accept_kind.result = result_accepted
accept_kind.dispose = dispose_accepted
kind_begin(&accept_kind, "accept")
accept_kind.request.on_cqe = le_retry_on_cqe


cdef object result_accepted(Operation self):
    # Where this fails the fd is disposed of, once, by dispose_accepted().
    cdef peer_name *peer = <peer_name *>PyBytes_AS_STRING(self.memory)
    address = address_from_sockaddr(&peer.address, peer.length)
    return socket_of_fd(<int>self.core.result, self.kept), address


cdef int dispose_accepted(Operation self) except -1:
    close(<int>self.core.result)
    return 0


@cython.binding(True)
def _accept(self, sock, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Accept a connection.

    :param sock: a listening socket, or its fd.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is ``(socket, address)`` as from ``socket.accept``: a ``socket.socket``, yours to
        close, and the address of the other end. Where ``sock`` is a ``socket.socket`` the new one has its family, type and
        protocol; where it is an fd, or another object with one, the kernel is asked for them.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    The new socket is not inheritable. Whether it blocks is as ``socket.setdefaulttimeout`` says, by default it does: the
    operations of a loop do not care. Without an fd to be had the operation fails at once (EMFILE), whether somebody has
    connected or not; the connection stays in the queue.

    Stands on IORING_OP_ACCEPT. See accept(2).
    """
    cdef Operation op = operation_new(&accept_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    is_socket_object(sock)  # imports socket now: it could not when fds are short
    cdef peer_name *peer = <peer_name *>operation_bytes(op, sizeof(peer_name))
    peer.length = sizeof(peer.address)
    io_uring_prep_accept(&op.core.sqe, fd, <sockaddr *>&peer.address, &peer.length, SOCK_CLOEXEC)
    return operation_start(op, timeout)


add_method("accept", _accept)


# -- connect -----------------------------------------------------------------------------------------------------------

cdef struct target:
    sockaddr_storage address
    le_retry retry

cdef operation_kind connect_kind
kind_begin(&connect_kind, "connect")
connect_kind.request.on_cqe = le_retry_on_cqe


@cython.binding(True)
def _connect(self, sock, address, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Connect a socket.

    :param sock: a socket, or its fd.
    :param address: of the form that the family of the socket has, as for ``socket.connect``: ``(host, port)``, ``(host, port,
        flowinfo, scope_id)``, a path or a name in the abstract namespace, ... The host has to be numeric.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError: as for ``recv``, or the host is not a numeric address: resolve it first.
    :raises OSError: as for ``recv``, or a path is too long (ENAMETOOLONG).
    :raises TypeError, LoopClosedError, WrongThreadError: as for ``recv``.

    After a failure, a cancellation or a timeout make a new socket: the kernel may still be connecting this one. Where the
    queue of a listening Unix socket is full it waits for room, whether ``sock`` blocks or not (in a chain one that does not
    block fails with BlockingIOError). The ``filename`` of an error is the path of a Unix socket, and the fd otherwise.

    Stands on IORING_OP_CONNECT. See connect(2).
    """
    cdef Operation op = operation_new(&connect_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef int family = socket_family(sock, fd)
    cdef target *to = <target *>operation_bytes(op, sizeof(target))
    cdef int length = address_to_sockaddr(address, family, &to.address)
    io_uring_prep_connect(&op.core.sqe, fd, <sockaddr *>&to.address, length)
    if family == AF_UNIX:
        op.where = address
        le_retry_init(&op.core, &to.retry, False)  # nothing to poll for: it is not connected
    return operation_start(op, timeout)


add_method("connect", _connect)


# -- recv --------------------------------------------------------------------------------------------------------------

cdef operation_kind recv_kind
recv_kind.result = result_bytes
kind_begin(&recv_kind, "recv")
recv_kind.request.on_cqe = le_retry_on_cqe


@cython.binding(True)
def _recv(self, sock, size, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Receive from a socket.

    :param sock: a socket, or any object with ``fileno()``, which is kept alive until the operation is done; or an fd, an int.
    :param size: bytes to receive at most, an int, 0 .. 2147479552. Fewer may come.
    :param callback: ``callback(result, error)``, called once; one of the two is None. Never called within this method.
    :param on_success: ``on_success(result)``, and
    :param on_error: ``on_error(error)``: the other form. A failure that nobody is told of goes to the loop's ``on_error``.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError; None: never.
    :returns: the ``Operation``; its result is bytes, ``b""`` at the end of a stream.
    :raises ValueError: ``sock`` is closed or negative, ``size`` or ``timeout`` out of range.
    :raises OSError: ``sock`` is an int and not open (EBADF).
    :raises TypeError: an argument has a wrong type, or both forms of callbacks were given.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    It waits for data whether the socket blocks or not. Before the socket is closed the operation has to be done: while it is
    in flight the other end does not see the end, and the fd may become that of another file.

    Stands on IORING_OP_RECV. See recv(2).
    """
    cdef Operation op = operation_new(&recv_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef uint32_t count = <uint32_t>integer_within(size, "size", 0, LE_PART_MAX)
    io_uring_prep_recv(&op.core.sqe, fd, operation_bytes(op, count), count, 0)
    return operation_start(op, timeout)


add_method("recv", _recv)

cdef operation_kind recv_into_kind
recv_into_kind.result = result_count
kind_begin(&recv_into_kind, "recv_into")
recv_into_kind.request.on_cqe = le_retry_on_cqe


@cython.binding(True)
def _recv_into(self, sock, buffer, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Receive from a socket into memory that is given.

    :param sock: a socket, or its fd.
    :param buffer: a writable, contiguous buffer, such as a bytearray. It is held until the operation is done: a bytearray
        cannot be resized meanwhile (BufferError).
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is the number of bytes received, an int, 0 at the end of a stream.
    :raises BufferError: the buffer is not contiguous, or not writable (also TypeError).
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    Stands on IORING_OP_RECV. See recv(2).
    """
    cdef Operation op = operation_new(&recv_into_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    operation_buffer(op, buffer, True)
    io_uring_prep_recv(&op.core.sqe, fd, op.view.buf, min(op.view.len, <Py_ssize_t>LE_PART_MAX), 0)
    return operation_start(op, timeout)


add_method("recv_into", _recv_into)


# -- send --------------------------------------------------------------------------------------------------------------

cdef operation_kind send_kind
send_kind.result = result_count
kind_begin(&send_kind, "send")
send_kind.request.on_cqe = le_retry_on_part

cdef operation_kind send_packet_kind
send_packet_kind.result = result_count
kind_begin(&send_packet_kind, "send")
send_packet_kind.request.on_cqe = le_retry_on_cqe

cdef operation_kind send_zero_copy_kind
send_zero_copy_kind.result = result_count
kind_begin(&send_zero_copy_kind, "send")
send_zero_copy_kind.request.on_cqe = on_zero_copy


cdef le_op_verdict on_zero_copy(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    """Two completions: the result, and the notification that the kernel does not read the memory any more.

    Only then the operation goes on with what the result was. Where the socket has no zero copy (EOPNOTSUPP), the kernel has
    not (EINVAL), or the user may not lock so much memory, the rest is sent the ordinary way.
    """
    cdef le_operation *operation = LE_OPERATION_OF_OP(op)
    if flags & IORING_CQE_F_MORE:
        op.fd = result
        return LE_OP_END  # of no effect: it is not the final completion
    if flags & IORING_CQE_F_NOTIF:
        result = op.fd
    if operation.sqe.opcode == IORING_OP_SEND_ZC and result in (-EOPNOTSUPP, -EINVAL, -ENOBUFS, -ENOMEM):
        if not le_operation_is_unwanted(operation):
            operation.sqe.opcode = IORING_OP_SEND
            return LE_OP_AGAIN
        result = -ECANCELED
    return le_retry_on_part(loop, op, result, flags)


@cython.binding(True)
def _send(self, sock, data, callback=None, *, zero_copy=False, on_success=None, on_error=None, timeout=None):
    """Send to a connected socket: all of the data, unless there is an error.

    :param sock: a socket, or its fd.
    :param data: bytes, or any other contiguous buffer, which is held until the operation is done.
    :param zero_copy: True: let the network card read the data where they are. It pays from some tens of KiB on, not over
        loopback. The operation is done, and the buffer free, when the kernel does not read it any more, which may be when the
        other end has acknowledged the data. Where the socket or the kernel cannot do it, and in a chain, it is sent as always.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is the number of bytes sent, an int: the length of ``data``.
    :raises BufferError: the buffer is not contiguous.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    Start the next send on a stream when this one is done, or put them into a chain (``link``): the bytes of two in flight may
    mingle. Part of the data may have been sent where it fails, is cancelled or timed out. It never raises SIGPIPE.

    In a chain a datagram to a Unix socket whose queue is full is not waited for: it fails with BlockingIOError.

    Stands on IORING_OP_SEND, repeated where the kernel takes only a part, and IORING_OP_SEND_ZC. See send(2).
    """
    cdef Operation op = operation_new(&send_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef bint is_zero_copy = flag_argument(zero_copy, "zero_copy") and not op.owner.core.is_chaining
    operation_buffer(op, data, False)
    cdef size_t size = min(op.view.len, <Py_ssize_t>LE_PART_MAX)
    op.core.total = op.view.len
    if socket_is_unix_packet(sock, fd):
        operation_kind_set(op, &send_packet_kind)
        io_uring_prep_send(&op.core.sqe, fd, op.view.buf, size, MSG_DONTWAIT | MSG_NOSIGNAL)  # not to be tried twice
        le_retry_init(&op.core, <le_retry *>operation_bytes(op, sizeof(le_retry)), True)
    elif is_zero_copy:
        operation_kind_set(op, &send_zero_copy_kind)
        io_uring_prep_send_zc(&op.core.sqe, fd, op.view.buf, size, MSG_WAITALL | MSG_NOSIGNAL, 0)
    else:
        io_uring_prep_send(&op.core.sqe, fd, op.view.buf, size, MSG_WAITALL | MSG_NOSIGNAL)
    return operation_start(op, timeout)


add_method("send", _send)


# -- shutdown ----------------------------------------------------------------------------------------------------------

cdef operation_kind shutdown_kind
shutdown_kind.is_lenient = True
kind_begin(&shutdown_kind, "shutdown")


@cython.binding(True)
def _shutdown(self, sock, how, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Shut down one direction of a connection, or both.

    :param sock: a socket, or its fd.
    :param how: ``socket.SHUT_RD``, ``socket.SHUT_WR`` or ``socket.SHUT_RDWR``, an int, 0 .. 2.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    What is received or sent at that moment ends: ``recv`` with what has come, or ``b""``. Sends that are in flight are not
    waited for: put them before it into a chain (``link``), or call it in their callback.

    Stands on IORING_OP_SHUTDOWN. See shutdown(2).
    """
    cdef Operation op = operation_new(&shutdown_kind, self, callback, on_success, on_error, sock)
    io_uring_prep_shutdown(&op.core.sqe, operation_fd(op, sock), <int>integer_within(how, "how", SHUT_RD, SHUT_RDWR))
    return operation_start(op, timeout)


add_method("shutdown", _shutdown)
