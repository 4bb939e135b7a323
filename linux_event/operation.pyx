"""The base of all operations: one request to the kernel, one result, one call back.

A kind of operation is a table (operation_kind) and a method of the loop, which fills a submission entry and starts it. What
the kernel works with lives in the object: the loop holds a reference until the final completion.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBADF, EINTR, ENOENT, ETIMEDOUT
from libc.stdint cimport int64_t, uint32_t
from linux_event.arguments cimport callable_argument, fd_argument, seconds_to_ns
from linux_event.core cimport (
    LE_NOT_IN_HEAP, LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_OP_IDLE, LE_OP_QUEUED, LE_OPERATION_CANCELLED, LE_OPERATION_CHAINED,
    LE_OPERATION_DONE, LE_OPERATION_ENDED, LE_OPERATION_KEPT, LE_OPERATION_LENIENT, LE_OPERATION_RAISED,
    LE_OPERATION_SETTLED, LE_OPERATION_TIMED_OUT, LE_PART_MAX, LE_WATCHER_ABI, LE_WATCHER_OBJECT, le_clock_after, le_clock_ns,
    le_heap_add, le_heap_remove, le_operation_break, le_operation_end, le_operation_enter, le_operation_hold, le_operation_leave,
    le_operation_on_cqe, le_operation_prep, le_watcher_function,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.liburing cimport IORING_OP_ASYNC_CANCEL
from linux_event.linux cimport ECANCELED, F_GETFD, fcntl
from linux_event.requests cimport loop_guard, op_start, op_stop

import os
from types import GenericAlias

cdef extern from *:
    """
    #define LE_OPERATION_OFFSET ((uint32_t)(sizeof(PyObject) + offsetof(struct le_operation, op)))
    #define LE_SET_CLEAR(type, function) (((PyTypeObject *)(type))->tp_clear = (inquiry)(function))
    """
    const unsigned LE_OPERATION_OFFSET
    ctypedef int (*inquiry)(PyObject *) noexcept
    void LE_SET_CLEAR(object type, inquiry function)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1
    int PyUnicode_FSConverter(object path, void *bytes) except 0
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *arg) noexcept
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t count, PyObject *names) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil


@cython.freelist(64)
cdef class Operation:
    """One request to the kernel and its result, as a method of a loop returned it. Cannot be created otherwise.

    It has the methods of ``concurrent.futures.Future`` that do not wait. The loop keeps it alive until it is done.
    """

    def __cinit__(self):
        self.core.head.heap_slot = LE_NOT_IN_HEAP
        if LE_WATCHER_OBJECT(&self.core.head) != <PyObject *>self:
            raise SystemError("the le_operation of an Operation is not its first field")

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be created: call a method of a Loop, such as read_file")

    def __dealloc__(self):
        release_buffer(self)

    @classmethod
    def __class_getitem__(cls, item, /):
        """``Operation[bytes]``, for annotations: an operation whose result is bytes."""
        return GenericAlias(cls, item)

    def cancel(self):
        """Ask the kernel to end the operation.

        :returns: True if it is cancelled: the callback gets ``CancelledError`` when the kernel has let go of the buffers,
            whatever the kernel has done meanwhile. An fd that was opened or accepted all the same is closed, data that were
            received are dropped. False if it is done, or its result has been collected, or it is too late to prevent it.
        :raises WrongThreadError: the loop belongs to another thread.

        Stands on IORING_OP_ASYNC_CANCEL. What a disk has begun cannot be cancelled: its end is waited for. See
        io_uring_enter(2).
        """
        if self.core.flags & LE_OPERATION_CANCELLED:
            return True
        if self.kind == NULL or self.core.flags & (LE_OPERATION_ENDED | LE_OPERATION_SETTLED | LE_OPERATION_DONE):
            return False
        loop_guard(self.owner)
        cancel_operation(self)
        loop_changed(self.owner)
        return True

    def done(self):
        """Return whether it has a result or an exception, or was cancelled: a bool."""
        return (self.core.flags & (LE_OPERATION_DONE | LE_OPERATION_CANCELLED)) != 0

    def cancelled(self):
        """Return whether ``cancel`` was successful, or the loop was closed before the end: a bool."""
        return (self.core.flags & LE_OPERATION_CANCELLED) != 0

    def result(self):
        """Return what the callback got, or raise its exception.

        :raises concurrent.futures.CancelledError: it was cancelled.
        :raises concurrent.futures.InvalidStateError: it is not done yet.
        :raises OSError: it has failed.
        """
        error = self.exception()
        if error is not None:
            raise error
        return self.outcome

    def exception(self):
        """Return the exception that the operation has failed with, or None.

        :raises concurrent.futures.CancelledError: it was cancelled.
        :raises concurrent.futures.InvalidStateError: it is not done yet.
        """
        if self.core.flags & LE_OPERATION_CANCELLED:
            raise cancelled_error(self)
        if not self.core.flags & LE_OPERATION_DONE:
            from linux_event.cancellation import InvalidStateError
            raise InvalidStateError(f"{self!r} is not done yet")
        return self.error

    def add_done_callback(self, fn):
        """Call ``fn(operation)`` when it is done, after its other callbacks; at once if it is done already.

        :param fn: any callable; what it raises goes to the loop's ``on_error``.
        :raises TypeError: ``fn`` is not callable.
        """
        callable_argument(fn, "fn")
        if self.kind == NULL:
            raise RuntimeError(f"{self!r} was not made by a loop: it is never done")
        if self.core.flags & LE_OPERATION_DONE:
            call_done(self, fn)
        elif self.done_functions is None:
            self.done_functions = [fn]
        else:
            self.done_functions.append(fn)

    @property
    def loop(self):
        """The loop of the operation."""
        return self.owner

    def __repr__(self):
        name = "operation" if self.kind == NULL else self.kind.name.decode()
        if self.core.flags & LE_OPERATION_CANCELLED:
            state = "cancelled"
        elif not self.core.flags & LE_OPERATION_DONE:
            state = "in flight"
        else:
            state = "done" if self.error is None else f"failed: {self.error!r}"
        where = "" if self.where is None else f" {self.where!r}"
        if self.other is not None:
            where += f" {self.other!r}"
        return f"<{type(self).__name__} {name}{where} {state}>"


# -- For the kinds -----------------------------------------------------------------------------------------------------

cdef int kind_begin(operation_kind *kind, const char *name) except -1:
    kind.name = name
    kind.request.abi = LE_OP_ABI
    kind.request.owner_offset = LE_OPERATION_OFFSET
    kind.request.name = name
    kind.request.prep = le_operation_prep
    kind.request.on_cqe = le_operation_on_cqe
    kind.request.interest = LE_OP_EVERY_COMPLETION
    kind.dispatch.abi = LE_WATCHER_ABI
    kind.dispatch.name = name
    kind.dispatch.on_dispatch = <le_watcher_function>dispatch
    kind.dispatch.on_stop = <le_watcher_function>stop
    kind.dispatch.on_release = <le_watcher_function>forget
    if kind.result == NULL:
        kind.result = result_none
    return 0


cdef Operation operation_new(const operation_kind *kind, object loop, object callback, object on_success, object on_error,
                             object where):
    cdef Operation self = Operation.__new__(Operation)
    operation_begin(self, kind, loop, callback, on_success, on_error, where)
    return self


cdef int operation_begin(Operation self, const operation_kind *kind, object loop, object callback, object on_success,
                         object on_error, object where) except -1:
    if not isinstance(loop, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
    loop_guard(<Engine>loop)
    if callback is not None:
        if on_success is not None or on_error is not None:
            raise TypeError("give either callback or on_success and on_error, not both forms")
        callable_argument(callback, "callback")
    if on_success is not None:
        callable_argument(on_success, "on_success")
    if on_error is not None:
        callable_argument(on_error, "on_error")
    operation_kind_set(self, kind)
    self.owner = loop
    self.function = callback
    self.succeeded = on_success
    self.failed = on_error
    self.where = where
    return 0


cdef void operation_kind_set(Operation self, const operation_kind *kind) noexcept:
    self.core.head.cls = &kind.dispatch
    self.core.op.cls = &kind.request
    self.kind = kind


cdef int operation_enter(Operation self, object timeout) except -1:
    cdef Engine loop = self.owner
    cdef int64_t timeout_ns = 0
    if timeout is not None:
        timeout_ns = seconds_to_ns(timeout, "timeout")
    # The conversion of arguments may have run code of others, which has closed the loop.
    loop_guard(loop)
    if unlikely(loop.core.is_chaining):
        chain_guard(self)
    if timeout is not None:
        check_memory(le_heap_add(&loop.core.heap, &self.core.head, le_clock_after(le_clock_ns(), timeout_ns)))
    le_operation_enter(&loop.core, &self.core)
    Py_INCREF(self)  # the loop's, until the callback is called
    return 0


cdef object operation_start(Operation self, object timeout):
    cdef Engine loop = self.owner
    operation_enter(self, timeout)
    op_start(loop, &self.core.op)
    if unlikely(loop.core.is_chaining):
        self.core.flags |= LE_OPERATION_CHAINED | (LE_OPERATION_LENIENT if self.kind.is_lenient else 0)
        le_operation_hold(&loop.core, &self.core)
    elif unlikely(loop.core.is_embedded):
        loop_changed(loop)
    return self


cdef int chain_guard(Operation self) except -1:
    cdef uint32_t room = self.owner.core.ring.uring.sq.ring_entries
    if self.kind.is_composite:
        raise ValueError(f"{self.kind.name.decode()} is more than one request: it cannot be part of a chain")
    if self.core.total > LE_PART_MAX:
        raise ValueError(f"{self.kind.name.decode()} of {self.core.total} bytes is more than one request: it cannot be part of "
                         f"a chain, which takes {LE_PART_MAX} bytes at most")
    if self.owner.core.chain_length >= room:
        raise ValueError(f"a chain has to fit into the submission queue, which has {room} entries: make the Loop with more")
    return 0


cdef int operation_fd(Operation self, object fd) except -1:
    cdef int number = fd_argument(fd)
    self.kept = fd
    if type(fd) is not int:
        # For errors the number: the object is to be kept no longer than the kernel needs it.
        if self.where is fd:
            self.where = number
        if self.other is fd:
            self.other = number
        if hasattr(fd, "close"):
            return number  # a socket, a file: when it has closed its fd, fileno() says so
    if fcntl(number, F_GETFD) < 0:
        raise OSError(EBADF, os.strerror(EBADF), number)
    return number


cdef const char *operation_path(Operation self, object path) except NULL:
    cdef PyObject *encoded = NULL
    PyUnicode_FSConverter(path, &encoded)
    self.memory = <object>encoded
    Py_DECREF(<object>encoded)
    return PyBytes_AS_STRING(self.memory)


cdef char *operation_bytes(Operation self, Py_ssize_t size) except NULL:
    self.memory = PyBytes_FromStringAndSize(NULL, size)
    return PyBytes_AS_STRING(self.memory)


cdef int operation_buffer(Operation self, object buffer, bint is_written_to) except -1:
    return PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE if is_written_to else PyBUF_SIMPLE)


cdef object result_none(Operation self):
    return None


cdef object result_count(Operation self):
    return self.core.result


cdef object result_bytes(Operation self):
    """The bytes object that the kernel has read into, cut to what it has read."""
    cdef PyObject *data = <PyObject *>self.memory
    Py_INCREF(<object>data)
    self.memory = None
    return bytes_cut(data, <Py_ssize_t>self.core.result)


cdef object bytes_cut(PyObject *data, Py_ssize_t size):
    cdef object result
    if size >= len(<bytes>data) // 2 and size > 0:
        if size < len(<bytes>data):
            _PyBytes_Resize(&data, size)  # which is why there may be no other reference
        result = <object>data
    else:
        result = PyBytes_FromStringAndSize(PyBytes_AS_STRING(<bytes>data), size)  # the large block goes back whole
    Py_DECREF(<object>data)
    return result


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *operation) except -1:
    """The loop calls what it has collected: the result is in, or the deadline has come first."""
    cdef Operation self = <Operation>operation
    if not self.core.flags & LE_OPERATION_ENDED:
        self.owner.core.callbacks -= 1  # no callback runs
        if not self.core.flags & (LE_OPERATION_CANCELLED | LE_OPERATION_SETTLED):
            self.core.flags |= LE_OPERATION_TIMED_OUT
            abort_operation(self)
        return 0
    le_operation_leave(&self.owner.core, &self.core)
    try:
        conclude(self)
        call_back(self)
        if self.error is not None and not isinstance(self.error, Exception):
            raise self.error  # Ctrl-C in the middle of a conversion
    finally:
        Py_DECREF(self)  # the loop's; the caller has one of its own
    return 0


cdef int stop(void *operation) except -1:
    """The loop is being closed."""
    cdef Operation self = <Operation>operation
    if self.core.flags & (LE_OPERATION_SETTLED | LE_OPERATION_ENDED):
        return 0
    self.core.flags &= ~LE_OPERATION_CHAINED  # all of a chain ends: there is no place to keep
    if not self.core.flags & LE_OPERATION_CANCELLED:
        return cancel_operation(self)
    if self.core.op.state == LE_OP_QUEUED:
        return abort_operation(self)  # it was cancelled in its place in a chain
    return 0


cdef int forget(void *operation) except -1:
    """Nobody is to be told of the end, or to get the result: the loop is being collected."""
    cdef Operation self = <Operation>operation
    self.core.flags |= LE_OPERATION_CANCELLED
    self.function = self.succeeded = self.failed = self.done_functions = None
    return 0


cdef int cancel_operation(Operation self) except -1:
    self.core.flags |= LE_OPERATION_CANCELLED
    le_heap_remove(&self.owner.core.heap, &self.core.head)
    return abort_operation(self)


cdef int abort_operation(Operation self) except -1:
    if self.core.leader != NULL and self.core.op.state != LE_OP_QUEUED:
        return 0  # the kernel does not find it before it has begun: le_chain_advance() sends the cancellation then
    if self.kind.abort != NULL:
        return self.kind.abort(self)
    if self.core.flags & LE_OPERATION_CHAINED and self.core.op.state == LE_OP_QUEUED:
        le_operation_break(&self.core)  # it has to keep its place, and to fail there
        return 0
    op_stop(self.owner, &self.core.op)
    if self.core.op.state == LE_OP_IDLE:
        le_operation_end(&self.owner.core, &self.core, -ECANCELED)  # the kernel has never heard of it
    return 0


cdef int conclude(Operation self) except -1:
    """Make outcome and error of what the kernel has said, and let go of what was kept for it."""
    cdef int64_t result = self.core.result
    try:
        if self.core.flags & LE_OPERATION_CANCELLED:
            if result >= 0 and self.kind.dispose != NULL:
                self.kind.dispose(self)
            self.error = cancelled_error(self)
        elif result >= 0:
            self.outcome = self.kind.result(self)
        elif self.error is None:  # else the program has said how it failed, see promise.pyx
            self.error = failure(self, <int>-result)
    except BaseException as error:  # of the conversion: MemoryError
        self.error = error
        if result >= 0 and self.kind.dispose != NULL and not self.core.flags & LE_OPERATION_CANCELLED:
            self.kind.dispose(self)
    if unlikely(self.core.flags & LE_OPERATION_KEPT):
        return 0
    if self.kind.release != NULL:
        self.kind.release(self)
    release_buffer(self)
    self.kept = self.memory = None
    return 0


cdef object failure(Operation self, int number):
    if number == ENOENT and self.core.sqe.opcode == IORING_OP_ASYNC_CANCEL:
        number = ECANCELED  # le_operation_break() was here
    # EAGAIN: the cancellation has met the request on its way to a thread of the kernel, where the fd does not block.
    if self.core.flags & LE_OPERATION_TIMED_OUT and number in (ECANCELED, EINTR, EAGAIN):
        return os_error(self, TimeoutError, ETIMEDOUT, f"{self.kind.name.decode()} was not done within its timeout")
    if self.core.flags & LE_OPERATION_CHAINED and number == ECANCELED:
        from linux_event.cancellation import ChainCancelledError
        self.core.flags |= LE_OPERATION_CANCELLED
        return os_error(self, ChainCancelledError, number,
                        f"{self.kind.name.decode()} was not begun: what came before it in the chain failed")
    return os_error(self, OSError, number, os.strerror(number))


cdef object os_error(Operation self, object kind, int number, str text):
    if self.other is None:
        return kind(number, text, self.where)
    return kind(number, text, self.where, None, self.other)


cdef object cancelled_error(Operation self):
    if self.error is not None:
        return self.error
    from linux_event.cancellation import CancelledError
    return CancelledError(f"{self.kind.name.decode()} was cancelled")


cdef int call_back(Operation self) except -1:
    cdef PyObject *args[2]
    cdef PyObject *result = NULL
    cdef object function = self.function, succeeded = self.succeeded, failed = self.failed, error = self.error
    cdef list done_functions = self.done_functions
    # Callbacks refer to what refers to them: a cycle, unless cut here.
    self.function = self.succeeded = self.failed = self.done_functions = None
    try:
        if function is not None:
            args[0] = <PyObject *>self.outcome
            args[1] = <PyObject *>error
            result = PyObject_Vectorcall(<PyObject *>function, args, 2, NULL)
        elif error is None and succeeded is not None:
            result = PyObject_CallOneArg(<PyObject *>succeeded, <PyObject *>self.outcome)
        elif error is not None and failed is not None:
            result = PyObject_CallOneArg(<PyObject *>failed, <PyObject *>error)
        else:
            self.owner.core.callbacks -= done_functions is None
            if error is not None and done_functions is None and not self.core.flags & LE_OPERATION_CANCELLED:
                self.owner.tell(self, error)
            result = <PyObject *>None
            Py_INCREF(None)
        if result == NULL:
            self.core.flags |= LE_OPERATION_RAISED
            self.owner.report(self)
        else:
            Py_DECREF(<object>result)
    finally:
        if done_functions is not None:
            call_all_done(self, done_functions)
    return 0


cdef int call_all_done(Operation self, list functions) except -1:
    """An exception that leaves run() does so when all of them have been called."""
    leaving = None
    for function in functions:
        try:
            call_done(self, function)
        except BaseException as error:
            leaving = error
    if leaving is not None:
        raise leaving
    return 0


cdef int call_done(Operation self, object function) except -1:
    cdef PyObject *result = PyObject_CallOneArg(<PyObject *>function, <PyObject *>self)
    if result == NULL:
        self.owner.report(self)
    else:
        Py_DECREF(<object>result)
    return 0


cdef inline void release_buffer(Operation self) noexcept:
    if <PyObject *>self.view.obj != NULL:
        PyBuffer_Release(&self.view)


# -- Garbage collection ------------------------------------------------------------------------------------------------

@cython.linetrace(False)
@cython.profile(False)
cdef int clear(PyObject *operation) noexcept:
    """Break cycles through what is the user's. The buffer is released, not just dropped, and only by the destructor."""
    cdef Operation self = <Operation>operation
    self.function = self.succeeded = self.failed = self.done_functions = None
    self.outcome = self.error = None
    return 0


LE_SET_CLEAR(Operation, clear)
