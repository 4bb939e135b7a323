"""I/O watchers: readiness of a file descriptor, level-triggered or edge-triggered.

How level triggering comes about is told in include/le_poll.h.
"""

cimport cython
from cpython.object cimport PyObject
from libc.errno cimport EBADF, EPERM, errno
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, uint16_t, uint32_t
from libc.string cimport memset
from linux_event.arguments cimport fd_argument, flag_argument
from linux_event.core cimport (
    LE_EVENT_ERROR, LE_EVENT_HANGUP, LE_LANE_COMPLETIONS, LE_OP_ABI, LE_POLL_ALWAYS_READY, LE_POLL_CHECKED, LE_POLL_EDGE,
    LE_POLL_INVALID, LE_POLL_WANTED, LE_WATCHER_ABI, LE_WATCHER_ACTIVE, LE_WATCHER_LEVEL, le_index_add, le_index_remove,
    le_loop, le_op, le_op_class, le_op_verdict, le_poll, le_poll_complete, le_poll_prep, le_recheck, le_recheck_push,
    le_watcher, le_watcher_class, le_watcher_collect, le_watcher_function, le_watcher_is, le_watcher_unpend,
)
from linux_event.engine cimport Engine, add_debug_check, loop_changed
from linux_event.errors cimport check_errno, check_memory
from linux_event.linux cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, S_ISBLK, S_ISCHR, S_ISDIR, S_ISREG, close, epoll_create1, epoll_ctl, epoll_event, fstat,
    stat,
)
from linux_event.loop cimport add_method
from linux_event.requests cimport op_start, op_stop
from linux_event.watcher cimport (
    Watcher, decorator, watcher_begin, watcher_deactivate, watcher_guard, watcher_leave, watcher_options,
)

import os
import weakref

from linux_event.events import CACHE as _CACHE, parse_poll


cdef tuple events_by_value = _CACHE


@cython.final
cdef class IOWatcher(Watcher):
    """IOWatcher(loop, fd, poll, callback, *, edge=False, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher, events)`` when ``fd`` is ready; ``events`` is an ``Events``. ``loop.io(fd, poll, callback)``.

Level-triggered: as long as the fd is ready the callback is called once per iteration. Stop or destroy the watcher before
you close its fd: while it is active the kernel keeps the file open, and the peer does not see the end.

:param loop: the Loop.
:param fd: an int, or an object with ``fileno()``, which is kept alive until the watcher is destroyed. A regular file or
    a folder is always ready.
:param poll: ``"r"``, ``"w"``, ``"rw"`` or ``Events`` flags. ``ERROR`` and ``HANGUP`` are always reported, together with
    those of READ and WRITE that were asked for, because neither will block any more.
:param callback: called with the watcher and the events.
:param edge: True for one call per new event: read or write until EAGAIN. The fd of a regular file is told once.
:param data, priority, ref, start: as for ``Timer``.
:raises ValueError: ``fd`` is negative, ``poll`` names no or unknown events, ``priority`` is out of range.
:raises OSError: ``fd`` is not open (EBADF; ``filename`` is the fd).
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on IORING_OP_POLL_ADD with IORING_POLL_ADD_MULTI, and for level triggering on poll(2). See io_uring_enter(2).
When the kernel refuses the fd the callback gets ``Events.ERROR`` and the watcher is inactive.
"""

    def __init__(self, loop, fd, poll, callback, *, edge=False, data=None, priority=0, ref=True, start=True):
        cdef int wanted = parse_poll(poll)
        cdef bint is_edge = flag_argument(edge, "edge")
        cdef int number = fd_argument(fd)
        cdef int kind = file_kind(self, number)
        if (isinstance(loop, Engine) and (<Engine>loop).core.ring.is_open
                and number in ((<Engine>loop).core.ring.uring.ring_fd, (<Engine>loop).outer_fd)):
            raise ValueError(f"fd must not be that of the watcher's own loop, {number}: a loop cannot wait for itself")
        watcher_begin(self, &io_class, loop, callback)
        self.request.op.cls = &poll_class
        self.request.op.fd = number
        self.request.op.bits = wanted | kind | LE_POLL_CHECKED | (LE_POLL_EDGE if is_edge else 0)
        if not is_edge:
            self.head.flags |= LE_WATCHER_LEVEL
        self.source = fd
        try:
            check_memory(le_index_add(&self.owner.core.by_fd, number, &self.request.chain, &self.head))
        except MemoryError:
            self.destroy()
            raise
        watcher_options(self, data, priority, ref, start)
        self.request.op.bits &= ~LE_POLL_CHECKED

    def __dealloc__(self):
        watcher_leave(self)

    @property
    def fd(self):
        """The number of the file descriptor: an int, 0 or more."""
        return self.request.op.fd

    @property
    def edge(self):
        """Whether the watcher is edge-triggered: a bool."""
        return (self.request.op.bits & LE_POLL_EDGE) != 0

    @property
    def poll(self):
        """The events waited for, an ``Events``. Assignable at any time: ``"r"``, ``"w"``, ``"rw"`` or ``Events`` flags.

        An active watcher is armed anew: IORING_OP_ASYNC_CANCEL and IORING_OP_POLL_ADD, see io_uring_enter(2). Raises
        ValueError, TypeError, DestroyedError, WrongThreadError.
        """
        return events_by_value[self.request.op.bits & LE_POLL_WANTED]

    @poll.setter
    def poll(self, poll):
        cdef uint16_t kept
        watcher_guard(self)
        cdef int wanted = parse_poll(poll)
        if wanted == self.request.op.bits & LE_POLL_WANTED:
            return
        self.request.op.bits = (self.request.op.bits & ~LE_POLL_WANTED) | wanted
        if not le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
            return
        # Of what was collected, only what is still wanted is told.
        kept = self.head.events & (wanted | LE_EVENT_ERROR | LE_EVENT_HANGUP)
        if kept == 0:
            le_watcher_unpend(&self.owner.core, &self.head)
        self.head.events = kept
        if self.request.op.bits & LE_POLL_ALWAYS_READY:
            announce(self)
        else:
            op_stop(self.owner, &self.request.op)
            op_start(self.owner, &self.request.op)
        loop_changed(self.owner)

    def describe(self):
        """What the watcher watches, for ``repr``."""
        return f"fd={self.request.op.fd} poll='{self.poll!s}'{' edge' if self.edge else ''}"


cdef void announce(IOWatcher self) noexcept:
    """A file that is always ready: there is nothing to wait for."""
    if self.request.op.bits & LE_POLL_EDGE:
        self.head.events = self.request.op.bits & LE_POLL_WANTED
        le_watcher_collect(&self.owner.core, &self.head, LE_LANE_COMPLETIONS)
    else:
        le_recheck_push(&self.owner.core, &self.head)


cdef int file_kind(IOWatcher self, int fd) except -1:
    """LE_POLL_ALWAYS_READY or 0; raises OSError if the fd is not open."""
    cdef stat status
    if fstat(fd, &status) < 0 and errno == EBADF:
        raise OSError(EBADF, os.strerror(EBADF), fd)
    if self.owner is not None and self.owner.is_debugging:
        _identities[self] = (status.st_dev, status.st_ino)
    # Some files of /proc and /sys look regular and can be waited for; some devices cannot.
    if S_ISREG(status.st_mode) or S_ISDIR(status.st_mode) or S_ISCHR(status.st_mode) or S_ISBLK(status.st_mode):
        return 0 if can_poll(fd) else LE_POLL_ALWAYS_READY
    return 0


cdef bint can_poll(int fd) except *:
    """Whether a file can be waited for. Only epoll_ctl(2) tells; poll(2) says of those that cannot that they are ready."""
    cdef epoll_event event
    cdef int error = 0
    cdef int epoll = check_errno(epoll_create1(EPOLL_CLOEXEC))
    memset(&event, 0, sizeof(event))
    if epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0:
        error = errno
    close(epoll)
    return error != EPERM


cdef int io_start(void *watcher) except -1:
    cdef IOWatcher self = <IOWatcher>watcher
    if not self.request.op.bits & LE_POLL_CHECKED or self.owner.is_debugging:
        self.request.op.bits &= LE_POLL_WANTED | LE_POLL_EDGE
        self.request.op.bits |= file_kind(self, self.request.op.fd)
    self.owner.core.on_recheck = recheck
    if self.request.op.bits & LE_POLL_ALWAYS_READY:
        announce(self)
    else:
        op_start(self.owner, &self.request.op)
    return 0


cdef int io_stop(void *watcher) except -1:
    cdef IOWatcher self = <IOWatcher>watcher
    op_stop(self.owner, &self.request.op)
    return 0


cdef int io_dispatch(void *watcher) except -1:
    cdef IOWatcher self = <IOWatcher>watcher
    cdef uint16_t events = self.head.events
    self.head.events = 0
    if self.request.op.bits & LE_POLL_INVALID:
        io_stop(watcher)
        watcher_deactivate(self)
    elif not self.request.op.bits & LE_POLL_EDGE:
        le_recheck_push(&self.owner.core, &self.head)
    self.function(self, events_by_value[events])
    return 0


cdef int io_destroy(void *watcher) noexcept:
    cdef IOWatcher self = <IOWatcher>watcher
    le_index_remove(&self.owner.core.by_fd, self.request.op.fd, &self.request.chain)
    return 0


cdef int io_release(void *watcher) except -1:
    (<IOWatcher>watcher).source = None
    return 0


cdef le_watcher_class io_class
io_class.abi = LE_WATCHER_ABI
io_class.name = "io"
io_class.on_start = <le_watcher_function>io_start
io_class.on_stop = <le_watcher_function>io_stop
io_class.on_dispatch = <le_watcher_function>io_dispatch
io_class.on_destroy = io_destroy
io_class.on_release = <le_watcher_function>io_release


# -- The request, without Python ---------------------------------------------------------------------------------------

cdef le_op_verdict poll_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef le_watcher *watcher = <le_watcher *>(<char *>op - poll_offset)
    return le_poll_complete(loop, <le_poll *>op, watcher, result)


cdef void recheck(le_loop *loop, bint only_everything) noexcept nogil:
    le_recheck(loop, poll_offset, only_everything)


cdef ptrdiff_t poll_offset  # from the le_watcher of an IOWatcher to its le_poll
cdef le_op_class poll_class
poll_class.abi = LE_OP_ABI
poll_class.name = "poll"
poll_class.prep = le_poll_prep
poll_class.on_cqe = poll_on_cqe


cdef measure():
    """Find out where in an IOWatcher its parts are; it never moves, and all are laid out alike."""
    global poll_offset
    cdef IOWatcher sample = IOWatcher.__new__(IOWatcher)
    poll_offset = <char *>&sample.request - <char *>&sample.head
    poll_class.owner_offset = <char *>&sample.request - <char *><PyObject *>sample


measure()


# -- Debugging ---------------------------------------------------------------------------------------------------------

# What the fds of active watchers of loops with debug=True were when the watchers started: device and inode.
_identities = weakref.WeakKeyDictionary()


def _check_identities(Engine loop):
    """Stop the watchers whose fd has been closed, or has become another file, and tell the loop's error handler."""
    cdef IOWatcher watcher
    cdef stat status
    for watcher, identity in list(_identities.items()):
        if watcher.owner is not loop or not watcher.is_active():
            continue
        if fstat(watcher.request.op.fd, &status) < 0:
            what = "was closed"
        elif (status.st_dev, status.st_ino) != identity:
            what = "was closed, and is another file now"
        else:
            continue
        watcher.stop()
        loop.tell(watcher, OSError(
            EBADF, f"fd {watcher.request.op.fd} {what}: stop the watcher before you close its fd", watcher.request.op.fd))


add_debug_check(_check_identities)


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _io(self, fd, poll, callback=..., *, edge=False, data=None, priority=0, ref=True, start=True):
    """Create an ``IOWatcher``: ``callback(watcher, events)`` when ``fd`` is ready.

    :param fd: an int, or an object with ``fileno()``.
    :param poll: ``"r"``, ``"w"``, ``"rw"`` or ``Events`` flags.
    :param callback: left out, the call is a decorator.
    :param edge: True for one call per new event, instead of one per iteration while the fd is ready.
    :returns: the IOWatcher; as a decorator, what takes the function and returns it.
    :raises OSError, ValueError, TypeError, LoopClosedError, WrongThreadError: as ``IOWatcher`` does, which tells of the
        other arguments.
    """
    if callback is ...:
        return decorator(IOWatcher, self, (fd, poll), data, priority, ref, start, {"edge": edge})
    return IOWatcher(self, fd, poll, callback, edge=edge, data=data, priority=priority, ref=ref, start=start)


add_method("io", _io)
