"""Embedding: how another event loop waits for this one.

It waits for an eventfd, which has to be readable when, and only when, there is something to do. While this loop waits itself,
deadlines are the timeout of the wait and deferred calls need no sign at all; for an outsider each is made one. Completions
are told by the kernel, which writes to the eventfd (IORING_REGISTER_EVENTFD). The fd of the ring would not do: under
DEFER_TASKRUN completions appear when the thread enters the ring, and whoever sleeps on its fd is not woken.

What happens to an eventfd that the ring watches is told only once for each registration: the kernel puts that sign off, and
never takes back its note that it has done so (io_uring/eventfd.c, IO_EVENTFD_OP_SIGNAL_BIT). Wake-ups and signals come by such
eventfds. So the eventfd is registered again whenever a sign of the kernel was taken down.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_NS_NEVER, LE_OP_ABI, le_deadline_on_cqe, le_deadline_prep, le_deadline_set, le_fifo_count,
    le_list_is_empty, le_loop_has_queued, le_loop_wants_enter, le_op_class, le_ring_cq_ready,
)
from linux_event.engine cimport Engine
from linux_event.errors cimport check, check_errno
from linux_event.linux cimport EFD_CLOEXEC, EFD_NONBLOCK, close, eventfd, eventfd_read, eventfd_t
from linux_event.requests cimport op_stop
from linux_event.ring cimport tell_by_eventfd

cdef enum:
    ENTERS_MAX = 3

cdef le_op_class deadline_class
deadline_class.abi = LE_OP_ABI
deadline_class.name = "deadline"
deadline_class.prep = le_deadline_prep
deadline_class.on_cqe = le_deadline_on_cqe


cdef class Embedding(Engine):
    """The part of a loop that shows others that there is something to do. Not to be used by itself: see Loop."""

    def __cinit__(self):
        self.deadline.op.cls = &deadline_class
        self.deadline.at_ns = LE_NS_NEVER

    cdef int tend_embedding(self) except -1:
        """Make the eventfd readable when, and only when, there is something to do. After every run and change from outside."""
        cdef eventfd_t count
        cdef bint is_kernels
        if not self.core.is_embedded or self.core.is_running or self.core.state != LE_LOOP_OPEN:
            return 0
        if self.core.heap.count:
            le_deadline_set(&self.core, &self.deadline, self.core.heap.entries[0].deadline_ns)
        else:
            le_deadline_set(&self.core, &self.deadline, LE_NS_NEVER)
        # What is queued is handed over, and may complete at once. First the old signs are taken down, then comes the look at
        # the queue: what arrives in between leaves a new one.
        for _ in range(ENTERS_MAX):
            count = 0
            while eventfd_read(self.outer_fd, &count) < 0 and errno != EAGAIN:
                if errno != EINTR:
                    check_errno(-1)
            is_kernels = count > self.outer_signs
            self.outer_signs = 0
            if is_kernels:
                check(tell_by_eventfd(&self.core.ring, self.outer_fd, True))
            if not le_loop_wants_enter(&self.core) and not le_ring_cq_ready(&self.core.ring):
                break
            self.enter(0, 0)
            self.release_finished()
        if not le_list_is_empty(&self.core.recheck):
            self.core.on_recheck(&self.core, False)
        if (self.core.pending or le_loop_has_queued(&self.core) or le_fifo_count(&self.core.deferred) or self.core.is_stopping
                or (self.core.heap.count and self.deadline.at_ns == LE_NS_NEVER)
                or not le_list_is_empty(&self.core.idle) or not le_list_is_empty(&self.core.notified)):
            self.sign()
        return 0

    cdef int embed(self) except -1:
        """From now on another event loop may wait for this one."""
        cdef int fd = check_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
        try:
            check(tell_by_eventfd(&self.core.ring, fd, False))
        except OSError:
            close(fd)
            raise
        self.outer_fd = fd
        self.core.is_embedded = True
        return self.tend_embedding()

    cdef int end_embedding(self) except -1:
        return op_stop(self, &self.deadline.op)
