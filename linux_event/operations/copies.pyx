"""Copying a whole file: copy_file."""

cimport cython
from libc.errno cimport EINTR, EINVAL, EISDIR, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t
from linux_event.core cimport (
    LE_OP_AGAIN, LE_OP_END, LE_OP_FINISHED, LE_OP_IDLE, LE_OP_QUEUED, LE_OPERATION_OF_OP, le_link, le_loop, le_op, le_op_owner,
    le_op_verdict, le_operation, le_operation_end, le_operation_is_unwanted, le_transfer, le_transfer_answer,
    le_transfer_release,
)
from linux_event.liburing cimport io_uring_prep_close, io_uring_prep_openat, io_uring_prep_statx, le_prep_ftruncate
from linux_event.linux cimport (
    AT_EMPTY_PATH, AT_FDCWD, ECANCELED, O_CLOEXEC, O_CREAT, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_WRONLY, S_ISDIR, S_ISFIFO, S_ISREG,
    STATX_BASIC_STATS, ftruncate, statx,
)
from linux_event.loop cimport add_method
from linux_event.operation cimport Operation, kind_begin, operation_begin, operation_kind, operation_path, operation_start
from linux_event.operations.paths cimport kernel_truncates
from linux_event.requests cimport op_stop
from linux_event.transfer cimport Transfer, transfer_fill, transfer_next

import os

cdef operation_kind copy_kind
copy_kind.is_composite = True
copy_kind.result = result_copy
copy_kind.abort = abort_copy
kind_begin(&copy_kind, "copy_file")
copy_kind.request.on_cqe = on_copy

# What core.op does, in op.bits. The order is that of the work.
cdef enum copy_stage:
    OPENING_SOURCE
    LOOKING_AT_SOURCE
    OPENING_TARGET
    LOOKING_AT_TARGET
    CUTTING
    MOVING
    STRETCHING
    CLOSING_TARGET
    CLOSING_SOURCE


cdef struct file_identity:
    uint32_t major
    uint32_t minor
    uint64_t inode


@cython.final
cdef class Copy(Transfer):
    """The requests of a copy follow each other through the stages; what was opened is closed however it ends."""

    cdef statx found
    cdef const char *target_path
    cdef file_identity identity  # of the source
    cdef bint is_same            # source and target are the same file
    cdef bint is_truncated       # the target is cut by a request; else by a call
    cdef int failed_at           # the stage of move.failure


# -- The stages --------------------------------------------------------------------------------------------------------

cdef le_op_verdict on_copy(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef void *owner = le_op_owner(op)
    cdef bint is_unwanted = le_operation_is_unwanted(LE_OPERATION_OF_OP(op))
    cdef le_transfer *move = &(<Copy>owner).move
    if op.bits >= CLOSING_TARGET:
        return on_closed(loop, op, result)
    if op.bits == MOVING:
        le_transfer_answer(move, result)
    elif result == -EINTR and not is_unwanted:
        return LE_OP_AGAIN
    elif result < 0:
        move.failure = result
    elif op.bits == OPENING_SOURCE:
        move.in_fd = result
    elif op.bits == OPENING_TARGET:
        move.out_fd = result
    if not is_unwanted:
        if not move.failure and next_stage(loop, owner):
            return LE_OP_AGAIN
    elif not move.failure:
        move.failure = -ECANCELED
    return begin_closing(loop, owner, &loop.to_rearm)


cdef bint next_stage(le_loop *loop, void *owner) noexcept nogil:
    """Fill the entry of the next request; False: there is none, or the copy has failed."""
    cdef le_operation *operation = &(<Copy>owner).core
    cdef le_op *op = &operation.op
    cdef le_transfer *move = &(<Copy>owner).move
    cdef statx *found = &(<Copy>owner).found
    cdef bint is_regular = S_ISREG(found.stx_mode)
    if op.bits == OPENING_SOURCE or op.bits == OPENING_TARGET:
        op.bits += 1
        io_uring_prep_statx(&operation.sqe, move.in_fd if op.bits == LOOKING_AT_SOURCE else move.out_fd, b"", AT_EMPTY_PATH,
                            STATX_BASIC_STATS, <void *>found)
        return True
    if op.bits == LOOKING_AT_SOURCE:
        if S_ISDIR(found.stx_mode):
            move.failure = -EISDIR
            return False
        look_at_source(&(<Copy>owner).identity, move, found)
        op.bits = OPENING_TARGET
        # Not cut yet: it may be the source. A FIFO that nobody reads is refused, not waited for.
        io_uring_prep_openat(&operation.sqe, AT_FDCWD, (<Copy>owner).target_path,
                             O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, found.stx_mode & 0o777)
        return True
    if op.bits == LOOKING_AT_TARGET:
        if is_identical(&(<Copy>owner).identity, found):
            (<Copy>owner).is_same = True
            move.failure = -EINVAL
            return False
        move.out_offset = 0 if is_regular else -1
        move.is_sparse = move.is_sparse and is_regular
        move.may_link = move.may_link and is_regular and loop.ring.uring.sq.ring_entries > 1
        if is_regular and found.stx_size:
            op.bits = CUTTING
            if (<Copy>owner).is_truncated:
                le_prep_ftruncate(&operation.sqe, move.out_fd, 0)
                return True
            if ftruncate(move.out_fd, 0) < 0:
                move.failure = -errno
                return False
    if op.bits < MOVING:
        op.bits = MOVING
    if op.bits == STRETCHING:
        return False
    if transfer_next(loop, owner):
        return True
    if move.is_sparse and not move.failure:  # it may end with a hole, which nothing has been written behind
        op.bits = STRETCHING
        if (<Copy>owner).is_truncated:
            le_prep_ftruncate(&operation.sqe, move.out_fd, move.out_offset)
            return True
        if ftruncate(move.out_fd, move.out_offset) < 0:
            move.failure = -errno
    return False


cdef void look_at_source(file_identity *identity, le_transfer *move, const statx *found) noexcept nogil:
    identity.major, identity.minor, identity.inode = found.stx_dev_major, found.stx_dev_minor, found.stx_ino
    if S_ISREG(found.stx_mode):
        move.in_offset = 0
        move.size = found.stx_size
        move.may_link = True
        move.is_sparse = found.stx_blocks * 512 < found.stx_size
    # A FIFO tells the end as long as nobody has opened it for writing: the first who does is waited for.
    move.is_starved = S_ISFIFO(found.stx_mode)


cdef bint is_identical(const file_identity *identity, const statx *found) noexcept nogil:
    return (identity.inode == found.stx_ino and identity.major == found.stx_dev_major
            and identity.minor == found.stx_dev_minor)


# -- The end -----------------------------------------------------------------------------------------------------------

cdef le_op_verdict begin_closing(le_loop *loop, void *owner, le_link *queue) noexcept nogil:
    """Close what is open, both in one submission; `queue` is where core.op will stand behind the other request."""
    cdef le_operation *operation = &(<Copy>owner).core
    cdef le_transfer *move = &(<Copy>owner).move
    (<Copy>owner).failed_at = operation.op.bits
    le_transfer_release(loop, move)
    if move.out_fd >= 0:
        operation.op.bits = CLOSING_TARGET
        io_uring_prep_close(&operation.sqe, move.out_fd)
        if move.fill.state == LE_OP_QUEUED:
            move.fill_closes = True
        elif move.fill.state in (LE_OP_IDLE, LE_OP_FINISHED) and loop.ring.uring.sq.ring_entries > 1:
            move.fill_closes = True
            transfer_fill(loop, owner, queue)
        return LE_OP_AGAIN
    if move.in_fd >= 0:
        operation.op.bits = CLOSING_SOURCE
        io_uring_prep_close(&operation.sqe, move.in_fd)
        return LE_OP_AGAIN
    return end_copy(loop, operation, move.failure)


cdef le_op_verdict on_closed(le_loop *loop, le_op *op, int32_t result) noexcept nogil:
    cdef void *owner = le_op_owner(op)
    cdef le_operation *operation = &(<Copy>owner).core
    cdef le_transfer *move = &(<Copy>owner).move
    if op.bits == CLOSING_TARGET:
        move.out_fd = -1
        if result < 0 and not move.failure:  # what a network has kept for the end
            move.failure = result
            (<Copy>owner).failed_at = CLOSING_TARGET
        if move.in_fd >= 0:
            op.bits = CLOSING_SOURCE
            io_uring_prep_close(&operation.sqe, move.in_fd)
            return LE_OP_AGAIN
    else:
        move.in_fd = -1
    return end_copy(loop, operation, move.failure)


cdef le_op_verdict end_copy(le_loop *loop, le_operation *operation, int32_t failure) noexcept nogil:
    # Of other failures result_copy() tells, which knows the name of the file.
    le_operation_end(loop, operation, failure if failure in (-ECANCELED, -EINTR) else 0)
    return LE_OP_END


cdef int abort_copy(Operation self) except -1:
    cdef Copy copy = <Copy>self
    cdef le_op *op = &self.core.op
    if op.bits >= CLOSING_TARGET:
        return 0  # as good as over
    if op.state != LE_OP_QUEUED:
        op_stop(self.owner, &copy.move.fill)
        op_stop(self.owner, op)
    elif copy.move.in_fd >= 0:
        copy.move.failure = -ECANCELED
        begin_closing(&self.owner.core, <void *>self, &op.link)
    else:
        op_stop(self.owner, op)
        le_operation_end(&self.owner.core, &self.core, -ECANCELED)
    return 0


cdef object result_copy(Operation self):
    cdef Copy copy = <Copy>self
    cdef int number = -copy.move.failure
    if not number:
        return copy.move.moved
    if copy.is_same:
        raise OSError(number, "source and target are the same file", self.where, None, self.other)
    text = os.strerror(number)
    if copy.failed_at == MOVING:
        raise OSError(number, text, self.where, None, self.other)
    raise OSError(number, text, self.where if copy.failed_at <= LOOKING_AT_SOURCE else self.other)


@cython.binding(True)
def _copy_file(self, source, target, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Copy the content of a file, without copying it to this process.

    :param source: a path: str, bytes or path object. What a FIFO or device brings is copied up to its end.
    :param target: the path of the copy. A file that is there is overwritten; one that is created gets the permissions of the
        source, less the umask. Not a folder.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the number of bytes copied, an int. Holes of the source are holes of the copy, and
        count.
    :raises ValueError: a NUL in a path.
    :raises TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Where both are the same file it fails with an OSError (EINVAL), and the file is as it was. Where it fails in the middle, is
    cancelled or timed out, ``target`` has a part of the content. An OSError names the file that it is about in ``filename``, and
    where data could not be moved ``source`` there and ``target`` in ``filename2``.

    Stands on IORING_OP_SPLICE by way of a pipe of the loop's, on IORING_OP_READ and IORING_OP_WRITE where the kernel cannot
    splice (files of /proc); on IORING_OP_OPENAT, IORING_OP_STATX, IORING_OP_FTRUNCATE, IORING_OP_CLOSE. See splice(2).
    """
    cdef Copy op = Copy.__new__(Copy)
    cdef const char *path
    operation_begin(op, &copy_kind, self, callback, on_success, on_error, source)
    op.other = target
    op.owns_fds = op.move.may_buffer = True
    op.is_truncated = kernel_truncates()
    op.target_path = operation_path(op, target)
    memory = op.memory
    path = operation_path(op, source)
    op.memory = (op.memory, memory)
    io_uring_prep_openat(&op.core.sqe, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0)
    return operation_start(op, timeout)


add_method("copy_file", _copy_file)
