# threads.pxd: which thread is calling, and whether one has ended.

from libc.stdint cimport uint64_t

cdef uint64_t thread_state_id() noexcept
cdef bint thread_is_gone(uint64_t state_id) noexcept
cdef bint thread_is_main() noexcept
