# receiving.pxd: how a stream begins.

from libc.stdint cimport uint32_t
from linux_event.engine cimport Engine
from linux_event.net.transport cimport Transport

# Make it a stream on an fd, which it takes over: where this raises the fd is still the caller's. `flags` are those of
# le_stream_flag that tell what the fd is. It does not receive before stream_begin() was called.
cdef int stream_init(Transport self, Engine loop, int fd, uint32_t flags) except -1
cdef int stream_begin(Transport self) except -1
# is_paused, must_read or data_function have changed.
cdef int stream_reading_changed(Transport self) except -1
