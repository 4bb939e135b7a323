"""Timers: one deadline, or a grid of them. All deadlines of a loop are in one heap; the kernel knows the nearest."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from linux_event.arguments cimport seconds_to_ns
from linux_event.core cimport (
    LE_NOT_IN_HEAP, LE_WATCHER_ABI, LE_WATCHER_ACTIVE, le_clock_after, le_clock_ns, le_heap_add, le_heap_deadline_ns,
    le_heap_remove, le_watcher_class, le_watcher_function, le_watcher_is, le_watcher_unpend,
)
from linux_event.engine cimport loop_changed
from linux_event.errors cimport check_memory
from linux_event.loop cimport add_method
from linux_event.watcher cimport (
    Watcher, decorator, watcher_begin, watcher_deactivate, watcher_guard, watcher_is_small, watcher_kept,
    watcher_options,
)

cdef enum:
    OFFSET_DEFAULT = -1


cdef int arm(Watcher self, int64_t deadline_ns) except -1:
    """Set the deadline of a watcher, or another one; a call already collected for the old one is dropped."""
    le_watcher_unpend(&self.owner.core, &self.head)
    le_heap_remove(&self.owner.core.heap, &self.head)
    return check_memory(le_heap_add(&self.owner.core.heap, &self.head, deadline_ns))


cdef double remaining_seconds(Watcher self) noexcept:
    if self.head.heap_slot == LE_NOT_IN_HEAP:
        return 0.0
    return max(le_heap_deadline_ns(&self.owner.core.heap, &self.head) - le_clock_ns(), <int64_t>0) / 1e9


# -- Timer -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Timer(Watcher):
    """Timer(loop, after, callback, *, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher)`` once, ``after`` seconds from its start, never before. ``loop.timer(after, callback)``.

Before the call the timer becomes inactive; ``start()`` arms it again for ``after`` from then on.

:param loop: the Loop.
:param after: seconds, int or float, 0 or more; 0: in the next iteration. Delays beyond 146 years are cut to that.
:param callback: called with the watcher.
:param data: anything of the user's.
:param priority: -2 .. 2.
:param ref: whether the active timer keeps ``run`` going.
:param start: whether to start it at once.
:raises ValueError: ``after`` is negative, infinite or NaN; ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

The nearest deadline is the timeout of the loop's io_uring_enter(2), on the clock CLOCK_MONOTONIC of clock_gettime(2).
"""

    def __init__(self, loop, after, callback, *, data=None, priority=0, ref=True, start=True):
        timer_begin(self, loop, after, callback, data, priority, ref, start)

    @property
    def after(self):
        """The delay in seconds, a float. Assignable: int or float, 0 or more; an active timer is armed anew, from now.

        Raises ValueError, TypeError, DestroyedError, WrongThreadError.
        """
        return self.after_ns / 1e9

    @after.setter
    def after(self, after):
        watcher_guard(self)
        self.after_ns = seconds_to_ns(after, "after")
        if le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
            timer_start(<PyObject *>self)
            loop_changed(self.owner)

    @property
    def remaining(self):
        """Seconds until the deadline, a float, 0.0 or more; 0.0 while inactive."""
        return remaining_seconds(self)

    def describe(self):
        """What the timer waits for, for ``repr``."""
        return f"after={self.after_ns / 1e9:g}"


cdef int timer_begin(Timer self, loop, after, callback, data, priority, ref, start) except -1:
    cdef int64_t after_ns = seconds_to_ns(after, "after")
    watcher_begin(self, &timer_class, loop, callback)
    self.after_ns = after_ns
    return watcher_options(self, data, priority, ref, start)


cdef int timer_start(void *watcher) except -1:
    cdef Timer self = <Timer>watcher
    return arm(self, le_clock_after(le_clock_ns(), self.after_ns))


cdef int deadline_stop(void *watcher) except -1:
    return 0  # the loop takes it out of the heap


cdef int timer_dispatch(void *watcher) except -1:
    cdef Timer self = <Timer>watcher
    watcher_deactivate(self)
    self.function(self)
    return 0


cdef le_watcher_class timer_class
timer_class.abi = LE_WATCHER_ABI
timer_class.name = "timer"
timer_class.on_start = <le_watcher_function>timer_start
timer_class.on_stop = <le_watcher_function>deadline_stop
timer_class.on_dispatch = <le_watcher_function>timer_dispatch


# -- Periodic ----------------------------------------------------------------------------------------------------------

@cython.final
cdef class Periodic(Watcher):
    """Periodic(loop, interval, callback, *, offset=None, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher)`` at ``offset`` seconds from its start, then every ``interval`` seconds on a grid without drift.
``loop.periodic(interval, callback)``.

Ticks that pass while callbacks run long are merged into one call; ``missed`` counts them.

:param loop: the Loop.
:param interval: seconds, int or float, at least a nanosecond.
:param callback: called with the watcher.
:param offset: seconds from the start to the first tick, 0 or more; None: ``interval``.
:param data, priority, ref, start: as for ``Timer``.
:raises ValueError: ``interval`` is 0, or ``interval`` or ``offset`` is negative, infinite or NaN; ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on the timeout of io_uring_enter(2) and CLOCK_MONOTONIC of clock_gettime(2).
"""

    def __init__(self, loop, interval, callback, *, offset=None, data=None, priority=0, ref=True, start=True):
        cdef int64_t interval_ns = interval_argument(interval)
        cdef int64_t offset_ns = OFFSET_DEFAULT if offset is None else seconds_to_ns(offset, "offset")
        watcher_begin(self, &periodic_class, loop, callback)
        self.interval_ns = interval_ns
        self.offset_ns = offset_ns
        watcher_options(self, data, priority, ref, start)

    @property
    def interval(self):
        """Seconds between ticks, a float. Assignable: int or float, at least a nanosecond.

        An active watcher begins a new grid, with the next tick ``interval`` from now. Raises ValueError, TypeError,
        DestroyedError, WrongThreadError.
        """
        return self.interval_ns / 1e9

    @interval.setter
    def interval(self, interval):
        watcher_guard(self)
        self.interval_ns = interval_argument(interval)
        if le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
            self.tick_ns = le_clock_after(le_clock_ns(), self.interval_ns)
            arm(self, self.tick_ns)
            loop_changed(self.owner)

    @property
    def offset(self):
        """Seconds from a start to the first tick: what was given, or ``interval``."""
        return first_tick_ns(self) / 1e9

    @property
    def missed(self):
        """How many ticks before it were merged into the latest call, because callbacks ran long: an int, 0 or more."""
        return self.missed_ticks

    @property
    def remaining(self):
        """Seconds until the next tick, a float, 0.0 or more; 0.0 while inactive."""
        return remaining_seconds(self)

    def describe(self):
        """What the watcher waits for, for ``repr``."""
        return f"interval={self.interval_ns / 1e9:g}"


cdef int64_t interval_argument(object interval) except -1:
    cdef int64_t interval_ns = seconds_to_ns(interval, "interval")
    if interval_ns == 0:
        raise ValueError(f"interval must be at least a nanosecond, not {interval!r}")
    return interval_ns


cdef int64_t first_tick_ns(Periodic self) noexcept:
    return self.interval_ns if self.offset_ns == OFFSET_DEFAULT else self.offset_ns


cdef int periodic_start(void *watcher) except -1:
    cdef Periodic self = <Periodic>watcher
    self.missed_ticks = 0
    self.tick_ns = le_clock_after(le_clock_ns(), first_tick_ns(self))
    return arm(self, self.tick_ns)


cdef int periodic_dispatch(void *watcher) except -1:
    cdef Periodic self = <Periodic>watcher
    cdef int64_t late_ns = le_clock_ns() - self.tick_ns
    self.missed_ticks = late_ns // self.interval_ns
    self.tick_ns = le_clock_after(self.tick_ns + self.missed_ticks * self.interval_ns, self.interval_ns)
    arm(self, self.tick_ns)
    self.function(self)
    return 0


cdef le_watcher_class periodic_class = timer_class
periodic_class.name = "periodic"
periodic_class.on_start = <le_watcher_function>periodic_start
periodic_class.on_dispatch = <le_watcher_function>periodic_dispatch


watcher_is_small(Timer, True)
watcher_is_small(Periodic, False)


# -- Factories ---------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _timer(self, after, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create a ``Timer``: ``callback(watcher)`` once, ``after`` seconds from now.

    :param after: seconds, int or float, 0 or more.
    :param callback: left out, the call is a decorator.
    :returns: the Timer; as a decorator, what takes the function and returns it.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as ``Timer`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Timer, self, (after,), data, priority, ref, start, {})
    cdef Timer watcher = <Timer>watcher_kept()
    if watcher is None:
        watcher = Timer.__new__(Timer)
    timer_begin(watcher, self, after, callback, data, priority, ref, start)
    return watcher


@cython.binding(True)
def _periodic(self, interval, callback=..., *, offset=None, data=None, priority=0, ref=True, start=True):
    """Create a ``Periodic``: ``callback(watcher)`` every ``interval`` seconds, on a grid without drift.

    :param interval: seconds, int or float, at least a nanosecond.
    :param callback: left out, the call is a decorator.
    :param offset: seconds from now to the first tick; None: ``interval``.
    :returns: the Periodic; as a decorator, what takes the function and returns it.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as ``Periodic`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Periodic, self, (interval,), data, priority, ref, start, {"offset": offset})
    return Periodic(self, interval, callback, offset=offset, data=data, priority=priority, ref=ref, start=start)


add_method("timer", _timer)
add_method("periodic", _periodic)
