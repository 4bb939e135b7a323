"""Random use of a loop, compared with a simple model of what it must do.

Every step changes some watchers and files and runs one iteration; callbacks change more. The model knows which files
are readable and which watchers are active, so it can say which callbacks must come, which may and which must not. A
failure prints its seed: LE_TEST_SEED=that seed runs the same steps again.
"""

import contextlib
import os
import random
import select

import pytest
from _support import BOUND, eventfds, finish, made_loop, scaled

from linux_event import Events

FIXED_SEEDS = [1, 2, 3, 4, 5, 6]
POLLS = ["r", "w", "rw"]


class File:
    """An eventfd: readable when its count is not zero, writable always."""

    def __init__(self, fd):
        self.fd = fd
        self.ready = self.was_ready = False
        self.begin()

    def begin(self):
        # Readable at any time since this iteration began, and since the one before it began.
        self.was_ready_before = self.was_ready
        self.was_ready = self.ready
        self.consumed = False

    def write(self, watchers):
        os.eventfd_write(self.fd, 1)
        self.ready = self.was_ready = True
        for model in watchers:
            if model.file is self:
                model.written = True

    def read(self):
        if self.ready:
            os.eventfd_read(self.fd)
            self.ready = False
            self.consumed = True


class Model:
    """What is known of one watcher; `limit` is how many calls are still allowed in this iteration."""

    def __init__(self, machine, priority):
        self.machine = machine
        self.priority = priority
        self.active = self.destroyed = False

    def begin(self):
        self.calls = 0
        # What an interrupt left over comes first in the next iteration, and then that iteration's own call.
        self.limit = 1 if self.machine.strict else 2
        self.must = self.active and self.due()

    def touch(self):
        """Started, stopped or changed: what was collected for it counts no longer."""
        self.must = False
        if self.machine.dispatching:
            self.limit = 0

    def start(self):
        if not self.active:
            self.touch()
            self.active = True
            self.armed()
        self.watcher.start()

    def stop(self):
        if self.active:
            self.touch()
            self.active = False
        self.watcher.stop()

    def destroy(self):
        self.touch()
        self.active, self.destroyed = False, True
        self.watcher.destroy()

    def called(self):
        assert self.active, "the callback of a watcher that is not active"
        assert self.calls < self.limit, "called too often, or for what happened before it was stopped"
        self.calls += 1
        self.machine.note(self.priority)

    def check(self):
        assert self.watcher.is_active() == self.active
        assert self.watcher.is_destroyed() == self.destroyed


class IOModel(Model):
    def __init__(self, machine, file, poll, edge, priority):
        super().__init__(machine, priority)
        self.file, self.poll, self.edge = file, poll, edge
        self.armed()
        self.watcher = machine.loop.io(file.fd, poll, self.on_event, edge=edge, priority=priority, start=False)

    def armed(self):
        # What an edge-triggered watcher has not been told yet: how things stood, and that something was written.
        self.fresh, self.written = True, False

    def due(self):
        readable = "r" in self.poll and self.file.ready
        writable = "w" in self.poll
        if self.edge:
            return (self.fresh and (readable or writable)) or (self.written and readable)
        return readable or writable

    def set_poll(self, poll):
        if poll != self.poll:
            # Of what was collected already, what is still wanted may be told.
            self.must = False
            self.poll = poll
            self.armed()
        self.watcher.poll = poll

    def on_event(self, watcher, events):
        assert watcher is self.watcher
        self.called()
        self.fresh = self.written = False
        assert events
        assert not events & ~(Events.READ | Events.WRITE)
        if events & Events.READ:
            assert "r" in self.poll
            # An edge-triggered watcher is told what happened, even if it is gone since; a level-triggered one is not.
            there = self.file.was_ready or (self.edge and self.file.was_ready_before)
            assert there or not self.machine.strict, f"nothing to read in this iteration: {watcher}"
        if events & Events.WRITE:
            assert "w" in self.poll
        self.machine.act(inside=True)

    def end(self):
        if self.must and not self.file.consumed:
            assert self.calls == 1, "not called though ready all the time"


class TimerModel(Model):
    def __init__(self, machine, after, priority):
        super().__init__(machine, priority)
        self.after = after
        self.watcher = machine.loop.timer(after, self.on_timer, priority=priority, start=False)

    def armed(self):
        pass

    def due(self):
        return self.after == 0

    def on_timer(self, watcher):
        assert watcher is self.watcher
        assert self.after == 0, "a timer of an hour fired"
        self.called()
        self.active = False
        if self.machine.strict:
            # Whatever starts it again arms it for the next iteration.
            self.limit = self.calls
        assert not watcher.is_active()
        self.machine.act(inside=True)

    def end(self):
        if self.must:
            assert self.calls == 1, "a timer that was due did not fire"


class Machine:
    """A loop and its model."""

    def __init__(self, seed, loop, fds, strict, embedded=False):
        self.random = random.Random(seed)
        self.loop = loop
        self.strict = strict
        # The step after which another event loop, so to say, waits for this one.
        self.embed_after = self.random.randrange(50) if embedded else None
        self.fd = None
        self.files = [File(fd) for fd in fds]
        self.models = []
        self.queue, self.expected = [], []
        self.dispatching = False
        self.count = self.number = 0
        self.order = []
        self.errors = []
        loop.on_error = lambda source, error: self.errors.append(error)

    def note(self, priority):
        if not self.strict:
            return
        self.count += 1
        assert not self.expected, "a watcher was called before a deferred callback"
        self.dispatching = True
        self.order.append(priority)

    def deferred(self, number):
        assert not self.dispatching, "a deferred callback was called after a watcher"
        assert number == self.expected.pop(0), "deferred callbacks out of order"
        self.count += 1
        self.act(inside=True)

    def act(self, inside):
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2)) if inside else self.random.randrange(8)):
            self.random.choice(self.INSIDE if inside else self.OUTSIDE)(self)
        if inside and not self.strict and self.random.random() < 0.02:
            raise KeyboardInterrupt

    def some(self, kind=Model):
        of_kind = [m for m in self.models if isinstance(m, kind) and not m.destroyed]
        return self.random.choice(of_kind) if of_kind else None

    def add_io(self):
        if len(self.models) > 60:
            return
        file, poll = self.random.choice(self.files), self.random.choice(POLLS)
        self.add(IOModel(self, file, poll, self.random.random() < 0.3, self.random.randint(-2, 2)))

    def add_timer(self):
        if len(self.models) > 60:
            return
        self.add(TimerModel(self, self.random.choice((0, 0, 3600)), self.random.randint(-2, 2)))

    def add(self, model):
        model.begin()
        self.models.append(model)
        if self.random.random() < 0.8:
            model.start()

    def start(self):
        if model := self.some():
            model.start()

    def stop(self):
        if model := self.some():
            model.stop()

    def restart(self):
        if model := self.some():
            model.stop()
            model.start()

    def destroy(self):
        if model := self.some():
            model.destroy()

    def set_poll(self):
        if model := self.some(IOModel):
            model.set_poll(self.random.choice(POLLS))

    def set_priority(self):
        if model := self.some():
            model.priority = model.watcher.priority = self.random.randint(-2, 2)

    def write(self):
        self.random.choice(self.files).write(m for m in self.models if isinstance(m, IOModel))

    def read(self):
        self.random.choice(self.files).read()

    def defer(self):
        self.number += 1
        self.queue.append(self.number)
        self.loop.defer(self.deferred, self.number)

    INSIDE = (add_io, add_timer, start, stop, restart, destroy, set_poll, write, write, read, read, defer)
    OUTSIDE = (*INSIDE, set_priority)

    def step(self):
        self.act(inside=False)
        self.models = [m for m in self.models if not m.destroyed]
        for part in (*self.files, *self.models):
            part.begin()
        self.dispatching = False
        self.order.clear()
        self.count = 0
        self.expected += self.queue
        self.queue.clear()
        if self.embed_after is not None and self.loop.statistics().iterations >= self.embed_after:
            self.fd = self.loop.fileno()
        if self.fd is not None and (self.expected or any(model.must for model in self.models)):
            # A deadline that has just come may show a moment later, when the timer of the kernel has run.
            assert select.select([self.fd], [], [], 5)[0], "there is something to do, and fileno() does not show it"
        called = None
        with contextlib.suppress(KeyboardInterrupt):
            called = self.loop.run_once(0)
        if self.errors:
            raise self.errors[0]
        if self.strict:
            assert called == self.count
            self.check_iteration()
        for model in self.models:
            model.check()
        statistics = self.loop.statistics()
        assert statistics.active_watchers == sum(m.active for m in self.models)
        if self.strict:
            assert statistics.timers == sum(m.active for m in self.models if isinstance(m, TimerModel))
        assert statistics.deferred == len(self.queue) + len(self.expected)
        assert statistics.watchers == sum(not m.destroyed for m in self.models)

    def check_iteration(self):
        assert self.expected == [], "a deferred callback was not called"
        assert self.order == sorted(self.order, reverse=True), "not in the order of priorities"
        for model in self.models:
            model.end()

    def end(self):
        for model in self.models:
            model.destroy()
        self.models.clear()
        self.act = lambda inside: None
        self.dispatching = False
        self.expected += self.queue
        self.queue.clear()
        finish(self.loop)
        assert self.expected == []
        self.loop.timer(0.001, lambda w: None)
        finish(self.loop, BOUND)
        assert self.loop.statistics().requests_in_flight == 0
        assert len(self.loop.watchers) == len(self.loop.io_watchers) == 0


def seeds():
    chosen = os.environ.get("LE_TEST_SEED")
    return [int(chosen)] if chosen else [*FIXED_SEEDS, None]


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize(
    ("arguments", "embedded"),
    [({}, False), ({}, True), ({"debug": True, "busy_poll": 0.0001, "entries": 2, "cq_entries": 1024}, False)],
    ids=["plain", "embedded", "other ways"],
)
def test_every_iteration_does_what_the_model_says(seed, arguments, embedded):
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"LE_TEST_SEED={seed}")
    with made_loop(**arguments) as loop, eventfds(8) as fds:
        machine = Machine(seed, loop, fds, strict=True, embedded=embedded)
        for _ in range(scaled(2000, least=200)):
            machine.step()
        machine.end()


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize(
    "arguments",
    [
        {"entries": 1, "cq_entries": 2},
        {"max_events": 2},
        {"entries": 4, "cq_entries": 4, "max_events": 3},
        {"sqpoll": True, "entries": 8},
    ],
    ids=["small ring", "few events", "both", "sqpoll"],
)
def test_nothing_wrong_is_ever_called(seed, arguments):
    """With queues that overflow, batches cut short and interrupts: fewer things are certain, nothing may be wrong."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"LE_TEST_SEED={seed}")
    with made_loop(**arguments) as loop, eventfds(8) as fds:
        machine = Machine(seed, loop, fds, strict=False)
        for _ in range(scaled(1000, least=100)):
            machine.step()
        machine.end()
