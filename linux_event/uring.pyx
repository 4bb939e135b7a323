"""Ring: the operations of the kernel under their own names, raw, alone or beneath a loop.

A raw request is an operation like any other (operation.pyx): the same structs, the same life, the same owner of its buffers. A
Ring that is used alone therefore stands on a loop of its own, which nobody runs: submit(), submit_and_wait() and reap() are
the halves of an iteration, and the rules for threads, fork and the end are those of a loop.

The methods that make requests are in raw/, a file for each family.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset
from linux_event.arguments cimport integer_within, seconds_to_ns
from linux_event.core cimport (
    LE_NS_NEVER, LE_LOOP_CLOSED, LE_LOOP_FORKED, LE_LOOP_OPEN, LE_WAIT_FOREVER, le_clock_after, le_clock_ns, le_loop_reap,
    le_raw_is_full, le_raw_queued, le_ring_cq_ready, le_ring_is_flagged,
)
from linux_event.engine cimport Engine
from linux_event.loop cimport Loop, add_property, loop_close
from linux_event.requests cimport guard_state, loop_guard, op_stop, run_handlers
from linux_event.liburing cimport __kernel_timespec
from linux_event.ring cimport ask_operations, register_with

import weakref

from linux_event.errors import LoopClosedError
from linux_event.features import Features
from linux_event.ring import probe

cdef extern from "le_compat.h" nogil:
    struct io_uring_sync_cancel_reg:
        int fd
        unsigned flags
        __kernel_timespec timeout
    enum:
        IORING_ASYNC_CANCEL_ALL
        IORING_ASYNC_CANCEL_ANY
        IORING_REGISTER_SYNC_CANCEL

cdef extern from *:
    """
    #define LE_TYPE_DICT(type) (((PyTypeObject *)(type))->tp_dict)
    #define LE_TYPE_MODIFIED(type) PyType_Modified((PyTypeObject *)(type))
    """
    PyObject *LE_TYPE_DICT(object type)
    void LE_TYPE_MODIFIED(object type)
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    WAIT_MAX = 0x7fffffff
    # A signal with a Python handler that comes right before the wait, or to another thread, is handled this much later at most.
    WAIT_SLICE_NS = 100_000_000

# What the running kernel has: asked once in a process, for a ring that is restricted cannot be asked.
cdef uint8_t supported[256]
cdef object known_features = None


cdef class RingLoop(Loop):
    """The loop beneath a ring that is used alone. It has no requests of its own: IO_DRAIN waits for the end of all others."""

    cdef int claim(self) except -1:
        Loop.claim(self)
        return op_stop(self, &self.wake_op)

    cdef int wait_for_operations(self) except -1:
        cdef io_uring_sync_cancel_reg everything
        if self.has_drained:
            # Cancellations wait behind a request with IO_DRAIN as all requests do, so what that waits for is ended at once.
            memset(&everything, 0, sizeof(everything))
            everything.fd = -1
            everything.flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL
            everything.timeout.tv_sec = 1
            register_with(&self.core.ring, IORING_REGISTER_SYNC_CANCEL, &everything, 1)
        return Loop.wait_for_operations(self)

    def __repr__(self):
        return describe(self, "Ring")


cdef class Ring:
    """Ring(entries=256, *, cq_entries=None, sqpoll=False)
--

The io_uring of the kernel, raw: one method for each of its operations, under the kernel's name.

A method notes a request and returns it, a ``Request``, at once. ``submit`` hands the requests over, ``reap`` calls the
callbacks of what has completed: ``callback(res, flags)``, two ints as the kernel gives them, ``res`` a negative errno on failure.
``loop.ring`` is the ring of a loop: there submission and reaping are the loop's, ``submit``, ``submit_and_wait`` and ``reap``
raise RuntimeError, and callbacks run in its iterations.

A ring belongs to the thread that first submits or reaps; in a forked child it is dead. Buffers, paths and addresses are held
until the kernel is done with them; a ring that is closed cancels its requests, and waits until the kernel has let go.

:param entries: size of the submission queue, 1 .. 32768; more requests than that are submitted in several system calls.
:param cq_entries: size of the completion queue, ``entries`` .. 65536, or None: twice ``entries``. Nothing is lost when it
    runs over.
:param sqpoll: let a thread of the kernel take the submissions.
:raises UringUnavailableError, OSError, ValueError, TypeError: as for ``Loop``.

Stands on io_uring_setup(2). Use it in a ``with`` statement, or call ``close``.
"""

    # Flags of a request, IOSQE_*, for the argument `flags` of all methods.
    FIXED_FILE = 1 << 0
    IO_DRAIN = 1 << 1
    IO_LINK = 1 << 2
    IO_HARDLINK = 1 << 3
    ASYNC = 1 << 4
    CQE_SKIP_SUCCESS = 1 << 6

    # Flags that a callback gets, IORING_CQE_F_*.
    CQE_F_BUFFER = 1 << 0
    CQE_F_MORE = 1 << 1
    CQE_F_SOCK_NONEMPTY = 1 << 2
    CQE_F_NOTIF = 1 << 3
    CQE_BUFFER_SHIFT = 16

    # Flags of single operations, IORING_*, and the place of a direct descriptor that the kernel chooses.
    FSYNC_DATASYNC = 1 << 0
    TIMEOUT_ABS = 1 << 0
    TIMEOUT_BOOTTIME = 1 << 2
    TIMEOUT_REALTIME = 1 << 3
    TIMEOUT_ETIME_SUCCESS = 1 << 5
    TIMEOUT_MULTISHOT = 1 << 6
    ASYNC_CANCEL_ALL = 1 << 0
    RECVSEND_POLL_FIRST = 1 << 0
    SPLICE_F_FD_IN_FIXED = 1 << 31
    FILE_INDEX_ALLOC = 0xffffffff

    def __init__(self, entries=256, *, cq_entries=None, sqpoll=False):
        if self.owner is not None:
            raise RuntimeError("Ring.__init__ was called twice")
        cdef RingLoop owner = RingLoop(entries=entries, cq_entries=cq_entries, sqpoll=sqpoll)
        if known_features is None:
            ask_kernel(owner)
        owner.ring_ref = weakref.ref(self)
        self.is_alone = True
        self.owner = owner

    # -- Handing over, taking ----------------------------------------------------------------------------------------

    def submit(self):
        """Hand all requests that were noted over to the kernel. May be called in a callback.

        :returns: their number, an int.
        :raises RuntimeError: it is the ring of a loop.
        :raises LoopClosedError, WrongThreadError: as told by their names.
        :raises OSError: the kernel refuses to go on.

        Stands on io_uring_enter(2).
        """
        cdef Loop owner = alone(self, "submit")
        cdef uint64_t count = le_raw_queued(&owner.core)
        enter(owner, 0, LE_NS_NEVER)
        return count

    def submit_and_wait(self, n=1, timeout=None):
        """Hand all requests over, and wait until some have completed. Callbacks are left to ``reap``.

        :param n: wait for this many results, an int, 0 or more, those that were there before included.
        :param timeout: seconds, int or float, 0 or more; None: no limit.
        :returns: how many results are there for ``reap``, an int: fewer than ``n`` after ``timeout``, where nothing is in
            flight any more, or where more results of requests that are answered many times have come than the ring keeps.
        :raises RuntimeError: it is the ring of a loop.
        :raises ValueError, TypeError: an argument is out of range or has a wrong type.
        :raises LoopClosedError, WrongThreadError, OSError: as for ``submit``.

        Stands on io_uring_enter(2).
        """
        cdef Loop owner = alone(self, "submit_and_wait")
        cdef uint64_t count = integer_within(n, "n", 0, WAIT_MAX)
        cdef int64_t until_ns = LE_NS_NEVER
        if timeout is not None:
            until_ns = le_clock_after(le_clock_ns(), seconds_to_ns(timeout, "timeout"))
        enter(owner, count, until_ns)
        return ready(owner)

    def reap(self):
        """Call the callbacks of all requests that have completed by now, in the order of their completion.

        It neither submits nor waits. What the callbacks submit and what completes meanwhile is left to the next call.

        :returns: how many results it has taken, an int, those that have no callback included.
        :raises RuntimeError: it is the ring of a loop, or this is a callback of the ring.
        :raises BaseException: what a callback raised, if it is no ``Exception``; an ``Exception`` goes to ``on_error``.
        :raises LoopClosedError, WrongThreadError: as told by their names.

        Stands on io_uring_enter(2) where the kernel has put work off, and on no system call else.
        """
        cdef Loop owner = alone(self, "reap")
        cdef uint64_t count
        if owner.core.is_running:
            raise RuntimeError("reap() cannot be called by a callback of this ring")
        owner.begin()
        try:
            if le_ring_is_flagged(&owner.core.ring):
                owner.core.ring.ops.enter(&owner.core.ring, 0, 0)
            if le_ring_cq_ready(&owner.core.ring):
                le_loop_reap(&owner.core)
            owner.release_finished()
            guard_state(owner)
            count = ready(owner)
            if count:
                owner.batch_max = count
                owner.dispatch()
        finally:
            owner.end()
        return count

    # -- The end, and what there is to know --------------------------------------------------------------------------

    def is_closed(self):
        """Return whether ``close`` was called, or the loop of this ring was closed: a bool."""
        return self.owner is None or self.owner.core.state == LE_LOOP_CLOSED

    def fileno(self):
        """Return an fd, an int, that is readable when there is something to reap: for another event loop to wait for.

        It is always the same one, and belongs to the ring, or to its loop. The calling thread becomes the owner of the ring.
        From the first call on requests are handed over at the end of ``reap``, too.

        :raises LoopClosedError, WrongThreadError, OSError: as for ``Loop.fileno``.

        Stands on IORING_REGISTER_EVENTFD. See io_uring_register(2), eventfd(2), poll(2).
        """
        ring_guard(self)
        return self.owner.fileno()

    def statistics(self):
        """Return a ``linux_event.Statistics``: counts of this ring at this moment, or those of its loop. Works on a closed
        ring too."""
        if self.owner is None:
            ring_guard(self)
        return self.owner.statistics()

    @property
    def features(self):
        """What the running kernel's io_uring can do, as it says itself: a ``Features``, which is a frozen set of names.

        Operations are in it by their names, ``"WAITID"``, and so are features, ``"EXT_ARG"``, without ``IORING_OP_`` and
        ``IORING_FEAT_``. ``in`` does not look at case: ``"waitid" in ring.features``. Stands on IORING_REGISTER_PROBE.
        """
        return known_features

    @property
    def on_error(self):
        """``callback(source, exception)`` for an exception that a callback raised; None: it is logged. Assignable. The ring of
        a loop has that of its loop. ``source`` is the ``Request``."""
        if self.owner is None:
            ring_guard(self)
        return self.owner.on_error

    @on_error.setter
    def on_error(self, handler):
        if self.owner is None:
            ring_guard(self)
        self.owner.on_error = handler

    def __enter__(self):
        alone(self, "the with statement")
        return self

    def __exit__(self, *exception):
        ring_close(self)

    def __repr__(self):
        if self.owner is None:
            return f"<{type(self).__name__} not made>"
        if self.is_alone:
            return describe(self.owner, type(self).__name__)
        return f"<{type(self).__name__} of {self.owner!r}>"


cdef object describe(Engine owner, str name):
    if owner.core.state == LE_LOOP_CLOSED:
        state = "closed"
    elif owner.core.state == LE_LOOP_FORKED:
        state = "dead after fork"
    else:
        state = "open"
    return f"<{name} {state} requests={owner.core.operation_count}>"


cdef object ring_close(Ring self):
    """What ``close()`` does without an argument; with one it is a request, see raw/data.pyx."""
    if self.owner is None:
        return None
    if not self.is_alone:
        raise RuntimeError("this is the ring of a loop: close the loop")
    return loop_close(self.owner)


cdef Loop alone(Ring self, str what):
    if self.owner is not None and not self.is_alone:
        raise RuntimeError(f"this is the ring of a loop, which submits and reaps by itself: {what} is for a Ring() used alone")
    ring_guard(self)
    return self.owner


cdef inline uint64_t ready(Engine owner) noexcept:
    """How many results wait to be told."""
    return owner.core.pending + owner.core.more_results


cdef int enter(Loop owner, uint64_t count, int64_t until_ns) except -1:
    """Submit, and wait for results. A callback may do that: begin() and end() are those of reap() then."""
    cdef bint is_nested = owner.core.is_running
    if not is_nested:
        owner.begin()
    try:
        owner.enter(0, 0)
        owner.release_finished()
        guard_state(owner)  # a destructor may have closed the ring, or forked
        if ready(owner) < count:
            wait(owner, count, until_ns)
    finally:
        if not is_nested:
            owner.end()
    return 0


cdef int wait(Loop owner, uint64_t count, int64_t until_ns) except -1:
    cdef int64_t limit_ns
    while ready(owner) < count and (owner.core.requests or owner.core.inbox != NULL):
        run_handlers(owner)
        if le_raw_is_full(&owner.core):
            break  # there is no room for more before these have been taken
        limit_ns = LE_WAIT_FOREVER
        if until_ns != LE_NS_NEVER:
            limit_ns = until_ns - le_clock_ns()
            if limit_ns <= 0:
                break
        if owner.in_main_thread and not 0 <= limit_ns <= WAIT_SLICE_NS:
            limit_ns = WAIT_SLICE_NS
        owner.enter(count - ready(owner), limit_ns)
        owner.release_finished()
        guard_state(owner)
    return 0


# -- For the families --------------------------------------------------------------------------------------------------

cdef int ring_guard(Ring self) except -1:
    if self.owner is None:
        raise RuntimeError("Ring.__init__ was not called")
    if unlikely(self.is_alone and self.owner.core.state != LE_LOOP_OPEN):
        if self.owner.core.state == LE_LOOP_CLOSED:
            raise LoopClosedError("the ring is closed: create a new one")
        raise RuntimeError("this ring belongs to the parent process: it is dead in a forked child, create a new Ring here")
    return loop_guard(self.owner)


cdef int operation_guard(unsigned opcode) except -1:
    if unlikely(not supported[opcode]):
        from linux_event.diagnosis import OPERATION_KERNELS, OPERATION_NAMES
        name = OPERATION_NAMES[opcode]
        raise NotImplementedError(
            f"this kernel's io_uring does not have the operation {name}, which came with Linux {OPERATION_KERNELS[name]}")
    return 0


cdef dict registered_of(Engine owner):
    if owner.registered is None:
        owner.registered = {}
    return owner.registered


cdef int add_raw_method(str name, object function) except -1:
    function.__name__ = name
    function.__qualname__ = f"Ring.{name}"
    (<dict>LE_TYPE_DICT(Ring))[name] = function
    LE_TYPE_MODIFIED(Ring)
    return 0


cdef int ask_kernel(Engine owner) except -1:
    global known_features
    from linux_event.diagnosis import FEATURE_NAMES, OPERATION_NAMES
    ask_operations(&owner.core.ring, supported)
    names = [name for code, name in enumerate(OPERATION_NAMES) if supported[code]]
    names += [name for bit, name in enumerate(FEATURE_NAMES) if owner.core.ring.uring.features >> bit & 1]
    known_features = Features(names)
    return 0


def pretend(*operations):
    """For tests: let operations, by the kernel's names, be lacking from now on; without a name: ask the kernel again."""
    global known_features
    from linux_event.diagnosis import OPERATION_NAMES
    probed = probe()
    for code, name in enumerate(OPERATION_NAMES):
        supported[code] = name in probed["operations"] and name not in operations
    known_features = Features({*probed["operations"], *probed["features"]} - {*operations})


# -- The ring of a loop ------------------------------------------------------------------------------------------------

def _ring(loop):
    """The ``Ring`` of the loop: its requests go with the loop's submissions, their callbacks run in its iterations."""
    cdef Loop owner = loop
    cdef Ring ring = None if owner.ring_ref is None else owner.ring_ref()
    if ring is None:
        if known_features is None:
            loop_guard(owner)
            ask_kernel(owner)
        ring = Ring.__new__(Ring)
        ring.owner = owner
        owner.ring_ref = weakref.ref(ring)
    return ring


add_property("ring", _ring)
