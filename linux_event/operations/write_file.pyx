"""The operation that writes a whole file, in its place or beside it. le_write_file.h tells how."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint32_t
from linux_event.arguments cimport flag_argument, integer_within
from linux_event.core cimport (
    LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_WRITE_DIGITS, le_op_class, le_write_abort, le_write_begin, le_write_file,
    le_write_on_cqe, le_write_prep,
)
from linux_event.linux cimport O_APPEND, O_CLOEXEC, O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_WRONLY, close
from linux_event.loop cimport add_method
from linux_event.operation cimport (
    Operation, kind_begin, operation_begin, operation_buffer, operation_kind, operation_path, result_count,
)
from linux_event.slots cimport turn_end, turn_start

cdef bytes NAME = b".linux_event-"


@cython.final
cdef class WriteFile(Operation):
    """What ``loop.write_file()`` returns: an ``Operation`` whose result is the number of bytes, an int."""

    cdef le_write_file file
    cdef bytes beside  # the path of the file that will replace the old one; nobody else knows the object
    cdef bytes folder

    def __cinit__(self):
        self.file.fd = self.file.folder_fd = -1

    def __dealloc__(self):
        # In a forked child, or where the ring has come to its end before the file.
        if self.file.fd >= 0:
            close(self.file.fd)
        if self.file.folder_fd >= 0:
            close(self.file.folder_fd)


cdef operation_kind write_file_kind
write_file_kind.is_composite = True
write_file_kind.result = result_count
write_file_kind.abort = abort
write_file_kind.release = release
kind_begin(&write_file_kind, "write_file")

cdef le_op_class request_class
request_class.abi = LE_OP_ABI
request_class.owner_offset = offset_in_object()
request_class.name = "write_file"
request_class.prep = le_write_prep
request_class.on_cqe = le_write_on_cqe
request_class.interest = LE_OP_EVERY_COMPLETION


cdef uint32_t offset_in_object() except 0:
    cdef WriteFile sample = WriteFile.__new__(WriteFile)
    return <char *>&sample.file.op - <char *><void *>sample


cdef int abort(Operation self) except -1:
    for _ in range(le_write_abort(&self.owner.core, &(<WriteFile>self).file)):
        Py_DECREF(self)
    return 0


cdef int release(Operation self) except -1:
    return turn_end(self, &(<WriteFile>self).file.turn)


cdef int write_beside(WriteFile self) except -1:
    """The name in the same folder that is renamed when all is written."""
    cdef bytes path = <bytes>self.memory
    cdef Py_ssize_t length = path.rfind(b"/") + 1  # of the folder and its slash; 0 if it is the current one
    self.beside = path[:length] + NAME + bytes(LE_WRITE_DIGITS)
    self.file.beside = PyBytes_AS_STRING(self.beside)
    self.file.digits = self.file.beside + length + len(NAME)
    if self.file.is_synced:
        self.folder = path[:length] or b"."
        self.file.folder = PyBytes_AS_STRING(self.folder)
    return 0


@cython.binding(True)
def _write_file(self, path, data, callback=None, *, mode=0o666, append=False, sync=False, atomic=False,
                on_success=None, on_error=None, timeout=None):
    """Write a whole file, which is created if it does not exist. What it held is lost, unless ``append`` is true.

    :param path: a str, bytes or path object.
    :param data: bytes, or any other contiguous buffer, which is held until the operation is done.
    :param mode: an int, the permissions of a file that is created, less the umask.
    :param append: True: write behind what the file holds.
    :param sync: True: wait until the data are on the disk; with ``atomic`` also the name.
    :param atomic: True: write a new file beside the old one, under a hidden name, and rename it when it is complete. Whoever
        reads finds the old file or the new one, whole. Any failure, and cancelling, leaves the old file and nothing else.
    :param callback, on_success, on_error, timeout: as for ``read_file``.
    :returns: the ``Operation``; its result is the number of bytes written, an int: the length of ``data``. The file has been
        closed then, and the errors of closing it are told.
    :raises ValueError: a NUL in the path, ``mode`` or ``timeout`` out of range, ``append`` and ``atomic`` together, or a chain is
        being made (``link``).
    :raises BufferError: the buffer is not contiguous.
    :raises TypeError, LoopClosedError, WrongThreadError: as for ``read_file``.

    Without ``atomic`` a part of the data may have been written where it fails, is cancelled or timed out. With it, the new file
    has the permissions ``mode`` and belongs to the process; a symbolic link is replaced, not followed; and when the kernel has
    been asked to rename it is too late to cancel: ``cancel`` returns False. ``sync`` with ``atomic`` needs a folder that can be
    opened for reading.

    A loop works on 64 whole files at a time, further ones wait their turn, in order.

    Stands on IORING_OP_OPENAT, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_CLOSE, IORING_OP_RENAMEAT and IORING_OP_UNLINKAT. See
    openat(2), write(2), fsync(2), rename(2).
    """
    cdef WriteFile op = WriteFile.__new__(WriteFile)
    operation_begin(op, &write_file_kind, self, callback, on_success, on_error, path)
    op.file.path = operation_path(op, path)
    op.file.mode = integer_within(mode, "mode", 0, 0o7777)
    op.file.is_synced = flag_argument(sync, "sync")
    cdef bint is_appended = flag_argument(append, "append")
    op.file.flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY
    if not flag_argument(atomic, "atomic"):
        op.file.flags |= O_APPEND if is_appended else O_TRUNC
    elif is_appended:
        raise ValueError("append and atomic cannot both be true: what is replaced as a whole cannot be appended to")
    else:
        op.file.flags |= O_EXCL
        write_beside(op)
    operation_buffer(op, data, False)
    op.file.data = <const char *>op.view.buf
    op.file.total = op.view.len
    op.file.operation = &op.core
    op.file.op.cls = &request_class
    op.file.turn.begin = le_write_begin
    turn_start(op, &op.file.turn, timeout)
    return op


add_method("write_file", _write_file)
