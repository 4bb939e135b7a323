"""The base of all watchers: what they share of life and attributes."""

cimport cython
from cpython.object cimport PyCallable_Check, PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from linux_event.arguments cimport callable_argument, flag_argument, integer_within
from linux_event.core cimport (
    LE_LOOP_FORKED, LE_LOOP_OPEN, LE_NOT_IN_HEAP, LE_PRIORITY_MAX, LE_PRIORITY_MIN, LE_WATCHER_ABI, LE_WATCHER_ACTIVE,
    LE_WATCHER_DESTROYED, LE_WATCHER_OBJECT, LE_WATCHER_REF, le_table_add, le_table_remove, le_watcher_activate,
    le_watcher_class, le_watcher_deactivate, le_watcher_is, le_watcher_prioritize,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.requests cimport loop_guard

from linux_event.errors import DestroyedError

cdef extern from *:
    """
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    #define LE_HAS_WEAK_REFERENCES(o) (*(PyObject **)((char *)(o) + Py_TYPE(o)->tp_weaklistoffset) != NULL)
    #define LE_IS_LAST(o) (Py_REFCNT(o) == 1)
    #define LE_FREE(o) Py_TYPE(o)->tp_free(o)
    #define LE_TYPE(o) ((PyObject *)Py_TYPE(o))
    #define LE_REVIVE(o) PyObject_Init(o, Py_TYPE(o))
    #if defined(CYTHON_TRACE) && CYTHON_TRACE  /* whoever traces lines would be called in the middle of a destructor */
    #define LE_SET_DEALLOC(type, function) ((void)(function))
    #define LE_KIND_TO_KEEP(type) NULL
    #else
    #define LE_SET_DEALLOC(type, function) (((PyTypeObject *)(type))->tp_dealloc = (destructor)(function))
    #if defined(__SANITIZE_ADDRESS__)  /* what is used after its end is to be noticed */
    #define LE_KIND_TO_KEEP(type) NULL
    #else
    #define LE_KIND_TO_KEEP(type) (type)
    #endif
    #endif

    static void le_free_by_trashcan(PyObject *o, void (*free_it)(PyObject *))
    {
        Py_TRASHCAN_BEGIN(o, Py_TYPE(o)->tp_dealloc)
        free_it(o);
        Py_TRASHCAN_END
    }
    """
    bint unlikely "LE_UNLIKELY"(bint condition) nogil
    ctypedef int (*inquiry)(PyObject *) noexcept
    ctypedef void (*destructor)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)
    void LE_SET_DEALLOC(object type, destructor function)
    bint LE_HAS_WEAK_REFERENCES(PyObject *o)
    bint LE_IS_LAST(PyObject *o)
    void LE_FREE(PyObject *o)
    PyObject *LE_TYPE(PyObject *o)
    PyObject *LE_REVIVE(PyObject *o)
    PyObject *LE_KIND_TO_KEEP(object type)
    void le_free_by_trashcan(PyObject *o, destructor free_it)
    void PyObject_GC_Track(PyObject *o)
    void PyObject_GC_UnTrack(PyObject *o)
    void PyObject_ClearWeakRefs(PyObject *o)

# Most often the very object that the default argument is: comparing addresses is enough to know.
cdef object DEFAULT_PRIORITY = 0


@cython.trashcan(True)
cdef class Watcher:
    """The base of all watchers. An active watcher is kept alive by its loop: the reference may be dropped.

    Used in a ``with`` statement it is destroyed at the end.
    """

    def __cinit__(self):
        self.head.heap_slot = LE_NOT_IN_HEAP
        self.head.flags = LE_WATCHER_DESTROYED  # until watcher_begin()
        if LE_WATCHER_OBJECT(&self.head) != <PyObject *>self:
            raise SystemError("the le_watcher of a Watcher is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be created: use a kind of watcher, such as Timer")

    def __dealloc__(self):
        watcher_leave(self)

    def start(self):
        """Activate the watcher; no effect while it is active.

        :returns: the watcher.
        :raises DestroyedError, LoopClosedError, WrongThreadError: as told by their names.
        :raises OSError: the kernel refuses what the watcher watches, such as an fd that is not open (EBADF).

        Makes no system call beyond checks: the request goes with the next io_uring_enter(2) of the loop.
        """
        watcher_guard(self)
        start_watcher(self)
        return self

    def stop(self):
        """Pause the watcher; no effect while it is inactive. What was collected for it is not delivered.

        :returns: the watcher.
        :raises DestroyedError, LoopClosedError, WrongThreadError: as told by their names.

        A request in flight is cancelled (IORING_OP_ASYNC_CANCEL) with the next io_uring_enter(2) of the loop.
        """
        change_guard(self)
        stop_watcher(self)
        return self

    def destroy(self):
        """Stop, forget the callback and leave the tables of the loop, for good. Idempotent.

        :raises WrongThreadError: the loop belongs to another thread.

        A request in flight is cancelled (IORING_OP_ASYNC_CANCEL) with the next io_uring_enter(2) of the loop.
        """
        if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            return
        if self.owner.core.state == LE_LOOP_OPEN:
            loop_guard(self.owner)
        stop_watcher(self)
        # Stopping and dropping may run code of others, which may call this again.
        if not le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            watcher_leave(self)
            self.function = None
            if self.head.cls.on_release != NULL:
                self.head.cls.on_release(<PyObject *>self)

    def is_active(self):
        """Return whether the watcher waits for something, so that its callback may be called: a bool."""
        return le_watcher_is(&self.head, LE_WATCHER_ACTIVE)

    def is_destroyed(self):
        """Return whether ``destroy`` was called, or the loop has been closed: a bool."""
        return le_watcher_is(&self.head, LE_WATCHER_DESTROYED)

    @property
    def loop(self):
        """The loop of the watcher."""
        return self.owner

    @property
    def id(self):
        """The number of the watcher: an int of 1 or more, never used again in its loop."""
        return self.head.id

    @property
    def callback(self):
        """What is called, with the watcher as its first argument; None once destroyed.

        Assignable at any time. Raises TypeError for what is not callable, DestroyedError.
        """
        return self.function

    @callback.setter
    def callback(self, callback):
        if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            watcher_guard(self)
        callable_argument(callback, "callback")
        self.function = callback

    @property
    def data(self):
        """Anything of the user's. Assignable at any time."""
        return self.data_value

    @data.setter
    def data(self, data):
        self.data_value = data

    @property
    def priority(self):
        """An int, -2 .. 2, default 0: of what one iteration has collected, higher priorities are called first.

        Assignable at any time. Raises ValueError out of range, TypeError, DestroyedError, WrongThreadError.
        """
        return self.head.priority

    @priority.setter
    def priority(self, priority):
        change_guard(self)
        le_watcher_prioritize(&self.owner.core, &self.head,
                              integer_within(priority, "priority", LE_PRIORITY_MIN, LE_PRIORITY_MAX))

    @property
    def ref(self):
        """A bool, default True: whether the watcher keeps ``run`` going while it is active.

        Assignable at any time. Raises TypeError, DestroyedError, WrongThreadError.
        """
        return le_watcher_is(&self.head, LE_WATCHER_REF)

    @ref.setter
    def ref(self, ref):
        change_guard(self)
        set_ref(self, flag_argument(ref, "ref"))
        loop_changed(self.owner)

    def __enter__(self):
        watcher_guard(self)
        return self

    def __exit__(self, *exception):
        self.destroy()

    def __repr__(self):
        if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            state = "destroyed"
        else:
            state = "active" if le_watcher_is(&self.head, LE_WATCHER_ACTIVE) else "stopped"
        details = self.describe()
        return f"<{type(self).__name__} id={self.head.id} {details}{' ' if details else ''}{state}>"

    def describe(self):
        """Return what the watcher watches, a str for ``repr``; ``""`` for nothing. Kinds override it."""
        return ""


cdef int raise_current() except -1:
    """Go on raising the exception that a function of a kind has set."""
    return -1


cdef int set_ref(Watcher self, bint ref) except -1:
    cdef bint is_active = le_watcher_is(&self.head, LE_WATCHER_ACTIVE)
    if ref and not le_watcher_is(&self.head, LE_WATCHER_REF):
        self.head.flags |= LE_WATCHER_REF
        self.owner.core.active_ref += is_active
    elif not ref and le_watcher_is(&self.head, LE_WATCHER_REF):
        self.head.flags &= ~LE_WATCHER_REF
        self.owner.core.active_ref -= is_active
    return 0


cdef inline int tell_loop(Watcher self) except -1:
    """loop_changed(), where it could have anything to do: most often it has not, and the call is saved."""
    if unlikely(self.owner.core.cancelling or self.owner.core.is_embedded):
        loop_changed(self.owner)
    return 0


cdef int start_watcher(Watcher self) except -1:
    if not le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
        if self.head.cls.on_start(<PyObject *>self) < 0:
            raise_current()
        watcher_activate(self)
        # Starting may run code of others: a collection of garbage, or __index__() of an argument of the constructor.
        if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
            stop_watcher(self)
            watcher_guard(self)
        tell_loop(self)
    return 0


cdef int stop_watcher(Watcher self) except -1:
    if le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
        if self.head.cls.on_stop(<PyObject *>self) < 0:
            raise_current()
        watcher_deactivate(self)
        tell_loop(self)
    return 0


cdef void watcher_leave(Watcher self) noexcept:
    if self.head.cls == NULL or le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
        return
    self.head.flags |= LE_WATCHER_DESTROYED
    le_table_remove(&self.owner.core.watchers, &self.head)
    if self.head.cls.on_destroy != NULL:
        self.head.cls.on_destroy(<PyObject *>self)


cdef int watcher_begin(Watcher self, const le_watcher_class *cls, object loop, object callback) except -1:
    if self.owner is not None:
        raise RuntimeError(f"{type(self).__name__}.__init__ was called twice")
    if not isinstance(loop, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
    if cls.abi != LE_WATCHER_ABI:
        raise RuntimeError(f"{type(self).__name__} was built for ABI {cls.abi} of watchers, this is {LE_WATCHER_ABI}: rebuild it")
    cdef Engine engine = loop
    loop_guard(engine)
    if not PyCallable_Check(callback):
        callable_argument(callback, "callback")
    self.head.cls = cls
    self.head.id = engine.core.next_id
    check_memory(le_table_add(&engine.core.watchers, &self.head))
    engine.core.next_id = self.head.id + 1
    self.head.flags = LE_WATCHER_REF
    self.owner = engine
    self.function = callback
    return 0


cdef int watcher_options(Watcher self, object data, object priority, object ref, object start) except -1:
    try:
        self.data_value = data
        if priority is not DEFAULT_PRIORITY:
            self.head.priority = integer_within(priority, "priority", LE_PRIORITY_MIN, LE_PRIORITY_MAX)
        if ref is not True:
            set_ref(self, flag_argument(ref, "ref"))
        if start is True or flag_argument(start, "start"):
            # Each conversion may have run code of others, which finds the watcher in the loop's table.
            if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
                watcher_guard(self)
            start_watcher(self)
    except BaseException:
        self.destroy()
        raise
    return 0


cdef int watcher_guard(Watcher self) except -1:
    if le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
        if self.owner is not None and self.owner.core.state == LE_LOOP_FORKED:
            loop_guard(self.owner)
        raise DestroyedError(f"{self!r} was destroyed: create a new one")
    return loop_guard(self.owner)


cdef int change_guard(Watcher self) except -1:
    """For what changes only the watcher and its loop: in a forked child that may be done to what the parent has left there."""
    if self.owner is not None and self.owner.core.state == LE_LOOP_FORKED and not le_watcher_is(&self.head, LE_WATCHER_DESTROYED):
        return 0
    return watcher_guard(self)


cdef int watcher_activate(Watcher self) except -1:
    if le_watcher_activate(&self.owner.core, &self.head):
        Py_INCREF(self)
    return 0


cdef int watcher_deactivate(Watcher self) except -1:
    if le_watcher_deactivate(&self.owner.core, &self.head):
        Py_DECREF(self)
    return 0


@cython.final
cdef class _Decorator:
    """Waits for the function below the decorator line, and returns the watcher in its place."""
    cdef Watcher watcher
    cdef bint starts

    def __call__(self, callback):
        """Make ``callback`` that of the watcher, start it if it was to be started, and return it."""
        callable_argument(callback, "callback")
        if self.watcher is None:
            raise RuntimeError("this decorator has already made its watcher: call the factory again")
        watcher, self.watcher = self.watcher, None
        watcher.callback = callback
        if self.starts:
            watcher.start()
        return watcher


def _undecorated(*args):
    """Stands in for the callback of a watcher until the decorator gets the function."""


cdef object decorator(object kind, object loop, tuple args, object data, object priority, object ref, object start,
                      dict options):
    cdef _Decorator self = _Decorator.__new__(_Decorator)
    self.starts = flag_argument(start, "start")
    self.watcher = kind(loop, *args, _undecorated, data=data, priority=priority, ref=ref, start=False, **options)
    return self


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *watcher) noexcept:
    """Break cycles through what is the user's. The loop stays: the destructor takes the watcher out of its tables."""
    (<Watcher>watcher).function = None
    (<Watcher>watcher).data_value = None
    return 0


LE_SET_CLEAR(Watcher, clear)


# -- The end of small kinds --------------------------------------------------------------------------------------------

cdef enum:
    KEPT_MAX = 32

# A few freed watchers of one kind, timers, to be used again: a timeout that is set and taken back lives but a moment.
cdef PyObject *kept[KEPT_MAX]
cdef int kept_count = 0
cdef PyObject *kept_kind = NULL


@cython.linetrace(False)
@cython.profile(False)
cdef void free_watcher(PyObject *watcher) noexcept:
    global kept_count
    if LE_HAS_WEAK_REFERENCES(watcher):
        PyObject_ClearWeakRefs(watcher)
    watcher_leave(<Watcher>watcher)
    (<Watcher>watcher).function = None
    (<Watcher>watcher).data_value = None
    (<Watcher>watcher).owner = None
    if LE_TYPE(watcher) == kept_kind and kept_count < KEPT_MAX:
        kept[kept_count] = watcher
        kept_count += 1
    else:
        Py_DECREF(None)  # one for each field
        Py_DECREF(None)
        Py_DECREF(None)
        LE_FREE(watcher)


@cython.linetrace(False)
@cython.profile(False)
cdef void dealloc_watcher(PyObject *watcher) noexcept:
    """Free a watcher in one step, without what Cython does for each class of the hierarchy; by the trashcan only where another
    object may go with it."""
    PyObject_GC_UnTrack(watcher)
    if (LE_IS_LAST(<PyObject *>(<Watcher>watcher).function) or LE_IS_LAST(<PyObject *>(<Watcher>watcher).data_value)):
        le_free_by_trashcan(watcher, free_watcher)
    else:
        free_watcher(watcher)


cdef int watcher_is_small(object kind, bint is_kept) except -1:
    global kept_kind
    LE_SET_DEALLOC(kind, dealloc_watcher)
    if is_kept:
        kept_kind = LE_KIND_TO_KEEP(kind)
    return 0


@cython.linetrace(False)
@cython.profile(False)
cdef Watcher watcher_kept():
    global kept_count
    cdef PyObject *watcher
    if kept_count == 0:
        return None
    kept_count -= 1
    watcher = LE_REVIVE(kept[kept_count])
    (<Watcher>watcher).head.priority = 0
    PyObject_GC_Track(watcher)
    result = <Watcher>watcher
    Py_DECREF(result)  # that of LE_REVIVE
    return result
