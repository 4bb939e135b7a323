"""Idle watchers: called in iterations that have nothing else to call."""

cimport cython
from linux_event.core cimport LE_WATCHER_ABI, le_link_leave, le_list_push, le_watcher_class, le_watcher_function
from linux_event.loop cimport add_method
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_is_small, watcher_options


@cython.final
cdef class Idle(Watcher):
    """Idle(loop, callback, *, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher)`` in every iteration of the loop in which nothing else was called. ``loop.idle(callback)``.

While idle watchers are active the loop sleeps no longer than its ``idle_wait`` seconds.

:param loop: the Loop.
:param callback: called with the watcher.
:param data, priority, ref, start: as for ``Timer``.
:raises ValueError: ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on no kernel operation of its own, only on the timeout of io_uring_enter(2).
"""

    def __init__(self, loop, callback, *, data=None, priority=0, ref=True, start=True):
        watcher_begin(self, &idle_class, loop, callback)
        watcher_options(self, data, priority, ref, start)


cdef int idle_start(void *watcher) except -1:
    cdef Idle self = <Idle>watcher
    self.member.watcher = &self.head
    le_list_push(&self.owner.core.idle, &self.member.link)
    return 0


cdef int idle_stop(void *watcher) except -1:
    le_link_leave(&(<Idle>watcher).member.link)
    return 0


cdef int idle_dispatch(void *watcher) except -1:
    cdef Idle self = <Idle>watcher
    # To the end: those that an interrupt leaves over are the first of the next idle iteration.
    le_link_leave(&self.member.link)
    le_list_push(&self.owner.core.idle, &self.member.link)
    self.function(self)
    return 0


cdef le_watcher_class idle_class
idle_class.abi = LE_WATCHER_ABI
idle_class.name = "idle"
idle_class.on_start = <le_watcher_function>idle_start
idle_class.on_stop = <le_watcher_function>idle_stop
idle_class.on_dispatch = <le_watcher_function>idle_dispatch


watcher_is_small(Idle, False)


@cython.binding(True)
def _idle(self, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create an ``Idle``: ``callback(watcher)`` whenever an iteration has nothing else to call.

    :param callback: left out, the call is a decorator.
    :returns: the Idle; as a decorator, what takes the function and returns it.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as ``Idle`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Idle, self, (), data, priority, ref, start, {})
    return Idle(self, callback, data=data, priority=priority, ref=ref, start=start)


add_method("idle", _idle)
