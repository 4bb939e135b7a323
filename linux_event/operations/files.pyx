"""Operations on files: open, close, read, write, sync, allocate."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from linux_event.arguments cimport flag_argument, integer_within
from linux_event.core cimport LE_PART_MAX, le_operation_on_part
from linux_event.liburing cimport (
    IORING_FSYNC_DATASYNC, io_uring_prep_close, io_uring_prep_fallocate, io_uring_prep_fsync, io_uring_prep_openat,
    io_uring_prep_read, io_uring_prep_write,
)
from linux_event.linux cimport AT_FDCWD, O_CLOEXEC, close
from linux_event.loop cimport add_method, loop_close
from linux_event.operation cimport (
    Operation, kind_begin, operation_buffer, operation_bytes, operation_fd, operation_kind, operation_new, operation_path,
    operation_start, result_bytes, result_count,
)

cdef int64_t offset_argument(object offset, str name) except? -2:
    """Where in the file; -1, for the current position, is what io_uring takes for it."""
    return integer_within(offset, name, -1, INT64_MAX)


# -- open, close -------------------------------------------------------------------------------------------------------

cdef operation_kind open_kind
open_kind.result = result_count
open_kind.dispose = dispose_fd
kind_begin(&open_kind, "open")


cdef int dispose_fd(Operation self) except -1:
    close(<int>self.core.result)
    return 0


@cython.binding(True)
def _open(self, path, flags, mode=0o666, callback=None, *, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Open a file.

    :param path: a str, bytes or path object.
    :param flags: an int, ``os.O_RDONLY`` and so on; ``os.O_CLOEXEC`` is added.
    :param mode: an int, the permissions of a file that is created, less the umask.
    :param dir_fd: a folder's fd, or an object with ``fileno()``, that a relative path starts from; None: the current folder.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the fd, an int, which is yours to close.
    :raises ValueError: a NUL in the path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_OPENAT. See openat(2).
    """
    cdef Operation op = operation_new(&open_kind, self, callback, on_success, on_error, path)
    cdef int folder = AT_FDCWD if dir_fd is None else operation_fd(op, dir_fd)
    io_uring_prep_openat(&op.core.sqe, folder, operation_path(op, path),
                         integer_within(flags, "flags", 0, 0x7fffffff) | O_CLOEXEC,
                         integer_within(mode, "mode", 0, 0o7777))
    return operation_start(op, timeout)


add_method("open", _open)

cdef operation_kind close_kind
kind_begin(&close_kind, "close")


@cython.binding(True)
def _close(self, fd=..., callback=None, *, on_success=None, on_error=None, timeout=None):
    """Without an argument: close the loop. Stop and destroy all watchers, cancel all operations and wait until the kernel has
    let go of their buffers, free the ring. Idempotent.

    Deferred calls are dropped. Operations that were not done get a CancelledError before this returns. In a forked child it
    only frees the child's copies.

    With an fd: an operation that closes it. Nothing else may be in flight on it.

    :param fd: an int, or an object with ``fileno()``, which does not learn that its fd is closed: ``detach`` it.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None.
    :raises RuntimeError: without an fd, the loop is running.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_ASYNC_CANCEL and IORING_OP_CLOSE. See io_uring_enter(2), close(2).
    """
    if fd is ...:
        return loop_close(self)
    cdef Operation op = operation_new(&close_kind, self, callback, on_success, on_error, fd)
    io_uring_prep_close(&op.core.sqe, operation_fd(op, fd))
    return operation_start(op, timeout)


add_method("close", _close)


# -- read --------------------------------------------------------------------------------------------------------------

cdef operation_kind read_kind
read_kind.result = result_bytes
kind_begin(&read_kind, "read")


@cython.binding(True)
def _read(self, fd, size, offset=-1, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Read from a file, pipe, terminal or device.

    :param fd: an int, or an object with ``fileno()``, which is kept alive until the operation is done.
    :param size: bytes to read at most, an int, 0 .. 2147479552. Fewer may come.
    :param offset: where in the file, in bytes, an int, 0 or more; -1: at the current position, which moves on.
    :param callback: ``callback(result, error)``, called once; one of the two is None. Never called within this method.
    :param on_success: ``on_success(result)``, and
    :param on_error: ``on_error(error)``: the other form. A failure that nobody is told of goes to the loop's ``on_error``.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError; None: never.
    :returns: the ``Operation``; its result is bytes, ``b""`` at the end of the file.
    :raises ValueError: ``fd`` is negative, ``size``, ``offset`` or ``timeout`` out of range.
    :raises OSError: ``fd`` is an int and not open (EBADF).
    :raises TypeError: an argument has a wrong type, or both forms of callbacks were given.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_OP_READ. See read(2), pread(2).
    """
    cdef Operation op = operation_new(&read_kind, self, callback, on_success, on_error, fd)
    cdef int number = operation_fd(op, fd)
    cdef unsigned count = integer_within(size, "size", 0, LE_PART_MAX)
    io_uring_prep_read(&op.core.sqe, number, operation_bytes(op, count), count, offset_argument(offset, "offset"))
    return operation_start(op, timeout)


add_method("read", _read)

cdef operation_kind readinto_kind
readinto_kind.result = result_count
kind_begin(&readinto_kind, "readinto")


@cython.binding(True)
def _readinto(self, fd, buffer, offset=-1, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Read from a file, pipe, terminal or device into memory that is given.

    :param fd: an int, or an object with ``fileno()``.
    :param buffer: a writable, contiguous buffer, such as a bytearray. It is held until the operation is done: a bytearray
        cannot be resized meanwhile (BufferError).
    :param offset, callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the number of bytes read, an int, 0 at the end of the file.
    :raises BufferError: the buffer is not contiguous, or not writable (also TypeError).
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_READ. See read(2), pread(2).
    """
    cdef Operation op = operation_new(&readinto_kind, self, callback, on_success, on_error, fd)
    cdef int number = operation_fd(op, fd)
    operation_buffer(op, buffer, True)
    io_uring_prep_read(&op.core.sqe, number, op.view.buf, min(op.view.len, <Py_ssize_t>LE_PART_MAX),
                       offset_argument(offset, "offset"))
    return operation_start(op, timeout)


add_method("readinto", _readinto)


# -- write -------------------------------------------------------------------------------------------------------------

cdef operation_kind write_kind
write_kind.result = result_count
kind_begin(&write_kind, "write")
write_kind.request.on_cqe = le_operation_on_part


@cython.binding(True)
def _write(self, fd, data, offset=-1, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Write to a file, pipe, terminal or device: all of the data, unless there is an error.

    :param fd: an int, or an object with ``fileno()``.
    :param data: bytes, or any other contiguous buffer, which is held until the operation is done.
    :param offset: where in the file, in bytes, an int, 0 or more; -1: at the current position, which moves on.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the number of bytes written, an int: the length of ``data``.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Part of the data may have been written where it fails, is cancelled or timed out.

    Stands on IORING_OP_WRITE, repeated where the kernel takes only a part. See write(2), pwrite(2).
    """
    cdef Operation op = operation_new(&write_kind, self, callback, on_success, on_error, fd)
    cdef int number = operation_fd(op, fd)
    operation_buffer(op, data, False)
    op.core.total = op.view.len
    io_uring_prep_write(&op.core.sqe, number, op.view.buf, min(op.view.len, <Py_ssize_t>LE_PART_MAX),
                        offset_argument(offset, "offset"))
    return operation_start(op, timeout)


add_method("write", _write)


# -- sync, space -------------------------------------------------------------------------------------------------------

cdef operation_kind fsync_kind
fsync_kind.is_lenient = True
kind_begin(&fsync_kind, "fsync")


@cython.binding(True)
def _fsync(self, fd, callback=None, *, datasync=False, on_success=None, on_error=None, timeout=None):
    """Wait until what was written to a file is on its disk.

    :param fd: an int, or an object with ``fileno()``.
    :param datasync: True: without the metadata that is not needed to read the data.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Writes that are still in flight are not waited for: put them before it into a chain (``link``), or start it in their
    callback. Stands on IORING_OP_FSYNC. See fsync(2), fdatasync(2).
    """
    cdef Operation op = operation_new(&fsync_kind, self, callback, on_success, on_error, fd)
    io_uring_prep_fsync(&op.core.sqe, operation_fd(op, fd), IORING_FSYNC_DATASYNC if flag_argument(datasync, "datasync") else 0)
    return operation_start(op, timeout)


add_method("fsync", _fsync)

cdef operation_kind fallocate_kind
fallocate_kind.is_lenient = True
kind_begin(&fallocate_kind, "fallocate")


@cython.binding(True)
def _fallocate(self, fd, mode, offset, length, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Allocate, free or zero a part of a file.

    :param fd: an int, or an object with ``fileno()``, open for writing.
    :param mode: an int: 0 allocates and lets the file grow; other flags as fallocate(2) has them.
    :param offset: where in the file, in bytes, an int, 0 or more.
    :param length: bytes, an int, 1 or more.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_FALLOCATE. See fallocate(2).
    """
    cdef Operation op = operation_new(&fallocate_kind, self, callback, on_success, on_error, fd)
    io_uring_prep_fallocate(&op.core.sqe, operation_fd(op, fd), integer_within(mode, "mode", 0, 0x7fffffff),
                            integer_within(offset, "offset", 0, INT64_MAX), integer_within(length, "length", 1, INT64_MAX))
    return operation_start(op, timeout)


add_method("fallocate", _fallocate)
