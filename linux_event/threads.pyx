"""Threads: which one is calling, and whether one has ended."""

from linux_event.linux cimport SYS_gettid, getpid, syscall

cdef extern from *:
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyThreadState_Get()
    PyThreadState *PyThreadState_Next(PyThreadState *thread)
    PyThreadState *PyInterpreterState_ThreadHead(void *interpreter)
    void *PyInterpreterState_Get()
    uint64_t PyThreadState_GetID(PyThreadState *thread)


cdef uint64_t thread_state_id() noexcept:
    """The number that the interpreter gave to the calling thread; never used again for another one."""
    return PyThreadState_GetID(PyThreadState_Get())


cdef bint thread_is_gone(uint64_t state_id) noexcept:
    """Whether the thread has ended."""
    # Thread.join() returns when the interpreter has forgotten the thread, which may be before the system has.
    cdef PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get())
    while thread != NULL:
        if PyThreadState_GetID(thread) == state_id:
            return False
        thread = PyThreadState_Next(thread)
    return True


cdef bint thread_is_main() noexcept:
    """Whether the caller is the first thread of the process, which runs Python's signal handlers."""
    return syscall(SYS_gettid) == getpid()
