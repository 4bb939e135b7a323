# engine.pxd: the engine as other modules, and extensions of other packages, see it.

from libc.stdint cimport int64_t
from linux_event.requests cimport Requests

cdef class Engine(Requests):
    cdef object error_handler
    cdef object signal_hub  # of watchers.signal, while such watchers are active
    cdef object inotify_hub  # of watchers.inotify, while watchers of paths are active
    cdef dict registered    # what the kernel works with beyond requests, such as buffers: let go when the ring is closed
    cdef object ring_ref    # of uring.pyx: a weak reference to the Ring of this loop
    cdef object small_pool  # of operations.many, once they are needed
    cdef object big_pool
    cdef object datagram_pool
    cdef object resolver    # of net.resolver, once a name has been asked for
    cdef bint sees_interrupts  # in this run: the pipe is Python's wake-up fd, or the thread is not the main one
    cdef bint is_debugging
    cdef bint has_signalfd  # signals are read through a signalfd
    cdef int64_t busy_poll_ns
    cdef int64_t idle_wait_ns

    cdef int begin(self) except -1
    cdef int end(self) except -1
    cdef int iterate(self, int64_t until_ns, bint once) except -1
    cdef int run_deferred(self) except -1
    cdef int wait(self, int64_t until_ns, bint may_sleep) except -1
    cdef int sleep(self, int64_t until_ns) except -1
    cdef int dispatch(self) except -1
    cdef int call(self, void *head) except -1
    cdef int report(self, object source) except -1
    cdef int tell(self, object source, object error) except -1
    cdef int tend_embedding(self) except -1
    cdef int end_embedding(self) except -1
    cdef int shut(self, bint with_kernel, bint is_over, bint with_callbacks) except -1
    cdef int cancel_operations(self) except -1
    cdef int wait_for_operations(self) except -1
    cdef int keep_what_the_kernel_has(self) except -1
    cdef int end_operations(self, bint with_callbacks) except -1
    cdef int push_call(self, object callback, tuple args) except -1
    cdef int wake(self) except -1
    cdef int sign(self) except -1

# After a change that may have come from outside of run(): the kernel finishes what was cancelled, the loop around is told.
cdef int loop_changed(Engine loop) except -1
# The error of what ends because its loop is closed: a CancelledError, or MemoryError where there is no memory for one.
cdef object loop_was_closed()
# Let loops with debug=True call `function(loop)` before each wait.
cdef int add_debug_check(object function) except -1
