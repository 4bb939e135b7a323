"""Requests: what a loop has at the kernel. Entering the ring, starting and ending requests, the thread that may do so, and
what becomes of it all in a forked child.

The phases of an iteration are in engine.pyx, which derives from it.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBADR, EBUSY, EINTR, ENOMEM, ETIME
from libc.stdint cimport int64_t, uint32_t, uint64_t
from linux_event.core cimport (
    LE_LOOP_CLOSED, LE_LOOP_FORKED, LE_LOOP_OPEN, LE_OP_ABI, LE_POOL_OF_LINK, le_link, le_list_is_empty, le_loop_can_feed,
    le_loop_fill, le_loop_flush, le_loop_free, le_loop_init, le_loop_reap, le_loop_take_rearmed, le_op, le_op_class,
    le_op_next_finished, le_op_owner, le_op_start, le_op_stop, le_pipes_close, le_pool, le_pool_pop_waiting,
    le_ring_cq_ready, le_ring_is_flagged, le_signal_on_cqe, le_waker_on_cqe, le_waker_prep,
)
from linux_event.errors cimport check, check_errno
from linux_event.interrupts cimport signal_pipe_close, signal_pipe_init, signal_pipe_restore
from linux_event.linux cimport EFD_CLOEXEC, EFD_NONBLOCK, close, eventfd, nanosleep, timespec
from linux_event.ring cimport open_ring
from linux_event.threads cimport thread_is_main, thread_state_id

import os
import weakref

from linux_event.errors import LoopClosedError, WrongThreadError

cdef extern from *:
    """
    /* A number for every thread that ever lived: the identifiers of the system are used again after a thread has ended. */
    static uint64_t le_thread_serial(void)
    {
        static uint64_t last;
        static __thread uint64_t serial __attribute__((tls_model("initial-exec")));
        if (LE_UNLIKELY(!serial))
            serial = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
        return serial;
    }
    """
    uint64_t le_thread_serial() nogil
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    ENTER_TRIES = 10  # while the kernel is short of something: 1, 2, 4, ... milliseconds apart
    SETTLE_NS = 10_000_000
    SETTLE_TRIES = 20

cdef object live_requests = weakref.WeakSet()

cdef le_op_class waker_class
waker_class.abi = LE_OP_ABI
waker_class.name = "waker"
waker_class.prep = le_waker_prep
waker_class.on_cqe = le_waker_on_cqe
cdef le_op_class signal_pipe_class = waker_class
signal_pipe_class.name = "signal pipe"
signal_pipe_class.on_cqe = le_signal_on_cqe


cdef class Requests:
    """What a loop has at the kernel. Not to be used by itself: see Loop."""

    def __cinit__(self):
        le_loop_init(&self.core)
        self.core.state = LE_LOOP_CLOSED  # until open()
        self.wake_fd = self.outer_fd = -1
        signal_pipe_init(&self.interrupts)
        self.wake_op.cls = &waker_class
        self.signal_op.cls = &signal_pipe_class

    def __dealloc__(self):
        if self.core.ring.is_open:
            self.core.ring.ops.close(&self.core.ring)
        close_fds(self)
        le_loop_free(&self.core)

    cdef int open(self, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1:
        """Open the ring and the eventfd; from now on the loop is usable."""
        open_ring(&self.core.ring, entries, cq_entries, sqpoll)
        self.wake_fd = self.wake_op.fd = check_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
        self.core.state = LE_LOOP_OPEN
        live_requests.add(self)
        return 0

    cdef int enter(self, uint32_t wait_nr, int64_t timeout_ns) except -1:
        """Submit everything queued, wait for wait_nr completions at most timeout_ns, and take all completions."""
        cdef timespec pause
        cdef int result = 0, tries = 0
        cdef uint64_t before
        cdef uint64_t at_start = self.core.completions
        cdef bint is_last
        le_loop_take_rearmed(&self.core)
        if not le_list_is_empty(&self.core.to_flush) and le_loop_flush(&self.core):
            wait_nr = 0
        if unlikely(self.core.waiting):
            self.feed()
            if le_loop_can_feed(&self.core):
                wait_nr = 0  # those that are armed now may leave the buffers to the others
        while True:
            if unlikely(not self.core.ring.is_open):
                guard_state(self)
            # A full submission queue is handed over, and filled again. That may bring completions: then there is no wait.
            is_last = le_loop_fill(&self.core)
            if not is_last:
                wait_nr = 0
            if wait_nr:
                self.core.is_woken = False
                self.core.is_asleep = True
                with nogil:
                    result = self.core.ring.ops.enter(&self.core.ring, wait_nr, timeout_ns)
                self.core.is_asleep = False
            else:
                result = self.core.ring.ops.enter(&self.core.ring, 0, 0)
            le_loop_reap(&self.core)
            if result == -EINTR:
                # A handler may stop the loop or raise: the caller looks again at what there is to wait for.
                run_handlers(self)
            if is_last and (result >= 0 or result == -EINTR or result == -ETIME):
                break
            if result == -EBUSY and le_ring_cq_ready(&self.core.ring):
                break  # there is no room for what is in the queue until callbacks have run
            if result > 0 or result == -EINTR:
                tries = 0
                continue
            if result == -EBADR:
                raise OSError(EBADR, "the kernel has dropped completions for lack of memory: close this loop", "io_uring_enter")
            # What has been taken is not to wait until the next try brings more.
            if self.core.completions != at_start:
                wait_nr = 0
            # The kernel is short of memory, or its queue of completions is full: taking them and a pause help.
            if result not in (-EAGAIN, -EBUSY, -ENOMEM, -ETIME, 0) or tries == ENTER_TRIES:
                raise OSError(-result, f"{os.strerror(-result)} (the kernel refuses to go on with this loop)", "io_uring_enter")
            pause.tv_sec = 0
            pause.tv_nsec = 1_000_000 << min(tries, 5)
            tries += 1
            # The GIL is free meanwhile: whoever calls from another thread has to leave a sign that ends the wait to come.
            self.core.is_asleep = wait_nr != 0
            with nogil:
                nanosleep(&pause, NULL)
            self.core.is_asleep = False
        # The kernel does what it has put off in small portions: all that is ready now belongs to this iteration. The flag may
        # stay up with nothing behind it, when another processor raises it late: an enter that brings nothing is the last.
        while result >= 0 and le_ring_is_flagged(&self.core.ring) and self.core.pending < self.batch_max:
            before = self.core.completions
            result = self.core.ring.ops.enter(&self.core.ring, 0, 0)
            le_loop_reap(&self.core)
            if self.core.completions == before:
                break
        return 0

    cdef int feed(self) except -1:
        """Arm requests that had found no buffer in their pool: as many as it has buffers now."""
        cdef le_link *link = self.core.pools.next
        cdef le_pool *pool
        cdef uint32_t left
        while link != &self.core.pools:
            pool = LE_POOL_OF_LINK(link)
            left = pool.provided
            while left and not le_list_is_empty(&pool.waiting):
                op_start(self, le_pool_pop_waiting(&self.core, pool))
                left -= 1
            link = link.next
        return 0

    cdef int release_finished(self) except -1:
        """Drop the references on the owners of requests that have come to their end."""
        cdef le_op *op = le_op_next_finished(&self.core)
        while op != NULL:
            if le_op_owner(op) != NULL:
                Py_DECREF(<object>le_op_owner(op))
            op = le_op_next_finished(&self.core)
        return 0

    cdef int claim(self) except -1:
        """Make the calling thread the owner, if there is none yet."""
        if self.owner:
            return 0
        check(self.core.ring.ops.enable(&self.core.ring))
        self.core.ring.is_enabled = True
        self.owner = le_thread_serial()
        self.owner_state_id = thread_state_id()
        self.in_main_thread = thread_is_main()
        op_start(self, &self.wake_op)
        return 0

    cdef int settle(self) except -1:
        """Let the kernel finish what was cancelled, so that the peer of an fd that is closed next sees the end."""
        cdef int tries = 0
        # What a disk has begun, or what waits for its turn in a chain, takes longer: it is waited for once.
        self.unsettled = min(self.unsettled, self.core.cancelling)
        while self.core.cancelling > self.unsettled and tries < SETTLE_TRIES:
            self.enter(1, SETTLE_NS)
            self.release_finished()
            if unlikely(not self.core.ring.is_open):
                guard_state(self)  # a destructor has forked
            tries += 1
        self.unsettled = self.core.cancelling
        return 0

    cdef int die_in_child(self) except -1:
        """After a fork, in the child: the queues are not mapped here (io_uring_ring_dontfork) and the fds are copies."""
        self.core.state = LE_LOOP_FORKED
        self.core.is_running = self.core.is_asleep = False
        self.core.ring.is_open = False
        close(self.core.ring.uring.ring_fd)
        signal_pipe_restore(&self.interrupts)
        close_fds(self)
        return 0


cdef void close_fds(Requests self) noexcept:
    if self.wake_fd >= 0:
        close(self.wake_fd)
    if self.outer_fd >= 0:
        close(self.outer_fd)
    self.wake_fd = self.outer_fd = -1
    le_pipes_close(&self.core.pipes)
    signal_pipe_close(&self.interrupts)


cdef bint owns(Requests loop) noexcept:
    return loop.owner == 0 or loop.owner == le_thread_serial()


cdef int guard_state(Requests loop) except -1:
    if loop.core.state == LE_LOOP_FORKED:
        raise RuntimeError("this loop belongs to the parent process: it is dead in a forked child, create a new Loop here")
    if loop.core.state == LE_LOOP_CLOSED:
        raise LoopClosedError("the loop is closed: create a new one")
    return 0


cdef int loop_guard(Requests loop) except -1:
    if unlikely(loop.core.state != LE_LOOP_OPEN):
        guard_state(loop)
    if unlikely(not owns(loop)):
        raise WrongThreadError(
            "this loop belongs to the thread that first ran it: others may call post(), stop_threadsafe() and Wakeup.notify()")
    return 0


cdef int run_handlers(Requests loop) except -1:
    """Run Python's handlers of signals that have come. One may have forked: in the child, that is the end of this loop. One
    may have closed the loop, where it was not running."""
    PyErr_CheckSignals()
    if unlikely(not loop.core.ring.is_open):
        guard_state(loop)
    return 0


cdef int op_start(Requests loop, le_op *op) except -1:
    if le_op_start(&loop.core, op) and le_op_owner(op) != NULL:
        Py_INCREF(<object>le_op_owner(op))
    return 0


cdef int op_stop(Requests loop, le_op *op) except -1:
    if le_op_stop(&loop.core, op) and le_op_owner(op) != NULL:
        Py_DECREF(<object>le_op_owner(op))
    return 0


# -- Fork --------------------------------------------------------------------------------------------------------------

def _after_fork_in_child():
    """Make every loop of the parent dead in this child, without a word to the kernel about the parent's rings."""
    cdef Requests requests
    for requests in list(live_requests):
        if requests.core.ring.is_open:  # it may be in the middle of close()
            requests.die_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
