"""The pipe through which a signal with a Python handler ends the sleep of a loop in the main thread.

Python runs signal handlers in the main thread, between bytecodes. A signal that arrives just before the loop falls asleep,
or that the kernel gives to another thread, would otherwise be noticed only with the next event. Python's own C handler
writes a byte into the "wake-up fd", and the loop watches the other end while it runs.

None of it is Python: a handler that raised KeyboardInterrupt in the middle would leave a wake-up fd behind that is closed
later. Cython's code runs no handlers.
"""

from linux_event.errors cimport check_errno
from linux_event.linux cimport O_CLOEXEC, O_NONBLOCK, close, pipe2, read, write

from signal import set_wakeup_fd as _set_wakeup_fd


cdef void signal_pipe_init(signal_pipe *pipe) noexcept:
    pipe.read_fd = pipe.write_fd = pipe.former_fd = -1
    pipe.is_installed = False


cdef int signal_pipe_install(signal_pipe *pipe) except -1:
    cdef int fds[2]
    if pipe.read_fd < 0:
        check_errno(pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        pipe.read_fd = fds[0]
        pipe.write_fd = fds[1]
    pipe.former_fd = _set_wakeup_fd(pipe.write_fd, warn_on_full_buffer=False)
    pipe.is_installed = True
    return 0


cdef void signal_pipe_restore(signal_pipe *pipe) noexcept:
    cdef int current
    if pipe.is_installed:
        pipe.is_installed = False
        try:
            current = _set_wakeup_fd(pipe.former_fd)
            if current != pipe.write_fd:
                _set_wakeup_fd(current)
        except (OSError, ValueError):
            _set_wakeup_fd(-1)  # the former one has been closed


cdef void signal_pipe_drain(signal_pipe *pipe) noexcept nogil:
    cdef char data[512]
    cdef Py_ssize_t size = read(pipe.read_fd, data, sizeof(data))
    while size > 0:
        if pipe.former_fd >= 0 and write(pipe.former_fd, data, size) < 0:
            break  # the other owner's pipe is full or gone: it has had its wake-up
        size = read(pipe.read_fd, data, sizeof(data))


cdef void signal_pipe_close(signal_pipe *pipe) noexcept nogil:
    if pipe.read_fd >= 0:
        close(pipe.read_fd)
        close(pipe.write_fd)
        pipe.read_fd = pipe.write_fd = -1
