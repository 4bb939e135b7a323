"""Fixtures, and the proof that each test leaves nothing behind."""

import contextlib
import gc
import logging
import os
import socket

import pytest
from _fault import IS_SANITIZED, strange_threads_are_masked, wait_until
from _mounts import mounted
from _support import KINDS, Pipe, kind_arguments, living, made_loop, open_fds, rings, unraisable

from linux_event import BufferPool, Datagram, Listener, Loop, Operation, Process, Ring, Stream, Watcher
from linux_event.ring import probe
from linux_event.watchers import child

FAILED = pytest.StashKey[bool]()

if IS_SANITIZED:
    # pycares leaves a thread behind, and no test could fork any more: see prepare_fork().
    os.environ.setdefault("LINUX_EVENT_RESOLVER", "threads")


class Logged(logging.Handler):
    """Keeps the text of what a loop logs: by default the exceptions of callbacks, failed assertions among them."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))

    def __enter__(self):
        logging.getLogger("linux_event").addHandler(self)
        return self

    def __exit__(self, *exception):
        logging.getLogger("linux_event").removeHandler(self)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """No exception may be swallowed while a test runs, nor logged unless the test looks at the log."""
    try:
        with unraisable() as swallowed, Logged() as logged:
            result = yield
        assert not swallowed, f"exceptions that nobody could handle: {swallowed}"
        if "caplog" not in pyfuncitem.fixturenames:
            assert not logged.texts, "exceptions in callbacks: " + "\n".join(logged.texts)
    except BaseException:
        pyfuncitem.stash[FAILED] = True
        raise
    return result


@pytest.fixture(autouse=True)
def signals_are_for_the_test():
    wait_until(strange_threads_are_masked)


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After the test: no fd more or less, no ring, loop, watcher, operation, pool or stream alive, nothing uncollectable."""
    gc.collect()
    gc.freeze()  # what pytest keeps of earlier tests is not looked at again and again
    before = open_fds()
    yield
    if request.node.stash.get(FAILED, False):
        # Its traceback keeps everything alive: one failure is enough.
        return
    # The item keeps what fixtures gave it for longer than the fixtures live.
    request.node.funcargs.clear()
    with unraisable() as swallowed:
        alive = living(Loop, Ring, Watcher, Operation, BufferPool, Stream, Listener, Datagram, Process)
    after = open_fds()
    assert not swallowed, f"exceptions that nobody could handle: {swallowed}"
    assert not gc.garbage
    assert not alive
    assert rings(after) == rings(before)
    assert after == before


@pytest.fixture
def loop(nothing_left):
    """A loop with default arguments; at the end it is closed and holds nothing."""
    with made_loop() as loop:
        yield loop


@pytest.fixture
def pipe(nothing_left):
    """A Pipe, closed at the end."""
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def pair(nothing_left):
    """Two connected Unix stream sockets without blocking, closed at the end."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair()]
        for end in ends:
            end.setblocking(False)
        yield tuple(ends)


@pytest.fixture
def folder(loop, tmp_path):
    """A file system of its own, mounted for this test; watchers of it end before it is unmounted."""
    with mounted(tmp_path / "mount") as folder:
        yield folder
        for watcher in list(loop.watchers.values()):
            watcher.destroy()


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of watcher: the name of its factory."""
    return request.param


@pytest.fixture
def make(loop, pipe, kind):
    """Makes a watcher of the kind with the factory; a callback has to be given or left out by the caller."""

    def make(*args, **keywords):
        return getattr(loop, kind)(*kind_arguments(kind, pipe), *args, **keywords)

    return make


@pytest.fixture(params=["waitid", "pidfd"])
def way(request):
    """How the loop notices the end of a child: by the kernel's operation, or as it does where that is lacking."""
    if request.param == "pidfd":
        child.pretend("WAITID")
    elif "WAITID" not in probe()["operations"]:
        pytest.skip("this kernel has no WAITID")
    yield request.param
    child.pretend()
