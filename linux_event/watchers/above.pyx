"""The directories above what is watched.

A directory that is renamed takes with it what is in it, which hears nothing of it. And one that is deleted hears of that only
when nobody works in it any more, while another one may have its name already: the directory above hears of it at once.
"""

from libc.stdint cimport uint32_t, uint64_t
from linux_event.watchers.happening cimport IN_DELETE, IN_MOVE_SELF, IN_ONLYDIR
from linux_event.watchers.inotify cimport InotifyHub, Node, Tree, unwatch, watch


cdef class Above(Node):
    """A directory above."""

    cdef Tree tree
    cdef bytes name  # what to hear of in it; None: nothing

    cdef int take(self, uint32_t mask, uint32_t cookie, bytes name, uint64_t position) except -1:
        if mask & IN_DELETE and name == self.name:
            self.tree.doubt(True)
        elif mask & IN_MOVE_SELF:
            self.tree.doubt(False)
        return 0


cdef list watch_above(InotifyHub hub, Tree tree, bytes full, bint is_folder):
    cdef list nodes = []
    cdef Above node
    cdef bytes above, below = full.rstrip(b"/")
    cdef uint32_t mask = IN_MOVE_SELF | IN_ONLYDIR | (IN_DELETE if is_folder else 0)
    while below:
        above, _, name = below.rpartition(b"/")
        node = Above.__new__(Above)
        node.wd = -1
        node.tree = tree
        node.full = above or b"/"
        node.name = name if mask & IN_DELETE else None
        # What is above all cannot be renamed.
        if (above or mask & IN_DELETE) and watch(hub, node, mask) == 0:
            nodes.append(node)
        mask = IN_MOVE_SELF | IN_ONLYDIR
        below = above
    return nodes


cdef int unwatch_above(InotifyHub hub, list nodes) except -1:
    cdef Above node
    for node in nodes:
        node.tree = None
        unwatch(hub, node)
    return 0
