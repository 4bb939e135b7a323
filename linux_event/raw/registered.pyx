"""What a ring keeps beyond requests: registered files and buffers, the number of its workers, the operations it allows.

The kernel is told by io_uring_register(2), at once. It takes references of its own on registered files. Of registered buffers
it has the pages; that the pages stay those of the object is up to us, so the object is held until the buffers are
unregistered or the ring is closed, and by each request that uses it.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EBADF
from libc.stdint cimport INT32_MAX, INT64_MAX, UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset
from linux_event.arguments cimport fd_argument, flag_argument, integer_within
from linux_event.core cimport LE_SLOTS_DIRECT
from linux_event.engine cimport Engine
from linux_event.errors cimport check_memory
from linux_event.linux cimport F_GETFD, fcntl
from linux_event.raw.request cimport Request, hold, iovec, raw_fill, raw_memory, raw_new, raw_start
from linux_event.ring cimport register_with
from linux_event.uring cimport Ring, add_raw_method, operation_guard, registered_of, ring_guard

import os

cdef extern from "le_compat.h" nogil:
    struct io_uring_restriction:
        uint16_t opcode
        uint8_t register_op
        uint8_t sqe_op
        uint8_t sqe_flags
    struct io_uring_rsrc_register:
        uint32_t nr
        uint32_t flags
    struct io_uring_files_update:
        uint32_t offset
        uint64_t fds
    enum:
        IORING_OP_ASYNC_CANCEL
        IORING_OP_FILES_UPDATE
        IORING_OP_POLL_ADD
        IORING_OP_TIMEOUT
        IORING_REGISTER_BUFFERS
        IORING_REGISTER_EVENTFD
        IORING_UNREGISTER_EVENTFD
        IORING_REGISTER_FILES
        IORING_REGISTER_FILES2
        IORING_REGISTER_FILES_UPDATE
        IORING_REGISTER_IOWQ_MAX_WORKERS
        IORING_REGISTER_RESTRICTIONS
        IORING_REGISTER_SYNC_CANCEL
        IORING_RESTRICTION_REGISTER_OP
        IORING_RESTRICTION_SQE_FLAGS_ALLOWED
        IORING_RESTRICTION_SQE_OP
        IORING_RSRC_REGISTER_SPARSE
        IORING_UNREGISTER_BUFFERS
        IORING_UNREGISTER_FILES

cdef enum:
    FLAGS_ALL = 0x7f    # IOSQE_*
    REGISTER_OPS = 25  # those a restricted ring may allow: 0 .. 24
    BUFFERS_MAX = 16384  # IORING_MAX_REG_BUFFERS of the kernel


cdef Engine ring_of(object self):
    if not isinstance(self, Ring):
        raise TypeError(f"ring must be a Ring, not {type(self).__name__} ({self!r})")
    ring_guard(<Ring>self)
    return (<Ring>self).owner


cdef Engine table_of(object self):
    """The engine of a ring whose table of direct descriptors is the user's."""
    cdef Engine owner = ring_of(self)
    if owner.core.slots.state == LE_SLOTS_DIRECT:
        raise RuntimeError("the table of direct descriptors of this ring is that of the loop's operations on whole files: "
                           "call register_files before the first of them, or use a Ring alone")
    return owner


cdef int told(int result, str what) except -1:
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result


# -- Files -------------------------------------------------------------------------------------------------------------

cdef list fd_numbers(object fds):
    """The fds of an iterable; None, or -1, is an empty place."""
    cdef list numbers = []
    for fd in fds:
        if fd is None or (type(fd) is int and fd == -1):
            numbers.append(-1)
            continue
        numbers.append(fd_argument(fd))
        if fcntl(numbers[len(numbers) - 1], F_GETFD) < 0:
            raise OSError(EBADF, os.strerror(EBADF), fd)
    return numbers


cdef int fill_numbers(int32_t *array, list numbers) except -1:
    cdef Py_ssize_t i
    for i in range(len(numbers)):
        array[i] = numbers[i]
    return 0


cdef int register_numbers(Engine owner, unsigned opcode, list numbers, uint32_t offset, str what) except -1:
    cdef io_uring_files_update update
    cdef int32_t *array = <int32_t *>PyMem_Malloc(max(len(numbers), 1) * sizeof(int32_t))
    cdef int result
    check_memory(-1 if array == NULL else 0)
    fill_numbers(array, numbers)
    if opcode == IORING_REGISTER_FILES_UPDATE:
        memset(&update, 0, sizeof(update))
        update.offset = offset
        update.fds = <uintptr_t>array
        result = register_with(&owner.core.ring, opcode, &update, len(numbers))
    else:
        result = register_with(&owner.core.ring, opcode, array, len(numbers))
    PyMem_Free(array)
    return told(result, what)


@cython.binding(True)
def _register_files(self, fds):
    """Give the ring a table of direct descriptors: requests with ``Ring.FIXED_FILE`` in ``flags`` take a place in it for an fd,
    those with ``file_index`` put a file there. The files stay open, whatever becomes of the fds, until they are taken out.

    A ring has one table. That of a loop is taken by the loop's operations on whole files (``read_file``) when the first of them
    comes before this call; after it they do without.

    :param fds: an iterable of ints or objects with ``fileno()``, None for a place that is empty; or an int, 1 or more: so many
        empty places.
    :raises ValueError: an fd is negative, or there is none.
    :raises RuntimeError: the loop has the table.
    :raises OSError: an fd is not open (EBADF); there is a table already (EBUSY); more than RLIMIT_NOFILE allows (EMFILE).
    :raises TypeError, LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_REGISTER_FILES. See io_uring_register(2).
    """
    cdef Engine owner = table_of(self)
    cdef io_uring_rsrc_register sparse
    cdef list numbers
    if isinstance(fds, int):
        memset(&sparse, 0, sizeof(sparse))
        sparse.nr = integer_within(fds, "fds", 1, INT32_MAX)
        sparse.flags = IORING_RSRC_REGISTER_SPARSE
        told(register_with(&owner.core.ring, IORING_REGISTER_FILES2, &sparse, sizeof(sparse)), "register_files")
        return
    numbers = fd_numbers(fds)
    if not numbers:
        raise ValueError("fds must not be empty")
    register_numbers(owner, IORING_REGISTER_FILES, numbers, 0, "register_files")


add_raw_method("register_files", _register_files)


@cython.binding(True)
def _register_files_update(self, offset, fds):
    """Change places of the table of direct descriptors.

    :param offset: the first place, an int, 0 or more.
    :param fds: an iterable, as for ``register_files``; None empties a place.
    :returns: how many places were changed, an int.
    :raises OSError: an fd is not open (EBADF); there is no table (ENXIO), or no such place (EINVAL).
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as for ``register_files``.

    Stands on IORING_REGISTER_FILES_UPDATE. See io_uring_register(2).
    """
    cdef Engine owner = table_of(self)
    cdef list numbers = fd_numbers(fds)
    if not numbers:
        raise ValueError("fds must not be empty")
    return register_numbers(owner, IORING_REGISTER_FILES_UPDATE, numbers, integer_within(offset, "offset", 0, INT32_MAX),
                            "register_files_update")


add_raw_method("register_files_update", _register_files_update)


@cython.binding(True)
def _unregister_files(self):
    """Take the table of direct descriptors away. Requests in flight keep the files that they work on.

    :raises RuntimeError: the loop has the table.
    :raises OSError: there is none (ENXIO).
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_UNREGISTER_FILES. See io_uring_register(2).
    """
    cdef Engine owner = table_of(self)
    told(register_with(&owner.core.ring, IORING_UNREGISTER_FILES, NULL, 0), "unregister_files")


add_raw_method("unregister_files", _unregister_files)


@cython.binding(True)
def _files_update(self, offset, fds, callback=None, *, flags=0):
    """Change places of the table of direct descriptors, as a request, which may be part of a chain.

    :param offset: the first place, an int, 0 or more.
    :param fds: an iterable, as for ``register_files``; None empties a place.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of places that were changed.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FILES_UPDATE. See io_uring_register(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    table_of(self)
    cdef list numbers = fd_numbers(fds)
    cdef int32_t *array = <int32_t *>raw_memory(request, max(len(numbers), 1) * sizeof(int32_t))
    fill_numbers(array, numbers)
    hold(request, fds)
    raw_fill(request, IORING_OP_FILES_UPDATE, -1, array, len(numbers), integer_within(offset, "offset", 0, INT32_MAX))
    return raw_start(request)


add_raw_method("files_update", _files_update)


# -- Buffers -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _register_buffers(self, buffers):
    """Give the ring buffers for ``read_fixed`` and ``write_fixed``: the kernel looks their pages up once, and not for each
    request. They are held until ``unregister_buffers``, or until the ring is closed: a bytearray cannot be resized meanwhile.

    :param buffers: an iterable of writable, contiguous buffers that are not empty, 16384 at most, each of up to 1 GiB.
    :raises BufferError, TypeError: a buffer is not contiguous, or not writable.
    :raises ValueError: there is no buffer, or too many.
    :raises OSError: there are registered buffers already (EBUSY); the limit on locked memory (ENOMEM); one is empty or too
        large (EFAULT, EINVAL).
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_REGISTER_BUFFERS. See io_uring_register(2).
    """
    cdef Engine owner = ring_of(self)
    cdef Py_buffer view
    cdef Py_ssize_t place
    cdef int result
    if isinstance(buffers, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"buffers must be an iterable of buffers, not {type(buffers).__name__}")
    cdef list views = [memoryview(buffer) for buffer in buffers]
    if not 0 < len(views) <= BUFFERS_MAX:
        raise ValueError(f"buffers must be 1 .. {BUFFERS_MAX}, not {len(views)}")
    cdef iovec *vector = <iovec *>PyMem_Malloc(len(views) * sizeof(iovec))
    check_memory(-1 if vector == NULL else 0)
    try:
        for place in range(len(views)):
            PyObject_GetBuffer(views[place], &view, PyBUF_WRITABLE)
            vector[place].iov_base = view.buf
            vector[place].iov_len = view.len
            PyBuffer_Release(&view)
        result = register_with(&owner.core.ring, IORING_REGISTER_BUFFERS, vector, len(views))
    finally:
        PyMem_Free(vector)
    told(result, "register_buffers")
    registered_of(owner)["buffers"] = views


add_raw_method("register_buffers", _register_buffers)


@cython.binding(True)
def _unregister_buffers(self):
    """Take the registered buffers away. Requests in flight keep those that they work on.

    :raises OSError: there are none (ENXIO).
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_UNREGISTER_BUFFERS. See io_uring_register(2).
    """
    cdef Engine owner = ring_of(self)
    told(register_with(&owner.core.ring, IORING_UNREGISTER_BUFFERS, NULL, 0), "unregister_buffers")
    registered_of(owner).pop("buffers", None)


add_raw_method("unregister_buffers", _unregister_buffers)


cdef char *fixed_buffer(Request request, object index, object start, Py_ssize_t length) except NULL:
    cdef Py_buffer view
    cdef list views = registered_of(request.owner).get("buffers", [])
    cdef Py_ssize_t place = integer_within(index, "index", 0, INT32_MAX)
    cdef Py_ssize_t first = integer_within(start, "start", 0, INT64_MAX)
    if place >= len(views):
        raise ValueError(f"index must be that of a registered buffer, of which there are {len(views)}, not {place}")
    PyObject_GetBuffer(views[place], &view, PyBUF_WRITABLE)
    cdef char *memory = <char *>view.buf + first
    cdef Py_ssize_t size = view.len
    PyBuffer_Release(&view)
    if first > size or length > size - first:
        raise ValueError(f"start and size must be within the buffer, which has {size} bytes, not {first} and {length}")
    hold(request, views[place])
    return memory


# -- Workers, restrictions ---------------------------------------------------------------------------------------------

@cython.binding(True)
def _register_iowq_max_workers(self, bounded, unbounded):
    """Limit the threads of the kernel that do what would block, for the calling thread.

    :param bounded: how many at most for work of a limited time, on files and block devices, an int, 0 or more; 0: as it is.
    :param unbounded: for other work, such as on sockets and pipes, likewise.
    :returns: the former limits, a tuple of two ints.
    :raises OSError: the kernel refuses.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_REGISTER_IOWQ_MAX_WORKERS. See io_uring_register(2).
    """
    cdef Engine owner = ring_of(self)
    cdef uint32_t counts[2]
    counts[0] = integer_within(bounded, "bounded", 0, UINT32_MAX)
    counts[1] = integer_within(unbounded, "unbounded", 0, UINT32_MAX)
    told(register_with(&owner.core.ring, IORING_REGISTER_IOWQ_MAX_WORKERS, counts, 2), "register_iowq_max_workers")
    return counts[0], counts[1]


add_raw_method("register_iowq_max_workers", _register_iowq_max_workers)


cdef object operation_numbers(object names):
    """The numbers of the operations that are named, one by one or in iterables."""
    from linux_event.diagnosis import OPERATION_NAMES
    numbers = set()
    for name in names:
        if isinstance(name, str):
            kernel_name = name.upper().removeprefix("IORING_OP_")
            kernel_name = {"CANCEL": "ASYNC_CANCEL", "POLL_UPDATE": "POLL_REMOVE",
                           "TIMEOUT_UPDATE": "TIMEOUT_REMOVE"}.get(kernel_name, kernel_name)
            if kernel_name not in OPERATION_NAMES:
                raise ValueError(f"operations must be names of operations, such as 'read', not {name!r}")
            operation_guard(OPERATION_NAMES.index(kernel_name))
            numbers.add(OPERATION_NAMES.index(kernel_name))
        elif hasattr(name, "__iter__") and not isinstance(name, (bytes, bytearray)):
            numbers |= operation_numbers(name)
        else:
            raise TypeError(f"operations must be names of operations, not {type(name).__name__} ({name!r})")
    return numbers


@cython.binding(True)
def _restrict(self, *operations, registrations=False):
    """Let the kernel refuse all operations but these, from the first use of the ring on, and for ever: callbacks of others get
    -EACCES.

    :param operations: names of operations, those of the methods or of the kernel, or iterables of them.
    :param registrations: True: the methods ``register_...`` and ``unregister_...`` can be used afterwards. Before the first use
        they always can.
    :raises ValueError: no operation has that name.
    :raises NotImplementedError: the running kernel does not have the operation.
    :raises RuntimeError: the ring has been used, or the loop has run: it is too late.
    :raises OSError: it was restricted already (EBUSY).
    :raises TypeError, LoopClosedError, WrongThreadError: as told by their names.

    What loops need for themselves is always allowed: POLL_ADD (to be woken, and for ``Loop.io``, ``Loop.signal`` and
    ``Loop.child``), ASYNC_CANCEL (to end requests), TIMEOUT (for ``fileno``), and the registration of an eventfd. Operations of
    a loop, such as ``Loop.read``, are refused with EACCES like others. Stands on IORING_REGISTER_RESTRICTIONS. See
    io_uring_register(2).
    """
    cdef Engine owner = ring_of(self)
    cdef io_uring_restriction table[256]
    cdef unsigned count = 0
    cdef unsigned number
    cdef bint is_open = flag_argument(registrations, "registrations")
    if owner.core.ring.is_enabled:
        raise RuntimeError("restrict() has to be called before the first use of the ring, or before its loop first runs")
    numbers = operation_numbers(operations)
    numbers |= {IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_TIMEOUT}
    memset(table, 0, sizeof(table))
    for number in sorted(numbers):
        table[count].opcode = IORING_RESTRICTION_SQE_OP
        table[count].sqe_op = number
        count += 1
    table[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED
    table[count].sqe_flags = FLAGS_ALL
    count += 1
    for number in range(<unsigned>REGISTER_OPS):
        if is_open or number in (IORING_REGISTER_EVENTFD, IORING_UNREGISTER_EVENTFD, IORING_REGISTER_SYNC_CANCEL):
            table[count].opcode = IORING_RESTRICTION_REGISTER_OP
            table[count].register_op = number
            count += 1
    told(register_with(&owner.core.ring, IORING_REGISTER_RESTRICTIONS, table, count), "restrict")


add_raw_method("restrict", _restrict)
