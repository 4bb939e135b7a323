# stream.pxd: streams as those that make them see them. Their fields and functions are in transport.pxd.

from libc.stdint cimport uint32_t
from linux_event.engine cimport Engine
from linux_event.net.transport cimport Transport

cdef class Stream(Transport):
    pass

# A stream on an fd, see stream_init().
cdef Stream stream_new(Engine loop, int fd, uint32_t flags)
