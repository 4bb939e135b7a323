# watcher.pxd: the base of all kinds of watchers; frozen, because extensions of other packages derive from it.

cimport cython
from linux_event.core cimport le_watcher, le_watcher_class
from linux_event.engine cimport Engine


# The trashcan: a watcher may hold a watcher that holds a watcher, and so on, and the stack is finite when they are freed.
@cython.trashcan(True)
cdef class Watcher:
    cdef le_watcher head  # has to be the first field
    cdef Engine owner
    cdef object function  # the callback; None: destroyed
    cdef object data_value
    cdef object __weakref__

# To be called at the end of __init__ by a kind: puts the watcher into the loop's table and starts it. `options` are the
# keywords common to all kinds: data, priority, ref, start.
cdef int watcher_begin(Watcher self, const le_watcher_class *cls, object loop, object callback) except -1
cdef int watcher_options(Watcher self, object data, object priority, object ref, object start) except -1
# Raises DestroyedError, and what loop_guard raises.
cdef int watcher_guard(Watcher self) except -1
# Make the watcher active or inactive: for kinds that change their state themselves, such as one-shot ones.
cdef int watcher_activate(Watcher self) except -1
cdef int watcher_deactivate(Watcher self) except -1
# Leave all tables of the loop. A kind with Python fields of its own calls it in its __dealloc__: before those fields go, so
# that whatever runs then does not find the dying watcher in a view.
cdef void watcher_leave(Watcher self) noexcept
# For a final class that has no Python fields and no memory of its own, once it is made: its watchers are freed faster. Some
# of one kind, that with is_kept, are kept for watcher_kept() to give them out again, as if new, in place of None.
cdef int watcher_is_small(object kind, bint is_kept) except -1
cdef Watcher watcher_kept()
# What a factory returns when its callback is left out: `kind(loop, *args, function, ..., **options)` follows when the function
# is known; the arguments are checked now.
cdef object decorator(object kind, object loop, tuple args, object data, object priority, object ref, object start,
                      dict options)
