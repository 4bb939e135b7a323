"""The loop that users see: running it, calls from outside, its tables of watchers, its end."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from linux_event.arguments cimport callable_argument, flag_argument, integer_within, seconds_to_ns
from linux_event.core cimport (
    LE_LOOP_CLOSED, LE_LOOP_FORKED, LE_LOOP_OPEN, LE_NS_NEVER, LE_WATCHER_OBJECT, le_chain, le_clock_after, le_clock_ns,
    le_fifo_count, le_index, le_index_first, le_loop_buffers_in_use, le_slots_used, le_table_get, le_watcher,
)
from linux_event.embedding cimport Embedding
from linux_event.requests cimport guard_state, loop_guard, owns
from linux_event.threads cimport thread_is_gone

from linux_event.statistics import Statistics
from linux_event.views import LiveView

cdef extern from *:
    """
    #define LE_TYPE_DICT(type) (((PyTypeObject *)(type))->tp_dict)
    #define LE_TYPE_MODIFIED(type) PyType_Modified((PyTypeObject *)(type))
    """
    PyObject *LE_TYPE_DICT(object type)
    int PyErr_ResourceWarning(object source, Py_ssize_t stack_level, const char *format, ...) except -1
    void LE_TYPE_MODIFIED(object type)
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    ENTRIES_MAX = 32768  # IORING_MAX_ENTRIES of the kernel
    BATCH_MAX = 1 << 30


cdef bint signals_argument(object signals) except -1:
    if not isinstance(signals, str):
        raise TypeError(f"signals must be a str, not {type(signals).__name__} ({signals!r})")
    if signals not in ("handler", "signalfd"):
        raise ValueError(f"signals must be 'handler' or 'signalfd', not {signals!r}")
    return signals == "signalfd"


cdef class Loop(Embedding):
    """Loop(*, entries=256, cq_entries=None, sqpoll=False, busy_poll=0.0, idle_wait=0.001, max_events=256,
     debug=False, signals="handler")
--

An event loop on io_uring: readiness of fds, timers, signals, child processes and idle work, one system call per turn.

A loop belongs to the thread that first runs it (or calls ``fileno``); it may be built in another one. Only ``post``,
``stop_threadsafe``, ``Wakeup.notify``, ``time``, ``statistics``, the live views and the ``is_`` methods may be called from other
threads.

:param entries: size of the submission queue, 1 .. 32768. The kernel rounds up to a power of two. More requests than
    that are submitted in several system calls.
:param cq_entries: size of the completion queue, ``entries`` .. 65536, or None: twice ``entries``. Nothing is lost when
    it runs over.
:param sqpoll: let a thread of the kernel take the submissions. It needs a core of its own to be of use.
:param busy_poll: seconds, 0 or more, for which the loop looks at the completion queue before it sleeps. Spends
    processor time on lower latency.
:param idle_wait: seconds, 0 or more: the longest sleep while idle watchers are active. 0: the loop spins.
:param max_events: completions dispatched before deferred calls and timers get their turn, 1 or more.
:param signals: how ``signal`` watchers get their signals. ``"handler"``: by a handler, which changes no signal mask.
    ``"signalfd"``: they are blocked in the thread of the loop while they are watched, and read through the ring; see the
    README for what that costs. Not with ``sqpoll``.
:param debug: check at every turn that the fds of I/O watchers are still the files they were, and tell ``on_error``.
:raises UringUnavailableError: the kernel refuses io_uring; the message names the cause and the remedy.
:raises OSError: no fd is left (EMFILE, ENFILE).

Stands on io_uring_setup(2) with IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN. Use it in a ``with``
statement, or call ``close``.
"""

    def __init__(self, *, entries=256, cq_entries=None, sqpoll=False, busy_poll=0.0, idle_wait=0.001, max_events=256,
                 debug=False, signals="handler"):
        if self.core.ring.ops != NULL:
            raise RuntimeError("Loop.__init__ was called twice")
        cdef uint32_t entries_value = integer_within(entries, "entries", 1, ENTRIES_MAX)
        cdef uint32_t cq_value = 0
        if cq_entries is not None:
            cq_value = integer_within(cq_entries, "cq_entries", entries_value, 2 * ENTRIES_MAX)
        cdef bint is_polled = flag_argument(sqpoll, "sqpoll")
        self.busy_poll_ns = seconds_to_ns(busy_poll, "busy_poll")
        self.idle_wait_ns = seconds_to_ns(idle_wait, "idle_wait")
        self.batch_max = integer_within(max_events, "max_events", 1, BATCH_MAX)
        self.is_debugging = flag_argument(debug, "debug")
        self.has_signalfd = signals_argument(signals)
        if self.has_signalfd and is_polled:
            raise ValueError("signals='signalfd' cannot be had with sqpoll=True: the thread of the kernel, which would read, "
                             "does not see what is sent to the thread of the loop")
        self.open(entries_value, cq_value, is_polled)

    # -- Running -----------------------------------------------------------------------------------------------------

    def run(self, timeout=None):
        """Run until ``stop()``, until nothing is left to do, or for ``timeout`` seconds.

        What keeps it going is an active watcher whose ``ref`` is true, an operation, or a deferred call. It may be called
        again after it has returned.

        :param timeout: seconds, int or float, 0 or more; None: no limit.
        :raises ValueError, TypeError: ``timeout`` is negative, infinite or NaN; is no number.
        :raises RuntimeError: the loop is running already, a chain is being made, or the process is a forked child.
        :raises LoopClosedError, WrongThreadError: as told by their names.
        :raises BaseException: what a callback raised, if it is no ``Exception``, such as KeyboardInterrupt; the loop stays
            usable.
        :raises OSError: the kernel refuses to go on.

        An iteration stands on one io_uring_enter(2) as a rule, and on one poll(2) where level-triggered watchers have been
        called.
        """
        cdef int64_t until_ns = LE_NS_NEVER
        if timeout is not None:
            until_ns = le_clock_after(le_clock_ns(), seconds_to_ns(timeout, "timeout"))
        self.begin()
        try:
            while self.iterate(until_ns, False):
                pass
        finally:
            self.end()

    def run_once(self, timeout=None):
        """Run one iteration.

        :param timeout: seconds to wait at most, int or float, 0 or more; None: until something happens; 0: not at all.
        :returns: the number of callbacks that it ran, an int. 0 at once if nothing could ever happen.

        Raises as ``run`` does, and stands on the same system calls: io_uring_enter(2), poll(2).
        """
        cdef int64_t until_ns = LE_NS_NEVER
        if timeout is not None:
            until_ns = le_clock_after(le_clock_ns(), seconds_to_ns(timeout, "timeout"))
        self.begin()
        cdef uint64_t before = self.core.callbacks
        try:
            self.iterate(until_ns, True)
        finally:
            self.end()
        return self.core.callbacks - before

    # -- From outside ------------------------------------------------------------------------------------------------

    def stop(self):
        """Leave ``run`` at the end of this iteration; callbacks already collected still run.

        Before ``run``: the next run makes one iteration without waiting. Raises LoopClosedError, WrongThreadError.
        """
        loop_guard(self)
        self.core.is_stopping = True

    def stop_threadsafe(self):
        """``stop`` from any thread, or from a signal handler of Python. Raises LoopClosedError. Stands on eventfd(2)."""
        guard_state(self)
        self.core.is_stopping = True
        self.wake()

    def is_running(self):
        """Return whether ``run`` or ``run_once`` is being executed, in whatever thread: a bool."""
        return self.core.is_running and self.core.state == LE_LOOP_OPEN

    def is_closed(self):
        """Return whether ``close`` was called: a bool."""
        return self.core.state == LE_LOOP_CLOSED

    def defer(self, callback, *args):
        """Call ``callback(*args)`` in the next iteration, first in, first out.

        What a deferred callback defers runs one iteration later, so that I/O is never starved. It makes no system call.

        :param callback: any callable; its result is dropped.
        :param args: the positional arguments of the call.
        :raises TypeError: ``callback`` is not callable.
        :raises LoopClosedError, WrongThreadError: as told by their names.
        """
        loop_guard(self)
        self.push_call(callback, args)
        if unlikely(self.core.is_embedded):
            self.wake()

    def post(self, callback, *args):
        """``defer`` from any thread; ends the sleep of the loop. Calls of one thread keep their order.

        :param callback: any callable; its result is dropped.
        :param args: the positional arguments of the call.
        :raises TypeError: ``callback`` is not callable.
        :raises LoopClosedError: as told by its name.

        Stands on eventfd(2).
        """
        guard_state(self)
        self.push_call(callback, args)
        self.wake()

    def time(self):
        """Return the monotonic clock in seconds, a float, as ``time.monotonic`` gives it. See clock_gettime(2)."""
        return le_clock_ns() / 1e9

    def fileno(self):
        """Return an fd, an int, that is readable when the loop has something to do: for another event loop to wait for.

        When it is readable call ``run_once(0)``. It is always the same one, and belongs to the loop. The calling thread
        becomes the owner of the loop. From the first call on the kernel tells of each event through this fd, at a small price.

        :raises LoopClosedError, WrongThreadError: as told by their names.
        :raises OSError: no fd is left (EMFILE, ENFILE).

        Stands on IORING_REGISTER_EVENTFD. See io_uring_register(2), eventfd(2), poll(2).
        """
        loop_guard(self)
        self.claim()
        if not self.core.is_embedded:
            self.embed()
        return self.outer_fd

    @property
    def on_error(self):
        """``callback(source, exception)`` for an exception that a callback raised, and for the failure of an operation without
        a callback for it; None: it is logged with its traceback on the logger ``linux_event``. ``source`` is the watcher, the
        operation, or the deferred callable. Assignable."""
        return self.error_handler

    @on_error.setter
    def on_error(self, handler):
        if handler is not None:
            callable_argument(handler, "on_error")
        self.error_handler = handler

    @property
    def debug(self):
        """Whether the loop was made with ``debug=True``: a bool."""
        return self.is_debugging

    @property
    def watchers(self):
        """Read-only live mapping: id to watcher, of all watchers not yet destroyed, oldest first."""
        return LiveView("watchers", lambda number: watcher_by_id(self, number), lambda: watcher_ids(self),
                        lambda: self.core.watchers.count)

    @property
    def io_watchers(self):
        """Read-only live mapping: fd to the tuple of the ``IOWatcher`` of that fd, active or not."""
        return LiveView("io_watchers", lambda fd: watchers_of(&self.core.by_fd, fd), lambda: keys_of(&self.core.by_fd),
                        lambda: self.core.by_fd.keys)

    @property
    def signals(self):
        """Read-only live mapping: signal number to the tuple of the ``Signal`` of that number, active or not."""
        return LiveView("signals", lambda number: watchers_of(&self.core.by_signal, number),
                        lambda: keys_of(&self.core.by_signal), lambda: self.core.by_signal.keys)

    def statistics(self):
        """Return a ``linux_event.Statistics``: counts of this loop at this moment. Works on a closed loop too."""
        return Statistics(
            iterations=self.core.iterations,
            callbacks=self.core.callbacks,
            completions=self.core.completions,
            submissions=self.core.ring.submissions,
            syscalls=self.core.ring.syscalls + self.core.other_syscalls,
            cq_overflows=self.core.ring.cq_overflows,
            active_watchers=self.core.active,
            operations_in_flight=(self.core.operation_count - self.core.streams - self.core.listeners
                                  - self.core.datagrams),
            streams=self.core.streams,
            listeners=self.core.listeners,
            datagrams=self.core.datagrams,
            pool_buffers_in_use=le_loop_buffers_in_use(&self.core) + le_slots_used(&self.core.slots),
            requests_in_flight=self.core.requests,
            watchers=self.core.watchers.count,
            timers=self.core.heap.count,
            deferred=le_fifo_count(&self.core.deferred),
        )

    def __repr__(self):
        if self.core.state == LE_LOOP_CLOSED:
            state = "closed"
        elif self.core.state == LE_LOOP_FORKED:
            state = "dead after fork"
        else:
            state = "running" if self.core.is_running else "open"
        return f"<{type(self).__name__} {state} watchers={self.core.watchers.count} active={self.core.active}>"

    # -- The end -----------------------------------------------------------------------------------------------------

    def __enter__(self):
        loop_guard(self)
        return self

    def __exit__(self, *exception):
        loop_close(self)

    def __del__(self):
        if self.core.state == LE_LOOP_CLOSED:
            return
        if self.core.is_running or self.core.is_asleep:
            raise RuntimeError("the loop is running: __del__() is not to be called")
        try:
            if self.core.state == LE_LOOP_OPEN:
                message = f"unclosed {self!r}: call close(), or use it in a with statement"
                PyErr_ResourceWarning(self, 1, "%U", <PyObject *>message)
        finally:
            self.shut(self.core.state == LE_LOOP_OPEN and owns(self), self.core.state == LE_LOOP_FORKED, False)


cdef object loop_close(Loop self):
    """What ``close()`` does without an argument; with one it is an operation, see operations/files.pyx."""
    if self.core.state == LE_LOOP_CLOSED:
        return None
    if self.core.state == LE_LOOP_FORKED:
        self.shut(False, True, False)
        return None
    is_foreign = not owns(self)
    if is_foreign and not thread_is_gone(self.owner_state_id):
        loop_guard(self)
    if self.core.is_running:
        raise RuntimeError("the loop is running: call stop(), and close() after run() has returned")
    self.shut(not is_foreign, is_foreign, True)  # what a thread has asked for has ended with it
    return None


# -- Tables ------------------------------------------------------------------------------------------------------------

cdef inline bint is_dying(const le_watcher *watcher) noexcept:
    """Whether the destructor has begun: a weak reference's callback may come here before the watcher has left the tables."""
    return LE_WATCHER_OBJECT(watcher).ob_refcnt == 0


cdef object watcher_by_id(Loop loop, object number):
    cdef le_watcher *watcher = NULL
    if type(number) is int and 0 < number < loop.core.next_id:
        watcher = le_table_get(&loop.core.watchers, number)
    if watcher == NULL or is_dying(watcher):
        raise KeyError(number)
    return <object>LE_WATCHER_OBJECT(watcher)


cdef list watcher_ids(Loop loop):
    cdef list ids = []
    cdef uint64_t place
    for place in range(loop.core.watchers.capacity):
        if loop.core.watchers.slots[place] != NULL and not is_dying(loop.core.watchers.slots[place]):
            ids.append(loop.core.watchers.slots[place].id)
    ids.sort()
    return ids


cdef tuple watchers_of(const le_index *index, object key):
    cdef le_chain *link = NULL
    cdef list found = []
    if type(key) is int and 0 <= key < index.capacity:
        link = le_index_first(index, key)
    while link != NULL:
        if not is_dying(link.watcher):
            found.append(<object>LE_WATCHER_OBJECT(link.watcher))
        link = link.next
    if not found:
        raise KeyError(key)
    return tuple(found)


cdef list keys_of(const le_index *index):
    cdef list keys = []
    cdef uint32_t key
    for key in range(index.capacity):
        if index.heads[key] != NULL:
            keys.append(key)
    return keys


cdef int add_method(str name, object function) except -1:
    function.__name__ = name
    function.__qualname__ = f"Loop.{name}"
    (<dict>LE_TYPE_DICT(Loop))[name] = function
    LE_TYPE_MODIFIED(Loop)
    return 0


cdef int add_property(str name, object getter) except -1:
    (<dict>LE_TYPE_DICT(Loop))[name] = property(getter, None, None, getter.__doc__)
    LE_TYPE_MODIFIED(Loop)
    return 0
