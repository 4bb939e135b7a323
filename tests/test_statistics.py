"""Loop.statistics(): a frozen record that counts exactly."""

import pytest
from _support import BOUND, KINDS, finish, kind_arguments, made_loop, pipes

from linux_event.statistics import Statistics

FIELDS = (
    "iterations",
    "callbacks",
    "completions",
    "submissions",
    "syscalls",
    "cq_overflows",
    "active_watchers",
    "operations_in_flight",
    "streams",
    "listeners",
    "datagrams",
    "pool_buffers_in_use",
)


def test_a_new_loop_has_done_nothing(loop):
    record = loop.statistics()
    assert isinstance(record, Statistics)
    assert all(getattr(record, name) == 0 for name in FIELDS)
    assert all(type(value) is int for value in record)
    assert all(value == 0 for value in record)


def test_the_record_is_frozen(loop, pipe):
    record = loop.statistics()
    for name in record._fields:
        with pytest.raises(AttributeError):
            setattr(record, name, 1)
    with pytest.raises(AttributeError):
        record.nonsense = 1
    loop.io(pipe.r, "r", print)
    loop.run_once(0)
    assert record.iterations == 0
    assert record.active_watchers == 0
    assert loop.statistics() is not record
    assert loop.statistics() == loop.statistics()


def test_every_field_is_explained():
    for name in Statistics._fields:
        assert len(getattr(Statistics, name).__doc__) > 20


def test_iterations_and_callbacks(loop):
    for n in range(1, 6):
        loop.defer(int)
        loop.defer(int)
        loop.timer(0, lambda w: None)
        loop.run_once(0)
        record = loop.statistics()
        assert record.iterations == n
        assert record.callbacks == 3 * n


def test_callbacks_of_every_kind_are_counted(loop, pipe):
    loop.on_error = lambda source, error: None
    loop.io(pipe.r, "r", lambda w, events: w.destroy())
    loop.periodic(0.001, lambda w: w.destroy())
    loop.idle(lambda w: w.destroy())
    loop.post(int)
    loop.defer(int, "no number")
    pipe.put()
    finish(loop)
    assert loop.statistics().callbacks == 5


def test_completions_and_submissions(loop):
    with pipes(7) as many:
        for pipe in many:
            loop.io(pipe.r, "r", lambda w, events: None, edge=True)
        assert loop.statistics().submissions == 0
        loop.run_once(0)
        armed = loop.statistics()
        # One more is the loop's own.
        assert armed.submissions == 8
        assert armed.completions == 0
        assert armed.requests_in_flight == 7
        for pipe in many:
            pipe.put()
        assert loop.run_once(0) == 7
        record = loop.statistics()
        assert record.submissions == armed.submissions
        assert record.completions == 7
        assert record.requests_in_flight == 7
        assert record.syscalls - armed.syscalls == 1


def test_watchers_active_and_not(loop, pipe):
    made = [getattr(loop, kind)(*kind_arguments(kind, pipe), print) for kind in KINDS]
    count = len(KINDS)
    assert loop.statistics().watchers == count
    assert loop.statistics().active_watchers == count
    assert loop.statistics().timers == 2
    made[0].ref = False
    made[3].ref = False
    assert loop.statistics().active_watchers == count
    for number, watcher in enumerate(made, start=1):
        watcher.stop()
        assert loop.statistics().active_watchers == count - number
        assert loop.statistics().watchers == count
    assert loop.statistics().timers == 0
    for number, watcher in enumerate(made, start=1):
        watcher.destroy()
        assert loop.statistics().watchers == count - number


def test_a_stopped_watcher_has_no_request_left(loop):
    with pipes(20) as many:
        kept = [loop.io(pipe.r, "r", print) for pipe in many]
        loop.run_once(0)
        assert loop.statistics().requests_in_flight == 20
        for watcher in kept[:10]:
            watcher.stop()
        for watcher in kept[10:]:
            watcher.destroy()
        loop.timer(0.001, lambda w: None)
        finish(loop)
        assert loop.statistics().requests_in_flight == 0
        assert loop.statistics().callbacks == 1


def test_a_watcher_stopped_before_it_was_submitted_makes_no_request(loop, pipe):
    loop.io(pipe.r, "r", print).stop()
    loop.io(pipe.r, "r", print).destroy()
    loop.timer(0, lambda w: None)
    finish(loop)
    assert loop.statistics().requests_in_flight == 0


def test_deferred(loop):
    for n in range(5):
        assert loop.statistics().deferred == n
        loop.defer(int)
    seen = []
    loop.defer(lambda: seen.append(loop.statistics().deferred))
    finish(loop)
    assert seen == [0]
    assert loop.statistics().deferred == 0


def test_counts_only_grow(loop, pipe):
    loop.io(pipe.r, "r", lambda w, events: pipe.take())
    before = loop.statistics()
    for _ in range(20):
        pipe.put()
        loop.run_once(0)
        after = loop.statistics()
        for name in FIELDS[:6]:
            assert getattr(after, name) >= getattr(before, name)
        assert after.iterations == before.iterations + 1
        assert after.callbacks == before.callbacks + 1
        assert after.syscalls > before.syscalls
        before = after


def test_statistics_in_a_callback(loop):
    seen = []
    loop.timer(0, lambda w: seen.append(loop.statistics()))
    loop.run_once(0)
    [record] = seen
    assert record.iterations == 1
    assert record.active_watchers == 0
    assert record.timers == 0


def test_overflows_are_counted_and_lose_nothing():
    with made_loop(entries=4, cq_entries=4) as loop, pipes(60) as many:
        got = set()
        for number, pipe in enumerate(many):
            loop.io(pipe.r, "r", lambda w, events: (got.add(w.data), many[w.data].take()), data=number)
        loop.run_once(0)
        for pipe in many:
            pipe.put()
        while len(got) < 60:
            assert loop.run_once(BOUND) > 0
        assert loop.statistics().cq_overflows > 0
