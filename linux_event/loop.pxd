# loop.pxd: what extensions of other packages need to define watchers of their own.

from linux_event.embedding cimport Embedding
from linux_event.engine cimport Engine, loop_changed
from linux_event.requests cimport loop_guard, op_start, op_stop

cdef class Loop(Embedding):
    pass

# Give every loop the method `name`: `function(loop, ...)`, a Python function or a Cython function with binding.
cdef int add_method(str name, object function) except -1
# Give every loop the read-only attribute `name`: `getter(loop)`, with a docstring.
cdef int add_property(str name, object getter) except -1
# What Loop.close() does without an argument.
cdef object loop_close(Loop self)
