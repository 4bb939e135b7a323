"""What the tests of signals share."""

import contextlib
import signal


def send(signum=signal.SIGUSR1):
    """Send a signal to this process and return when it has arrived, in this thread."""
    signal.raise_signal(signum)


@contextlib.contextmanager
def handled(signum, handler):
    """Have a disposition in this block, as ``signal.signal`` sets it."""
    previous = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, previous)


class Calls(list):
    """A callback that notes the number it was called with."""

    def __call__(self, watcher, signum):
        self.append(signum)
