# path.pxd: watchers of paths.

from libc.stdint cimport uint32_t
from linux_event.watcher cimport Watcher
from linux_event.watchers.tree cimport PathTree

cdef class PathWatcher(Watcher):
    cdef object given  # the path, a str or bytes
    cdef bytes full  # the same, absolute
    cdef uint32_t mask  # what is asked for
    cdef bint is_recursive
    cdef bint follows
    cdef PathTree tree  # while active
