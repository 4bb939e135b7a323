"""Request: what a method of a Ring makes. An operation whose result is what the kernel says.

The class of a request is found by its operation's number, so a method needs no table of its own: it takes what the kernel will
work with, fills the entry and starts it.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT32_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset
from linux_event.arguments cimport callable_argument, integer_within
from linux_event.core cimport (
    LE_OPERATION_CANCELLED, LE_OPERATION_ENDED, LE_OPERATION_KEPT, LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_OP_IN_FLIGHT,
    LE_PART_MAX, LE_WATCHER_ACTIVE, LE_WATCHER_PENDING, le_message_on_cqe, le_op, le_op_class, le_operation_enter,
    le_operation_leave, le_raw_begin, le_raw_chain, le_raw_drop, le_raw_drop_all, le_raw_fill, le_raw_link, le_raw_on_cqe,
    le_raw_pop, le_raw_prep, le_result, le_results_reserve, le_watcher_function, le_watcher_is, le_watcher_unpend,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.liburing cimport IOSQE_FIXED_FILE, IOSQE_IO_HARDLINK, IOSQE_IO_LINK
from linux_event.linux cimport AT_FDCWD, ECANCELED
from linux_event.operation cimport Operation, kind_begin, operation_fd, operation_kind, operation_start
from linux_event.requests cimport loop_guard, op_start
from linux_event.uring cimport Ring, RingLoop, operation_guard, ring_guard

cdef extern from "le_compat.h" nogil:
    enum:
        LE_URING_OPERATIONS
        IOSQE_CQE_SKIP_SUCCESS
        IOSQE_IO_DRAIN

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_CMSG_CLOEXEC

cdef extern from *:
    """
    #define LE_TAKE_CLEAR(type, base) (((PyTypeObject *)(type))->tp_clear = ((PyTypeObject *)(base))->tp_clear)
    """
    void LE_TAKE_CLEAR(object type, object base)
    int PyUnicode_FSConverter(object path, void *bytes) except 0
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *arg) noexcept
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t count, PyObject *names) noexcept
    bint unlikely "LE_UNLIKELY"(bint condition) nogil

cdef enum:
    # IOSQE_BUFFER_SELECT is what the argument `group` of a method asks for.
    FLAGS_GIVEN = 0x5f
    VECTOR_MAX = 1024  # UIO_MAXIOV of the kernel

# A kind for each operation, in the order of their numbers; and one for what takes messages.
cdef operation_kind kinds[LE_URING_OPERATIONS + 1]
cdef list kind_names = []

cdef le_op_class message_class
message_class.abi = LE_OP_ABI
message_class.name = "message"
message_class.on_cqe = le_message_on_cqe
message_class.interest = LE_OP_EVERY_COMPLETION
cdef le_op message_op
message_op.cls = &message_class
message_op.state = LE_OP_IN_FLIGHT


@cython.final
cdef class Request(Operation):
    """A request as a method of a ``Ring`` returned it. Cannot be created otherwise.

    An ``Operation`` whose result, of ``result()`` and in the callback, is what the kernel says: an int, a negative errno on
    failure, which raises nothing. ``cancel()`` is final: the callback gets -ECANCELED, an fd that was opened all the same is
    closed. ``Ring.cancel`` is the kernel's operation of that name: what comes of it is the kernel's word.
    """

    def __dealloc__(self):
        if le_watcher_is(&self.core.head, LE_WATCHER_PENDING):
            le_watcher_unpend(&self.owner.core, &self.core.head)

    @property
    def loop(self):
        """The loop of the ring; None if the ring is used alone."""
        return None if isinstance(self.owner, RingLoop) else self.owner

    @property
    def message(self):
        """Of ``recvmsg``, once it is done: the length of the address, the length of the ancillary data, and the flags (MSG_*)
        that came with the message, a tuple of three ints. None otherwise."""
        return self.parts


# -- Making a request --------------------------------------------------------------------------------------------------

cdef Request raw_new(object ring, object callback, object flags, object where):
    if not isinstance(ring, Ring):
        raise TypeError(f"ring must be a Ring, not {type(ring).__name__} ({ring!r})")
    ring_guard(<Ring>ring)
    if callback is not None:
        callable_argument(callback, "callback")
    cdef Request self = Request.__new__(Request)
    le_raw_begin(&self.raw, &self.core)
    self.owner = (<Ring>ring).owner
    self.function = callback
    self.where = where
    self.raw.flags = flags_argument(flags)
    if unlikely(self.raw.flags & IOSQE_IO_DRAIN):
        if not (<Ring>ring).is_alone:
            raise ValueError("flags: IO_DRAIN waits for the end of all requests before it, and some of a loop never end")
        (<RingLoop>self.owner).has_drained = True
    return self


cdef inline unsigned flags_argument(object flags) except? 255:
    cdef unsigned value = integer_within(flags, "flags", 0, 0x7f)
    if unlikely(value & ~<unsigned>FLAGS_GIVEN):
        raise ValueError("flags must be made of FIXED_FILE, IO_DRAIN, IO_LINK, IO_HARDLINK, ASYNC and CQE_SKIP_SUCCESS, "
                         f"not {value}")
    return value


cdef int raw_fill(Request self, unsigned opcode, int fd, const void *address, uint32_t length, uint64_t offset) except -1:
    operation_guard(opcode)
    set_kind(self, opcode)
    le_raw_fill(&self.core.sqe, opcode, fd, <uintptr_t>address, length, offset)
    return 0


cdef int set_kind(Request self, unsigned code) except -1:
    check_memory(le_results_reserve(&self.owner.core.results, self.owner.batch_max))
    self.kind = &kinds[code]
    self.core.head.cls = &self.kind.dispatch
    self.core.op.cls = &self.kind.request
    return 0


cdef object raw_start(Request self):
    cdef Engine owner = self.owner
    cdef le_op *before = NULL
    cdef uint32_t length
    # What the kernel would not tell must all the same be released: it tells, and the callback does not hear of it.
    self.core.sqe.flags |= self.raw.flags & ~<unsigned>IOSQE_CQE_SKIP_SUCCESS
    if unlikely(owner.core.is_chaining):
        return operation_start(self, None)
    # The conversion of arguments may have run code of others, which has closed the ring.
    loop_guard(owner)
    length = le_raw_chain(&owner.core, &kinds[0].request, &kinds[LE_URING_OPERATIONS].request, &before)
    if unlikely(length >= owner.core.ring.uring.sq.ring_entries):
        raise ValueError(f"a chain has to fit into the submission queue, which has {owner.core.ring.uring.sq.ring_entries} "
                         "entries: make the ring with more")
    le_operation_enter(&owner.core, &self.core)
    Py_INCREF(self)  # the ring's, until the callback is called
    op_start(owner, &self.core.op)
    if before != NULL:
        le_raw_link(before, &self.core.op)
    if self.raw.flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK):
        owner.core.raw_chain_length = length + 1
    else:
        owner.core.raw_chain_length = 0
        # A ring that is used alone is told when to submit.
        if unlikely(owner.core.is_embedded and not isinstance(owner, RingLoop)):
            loop_changed(owner)
    return self


cdef int raw_many(Request self) except -1:
    if self.function is None:
        raise TypeError("callback must be given: a request that is answered many times has no result to look at")
    return 0


cdef int raw_fd(Request self, object fd) except -1:
    if self.raw.flags & IOSQE_FIXED_FILE:
        return integer_within(fd, "fd", 0, INT32_MAX)
    cdef int number = operation_fd(self, fd)
    hold(self, fd)
    return number


cdef int raw_folder(Request self, object dir_fd) except *:
    if dir_fd is None or (type(dir_fd) is int and dir_fd == AT_FDCWD):
        return AT_FDCWD
    cdef int number = operation_fd(self, dir_fd)
    hold(self, dir_fd)
    return number


cdef const char *raw_path(Request self, object path) except NULL:
    cdef PyObject *encoded = NULL
    PyUnicode_FSConverter(path, &encoded)
    held = <object>encoded
    Py_DECREF(held)
    hold(self, held)
    return PyBytes_AS_STRING(held)


cdef uint32_t raw_slot(Request self, object file_index, uint32_t *flags, uint32_t close_on_exec) except? 0:
    if file_index is None:
        flags[0] |= close_on_exec
        self.raw.opens_fd = True
        return 0
    cdef uint32_t slot = integer_within(file_index, "file_index", 0, 0xffffffff)
    return slot if slot == 0xffffffff else slot + 1


cdef char *raw_buffer(Request self, object buffer, bint is_written_to, uint32_t *length) except? NULL:
    PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE if is_written_to else PyBUF_SIMPLE)
    length[0] = min(self.view.len, <Py_ssize_t>LE_PART_MAX)
    return <char *>self.view.buf


cdef iovec *raw_vector(Request self, object buffers, bint is_written_to, uint32_t *count) except NULL:
    cdef Py_buffer view
    cdef list views
    if isinstance(buffers, (str, bytes, bytearray)):
        raise TypeError(f"buffers must be an iterable of buffers, not {type(buffers).__name__}")
    views = [memoryview(buffer) for buffer in buffers]
    if len(views) > VECTOR_MAX:
        raise ValueError(f"buffers must be at most {VECTOR_MAX}, not {len(views)}")
    cdef iovec *vector = <iovec *>raw_memory(self, max(len(views), 1) * sizeof(iovec))
    cdef Py_ssize_t place
    for place in range(len(views)):
        PyObject_GetBuffer(views[place], &view, PyBUF_WRITABLE if is_written_to else PyBUF_SIMPLE)
        vector[place].iov_base = view.buf
        vector[place].iov_len = view.len
        PyBuffer_Release(&view)  # the memoryview keeps the memory where it is
    hold(self, views)
    count[0] = len(views)
    return vector


cdef void *raw_memory(Request self, size_t size) except NULL:
    cdef bytes memory = PyBytes_FromStringAndSize(NULL, size)
    memset(PyBytes_AS_STRING(memory), 0, size)
    hold(self, memory)
    return PyBytes_AS_STRING(memory)


cdef uint64_t raw_target(Request self, object request) except 0:
    if not isinstance(request, Operation):
        raise TypeError(f"request must be a Request of this ring, not {type(request).__name__} ({request!r})")
    if (<Operation>request).owner is not self.owner:
        raise ValueError(f"request must be of this ring: {request!r}")
    hold(self, request)  # while it lives no other request has its address
    return <uintptr_t>&(<Operation>request).core.op


cdef int hold(Request self, object thing) except -1:
    if self.held is None:
        self.held = []
    self.held.append(thing)
    return 0


cdef uint64_t message_address() noexcept:
    return <uintptr_t>&message_op


cdef Request inbox_new(object ring, object callback):
    cdef Request self = raw_new(ring, callback, 0, None)
    set_kind(self, LE_URING_OPERATIONS)
    self.core.head.flags = LE_WATCHER_ACTIVE  # to the lanes
    return self


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int dispatch(void *operation) except -1:
    """The loop calls what it has collected: a result, one of several or the last."""
    cdef Request self = <Request>operation
    cdef le_result first
    if self.core.flags & LE_OPERATION_CANCELLED:
        le_raw_drop_all(&self.owner.core, &self.core)
        if not self.core.flags & LE_OPERATION_ENDED:
            self.owner.core.callbacks -= 1  # no callback runs
            return 0
    elif self.raw.count:
        first = le_raw_pop(&self.owner.core, &self.core)
        return tell(self, self.function, first.result, first.flags)
    if self.core.flags & LE_OPERATION_ENDED:
        finish(self)
    else:
        self.owner.core.callbacks -= 1
    return 0


cdef int finish(Request self) except -1:
    cdef int64_t result = self.core.result
    cdef object function = self.function
    cdef list done_functions = self.done_functions
    le_operation_leave(&self.owner.core, &self.core)
    try:
        if self.core.flags & LE_OPERATION_CANCELLED:
            le_raw_drop(&self.raw, result)
            result = -ECANCELED
        if self.header != NULL:
            if result >= 0:
                self.parts = (self.header.msg_namelen, self.header.msg_controllen,
                              self.header.msg_flags & ~MSG_CMSG_CLOEXEC)
            self.header = NULL
        if not self.core.flags & LE_OPERATION_KEPT:
            if <PyObject *>self.view.obj != NULL:
                PyBuffer_Release(&self.view)
            self.kept = self.held = None
        self.outcome = result
        # Callbacks refer to what refers to them: a cycle, unless cut here.
        self.function = self.done_functions = None
        tell(self, function, result, self.core.cqe_flags)
    finally:
        try:
            if done_functions is not None:
                call_all_done(self, done_functions)
        finally:
            Py_DECREF(self)  # the ring's; the caller has one of its own
    return 0


cdef int call_all_done(Request self, list functions) except -1:
    """An exception that leaves the ring does so when all of them have been called."""
    leaving = None
    for function in functions:
        try:
            call_done(self, function)
        except BaseException as error:
            leaving = error
    if leaving is not None:
        raise leaving
    return 0


cdef int tell(Request self, object function, int64_t result, uint32_t flags) except -1:
    cdef PyObject *args[2]
    cdef PyObject *answer
    if function is None or (self.raw.flags & IOSQE_CQE_SKIP_SUCCESS and result >= 0):
        self.owner.core.callbacks -= 1
        return 0
    cdef object res = result
    cdef object bits = flags
    args[0] = <PyObject *>res
    args[1] = <PyObject *>bits
    answer = PyObject_Vectorcall(<PyObject *>function, args, 2, NULL)
    if answer == NULL:
        self.owner.report(self)
    else:
        Py_DECREF(<object>answer)
    return 0


cdef int call_done(Request self, object function) except -1:
    cdef PyObject *answer = PyObject_CallOneArg(<PyObject *>function, <PyObject *>self)
    if answer == NULL:
        self.owner.report(self)
    else:
        Py_DECREF(<object>answer)
    return 0


# -- The kinds ---------------------------------------------------------------------------------------------------------

cdef int make_kinds() except -1:
    from linux_event.diagnosis import OPERATION_NAMES
    cdef unsigned code
    # Failures that do not end a chain, see le_chain_release(). Links that the user makes are as the kernel has them.
    lenient = {"FSYNC", "SYNC_FILE_RANGE", "FALLOCATE", "STATX", "FTRUNCATE", "RENAMEAT", "UNLINKAT", "MKDIRAT", "LINKAT",
               "SYMLINKAT", "SHUTDOWN", "MADVISE", "GETXATTR", "FGETXATTR", "SETXATTR", "FSETXATTR"}
    for code, name in enumerate((*OPERATION_NAMES, "inbox")):
        kind_names.append(name.lower().encode())
        kind_begin(&kinds[code], PyBytes_AS_STRING(kind_names[code]))
        kinds[code].request.prep = le_raw_prep
        kinds[code].request.on_cqe = le_raw_on_cqe
        kinds[code].dispatch.on_dispatch = <le_watcher_function>dispatch
        kinds[code].is_lenient = name in lenient
    return 0


make_kinds()
# The collector breaks cycles as the base does: what the kernel may work on is not touched.
LE_TAKE_CLEAR(Request, Operation)
