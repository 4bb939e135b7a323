# tree.pxd: what a watcher of a path watches.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from linux_event.core cimport le_watcher
from linux_event.watchers.inotify cimport InotifyHub, Node, Tree

cdef enum node_role:
    NODE_ROOT  # the path of the watcher
    NODE_BRANCH  # a directory below it
    NODE_GUARD  # a directory above it: the path is not there, and is waited for

cdef class PathNode(Node):
    cdef PathTree tree
    cdef PathNode parent
    cdef bytes name
    cdef object told  # the path for users, without a slash at its end
    cdef dict children  # of a directory: name -> PathNode of those that are watched
    cdef set known  # names that the user has heard of, for records before `known_until`
    cdef set owed  # names of directories to look at again when the node has got its new path
    cdef uint64_t known_until
    cdef PathNode exchanged  # has been here until it changed places with another one, and is about to get its own
    cdef uint32_t cookie  # of a rename whose other half is not known yet, or 0
    cdef uint8_t role
    cdef bint is_folder
    cdef bint is_link  # a symbolic link to a directory
    cdef bint is_unmounted
    cdef bint is_unread  # could not be read, because its path is another one by now
    cdef uint8_t doubts  # of a root: it may be gone

cdef class PathTree(Tree):
    cdef le_watcher *head  # of the watcher; NULL: it has been stopped
    cdef object given  # the path as the user has given it
    cdef bytes full
    cdef uint32_t mask  # asked for
    cdef bint is_recursive
    cdef bint follows
    cdef PathNode root  # None: the path is not there
    cdef PathNode guard
    cdef list above  # nodes of the directories above the root, or the guard
    cdef set unsure  # cookies of directories that have left a place where they were not known
    cdef dict floating  # cookie -> PathNode
    cdef list fresh  # nodes that are to hear of opening and reading, too, when all is explored
    cdef uint32_t hushed  # left out of the masks of directories for a while
    cdef list windows  # nodes with `known`
    cdef object queue  # of PathEvent and OSError

cdef PathTree tree_new(InotifyHub hub, object given, bytes full, uint32_t mask, bint is_recursive, bint follows)
# Watch everything. Raises OSError for the root, and where no watch is left.
cdef int tree_begin(PathTree self) except -1
cdef int tree_end(PathTree self) except -1
