"""The operation that reads a whole file. le_read_file.h tells how."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint64_t
from linux_event.core cimport (
    LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_READ_OPS, le_op_class, le_read_abort, le_read_begin, le_read_file, le_read_host,
    le_read_on_cqe, le_read_prep,
)
from linux_event.linux cimport close
from linux_event.loop cimport add_method
from linux_event.operation cimport Operation, kind_begin, operation_begin, operation_kind, operation_path
from linux_event.slots cimport turn_end, turn_start

cdef extern from *:
    """
    /* The loop takes completions with the GIL. Neither of these two runs code of anybody else. */
    static void le_hold(void *owner)
    {
        Py_INCREF((PyObject *)owner);
    }

    static char *le_grow(struct le_read_file *file, uint64_t capacity)
    {
        PyObject *bytes = file->grown;
        if (bytes)
            _PyBytes_Resize(&bytes, (Py_ssize_t)capacity);
        else if ((bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity)))
            memcpy(PyBytes_AS_STRING(bytes), file->memory, file->used);
        file->grown = bytes;
        if (bytes)
            return PyBytes_AS_STRING(bytes);
        PyErr_Clear();
        return NULL;
    }
    """
    void le_hold(void *owner) noexcept nogil
    char *le_grow(le_read_file *file, uint64_t capacity) noexcept nogil
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1
    void Py_XDECREF(PyObject *object)


@cython.final
cdef class ReadFile(Operation):
    """What ``loop.read_file()`` returns: an ``Operation`` whose result is bytes."""

    cdef le_read_file file

    def __cinit__(self):
        self.file.fd = -1

    def __dealloc__(self):
        Py_XDECREF(<PyObject *>self.file.grown)
        if self.file.fd >= 0:
            close(self.file.fd)  # in a forked child, or where the ring has come to its end before the file


cdef le_read_host host
host.grow = le_grow
host.hold = le_hold

cdef operation_kind read_file_kind
read_file_kind.is_composite = True
read_file_kind.result = take_bytes
read_file_kind.abort = abort
read_file_kind.release = release
kind_begin(&read_file_kind, "read_file")

cdef le_op_class classes[LE_READ_OPS]


cdef int classes_begin() except -1:
    """Requests of one object differ by where in it they are."""
    cdef ReadFile sample = ReadFile.__new__(ReadFile)
    for i in range(LE_READ_OPS):
        classes[i].abi = LE_OP_ABI
        classes[i].owner_offset = <char *>&sample.file.ops[i] - <char *><void *>sample
        classes[i].name = "read_file"
        classes[i].prep = le_read_prep
        classes[i].on_cqe = le_read_on_cqe
        classes[i].interest = LE_OP_EVERY_COMPLETION
    return 0


classes_begin()


cdef object take_bytes(Operation self):
    cdef le_read_file *file = &(<ReadFile>self).file
    cdef PyObject *data = <PyObject *>file.grown
    if data == NULL:
        return PyBytes_FromStringAndSize(file.memory, <Py_ssize_t>file.used)
    file.grown = NULL
    _PyBytes_Resize(&data, <Py_ssize_t>file.used)
    result = <object>data
    Py_DECREF(result)
    return result


cdef int abort(Operation self) except -1:
    for _ in range(le_read_abort(&self.owner.core, &(<ReadFile>self).file)):
        Py_DECREF(self)
    return 0


cdef int release(Operation self) except -1:
    return turn_end(self, &(<ReadFile>self).file.turn)


@cython.binding(True)
def _read_file(self, path, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Read a whole file, from its first byte to its end.

    :param path: a str, bytes or path object.
    :param callback: ``callback(result, error)``, called once; one of the two is None. Never called within this method.
    :param on_success: ``on_success(result)``, and
    :param on_error: ``on_error(error)``: the other form. A failure that nobody is told of goes to the loop's ``on_error``.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError; None: never.
    :returns: the ``Operation``; its result is bytes, all of the file. The file has been closed then.
    :raises ValueError: a NUL in the path, ``timeout`` is negative, or a chain is being made (``link``).
    :raises TypeError: an argument has a wrong type, or both forms of callbacks were given.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Files of any size and kind: what it says about its size is not believed, it is read until it ends. A file that grows is read
    to where it ends when its end is met; one without an end, such as /dev/zero, until there is no memory (ENOMEM), the timeout
    or ``cancel``. A FIFO is waited for until a writer has come and gone.

    A loop works on 64 whole files at a time, further ones wait their turn, in order; a FIFO keeps its place while it waits. What
    is asked for together goes to the kernel together: thousands of files cost less than one system call for each. No fd is
    taken.

    Stands on IORING_OP_OPENAT with a direct descriptor, IORING_OP_READ linked to it and then until nothing comes, and
    IORING_OP_CLOSE; where the kernel refuses a table of direct descriptors, on the same with an fd, one after the other. See
    openat(2), read(2).
    """
    cdef ReadFile op = ReadFile.__new__(ReadFile)
    operation_begin(op, &read_file_kind, self, callback, on_success, on_error, path)
    op.file.path = operation_path(op, path)
    op.file.operation = &op.core
    op.file.host = &host
    op.file.turn.begin = le_read_begin
    for i in range(LE_READ_OPS):
        op.file.ops[i].cls = &classes[i]
        op.file.ops[i].bits = i
    turn_start(op, &op.file.turn, timeout)
    return op


add_method("read_file", _read_file)
