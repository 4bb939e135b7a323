"""Raw requests on sockets. Addresses are given as for the module socket, or as the bytes of a sockaddr; the kernel gives the
latter."""

cimport cython
from libc.stdint cimport INT32_MAX, UINT32_MAX, uint32_t, uintptr_t
from linux_event.arguments cimport flag_argument, integer_within
from linux_event.address cimport address_to_sockaddr, socket_family
from linux_event.core cimport LE_PART_MAX
from linux_event.liburing cimport IOSQE_FIXED_FILE
from linux_event.linux cimport sockaddr_storage
from linux_event.raw.request cimport (
    Request, hold, msghdr, raw_buffer, raw_fd, raw_fill, raw_many, raw_memory, raw_new, raw_slot, raw_start, raw_vector,
)
from linux_event.uring cimport add_raw_method

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_CMSG_CLOEXEC
        SOCK_CLOEXEC

cdef extern from "le_compat.h" nogil:
    enum:
        IORING_ACCEPT_MULTISHOT
        IORING_OP_ACCEPT
        IORING_OP_CONNECT
        IORING_OP_RECV
        IORING_OP_RECVMSG
        IORING_OP_SEND
        IORING_OP_SEND_ZC
        IORING_OP_SENDMSG
        IORING_OP_SENDMSG_ZC
        IORING_OP_SHUTDOWN
        IORING_OP_SOCKET
        IORING_RECV_MULTISHOT
        IORING_RECVSEND_FIXED_BUF
        IOSQE_BUFFER_SELECT
        LE_URING_BIND
        LE_URING_LISTEN

cdef enum:
    ADDRESS_MAX = 128  # sizeof(struct sockaddr_storage)


cdef void *more_memory(Request request, object buffer, bint is_written_to, str name, size_t longest, size_t *length) except? NULL:
    """The memory of one more buffer, which is held; of none: NULL."""
    cdef Py_buffer view
    length[0] = 0
    if buffer is None:
        return NULL
    if isinstance(buffer, str):
        raise TypeError(f"{name} must be bytes or another buffer, not str ({buffer!r})")
    cdef object held = memoryview(buffer)
    PyObject_GetBuffer(held, &view, PyBUF_WRITABLE if is_written_to else PyBUF_SIMPLE)
    cdef void *memory = view.buf
    length[0] = view.len
    PyBuffer_Release(&view)
    if length[0] > longest:
        raise ValueError(f"{name} must have {longest} bytes at most, not {length[0]}")
    hold(request, held)
    return memory


cdef void *address_memory(Request request, object address, object sock, int fd, size_t *length) except? NULL:
    """The sockaddr that an address is, or means to the socket."""
    cdef sockaddr_storage *storage
    if address is None or PyObject_CheckBuffer(address):
        return more_memory(request, address, False, "address", ADDRESS_MAX, length)
    if request.raw.flags & IOSQE_FIXED_FILE:
        raise TypeError(f"address must be the bytes of a sockaddr where fd is a direct descriptor, not {address!r}")
    storage = <sockaddr_storage *>raw_memory(request, sizeof(sockaddr_storage))
    length[0] = address_to_sockaddr(address, socket_family(sock, fd), storage)
    return storage


# -- Sockets -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _socket(self, family, type, protocol=0, callback=None, *, file_index=None, flags=0):
    """Make a socket.

    :param family, type, protocol: ints, as for ``socket.socket``; ``SOCK_CLOEXEC`` is added to the type of an fd of the process.
    :param callback: as for ``nop``.
    :param file_index: as for ``openat``.
    :param flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the fd, which is yours to close; 0 with ``file_index``, or the place that was chosen.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SOCKET. See socket(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef uint32_t kind = integer_within(type, "type", 0, INT32_MAX)
    cdef uint32_t slot = raw_slot(request, file_index, &kind, SOCK_CLOEXEC)
    raw_fill(request, IORING_OP_SOCKET, integer_within(family, "family", 0, INT32_MAX), NULL,
             integer_within(protocol, "protocol", 0, INT32_MAX), kind)
    request.core.sqe.file_index = slot
    return raw_start(request)


add_raw_method("socket", _socket)


@cython.binding(True)
def _bind(self, fd, address, callback=None, *, flags=0):
    """Give a socket its address.

    :param fd: as for ``read``.
    :param address: as for ``socket.socket.bind``, with a numeric host, or a buffer: the bytes of a sockaddr.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_BIND (Linux 6.11). See bind(2).
    """
    return addressed(self, LE_URING_BIND, fd, address, callback, flags)


cdef object addressed(object self, unsigned opcode, object fd, object address, object callback, object flags):
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef size_t length = 0
    cdef int number = raw_fd(request, fd)
    if address is None:
        raise TypeError("address must not be None")
    cdef void *memory = address_memory(request, address, fd, number, &length)
    raw_fill(request, opcode, number, memory, 0, length)
    return raw_start(request)


add_raw_method("bind", _bind)


@cython.binding(True)
def _connect(self, fd, address, callback=None, *, flags=0):
    """Connect a socket.

    :param fd: as for ``read``.
    :param address: as for ``socket.socket.bind``, with a numeric host, or a buffer: the bytes of a sockaddr.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_CONNECT. See connect(2).
    """
    return addressed(self, IORING_OP_CONNECT, fd, address, callback, flags)


add_raw_method("connect", _connect)


@cython.binding(True)
def _listen(self, fd, backlog=128, callback=None, *, flags=0):
    """Let a socket take connections.

    :param fd: as for ``read``.
    :param backlog: how many may wait to be accepted, an int, 0 or more.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_LISTEN (Linux 6.11). See listen(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, LE_URING_LISTEN, raw_fd(request, fd), NULL, integer_within(backlog, "backlog", 0, INT32_MAX), 0)
    return raw_start(request)


add_raw_method("listen", _listen)


@cython.binding(True)
def _accept(self, fd, callback=None, *, address=None, accept_flags=0, multishot=False, file_index=None, flags=0):
    """Take a connection.

    :param fd: as for ``read``; a socket that listens.
    :param callback, flags: as for ``nop``.
    :param address: a writable buffer for the sockaddr of the peer, of 128 bytes at most; None: it is not asked for.
    :param accept_flags: an int, ``socket.SOCK_NONBLOCK`` or 0; ``SOCK_CLOEXEC`` is added to that of an fd of the process.
    :param multishot: True: take all connections until the request ends, which an error does, and a callback without
        ``CQE_F_MORE`` tells. Not together with ``address``.
    :param file_index: as for ``openat``; with ``multishot`` it has to be ``Ring.FILE_INDEX_ALLOC``.
    :returns: the ``Request``; ``res`` is the fd, which is yours to close; 0 with ``file_index``, or the place that was chosen.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_ACCEPT. See accept4(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t how = integer_within(accept_flags, "accept_flags", 0, INT32_MAX)
    cdef uint32_t slot = raw_slot(request, file_index, &how, SOCK_CLOEXEC)
    cdef bint is_many = flag_argument(multishot, "multishot")
    cdef size_t length = 0
    cdef void *memory = more_memory(request, address, True, "address", ADDRESS_MAX, &length)
    cdef uint32_t *room = NULL
    if is_many:
        raw_many(request)
        if address is not None:
            raise ValueError("address cannot be given with multishot=True: each connection would write over it")
    if memory != NULL:
        room = <uint32_t *>raw_memory(request, sizeof(uint32_t))
        room[0] = length
    raw_fill(request, IORING_OP_ACCEPT, raw_fd(request, fd), memory, 0, <uintptr_t>room)
    request.core.sqe.rw_flags = how
    request.core.sqe.file_index = slot
    if is_many:
        request.core.sqe.ioprio = IORING_ACCEPT_MULTISHOT
    return raw_start(request)


add_raw_method("accept", _accept)


@cython.binding(True)
def _shutdown(self, fd, how, callback=None, *, flags=0):
    """End one or both directions of a connection.

    :param fd: as for ``read``.
    :param how: an int, ``socket.SHUT_RD``, ``SHUT_WR`` or ``SHUT_RDWR``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SHUTDOWN. See shutdown(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, IORING_OP_SHUTDOWN, raw_fd(request, fd), NULL, integer_within(how, "how", 0, INT32_MAX), 0)
    return raw_start(request)


add_raw_method("shutdown", _shutdown)


# -- Sending -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _send(self, fd, data, msg_flags=0, callback=None, *, address=None, poll_first=False, flags=0):
    """Send bytes.

    :param fd: as for ``read``.
    :param data: bytes, or any other contiguous buffer.
    :param msg_flags: an int, ``socket.MSG_NOSIGNAL`` and so on; with ``MSG_WAITALL`` the kernel tries to send all.
    :param callback, flags: as for ``nop``.
    :param address: to whom, as for ``bind``; None: to whom the socket is connected. On Linux before 6.17 only for ``send_zc``.
    :param poll_first: True: wait until the socket is ready, and try then.
    :returns: the ``Request``; ``res`` is the number of bytes that were taken.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SEND. See send(2).
    """
    return sent(self, IORING_OP_SEND, fd, data, msg_flags, callback, address, poll_first, flags)


cdef object sent(object self, unsigned opcode, object fd, object data, object msg_flags, object callback, object address,
                 object poll_first, object flags):
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t length = 0
    cdef size_t address_length = 0
    cdef char *memory = raw_buffer(request, data, False, &length)
    cdef int number = raw_fd(request, fd)
    cdef void *to = address_memory(request, address, fd, number, &address_length)
    raw_fill(request, opcode, number, memory, length, <uintptr_t>to)
    request.core.sqe.rw_flags = integer_within(msg_flags, "msg_flags", 0, UINT32_MAX)
    request.core.sqe.file_index = LE_ADDRESS_LENGTH(address_length)
    request.core.sqe.ioprio = flag_argument(poll_first, "poll_first")
    return raw_start(request)


cdef extern from *:
    """
    /* The length of the address is the first half of the field that the place of a direct descriptor is in. */
    static inline uint32_t LE_ADDRESS_LENGTH(uint16_t length)
    {
        struct io_uring_sqe sqe;
        sqe.file_index = 0;
        sqe.addr_len = length;
        return sqe.file_index;
    }
    """
    uint32_t LE_ADDRESS_LENGTH(size_t length)


add_raw_method("send", _send)


@cython.binding(True)
def _send_zc(self, fd, data, msg_flags=0, callback=None, *, address=None, poll_first=False, flags=0):
    """Send bytes without copying them. The data are held until the notification.

    :param fd, data, msg_flags, address, poll_first: as for ``send``.
    :param callback: as for ``nop``: it is called twice, with the number of bytes, or the error, and ``CQE_F_MORE``, and when
        the kernel has let go of the data with ``CQE_F_NOTIF``; once only where nothing was sent.
    :param flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of bytes that were taken, that of ``Request.result()`` the notification's.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SEND_ZC. See io_uring_enter(2), send(2).
    """
    return sent(self, IORING_OP_SEND_ZC, fd, data, msg_flags, callback, address, poll_first, flags)


add_raw_method("send_zc", _send_zc)


@cython.binding(True)
def _sendmsg(self, fd, buffers, msg_flags=0, callback=None, *, control=None, address=None, flags=0):
    """Send several buffers as one message, with ancillary data.

    :param fd, msg_flags: as for ``send``.
    :param buffers: an iterable of contiguous buffers, 1024 at most.
    :param callback, flags: as for ``nop``.
    :param control: bytes, the ancillary data as the kernel has them: struct cmsghdr and what follows it; None: none.
    :param address: to whom, as for ``bind``; None: to whom the socket is connected.
    :returns: the ``Request``; ``res`` is the number of bytes that were taken.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SENDMSG. See sendmsg(2), cmsg(3).
    """
    return messaged(self, IORING_OP_SENDMSG, fd, buffers, msg_flags, callback, control, address, flags)


cdef object messaged(object self, unsigned opcode, object fd, object buffers, object msg_flags, object callback, object control,
                     object address, object flags):
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef bint is_received = opcode == IORING_OP_RECVMSG
    cdef uint32_t how = integer_within(msg_flags, "msg_flags", 0, UINT32_MAX)
    cdef uint32_t count = 0
    cdef size_t length = 0
    cdef msghdr *header = <msghdr *>raw_memory(request, sizeof(msghdr))
    header.msg_iov = raw_vector(request, buffers, is_received, &count)
    header.msg_iovlen = count
    header.msg_control = more_memory(request, control, is_received, "control", INT32_MAX, &length)
    header.msg_controllen = length
    cdef int number = raw_fd(request, fd)
    if is_received:
        header.msg_name = more_memory(request, address, True, "address", ADDRESS_MAX, &length)
    else:
        header.msg_name = address_memory(request, address, fd, number, &length)
    header.msg_namelen = length
    raw_fill(request, opcode, number, header, 1, 0)
    if is_received:
        request.header = header
        how |= MSG_CMSG_CLOEXEC
    request.core.sqe.rw_flags = how
    return raw_start(request)


add_raw_method("sendmsg", _sendmsg)


@cython.binding(True)
def _sendmsg_zc(self, fd, buffers, msg_flags=0, callback=None, *, control=None, address=None, flags=0):
    """Send several buffers as one message without copying them.

    :param fd, buffers, msg_flags, control, address: as for ``sendmsg``.
    :param callback: as for ``send_zc``.
    :param flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of bytes that were taken.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SENDMSG_ZC. See sendmsg(2).
    """
    return messaged(self, IORING_OP_SENDMSG_ZC, fd, buffers, msg_flags, callback, control, address, flags)


add_raw_method("sendmsg_zc", _sendmsg_zc)


# -- Receiving ---------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _recv(self, fd, buffer, msg_flags=0, callback=None, *, group=None, multishot=False, poll_first=False, flags=0):
    """Receive bytes.

    :param fd: as for ``read``.
    :param buffer: a writable, contiguous buffer. With ``group``: how many bytes at most, an int, 0: as many as the buffer has.
    :param msg_flags: an int, ``socket.MSG_WAITALL`` and so on.
    :param callback, flags: as for ``nop``.
    :param group: of ``provide_buffers``, an int, 0 .. 65535: the kernel chooses a buffer of it. None: it is given.
    :param multishot: True: receive until the request ends, which an error does, -ENOBUFS and the end of the data; only with
        ``group``, and ``buffer`` 0.
    :param poll_first: True: wait until the socket is ready, and try then.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the data.
    :raises BufferError, TypeError: the buffer is not contiguous, or not writable.
    :raises NotImplementedError, ValueError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_RECV. See recv(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t length = 0
    cdef char *memory = NULL
    cdef unsigned how = flag_argument(poll_first, "poll_first")
    if flag_argument(multishot, "multishot"):
        raw_many(request)
        if group is None:
            raise ValueError("group must be given with multishot=True: one buffer is not enough")
        how |= IORING_RECV_MULTISHOT
    if group is None:
        memory = raw_buffer(request, buffer, True, &length)
    else:
        length = integer_within(buffer, "buffer", 0, LE_PART_MAX)
    raw_fill(request, IORING_OP_RECV, raw_fd(request, fd), memory, length, 0)
    request.core.sqe.rw_flags = integer_within(msg_flags, "msg_flags", 0, UINT32_MAX)
    request.core.sqe.ioprio = how
    if group is not None:
        request.core.sqe.flags = IOSQE_BUFFER_SELECT
        request.core.sqe.buf_index = integer_within(group, "group", 0, 65535)
    return raw_start(request)


add_raw_method("recv", _recv)


@cython.binding(True)
def _recvmsg(self, fd, buffers, msg_flags=0, callback=None, *, control=None, address=None, flags=0):
    """Receive a message into several buffers, with ancillary data.

    :param fd, msg_flags: as for ``recv``.
    :param buffers: an iterable of writable, contiguous buffers, 1024 at most.
    :param callback, flags: as for ``nop``.
    :param control: a writable buffer for the ancillary data; fds among them are close-on-exec, and yours to close. None: none.
    :param address: a writable buffer for the sockaddr of the sender, of 128 bytes at most; None: it is not asked for.
    :returns: the ``Request``; ``res`` is the number of bytes. ``Request.message`` has the lengths of address and ancillary data,
        and the flags of the message.
    :raises BufferError, NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    Stands on IORING_OP_RECVMSG. See recvmsg(2), cmsg(3).
    """
    return messaged(self, IORING_OP_RECVMSG, fd, buffers, msg_flags, callback, control, address, flags)


add_raw_method("recvmsg", _recvmsg)
