"""Wakeup watchers: another thread, or the handler of a signal, has the loop call back.

They stand on what ``loop.post`` stands on: a queue that the GIL guards, here a list of the watchers that have been notified, and
the eventfd of the loop, written to only if the loop sleeps. So a watcher needs no fd of its own, and a notification that is
merged with others costs no system call.
"""

cimport cython
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_WATCHER_ABI, LE_WATCHER_ACTIVE, LE_WATCHER_DESTROYED, le_link_leave, le_list_push, le_watcher_class,
    le_watcher_function, le_watcher_is,
)
from linux_event.loop cimport add_method
from linux_event.requests cimport guard_state
from linux_event.watcher cimport (
    Watcher, decorator, watcher_begin, watcher_guard, watcher_is_small, watcher_options,
)


@cython.final
cdef class Wakeup(Watcher):
    """Wakeup(loop, callback, *, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher, count)`` in the thread of the loop after ``notify()`` was called in any thread.
``loop.wakeup(callback)``.

Notifications that come before the call are merged into one, and counted. None is lost: those of a watcher that is stopped
are told when it is started again. Active with ``ref``, it keeps ``run`` going, whether or not anybody will ever notify it.

:param loop: the Loop.
:param callback: called with the watcher and the number of notifications since the call before, an int, 1 or more.
:param data, priority, ref, start: as for ``Timer``.
:raises ValueError: ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on the eventfd(2) of the loop, and a multishot poll of it.
"""

    def __init__(self, loop, callback, *, data=None, priority=0, ref=True, start=True):
        watcher_begin(self, &wakeup_class, loop, callback)
        self.member.watcher = &self.head
        watcher_options(self, data, priority, ref, start)

    def notify(self):
        """Have the callback called. From any thread, and from a handler that was set by ``signal.signal``.

        From a callback of the loop itself, that of the watcher included, it counts for the next iteration at the earliest.

        :raises DestroyedError: as told by its name; the watchers of a loop that was closed are destroyed.
        :raises RuntimeError: in a forked child, where the loop of the parent is dead.

        Writes to the eventfd(2) of the loop if that sleeps, else makes no system call.
        """
        if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            watcher_guard(self)
        if self.owner.core.state != LE_LOOP_OPEN:
            guard_state(self.owner)
        self.member.count += 1
        # Of several notifications the first has done the rest.
        if self.member.count == 1 and le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
            le_list_push(&self.owner.core.notified, &self.member.link)
            self.owner.wake()


cdef int wakeup_start(void *watcher) except -1:
    cdef Wakeup self = <Wakeup>watcher
    if self.member.count:
        le_list_push(&self.owner.core.notified, &self.member.link)
    return 0


cdef int wakeup_stop(void *watcher) except -1:
    le_link_leave(&(<Wakeup>watcher).member.link)
    return 0


cdef int wakeup_dispatch(void *watcher) except -1:
    cdef Wakeup self = <Wakeup>watcher
    count, self.member.count = self.member.count, 0
    self.function(self, count)
    return 0


cdef le_watcher_class wakeup_class
wakeup_class.abi = LE_WATCHER_ABI
wakeup_class.name = "wakeup"
wakeup_class.on_start = <le_watcher_function>wakeup_start
wakeup_class.on_stop = <le_watcher_function>wakeup_stop
wakeup_class.on_dispatch = <le_watcher_function>wakeup_dispatch


watcher_is_small(Wakeup, False)


@cython.binding(True)
def _wakeup(self, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create a ``Wakeup``: ``callback(watcher, count)`` after ``watcher.notify()`` was called, in any thread.

    :param callback: left out, the call is a decorator.
    :returns: the Wakeup; as a decorator, what takes the function and returns it.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as ``Wakeup`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Wakeup, self, (), data, priority, ref, start, {})
    return Wakeup(self, callback, data=data, priority=priority, ref=ref, start=start)


add_method("wakeup", _wakeup)
