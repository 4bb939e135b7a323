# happening.pxd: what is told of a path.

from libc.stdint cimport uint32_t

cdef class PathEvent:
    cdef readonly object path
    cdef readonly frozenset names
    cdef readonly uint32_t cookie

# The mask of a name, 0 for one that is unknown; the names of a mask.
cdef uint32_t mask_of(object name) except? 0
cdef frozenset names_of(uint32_t mask)
