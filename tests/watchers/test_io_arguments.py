"""IOWatcher: what it accepts and refuses, and how long it needs the object it was given."""

import gc
import os
import socket
import weakref

import pytest
from _fault import ring_fd
from _support import Pipe, finish, unused_fd

from linux_event import Events, IOWatcher, Loop, LoopClosedError

READ, WRITE, PRIORITY, ERROR, HANGUP = (Events[n] for n in ("READ", "WRITE", "PRIORITY", "ERROR", "HANGUP"))


def collect(loop, fd, poll, **keywords):
    """Watch the fd; returns the watcher and a list of the events it is called with."""
    seen = []
    return loop.io(fd, poll, lambda watcher, events: seen.append(events), **keywords), seen


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poll", "expected"),
    [
        ("r", READ),
        ("w", WRITE),
        ("rw", READ | WRITE),
        ("wr", READ | WRITE),
        ("p", PRIORITY),
        (READ, READ),
        (WRITE, WRITE),
        (READ | WRITE, READ | WRITE),
        (READ | PRIORITY, READ | PRIORITY),
        (READ | ERROR | HANGUP, READ),
    ],
)
def test_poll(loop, pipe, poll, expected):
    watcher = loop.io(pipe.r, poll, print)
    assert watcher.poll == expected
    assert type(watcher.poll) is Events
    assert watcher.fd == pipe.r
    assert watcher.edge is False
    assert loop.io(pipe.r, poll, print, edge=True).edge is True


BAD_POLLS = [
    ("", ValueError),
    ("x", ValueError),
    ("rx", ValueError),
    ("read", ValueError),
    ("R", ValueError),
    ("r w", ValueError),
    (Events(0), ValueError),
    (ERROR, ValueError),
    (HANGUP, ValueError),
    (b"r", TypeError),
    (None, TypeError),
    (1.0, TypeError),
    (["r"], TypeError),
]


@pytest.mark.parametrize(("poll", "error"), BAD_POLLS)
@pytest.mark.parametrize("decorator", [False, True])
def test_bad_poll(loop, pipe, poll, error, decorator):
    with pytest.raises(error, match="poll") as caught:
        loop.io(pipe.r, poll, *([] if decorator else [print]))
    assert repr(poll) in str(caught.value)
    assert len(loop.watchers) == 0


@pytest.mark.parametrize(("poll", "error"), BAD_POLLS)
def test_bad_poll_assigned(loop, pipe, poll, error):
    watcher = loop.io(pipe.r, "r", print)
    with pytest.raises(error, match="poll"):
        watcher.poll = poll
    assert watcher.poll == READ
    assert watcher.is_active()


@pytest.mark.parametrize("decorator", [False, True])
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize(
    ("fd", "error"),
    [
        (-1, ValueError),
        (-(2**40), ValueError),
        (-(2**70), ValueError),
        (2**31, ValueError),
        (2**63, ValueError),
        (2**100, ValueError),
        ("0", TypeError),
        (None, TypeError),
        (0.0, TypeError),
        (b"0", TypeError),
        (True, TypeError),
        (False, TypeError),
        ([0], TypeError),
    ],
)
def test_bad_fd(loop, fd, error, decorator, start):
    with pytest.raises(error, match="fd") as caught:
        loop.io(fd, "r", *([] if decorator else [print]), start=start)
    assert repr(fd) in str(caught.value)
    assert len(loop.watchers) == len(loop.io_watchers) == 0


@pytest.mark.parametrize("decorator", [False, True])
@pytest.mark.parametrize("fd", [None, 19_999, 100_000_000, 2**31 - 1])
def test_fd_that_is_not_open(loop, fd, decorator):
    if fd is None:
        fd = unused_fd()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        loop.io(fd, "r", *([] if decorator else [print]))
    assert caught.value.errno == 9
    assert caught.value.strerror == "Bad file descriptor"
    assert caught.value.filename == fd
    assert len(loop.watchers) == len(loop.io_watchers) == 0


def test_closed_socket_and_file(loop, pair):
    pair[0].close()
    with pytest.raises(ValueError, match="fd"):
        loop.io(pair[0], "r", print)
    with open(os.devnull) as file:
        pass
    with pytest.raises(ValueError, match="closed"):
        loop.io(file, "r", print)
    assert len(loop.watchers) == 0


class Object:
    def __init__(self, fd):
        self.fd = fd
        self.asked = 0

    def fileno(self):
        self.asked += 1
        if self.fd is LookupError:
            raise self.fd
        return self.fd


@pytest.mark.parametrize(
    ("fd", "error"),
    [
        (-1, ValueError),
        ("5", TypeError),
        (None, TypeError),
        (5.0, TypeError),
        (2**70, (ValueError, OSError)),
        (LookupError, LookupError),
    ],
)
def test_object_whose_fileno_is_no_good(loop, fd, error):
    with pytest.raises(error):
        loop.io(Object(fd), "r", print)
    assert len(loop.watchers) == 0


def test_object_without_a_fileno_to_call(loop):
    class NotCallable:
        fileno = 5

    for fd in (object(), NotCallable()):
        with pytest.raises(TypeError, match="fd"):
            loop.io(fd, "r", print)


def test_object_with_fileno(loop, pipe):
    source = Object(pipe.r)
    watcher, seen = collect(loop, source, "r")
    assert watcher.fd == pipe.r
    assert type(watcher.fd) is int
    pipe.put()
    loop.run_once(0)
    assert seen == [READ]
    assert loop.io_watchers == {pipe.r: (watcher,)}


@pytest.mark.parametrize("start", [True, False])
def test_the_object_lives_as_long_as_its_fd_is_needed(loop, pipe, start):
    source = Object(pipe.r)
    ref = weakref.ref(source)
    watcher = loop.io(source, "r", print, start=start)
    loop.run_once(0)
    del source
    gc.collect()
    assert ref() is not None
    watcher.destroy()
    loop.timer(0, lambda w: None)
    finish(loop)
    gc.collect()
    assert ref() is None


def test_a_socket_that_nobody_else_holds_stays_open(loop):
    a, b = socket.socketpair()
    with b:
        watcher, seen = collect(loop, a, "r")
        del a
        gc.collect()
        b.send(b"x")
        loop.run_once(0)
        assert seen == [READ]
        with pytest.warns(ResourceWarning, match="socket"):
            watcher.destroy()
            del watcher
            loop.timer(0, lambda w: None)
            finish(loop)
            gc.collect()


def test_start_looks_at_the_fd_again(loop):
    pipe = Pipe()
    watcher = loop.io(pipe.r, "r", print, start=False)
    pipe.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        watcher.start()
    assert caught.value.errno == 9
    assert caught.value.filename == watcher.fd
    assert not watcher.is_active()
    finish(loop)


@pytest.mark.parametrize("name", ["fd", "edge", "nonsense"])
def test_read_only(loop, pipe, name):
    watcher = loop.io(pipe.r, "r", print)
    with pytest.raises(AttributeError):
        setattr(watcher, name, 1)


def test_repr(loop, pipe):
    watcher = loop.io(pipe.r, "rw", print)
    assert repr(watcher) == f"<IOWatcher id={watcher.id} fd={pipe.r} poll='rw' active>"
    watcher.poll = "w"
    assert "poll='w'" in repr(watcher)
    assert "edge" in repr(loop.io(pipe.r, "r", print, edge=True))


def test_class_and_factory_take_the_same(loop, pipe):
    arguments = {"fd": pipe.r, "poll": "r", "edge": True, "data": 1, "priority": 1, "ref": False, "start": False}
    for watcher in (IOWatcher(loop, callback=print, **arguments), loop.io(callback=print, **arguments)):
        assert (watcher.fd, watcher.poll, watcher.edge) == (pipe.r, READ, True)
        assert (watcher.data, watcher.priority, watcher.ref, watcher.is_active()) == (1, 1, False, False)


def test_the_number_of_the_ring_of_a_closed_loop_is_any_number():
    loop = Loop()
    number = ring_fd()
    loop.close()
    os.dup2(0, number)
    try:
        with pytest.raises(LoopClosedError):
            loop.io(number, "r", print)
    finally:
        os.close(number)
