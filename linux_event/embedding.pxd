# embedding.pxd: the engine with a sign for the event loop around it.

from linux_event.core cimport le_deadline
from linux_event.engine cimport Engine

cdef class Embedding(Engine):
    cdef le_deadline deadline  # as a timer of the kernel, while another event loop waits for this one
    cdef int embed(self) except -1
