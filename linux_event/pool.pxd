# pool.pxd: pools of buffers, as the operations that receive into them see it.

from linux_event.core cimport le_pool
from linux_event.engine cimport Engine

cdef class BufferPool:
    cdef le_pool pool
    cdef Engine owner
    cdef bint is_open

# The pool to receive into: the one that is given, or that of the loop, which is made when it is first needed. Its `users` has
# to be raised as long as the kernel may write to its buffers.
cdef BufferPool pool_argument(Engine loop, object pool)
