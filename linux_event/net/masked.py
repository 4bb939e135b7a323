"""Threads that take no signals. They begin with the mask of the thread that starts them."""

from contextlib import contextmanager
from signal import SIG_BLOCK, SIG_SETMASK, SIGBUS, SIGFPE, SIGILL, SIGSEGV, pthread_sigmask, valid_signals

__all__ = ["signals_blocked"]

# A fault of a thread's own ends the process at once where it is blocked, before a handler could say where it was.
FAULTS = {SIGBUS, SIGFPE, SIGILL, SIGSEGV}


@contextmanager
def signals_blocked():
    """While a thread is being started. Signals are for the threads of the program: those that a loop has blocked in its own
    thread, to read them from a signalfd, must not find another thread that takes them."""
    mask = pthread_sigmask(SIG_BLOCK, valid_signals() - FAULTS)
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, mask)
