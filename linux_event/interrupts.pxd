# interrupts.pxd: the pipe through which Python's signal handlers end the sleep of a loop.

cdef struct signal_pipe:
    int read_fd  # -1: not open
    int write_fd
    int former_fd  # the wake-up fd of somebody else, or -1
    bint is_installed

cdef void signal_pipe_init(signal_pipe *pipe) noexcept
# Open the pipe if need be and make it the wake-up fd of Python. In the main thread only.
cdef int signal_pipe_install(signal_pipe *pipe) except -1
# Make the former wake-up fd the current one, unless a callback has installed another meanwhile.
cdef void signal_pipe_restore(signal_pipe *pipe) noexcept
# Empty the pipe, and hand on what came to the former wake-up fd, whose owner waits for these bytes.
cdef void signal_pipe_drain(signal_pipe *pipe) noexcept nogil
cdef void signal_pipe_close(signal_pipe *pipe) noexcept nogil
