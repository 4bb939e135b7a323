# ring.pxd: opening rings, and the replaceable operations beneath them.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from linux_event.core cimport le_ring, le_ring_ops

cdef const le_ring_ops *production_ops() noexcept nogil
cdef int use_ring_ops(const le_ring_ops *ops) except -1
# sqpoll: a thread of the kernel takes the submissions.
cdef int open_ring(le_ring *ring, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1
# io_uring_register(2): the result, or -errno.
cdef int register_with(le_ring *ring, unsigned opcode, const void *what, unsigned count) noexcept nogil
# Set supported[operation] for each of 256 operations.
cdef int ask_operations(le_ring *ring, uint8_t *supported) except -1
cdef int register_buffer_ring(le_ring *ring, void *buffers, uint32_t entries, uint16_t group) noexcept nogil
cdef int tell_by_eventfd(le_ring *ring, int fd, bint is_told) noexcept nogil
cdef int register_slots(le_ring *ring, uint32_t count) noexcept nogil
