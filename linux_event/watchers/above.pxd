# above.pxd: the directories above what is watched.

from linux_event.watchers.inotify cimport InotifyHub, Tree

# Let tree.doubt() know when one of the directories above a path gets another place, or when that what has this path is deleted,
# if it is a directory. What cannot be watched, for lack of permission or of watches, is done without.
cdef list watch_above(InotifyHub hub, Tree tree, bytes full, bint is_folder)
cdef int unwatch_above(InotifyHub hub, list nodes) except -1
