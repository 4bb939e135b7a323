# engine.pxd: the engine as other modules, and extensions of other packages, see it.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from linux_event.core cimport le_loop, le_op
from linux_event.interrupts cimport signal_pipe

cdef class Engine:
    cdef le_loop core  # changed only through the functions of le_loop.h
    cdef object __weakref__
    cdef object error_handler
    cdef signal_pipe interrupts
    cdef object signal_hub  # of watchers.signal, while such watchers are active
    cdef le_op wake_op
    cdef le_op signal_op
    cdef uint64_t owner  # serial of the thread that owns the loop, 0: nobody yet
    cdef uint64_t owner_state_id  # of that thread in the interpreter
    cdef bint in_main_thread  # the owner is
    cdef int wake_fd
    cdef int outer_fd  # what another event loop waits for, or -1
    cdef bint sees_interrupts  # in this run: the pipe is Python's wake-up fd, or the thread is not the main one
    cdef bint is_debugging
    cdef int64_t busy_poll_ns
    cdef int64_t idle_wait_ns
    cdef uint64_t batch_max

    cdef int claim(self) except -1
    cdef int begin(self) except -1
    cdef int end(self) except -1
    cdef int iterate(self, int64_t until_ns, bint once) except -1
    cdef int run_deferred(self) except -1
    cdef int wait(self, int64_t until_ns, bint may_sleep) except -1
    cdef int sleep(self, int64_t until_ns) except -1
    cdef int enter(self, uint32_t wait_nr, int64_t timeout_ns) except -1
    cdef int release_finished(self) except -1
    cdef int dispatch(self) except -1
    cdef int call(self, void *head) except -1
    cdef int report(self, object source) except -1
    cdef int tell(self, object source, object error) except -1
    cdef int settle(self) except -1
    cdef int tend_embedding(self) except -1
    cdef int end_embedding(self) except -1
    cdef int shut(self, bint with_kernel) except -1
    cdef int push_call(self, object callback, tuple args) except -1
    cdef int wake(self) except -1
    cdef int open(self, uint32_t entries, uint32_t cq_entries, bint sqpoll) except -1
    cdef int die_in_child(self) except -1

# Raises LoopClosedError, WrongThreadError, or RuntimeError in a forked child. guard_state: not for the thread.
cdef int loop_guard(Engine loop) except -1
# After a change that may have come from outside of run(): the kernel finishes what was cancelled, the loop around is told.
cdef int loop_changed(Engine loop) except -1
# Start and stop a request embedded in an object: the loop holds a reference on the object until the final completion.
cdef int op_start(Engine loop, le_op *op) except -1
cdef int op_stop(Engine loop, le_op *op) except -1
# Let loops with debug=True call `function(loop)` before each wait.
cdef int add_debug_check(object function) except -1
cdef int guard_state(Engine loop) except -1
# Whether the calling thread may use the loop.
cdef bint owns(Engine loop) noexcept
