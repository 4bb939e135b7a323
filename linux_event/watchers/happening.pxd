# happening.pxd: what is told of a path.

from libc.stdint cimport uint32_t

cdef extern from "<sys/inotify.h>":
    enum:
        IN_ACCESS
        IN_MODIFY
        IN_ATTRIB
        IN_CLOSE_WRITE
        IN_CLOSE_NOWRITE
        IN_OPEN
        IN_MOVED_FROM
        IN_MOVED_TO
        IN_CREATE
        IN_DELETE
        IN_DELETE_SELF
        IN_MOVE_SELF
        IN_UNMOUNT
        IN_Q_OVERFLOW
        IN_IGNORED
        IN_ISDIR
        IN_ONLYDIR
        IN_DONT_FOLLOW

cdef class PathEvent:
    cdef readonly object path
    cdef readonly frozenset names
    cdef readonly uint32_t cookie

# The mask of a name, 0 for one that is unknown; the names of a mask.
cdef uint32_t mask_of(object name) except? 0
cdef frozenset names_of(uint32_t mask)
# The OSError of an errno, which says more where the kernel's words would mislead.
cdef object explained(int error, object path)
cdef bytes join(bytes folder, bytes name)
# The entries of a directory: name, whether it is a directory, whether it is one or, if asked for, a link to one.
cdef list entries_of(bytes folder, bint follows)
