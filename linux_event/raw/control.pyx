"""Raw requests about requests: nothing, readiness, time, cancellation, messages between rings, buffers that are provided."""

cimport cython
from libc.stdint cimport INT32_MAX, UINT32_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from linux_event.arguments cimport callable_argument, flag_argument, integer_within, seconds_to_ns
from linux_event.core cimport LE_LOOP_OPEN, LE_NS_PER_S, le_raw_drop_all, le_watcher_unpend
from linux_event.liburing cimport IOSQE_FIXED_FILE, __kernel_timespec
from linux_event.operation cimport Operation
from linux_event.raw.request cimport (
    Request, hold, inbox_new, message_address, raw_buffer, raw_fd, raw_fill, raw_many, raw_memory, raw_new, raw_start, raw_target,
)
from linux_event.uring cimport Ring, add_raw_method, registered_of, ring_guard

from linux_event.errors import LoopClosedError

cdef extern from "le_compat.h" nogil:
    enum:
        IORING_ASYNC_CANCEL_FD
        IORING_ASYNC_CANCEL_FD_FIXED
        IORING_CQE_F_MORE
        IORING_LINK_TIMEOUT_UPDATE
        IORING_MSG_RING_FLAGS_PASS
        IORING_OP_ASYNC_CANCEL
        IORING_OP_LINK_TIMEOUT
        IORING_OP_MSG_RING
        IORING_OP_NOP
        IORING_OP_POLL_ADD
        IORING_OP_POLL_REMOVE
        IORING_OP_PROVIDE_BUFFERS
        IORING_OP_REMOVE_BUFFERS
        IORING_OP_TIMEOUT
        IORING_OP_TIMEOUT_REMOVE
        IORING_POLL_ADD_MULTI
        IORING_POLL_UPDATE_EVENTS
        IORING_TIMEOUT_MULTISHOT
        IORING_TIMEOUT_UPDATE


@cython.binding(True)
def _nop(self, callback=None, *, flags=0):
    """Do nothing, and say so.

    :param callback: ``callback(res, flags)``, two ints: what the kernel says, a negative errno on failure, and CQE_F_* flags.
        Never called within this method. For a request that is answered many times it is called each time, and the last time
        is the one without ``CQE_F_MORE``. None: ``Request.result()`` has ``res`` when it is done.
    :param flags: how the request is treated, an int, 0 or ``Ring.FIXED_FILE`` (the fd is the place of a direct descriptor, see
        ``register_files``), ``IO_LINK``, ``IO_HARDLINK`` (the next request begins after this one), ``ASYNC``,
        ``CQE_SKIP_SUCCESS`` (the callback hears of failures only), ``IO_DRAIN`` (all requests before it have to end, which those
        of a loop do not: for a ring that is used alone, and not after ``Request.cancel``).
    :returns: the ``Request``; ``res`` is 0.
    :raises NotImplementedError: the running kernel does not have the operation; the message names one that has.
    :raises ValueError, TypeError: an argument is out of range, or has a wrong type.
    :raises OSError: an fd that is an int is not open (EBADF).
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Stands on IORING_OP_NOP. See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    raw_fill(request, IORING_OP_NOP, -1, NULL, 0, 0)
    return raw_start(request)


add_raw_method("nop", _nop)


# -- Readiness ---------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _poll_add(self, fd, events, callback=None, *, multishot=False, flags=0):
    """Wait until an fd is ready.

    :param fd: an int, or an object with ``fileno()``.
    :param events: an int, ``select.POLLIN`` and so on; errors and hang-ups are always told.
    :param callback, flags: as for ``nop``.
    :param multishot: True: tell every new event until the request is cancelled. See ``Loop.io`` for what to make of it.
    :returns: the ``Request``; ``res`` has the events that have come.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_POLL_ADD. See poll(2).
    """
    cdef Request request = raw_new(self, callback, flags, fd)
    cdef bint is_many = flag_argument(multishot, "multishot")
    if is_many:
        raw_many(request)
    raw_fill(request, IORING_OP_POLL_ADD, raw_fd(request, fd), NULL, IORING_POLL_ADD_MULTI if is_many else 0, 0)
    request.core.sqe.rw_flags = poll_events(events)
    return raw_start(request)


cdef uint32_t poll_events(object events) except? 0:
    cdef uint32_t mask = integer_within(events, "events", 0, UINT32_MAX)
    return (mask << 16 | mask >> 16) if IS_BIG_ENDIAN else mask


cdef extern from *:
    """
    #define LE_IS_BIG_ENDIAN (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
    """
    bint IS_BIG_ENDIAN "LE_IS_BIG_ENDIAN"


add_raw_method("poll_add", _poll_add)


@cython.binding(True)
def _poll_remove(self, request, callback=None, *, flags=0):
    """End a ``poll_add``, whose callback gets -ECANCELED.

    :param request: the ``Request``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request`` of this; ``res`` is 0, -ENOENT if it is over, or -EALREADY if it is just ending.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_POLL_REMOVE. See io_uring_enter(2).
    """
    cdef Request made = raw_new(self, callback, flags, None)
    raw_fill(made, IORING_OP_POLL_REMOVE, -1, <void *><uintptr_t>raw_target(made, request), 0, 0)
    return raw_start(made)


add_raw_method("poll_remove", _poll_remove)


@cython.binding(True)
def _poll_update(self, request, events, callback=None, *, multishot=False, flags=0):
    """Change the events that a ``poll_add`` waits for.

    :param request: the ``Request`` of ``poll_add``.
    :param events: an int, ``select.POLLIN`` and so on.
    :param callback, flags: as for ``nop``.
    :param multishot: True: it is to be answered many times from now on.
    :returns: the ``Request`` of this; ``res`` is 0, -ENOENT if that one is over, or -EALREADY if it is just ending.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_POLL_REMOVE with IORING_POLL_UPDATE_EVENTS. See io_uring_enter(2).
    """
    cdef Request made = raw_new(self, callback, flags, None)
    cdef uint32_t how = IORING_POLL_UPDATE_EVENTS | (IORING_POLL_ADD_MULTI if flag_argument(multishot, "multishot") else 0)
    raw_fill(made, IORING_OP_POLL_REMOVE, -1, <void *><uintptr_t>raw_target(made, request), how, 0)
    made.core.sqe.rw_flags = poll_events(events)
    return raw_start(made)


add_raw_method("poll_update", _poll_update)


# -- Time --------------------------------------------------------------------------------------------------------------

cdef __kernel_timespec *moment(Request request, object seconds) except NULL:
    cdef __kernel_timespec *at = <__kernel_timespec *>raw_memory(request, sizeof(__kernel_timespec))
    cdef int64_t ns = seconds_to_ns(seconds, "after")
    at.tv_sec = ns // LE_NS_PER_S
    at.tv_nsec = ns % LE_NS_PER_S
    return at


@cython.binding(True)
def _timeout(self, after, callback=None, *, count=0, timeout_flags=0, flags=0):
    """Wait for a time, or for a number of completions.

    :param after: seconds, int or float, 0 or more; with ``Ring.TIMEOUT_ABS`` a time of the clock, that of ``time.monotonic``.
    :param callback, flags: as for ``nop``.
    :param count: end it, with 0, after this many other completions, an int, 0 or more; 0: never.
    :param timeout_flags: an int made of ``Ring.TIMEOUT_ABS``, ``TIMEOUT_BOOTTIME`` or ``TIMEOUT_REALTIME`` (the clock),
        ``TIMEOUT_ETIME_SUCCESS`` (what is linked goes on), ``TIMEOUT_MULTISHOT`` (again and again, ``count`` times, 0: for ever).
    :returns: the ``Request``; ``res`` is -ETIME when the time has come.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_TIMEOUT. See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef uint32_t how = integer_within(timeout_flags, "timeout_flags", 0, UINT32_MAX)
    if how & IORING_TIMEOUT_MULTISHOT:
        raw_many(request)
    raw_fill(request, IORING_OP_TIMEOUT, -1, moment(request, after), 1, integer_within(count, "count", 0, UINT32_MAX))
    request.core.sqe.rw_flags = how
    return raw_start(request)


add_raw_method("timeout", _timeout)


@cython.binding(True)
def _timeout_remove(self, request, callback=None, *, flags=0):
    """End a ``timeout``, whose callback gets -ECANCELED.

    :param request: the ``Request``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request`` of this; ``res`` is 0, or -ENOENT if that one is over.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_TIMEOUT_REMOVE. See io_uring_enter(2).
    """
    cdef Request made = raw_new(self, callback, flags, None)
    raw_fill(made, IORING_OP_TIMEOUT_REMOVE, -1, <void *><uintptr_t>raw_target(made, request), 0, 0)
    return raw_start(made)


add_raw_method("timeout_remove", _timeout_remove)


@cython.binding(True)
def _timeout_update(self, request, after, callback=None, *, timeout_flags=0, flags=0):
    """Give a ``timeout`` or ``link_timeout`` another time.

    :param request: the ``Request``.
    :param after: seconds from now, int or float, 0 or more; with ``Ring.TIMEOUT_ABS`` a time of the clock.
    :param callback, flags: as for ``nop``.
    :param timeout_flags: an int, 0 or ``Ring.TIMEOUT_ABS`` with the clock that the request has.
    :returns: the ``Request`` of this; ``res`` is 0, or -ENOENT if that one is over.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_TIMEOUT_REMOVE with IORING_TIMEOUT_UPDATE. See io_uring_enter(2).
    """
    cdef Request made = raw_new(self, callback, flags, None)
    cdef uint64_t target = raw_target(made, request)
    cdef uint32_t how = IORING_TIMEOUT_UPDATE | integer_within(timeout_flags, "timeout_flags", 0, UINT32_MAX)
    raw_fill(made, IORING_OP_TIMEOUT_REMOVE, -1, <void *><uintptr_t>target, 0, <uintptr_t>moment(made, after))
    if (<Operation>request).core.sqe.opcode == IORING_OP_LINK_TIMEOUT:
        how |= IORING_LINK_TIMEOUT_UPDATE
    made.core.sqe.rw_flags = how
    return raw_start(made)


add_raw_method("timeout_update", _timeout_update)


@cython.binding(True)
def _link_timeout(self, after, callback=None, *, timeout_flags=0, flags=0):
    """Limit the time of the request before this one, which has the flag ``Ring.IO_LINK``: it is cancelled when the time is up.

    :param after: seconds, int or float, 0 or more, from the moment that the other request begins.
    :param callback, flags: as for ``nop``.
    :param timeout_flags: as for ``timeout``.
    :returns: the ``Request``; ``res`` is -ETIME if it has cancelled the other one, -EALREADY if it could not, -ECANCELED if that
        one was done in time, -EINVAL if no request is linked to this.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_LINK_TIMEOUT. See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    raw_fill(request, IORING_OP_LINK_TIMEOUT, -1, moment(request, after), 1, 0)
    request.core.sqe.rw_flags = integer_within(timeout_flags, "timeout_flags", 0, UINT32_MAX)
    return raw_start(request)


add_raw_method("link_timeout", _link_timeout)


# -- Cancellation ------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _cancel(self, request, callback=None, *, cancel_flags=0, flags=0):
    """Ask the kernel to end a request, or one on an fd. Its callback gets -ECANCELED as a rule: it may have been done before.

    :param request: a ``Request`` of this ring, or an fd: an int or an object with ``fileno()``, with ``Ring.FIXED_FILE`` in
        ``flags`` the place of a direct descriptor.
    :param callback, flags: as for ``nop``.
    :param cancel_flags: an int, 0 or ``Ring.ASYNC_CANCEL_ALL``: all requests on the fd. On ``loop.ring`` the loop's watchers and
        operations are among them; watchers that are hit begin anew.
    :returns: the ``Request`` of this; ``res`` is 0, or the number of requests that were ended; -ENOENT if there was none;
        -EALREADY if it could not be ended any more.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_ASYNC_CANCEL. See io_uring_enter(2).
    """
    cdef Request made = raw_new(self, callback, flags, request)
    cdef uint32_t how = integer_within(cancel_flags, "cancel_flags", 0, 1)
    cdef int fd = -1
    cdef uint64_t target = 0
    if isinstance(request, Operation):
        target = raw_target(made, request)
    else:
        fd = raw_fd(made, request)
        how |= IORING_ASYNC_CANCEL_FD
        if made.raw.flags & IOSQE_FIXED_FILE:
            how |= IORING_ASYNC_CANCEL_FD_FIXED
            made.raw.flags ^= IOSQE_FIXED_FILE
    raw_fill(made, IORING_OP_ASYNC_CANCEL, fd, <void *><uintptr_t>target, 0, 0)
    made.core.sqe.rw_flags = how
    return raw_start(made)


add_raw_method("cancel", _cancel)


# -- Messages between rings --------------------------------------------------------------------------------------------

@cython.binding(True)
def _msg_ring(self, ring, value, callback=None, *, flags=0):
    """Send an int to another ring, of whatever thread: its ``on_message`` is called.

    :param ring: a ``Ring``, which has to have been used before: the ring of a loop that has run, or one that has submitted.
    :param value: an int, 0 .. 2147483647.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0 when the message stands in the other ring's queue, -EBADFD if that has not been used.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``;
        LoopClosedError also if the other ring is closed.

    Stands on IORING_OP_MSG_RING, and on IORING_MSG_RING_FLAGS_PASS of Linux 6.3. See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    if not isinstance(ring, Ring) or (<Ring>ring).owner is None:
        raise TypeError(f"ring must be a Ring, not {type(ring).__name__} ({ring!r})")
    if (<Ring>ring).owner.core.state != LE_LOOP_OPEN:
        raise LoopClosedError(f"ring is closed: {ring!r}")
    hold(request, ring)
    raw_fill(request, IORING_OP_MSG_RING, (<Ring>ring).owner.core.ring.uring.ring_fd, NULL,
             integer_within(value, "value", 0, INT32_MAX), message_address())
    request.core.sqe.rw_flags = IORING_MSG_RING_FLAGS_PASS
    request.core.sqe.file_index = IORING_CQE_F_MORE
    return raw_start(request)


add_raw_method("msg_ring", _msg_ring)


@cython.binding(True)
def _set_on_message(self, callback):
    """Hear of the messages that other rings send with ``msg_ring``.

    :param callback: ``callback(res, flags)``, ``res`` the int that was sent; None: messages are dropped. It does not keep
        ``Loop.run`` going.
    :raises TypeError: ``callback`` is neither callable nor None.
    :raises LoopClosedError, WrongThreadError: as told by their names.
    """
    cdef Request inbox = None
    if callback is not None:
        callable_argument(callback, "callback")
        inbox = inbox_new(self, callback)
    elif not isinstance(self, Ring):
        raise TypeError(f"ring must be a Ring, not {type(self).__name__} ({self!r})")
    ring_guard(<Ring>self)
    cdef dict registered = registered_of((<Ring>self).owner)
    cdef Request former = registered.pop("inbox", None)
    if former is not None:
        (<Ring>self).owner.core.inbox = NULL
        le_raw_drop_all(&former.owner.core, &former.core)  # what has come and was not told yet
        le_watcher_unpend(&former.owner.core, &former.core.head)
    if inbox is not None:
        registered["inbox"] = inbox
        (<Ring>self).owner.core.inbox = &inbox.core.op


add_raw_method("on_message", _set_on_message)


# -- Buffers that the kernel chooses from ------------------------------------------------------------------------------

@cython.binding(True)
def _provide_buffers(self, buffer, size, count, group, first=0, callback=None, *, flags=0):
    """Give the kernel buffers to choose from: those of a group serve requests with the argument ``group``.

    :param buffer: a writable, contiguous buffer that the buffers are cut from, in its order. It is held until the ring is closed.
    :param size: bytes of each, an int, 1 or more.
    :param count: how many, an int, 1 .. 65536.
    :param group: their group, an int, 0 .. 65535.
    :param first: the number of the first one, an int, 0 .. 65535; the callback of a request that has filled a buffer gets
        its number by ``flags >> Ring.CQE_BUFFER_SHIFT``.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is 0.
    :raises ValueError: the buffer is smaller than ``count`` times ``size``.
    :raises NotImplementedError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    A buffer that was filled is the kernel's again when it is provided again. Stands on IORING_OP_PROVIDE_BUFFERS.
    See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    cdef uint32_t length = 0
    cdef int64_t each = integer_within(size, "size", 1, INT32_MAX)
    cdef int64_t number = integer_within(count, "count", 1, 65536)
    cdef char *memory = raw_buffer(request, buffer, True, &length)
    if each * number > length:
        raise ValueError(f"buffer must have count * size bytes, {each * number}, not {length}")
    raw_fill(request, IORING_OP_PROVIDE_BUFFERS, number, memory, each, integer_within(first, "first", 0, 65535))
    request.core.sqe.buf_index = integer_within(group, "group", 0, 65535)
    # One entry for a piece of memory, however often it is provided.
    registered_of(request.owner).setdefault("provided", {})[<uintptr_t>memory, length] = memoryview(buffer)
    return raw_start(request)


add_raw_method("provide_buffers", _provide_buffers)


@cython.binding(True)
def _remove_buffers(self, count, group, callback=None, *, flags=0):
    """Take buffers back that were provided and not used.

    :param count: how many at most, an int, 1 .. 65536.
    :param group: their group, an int, 0 .. 65535.
    :param callback, flags: as for ``nop``.
    :returns: the ``Request``; ``res`` is their number, or -ENOENT if there is no such group.
    :raises NotImplementedError, ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``nop``.

    Stands on IORING_OP_REMOVE_BUFFERS. See io_uring_enter(2).
    """
    cdef Request request = raw_new(self, callback, flags, None)
    raw_fill(request, IORING_OP_REMOVE_BUFFERS, integer_within(count, "count", 1, 65536), NULL, 0, 0)
    request.core.sqe.buf_index = integer_within(group, "group", 0, 65535)
    return raw_start(request)


add_raw_method("remove_buffers", _remove_buffers)
