# ring.pxd: opening rings, and the replaceable operations beneath them.

from libc.stdint cimport int64_t, uint32_t
from linux_event.core cimport le_ring, le_ring_ops

cdef const le_ring_ops *production_ops() noexcept nogil
cdef int use_ring_ops(const le_ring_ops *ops) except -1
# sqpoll: a thread of the kernel takes the submissions.
cdef int open_ring(le_ring *ring, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1
cdef int tell_by_eventfd(le_ring *ring, int fd) noexcept nogil
cdef int register_slots(le_ring *ring, uint32_t count) noexcept nogil
