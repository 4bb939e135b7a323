"""The engine of a loop: the phases of one iteration, the dispatch of callbacks, the end, garbage collection.

What users call is in loop.pyx, which derives from it.
"""

cimport cython
from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyCallable_Check, PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdint cimport int64_t, uint64_t
from linux_event.arguments cimport callable_argument
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_LANE_TIMERS, LE_LOOP_CLOSED, LE_LOOP_OPEN, LE_NS_NEVER, LE_OP_EVERY_COMPLETION, LE_OP_IDLE,
    LE_OP_OF_LINK, LE_OP_UNTIL_STOPPED, LE_OPERATION_ENDED, LE_OPERATION_KEPT, LE_OPERATION_OF_LINK, LE_PRIORITIES,
    LE_WAIT_FOREVER, LE_WATCHER_OBJECT, le_call, le_clock_after, le_clock_ns, le_fifo_count, le_fifo_pop, le_fifo_push,
    le_fifo_trim, le_lane_pop, le_link, le_link_leave, le_list_is_empty, le_loop_abandon, le_loop_collect_idle,
    le_loop_collect_notified, le_loop_collect_timers, le_loop_uncollect, le_loop_visit, le_loop_wants_enter, le_op_owner,
    le_operation, le_operation_end, le_ring_cq_ready, le_ring_is_flagged, le_table_get, le_verify, le_visit, le_watcher,
)
from linux_event.interrupts cimport signal_pipe_drain, signal_pipe_install, signal_pipe_restore
from linux_event.linux cimport ECANCELED, eventfd_write
from linux_event.requests cimport Requests, close_fds, loop_guard, op_start, op_stop, run_handlers

from linux_event.errors import LoopClosedError

cdef extern from *:
    """
    /* Short of memory for a frame, CPython 3.11 loses the exception that passes through it. */
    static int le_raise_current(void)
    {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_SystemError, "a callback has failed without an exception");
        return -1;
    }
    #define LE_TRAVERSE_SLOT(type) (((PyTypeObject *)(type))->tp_traverse)
    #define LE_SET_TRAVERSE(type, function) (((PyTypeObject *)(type))->tp_traverse = (traverseproc)(function))
    """
    int le_raise_current() except -1
    ctypedef int (*visitproc)(void *, void *) noexcept nogil
    ctypedef int (*traverseproc)(PyObject *, visitproc, void *) noexcept nogil
    traverseproc LE_TRAVERSE_SLOT(object type)
    void LE_SET_TRAVERSE(object type, traverseproc traverse)
    PyObject *PyObject_CallNoArgs(PyObject *callable) noexcept
    PyObject *PyObject_Call(PyObject *callable, PyObject *args, PyObject *keywords) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    SIGNALS_EVERY = 64  # iterations without a sleep
    CLOSING_WAIT_NS = 100_000_000

cdef list debug_checks = []


cdef class Engine(Requests):
    """The phases of a loop. Not to be used by itself: see Loop."""

    # -- Phases ------------------------------------------------------------------------------------------------------

    cdef int begin(self) except -1:
        loop_guard(self)
        if self.core.is_running:
            raise RuntimeError("the loop is already running: run() and run_once() cannot be called from its callbacks")
        if self.core.is_chaining:
            raise RuntimeError("a chain is being made: leave the with statement of link() before the loop runs")
        self.claim()
        if self.core.pending:
            le_loop_uncollect(&self.core)
        self.core.is_running = True
        return 0

    cdef int end(self) except -1:
        self.core.is_running = False
        self.core.is_stopping = False
        if self.core.state != LE_LOOP_OPEN:
            return 0
        self.sees_interrupts = False
        signal_pipe_restore(&self.interrupts)
        try:
            self.settle()
            self.tend_embedding()
        except (OSError, LoopClosedError):
            pass  # the kernel refuses to go on: what run() raises says so, now or the next time. Or a handler has closed the loop
        return 0

    cdef int iterate(self, int64_t until_ns, bint once) except -1:
        """One iteration; true if another one should follow."""
        cdef uint64_t before = self.core.callbacks
        self.core.iterations += 1
        self.run_deferred()
        if not has_work(self) and not self.core.is_stopping and not (once and self.core.active):
            return 0
        self.wait(until_ns, not once or self.core.callbacks == before)
        if not le_list_is_empty(&self.core.notified):
            le_loop_collect_notified(&self.core)
        if self.core.heap.count:
            le_loop_collect_timers(&self.core, le_clock_ns())
        if self.core.pending:
            self.dispatch()
        if not le_list_is_empty(&self.core.idle) and self.core.callbacks == before:
            le_loop_collect_idle(&self.core)
            self.dispatch()
        if self.core.is_stopping:
            return 0
        return until_ns == LE_NS_NEVER or le_clock_ns() < until_ns

    cdef int run_deferred(self) except -1:
        """Run the calls deferred so far; what they defer waits for the next iteration."""
        cdef uint64_t end = self.core.deferred.tail
        cdef le_call call
        cdef PyObject *result
        while self.core.deferred.head != end:
            call = le_fifo_pop(&self.core.deferred)
            self.core.callbacks += 1
            if call.args == NULL:
                result = PyObject_CallNoArgs(<PyObject *>call.callable)
            else:
                result = PyObject_Call(<PyObject *>call.callable, <PyObject *>call.args, NULL)
            try:
                if unlikely(result == NULL):
                    self.report(<object>call.callable)
                else:
                    Py_DECREF(<object>result)
            finally:
                Py_DECREF(<object>call.callable)
                if call.args != NULL:
                    Py_DECREF(<object>call.args)
            if unlikely(self.core.state != LE_LOOP_OPEN):
                loop_guard(self)
        le_fifo_trim(&self.core.deferred)
        return 0

    cdef int wait(self, int64_t until_ns, bint may_sleep) except -1:
        """Submit what is queued; wait, unless something is already due; take the completions."""
        cdef uint64_t before = self.core.pending
        # Callbacks in Python see their signals themselves; this is for those that run no bytecode.
        if self.core.iterations % SIGNALS_EVERY == 0:
            run_handlers(self)
        if not le_list_is_empty(&self.core.recheck):
            self.core.on_recheck(&self.core, True)
        if self.core.pending == before:
            if not le_list_is_empty(&self.core.recheck):
                if le_ring_is_flagged(&self.core.ring) or le_ring_cq_ready(&self.core.ring):
                    self.enter(0, 0)
                self.core.on_recheck(&self.core, False)
            if may_sleep and wait_limit_ns(self, until_ns) != 0:
                self.sleep(until_ns)
            elif le_loop_wants_enter(&self.core) or le_ring_cq_ready(&self.core.ring):
                self.enter(0, 0)
                if not le_list_is_empty(&self.core.recheck):
                    self.core.on_recheck(&self.core, False)
        if unlikely(not le_list_is_empty(&self.core.finished)):
            self.release_finished()
            loop_guard(self)  # a destructor may have forked
        if unlikely(self.is_debugging):
            for debug_check in debug_checks:
                debug_check(self)
        if unlikely(self.core.is_signalled):
            run_signal_handlers(self)
        return 0

    cdef int sleep(self, int64_t until_ns) except -1:
        """Wait in the kernel until something is collected, or falls due."""
        cdef int64_t limit_ns, idle_ns = le_clock_after(le_clock_ns(), self.idle_wait_ns)
        if not le_list_is_empty(&self.core.idle):
            until_ns = min(until_ns, idle_ns)
        if not self.sees_interrupts:
            watch_signals(self)
        # From here on a signal leaves a byte in the pipe; what came before is seen now.
        run_handlers(self)
        if self.busy_poll_ns:
            spin(self, until_ns)
        while True:
            if self.core.is_signalled:
                run_signal_handlers(self)
                if not le_list_is_empty(&self.core.idle):
                    until_ns = min(until_ns, idle_ns)
            if not le_list_is_empty(&self.core.recheck):
                self.core.on_recheck(&self.core, False)
            limit_ns = wait_limit_ns(self, until_ns)
            if limit_ns == 0:
                return 0
            self.enter(1, limit_ns)
            if unlikely(not le_list_is_empty(&self.core.finished)):
                # What was held for requests that have ended does not wait for the next event.
                self.release_finished()
                loop_guard(self)  # a destructor may have forked

    cdef int dispatch(self) except -1:
        """Call the callbacks of what was collected, high priority first, completions within the portion of an iteration."""
        cdef uint64_t budget = self.batch_max
        cdef int rank = LE_PRIORITIES - 1
        cdef le_watcher *watcher
        self.core.is_reordered = False
        while rank >= 0:
            watcher = le_lane_pop(&self.core, LE_LANE_TIMERS, rank)
            # After stop() nothing that was collected is left behind.
            if watcher == NULL and (budget or self.core.is_stopping):
                watcher = le_lane_pop(&self.core, LE_LANE_COMPLETIONS, rank)
                budget -= watcher != NULL and budget != 0
            if watcher == NULL:
                rank -= 1
                continue
            self.call(watcher)
            if unlikely(self.core.is_reordered):
                self.core.is_reordered = False
                rank = LE_PRIORITIES - 1
        return 0

    cdef int call(self, void *head) except -1:
        """Call the callback of a watcher; the reference keeps the watcher alive whatever the callback does to it."""
        cdef PyObject *watcher = LE_WATCHER_OBJECT(head)
        Py_INCREF(<object>watcher)
        self.core.callbacks += 1
        cdef int failed = (<le_watcher *>head).cls.on_dispatch(watcher)
        try:
            if unlikely(failed < 0):
                self.report(<object>watcher)
        finally:
            Py_DECREF(<object>watcher)
        le_verify(&self.core)
        if unlikely(self.core.state != LE_LOOP_OPEN):
            loop_guard(self)
        return 0

    cdef int report(self, object source) except -1:
        """Hand the exception that is set to on_error; one that is no Exception goes on to the caller of run()."""
        try:
            le_raise_current()
        except Exception as error:
            self.tell(source, error)
        return 0

    cdef int tell(self, object source, object error) except -1:
        """Call on_error, or log. Where that fails too, sys.unraisablehook hears of it and the loop goes on."""
        try:
            if self.error_handler is not None:
                self.error_handler(source, error)
            else:
                from logging import getLogger
                # What was never raised has no traceback: the failure of an operation.
                text = "exception in the callback of %r"
                if error.__traceback__ is None:
                    text = "nobody was told of the end of %r"
                getLogger("linux_event").error(text, source, exc_info=error)
        except Exception as failure:
            PyErr_SetObject(type(failure), failure)
            PyErr_WriteUnraisable(self.error_handler)
        return 0

    # -- Calls from outside ------------------------------------------------------------------------------------------

    cdef int push_call(self, object callback, tuple args) except -1:
        if not PyCallable_Check(callback):
            callable_argument(callback, "callback")
        cdef PyObject *given = <PyObject *>args if args else NULL
        # The references first: the call may be taken by another thread as soon as it is in the queue.
        Py_INCREF(callback)
        Py_XINCREF(given)
        if le_fifo_push(&self.core.deferred, <PyObject *>callback, given):
            Py_XDECREF(given)
            Py_DECREF(callback)
            raise MemoryError
        return 0

    cdef int wake(self) except -1:
        """End the sleep of the loop, or that of the event loop around it. The GIL guards the flags. A loop that has been woken
        may have to wait for the GIL: whoever calls meanwhile has no need to write once more."""
        if self.core.is_asleep:
            if not self.core.is_woken:
                self.core.is_woken = True
                eventfd_write(self.wake_fd, 1)
        elif self.core.is_embedded and not self.core.is_running:
            self.sign()
        return 0

    cdef int sign(self) except -1:
        """Show the event loop around this one that there is something to do."""
        self.outer_signs += 1
        eventfd_write(self.outer_fd, 1)
        return 0

    # -- Threads, and the end ----------------------------------------------------------------------------------------

    cdef int tend_embedding(self) except -1:
        """For embedding.pyx: something has changed while another event loop waits for this one."""

    cdef int end_embedding(self) except -1:
        """For embedding.pyx: the loop is being closed."""

    cdef int shut(self, bint with_kernel, bint is_over, bint with_callbacks) except -1:
        """The end. with_kernel: this thread may enter the ring. is_over: the kernel has no request any more that could write
        to the memory of this process. with_callbacks: operations tell their end."""
        cdef le_call call
        cdef le_watcher *watcher
        cdef uint64_t i
        # Ids: code of others may free watchers meanwhile. Sorted: what is left would crowd one end of the shrinking table.
        ids = []
        for i in range(self.core.watchers.capacity):
            if self.core.watchers.slots[i] != NULL:
                ids.append(self.core.watchers.slots[i].id)
        ids.sort()
        self.core.state = LE_LOOP_CLOSED
        try:
            for number in ids:
                watcher = le_table_get(&self.core.watchers, number)
                if watcher != NULL and LE_WATCHER_OBJECT(watcher).ob_refcnt:
                    (<object>LE_WATCHER_OBJECT(watcher)).destroy()
            self.cancel_operations()
            op_stop(self, &self.wake_op)
            op_stop(self, &self.signal_op)
            self.end_embedding()
            if with_kernel and self.core.ring.is_enabled:
                self.settle()
                self.wait_for_operations()
        except OSError:
            pass  # where the kernel refuses, the end of the ring does the rest
        finally:
            if self.core.ring.is_open:
                # The kernel ends what is left, if anything, with the ring.
                self.core.ring.is_open = False
                self.core.ring.ops.close(&self.core.ring)
            if not is_over:
                self.keep_what_the_kernel_has()
            le_loop_abandon(&self.core)
            close_fds(self)
            self.release_finished()
            self.core.inbox = NULL
            self.registered = None
            while le_fifo_count(&self.core.deferred):
                call = le_fifo_pop(&self.core.deferred)
                Py_DECREF(<object>call.callable)
                if call.args != NULL:
                    Py_DECREF(<object>call.args)
            self.end_operations(with_callbacks)
            self.small_pool = self.big_pool = self.datagram_pool = self.resolver = None
            while not le_list_is_empty(&self.core.pools):
                le_link_leave(self.core.pools.next)  # their memory is that of their objects
        return 0

    # -- Operations at the end ---------------------------------------------------------------------------------------

    cdef int cancel_operations(self) except -1:
        cdef le_link *link = self.core.operations.next
        cdef le_link *following
        self.core.is_chaining = False
        while link != &self.core.operations:
            following = link.next
            LE_OPERATION_OF_LINK(link).head.cls.on_stop(LE_WATCHER_OBJECT(&LE_OPERATION_OF_LINK(link).head))
            link = following
        return 0

    cdef int wait_for_operations(self) except -1:
        """Wait until the kernel has let go of every buffer. What ends it early is Ctrl-C."""
        while self.core.requests:
            self.enter(1, CLOSING_WAIT_NS)
            self.release_finished()
        return 0

    cdef int keep_what_the_kernel_has(self) except -1:
        """Nobody could wait for requests that may still write to memory: their owners, and what these hold, are never freed."""
        cdef le_link *lists[2]
        cdef le_link *link
        cdef le_operation *operation
        cdef PyObject *owner
        cdef uint64_t interest
        lists[0], lists[1] = &self.core.in_flight, &self.core.to_cancel
        for head in lists:
            link = head.next
            while link != head:
                interest = LE_OP_OF_LINK(link).cls.interest
                owner = <PyObject *>le_op_owner(LE_OP_OF_LINK(link))
                if interest == LE_OP_EVERY_COMPLETION:
                    operation = <le_operation *>(<char *>owner + sizeof(PyObject))
                    operation.flags |= LE_OPERATION_KEPT
                if interest != LE_OP_UNTIL_STOPPED:
                    Py_INCREF(<object>owner)
                link = link.next
        return 0

    cdef int end_operations(self, bint with_callbacks) except -1:
        """Hand over the results of all that are left; an exception that is no Exception is raised when that is done."""
        cdef le_operation *operation
        cdef PyObject *owner
        leaving = None
        while not le_list_is_empty(&self.core.operations):
            operation = LE_OPERATION_OF_LINK(self.core.operations.next)
            owner = LE_WATCHER_OBJECT(&operation.head)
            if not operation.flags & LE_OPERATION_ENDED:
                le_operation_end(&self.core, operation, -ECANCELED)
            Py_INCREF(<object>owner)
            self.core.callbacks += 1
            try:
                if not with_callbacks:
                    operation.head.cls.on_release(owner)
                if operation.head.cls.on_dispatch(owner) < 0:
                    self.report(<object>owner)
            except BaseException as error:
                leaving = error
            finally:
                Py_DECREF(<object>owner)
        if leaving is not None:
            raise leaving
        return 0

cdef bint has_work(Engine self) noexcept:
    return self.core.active_ref != 0 or self.core.operation_count != 0 or le_fifo_count(&self.core.deferred) != 0


cdef int64_t wait_limit_ns(Engine self, int64_t until_ns) noexcept:
    """How long the loop may sleep: 0 if something is due, LE_WAIT_FOREVER if nothing ever will be by itself."""
    if self.core.pending or self.core.is_stopping or le_fifo_count(&self.core.deferred):
        return 0
    if not le_list_is_empty(&self.core.notified):
        return 0
    if self.core.active_ref == 0 and self.core.operation_count == 0:
        return 0
    if self.idle_wait_ns == 0 and not le_list_is_empty(&self.core.idle):
        return 0
    if self.core.heap.count:
        until_ns = min(until_ns, self.core.heap.entries[0].deadline_ns)
    if until_ns == LE_NS_NEVER:
        return LE_WAIT_FOREVER
    return max(until_ns - le_clock_ns(), <int64_t>0)


cdef int spin(Engine self, int64_t until_ns) except -1:
    """Look at the queue for as long as busy_poll says: what arrives is taken without the price of a sleep."""
    cdef int64_t limit_ns
    if le_loop_wants_enter(&self.core) or le_ring_cq_ready(&self.core.ring):
        self.enter(0, 0)
    limit_ns = wait_limit_ns(self, until_ns)
    if limit_ns == 0 or not le_list_is_empty(&self.core.recheck) or self.core.is_signalled:
        return 0
    if limit_ns == LE_WAIT_FOREVER or limit_ns > self.busy_poll_ns:
        limit_ns = self.busy_poll_ns
    limit_ns = le_clock_after(le_clock_ns(), limit_ns)
    self.core.is_woken = False
    self.core.is_asleep = True
    with nogil:
        while not le_ring_is_flagged(&self.core.ring) and not le_ring_cq_ready(&self.core.ring):
            if le_clock_ns() >= limit_ns:
                break
    self.core.is_asleep = False
    if le_ring_is_flagged(&self.core.ring) or le_ring_cq_ready(&self.core.ring):
        self.enter(0, 0)
    return 0


cdef int watch_signals(Engine self) except -1:
    """Let signals with a Python handler end the sleep, also those that another thread gets."""
    self.sees_interrupts = True
    if not self.in_main_thread:
        return 0  # Python runs the handlers in the main thread only
    signal_pipe_install(&self.interrupts)
    if self.signal_op.state == LE_OP_IDLE:
        self.signal_op.fd = self.interrupts.read_fd
        op_start(self, &self.signal_op)
    return 0


cdef int run_signal_handlers(Engine self) except -1:
    """Something came through the pipe of the signals that have Python handlers."""
    self.core.is_signalled = False
    signal_pipe_drain(&self.interrupts)
    return run_handlers(self)


cdef object loop_was_closed():
    cdef object error
    try:
        from linux_event.cancellation import CancelledError
        error = CancelledError("the loop was closed")
    except MemoryError as failure:
        error = failure
    return error


cdef int loop_changed(Engine loop) except -1:
    if not loop.core.cancelling and not loop.core.is_embedded:
        return 0
    if loop.core.is_running or loop.core.state != LE_LOOP_OPEN:
        return 0
    if loop.core.cancelling:
        loop.settle()
    return loop.tend_embedding()


cdef int add_debug_check(object function) except -1:
    debug_checks.append(function)
    return 0


# -- Garbage collection: the references that the loop holds in C --------------------------------------------------------

cdef traverseproc traverse_fields = LE_TRAVERSE_SLOT(Engine)


@cython.linetrace(False)
@cython.profile(False)
cdef int traverse(PyObject *loop, visitproc visit, void *arg) noexcept nogil:
    cdef int result = traverse_fields(loop, visit, arg)
    if result:
        return result
    return le_loop_visit(&(<Engine>loop).core, sizeof(PyObject), <le_visit>visit, arg)


LE_SET_TRAVERSE(Engine, traverse)
