"""Raw requests that wait for something else than data: children, futexes, epoll; and advice about memory."""

cimport cython
from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, UINT32_MAX, uint32_t, uint64_t, uintptr_t
from linux_event.arguments cimport integer_within
from linux_event.raw.request cimport Request, hold, raw_buffer, raw_fd, raw_fill, raw_memory, raw_new, raw_start
from linux_event.uring cimport add_raw_method

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "le_compat.h" nogil:
    enum:
        IORING_OP_EPOLL_CTL
        IORING_OP_MADVISE
        LE_URING_EPOLL_WAIT
        LE_URING_FUTEX_WAIT
        LE_URING_FUTEX_WAITV
        LE_URING_FUTEX_WAKE
        LE_URING_WAITID

cdef enum:
    SIGINFO_BYTES = 128  # sizeof(siginfo_t), which is ABI
    FUTEX_BYTES = 4
    FUTEX2_SIZE_U32 = 2
    FUTEX_WAITV_MAX = 128

# struct futex_waitv of futex_waitv(2), which is ABI.
cdef struct futex_waiter:
    uint64_t value
    uint64_t address
    uint32_t flags
    uint32_t reserved

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data:
        uint64_t u64
    struct epoll_event:
        unsigned events
        epoll_data data


@cython.binding(True)
def _waitid(self, idtype, id, options, callback=None, *, info=None, flags=0):
    """Wait until a child process changes its state.

    :param idtype: an int, ``os.P_PID``, ``os.P_PGID``, ``os.P_ALL`` or ``os.P_PIDFD``.
    :param id: the number of that kind, an int, 0 or more.
    :param options: an int, ``os.WEXITED`` and so on.
    :param callback, flags: as for ``nop``.
    :param info: a writable buffer of 128 bytes at least, for a siginfo_t; None: it is not asked for.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: the buffer is too small.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_WAITID (Linux 6.7). See waitid(2).
    """
    cdef Request request = raw_new(self, callback, flags, id)
    cdef uint32_t length = SIGINFO_BYTES
    cdef char *memory = NULL
    if info is not None:
        memory = raw_buffer(request, info, True, &length)
    if length < SIGINFO_BYTES:
        raise ValueError(f"info must have {SIGINFO_BYTES} bytes at least, not {length}")
    raw_fill(request, LE_URING_WAITID, integer_within(id, "id", 0, INT32_MAX), NULL,
             integer_within(idtype, "idtype", 0, INT32_MAX), <uintptr_t>memory)
    request.core.sqe.file_index = integer_within(options, "options", 0, INT32_MAX)
    return raw_start(request)


add_raw_method("waitid", _waitid)


# -- Futexes -----------------------------------------------------------------------------------------------------------

cdef char *word(Request request, object buffer) except NULL:
    """The word of a futex: four bytes, aligned, in memory that others write to as well."""
    cdef Py_buffer view
    cdef object held = memoryview(buffer)
    PyObject_GetBuffer(held, &view, PyBUF_SIMPLE)
    cdef char *memory = <char *>view.buf
    cdef Py_ssize_t length = view.len
    PyBuffer_Release(&view)
    if length < FUTEX_BYTES or <uintptr_t>memory % FUTEX_BYTES:
        raise ValueError(f"futex must have {FUTEX_BYTES} bytes at least, and their address has to be a multiple of that")
    hold(request, held)
    return memory


cdef object futex_request(object self, unsigned opcode, object futex, object value, object callback, object mask,
                          object futex_flags, object flags):
    cdef Request request = raw_new(self, callback, flags, None)
    raw_fill(request, opcode, integer_within(futex_flags, "futex_flags", 0, INT32_MAX), word(request, futex), 0,
             integer_within(value, "value", 0, UINT32_MAX))
    request.core.sqe.addr3 = integer_within(mask, "mask", 1, UINT32_MAX)
    return raw_start(request)


@cython.binding(True)
def _futex_wait(self, futex, value, callback=None, *, mask=0xffffffff, futex_flags=2, flags=0):
    """Wait until a futex is woken.

    :param futex: a contiguous buffer that begins with the word of the futex, four bytes at an address that is a multiple of
        four: an ``mmap.mmap``, an ``array.array``, a ctypes object.
    :param value: what the word has to be, an int of 32 bits without sign.
    :param callback, flags: as for ``nop``.
    :param mask: an int of 32 bits, not 0: those who wake it must have a bit in common with it.
    :param futex_flags: an int, FUTEX2_*: 2, a word of 32 bits that several processes may share, or with 128 one that only this
        process has.
    :returns: the ``Request``; ``res`` is 0 when it was woken, -EAGAIN if the word is another one.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FUTEX_WAIT (Linux 6.7). See futex(2).
    """
    return futex_request(self, LE_URING_FUTEX_WAIT, futex, value, callback, mask, futex_flags, flags)


add_raw_method("futex_wait", _futex_wait)


@cython.binding(True)
def _futex_wake(self, futex, value=1, callback=None, *, mask=0xffffffff, futex_flags=2, flags=0):
    """Wake those who wait for a futex.

    :param futex, mask, futex_flags: as for ``futex_wait``.
    :param value: how many at most, an int.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is how many were woken.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FUTEX_WAKE (Linux 6.7). See futex(2).
    """
    return futex_request(self, LE_URING_FUTEX_WAKE, futex, value, callback, mask, futex_flags, flags)


add_raw_method("futex_wake", _futex_wake)


@cython.binding(True)
def _futex_waitv(self, waiters, callback=None, *, futex_flags=2, flags=0):
    """Wait until one of several futexes is woken.

    :param waiters: an iterable of pairs ``(futex, value)``, as for ``futex_wait``, 1 .. 128.
    :param callback, flags: as for ``nop``.
    :param futex_flags: as for ``futex_wait``, for all of them.
    :returns: the ``Request``; ``res`` is the place of the one that was woken, -EAGAIN if a word is another one.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_FUTEX_WAITV (Linux 6.7). See futex_waitv(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef list pairs = [(futex, value) for futex, value in waiters]
    cdef futex_waiter *table
    cdef Py_ssize_t place
    cdef uint32_t how = integer_within(futex_flags, "futex_flags", 0, INT32_MAX)
    if not 0 < len(pairs) <= FUTEX_WAITV_MAX:
        raise ValueError(f"waiters must be 1 .. {FUTEX_WAITV_MAX}, not {len(pairs)}")
    table = <futex_waiter *>raw_memory(request, len(pairs) * sizeof(futex_waiter))
    for place in range(len(pairs)):
        futex, value = pairs[place]
        table[place].address = <uintptr_t>word(request, futex)
        table[place].value = integer_within(value, "value", 0, UINT32_MAX)
        table[place].flags = how
    raw_fill(request, LE_URING_FUTEX_WAITV, 0, table, len(pairs), 0)
    return raw_start(request)


add_raw_method("futex_waitv", _futex_waitv)


# -- epoll -------------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _epoll_ctl(self, epoll_fd, op, fd, events=0, data=0, callback=None, *, flags=0):
    """Change what an epoll instance watches.

    :param epoll_fd: an int, or an object with ``fileno()``, such as ``select.epoll``.
    :param op: an int, EPOLL_CTL_ADD (1), EPOLL_CTL_DEL (2) or EPOLL_CTL_MOD (3).
    :param fd: what is watched, an int, or an object with ``fileno()``.
    :param events: an int, ``select.EPOLLIN`` and so on.
    :param data: an int of 64 bits, which is told with the events; ``select.epoll`` wants the fd there.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_EPOLL_CTL. See epoll_ctl(2).
    """
    cdef Request request = raw_new(self, callback, flags, (epoll_fd, fd))
    cdef epoll_event *event = <epoll_event *>raw_memory(request, sizeof(epoll_event))
    event.events = integer_within(events, "events", 0, UINT32_MAX)
    event.data.u64 = <uint64_t>integer_within(data, "data", INT64_MIN, INT64_MAX)
    raw_fill(request, IORING_OP_EPOLL_CTL, raw_fd(request, epoll_fd), event, integer_within(op, "op", 0, INT32_MAX),
             raw_fd(request, fd))
    return raw_start(request)


add_raw_method("epoll_ctl", _epoll_ctl)


@cython.binding(True)
def _epoll_wait(self, epoll_fd, buffer, callback=None, *, flags=0):
    """Wait for events of an epoll instance.

    :param epoll_fd: as for ``epoll_ctl``.
    :param buffer: a writable, contiguous buffer for an array of struct epoll_event, which has 12 bytes on x86-64, and
        16 elsewhere.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is the number of events.
    :raises ValueError: the buffer is too small for one.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_EPOLL_WAIT (Linux 6.15). See epoll_wait(2).
    """
    cdef Request request = raw_new(self, callback, flags, epoll_fd)
    cdef uint32_t length = 0
    cdef char *memory = raw_buffer(request, buffer, True, &length)
    if length < sizeof(epoll_event):
        raise ValueError(f"buffer must have {sizeof(epoll_event)} bytes at least, not {length}")
    raw_fill(request, LE_URING_EPOLL_WAIT, raw_fd(request, epoll_fd), memory, length // sizeof(epoll_event), 0)
    return raw_start(request)


add_raw_method("epoll_wait", _epoll_wait)


# -- Memory ------------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _madvise(self, buffer, advice, callback=None, *, flags=0):
    """Tell the kernel how memory is going to be used.

    :param buffer: a writable, contiguous buffer at the beginning of a page, such as an ``mmap.mmap``.
    :param advice: an int, such as ``mmap.MADV_WILLNEED``. Some, such as MADV_DONTNEED, take the contents away.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_MADVISE. See madvise(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef uint32_t length = 0
    cdef char *memory = raw_buffer(request, buffer, True, &length)
    raw_fill(request, IORING_OP_MADVISE, -1, memory, length, 0)
    request.core.sqe.rw_flags = integer_within(advice, "advice", 0, INT32_MAX)
    return raw_start(request)


add_raw_method("madvise", _madvise)
