# requests.pxd: what a loop has at the kernel, as other modules, and extensions of other packages, see it.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from linux_event.core cimport le_loop, le_op
from linux_event.interrupts cimport signal_pipe

cdef class Requests:
    cdef le_loop core  # changed only through the functions of le_loop.h
    cdef object __weakref__
    cdef signal_pipe interrupts
    cdef le_op wake_op
    cdef le_op signal_op
    cdef uint64_t owner  # serial of the thread that owns the loop, 0: nobody yet
    cdef uint64_t owner_state_id  # of that thread in the interpreter
    cdef bint in_main_thread  # the owner is
    cdef int wake_fd
    cdef int outer_fd  # what another event loop waits for, or -1
    cdef uint64_t outer_signs  # that this process has put there itself since it was read
    cdef uint64_t batch_max
    cdef uint64_t unsettled  # cancelled requests that settle() has given up waiting for

    cdef int open(self, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1
    cdef int claim(self) except -1
    cdef int enter(self, uint32_t wait_nr, int64_t timeout_ns) except -1
    cdef int feed(self) except -1
    cdef int release_finished(self) except -1
    cdef int settle(self) except -1
    cdef int die_in_child(self) except -1

# Raises LoopClosedError, WrongThreadError, or RuntimeError in a forked child. guard_state: not for the thread.
cdef int loop_guard(Requests loop) except -1
cdef int guard_state(Requests loop) except -1
# Run Python's handlers of signals that have come. Raises what they raise, and as guard_state does if one has ended the loop.
cdef int run_handlers(Requests loop) except -1
# Whether the calling thread may use the loop.
cdef bint owns(Requests loop) noexcept
# Start and stop a request embedded in an object: the loop holds a reference on the object until the final completion.
cdef int op_start(Requests loop, le_op *op) except -1
cdef int op_stop(Requests loop, le_op *op) except -1
cdef void close_fds(Requests loop) noexcept
