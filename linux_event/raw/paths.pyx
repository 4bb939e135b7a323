"""Raw requests on paths: opening, names and folders, status, extended attributes."""

cimport cython
from libc.stdint cimport INT32_MAX, UINT32_MAX, uint32_t, uint64_t, uintptr_t
from linux_event.arguments cimport integer_within
from linux_event.linux cimport O_CLOEXEC
from linux_event.raw.request cimport (
    Request, raw_buffer, raw_fd, raw_fill, raw_folder, raw_memory, raw_new, raw_path, raw_slot, raw_start,
)
from linux_event.uring cimport add_raw_method

cdef extern from "le_compat.h" nogil:
    enum:
        IORING_OP_FGETXATTR
        IORING_OP_FSETXATTR
        IORING_OP_GETXATTR
        IORING_OP_LINKAT
        IORING_OP_MKDIRAT
        IORING_OP_OPENAT
        IORING_OP_OPENAT2
        IORING_OP_RENAMEAT
        IORING_OP_SETXATTR
        IORING_OP_STATX
        IORING_OP_SYMLINKAT
        IORING_OP_UNLINKAT

cdef enum:
    STATX_BYTES = 256  # sizeof(struct statx), which is ABI

# struct open_how of openat2(2): its first version, which is ABI.
cdef struct open_how:
    uint64_t flags
    uint64_t mode
    uint64_t resolve


# -- Opening -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _openat(self, dir_fd, path, open_flags, mode=0o666, callback=None, *, file_index=None, flags=0):
    """Open a file.

    :param dir_fd: a folder that a relative path starts from, an int or an object with ``fileno()``; None or AT_FDCWD (-100): the
        current folder.
    :param path: a str, bytes or path object.
    :param open_flags: an int, ``os.O_RDONLY`` and so on; ``os.O_CLOEXEC`` is added to that of an fd of the process.
    :param mode: an int, the permissions of a file that is created, less the umask.
    :param callback: as for ``nop``.
    :param file_index: make a direct descriptor instead of an fd, at this place of ``register_files``, an int, 0 or more;
        ``Ring.FILE_INDEX_ALLOC``: at one that the kernel chooses.
    :param flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the fd, which is yours to close; 0 with ``file_index``, or the place that was chosen.
    :raises ValueError: a NUL in the path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_OPENAT. See openat(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    cdef uint32_t how = integer_within(open_flags, "open_flags", 0, INT32_MAX)
    cdef uint32_t slot = raw_slot(request, file_index, &how, O_CLOEXEC)
    raw_fill(request, IORING_OP_OPENAT, raw_folder(request, dir_fd), raw_path(request, path),
             integer_within(mode, "mode", 0, 0o7777), 0)
    request.core.sqe.rw_flags = how
    request.core.sqe.file_index = slot
    return raw_start(request)


add_raw_method("openat", _openat)


@cython.binding(True)
def _openat2(self, dir_fd, path, open_flags, mode=0, resolve=0, callback=None, *, file_index=None, flags=0):
    """Open a file, with a say in how the path is followed.

    :param dir_fd, path, open_flags, file_index: as for ``openat``.
    :param mode: an int, the permissions of a file that is created; it has to be 0 where none can be.
    :param resolve: an int, RESOLVE_* of openat2(2).
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` as for ``openat``.
    :raises ValueError: a NUL in the path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_OPENAT2. See openat2(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    cdef uint32_t wanted = integer_within(open_flags, "open_flags", 0, INT32_MAX)
    cdef uint32_t slot = raw_slot(request, file_index, &wanted, O_CLOEXEC)
    cdef open_how *how = <open_how *>raw_memory(request, sizeof(open_how))
    how.flags = wanted
    how.mode = integer_within(mode, "mode", 0, 0o7777)
    how.resolve = integer_within(resolve, "resolve", 0, UINT32_MAX)
    raw_fill(request, IORING_OP_OPENAT2, raw_folder(request, dir_fd), raw_path(request, path), sizeof(open_how), <uintptr_t>how)
    request.core.sqe.file_index = slot
    return raw_start(request)


add_raw_method("openat2", _openat2)


# -- Status ------------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _statx(self, dir_fd, path, buffer, statx_flags=0, mask=0x7ff, callback=None, *, flags=0):
    """Ask for the status of a file.

    :param dir_fd, path: as for ``openat``; an empty path with AT_EMPTY_PATH (0x1000) in ``statx_flags`` is ``dir_fd`` itself.
    :param buffer: a writable, contiguous buffer of 256 bytes at least, for a struct statx.
    :param statx_flags: an int, AT_* of statx(2).
    :param mask: an int, STATX_* of statx(2): what is asked for.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in the path; the buffer is too small.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_STATX. See statx(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    cdef uint32_t length = 0
    cdef char *memory = raw_buffer(request, buffer, True, &length)
    if length < STATX_BYTES:
        raise ValueError(f"buffer must have {STATX_BYTES} bytes at least, not {length}")
    raw_fill(request, IORING_OP_STATX, raw_folder(request, dir_fd), raw_path(request, path),
             integer_within(mask, "mask", 0, UINT32_MAX), <uintptr_t>memory)
    request.core.sqe.rw_flags = integer_within(statx_flags, "statx_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("statx", _statx)


# -- Names and folders -------------------------------------------------------------------------------------------------

@cython.binding(True)
def _renameat(self, old_dir_fd, old_path, new_dir_fd, new_path, callback=None, *, rename_flags=0, flags=0):
    """Give a file another name.

    :param old_dir_fd, old_path: the file, as for ``openat``.
    :param new_dir_fd, new_path: its new name; what has it is replaced.
    :param callback, flags: as for ``nop``.
    :param rename_flags: an int, RENAME_* of renameat2(2).
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in a path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_RENAMEAT. See renameat2(2).
    """
    cdef Request request = raw_new(self, callback, flags, old_path)
    return two_paths(request, IORING_OP_RENAMEAT, old_dir_fd, old_path, new_dir_fd, new_path,
                     integer_within(rename_flags, "rename_flags", 0, UINT32_MAX))


cdef object two_paths(Request request, unsigned opcode, object old_dir_fd, object old_path, object new_dir_fd, object new_path,
                      uint32_t how):
    cdef int old_folder = raw_folder(request, old_dir_fd)
    cdef int new_folder = raw_folder(request, new_dir_fd)
    cdef const char *old = raw_path(request, old_path)
    raw_fill(request, opcode, old_folder, old, <uint32_t>new_folder, <uintptr_t>raw_path(request, new_path))
    request.core.sqe.rw_flags = how
    return raw_start(request)


add_raw_method("renameat", _renameat)


@cython.binding(True)
def _linkat(self, old_dir_fd, old_path, new_dir_fd, new_path, callback=None, *, link_flags=0, flags=0):
    """Give a file one more name.

    :param old_dir_fd, old_path: the file, as for ``openat``.
    :param new_dir_fd, new_path: the other name.
    :param callback, flags: as for ``nop``.
    :param link_flags: an int, AT_SYMLINK_FOLLOW (0x400) or AT_EMPTY_PATH (0x1000).
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in a path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_LINKAT. See linkat(2).
    """
    cdef Request request = raw_new(self, callback, flags, old_path)
    return two_paths(request, IORING_OP_LINKAT, old_dir_fd, old_path, new_dir_fd, new_path,
                     integer_within(link_flags, "link_flags", 0, UINT32_MAX))


add_raw_method("linkat", _linkat)


@cython.binding(True)
def _symlinkat(self, target, dir_fd, path, callback=None, *, flags=0):
    """Make a symbolic link.

    :param target: what it says, a str, bytes or path object.
    :param dir_fd, path: its name, as for ``openat``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in a path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SYMLINKAT. See symlinkat(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    cdef const char *text = raw_path(request, target)
    raw_fill(request, IORING_OP_SYMLINKAT, raw_folder(request, dir_fd), text, 0, <uintptr_t>raw_path(request, path))
    return raw_start(request)


add_raw_method("symlinkat", _symlinkat)


@cython.binding(True)
def _unlinkat(self, dir_fd, path, callback=None, *, unlink_flags=0, flags=0):
    """Remove a name, or an empty folder.

    :param dir_fd, path: as for ``openat``.
    :param callback, flags: as for ``nop``.
    :param unlink_flags: an int, 0, or AT_REMOVEDIR (0x200) for a folder.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in the path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_UNLINKAT. See unlinkat(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    raw_fill(request, IORING_OP_UNLINKAT, raw_folder(request, dir_fd), raw_path(request, path), 0, 0)
    request.core.sqe.rw_flags = integer_within(unlink_flags, "unlink_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("unlinkat", _unlinkat)


@cython.binding(True)
def _mkdirat(self, dir_fd, path, mode=0o777, callback=None, *, flags=0):
    """Make a folder.

    :param dir_fd, path: as for ``openat``.
    :param mode: an int, its permissions, less the umask.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in the path.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_MKDIRAT. See mkdirat(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    raw_fill(request, IORING_OP_MKDIRAT, raw_folder(request, dir_fd), raw_path(request, path),
             integer_within(mode, "mode", 0, 0o7777), 0)
    return raw_start(request)


add_raw_method("mkdirat", _mkdirat)


# -- Extended attributes -----------------------------------------------------------------------------------------------

cdef object attribute(Request request, unsigned opcode, int fd, object name, object value, bint is_asked_for, object path,
                      uint32_t how):
    cdef uint32_t length = 0
    cdef const char *title = raw_path(request, name)
    cdef char *memory = raw_buffer(request, value, is_asked_for, &length)
    raw_fill(request, opcode, fd, title, length, <uintptr_t>memory)
    if path is not None:
        request.core.sqe.addr3 = <uintptr_t>raw_path(request, path)
    request.core.sqe.rw_flags = how
    return raw_start(request)


@cython.binding(True)
def _getxattr(self, path, name, buffer, callback=None, *, flags=0):
    """Ask for an extended attribute of a file.

    :param path: a str, bytes or path object.
    :param name: a str or bytes, such as ``"user.comment"``.
    :param buffer: a writable, contiguous buffer for the value; an empty one: only its length is asked for.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the length of the value; -ERANGE if the buffer is too small.
    :raises ValueError: a NUL in the path or the name.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_GETXATTR. See getxattr(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    return attribute(request, IORING_OP_GETXATTR, 0, name, buffer, True, path, 0)


add_raw_method("getxattr", _getxattr)


@cython.binding(True)
def _fgetxattr(self, fd, name, buffer, callback=None, *, flags=0):
    """Ask for an extended attribute of an open file.

    :param fd: as for ``read``.
    :param name, buffer: as for ``getxattr``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` as for ``getxattr``.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FGETXATTR. See fgetxattr(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    return attribute(request, IORING_OP_FGETXATTR, raw_fd(request, fd), name, buffer, True, None, 0)


add_raw_method("fgetxattr", _fgetxattr)


@cython.binding(True)
def _setxattr(self, path, name, value, xattr_flags=0, callback=None, *, flags=0):
    """Set an extended attribute of a file.

    :param path: a str, bytes or path object.
    :param name: as for ``getxattr``.
    :param value: bytes, or any other contiguous buffer.
    :param xattr_flags: an int, 0, ``os.XATTR_CREATE`` or ``os.XATTR_REPLACE``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: a NUL in the path or the name.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_SETXATTR. See setxattr(2).
    """
    cdef Request request = raw_new(self, callback, flags, path)
    return attribute(request, IORING_OP_SETXATTR, 0, name, value, False, path,
                     integer_within(xattr_flags, "xattr_flags", 0, UINT32_MAX))


add_raw_method("setxattr", _setxattr)


@cython.binding(True)
def _fsetxattr(self, fd, name, value, xattr_flags=0, callback=None, *, flags=0):
    """Set an extended attribute of an open file.

    :param fd: as for ``read``.
    :param name, value, xattr_flags: as for ``setxattr``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FSETXATTR. See fsetxattr(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    return attribute(request, IORING_OP_FSETXATTR, raw_fd(request, fd), name, value, False, None,
                     integer_within(xattr_flags, "xattr_flags", 0, UINT32_MAX))


add_raw_method("fsetxattr", _fsetxattr)
