"""Raw requests that move data of files: read and write in all forms, splice, sync, space."""

cimport cython
from libc.stdint cimport INT32_MAX, INT64_MAX, UINT32_MAX, int32_t, uint32_t, uint64_t, uintptr_t
from linux_event.arguments cimport integer_within
from linux_event.core cimport LE_PART_MAX
from linux_event.liburing cimport IOSQE_FIXED_FILE
from linux_event.linux cimport O_CLOEXEC
from linux_event.raw.registered cimport fixed_buffer
from linux_event.raw.request cimport (
    Request, iovec, raw_buffer, raw_fd, raw_fill, raw_many, raw_new, raw_slot, raw_start, raw_vector,
)
from linux_event.uring cimport Ring, add_raw_method, ring_close

cdef extern from "le_compat.h" nogil:
    enum:
        IORING_OP_CLOSE
        IORING_OP_FADVISE
        IORING_OP_FALLOCATE
        IORING_OP_FSYNC
        IORING_OP_READ
        IORING_OP_READ_FIXED
        IORING_OP_READV
        IORING_OP_SPLICE
        IORING_OP_SYNC_FILE_RANGE
        IORING_OP_TEE
        IORING_OP_WRITE
        IORING_OP_WRITE_FIXED
        IORING_OP_WRITEV
        IOSQE_BUFFER_SELECT
        LE_URING_FIXED_FD_INSTALL
        LE_URING_FTRUNCATE
        LE_URING_PIPE
        LE_URING_READ_MULTISHOT
        LE_URING_READV_FIXED
        LE_URING_WRITEV_FIXED


cdef inline uint64_t place(object offset, str name) except? 0:
    """Where in the file; -1 is the current position."""
    return integer_within(offset, name, -1, INT64_MAX)


# -- Reading -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _read(self, fd, buffer, offset=-1, callback=None, *, group=None, rw_flags=0, flags=0):
    """Read into a buffer.

    :param fd: an int, or an object with ``fileno()``; with ``Ring.FIXED_FILE`` in ``flags`` the place of a direct descriptor.
    :param buffer: a writable, contiguous buffer; at most 2147479552 bytes of it are used. With ``group``: how many bytes at
        most, an int, 0: as many as the buffer has.
    :param offset: where in the file, in bytes, an int, 0 or more; -1: at the current position, which moves on.
    :param callback, flags: as for ``nop``.
    :param group: of ``provide_buffers``, an int, 0 .. 65535: the kernel chooses a buffer of it. None: it is given.
    :param rw_flags: RWF_* of preadv2(2), an int, such as ``os.RWF_NOWAIT``.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the file.
    :raises BufferError, TypeError: the buffer is not contiguous, or not writable.
    :raises NotImplementedError, ValueError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_READ. See pread(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t length = 0
    cdef char *memory = NULL
    if group is None:
        memory = raw_buffer(request, buffer, True, &length)
    else:
        length = integer_within(buffer, "buffer", 0, LE_PART_MAX)
    raw_fill(request, IORING_OP_READ, raw_fd(request, fd), memory, length, place(offset, "offset"))
    request.core.sqe.rw_flags = integer_within(rw_flags, "rw_flags", 0, UINT32_MAX)
    if group is not None:
        request.core.sqe.flags = IOSQE_BUFFER_SELECT
        request.core.sqe.buf_index = integer_within(group, "group", 0, 65535)
    return raw_start(request)


add_raw_method("read", _read)


@cython.binding(True)
def _readv(self, fd, buffers, offset=-1, callback=None, *, rw_flags=0, flags=0):
    """Read into several buffers, one after the other.

    :param fd: as for ``read``.
    :param buffers: an iterable of writable, contiguous buffers, 1024 at most.
    :param offset, callback, rw_flags, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the file.
    :raises BufferError, NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_READV. See preadv2(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    return vectored(request, IORING_OP_READV, fd, buffers, True, offset, rw_flags)


cdef object vectored(Request request, unsigned opcode, object fd, object buffers, bint is_written_to, object offset,
                     object rw_flags):
    cdef uint32_t count = 0
    cdef iovec *vector = raw_vector(request, buffers, is_written_to, &count)
    raw_fill(request, opcode, raw_fd(request, fd), vector, count, place(offset, "offset"))
    request.core.sqe.rw_flags = integer_within(rw_flags, "rw_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("readv", _readv)


@cython.binding(True)
def _read_fixed(self, fd, index, size, offset=-1, callback=None, *, start=0, flags=0):
    """Read into a registered buffer.

    :param fd: as for ``read``.
    :param index: the place of the buffer in ``register_buffers``, an int, 0 or more.
    :param size: bytes to read at most, an int, 0 or more.
    :param offset, callback, flags: as for ``read``.
    :param start: where in the buffer, in bytes, an int, 0 or more.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the file.
    :raises ValueError: there is no such buffer, or it ends before ``start + size``.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_READ_FIXED. See pread(2), io_uring_register(2).
    """
    return fixed(self, IORING_OP_READ_FIXED, fd, index, size, offset, callback, start, flags)


cdef object fixed(object self, unsigned opcode, object fd, object index, object size, object offset, object callback,
                  object start, object flags):
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t length = integer_within(size, "size", 0, LE_PART_MAX)
    cdef char *memory = fixed_buffer(request, index, start, length)
    raw_fill(request, opcode, raw_fd(request, fd), memory, length, place(offset, "offset"))
    request.core.sqe.buf_index = index
    return raw_start(request)


add_raw_method("read_fixed", _read_fixed)


@cython.binding(True)
def _readv_fixed(self, fd, index, pieces, offset=-1, callback=None, *, flags=0):
    """Read into several pieces of a registered buffer, one after the other.

    :param fd, index: as for ``read_fixed``.
    :param pieces: an iterable of pairs ``(start, size)``, in bytes, 1024 at most.
    :param offset, callback, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the file.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read_fixed``.

    Stands on IORING_OP_READV_FIXED (Linux 6.15). See preadv2(2).
    """
    return vectored_fixed(self, LE_URING_READV_FIXED, fd, index, pieces, offset, callback, flags)


cdef object vectored_fixed(object self, unsigned opcode, object fd, object index, object pieces, object offset, object callback,
                           object flags):
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t count = 0
    cdef list pairs = [(start, integer_within(size, "size", 0, LE_PART_MAX)) for start, size in pieces]
    cdef iovec *vector = raw_vector(request, [b""] * len(pairs), False, &count)
    cdef Py_ssize_t i
    for i in range(len(pairs)):
        start, size = pairs[i]
        vector[i].iov_base = fixed_buffer(request, index, start, size)
        vector[i].iov_len = size
    raw_fill(request, opcode, raw_fd(request, fd), vector, count, place(offset, "offset"))
    request.core.sqe.buf_index = integer_within(index, "index", 0, 65535)
    return raw_start(request)


add_raw_method("readv_fixed", _readv_fixed)


@cython.binding(True)
def _read_multishot(self, fd, group, callback=None, *, size=0, flags=0):
    """Read again and again, whenever there is something, into buffers that were provided. Not for regular files.

    :param fd: as for ``read``.
    :param group: of ``provide_buffers``, an int, 0 .. 65535.
    :param callback: as for ``nop``, and must be given: it is called for each buffer, whose number is
        ``flags >> Ring.CQE_BUFFER_SHIFT``. -ENOBUFS, when there is no buffer, is the end, as is 0, the end of the data.
    :param size: bytes for each read at most, an int; 0: as many as a buffer has.
    :param flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of bytes.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_READ_MULTISHOT (Linux 6.7), which needs a group of IORING_REGISTER_PBUF_RING on some kernels. See read(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_many(request)
    raw_fill(request, LE_URING_READ_MULTISHOT, raw_fd(request, fd), NULL,
             integer_within(size, "size", 0, LE_PART_MAX), <uint64_t>-1)
    request.core.sqe.flags = IOSQE_BUFFER_SELECT
    request.core.sqe.buf_index = integer_within(group, "group", 0, 65535)
    return raw_start(request)


add_raw_method("read_multishot", _read_multishot)


# -- Writing -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _write(self, fd, data, offset=-1, callback=None, *, rw_flags=0, flags=0):
    """Write a buffer, or a part of it.

    :param fd: as for ``read``.
    :param data: bytes, or any other contiguous buffer; at most 2147479552 bytes of it are written.
    :param offset, callback, rw_flags, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes that were written.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_WRITE. See pwrite(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef uint32_t length = 0
    cdef char *memory = raw_buffer(request, data, False, &length)
    raw_fill(request, IORING_OP_WRITE, raw_fd(request, fd), memory, length, place(offset, "offset"))
    request.core.sqe.rw_flags = integer_within(rw_flags, "rw_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("write", _write)


@cython.binding(True)
def _writev(self, fd, buffers, offset=-1, callback=None, *, rw_flags=0, flags=0):
    """Write several buffers, one after the other.

    :param fd: as for ``read``.
    :param buffers: an iterable of contiguous buffers, 1024 at most.
    :param offset, callback, rw_flags, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes that were written.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_WRITEV. See pwritev2(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    return vectored(request, IORING_OP_WRITEV, fd, buffers, False, offset, rw_flags)


add_raw_method("writev", _writev)


@cython.binding(True)
def _write_fixed(self, fd, index, size, offset=-1, callback=None, *, start=0, flags=0):
    """Write a part of a registered buffer.

    :param fd: as for ``read``.
    :param index, start: as for ``read_fixed``.
    :param size: bytes to write, an int, 0 or more.
    :param offset, callback, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes that were written.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read_fixed``.

    Stands on IORING_OP_WRITE_FIXED. See pwrite(2), io_uring_register(2).
    """
    return fixed(self, IORING_OP_WRITE_FIXED, fd, index, size, offset, callback, start, flags)


add_raw_method("write_fixed", _write_fixed)


@cython.binding(True)
def _writev_fixed(self, fd, index, pieces, offset=-1, callback=None, *, flags=0):
    """Write several pieces of a registered buffer, one after the other.

    :param fd, index, pieces: as for ``readv_fixed``.
    :param offset, callback, flags: as for ``read``.
    :returns: the ``Request``; ``res`` is the number of bytes that were written.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read_fixed``.

    Stands on IORING_OP_WRITEV_FIXED (Linux 6.15). See pwritev2(2).
    """
    return vectored_fixed(self, LE_URING_WRITEV_FIXED, fd, index, pieces, offset, callback, flags)


add_raw_method("writev_fixed", _writev_fixed)


# -- From fd to fd -----------------------------------------------------------------------------------------------------

@cython.binding(True)
def _splice(self, fd_in, fd_out, count, offset_in=-1, offset_out=-1, callback=None, *, splice_flags=0, flags=0):
    """Move data between two fds, one of which is a pipe.

    :param fd_in: an int, or an object with ``fileno()``; with ``Ring.SPLICE_F_FD_IN_FIXED`` in ``splice_flags`` the place of a
        direct descriptor.
    :param fd_out: as for ``read``.
    :param count: bytes at most, an int, 0 or more.
    :param offset_in, offset_out: where in the file, in bytes, an int; -1: at the current position, and for a pipe.
    :param callback, flags: as for ``nop``.
    :param splice_flags: an int, SPLICE_F_*, such as ``os.SPLICE_F_MOVE``.
    :returns: the ``Request``; ``res`` is the number of bytes, 0 at the end of the data.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SPLICE. See splice(2).
    """
    cdef Request request = raw_new(self, callback, flags, (fd_in, fd_out))
    return spliced(request, IORING_OP_SPLICE, fd_in, fd_out, count, offset_in, offset_out, splice_flags)


cdef object spliced(Request request, unsigned opcode, object fd_in, object fd_out, object count, object offset_in,
                    object offset_out, object splice_flags):
    cdef uint32_t how = integer_within(splice_flags, "splice_flags", 0, UINT32_MAX)
    cdef int source
    if how & <uint32_t>Ring.SPLICE_F_FD_IN_FIXED:
        source = integer_within(fd_in, "fd_in", 0, INT32_MAX)
    else:
        source = plain_fd(request, fd_in)
    raw_fill(request, opcode, raw_fd(request, fd_out), <void *><uintptr_t>place(offset_in, "offset_in"),
             integer_within(count, "count", 0, UINT32_MAX), place(offset_out, "offset_out"))
    request.core.sqe.splice_fd_in = source
    request.core.sqe.rw_flags = how
    return raw_start(request)


cdef int plain_fd(Request request, object fd) except -1:
    """An fd of the process, whatever the flags say of the other one."""
    cdef unsigned flags = request.raw.flags
    request.raw.flags &= ~<unsigned>IOSQE_FIXED_FILE
    cdef int number = raw_fd(request, fd)
    request.raw.flags = flags
    return number


add_raw_method("splice", _splice)


@cython.binding(True)
def _tee(self, fd_in, fd_out, count, callback=None, *, splice_flags=0, flags=0):
    """Copy data from a pipe into another one, and leave it in the first.

    :param fd_in, fd_out, count, splice_flags: as for ``splice``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of bytes.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_TEE. See tee(2).
    """
    cdef Request request = raw_new(self, callback, flags, (fd_in, fd_out))
    return spliced(request, IORING_OP_TEE, fd_in, fd_out, count, 0, 0, splice_flags)


add_raw_method("tee", _tee)


@cython.binding(True)
def _pipe(self, fds, pipe_flags=0, callback=None, *, file_index=None, flags=0):
    """Make a pipe.

    :param fds: a writable buffer of 8 bytes, such as ``array("i", [0, 0])``, for the end to read from and the end to write to.
    :param pipe_flags: an int, ``os.O_NONBLOCK`` and so on; ``os.O_CLOEXEC`` is added to that of fds of the process.
    :param callback, flags: as for ``nop``.
    :param file_index: as for ``openat``; the end to write to goes to the next place.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: the buffer does not have 8 bytes.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_PIPE (Linux 6.16). See pipe2(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef uint32_t length = 0
    cdef uint32_t how = integer_within(pipe_flags, "pipe_flags", 0, INT32_MAX)
    cdef char *memory = raw_buffer(request, fds, True, &length)
    if length != 8:
        raise ValueError(f"fds must have 8 bytes, for two ints, not {length}")
    cdef uint32_t slot = raw_slot(request, file_index, &how, O_CLOEXEC)
    raw_fill(request, LE_URING_PIPE, 0, memory, 0, 0)
    if slot == 0:
        request.raw.opens_fd = False
        request.raw.pipe = <int32_t *>memory
    request.core.sqe.rw_flags = how
    request.core.sqe.file_index = slot
    return raw_start(request)


add_raw_method("pipe", _pipe)


@cython.binding(True)
def _fixed_fd_install(self, file_index, callback=None, *, install_flags=0, flags=0):
    """Make an fd of the process of a direct descriptor.

    :param file_index: the place of the direct descriptor, an int, 0 or more.
    :param callback: as for ``nop``.
    :param install_flags: an int, 0 or 1: the fd is not close-on-exec.
    :param flags: as for ``nop``; ``Ring.FIXED_FILE`` is added.
    :returns: the ``Request``; ``res`` is the fd, which is yours to close.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FIXED_FD_INSTALL (Linux 6.8). See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, file_index)
    request.raw.flags |= IOSQE_FIXED_FILE
    request.raw.opens_fd = True
    raw_fill(request, LE_URING_FIXED_FD_INSTALL, raw_fd(request, file_index), NULL, 0, 0)
    request.core.sqe.rw_flags = integer_within(install_flags, "install_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("fixed_fd_install", _fixed_fd_install)


# -- Close, sync, space ------------------------------------------------------------------------------------------------

@cython.binding(True)
def _close(self, fd=..., callback=None, *, flags=0):
    """Without an argument: close the ring. Cancel all requests, wait until the kernel has let go of their buffers, and free
    it. Idempotent. Callbacks of requests that were not done get -ECANCELED before this returns. In a forked child it only frees
    the child's copies.

    With an fd: a request that closes it.

    :param fd: an int, or an object with ``fileno()``, which does not learn that its fd is closed; with ``Ring.FIXED_FILE`` in
        ``flags`` the place of a direct descriptor.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises RuntimeError: without an fd, this is the ring of a loop, or one of its callbacks is running.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_CLOSE. See close(2).
    """
    if fd is ...:
        if not isinstance(self, Ring):
            raise TypeError(f"ring must be a Ring, not {type(self).__name__} ({self!r})")
        return ring_close(self)
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef int number = raw_fd(request, fd)
    if request.raw.flags & IOSQE_FIXED_FILE:
        request.raw.flags ^= IOSQE_FIXED_FILE
        raw_fill(request, IORING_OP_CLOSE, 0, NULL, 0, 0)
        request.core.sqe.file_index = number + 1
    else:
        raw_fill(request, IORING_OP_CLOSE, number, NULL, 0, 0)
    return raw_start(request)


add_raw_method("close", _close)


@cython.binding(True)
def _fsync(self, fd, callback=None, *, fsync_flags=0, offset=0, length=0, flags=0):
    """Wait until what was written to a file is on its disk.

    :param fd: as for ``read``.
    :param callback, flags: as for ``nop``.
    :param fsync_flags: an int, 0 or ``Ring.FSYNC_DATASYNC``.
    :param offset, length: the part of the file, in bytes, two ints, 0 or more; a length of 0: to the end.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FSYNC. See fsync(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, IORING_OP_FSYNC, raw_fd(request, fd), NULL, integer_within(length, "length", 0, UINT32_MAX),
             integer_within(offset, "offset", 0, INT64_MAX))
    request.core.sqe.rw_flags = integer_within(fsync_flags, "fsync_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("fsync", _fsync)


@cython.binding(True)
def _sync_file_range(self, fd, offset, length, callback=None, *, sync_flags=0, flags=0):
    """Start or await the writing of a part of a file to its disk.

    :param fd: as for ``read``.
    :param offset: where in the file, in bytes, an int, 0 or more.
    :param length: bytes, an int, 0 or more; 0: to the end.
    :param callback, flags: as for ``nop``.
    :param sync_flags: an int, SYNC_FILE_RANGE_*.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SYNC_FILE_RANGE. See sync_file_range(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, IORING_OP_SYNC_FILE_RANGE, raw_fd(request, fd), NULL, integer_within(length, "length", 0, UINT32_MAX),
             integer_within(offset, "offset", 0, INT64_MAX))
    request.core.sqe.rw_flags = integer_within(sync_flags, "sync_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("sync_file_range", _sync_file_range)


@cython.binding(True)
def _fallocate(self, fd, mode, offset, length, callback=None, *, flags=0):
    """Allocate, free or zero a part of a file.

    :param fd: as for ``read``.
    :param mode: an int: 0 allocates and lets the file grow; other flags as fallocate(2) has them.
    :param offset: where in the file, in bytes, an int, 0 or more.
    :param length: bytes, an int, 0 or more.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FALLOCATE. See fallocate(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, IORING_OP_FALLOCATE, raw_fd(request, fd),
             <void *><uintptr_t>integer_within(length, "length", 0, INT64_MAX), integer_within(mode, "mode", 0, INT32_MAX),
             integer_within(offset, "offset", 0, INT64_MAX))
    return raw_start(request)


add_raw_method("fallocate", _fallocate)


@cython.binding(True)
def _ftruncate(self, fd, length, callback=None, *, flags=0):
    """Cut a file, or let it grow by zeros.

    :param fd: as for ``read``, open for writing.
    :param length: its new length in bytes, an int, 0 or more.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FTRUNCATE (Linux 6.9). See ftruncate(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, LE_URING_FTRUNCATE, raw_fd(request, fd), NULL, 0, integer_within(length, "length", 0, INT64_MAX))
    return raw_start(request)


add_raw_method("ftruncate", _ftruncate)


@cython.binding(True)
def _fadvise(self, fd, offset, length, advice, callback=None, *, flags=0):
    """Tell the kernel how a part of a file is going to be read.

    :param fd: as for ``read``.
    :param offset, length: in bytes, two ints, 0 or more; a length of 0: to the end.
    :param advice: an int, such as ``os.POSIX_FADV_WILLNEED``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FADVISE. See posix_fadvise(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    raw_fill(request, IORING_OP_FADVISE, raw_fd(request, fd), NULL, integer_within(length, "length", 0, UINT32_MAX),
             integer_within(offset, "offset", 0, INT64_MAX))
    request.core.sqe.rw_flags = integer_within(advice, "advice", 0, INT32_MAX)
    return raw_start(request)


add_raw_method("fadvise", _fadvise)
