"""What the test files share: scale, bounded waits, file descriptors with two ends, and the search for leaks."""

import atexit
import contextlib
import functools
import gc
import os
import resource
import socket
import subprocess
import sys
import time

from linux_event import Child, Idle, IOWatcher, Loop, MountWatcher, PathWatcher, Periodic, Signal, Timer, Wakeup

# Instrumented builds are several times slower: they run with smaller counts.
SCALE = float(os.environ.get("LE_TEST_SCALE", "1"))

# Seconds after which a wait has failed. Far above what a busy machine needs, so that only a hang reaches it.
BOUND = 60.0

# The name of the factory of each kind of watcher, and its class.
KINDS = {
    "io": IOWatcher,
    "timer": Timer,
    "periodic": Periodic,
    "signal": Signal,
    "idle": Idle,
    "wakeup": Wakeup,
    "child": Child,
    "watch": PathWatcher,
}


def may_watch_mounts():
    """Whether this process is privileged enough for watchers of mounts."""
    with Loop() as loop:
        try:
            loop.fswatch("/", ["open_exec"], print, start=False)
        except OSError:
            return False
    return True


if may_watch_mounts():
    KINDS["fswatch"] = MountWatcher


def kind_arguments(kind, pipe):
    """What a watcher of the kind takes between loop and callback, for one that is not called by itself."""
    if kind == "child":
        return (resting_child(),)
    if kind == "fswatch":
        return ("/proc", ["open_exec"])  # nothing there is a program
    if kind == "watch":
        return (__file__, "delete_self")
    return {
        "io": (pipe.r, "r"),
        "timer": (BOUND,),
        "periodic": (BOUND,),
        "signal": ("USR1",),
        "idle": (),
        "wakeup": (),
    }[kind]


@functools.cache
def resting_child():
    """The pid of a child that does nothing, one for all tests of this process."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    child = subprocess.Popen(["sleep", "3600"], env=environment)
    # Whoever forks has other children.
    os.register_at_fork(after_in_child=resting_child.cache_clear)
    atexit.register(end_resting, os.getpid(), child)
    return child.pid


def end_resting(parent, child):
    if os.getpid() == parent:
        child.kill()
        child.wait()


def scaled(count, least=1):
    """Return `count`, made smaller by LE_TEST_SCALE but never below `least`."""
    return max(least, int(count * SCALE))


def finish(loop, bound=BOUND):
    """Run the loop until nothing is left to do, and fail when it has not come to that within `bound` seconds."""
    limit = time.monotonic() + bound
    loop.run(bound)
    assert time.monotonic() < limit, "the loop still had something to do"


def run_until(loop, condition, bound=BOUND):
    """Run iterations until condition() is true, and fail when it is not within `bound` seconds."""
    limit = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < limit, "what the test waits for did not happen"
        loop.run_once(0.1)


def spend(seconds):
    """Keep the processor busy until `seconds` have passed, as a callback that runs long does."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        pass


class Pipe:
    """A pipe without blocking whose ends can be closed one by one and more than once."""

    def __init__(self):
        self.r, self.w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = {self.r, self.w}

    def put(self, data=b"x"):
        os.write(self.w, data)

    def take(self, size=65536):
        """Return what can be read now, b"" when the pipe is empty or at its end."""
        try:
            return os.read(self.r, size)
        except BlockingIOError:
            return b""

    def fill(self):
        """Write until the pipe takes no more."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.w, b"x" * 65536)

    def close_read(self):
        self._close(self.r)

    def close_write(self):
        self._close(self.w)

    def close(self):
        self.close_read()
        self.close_write()

    def _close(self, fd):
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    def forget(self, fd):
        """The test closed `fd` by other means."""
        self._open.remove(fd)


@contextlib.contextmanager
def pipes(count):
    """A list of `count` pipes, closed at the end."""
    made = []
    try:
        for _ in range(count):
            made.append(Pipe())
        yield made
    finally:
        for pipe in made:
            pipe.close()


@contextlib.contextmanager
def eventfds(count, ready=False):
    """A list of `count` eventfds, readable from the start when `ready`, closed at the end."""
    made = []
    try:
        for _ in range(count):
            made.append(os.eventfd(1 if ready else 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        yield made
    finally:
        for fd in made:
            os.close(fd)


@contextlib.contextmanager
def tcp_pair():
    """Two ends of a TCP connection over loopback, without blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        client.setblocking(False)
        accepted.setblocking(False)
        yield client, accepted


@contextlib.contextmanager
def many_fds_allowed(count):
    """Raise the soft limit of open files for `count` more; yields how many the hard limit really allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    try:
        yield min(count, hard - 200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def unused_fd():
    """Return the number of an fd that is not open."""
    fd = os.dup(0)
    os.close(fd)
    return fd


def open_fds():
    """Return what /proc says of this process: fd number -> what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        # The fd of the listing itself is in it and closed by now.
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def rings(fds):
    """Return the numbers of those fds that are io_uring instances."""
    return sorted(fd for fd, target in fds.items() if target == "anon_inode:[io_uring]")


def living(*kinds):
    """Return the objects of these classes that the collector knows, after a collection."""
    gc.collect()
    return [o for o in gc.get_objects() if issubclass(type(o), kinds)]


def blocks_grown(action, rounds=5):
    """Return by how many memory blocks one action() raises the interpreter's count, at least.

    A leak grows with every round. The smallest growth of a few rounds, after a few for warming up, leaves out what
    caches and free lists take now and then.
    """
    for _ in range(3):
        action()
    growth = []
    for _ in range(rounds):
        gc.collect()
        before = sys.getallocatedblocks()
        action()
        gc.collect()
        growth.append(sys.getallocatedblocks() - before)
    return min(growth)


@contextlib.contextmanager
def unraisable():
    """A list of texts of the exceptions that arrive at sys.unraisablehook meanwhile."""
    seen = []
    previous = sys.unraisablehook

    def note(args):
        # Text only: keeping the object would bring it back to life.
        seen.append(f"{args.exc_type.__name__}: {args.exc_value} ({args.err_msg or 'ignored'})")

    sys.unraisablehook = note
    try:
        yield seen
    finally:
        sys.unraisablehook = previous


def close_checked(loop):
    """Close the loop and prove that it holds nothing any more."""
    loop.close()
    assert loop.is_closed()
    left = loop.statistics()
    assert left.requests_in_flight == 0
    assert left.operations_in_flight == 0
    assert left.streams == left.listeners == left.datagrams == 0
    assert left.pool_buffers_in_use == 0
    assert left.active_watchers == 0
    assert left.watchers == 0
    assert left.timers == 0
    assert left.deferred == 0
    assert not loop.watchers
    assert not loop.io_watchers
    assert not loop.signals


@contextlib.contextmanager
def made_loop(**arguments):
    """A Loop made with these arguments, closed and checked at the end."""
    loop = Loop(**arguments)
    try:
        yield loop
    except BaseException:
        loop.close()
        raise
    close_checked(loop)
