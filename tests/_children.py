"""Child processes for the tests of their watchers: small programs, and looks at them that reap nothing."""

import contextlib
import os
import subprocess

from _example import foreign

from linux_event import Process


def start(script, **options):
    """A shell that runs `script`, as a Popen."""
    return subprocess.Popen(["sh", "-c", script], env=foreign(), **options)


@contextlib.contextmanager
def gated(code=0):
    """A Popen of a child that ends with `code` when the function beside it is called; killed and reaped at the end."""
    child = start(f"read x; exit {code}", stdin=subprocess.PIPE)
    try:
        yield child, child.stdin.close
    finally:
        child.kill()
        child.wait()
        child.stdin.close()


def wait_ended(pid):
    """Wait until a child has ended, and leave it as it is."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def is_zombie(pid):
    """Whether a child has ended and has not been reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def is_reaped(pid):
    """Whether this process has no such child any more."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def ended(script="exit 0"):
    """A Popen of a child that has ended and that nobody has reaped."""
    child = start(script)
    wait_ended(child.pid)
    return child


def kernel_threads():
    """The threads that the kernel works for this process with, by name."""
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    return [name for name in names if name.startswith("iou-wrk")]


class Calls(list):
    """A callback that notes pid and return code, and what the watcher says meanwhile."""

    def __call__(self, watcher, pid, returncode):
        assert watcher.pid == pid
        assert watcher.returncode == returncode
        assert not watcher.is_active()
        self.append((pid, returncode))

    @property
    def codes(self):
        return [returncode for _, returncode in self]


class Exits(list):
    """The on_exit of a process: what it was called with."""

    def __call__(self, process, returncode):
        assert type(process) is Process
        assert process.returncode == returncode
        self.append(returncode)


def shell(loop, script, **options):
    return loop.spawn(["sh", "-c", script], env=foreign(), **options)
