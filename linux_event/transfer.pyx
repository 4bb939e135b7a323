"""The base of operations that move data from one fd to another: sendfile, copy_file.

le_transfer.h moves the data. Here is what it needs of Python: the object around it, its references and its end.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from linux_event.core cimport (
    LE_OP_ABI, LE_OP_EVERY_COMPLETION, LE_OP_IDLE, LE_TRANSFER_PAIR, LE_TRANSFER_WAIT_OUT, le_fill_on_cqe, le_fill_prep,
    le_fill_start, le_link, le_loop, le_op_class, le_operation_end, le_pipe_close, le_transfer_init, le_transfer_next,
    le_transfer_release,
)
from linux_event.engine cimport loop_changed
from linux_event.liburing cimport io_uring_prep_nop
from linux_event.linux cimport ECANCELED, close
from linux_event.operation cimport Operation, operation_enter
from linux_event.requests cimport op_start, op_stop

cdef extern from *:
    """
    /* Completions are read with the GIL held (Requests.enter), in functions that are declared not to need it. */
    static inline void le_object_hold(void *object) { Py_INCREF((PyObject *)object); }
    """
    void le_object_hold(void *object) nogil

cdef le_op_class fill_class
fill_class.abi = LE_OP_ABI
fill_class.name = "fill"
fill_class.prep = le_fill_prep
fill_class.on_cqe = le_fill_on_cqe
fill_class.interest = LE_OP_EVERY_COMPLETION


cdef class Transfer(Operation):
    """An operation that moves data. What it still has open when it is freed is closed: nobody else would."""

    def __cinit__(self):
        le_transfer_init(&self.move)
        self.move.fill.cls = &fill_class

    def __dealloc__(self):
        # Only where the loop was closed in a way that left no time for it.
        le_pipe_close(&self.move.pipe)
        free(self.move.buffer)
        if self.owns_fds:
            if self.move.in_fd >= 0:
                close(self.move.in_fd)
            if self.move.out_fd >= 0:
                close(self.move.out_fd)


cdef void transfer_fill(le_loop *loop, void *transfer, le_link *queue) noexcept nogil:
    if le_fill_start(loop, &(<Transfer>transfer).move, queue):
        le_object_hold(transfer)


cdef object transfer_start(Transfer self, object timeout):
    cdef le_loop *loop = &self.owner.core
    # A linked pair has to fit into the submission queue.
    self.move.may_link = self.move.may_link and loop.ring.uring.sq.ring_entries > 1
    if not le_transfer_next(loop, &self.move, &self.core.sqe):
        self.move.stage = LE_TRANSFER_WAIT_OUT
        io_uring_prep_nop(&self.core.sqe)  # its completion is the end
    # The conversion of the timeout may run code of others, so that nothing is queued before it.
    operation_enter(self, timeout)
    op_start(self.owner, &self.core.op)
    if self.move.stage == LE_TRANSFER_PAIR:
        transfer_fill(loop, <void *>self, &self.core.op.link)
    loop_changed(self.owner)
    return self


cdef bint transfer_next(le_loop *loop, void *transfer) noexcept nogil:
    if not le_transfer_next(loop, &(<Transfer>transfer).move, &(<Transfer>transfer).core.sqe):
        return False
    if (<Transfer>transfer).move.stage == LE_TRANSFER_PAIR:
        transfer_fill(loop, transfer, &loop.to_rearm)
    return True


cdef int transfer_stop(Transfer self) except -1:
    op_stop(self.owner, &self.move.fill)
    op_stop(self.owner, &self.core.op)
    if self.core.op.state == LE_OP_IDLE:
        le_transfer_release(&self.owner.core, &self.move)
        le_operation_end(&self.owner.core, &self.core, -ECANCELED)
    return 0


cdef uint32_t fill_offset(Transfer instance) noexcept:
    return <uint32_t>(<char *>&instance.move.fill - <char *><PyObject *>instance)


fill_class.owner_offset = fill_offset(Transfer.__new__(Transfer))
