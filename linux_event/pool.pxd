# pool.pxd: pools of buffers, as the operations that receive into them see it.

from linux_event.core cimport le_pool
from linux_event.engine cimport Engine

cdef class BufferPool:
    cdef le_pool pool
    cdef Engine owner
    cdef bint is_open

# The pool to receive into: the one that is given, or the small one of the loop. Its `users` has to be raised as long as the
# kernel may write to its buffers.
cdef BufferPool pool_argument(Engine loop, object pool)
# The pools of a loop itself, which are made when they are first needed.
cdef BufferPool small_pool(Engine loop)
cdef BufferPool big_pool(Engine loop)
cdef BufferPool datagram_pool(Engine loop)
