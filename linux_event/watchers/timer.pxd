# timer.pxd: watchers whose event is a deadline.

from libc.stdint cimport int64_t
from linux_event.watcher cimport Watcher

cdef class Timer(Watcher):
    cdef int64_t after_ns

cdef class Periodic(Watcher):
    cdef int64_t interval_ns
    cdef int64_t offset_ns  # of the first tick after the start
    cdef int64_t tick_ns  # the moment of the tick that comes next, or is being told
    cdef int64_t missed_ticks
