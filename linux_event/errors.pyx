"""The exceptions of the package, and the funnel through which results of the kernel become exceptions."""

from cpython.exc cimport PyErr_NoMemory
from libc.errno cimport errno

import os


class LoopClosedError(RuntimeError):
    """A method of a closed loop was called. Create a new loop."""


class WrongThreadError(RuntimeError):
    """A method of a loop was called in a thread that does not own the loop.

    A loop belongs to the thread that first runs it. Other threads may call ``post``, ``stop_threadsafe`` and
    ``statistics``.
    """


class DestroyedError(RuntimeError):
    """A destroyed watcher was used. Create a new one."""


class UringUnavailableError(OSError):
    """The kernel refuses io_uring. ``errno`` is the kernel's; the message names the cause found and what to do about it.

    See io_uring_setup(2).
    """


cdef int check(int result) except -1:
    """Return a result that is not negative; raise OSError for a negative errno."""
    if result >= 0:
        return result
    raise OSError(-result, os.strerror(-result))


cdef int check_errno(int result) except -1:
    """Return a result that is not negative; raise OSError with the current errno for -1."""
    return check(result if result >= 0 else -errno)


cdef int check_memory(int result) except -1:
    """Return 0; raise MemoryError for anything else. For functions that fail only for lack of memory."""
    if result:
        PyErr_NoMemory()  # raises it
    return 0
