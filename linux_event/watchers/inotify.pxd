# inotify.pxd: the inotify instance of a loop, and what is watched through it.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from linux_event.core cimport le_reader, le_watcher
from linux_event.engine cimport Engine

# One for each loop that has active watchers of paths. Its head is that of a watcher of highest priority which is in no table
# and counts for nothing: where it is collected, records are to be taken before anything is delivered.
cdef class InotifyHub:
    cdef le_watcher head  # has to be the first field
    cdef le_reader reader  # reader.op.fd is the instance
    cdef Engine owner
    cdef dict marks  # watch descriptor -> Mark
    cdef dict trees  # of the active watchers: their Tree -> None
    cdef list unsettled  # trees that have something to do when the records at hand have been taken
    cdef dict quiet  # (watch descriptor, name) -> up to where in the stream opening and reading it is the hub's own doing
    cdef uint64_t undelivered  # events in the queues of the watchers
    cdef bint is_open
    cdef object __weakref__

# An inode that the kernel watches, and the nodes that want to hear of it.
cdef class Mark:
    cdef uint32_t mask
    cdef list members

cdef class Node:
    cdef int32_t wd  # -1: not watched
    cdef bytes full  # its absolute path
    cdef uint64_t since  # records before this place in the stream are older than the node
    cdef int take(self, uint32_t mask, uint32_t cookie, bytes name, uint64_t position) except -1

cdef class Tree:
    cdef InotifyHub hub
    cdef uint64_t since
    cdef bint is_unsettled
    cdef int overflow(self) except -1
    cdef int settle(self) except -1
    cdef int doubt(self, bint is_gone) except -1
    cdef int tell_error(self, object error) except -1

cdef InotifyHub hub_of(Engine owner)
# When the last tree has left, the hub is closed.
cdef int hub_join(InotifyHub hub, Tree tree) except -1
cdef int hub_leave(InotifyHub hub, Tree tree) except -1
# Read on, once everything has been handed over.
cdef int hub_go_on(InotifyHub hub) except -1
cdef int hub_settle_later(Tree tree) except -1
# Until that place in the stream nobody is to hear of a directory, or an entry of one, that it was opened and read.
cdef int hush(InotifyHub hub, int wd, bytes name, uint64_t end) except -1
# Where in the stream the next record that the kernel makes will be.
cdef uint64_t hub_end(InotifyHub hub) noexcept
# Watch node.full. Returns 0 or a negative errno.
cdef int watch(InotifyHub hub, Node node, uint32_t mask) except? -1
cdef int unwatch(InotifyHub hub, Node node) except -1
# Whether node.full is still what is watched; sets the mask of the kernel to that of the mark without `left_out`.
cdef bint watch_again(InotifyHub hub, Node node, uint32_t left_out) except -1
cdef int watch_less(InotifyHub hub, Node node, uint32_t left_out) except -1
