# transfer.pxd: what operations that move data have in common.

from linux_event.core cimport le_link, le_loop, le_transfer
from linux_event.operation cimport Operation

cdef class Transfer(Operation):
    cdef le_transfer move
    cdef bint owns_fds  # move.in_fd and move.out_fd were opened by the operation

# The end of a method whose operation begins with the moving.
cdef object transfer_start(Transfer self, object timeout)
# In a completion, `transfer` is the Transfer: fill core.sqe with what comes next, to be asked for with LE_OP_AGAIN. False: it
# is over, or has failed.
cdef bint transfer_next(le_loop *loop, void *transfer) noexcept nogil
# Queue the request `fill`, linked; core.op has to come right behind it.
cdef void transfer_fill(le_loop *loop, void *transfer, le_link *queue) noexcept nogil
# The `abort` of a kind with nothing to tidy up but the pipe.
cdef int transfer_stop(Transfer self) except -1
