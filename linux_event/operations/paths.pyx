"""Operations on paths: look at a file, cut it, rename, remove, make folders and links."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t
from libc.string cimport memcpy
from linux_event.arguments cimport flag_argument, integer_within
from linux_event.chain cimport chain_new
from linux_event.core cimport (
    LE_OP_AGAIN, LE_OP_END, LE_OP_IDLE, LE_OP_QUEUED, LE_OPERATION_OF_OP, le_loop, le_op, le_op_verdict, le_operation,
    le_operation_end, le_operation_is_unwanted,
)
from linux_event.liburing cimport (
    io_uring_prep_close, io_uring_prep_linkat, io_uring_prep_mkdirat, io_uring_prep_nop, io_uring_prep_openat,
    io_uring_prep_renameat, io_uring_prep_statx, io_uring_prep_symlinkat, io_uring_prep_unlinkat, le_prep_ftruncate,
)
from linux_event.linux cimport (
    AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, ECANCELED, O_CLOEXEC,
    O_NONBLOCK, O_WRONLY, STATX_BASIC_STATS, close, ftruncate, makedev, statx, statx_timestamp, truncate,
)
from linux_event.loop cimport add_method
from linux_event.operation cimport (
    Operation, kind_begin, operation_begin, operation_fd, operation_kind, operation_new, operation_path, operation_start,
)
from linux_event.requests cimport op_stop

import os


cdef int folder_argument(Operation op, object dir_fd) except -1:
    """The folder that a relative path starts from. An object given for it is kept beside one that is kept already."""
    if dir_fd is None:
        return AT_FDCWD
    kept = op.kept
    cdef int number = operation_fd(op, dir_fd)
    if kept is not None:
        op.kept = (kept, dir_fd)
    return number


cdef bint is_path(object value):
    return isinstance(value, (str, bytes)) or hasattr(value, "__fspath__")


# -- stat --------------------------------------------------------------------------------------------------------------

cdef operation_kind stat_kind
stat_kind.is_lenient = True
stat_kind.result = result_stat
kind_begin(&stat_kind, "stat")


cdef object seconds_of(const statx_timestamp *stamp):
    return <double>stamp.tv_sec + 1e-9 * stamp.tv_nsec


cdef object nanoseconds_of(const statx_timestamp *stamp):
    if -9_223_372_036 < stamp.tv_sec < 9_223_372_036:
        return stamp.tv_sec * <int64_t>1_000_000_000 + stamp.tv_nsec
    return <object>stamp.tv_sec * 1_000_000_000 + stamp.tv_nsec  # beyond the years 1677 .. 2262


cdef object result_stat(Operation self):
    """What os.stat() makes of struct stat, made of struct statx, which stands at the beginning of the memory."""
    cdef const statx *found = <const statx *>PyBytes_AS_STRING(self.memory)
    return os.stat_result((
        found.stx_mode, found.stx_ino, makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_nlink, found.stx_uid,
        found.stx_gid, found.stx_size,
        found.stx_atime.tv_sec, found.stx_mtime.tv_sec, found.stx_ctime.tv_sec,
        seconds_of(&found.stx_atime), seconds_of(&found.stx_mtime), seconds_of(&found.stx_ctime),
        nanoseconds_of(&found.stx_atime), nanoseconds_of(&found.stx_mtime), nanoseconds_of(&found.stx_ctime),
        found.stx_blksize, found.stx_blocks, makedev(found.stx_rdev_major, found.stx_rdev_minor),
    ))


@cython.binding(True)
def _stat(self, path_or_fd, callback=None, *, follow_symlinks=True, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Look at the state of a file: type, permissions, size, times.

    :param path_or_fd: a str, bytes or path object; or an fd: an int, or an object with ``fileno()``.
    :param follow_symlinks: False: of a symbolic link tell about itself. Of a path only.
    :param dir_fd: a folder's fd, or an object with ``fileno()``, that a relative path starts from; None: the current folder.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is an ``os.stat_result`` with all that ``os.stat`` tells.
    :raises ValueError: a NUL in the path; ``follow_symlinks`` or ``dir_fd`` together with an fd.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_STATX. See stat(2), statx(2).
    """
    cdef Operation op = operation_new(&stat_kind, self, callback, on_success, on_error, path_or_fd)
    cdef bint follows = flag_argument(follow_symlinks, "follow_symlinks")
    cdef int folder, flags = AT_NO_AUTOMOUNT
    cdef const char *path = b""
    cdef Py_ssize_t length = 0
    if is_path(path_or_fd):
        path = operation_path(op, path_or_fd)
        length = PyBytes_GET_SIZE(op.memory)
        folder = folder_argument(op, dir_fd)
        flags |= 0 if follows else AT_SYMLINK_NOFOLLOW
    elif dir_fd is not None:
        raise ValueError(f"dir_fd must be None where path_or_fd is an fd, not {dir_fd!r}")
    elif not follows:
        raise ValueError("follow_symlinks must be True where path_or_fd is an fd, not False")
    else:
        folder = operation_fd(op, path_or_fd)
        flags |= AT_EMPTY_PATH
    # The path, with its NUL, stands behind what the kernel writes.
    memory = PyBytes_FromStringAndSize(NULL, sizeof(statx) + length + 1)
    cdef char *found = PyBytes_AS_STRING(memory)
    memcpy(found + sizeof(statx), path, length + 1)
    op.memory = memory
    io_uring_prep_statx(&op.core.sqe, folder, found + sizeof(statx), flags, STATX_BASIC_STATS, <void *>found)
    return operation_start(op, timeout)


add_method("stat", _stat)


# -- truncate ----------------------------------------------------------------------------------------------------------

cdef operation_kind truncate_kind, truncate_path_kind, truncate_later_kind
truncate_kind.is_lenient = True
kind_begin(&truncate_kind, "truncate")
truncate_path_kind.is_composite = True
truncate_path_kind.abort = abort_truncate
kind_begin(&truncate_path_kind, "truncate")
truncate_path_kind.request.on_cqe = on_truncate
# For kernels without the request: done when the loop comes to it.
truncate_later_kind.is_composite = True
truncate_later_kind.result = result_truncate
kind_begin(&truncate_later_kind, "truncate")

cdef object has_ftruncate = None  # whether the kernel has the request; None: not asked yet


cdef bint kernel_truncates() except -1:
    global has_ftruncate
    if has_ftruncate is None:
        from linux_event import ring
        try:
            has_ftruncate = "FTRUNCATE" in ring.probe()["operations"]
        except OSError:
            pass  # there is no room for another ring at present: asked again the next time
    return has_ftruncate is True


cdef enum truncate_stage:  # in op.bits; op.fd is the fd, or -1
    OPENING
    CUTTING
    CLOSING


@cython.final
cdef class PathTruncate(Operation):
    """Opens, truncates, closes: one request after the other."""

    def __cinit__(self):
        self.core.op.fd = -1

    def __dealloc__(self):
        if self.core.op.fd >= 0:
            close(self.core.op.fd)  # the loop was closed in a way that left no time for it


cdef le_op_verdict on_truncate(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef le_operation *operation = LE_OPERATION_OF_OP(op)
    cdef bint is_unwanted = le_operation_is_unwanted(operation)
    if op.bits == CLOSING:
        op.fd = -1
        le_operation_end(loop, operation, operation.result if operation.result < 0 else result)
        return LE_OP_END
    if result == -EINTR and not is_unwanted:
        return LE_OP_AGAIN
    if op.bits == OPENING:
        if result < 0:
            le_operation_end(loop, operation, result)
            return LE_OP_END
        op.fd = result
        if not is_unwanted:
            op.bits = CUTTING
            le_prep_ftruncate(&operation.sqe, op.fd, <int64_t>operation.total)
            return LE_OP_AGAIN
        result = -ECANCELED
    close_truncated(operation, result)
    return LE_OP_AGAIN


cdef void close_truncated(le_operation *operation, int32_t result) noexcept nogil:
    operation.result = result
    operation.op.bits = CLOSING
    io_uring_prep_close(&operation.sqe, operation.op.fd)


cdef int abort_truncate(Operation self) except -1:
    cdef le_op *op = &self.core.op
    if op.bits == CLOSING:
        return 0  # as good as over
    if op.bits == CUTTING and op.state == LE_OP_QUEUED:
        close_truncated(&self.core, -ECANCELED)
        return 0
    op_stop(self.owner, op)
    if op.state == LE_OP_IDLE:
        le_operation_end(&self.owner.core, &self.core, -ECANCELED)
    return 0


cdef object result_truncate(Operation self):
    cdef const char *path = NULL
    cdef int result
    cdef int64_t length = <int64_t>self.core.total
    if self.memory is not None:
        path = PyBytes_AS_STRING(self.memory)
    with nogil:
        result = ftruncate(self.core.op.fd, length) if path == NULL else truncate(path, length)
    if result < 0:
        raise OSError(errno, os.strerror(errno), self.where)


@cython.binding(True)
def _truncate(self, path_or_fd, length, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Make a file shorter, or longer by bytes of 0 that take no room on the disk.

    :param path_or_fd: a str, bytes or path object; or an fd that is open for writing: an int, or an object with ``fileno()``.
    :param length: bytes that the file has afterwards, an int, 0 or more.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError: a NUL in the path; ``length`` is negative.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_FTRUNCATE, for a path between IORING_OP_OPENAT and IORING_OP_CLOSE: only with an fd it can be part of a
    chain. A kernel before Linux 6.9 lacks the request. There the loop calls truncate(2) or ftruncate(2) by itself, which waits
    for the file system, and neither form can be part of a chain. See ftruncate(2).
    """
    cdef const operation_kind *kind = &truncate_later_kind
    cdef bint is_request = kernel_truncates()
    cdef bint has_path = is_path(path_or_fd)
    cdef Operation op
    if is_request:
        kind = &truncate_path_kind if has_path else &truncate_kind
    op = PathTruncate.__new__(PathTruncate) if has_path and is_request else Operation.__new__(Operation)
    op.core.op.fd = -1
    operation_begin(op, kind, self, callback, on_success, on_error, path_or_fd)
    cdef int64_t size = integer_within(length, "length", 0, INT64_MAX)
    cdef const char *path = NULL
    if kind != &truncate_kind:
        op.core.total = size  # for later; in a chain it would count as bytes to move
    if has_path:
        path = operation_path(op, path_or_fd)
    else:
        op.core.op.fd = operation_fd(op, path_or_fd)
    if not is_request:
        io_uring_prep_nop(&op.core.sqe)
    elif has_path:
        # A FIFO is to be refused, not waited for.
        io_uring_prep_openat(&op.core.sqe, AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NONBLOCK, 0)
    else:
        le_prep_ftruncate(&op.core.sqe, op.core.op.fd, size)
    return operation_start(op, timeout)


add_method("truncate", _truncate)


# -- rename, remove, make ----------------------------------------------------------------------------------------------

cdef operation_kind rename_kind, unlink_kind, rmdir_kind, mkdir_kind, link_kind, symlink_kind
rename_kind.is_lenient = unlink_kind.is_lenient = rmdir_kind.is_lenient = True
mkdir_kind.is_lenient = link_kind.is_lenient = symlink_kind.is_lenient = True
kind_begin(&rename_kind, "rename")
kind_begin(&unlink_kind, "unlink")
kind_begin(&rmdir_kind, "rmdir")
kind_begin(&mkdir_kind, "mkdir")
kind_begin(&link_kind, "link")
kind_begin(&symlink_kind, "symlink")


cdef Operation two_paths(const operation_kind *kind, object loop, object callback, object on_success, object on_error,
                         object source, object target, const char **source_path, const char **target_path):
    """An operation on two paths, which both are kept, and both are told with an error."""
    cdef Operation op = operation_new(kind, loop, callback, on_success, on_error, source)
    op.other = target
    source_path[0] = operation_path(op, source)
    kept = op.memory
    target_path[0] = operation_path(op, target)
    op.memory = (kept, op.memory)
    return op


@cython.binding(True)
def _rename(self, source, target, callback=None, *, src_dir_fd=None, dst_dir_fd=None, on_success=None, on_error=None,
            timeout=None):
    """Give a file or folder another name. A file that has the name already is replaced, at no moment is there none.

    :param source: the present path: str, bytes or path object.
    :param target: the path that it gets, on the same file system.
    :param src_dir_fd: a folder's fd, or an object with ``fileno()``, that a relative ``source`` starts from; None: the current
        folder.
    :param dst_dir_fd: the same for ``target``.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None. Its OSError has both paths: ``filename`` and ``filename2``.
    :raises ValueError: a NUL in a path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_RENAMEAT. See renameat(2).
    """
    cdef const char *paths[2]
    cdef Operation op = two_paths(&rename_kind, self, callback, on_success, on_error, source, target, &paths[0], &paths[1])
    cdef int source_folder = folder_argument(op, src_dir_fd)
    io_uring_prep_renameat(&op.core.sqe, source_folder, paths[0], folder_argument(op, dst_dir_fd), paths[1], 0)
    return operation_start(op, timeout)


add_method("rename", _rename)


@cython.binding(True)
def _unlink(self, path, callback=None, *, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Remove a file, or a link, but no folder.

    :param path: a str, bytes or path object.
    :param dir_fd: a folder's fd, or an object with ``fileno()``, that a relative path starts from; None: the current folder.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError: a NUL in the path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_UNLINKAT. See unlinkat(2).
    """
    return remove(&unlink_kind, self, callback, on_success, on_error, path, dir_fd, 0, timeout)


add_method("unlink", _unlink)


@cython.binding(True)
def _rmdir(self, path, callback=None, *, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Remove an empty folder.

    :param path: a str, bytes or path object.
    :param dir_fd, callback, on_success, on_error, timeout: as for ``unlink``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``unlink``.

    Stands on IORING_OP_UNLINKAT with AT_REMOVEDIR. See unlinkat(2), rmdir(2).
    """
    return remove(&rmdir_kind, self, callback, on_success, on_error, path, dir_fd, AT_REMOVEDIR, timeout)


add_method("rmdir", _rmdir)


cdef object remove(const operation_kind *kind, object loop, object callback, object on_success, object on_error, object path,
                   object dir_fd, int flags, object timeout):
    cdef Operation op = operation_new(kind, loop, callback, on_success, on_error, path)
    io_uring_prep_unlinkat(&op.core.sqe, folder_argument(op, dir_fd), operation_path(op, path), flags)
    return operation_start(op, timeout)


@cython.binding(True)
def _mkdir(self, path, mode=0o777, callback=None, *, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Make a folder.

    :param path: a str, bytes or path object.
    :param mode: an int, the permissions of the folder, less the umask.
    :param dir_fd, callback, on_success, on_error, timeout: as for ``unlink``.
    :returns: the ``Operation``; its result is None.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``unlink``.

    Stands on IORING_OP_MKDIRAT. See mkdirat(2).
    """
    cdef Operation op = operation_new(&mkdir_kind, self, callback, on_success, on_error, path)
    io_uring_prep_mkdirat(&op.core.sqe, folder_argument(op, dir_fd), operation_path(op, path),
                          integer_within(mode, "mode", 0, 0o7777))
    return operation_start(op, timeout)


add_method("mkdir", _mkdir)


@cython.binding(True)
def _link(self, source=..., target=..., callback=None, *, hard=False, src_dir_fd=None, dst_dir_fd=None, follow_symlinks=True,
          on_success=None, on_error=None, timeout=None):
    """Without paths: make a chain. The operations started inside a ``with`` statement run one after the other in the kernel.

        with loop.link():
            loop.write(fd, data)
            loop.fsync(fd)

    They are submitted together. When one fails, those behind it are not begun: their callbacks get a CancelledError, which is
    an OSError with ECANCELED too. A read or write that moves less than asked for counts as failed. Where an exception leaves
    the ``with`` statement, nothing of the chain is begun. Inside it an operation that is more than one request (``read_file``,
    ``accept_many``, ...), and one for which there is no more room in the submission queue, raises ValueError.

    :param hard: True: go on after a failure. Only without paths. A write or send that moves a part at first sends the rest when
        the next one has begun: do not put two of them on one stream into such a chain.
    :returns: a ``Chain``, whose ``operations`` are those started inside.
    :raises TypeError: ``hard`` is not a bool.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    With two paths: an operation that gives a file one more name, a hard link.

    :param source: a path of the file: str, bytes or path object.
    :param target: the path that it gets, on the same file system. What has it already is not replaced.
    :param src_dir_fd, dst_dir_fd: as for ``rename``.
    :param follow_symlinks: False: where ``source`` is a symbolic link, give this one more name and not what it leads to.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None. Its OSError has both paths: ``filename`` and ``filename2``.
    :raises ValueError: a NUL in a path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IOSQE_IO_LINK and IOSQE_IO_HARDLINK, see io_uring_enter(2); on IORING_OP_LINKAT, see linkat(2).
    """
    cdef const char *paths[2]
    cdef Operation op
    cdef int source_folder, flags
    if source is ... and target is ...:
        if callback is not None or on_success is not None or on_error is not None or timeout is not None:
            raise TypeError("a chain has no callbacks and no timeout: its operations have them")
        if src_dir_fd is not None or dst_dir_fd is not None or follow_symlinks is not True:
            raise TypeError("src_dir_fd, dst_dir_fd and follow_symlinks are for link(source, target)")
        return chain_new(self, hard)
    if source is ... or target is ...:
        raise TypeError(f"a hard link needs two paths, source and target: {'source' if source is ... else 'target'} is missing")
    if hard is not False:
        raise TypeError("hard is for chains, link() without paths")
    op = two_paths(&link_kind, self, callback, on_success, on_error, source, target, &paths[0], &paths[1])
    flags = AT_SYMLINK_FOLLOW if flag_argument(follow_symlinks, "follow_symlinks") else 0
    source_folder = folder_argument(op, src_dir_fd)
    io_uring_prep_linkat(&op.core.sqe, source_folder, paths[0], folder_argument(op, dst_dir_fd), paths[1], flags)
    return operation_start(op, timeout)


add_method("link", _link)


@cython.binding(True)
def _symlink(self, source, target, callback=None, *, dir_fd=None, on_success=None, on_error=None, timeout=None):
    """Make a symbolic link.

    :param source: what it says, a path that need not exist: str, bytes or path object. A relative one starts from the folder
        of the link.
    :param target: the path of the link itself.
    :param dir_fd: a folder's fd, or an object with ``fileno()``, that a relative ``target`` starts from; None: the current
        folder.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is None. Its OSError has both paths: ``filename`` and ``filename2``.
    :raises ValueError: a NUL in a path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Stands on IORING_OP_SYMLINKAT. See symlinkat(2).
    """
    cdef const char *paths[2]
    cdef Operation op = two_paths(&symlink_kind, self, callback, on_success, on_error, source, target, &paths[0], &paths[1])
    io_uring_prep_symlinkat(&op.core.sqe, paths[0], folder_argument(op, dir_fd), paths[1])
    return operation_start(op, timeout)


add_method("symlink", _symlink)
