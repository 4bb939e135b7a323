"""Callbacks that do the worst at the worst moment to each other, and fds closed under watchers."""

import contextlib
import gc
import os
import socket
import weakref

import pytest
from _children import ended
from _mounts import mounted, privileged
from _support import BOUND, Pipe, finish, made_loop, pipes

from linux_event import Events, Loop

# --- a batch whose members act on each other ----------------------------------------------------------------------


class Batch:
    """Six watchers whose events are all collected together; the first one called does something to the others."""

    SIZE = 6

    def __init__(self, loop, kind, many, folder):
        self.loop, self.called, self.many, self.folder = loop, [], many, folder
        self.action = None
        self.children = []
        self.watchers = [self.make(kind, number) for number in range(self.SIZE)]

    def make(self, kind, number):
        if kind == "timer":
            return self.loop.timer(0, self.on_event, data=number)
        if kind == "periodic":
            return self.loop.periodic(BOUND, self.on_event, data=number, offset=0)
        if kind == "idle":
            return self.loop.idle(self.on_event, data=number)
        if kind == "wakeup":
            watcher = self.loop.wakeup(self.on_event, data=number)
            watcher.notify()
            return watcher
        if kind == "child":
            self.children.append(ended())
            return self.loop.child(self.children[-1], self.on_event, data=number)
        if kind == "fswatch":
            watcher = self.loop.fswatch(self.folder, ["open"], self.on_event, data=number)
            os.listdir(self.folder)  # for those that are watching already the same event again, which is merged with it
            return watcher
        if kind == "watch":
            path = f"{self.folder}/{number}"
            open(path, "w").close()
            watcher = self.loop.watch(path, "attrib", self.on_event, data=number)
            os.utime(path)
            return watcher
        self.many[number].put()
        return self.loop.io(self.many[number].r, "r", self.on_event, data=number, edge=kind == "edge")

    def on_event(self, watcher, *_):
        self.called.append(watcher.data)
        if self.action and len(self.called) == 1:
            self.action(watcher)


KINDS = ["level", "edge", "timer", "periodic", "idle", "child", "wakeup", "watch"]
KINDS.append(pytest.param("fswatch", marks=privileged))


@pytest.fixture(params=KINDS)
def batch(loop, request, tmp_path):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(mounted(tmp_path / "mount")) if request.param == "fswatch" else tmp_path
        batch = Batch(loop, request.param, stack.enter_context(pipes(Batch.SIZE)), folder)
        yield batch
        for watcher in list(loop.watchers.values()):
            watcher.destroy()
        for child in batch.children:
            child.wait()


@pytest.mark.parametrize("method", ["stop", "destroy"])
def test_a_callback_that_ends_others_of_its_batch(loop, batch, method):
    batch.action = lambda watcher: [getattr(batch.watchers[n], method)() for n in (1, 3, 5)]
    assert loop.run_once(0) == 3
    assert batch.called == [0, 2, 4]
    assert [w.is_active() for w in batch.watchers][1::2] == [False] * 3
    for n in (1, 3, 5):
        assert batch.watchers[n].is_destroyed() == (method == "destroy")


@pytest.mark.parametrize("method", ["stop", "destroy"])
def test_a_callback_that_ends_itself(loop, batch, method):
    batch.action = lambda watcher: getattr(watcher, method)()
    assert loop.run_once(0) == 6
    assert batch.called == [0, 1, 2, 3, 4, 5]
    batch.called.clear()
    batch.action = None
    loop.run_once(0)
    assert 0 not in batch.called
    assert not batch.watchers[0].is_active()


def test_a_callback_that_ends_all(loop, batch):
    batch.action = lambda watcher: [w.destroy() for w in batch.watchers]
    assert loop.run_once(0) == 1
    assert batch.called == [0]
    finish(loop)
    assert loop.statistics().watchers == 0


def test_a_callback_that_restarts_others_drops_what_was_collected_for_them(loop, batch):
    batch.action = lambda watcher: [w.stop().start() for w in batch.watchers[1:]]
    assert loop.run_once(0) == 1
    assert batch.called == [0]
    assert all(w.is_active() for w in batch.watchers[1:])


def test_a_callback_that_restarts_itself(loop, batch):
    batch.action = lambda watcher: watcher.stop().start()
    assert loop.run_once(0) == 6
    assert batch.called == [0, 1, 2, 3, 4, 5]
    assert batch.watchers[0].is_active()


def test_a_callback_that_replaces_its_batch(loop, batch, request):
    kind = request.node.callspec.params["batch"]
    new = []

    def replace(watcher):
        for old in batch.watchers:
            old.destroy()
        new.extend(batch.make(kind, number) for number in range(Batch.SIZE))

    batch.action = replace
    assert loop.run_once(0) == 1
    assert batch.called == [0]
    assert loop.run_once(0) == 6
    assert sorted(batch.called[1:]) == [0, 1, 2, 3, 4, 5]
    assert {w.id for w in new}.isdisjoint(w.id for w in batch.watchers)


def test_a_callback_that_drops_the_last_reference_to_others(loop, batch):
    def forget(watcher):
        for other in batch.watchers[1:]:
            other.stop()
        batch.watchers.clear()
        gc.collect()

    batch.action = forget
    assert loop.run_once(0) == 1
    assert batch.called == [0]


def test_a_callback_that_destroys_itself_and_drops_its_last_reference(loop, batch):
    refs = [weakref.ref(w) for w in batch.watchers]
    batch.watchers.clear()

    def on_event(watcher, *_):
        batch.called.append(watcher.data)
        watcher.destroy()
        watcher.callback is None  # noqa: B015
        del watcher
        gc.collect()

    for ref in refs:
        ref().callback = on_event
    assert loop.run_once(0) == 6
    assert batch.called == [0, 1, 2, 3, 4, 5]
    loop.timer(0, lambda w: None)
    finish(loop)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6


def test_a_callback_that_changes_everything_about_others(loop, batch):
    changed = []

    def change(watcher):
        for other in batch.watchers[1:]:
            other.callback = lambda w, *_: changed.append(w.data)
            other.data += 100
            other.ref = False

    batch.action = change
    assert loop.run_once(0) == 6
    assert batch.called == [0]
    assert changed == [101, 102, 103, 104, 105]


def test_every_member_of_the_batch_raises(loop, batch):
    seen = []
    loop.on_error = lambda source, error: seen.append((source, type(error)))
    batch.watchers[0].callback = lambda *args: 1 / 0
    for watcher in batch.watchers[1:]:
        watcher.callback = lambda *args: {}["missing"]
    assert loop.run_once(0) == 6
    assert seen == [(w, KeyError if n else ZeroDivisionError) for n, w in enumerate(batch.watchers)]


def test_an_interrupt_in_the_middle_of_the_batch(loop, batch):
    def interrupt(watcher, *_):
        batch.called.append(watcher.data)
        if len(batch.called) in (2, 4):
            raise KeyboardInterrupt

    for watcher in batch.watchers:
        watcher.callback = interrupt
    for expected in ([0, 1], [0, 1, 2, 3]):
        with pytest.raises(KeyboardInterrupt):
            loop.run_once(0)
        assert batch.called == expected
    loop.run_once(0)
    assert batch.called[:6] == [0, 1, 2, 3, 4, 5]


def test_stop_of_the_loop_in_the_batch(loop, batch):
    batch.action = lambda watcher: loop.stop()
    loop.run()
    assert batch.called == [0, 1, 2, 3, 4, 5]


def test_what_an_interrupt_left_is_not_delivered_to_who_stopped_in_between(loop, batch):
    def interrupt(watcher):
        raise KeyboardInterrupt

    batch.action = interrupt
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(0)
    for watcher in batch.watchers:
        watcher.stop()
    loop.timer(0, lambda w: None)
    finish(loop)
    assert batch.called == [0]


# --- fds closed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True])
def test_a_callback_that_closes_its_own_fd(loop, edge):
    with pipes(3) as many:
        called = []

        def on_read(watcher, events):
            called.append(watcher.data)
            watcher.destroy()
            many[watcher.data].close()

        for number, pipe in enumerate(many):
            pipe.put()
            loop.io(pipe.r, "r", on_read, data=number, edge=edge)
        finish(loop)
        assert sorted(called) == [0, 1, 2]


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("order", ["close first", "destroy first"])
def test_a_callback_that_closes_the_fds_of_others(loop, edge, order):
    with pipes(5) as many:
        called = []

        def on_read(watcher, events):
            called.append(watcher.data)
            for number in range(1, 5):
                if order == "close first":
                    many[number].close()
                kept[number].destroy()
                many[number].close()
            watcher.destroy()

        kept = [loop.io(pipe.r, "r", on_read, data=n, edge=edge) for n, pipe in enumerate(many)]
        loop.run_once(0)
        for pipe in many:
            pipe.put()
        finish(loop)
        assert called == [0]


@pytest.mark.parametrize("edge", [False, True])
def test_the_fd_closed_under_a_watcher_disturbs_nobody(loop, pipe, edge):
    with pipes(1) as [doomed]:
        watcher = loop.io(doomed.r, "r", lambda w, events: None, edge=edge)
        _, got = loop.io(pipe.r, "r", lambda w, events: got.append(pipe.take())), []
        loop.run_once(0)
        doomed.put()
        loop.run_once(0)
        doomed.close()
        for _ in range(5):
            pipe.put()
            loop.run_once(0)
        assert got == [b"x"] * 5
        watcher.stop()
        with pytest.raises(OSError, match="Bad file descriptor"):
            watcher.start()
        watcher.destroy()
        loop.timer(0.001, lambda w: w.loop.stop())
        loop.run(BOUND)
        assert loop.statistics().requests_in_flight == 1


@pytest.mark.parametrize("edge", [False, True])
def test_the_fd_closed_before_the_first_iteration_is_told_once(loop, edge):
    pipe = Pipe()
    seen = []
    watcher = loop.io(pipe.r, "r", lambda w, events: seen.append((events, w.is_active())), edge=edge)
    pipe.close()
    # One that does not sleep: nothing of the loop's own may take the number before the kernel looks at it.
    assert loop.run_once(0) == 1
    finish(loop)
    assert seen == [(Events.ERROR, False)]
    assert not watcher.is_active()
    assert not watcher.is_destroyed()
    assert loop.statistics().requests_in_flight == 0


@pytest.mark.parametrize("edge", [False, True])
def test_an_inactive_watcher_takes_the_file_that_has_its_number_when_it_starts(loop, edge):
    with pipes(2) as [old, new]:
        watcher = loop.io(old.r, "r", lambda w, events: seen.append(os.read(w.fd, 10)), edge=edge)
        seen = []
        old.put(b"old")
        loop.run_once(0)
        watcher.stop()
        os.dup2(new.r, old.r)
        watcher.start()
        assert loop.run_once(0) == 0
        new.put(b"new")
        loop.run_once(0)
        watcher.destroy()
        assert seen == [b"old", b"new"]


@pytest.mark.parametrize("reused", [False, True])
def test_debug_finds_the_fd_closed_under_a_watcher(reused):
    told = []
    with made_loop(debug=True) as loop, pipes(2) as [doomed, other]:
        loop.on_error = lambda source, error: told.append((source, error))
        watcher = loop.io(doomed.r, "r", print)
        loop.timer(BOUND, print)
        loop.run_once(0)
        assert told == []
        if reused:
            os.dup2(other.r, doomed.r)
        else:
            doomed.close_read()
        loop.run_once(0)
        [(source, error)] = told
        assert source is watcher
        assert type(error) is OSError
        assert error.errno == 9
        assert error.filename == watcher.fd
        assert not watcher.is_active()
        loop.run_once(0)
        assert len(told) == 1


def test_a_loop_whose_watched_fd_is_gone_does_not_spin(loop):
    with pipes(1) as [doomed]:
        loop.io(doomed.r, "r", lambda w, events: None)
        doomed.put()
        loop.run_once(0)
        doomed.close()
        before = loop.statistics().iterations
        loop.timer(0.05, lambda w: loop.stop())
        loop.run(BOUND)
        assert loop.statistics().iterations - before < 30


@pytest.mark.parametrize("edge", [False, True])
def test_a_number_used_again_gets_no_event_of_the_old_file(loop, edge):
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    with b, d:
        called = []
        old = loop.io(a, "r", lambda w, events: called.append("old"), edge=edge)
        loop.run_once(0)
        b.send(b"x")
        old.destroy()
        number = a.detach()
        os.dup2(c.fileno(), number)
        c.close()
        new = loop.io(number, "r", lambda w, events: called.append("new"), edge=edge)
        for _ in range(3):
            loop.run_once(0)
        assert called == []
        d.send(b"y")
        loop.run_once()
        assert called == ["new"]
        new.destroy()
        os.close(number)


def test_the_peer_sees_the_end_after_destroy_and_close(loop):
    a, b = socket.socketpair()
    with b:
        b.setblocking(False)
        watcher = loop.io(a, "r", print)
        loop.run_once(0)
        watcher.destroy()
        a.close()
        seen = []
        loop.io(b, "r", lambda w, events: (seen.append(b.recv(10)), w.destroy()))
        finish(loop)
        assert seen == [b""]


def test_the_peer_sees_the_end_after_close_of_the_loop():
    a, b = socket.socketpair()
    with b:
        b.settimeout(BOUND)
        loop = Loop()
        loop.io(a, "r", print)
        loop.run_once(0)
        loop.close()
        a.close()
        assert b.recv(10) == b""


def test_a_destroyed_watcher_does_not_hold_its_file_open(loop, pair):
    # The kernel's request holds the file: without a word to the kernel a reader would wait for the end for ever.
    with pipes(1) as [pipe]:
        watcher = loop.io(pipe.w, "w", lambda w, events: w.stop())
        loop.run_once(0)
        assert not watcher.is_active()
        pipe.close_write()
        seen = []
        loop.io(pipe.r, "r", lambda w, events: (seen.append(events), w.destroy()))
        finish(loop)
        assert seen == [Events.READ | Events.HANGUP]
