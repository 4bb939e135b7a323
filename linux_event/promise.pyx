"""Promises: operations whose result is brought by the program instead of by one request, such as the addresses of a name.

In everything else they are operations: lanes, deadlines, ``cancel``, ``Loop.close`` and garbage collection are those of all.
"""

from linux_event.core cimport (
    LE_OPERATION_CANCELLED, LE_OPERATION_DONE, LE_OPERATION_ENDED, le_operation_end,
)
from linux_event.engine cimport loop_changed
from linux_event.linux cimport ECANCELED
from linux_event.operation cimport Operation, kind_begin, operation_enter, operation_kind
from linux_event.requests cimport loop_guard

cdef extern from *:
    bint unlikely "LE_UNLIKELY"(bint condition) nogil


cdef class Promise(Operation):
    """An ``Operation`` whose result does not come from one request to the kernel."""

    def cancel(self):
        """Ask for the end of the operation.

        :returns: True if it is cancelled: the callback gets ``CancelledError``. False if it is done.
        :raises WrongThreadError: the loop belongs to another thread.

        A result that is in and has not been handed over yet is dropped.
        """
        if self.core.flags & (LE_OPERATION_ENDED | LE_OPERATION_DONE | LE_OPERATION_CANCELLED) != LE_OPERATION_ENDED:
            return Operation.cancel(self)
        loop_guard(self.owner)
        self.core.flags |= LE_OPERATION_CANCELLED
        self.value = self.error = None
        return True


cdef int promise_kind_begin(operation_kind *kind, const char *name) except -1:
    kind_begin(kind, name)
    kind.is_composite = True  # no request stands for it, so it is not for chains
    kind.result = take_value
    kind.abort = abort
    return 0


cdef int promise_start(Promise self, object timeout) except -1:
    operation_enter(self, timeout)
    return 0


cdef bint promise_settle(Promise self, object value) except -1:
    if self.core.flags & (LE_OPERATION_ENDED | LE_OPERATION_DONE):
        return False
    self.value = value
    return end(self, 0)


cdef bint promise_fail(Promise self, object error) except -1:
    if self.core.flags & (LE_OPERATION_ENDED | LE_OPERATION_DONE):
        return False
    self.error = error
    return end(self, -1)


cdef bint end(Promise self, int result) except -1:
    self.abandoned = None
    le_operation_end(&self.owner.core, &self.core, result)
    if unlikely(self.owner.core.is_embedded):
        loop_changed(self.owner)
    return True


cdef object take_value(Operation self):
    value, (<Promise>self).value = (<Promise>self).value, None
    return value


cdef int abort(Operation self) except -1:
    cdef Promise promise = <Promise>self
    abandoned, promise.abandoned = promise.abandoned, None
    le_operation_end(&self.owner.core, &self.core, -ECANCELED)
    if abandoned is not None:
        abandoned()
    return 0


# -- For modules in Python ---------------------------------------------------------------------------------------------

def settle(Promise promise not None, value, /):
    """The result is in. Called in the thread of the loop; returns whether somebody waits for it: a bool."""
    return promise_settle(promise, value)


def fail(Promise promise not None, error, /):
    """It has failed with this exception. Called in the thread of the loop; returns whether somebody is to be told: a bool."""
    return promise_fail(promise, error)


def when_abandoned(Promise promise not None, function, /):
    """Call ``function()`` when nobody waits for the result any more: ``cancel``, the timeout, the end of the loop."""
    promise.abandoned = function
