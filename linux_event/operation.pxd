# operation.pxd: the base of all kinds of operations; frozen, because extensions of other packages derive from it.
from cpython.buffer cimport Py_buffer
from cpython.object cimport PyObject
from linux_event.core cimport le_op_class, le_operation, le_watcher_class
from linux_event.engine cimport Engine

cdef class Operation

# What a kind of operation is. It has to live for ever.
cdef struct operation_kind:
    le_op_class request        # of Operation.core.op: operation_request() fills it
    le_watcher_class dispatch  # how the loop calls it: operation_request() fills it
    const char *name           # of the method that starts it
    bint is_composite          # more than one request, or one that is answered many times: not for chains
    bint is_lenient            # the kernel would go on with a chain when it has failed: the loop sees to it
    object (*result)(Operation operation)  # what the callback gets for core.result, which is not negative; may raise
    int (*dispose)(Operation operation) except -1  # nobody will get the result: close the fd that it is. May be NULL
    int (*abort)(Operation operation) except -1  # ask the kernel to end it; NULL: what core.op has asked for is cancelled
    int (*release)(Operation operation) except -1  # right before the callbacks, however it has ended. May be NULL

cdef class Operation:
    cdef le_operation core  # has to be the first field
    cdef const operation_kind *kind
    cdef Engine owner
    cdef object function      # callback(result, error), or None
    cdef object succeeded     # on_success(result), or None
    cdef object failed        # on_error(error), or None
    cdef list done_functions  # of add_done_callback(), or None
    cdef object outcome       # what the callback gets once done
    cdef object error         # the exception, or None
    cdef object where         # the path or fd, for errors
    cdef object other         # the second path or fd of an operation that has two, for errors; else None
    cdef object kept          # what the fd belongs to, until the kernel is done
    cdef object memory        # what the kernel works on, until it is done: a path, bytes to read into
    cdef Py_buffer view       # the user's buffer, until the kernel is done

cdef int kind_begin(operation_kind *kind, const char *name) except -1  # in the ordinary way: one request, answered once
# The start of every method: checks the loop and the callbacks, and notes what the operation works on.
cdef int operation_begin(Operation self, const operation_kind *kind, object loop, object callback, object on_success,
                         object on_error, object where) except -1
# Operation.__new__ and operation_begin in one, for kinds without fields of their own.
cdef Operation operation_new(const operation_kind *kind, object loop, object callback, object on_success, object on_error,
                             object where)
cdef void operation_kind_set(Operation self, const operation_kind *kind) noexcept  # of a kind known only by the arguments
# The end of every method: core.sqe is filled, the request goes with the next submission.
cdef object operation_start(Operation self, object timeout)
# Its first part, for kinds with requests of their own: the loop has a reference now.
cdef int operation_enter(Operation self, object timeout) except -1
# The fd of an argument, which has to be open (EBADF); an object is kept, and believed if it can close the fd itself.
cdef int operation_fd(Operation self, object fd) except -1
cdef const char *operation_path(Operation self, object path) except NULL  # as bytes, which are kept
# Make a bytes object of this size for the kernel to write into; result_bytes hands it over, cut to core.result.
cdef char *operation_bytes(Operation self, Py_ssize_t size) except NULL
# Take the user's buffer; it is released when the operation is done.
cdef int operation_buffer(Operation self, object buffer, bint is_written_to) except -1
# What core.result is, most often. bytes_cut() takes over the reference, which has to be the only one.
cdef object result_none(Operation self)
cdef object result_count(Operation self)
cdef object result_bytes(Operation self)
cdef object bytes_cut(PyObject *data, Py_ssize_t size)
