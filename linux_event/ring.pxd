# ring.pxd: opening rings, and the replaceable operations beneath them.

from libc.stdint cimport int64_t, uint32_t
from linux_event.core cimport le_ring, le_ring_ops

cdef const le_ring_ops *production_ops() noexcept nogil
cdef int use_ring_ops(const le_ring_ops *ops) except -1
cdef enum ring_mode:
    RING_DEFERRED  # the fastest: completions appear only when the thread enters the ring
    RING_COOPERATIVE  # completions appear with any system call of the thread, and wake who waits for the ring's fd
    RING_POLLED  # a thread of the kernel takes the submissions

cdef int open_ring(le_ring *ring, uint32_t entries, uint32_t cq_entries, ring_mode mode) except -1
cdef int replace_ring(le_ring *ring, le_ring *successor) noexcept nogil
