"""Operations on sockets that carry more than a stream of bytes: addresses, messages of several buffers, ancillary data."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from linux_event.address cimport address_from_sockaddr, address_to_sockaddr, socket_family, socket_is_unix_packet
from linux_event.arguments cimport integer_within
from linux_event.core cimport LE_PART_MAX, le_retry, le_retry_init, le_retry_on_cqe
from linux_event.liburing cimport io_uring_prep_recvmsg, io_uring_prep_sendmsg
from linux_event.linux cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, CMSG_SPACE, EMSGSIZE, IOV_MAX, MSG_CMSG_CLOEXEC, MSG_DONTWAIT,
    MSG_NOSIGNAL, MSG_WAITALL, MSG_ZEROCOPY, SCM_RIGHTS, SOL_SOCKET, close, cmsghdr, iovec, msghdr, sockaddr_storage,
)
from linux_event.loop cimport add_method
from linux_event.operation cimport (
    Operation, bytes_cut, kind_begin, operation_buffer, operation_fd, operation_kind, operation_kind_set, operation_new,
    operation_start, result_count,
)

import os

cdef enum:
    CONTROL_MAX = 0x7fffffff  # bytes of ancillary data


@cython.final
@cython.freelist(16)
cdef class _Message:
    """What the kernel reads and writes beside the data: the memory of an operation, freed with it."""

    cdef msghdr header
    cdef iovec single
    cdef sockaddr_storage address
    cdef bytes data       # what is received
    cdef iovec *parts     # of what is sent: `single`, or allocated together with `views`
    cdef Py_buffer *views
    cdef int32_t held     # how many of them hold a buffer
    cdef char *control
    cdef le_retry retry

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.held):
            PyBuffer_Release(&self.views[i])
        free(self.views)
        free(self.parts)
        free(self.control)


cdef _Message message_new(Operation op, char *data, Py_ssize_t size):
    """A message of one part."""
    cdef _Message message = _Message.__new__(_Message)
    message.single.iov_base = data
    message.single.iov_len = size
    message.header.msg_iov = &message.single
    message.header.msg_iovlen = 1
    op.memory = message
    return message


cdef int message_control(_Message message, size_t size) except -1:
    if not size:
        return 0
    message.control = <char *>calloc(1, size)
    if message.control == NULL:
        raise MemoryError(f"ancillary data of {size} bytes")
    message.header.msg_control = message.control
    message.header.msg_controllen = size
    return 0


cdef int message_address(_Message message, int family, object address) except -1:
    message.header.msg_namelen = address_to_sockaddr(address, family, &message.address)
    message.header.msg_name = &message.address
    return 0


# -- recvfrom, recvmsg -------------------------------------------------------------------------------------------------

cdef operation_kind recvfrom_kind
recvfrom_kind.result = result_recvfrom
kind_begin(&recvfrom_kind, "recvfrom")
recvfrom_kind.request.on_cqe = le_retry_on_cqe

cdef operation_kind recvmsg_kind
recvmsg_kind.result = result_recvmsg
recvmsg_kind.dispose = dispose_message
kind_begin(&recvmsg_kind, "recvmsg")
recvmsg_kind.request.on_cqe = le_retry_on_cqe


cdef _Message message_to_receive(Operation op, Py_ssize_t size):
    cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
    cdef _Message message = message_new(op, PyBytes_AS_STRING(data), size)
    message.data = data
    message.header.msg_name = &message.address
    message.header.msg_namelen = sizeof(message.address)
    return message


cdef object data_received(Operation self):
    cdef _Message message = <_Message>self.memory
    cdef PyObject *data = <PyObject *>message.data
    Py_INCREF(message.data)
    message.data = None
    return bytes_cut(data, <Py_ssize_t>self.core.result)


cdef object address_received(Operation self):
    cdef _Message message = <_Message>self.memory
    return address_from_sockaddr(&message.address, message.header.msg_namelen)


cdef object result_recvfrom(Operation self):
    return data_received(self), address_received(self)


cdef object result_recvmsg(Operation self):
    cdef _Message message = <_Message>self.memory
    cdef int flags = message.header.msg_flags & ~<int>MSG_CMSG_CLOEXEC  # which the kernel repeats from the request
    # Where this fails the fds that came are closed, once, by dispose_message().
    return data_received(self), ancillary_data(&message.header), flags, address_received(self)


cdef size_t ancillary_size(msghdr *header, cmsghdr *item) noexcept:
    """The bytes of an item that are there: its length may tell more than that, where it was cut."""
    cdef char *end = <char *>header.msg_control + header.msg_controllen
    cdef size_t there = end - <char *>CMSG_DATA(item)
    return min(item.cmsg_len - CMSG_LEN(0), there)


cdef list ancillary_data(msghdr *header):
    cdef list items = []
    cdef cmsghdr *item = CMSG_FIRSTHDR(header)
    while item != NULL and item.cmsg_len >= CMSG_LEN(0):
        items.append((item.cmsg_level, item.cmsg_type,
                      PyBytes_FromStringAndSize(<char *>CMSG_DATA(item), ancillary_size(header, item))))
        item = CMSG_NXTHDR(header, item)
    return items


cdef int dispose_message(Operation self) except -1:
    """Nobody gets the message: close the fds that came with it."""
    cdef msghdr *header = &(<_Message>self.memory).header
    cdef cmsghdr *item = CMSG_FIRSTHDR(header)
    cdef size_t i
    cdef int fd = -1
    while item != NULL and item.cmsg_len >= CMSG_LEN(0):
        if item.cmsg_level == SOL_SOCKET and item.cmsg_type == SCM_RIGHTS:
            for i in range(ancillary_size(header, item) // sizeof(fd)):
                memcpy(&fd, CMSG_DATA(item) + i * sizeof(fd), sizeof(fd))
                close(fd)
        item = CMSG_NXTHDR(header, item)
    return 0


@cython.binding(True)
def _recvfrom(self, sock, size, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Receive from a socket, and tell from whom.

    :param sock: a socket, or its fd.
    :param size: bytes to receive at most, an int, 0 .. 2147479552. What a datagram has more is lost.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is ``(data, address)`` as from ``socket.recvfrom``: bytes, and the address of the
        sender in the form of the family: None on a connected stream of the internet, ``""`` of a Unix socket without a name.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    Stands on IORING_OP_RECVMSG. See recvfrom(2).
    """
    cdef Operation op = operation_new(&recvfrom_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef _Message message = message_to_receive(op, integer_within(size, "size", 0, LE_PART_MAX))
    io_uring_prep_recvmsg(&op.core.sqe, fd, &message.header, 0)
    return operation_start(op, timeout)


add_method("recvfrom", _recvfrom)


@cython.binding(True)
def _recvmsg(self, sock, size, ancsize=0, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Receive a message with its ancillary data.

    :param sock: a socket, or its fd.
    :param size: bytes to receive at most, an int, 0 .. 2147479552. What a datagram has more is lost.
    :param ancsize: bytes of ancillary data to receive at most, an int, 0 or more: the sum of ``socket.CMSG_SPACE`` of its items.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is ``(data, ancdata, msg_flags, address)`` as from ``socket.recvmsg``: bytes; a list
        of ``(level, type, data)``; an int of ``socket.MSG_TRUNC`` (the datagram was longer), ``MSG_CTRUNC`` (the ancillary data
        were), ...; the address of the sender as for ``recvfrom``.
    :raises ValueError: as for ``recv``, or ``ancsize`` is out of range.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``recv``.

    Fds that arrive (SCM_RIGHTS) are not inheritable, and are yours to close. Those that arrive after a ``cancel`` are closed.

    Stands on IORING_OP_RECVMSG with MSG_CMSG_CLOEXEC. See recvmsg(2), cmsg(3), unix(7).
    """
    cdef Operation op = operation_new(&recvmsg_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef _Message message = message_to_receive(op, integer_within(size, "size", 0, LE_PART_MAX))
    message_control(message, integer_within(ancsize, "ancsize", 0, CONTROL_MAX))
    io_uring_prep_recvmsg(&op.core.sqe, fd, &message.header, MSG_CMSG_CLOEXEC)
    return operation_start(op, timeout)


add_method("recvmsg", _recvmsg)


# -- sendto, sendmsg ---------------------------------------------------------------------------------------------------

cdef operation_kind sendto_kind
sendto_kind.result = result_count
kind_begin(&sendto_kind, "sendto")
sendto_kind.request.on_cqe = le_retry_on_cqe

cdef operation_kind sendmsg_kind
sendmsg_kind.result = result_count
kind_begin(&sendmsg_kind, "sendmsg")
sendmsg_kind.request.on_cqe = le_retry_on_cqe

cdef operation_kind sendmsg_now_kind  # with MSG_DONTWAIT
sendmsg_now_kind.result = result_count
kind_begin(&sendmsg_now_kind, "sendmsg")


cdef object send_message(Operation op, _Message message, object sock, int fd, uint32_t flags, object timeout):
    """Fill the entry in such a way that it waits, unless that was not asked for, and start it."""
    io_uring_prep_sendmsg(&op.core.sqe, fd, &message.header, flags | MSG_NOSIGNAL)
    if flags & MSG_DONTWAIT:
        operation_kind_set(op, &sendmsg_now_kind)
    elif not socket_is_unix_packet(sock, fd):
        op.core.sqe.msg_flags |= MSG_WAITALL  # of a stream: all that there is
        le_retry_init(&op.core, &message.retry, True)
    else:
        op.core.sqe.msg_flags |= MSG_DONTWAIT  # not to be tried twice, see le_retry.h
        le_retry_init(&op.core, &message.retry, True)
    return operation_start(op, timeout)


@cython.binding(True)
def _sendto(self, sock, data, address, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Send a datagram.

    :param sock: a socket, or its fd.
    :param data: bytes, or any other contiguous buffer, which is held until the operation is done.
    :param address: of the form that the family of the socket has, as for ``connect``; a host has to be numeric.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is the number of bytes sent, an int.
    :raises BufferError: the buffer is not contiguous.
    :raises ValueError, OSError: as for ``connect``.
    :raises TypeError, LoopClosedError, WrongThreadError: as for ``recv``.

    It never raises SIGPIPE. In a chain it does not wait for room in the queue of a Unix socket: it fails with BlockingIOError.

    Stands on IORING_OP_SENDMSG. See sendto(2).
    """
    cdef Operation op = operation_new(&sendto_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    operation_buffer(op, data, False)
    cdef _Message message = message_new(op, <char *>op.view.buf, op.view.len)
    message_address(message, socket_family(sock, fd), address)
    return send_message(op, message, sock, fd, 0, timeout)


add_method("sendto", _sendto)


@cython.binding(True)
def _sendmsg(self, sock, buffers, ancdata=(), flags=0, address=None, callback=None, *, on_success=None, on_error=None,
             timeout=None):
    """Send a message that is gathered from buffers, with ancillary data.

    :param sock: a socket, or its fd.
    :param buffers: an iterable of bytes or other contiguous buffers, at most 1024, which are held until the operation is done.
    :param ancdata: an iterable of ``(level, type, data)`` as for ``socket.sendmsg``: two ints, and bytes or another buffer, which
        is copied at once. Fds in it have to stay open until the operation is done.
    :param flags: an int of ``socket.MSG_*``; MSG_ZEROCOPY is refused, because nothing would tell when the buffers are free:
        ``send`` has ``zero_copy``.
    :param address: of the form that the family of the socket has, as for ``connect``; None: the socket is connected.
    :param callback, on_success, on_error, timeout: as for ``recv``.
    :returns: the ``Operation``; its result is the number of bytes sent, an int. On a stream it may be less than there are where
        the operation was interrupted.
    :raises BufferError: a buffer is not contiguous.
    :raises OSError: as for ``connect``, or there are too many buffers (EMSGSIZE).
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as for ``connect``.

    It never raises SIGPIPE. In a chain it does not wait for room in the queue of a Unix datagram socket: it fails with
    BlockingIOError.

    Stands on IORING_OP_SENDMSG. See sendmsg(2), cmsg(3), unix(7).
    """
    cdef Operation op = operation_new(&sendmsg_kind, self, callback, on_success, on_error, sock)
    cdef int fd = operation_fd(op, sock)
    cdef _Message message = message_new(op, NULL, 0)
    cdef uint32_t number = <uint32_t>integer_within(flags, "flags", 0, 0x7fffffff)
    if number & MSG_ZEROCOPY:
        raise ValueError("flags: MSG_ZEROCOPY does not tell when the buffers are free, use send(..., zero_copy=True)")
    hold_buffers(message, tuple(buffers))
    fill_control(message, tuple(ancdata))
    if address is not None:
        message_address(message, socket_family(sock, fd), address)
    return send_message(op, message, sock, fd, number, timeout)


add_method("sendmsg", _sendmsg)


cdef int hold_buffers(_Message message, tuple buffers) except -1:
    cdef Py_ssize_t count = len(buffers)
    cdef Py_ssize_t i
    if count > IOV_MAX:
        raise OSError(EMSGSIZE, f"{os.strerror(EMSGSIZE)}: at most {IOV_MAX} buffers go into one, not {count}")
    message.header.msg_iovlen = count
    if not count:
        return 0
    message.views = <Py_buffer *>calloc(count, sizeof(Py_buffer))
    message.parts = <iovec *>calloc(count, sizeof(iovec))
    if message.views == NULL or message.parts == NULL:
        raise MemoryError(f"a message of {count} buffers")
    for i in range(count):
        PyObject_GetBuffer(buffers[i], &message.views[i], PyBUF_SIMPLE)
        message.held += 1
        message.parts[i].iov_base = message.views[i].buf
        message.parts[i].iov_len = message.views[i].len
    message.header.msg_iov = message.parts
    return 0


cdef int fill_control(_Message message, tuple ancdata) except -1:
    cdef list items = []
    cdef size_t total = 0
    cdef cmsghdr *item
    cdef bytes data
    for entry in ancdata:
        if not isinstance(entry, tuple) or len(<tuple>entry) != 3:
            raise TypeError(f"ancdata must be of tuples (level, type, data), not {entry!r}")
        data = bytes(memoryview(entry[2]))
        items.append((integer_within(entry[0], "level of ancdata", -0x80000000, 0x7fffffff),
                      integer_within(entry[1], "type of ancdata", -0x80000000, 0x7fffffff), data))
        total += CMSG_SPACE(len(data))
        if total > CONTROL_MAX:
            raise ValueError(f"ancdata: more than {CONTROL_MAX} bytes")
    message_control(message, total)
    item = CMSG_FIRSTHDR(&message.header)
    for level, kind, data in items:
        item.cmsg_level = level
        item.cmsg_type = kind
        item.cmsg_len = CMSG_LEN(len(data))
        memcpy(CMSG_DATA(item), PyBytes_AS_STRING(data), len(data))
        item = CMSG_NXTHDR(&message.header, item)
    return 0
