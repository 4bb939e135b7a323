"""The ring: the two queues shared with the kernel. The only module that links liburing.

A ring is opened disabled and belongs to nobody; the thread that enables it is the only one that may use it from then on
(IORING_SETUP_SINGLE_ISSUER). Under IORING_SETUP_DEFER_TASKRUN the kernel does nothing behind that thread's back: work is put
off until the thread enters the kernel, which makes a completion cheap and its readiness fresh.
"""

from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.string cimport memset
from linux_event.core cimport LE_NS_PER_S, LE_RING_ABI, le_ring, le_ring_ops, le_ring_publish, le_ring_sq_flags
from linux_event.liburing cimport (
    IORING_ENTER_EXT_ARG, IORING_ENTER_GETEVENTS, IORING_ENTER_NO_IOWAIT, IORING_ENTER_SQ_WAIT, IORING_ENTER_SQ_WAKEUP,
    IORING_FEAT_NO_IOWAIT, IORING_REGISTER_FILES2, IORING_REGISTER_PBUF_RING, IORING_RSRC_REGISTER_SPARSE, IORING_SETUP_CQSIZE,
    IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_R_DISABLED,
    IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_SQPOLL, IORING_SETUP_SUBMIT_ALL, IORING_SETUP_TASKRUN_FLAG,
    IORING_SQ_CQ_OVERFLOW, IORING_SQ_NEED_WAKEUP, IORING_UNREGISTER_PBUF_RING, LE_REGISTER_ENABLE_RINGS,
    __kernel_timespec, io_uring_buf_reg, io_uring_free_probe,
    io_uring_get_probe_ring, io_uring_getevents_arg, io_uring_opcode_supported, io_uring_params, io_uring_probe,
    io_uring_queue_exit, io_uring_queue_init_params, io_uring_register_eventfd, io_uring_ring_dontfork, io_uring_rsrc_register,
    io_uring_unregister_eventfd,
)
from linux_event.linux cimport SYS_io_uring_enter, SYS_io_uring_register, nanosleep, syscall, timespec

import os

from linux_event.errors import UringUnavailableError

cdef extern from "<liburing.h>":
    """
    #ifdef IO_URING_VERSION_MAJOR
    #define LE_LIBURING_VERSION Py_STRINGIFY(IO_URING_VERSION_MAJOR) "." Py_STRINGIFY(IO_URING_VERSION_MINOR)
    #else
    #define LE_LIBURING_VERSION ""
    #endif
    """
    const char *LE_LIBURING_VERSION

# A kernel that is short of locked memory is asked again after 1, 2, 4 ... milliseconds, half a second in all: memory of rings
# that were closed is given back to the account of the user some time later. Then smaller queues are tried, down to the floor.
cdef enum:
    RETRY_FIRST_NS = 1_000_000
    RETRY_TOTAL_NS = 500_000_000
    ENTRIES_FLOOR = 8


cdef int uring_open(le_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags) noexcept nogil:
    cdef io_uring_params params
    memset(&params, 0, sizeof(params))
    params.flags = flags
    if cq_entries:
        params.flags |= IORING_SETUP_CQSIZE
        params.cq_entries = cq_entries
    cdef int error = io_uring_queue_init_params(entries, &ring.uring, &params)
    if error:
        return error
    # A child must never be able to submit into the ring of its parent. The queues are mapped without inheritance.
    error = io_uring_ring_dontfork(&ring.uring)
    if error:
        io_uring_queue_exit(&ring.uring)
        return error
    ring.enter_flags = IORING_ENTER_NO_IOWAIT if params.features & IORING_FEAT_NO_IOWAIT else 0
    return 0


cdef int uring_enable(le_ring *ring) noexcept nogil:
    if syscall(SYS_io_uring_register, ring.uring.ring_fd, LE_REGISTER_ENABLE_RINGS, NULL, 0) < 0:
        return -errno
    return 0


cdef int uring_enter(le_ring *ring, uint32_t wait_nr, int64_t timeout_ns) noexcept nogil:
    cdef __kernel_timespec limit
    cdef io_uring_getevents_arg arg
    cdef uint32_t to_submit = le_ring_publish(ring)
    cdef uint32_t flags = IORING_ENTER_GETEVENTS | ring.enter_flags
    cdef uint32_t sq_flags = le_ring_sq_flags(ring)
    cdef io_uring_getevents_arg *given = NULL
    if wait_nr and timeout_ns >= 0:
        limit.tv_sec = timeout_ns // LE_NS_PER_S
        limit.tv_nsec = timeout_ns % LE_NS_PER_S
        memset(&arg, 0, sizeof(arg))
        arg.ts = <uintptr_t>&limit
        given = &arg
        flags |= IORING_ENTER_EXT_ARG
    if sq_flags & IORING_SQ_CQ_OVERFLOW:
        ring.cq_overflows += 1
    if ring.is_polled:
        if sq_flags & IORING_SQ_NEED_WAKEUP:
            flags |= IORING_ENTER_SQ_WAKEUP
        if not wait_nr and to_submit:
            flags |= IORING_ENTER_SQ_WAIT  # until the kernel's thread has made room in the queue
    ring.syscalls += 1
    cdef long taken = syscall(SYS_io_uring_enter, ring.uring.ring_fd, to_submit, wait_nr, flags, given,
                              sizeof(arg) if given != NULL else 0)
    return <int>taken if taken >= 0 else -errno


cdef void uring_close(le_ring *ring) noexcept nogil:
    io_uring_queue_exit(&ring.uring)


cdef le_ring_ops uring_ops
uring_ops.abi = LE_RING_ABI
uring_ops.open = uring_open
uring_ops.enable = uring_enable
uring_ops.enter = uring_enter
uring_ops.close = uring_close

cdef const le_ring_ops *current_ops
current_ops = &uring_ops


cdef const le_ring_ops *production_ops() noexcept nogil:
    """The operations that stand on io_uring."""
    return &uring_ops


cdef int use_ring_ops(const le_ring_ops *ops) except -1:
    """Let rings opened from now on use the given operations; NULL: those of io_uring. The table must live for ever."""
    global current_ops
    if ops != NULL and ops.abi != LE_RING_ABI:
        raise ValueError(f"ring operations of ABI {ops.abi}, this build has {LE_RING_ABI}: rebuild the extension")
    if ops == NULL:
        current_ops = &uring_ops
    else:
        current_ops = ops
    return 0


cdef int open_retrying(le_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags) noexcept nogil:
    cdef timespec pause
    cdef int64_t pause_ns = RETRY_FIRST_NS
    cdef int64_t total_ns = 0
    cdef int error = ring.ops.open(ring, entries, cq_entries, flags)
    while (error == -ENOMEM or error == -EAGAIN or error == -EINTR) and total_ns < RETRY_TOTAL_NS:
        pause.tv_sec = 0
        pause.tv_nsec = pause_ns
        nanosleep(&pause, NULL)
        total_ns += pause_ns
        pause_ns *= 2
        error = ring.ops.open(ring, entries, cq_entries, flags)
    return error


cdef int open_ring(le_ring *ring, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1:
    """Open a disabled ring.

    Where the limit on locked memory refuses the sizes asked for, smaller queues are taken, the completion queue shrinking
    first: the loop works with any size, it only enters the kernel more often. Raises UringUnavailableError, which names the
    cause, or OSError where the process is out of fds.
    """
    cdef uint32_t flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL
    cdef uint32_t smaller
    cdef uint32_t cq_smaller
    cdef int error
    if sqpoll:
        flags |= IORING_SETUP_SQPOLL
    else:
        flags |= IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG
    ring.ops = current_ops
    with nogil:
        error = open_retrying(ring, entries, cq_entries, flags)
        if error == -ENOMEM:
            smaller = entries
            cq_smaller = cq_entries if cq_entries else 2 * entries
            while error == -ENOMEM and (smaller > ENTRIES_FLOOR or cq_smaller > smaller):
                if cq_smaller > smaller:
                    cq_smaller = smaller
                else:
                    smaller = max(smaller // 2, <uint32_t>ENTRIES_FLOOR)
                    cq_smaller = 2 * smaller
                error = ring.ops.open(ring, smaller, cq_smaller, flags)
    if error:
        raise_refused(-error, entries, cq_entries)
    ring.is_open = True
    ring.is_polled = sqpoll
    return 0


cdef int register_with(le_ring *ring, unsigned opcode, const void *what, unsigned count) noexcept nogil:
    """Give the kernel something to keep, or change what it keeps. Returns what it answers, or -errno."""
    cdef long result = syscall(SYS_io_uring_register, ring.uring.ring_fd, opcode, what, count)
    return <int>result if result >= 0 else -errno


cdef int ask_operations(le_ring *ring, uint8_t *supported) except -1:
    """What the kernel knows: supported[operation] is 1 or 0, for 256 operations."""
    cdef io_uring_probe *answer = io_uring_get_probe_ring(&ring.uring)
    cdef int operation
    memset(supported, 0, 256)
    if answer == NULL:
        return 0
    for operation in range(256):
        supported[operation] = io_uring_opcode_supported(answer, operation)
    io_uring_free_probe(answer)
    return 0


cdef int tell_by_eventfd(le_ring *ring, int fd, bint is_told) noexcept nogil:
    """Let the kernel add to the eventfd whenever there is something to take. is_told: it does already, and begins anew.
    Returns 0 or -errno."""
    if is_told:
        io_uring_unregister_eventfd(&ring.uring)
    return io_uring_register_eventfd(&ring.uring, fd)


cdef int register_buffer_ring(le_ring *ring, void *buffers, uint32_t entries, uint16_t group) noexcept nogil:
    """Give the kernel a ring of provided buffers; NULL: take back that of the group. Returns 0 or -errno."""
    cdef io_uring_buf_reg asked
    memset(&asked, 0, sizeof(asked))
    asked.ring_addr = <uintptr_t>buffers
    asked.ring_entries = entries
    asked.bgid = group
    return register_with(ring, IORING_REGISTER_PBUF_RING if buffers != NULL else IORING_UNREGISTER_PBUF_RING, &asked, 1)


cdef int register_slots(le_ring *ring, uint32_t count) noexcept nogil:
    """Give the ring a table of `count` files, all empty, for direct descriptors. Returns 0 or -errno."""
    cdef io_uring_rsrc_register asked
    memset(&asked, 0, sizeof(asked))
    asked.nr = count
    asked.flags = IORING_RSRC_REGISTER_SPARSE
    ring.syscalls += 1
    return register_with(ring, IORING_REGISTER_FILES2, &asked, sizeof(asked))


cdef raise_refused(int error, uint32_t entries, uint32_t cq_entries):
    if error == EMFILE or error == ENFILE:
        raise OSError(error, os.strerror(error))
    from linux_event import diagnosis
    raise UringUnavailableError(error, diagnosis.explain(error, entries, cq_entries))


def liburing_version():
    """The version of liburing that this build was compiled with, such as ``"2.3"``; empty where its headers do not tell."""
    return LE_LIBURING_VERSION.decode()


def probe():
    """Ask the running kernel what its io_uring can do.

    Returns a dict with ``"features"`` and ``"operations"``, each a tuple of names in the kernel's order (such as
    ``"EXT_ARG"`` and ``"POLL_ADD"``). Raises UringUnavailableError where io_uring is refused. Stands on
    IORING_REGISTER_PROBE; see io_uring_register(2).
    """
    from linux_event.diagnosis import FEATURE_NAMES, OPERATION_NAMES
    cdef le_ring ring
    memset(&ring, 0, sizeof(ring))
    open_ring(&ring, ENTRIES_FLOOR, 0, False)
    cdef uint8_t supported[256]
    try:
        ask_operations(&ring, supported)
        features = tuple([name for bit, name in enumerate(FEATURE_NAMES) if ring.uring.features >> bit & 1])
        operations = tuple([name for code, name in enumerate(OPERATION_NAMES) if supported[code]])
    finally:
        ring.ops.close(&ring)
    return {"features": features, "operations": operations}
