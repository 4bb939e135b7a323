"""The inotify instance of a loop: one for all its watchers of paths, because a user may have but few of them.

The ring reads records into a buffer. They are taken in one go, which makes events for the queues of the watchers concerned;
the next read is made when all of those have been delivered. So whoever is slow leaves records in the queue of the kernel, which
is bounded and says so when it overflows.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.errno cimport EMFILE, errno
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint32_t, uint64_t
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_NOT_IN_HEAP, LE_OP_ABI, LE_OP_EVERY_READ, LE_PRIORITY_MAX, LE_WATCHER_ABI, LE_WATCHER_ACTIVE,
    LE_WATCHER_OBJECT, le_loop, le_op_class, le_reader, le_reader_left, le_reader_on_cqe, le_reader_position, le_reader_prep,
    le_watcher, le_watcher_class, le_watcher_collect, le_watcher_function, le_watcher_is, le_watcher_unpend,
)
from linux_event.engine cimport Engine
from linux_event.errors cimport check_errno
from linux_event.linux cimport close
from linux_event.requests cimport op_start, op_stop

import os
import weakref

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/inotify.h>
    #include <sys/ioctl.h>
    #include "le_reader.h"

    /* What the read at the kernel has brought, where its completion is there and has not been taken yet. */
    static uint64_t le_reader_unseen(const struct le_loop *loop, const struct le_reader *reader)
    {
        const struct io_uring *uring = &loop->ring.uring;
        uint32_t ready = le_ring_cq_ready(&loop->ring), head = *uring->cq.khead;
        for (uint32_t i = 0; i < ready; i++) {
            const struct io_uring_cqe *cqe = &uring->cq.cqes[(head + i) & uring->cq.ring_mask];
            if (cqe->user_data == (uintptr_t)&reader->op)
                return cqe->res > 0 && !reader->polls ? (uint64_t)cqe->res : 0;
        }
        return 0;
    }

    static uint64_t le_reader_end(const struct le_loop *loop, const struct le_reader *reader)
    {
        uint64_t unseen;
        int queued = 0;
        do {
            unseen = le_reader_unseen(loop, reader);
            (void)!ioctl(reader->op.fd, FIONREAD, &queued);
        } while (unseen != le_reader_unseen(loop, reader));
        return reader->position + reader->filled + unseen + (uint64_t)queued;
    }
    """
    uint64_t le_reader_end(const le_loop *loop, const le_reader *reader)
    enum:
        IN_ACCESS
        IN_OPEN
        IN_CLOSE_NOWRITE
        IN_ISDIR
        IN_IGNORED
        IN_Q_OVERFLOW
        IN_MASK_ADD
        IN_ONLYDIR
        IN_DONT_FOLLOW
        IN_NONBLOCK
        IN_CLOEXEC
    struct inotify_event:
        int wd
        uint32_t mask
        uint32_t cookie
        uint32_t len

    int inotify_init1(int flags)
    int inotify_add_watch(int fd, const char *path, uint32_t mask)
    int inotify_rm_watch(int fd, int wd)

cdef enum:
    BUFFER_SIZE = 65536
    RECORD_SIZE = 16  # of a record without its name

cdef object live_hubs = weakref.WeakSet()


cdef class InotifyHub:
    """The inotify instance of one loop. Not for users."""

    def __cinit__(self):
        if LE_WATCHER_OBJECT(&self.head) != <PyObject *>self:
            raise SystemError("the le_watcher of an InotifyHub is not its first field")
        self.head.cls = &hub_class
        self.head.heap_slot = LE_NOT_IN_HEAP
        self.head.priority = LE_PRIORITY_MAX
        self.reader.op.cls = &hub_op_class
        self.reader.op.fd = -1
        self.reader.on_records = hub_on_records
        self.marks, self.trees, self.unsettled, self.quiet = {}, {}, [], {}

    def __dealloc__(self):
        if self.reader.op.fd >= 0:
            close(self.reader.op.fd)
        PyMem_RawFree(self.reader.buffer)


cdef class Mark:
    """An inode that the kernel watches."""


cdef class Node:
    """What wants to hear of an inode."""

    cdef int take(self, uint32_t mask, uint32_t cookie, bytes name, uint64_t position) except -1:
        """Take a record."""


cdef class Tree:
    """What one watcher watches."""

    cdef int overflow(self) except -1:
        """Records have been lost."""

    cdef int settle(self) except -1:
        """All records at hand have been taken."""

    cdef int doubt(self, bint is_gone) except -1:
        """The path may lead elsewhere now. is_gone: what it has led to has lost its name."""

    cdef int tell_error(self, object error) except -1:
        """Let the watcher tell on_error."""


cdef InotifyHub hub_of(Engine owner):
    cdef InotifyHub hub = owner.inotify_hub
    if hub is not None:
        return hub
    hub = InotifyHub()
    hub.reader.op.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    if hub.reader.op.fd < 0 and errno == EMFILE:
        raise OSError(EMFILE, "no inotify instance is left for this user (see the sysctl fs.inotify.max_user_instances), or no "
                              "fd for this process (see RLIMIT_NOFILE)")
    check_errno(hub.reader.op.fd)
    live_hubs.add(hub)
    hub.reader.buffer = <char *>PyMem_RawMalloc(BUFFER_SIZE)
    if hub.reader.buffer == NULL:
        raise MemoryError
    hub.reader.size = BUFFER_SIZE
    hub.owner = owner
    return hub


cdef int hub_join(InotifyHub hub, Tree tree) except -1:
    hub.trees[tree] = None
    if not hub.is_open:
        hub.owner.inotify_hub = hub
        hub.is_open = True
        hub.head.flags = LE_WATCHER_ACTIVE
        op_start(hub.owner, &hub.reader.op)
    return 0


cdef int hub_leave(InotifyHub hub, Tree tree) except -1:
    cdef Engine owner = hub.owner
    hub.trees.pop(tree, None)
    if hub.trees or not hub.is_open:
        return 0
    # The instance is closed when its last request has come to its end: until then the ring may still work with the fd.
    hub.is_open = False
    le_watcher_unpend(&owner.core, &hub.head)
    hub.head.flags = 0
    hub.marks, hub.unsettled, hub.quiet = {}, [], {}
    hub.owner = None
    owner.inotify_hub = None
    op_stop(owner, &hub.reader.op)
    return 0


cdef int hub_go_on(InotifyHub hub) except -1:
    if hub.is_open and hub.undelivered == 0 and le_reader_left(&hub.reader) == 0 and hub.reader.error == 0:
        op_start(hub.owner, &hub.reader.op)
    return 0


cdef int hub_settle_later(Tree tree) except -1:
    if not tree.is_unsettled:
        tree.is_unsettled = True
        tree.hub.unsettled.append(tree)
    return 0


cdef uint64_t hub_end(InotifyHub hub) noexcept:
    if hub.owner is None or hub.reader.op.fd < 0:
        return 0
    return le_reader_end(&hub.owner.core, &hub.reader)


# -- Watches -----------------------------------------------------------------------------------------------------------

cdef int watch(InotifyHub hub, Node node, uint32_t mask) except? -1:
    cdef int wd = inotify_add_watch(hub.reader.op.fd, node.full, mask | IN_MASK_ADD)
    if wd < 0:
        return -errno
    cdef Mark mark = hub.marks.get(wd)
    if mark is None:
        mark = Mark()
        mark.members = []
        hub.marks[wd] = mark
    else:
        # What is in the queue already was made for others.
        node.since = hub_end(hub)
    mark.mask |= mask & ~(IN_ONLYDIR | IN_DONT_FOLLOW)
    mark.members.append(node)
    node.wd = wd
    return 0


cdef int unwatch(InotifyHub hub, Node node) except -1:
    cdef int wd = node.wd
    node.wd = -1
    cdef Mark mark = hub.marks.get(wd)
    if mark is None:
        return 0
    if node in mark.members:
        mark.members.remove(node)
    if not mark.members:
        del hub.marks[wd]
        if hub.reader.op.fd >= 0:
            inotify_rm_watch(hub.reader.op.fd, wd)  # EINVAL where the inode is gone
    return 0


cdef bint watch_again(InotifyHub hub, Node node, uint32_t left_out) except -1:
    """Watch what the path of a node leads to now. Returns whether that is what the node has watched until now.

    The mask is added to, and never set: while the kernel (6.18) sets one it is empty for a moment, and what happens in that is
    lost. Another inode that is watched may tell of more than it was asked for then, which nobody minds.
    """
    cdef Mark mark = hub.marks.get(node.wd)
    if mark is None:
        return False
    cdef int wd = inotify_add_watch(hub.reader.op.fd, node.full, (mark.mask & ~left_out) | IN_MASK_ADD)
    if wd >= 0 and wd != node.wd and wd not in hub.marks:
        inotify_rm_watch(hub.reader.op.fd, wd)
    return wd == node.wd


cdef int watch_less(InotifyHub hub, Node node, uint32_t left_out) except -1:
    """Take something out of the mask. Records may be lost: for when they have been."""
    cdef Mark mark = hub.marks.get(node.wd)
    if mark is not None and watch_again(hub, node, left_out):
        inotify_add_watch(hub.reader.op.fd, node.full, mark.mask & ~left_out)
    return 0


cdef int hush(InotifyHub hub, int wd, bytes name, uint64_t end) except -1:
    cdef Mark mark = hub.marks.get(wd)
    if mark is not None and mark.mask & (IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE):
        hub.quiet[(wd, name)] = end
    return 0


# -- Records -----------------------------------------------------------------------------------------------------------

cdef int take_record(InotifyHub hub) except -1:
    cdef const inotify_event *record = <const inotify_event *>(hub.reader.buffer + hub.reader.taken)
    cdef uint64_t position = le_reader_position(&hub.reader)
    cdef uint32_t mask = record.mask
    cdef Mark mark
    cdef Node node
    cdef Tree tree
    hub.reader.taken += RECORD_SIZE + record.len
    if mask & IN_Q_OVERFLOW:
        for tree in list(hub.trees):
            if position >= tree.since:
                tree.overflow()
        return 0
    mark = hub.marks.get(record.wd)
    if mark is None:
        return 0
    cdef bytes name = <bytes>(<const char *>record + RECORD_SIZE) if record.len else b""
    if hub.quiet and mask & IN_ISDIR and mask & (IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE):
        if position < hub.quiet.get((record.wd, name), 0):
            return 0
    if mask & IN_IGNORED:
        del hub.marks[record.wd]
        for node in mark.members:
            node.wd = -1
    if len(mark.members) == 1:
        node = mark.members[0]
        if position >= node.since:
            node.take(mask, record.cookie, name, position)
        return 0
    for node in tuple(mark.members):
        if position >= node.since and node in mark.members:
            node.take(mask, record.cookie, name, position)
    return 0


cdef int hub_dispatch(void *watcher) except -1:
    cdef InotifyHub hub = <InotifyHub>watcher
    cdef Engine owner = hub.owner
    cdef Tree tree
    owner.core.callbacks -= 1  # it has none
    if hub.reader.error:
        for tree in list(hub.trees):
            tree.tell_error(OSError(-hub.reader.error, f"{os.strerror(-hub.reader.error)} (changes cannot be read any more)"))
        return 0
    try:
        while hub.is_open and le_reader_left(&hub.reader):
            take_record(hub)
        unsettled, hub.unsettled = hub.unsettled, []
        for tree in unsettled:
            tree.is_unsettled = False
            if tree in hub.trees:
                tree.settle()
        if hub.quiet and le_reader_position(&hub.reader) >= max(hub.quiet.values()):
            hub.quiet = {}
    except BaseException:
        if hub.is_open:
            le_watcher_collect(&owner.core, &hub.head, LE_LANE_COMPLETIONS)
        raise
    hub_go_on(hub)
    return 0


cdef le_watcher_class hub_class
hub_class.abi = LE_WATCHER_ABI
hub_class.name = "inotify"
hub_class.on_dispatch = <le_watcher_function>hub_dispatch


cdef void hub_on_records(le_loop *loop, le_reader *reader) noexcept nogil:
    cdef le_watcher *head = <le_watcher *>(<char *>reader - reader_offset)
    if le_watcher_is(head, LE_WATCHER_ACTIVE):
        le_watcher_collect(loop, head, LE_LANE_COMPLETIONS)
    else:
        reader.taken = reader.filled  # nobody is there any more


cdef ptrdiff_t reader_offset  # from the head of an InotifyHub to its reader
cdef le_op_class hub_op_class
hub_op_class.abi = LE_OP_ABI
hub_op_class.name = "inotify"
hub_op_class.interest = LE_OP_EVERY_READ
hub_op_class.prep = le_reader_prep
hub_op_class.on_cqe = le_reader_on_cqe


cdef measure():
    """Find out where in an InotifyHub its reader is; it never moves, and all are laid out alike."""
    global reader_offset
    cdef InotifyHub sample = InotifyHub()
    reader_offset = <char *>&sample.reader - <char *>&sample.head
    hub_op_class.owner_offset = <char *>&sample.reader - <char *><PyObject *>sample


measure()


def _forget_in_child():
    """After a fork, in the child: the watches are the parent's, and no word of this reaches the kernel."""
    cdef InotifyHub hub
    for hub in list(live_hubs):
        if hub.reader.op.fd >= 0:
            close(hub.reader.op.fd)
        hub.reader.op.fd = -1


os.register_at_fork(after_in_child=_forget_in_child)
