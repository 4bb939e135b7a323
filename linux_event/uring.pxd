# uring.pxd: the ring as the families of raw requests see it.

from linux_event.engine cimport Engine
from linux_event.loop cimport Loop

cdef class RingLoop(Loop):
    cdef bint has_drained  # a request had IO_DRAIN

cdef class Ring:
    cdef Loop owner     # which submits and reaps
    cdef bint is_alone  # nobody runs the owner: submit() and reap() do
    cdef object __weakref__

# Raises as loop_guard() does.
cdef int ring_guard(Ring self) except -1
# Raises NotImplementedError if the running kernel does not have the operation.
cdef int operation_guard(unsigned opcode) except -1
# What the kernel keeps for this ring beyond requests, until it is closed.
# What close() does without an argument.
cdef object ring_close(Ring self)
cdef dict registered_of(Engine owner)
# Give every ring the method `name`: `function(ring, ...)`, a Cython function with binding.
cdef int add_raw_method(str name, object function) except -1
