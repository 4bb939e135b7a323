"""Operations that move data from one fd to another inside the kernel: splice, sendfile."""

cimport cython
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t
from linux_event.arguments cimport integer_within
from linux_event.core cimport (
    LE_OP_AGAIN, LE_OP_END, LE_OPERATION_CHAINED, LE_OPERATION_OF_OP, LE_PART_MAX, le_loop, le_op, le_op_owner, le_op_verdict,
    le_operation, le_operation_end, le_operation_is_unwanted, le_transfer, le_transfer_answer, le_transfer_is_over,
    le_transfer_release,
)
from linux_event.liburing cimport io_uring_prep_poll_add, io_uring_prep_splice, io_uring_sqe
from linux_event.linux cimport ECANCELED, F_GETFL, O_NONBLOCK, POLLIN, POLLOUT, S_ISREG, fcntl, fstat, stat
from linux_event.loop cimport add_method
from linux_event.operation cimport (
    Operation, kind_begin, operation_begin, operation_fd, operation_kind, operation_start, result_count,
)
from linux_event.transfer cimport Transfer, transfer_next, transfer_start, transfer_stop


# -- splice ------------------------------------------------------------------------------------------------------------

cdef operation_kind splice_kind
splice_kind.result = result_count
kind_begin(&splice_kind, "splice")
splice_kind.request.on_cqe = on_splice

cdef enum splice_stage:  # in op.bits
    SPLICING
    WAITING_IN
    WAITING_OUT


@cython.final
cdef class Splice(Operation):
    """One request, and between its attempts the question whether there is something to move."""

    cdef io_uring_sqe entry
    cdef bint asks_out  # next time, because it was `fd_in` that was asked the last time
    cdef int fd_in
    cdef int fd_out


cdef le_op_verdict on_splice(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    """An fd without blocking makes the kernel answer EAGAIN, and not which of the two it means: they are waited for in turn.

    The one that is ready answers at once, and after that it is the turn of the one that is not.
    """
    cdef le_operation *operation = LE_OPERATION_OF_OP(op)
    cdef void *owner = le_op_owner(op)
    if not le_operation_is_unwanted(operation) and not operation.flags & LE_OPERATION_CHAINED:
        if result == -EAGAIN and op.bits == SPLICING:
            if (<Splice>owner).asks_out:
                op.bits = WAITING_OUT
                io_uring_prep_poll_add(&operation.sqe, (<Splice>owner).fd_out, POLLOUT)
            else:
                op.bits = WAITING_IN
                io_uring_prep_poll_add(&operation.sqe, (<Splice>owner).fd_in, POLLIN)
            (<Splice>owner).asks_out = not (<Splice>owner).asks_out
            return LE_OP_AGAIN
        if result == -EINTR or (result >= 0 and op.bits != SPLICING):
            op.bits = SPLICING
            operation.sqe = (<Splice>owner).entry
            return LE_OP_AGAIN
    elif op.bits != SPLICING and result >= 0:
        result = -ECANCELED  # what is ready now will not be moved
    le_operation_end(loop, operation, result)
    return LE_OP_END


@cython.binding(True)
def _splice(self, fd_in, fd_out, count, callback=None, *, offset_in=-1, offset_out=-1, on_success=None, on_error=None,
            timeout=None):
    """Move data from one fd to another without copying them to this process. One of the two has to be a pipe.

    :param fd_in: where from: an int, or an object with ``fileno()``, which is kept alive until the operation is done.
    :param fd_out: where to: the same.
    :param count: bytes to move at most, an int, 0 .. 2147479552. Fewer may go.
    :param offset_in: where in the file behind ``fd_in``, in bytes, an int, 0 or more; -1: at the current position, which moves
        on, and for a pipe.
    :param offset_out: the same for ``fd_out``.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the number of bytes moved, an int, 0 at the end.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    It waits until there is something to move and room for it, with O_NONBLOCK too; an fd without O_NONBLOCK keeps a thread of
    the kernel waiting meanwhile. Its OSError has both fds: ``filename`` and ``filename2``.

    Stands on IORING_OP_SPLICE, and on IORING_OP_POLL_ADD where that would block. See splice(2).
    """
    cdef Splice op = Splice.__new__(Splice)
    operation_begin(op, &splice_kind, self, callback, on_success, on_error, fd_in)
    op.other = fd_out
    op.fd_in = operation_fd(op, fd_in)
    op.fd_out = operation_fd(op, fd_out)
    op.kept = (fd_in, fd_out)
    io_uring_prep_splice(&op.core.sqe, op.fd_in, integer_within(offset_in, "offset_in", -1, INT64_MAX),
                         op.fd_out, integer_within(offset_out, "offset_out", -1, INT64_MAX),
                         integer_within(count, "count", 0, LE_PART_MAX), 0)
    op.entry = op.core.sqe
    return operation_start(op, timeout)


add_method("splice", _splice)


# -- sendfile ----------------------------------------------------------------------------------------------------------

cdef operation_kind sendfile_kind
sendfile_kind.is_composite = True
sendfile_kind.result = result_count
sendfile_kind.abort = abort_sendfile
kind_begin(&sendfile_kind, "sendfile")
sendfile_kind.request.on_cqe = on_sendfile


cdef le_op_verdict on_sendfile(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    cdef le_operation *operation = LE_OPERATION_OF_OP(op)
    cdef void *owner = le_op_owner(op)
    cdef le_transfer *move = &(<Transfer>owner).move
    le_transfer_answer(move, result)
    if not le_operation_is_unwanted(operation):
        if transfer_next(loop, owner):
            return LE_OP_AGAIN
    elif not le_transfer_is_over(move):
        move.failure = -ECANCELED
    le_transfer_release(loop, move)
    le_operation_end(loop, operation, move.failure if move.failure else <int64_t>move.moved)
    return LE_OP_END


cdef int abort_sendfile(Operation self) except -1:
    return transfer_stop(<Transfer>self)


@cython.binding(True)
def _sendfile(self, sock, file, offset=0, count=None, callback=None, *, on_success=None, on_error=None, timeout=None):
    """Send a file to a socket without copying it to this process.

    :param sock: where to: the fd of a socket, pipe or file, an int or an object with ``fileno()``, which is kept alive until the
        operation is done. Nothing else may be written to it meanwhile.
    :param file: the fd of the file, an int, or an object with ``fileno()``, kept alive too. Its position does not move.
    :param offset: where in the file to begin, in bytes, an int, 0 or more.
    :param count: bytes to send at most, an int, 0 or more; None: all to the end of the file, also what is appended meanwhile.
    :param callback, on_success, on_error, timeout: as for ``read``.
    :returns: the ``Operation``; its result is the number of bytes sent, an int: fewer than ``count`` only where the file ends.
    :raises ValueError, TypeError, OSError, LoopClosedError, WrongThreadError: as for ``read``.

    Where it fails, is cancelled or timed out, any part of the data may have been sent, and up to 1 MiB may have been taken from
    the file and been dropped: ``offset`` of a next call has to come from what the peer says. A peer that is gone is
    BrokenPipeError or ConnectionResetError, never SIGPIPE. A slow reader is waited for; a socket without O_NONBLOCK keeps a
    thread of the kernel waiting meanwhile. The OSError has both fds: ``filename`` and ``filename2``.

    Stands on IORING_OP_SPLICE by way of a pipe of the loop's, and on IORING_OP_POLL_ADD. See splice(2), sendfile(2).
    """
    cdef Transfer op = Transfer.__new__(Transfer)
    cdef le_transfer *move = &op.move
    cdef stat found
    operation_begin(op, &sendfile_kind, self, callback, on_success, on_error, sock)
    op.other = file
    move.out_fd = operation_fd(op, sock)
    move.in_fd = operation_fd(op, file)
    op.kept = (sock, file)
    move.in_offset = integer_within(offset, "offset", 0, INT64_MAX)
    if count is not None:
        move.left = integer_within(count, "count", 0, INT64_MAX)
    if fstat(move.in_fd, &found) == 0 and S_ISREG(found.st_mode):
        move.size = found.st_size
        # Neither side may keep the other waiting.
        move.may_link = (fcntl(move.out_fd, F_GETFL) & O_NONBLOCK) != 0 or (
            fstat(move.out_fd, &found) == 0 and S_ISREG(found.st_mode))
    return transfer_start(op, timeout)


add_method("sendfile", _sendfile)
