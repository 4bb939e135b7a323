"""Embedding: how another event loop waits for this one.

It waits for the ring's fd, which has to be readable when, and only when, there is something to do. While this loop waits
itself, deadlines are the timeout of the wait and deferred calls need no sign at all; for an outsider each becomes a
completion in the ring.
"""

from libc.string cimport memset
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_NS_NEVER, LE_OP_ABI, le_deadline_on_cqe, le_deadline_prep, le_deadline_set, le_fifo_count,
    le_link, le_list_is_empty, le_loop_has_queued, le_loop_wants_enter, le_op_class, le_op_recall, le_ring,
    le_ring_cq_ready,
)
from linux_event.engine cimport Engine, op_stop
from linux_event.errors cimport check
from linux_event.linux cimport eventfd_write
from linux_event.ring cimport RING_COOPERATIVE, open_ring, replace_ring

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
        """Make the ring's fd readable when, and only when, there is something to do. After every change from outside."""
        if not self.core.is_embedded or self.core.is_running or self.core.state != LE_LOOP_OPEN:
            return 0
        if self.core.heap.count:
            le_deadline_set(&self.core, &self.deadline, self.core.heap.entries[0].deadline_ns)
        else:
            le_deadline_set(&self.core, &self.deadline, LE_NS_NEVER)
        # Again and again: what was cancelled to be made anew is made by the second, and may complete at once.
        for _ in range(ENTERS_MAX):
            if not le_loop_wants_enter(&self.core) and not le_ring_cq_ready(&self.core.ring):
                break
            self.enter(0, 0)
            self.release_finished()
        if not le_list_is_empty(&self.core.recheck):
            self.core.on_recheck(&self.core, False)
        if (self.core.pending or le_loop_has_queued(&self.core) or le_fifo_count(&self.core.deferred) or self.core.is_stopping
                or (self.core.heap.count and self.deadline.at_ns == LE_NS_NEVER)
                or not le_list_is_empty(&self.core.idle)):
            eventfd_write(self.wake_fd, 1)
        return 0

    cdef int embed(self) except -1:
        """Make the ring's fd one that another event loop can wait for.

        Under DEFER_TASKRUN it is not: the kernel puts completions off until the thread enters the ring, and whoever sleeps on
        its fd is not woken. So the loop moves to a ring without that flag, once, and everything in flight with it.
        """
        cdef le_ring ring
        cdef le_link *link
        if self.core.ring.is_deferred:
            memset(&ring, 0, sizeof(ring))
            open_ring(&ring, self.entries, self.cq_entries, RING_COOPERATIVE)
            try:
                check(ring.ops.enable(&ring))
                link = self.core.in_flight.next
                while link != &self.core.in_flight:
                    link = le_op_recall(&self.core, link)
                self.settle()
            except BaseException:
                ring.ops.close(&ring)
                raise
            ring.is_enabled = True
            ring.syscalls += self.core.ring.syscalls
            ring.submissions += self.core.ring.submissions
            ring.cq_overflows += self.core.ring.cq_overflows
            check(replace_ring(&self.core.ring, &ring))
        self.core.is_embedded = True
        return self.tend_embedding()

    cdef int end_embedding(self) except -1:
        return op_stop(self, &self.deadline.op)
