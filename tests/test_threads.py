"""One loop, one thread: built here and run there, the wrong thread, and what may be called from any thread."""

import gc
import os
import threading
import time
import weakref

import pytest
from _fault import BOUND, in_thread, unexpected
from _support import close_checked, finish, kind_arguments, made_loop, pipes, scaled

from linux_event import (
    Child,
    Idle,
    IOWatcher,
    Loop,
    MountWatcher,
    Periodic,
    Signal,
    Timer,
    Wakeup,
    WrongThreadError,
)


class RunningLoop:
    """A loop that runs in a thread of its own until the end of the block; `called` collects errors of callbacks."""

    def __init__(self, **arguments):
        self.arguments = arguments
        self.errors = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._body)

    def _body(self):
        with made_loop(**self.arguments) as self.loop:
            self.loop.on_error = lambda source, error: self.errors.append(error)
            keep = os.eventfd(0)
            self.loop.io(keep, "r", unexpected)
            self.loop.defer(self.ready.set)
            try:
                self.loop.run()
            finally:
                self.loop.close()
                os.close(keep)

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(BOUND)
        return self.loop

    def __exit__(self, *exception):
        self.loop.stop_threadsafe()
        self.thread.join(BOUND)
        assert not self.thread.is_alive(), "stop_threadsafe did not stop the loop"
        assert not self.errors


# --- built here, run there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"sqpoll": True}, {"busy_poll": 0.001}, {"debug": True}])
def test_built_here_and_run_there(arguments):
    seen = []
    with pipes(1) as [pipe]:
        loop = Loop(**arguments)

        def readable(watcher, events):
            seen.append(("io", threading.get_ident(), pipe.take()))
            watcher.stop()

        loop.io(pipe.r, "r", readable)
        loop.timer(0.001, lambda watcher: seen.append(("timer", threading.get_ident())))
        loop.defer(lambda: seen.append(("deferred", threading.get_ident())))
        pipe.put(b"data")

        def there():
            finish(loop)
            close_checked(loop)
            return threading.get_ident()

        ident = in_thread(there)
    assert sorted(seen) == [("deferred", ident), ("io", ident, b"data"), ("timer", ident)]
    assert loop.is_closed()


def test_watchers_made_in_several_threads_before_the_first_run():
    """A loop that never ran belongs to no thread yet."""
    called = []
    loop = Loop()
    for number in range(4):
        in_thread(lambda number=number: loop.timer(0, lambda watcher: called.append(number)))
    finish(loop)
    assert sorted(called) == [0, 1, 2, 3]
    close_checked(loop)


def test_a_loop_that_never_ran_is_closed_in_another_thread(pipe):
    loop = Loop()
    watcher = loop.io(pipe.r, "r", unexpected)
    in_thread(loop.close)
    assert loop.is_closed()
    assert watcher.is_destroyed()


# --- the wrong thread ------------------------------------------------------------------------------------------------


def ignore(*_):
    pass


LOOP_CALLS = {
    "run": lambda loop: loop.run(0),
    "run_once": lambda loop: loop.run_once(0),
    "stop": lambda loop: loop.stop(),
    "defer": lambda loop: loop.defer(ignore),
    "close": lambda loop: loop.close(),
    "exit": lambda loop: loop.__exit__(None, None, None),
    "io": lambda loop: loop.io(0, "r", ignore),
    "timer": lambda loop: loop.timer(1, ignore),
    "periodic": lambda loop: loop.periodic(1, ignore),
    "signal": lambda loop: loop.signal("USR1", ignore),
    "idle": lambda loop: loop.idle(ignore),
    "child": lambda loop: loop.child(1, ignore),
    "fswatch": lambda loop: loop.fswatch("/", "all", ignore),
    "watch": lambda loop: loop.watch("/", "all", ignore),
    "IOWatcher": lambda loop: IOWatcher(loop, 0, "r", ignore),
    "Timer": lambda loop: Timer(loop, 1, ignore),
    "Periodic": lambda loop: Periodic(loop, 1, ignore),
    "Signal": lambda loop: Signal(loop, "USR1", ignore),
    "wakeup": lambda loop: loop.wakeup(ignore),
    "Wakeup": lambda loop: Wakeup(loop, ignore),
    "Idle": lambda loop: Idle(loop, ignore),
    "Child": lambda loop: Child(loop, 1, ignore),
    "MountWatcher": lambda loop: MountWatcher(loop, "/", "all", ignore),
    "decorator": lambda loop: loop.timer(1)(ignore),
    "not started": lambda loop: loop.timer(1, ignore, start=False),
}

WATCHER_CALLS = {
    "start": lambda watcher: watcher.start(),
    "stop": lambda watcher: watcher.stop(),
    "destroy": lambda watcher: watcher.destroy(),
    "with": lambda watcher: watcher.__exit__(None, None, None),
}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("name", LOOP_CALLS)
def test_loop_methods_in_the_wrong_thread(name, running):
    def call(loop):
        before = loop.statistics()
        with pytest.raises(WrongThreadError):
            LOOP_CALLS[name](loop)
        return before

    if running:
        with RunningLoop() as loop:
            call(loop)
    else:
        with made_loop() as loop:
            loop.run_once(0)
            before = in_thread(call, loop)
            assert loop.statistics() == before


@pytest.mark.parametrize("state", ["active", "stopped"])
@pytest.mark.parametrize("call", WATCHER_CALLS)
def test_watcher_methods_in_the_wrong_thread(loop, pipe, kind, call, state):
    watcher = getattr(loop, kind)(*kind_arguments(kind, pipe), ignore, start=state == "active")
    loop.run_once(0)
    before = repr(watcher)
    with pytest.raises(WrongThreadError):
        in_thread(WATCHER_CALLS[call], watcher)
    assert repr(watcher) == before
    assert watcher.is_active() == (state == "active")


SETTERS = [
    ("io", "poll", "w"),
    ("io", "ref", False),
    ("io", "priority", 2),
    ("timer", "after", 3),
    ("periodic", "interval", 3),
]


@pytest.mark.parametrize(("kind", "name", "value"), SETTERS)
def test_setters_in_the_wrong_thread(loop, pipe, kind, name, value):
    arguments = {"io": (pipe.r, "r"), "timer": (1,), "periodic": (1,)}[kind]
    watcher = getattr(loop, kind)(*arguments, ignore)
    loop.run_once(0)
    before = getattr(watcher, name)
    with pytest.raises(WrongThreadError):
        in_thread(setattr, watcher, name, value)
    assert getattr(watcher, name) == before


def test_what_any_thread_may_ask(loop, pipe):
    watcher = loop.io(pipe.r, "r", ignore, data=1)
    loop.run_once(0)

    def ask():
        assert not loop.is_running()
        assert not loop.is_closed()
        assert loop.time() > 0
        assert repr(loop)
        assert repr(watcher)
        assert watcher.is_active()
        assert not watcher.is_destroyed()
        assert watcher.loop is loop
        watcher.data = 2
        return watcher.data

    assert in_thread(ask) == 2


def test_wrong_thread_while_the_owner_sleeps():
    """The refused call leaves the sleeping loop as it is."""
    with RunningLoop() as loop:
        for call in LOOP_CALLS.values():
            with pytest.raises(WrongThreadError):
                call(loop)
        assert loop.is_running()


# --- an owner that is gone -------------------------------------------------------------------------------------------


def loop_of_a_thread_that_ended(pipe):
    """A loop with active watchers of each kind whose thread has ended."""

    def body():
        loop = Loop()
        loop.io(pipe.r, "r", unexpected)
        loop.timer(3600, unexpected)
        loop.signal("USR1", unexpected)
        loop.run_once(0)
        return loop

    return in_thread(body)


def test_close_after_the_owner_ended(pipe):
    loop = loop_of_a_thread_that_ended(pipe)
    watchers = list(loop.watchers.values())
    close_checked(loop)
    assert all(watcher.is_destroyed() for watcher in watchers)


def test_run_after_the_owner_ended(pipe):
    """The kernel's ring stays tied to the thread that is gone, even where the new one has got its identifier."""
    loop = loop_of_a_thread_that_ended(pipe)
    for _ in range(3):
        with pytest.raises(WrongThreadError):
            in_thread(loop.run, 0)
    with pytest.raises(WrongThreadError):
        loop.run(0)
    close_checked(loop)


def test_drop_after_the_owner_ended(pipe):
    loop = loop_of_a_thread_that_ended(pipe)
    gone = weakref.ref(loop)
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    assert gone() is None


def test_a_thread_that_ends_with_its_loop(pipe):
    """A loop that only a thread-local variable held is collected when the thread ends."""
    local = threading.local()
    gone = []

    def body():
        local.loop = Loop()
        gone.append(weakref.ref(local.loop))
        local.loop.io(pipe.r, "r", unexpected)
        local.loop.run_once(0)

    with pytest.warns(ResourceWarning):
        in_thread(body)
        gc.collect()
    assert gone[0]() is None


def test_drop_in_another_thread_than_the_owner(pipe):
    """The last reference goes away in a thread that may not use the loop."""
    holder = [Loop()]
    holder[0].io(pipe.r, "r", unexpected)
    holder[0].timer(3600, unexpected)
    holder[0].run_once(0)
    gone = weakref.ref(holder[0])

    def drop():
        with pytest.warns(ResourceWarning):
            holder.clear()
            gc.collect()

    in_thread(drop)
    assert gone() is None


def test_watchers_dropped_in_another_thread(loop, pipe):
    """Stopped watchers whose last reference goes away elsewhere, with requests in flight not long ago."""
    watchers = [loop.io(pipe.r, "r", unexpected) for _ in range(20)]
    loop.run_once(0)
    for watcher in watchers:
        watcher.stop()
    del watcher
    in_thread(watchers.clear)
    gc.collect()
    finish(loop)
    assert not loop.io_watchers


# --- several loops ---------------------------------------------------------------------------------------------------


def test_two_loops_in_two_threads_play_ping_pong():
    count = scaled(3000)
    done = threading.Event()
    with RunningLoop() as left, RunningLoop() as right:

        def ping(number):
            if number == count:
                done.set()
            else:
                right.post(pong, number)

        def pong(number):
            left.post(ping, number + 1)

        left.post(ping, 0)
        assert done.wait(BOUND)


def test_threads_each_with_a_loop_of_their_own():
    count = scaled(50)
    failures, totals = [], []

    def body():
        try:
            for _ in range(3):
                with made_loop() as loop, pipes(1) as [pipe]:
                    received = []

                    def readable(watcher, events, pipe=pipe, received=received):
                        received.append(pipe.take())
                        if len(received) == count:
                            watcher.destroy()
                        else:
                            pipe.put()

                    loop.io(pipe.r, "r", readable)
                    loop.periodic(0.001, lambda watcher, received=received: len(received) == count and watcher.stop())
                    pipe.put()
                    finish(loop)
                    totals.append(len(received))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert not failures
    assert totals == [count] * 36


def test_other_threads_run_while_the_loop_sleeps(loop, pipe):
    """The GIL is released in the wait."""
    beats = []
    stop = threading.Event()

    def body():
        while not stop.is_set():
            beats.append(None)
            time.sleep(0.001)

    heart = threading.Thread(target=body)
    loop.io(pipe.r, "r", unexpected)
    heart.start()
    try:
        loop.run_once(0)
        before = len(beats)
        loop.run(timeout=0.2)
        assert len(beats) - before >= 10
    finally:
        stop.set()
        heart.join()


def test_other_threads_run_while_the_loop_never_sleeps(loop):
    """Deferred callbacks without end let other threads in."""
    asked = threading.Event()

    def again():
        if not asked.is_set():
            loop.defer(again)

    loop.defer(again)
    thread = threading.Timer(0.02, asked.set)
    thread.start()
    finish(loop)
    thread.join()
    assert asked.is_set()
