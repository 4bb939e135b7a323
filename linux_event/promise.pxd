# promise.pxd: operations whose result the program brings.
from linux_event.operation cimport Operation, operation_kind

cdef class Promise(Operation):
    cdef object __weakref__
    cdef object value      # the result, until it is handed over
    cdef object abandoned  # called without arguments when nobody waits for the result any more, or None

# Fill the table of a kind.
cdef int promise_kind_begin(operation_kind *kind, const char *name) except -1
# In flight from now on. Then operation_begin(), promise_start(), and promise_settle() or promise_fail() whenever the result is
# in, be it right after: the callback is called by the loop. These two say whether there was somebody to wait for it.
cdef int promise_start(Promise self, object timeout) except -1
cdef bint promise_settle(Promise self, object value) except -1
cdef bint promise_fail(Promise self, object error) except -1
