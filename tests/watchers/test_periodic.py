"""Periodic: the grid, ticks that were missed, odd intervals."""

import itertools
import math
import time

import pytest
from _fault import unexpected
from _support import BOUND, finish, made_loop, run_until, spend

from linux_event import DestroyedError

BAD_TIMES = [
    (math.nan, ValueError),
    (math.inf, ValueError),
    (-math.inf, ValueError),
    (-1, ValueError),
    (-0.001, ValueError),
    (-(10**400), ValueError),
    ("1", TypeError),
    ([1], TypeError),
    (1j, TypeError),
]


@pytest.mark.parametrize(("interval", "error"), [*BAD_TIMES, (0, ValueError), (0.0, ValueError), (None, TypeError)])
@pytest.mark.parametrize("decorator", [False, True])
def test_bad_intervals(loop, interval, error, decorator):
    with pytest.raises(error, match="interval") as caught:
        loop.periodic(interval, *([] if decorator else [print]))
    if interval != -(10**400):
        assert repr(interval) in str(caught.value)
    assert len(loop.watchers) == 0
    assert loop.statistics().timers == 0


@pytest.mark.parametrize(("offset", "error"), BAD_TIMES)
@pytest.mark.parametrize("decorator", [False, True])
def test_bad_offsets(loop, offset, error, decorator):
    with pytest.raises(error, match="offset"):
        loop.periodic(1, *([] if decorator else [print]), offset=offset)
    assert len(loop.watchers) == 0


@pytest.mark.parametrize("arguments", [{"interval": 1e300}, {"interval": 10**400}, {"interval": 1, "offset": 1e300}])
def test_huge_times_are_far_away(loop, arguments):
    loop.periodic(callback=unexpected, **arguments)
    loop.timer(0.001, lambda w: None)
    loop.run(0.01)


def test_a_tiny_interval_neither_hangs_nor_overflows(loop):
    called = []

    def tick(watcher):
        called.append(watcher.missed)
        if len(called) == 5:
            watcher.stop()

    loop.periodic(1e-9, tick)
    spend(0.001)
    finish(loop)
    assert len(called) == 5
    assert called[0] >= 999_000


@pytest.mark.parametrize("interval", [1e-12, 5e-324])
def test_an_interval_that_is_nothing_in_nanoseconds(loop, interval):
    with pytest.raises(ValueError, match="interval"):
        loop.periodic(interval, print)


def test_attributes(loop):
    periodic = loop.periodic(0.5, print)
    assert periodic.interval == 0.5
    assert periodic.missed == 0
    assert periodic.is_active()
    for name in ("missed", "nonsense"):
        with pytest.raises(AttributeError):
            setattr(periodic, name, 1)
    text = repr(periodic)
    assert text.startswith(f"<Periodic id={periodic.id} ")
    assert "interval=0.5" in text


def test_remaining(loop):
    periodic = loop.periodic(100, print)
    assert 99 < periodic.remaining <= 100
    periodic.stop()
    assert periodic.remaining == 0
    assert 9 < loop.periodic(100, print, offset=10).remaining <= 10
    assert loop.periodic(100, print, offset=0).remaining == 0


def test_offset(loop):
    assert loop.periodic(5, print).offset == 5
    assert loop.periodic(5, print, offset=2).offset == 2
    assert loop.periodic(5, print, offset=0).offset == 0
    with pytest.raises(AttributeError):
        loop.periodic(5, print).offset = 1


def test_interval_assigned_while_active_begins_a_new_grid(loop):
    calls = []

    def tick(watcher):
        calls.append((time.monotonic_ns() - began, watcher.missed))
        if len(calls) == 3:
            watcher.stop()

    periodic = loop.periodic(BOUND, tick)
    began = time.monotonic_ns()
    periodic.interval = 0.01
    assert periodic.interval == 0.01
    finish(loop)
    ticks = 0
    for at, missed in calls:
        ticks += 1 + missed
        assert at >= ticks * 10_000_000


def test_interval_assigned_is_the_default_offset_of_the_next_start(loop):
    periodic = loop.periodic(5, print)
    periodic.interval = 50
    assert periodic.offset == 50
    periodic.stop().start()
    assert 49 < periodic.remaining <= 50
    fixed = loop.periodic(5, print, offset=5)
    fixed.interval = 50
    fixed.stop().start()
    assert 4 < fixed.remaining <= 5


def test_interval_assigned_in_its_own_callback(loop):
    calls = []

    def tick(watcher):
        calls.append(time.monotonic_ns())
        if len(calls) == 3:
            watcher.stop()
        else:
            watcher.interval = 0.005 * (1 + len(calls))

    loop.periodic(0.001, tick)
    finish(loop)
    assert calls[1] - calls[0] >= 9_999_000
    assert calls[2] - calls[1] >= 14_999_000


@pytest.mark.parametrize(("interval", "error"), [*BAD_TIMES, (0, ValueError), (None, TypeError)])
def test_bad_intervals_assigned(loop, interval, error):
    periodic = loop.periodic(5, print)
    with pytest.raises(error, match="interval"):
        periodic.interval = interval
    assert periodic.interval == 5
    assert periodic.is_active()


def test_interval_of_a_destroyed_periodic(loop):
    periodic = loop.periodic(5, print)
    periodic.destroy()
    with pytest.raises(DestroyedError):
        periodic.interval = 1
    assert periodic.interval == 5
    assert periodic.remaining == 0


def test_first_at_the_interval_then_on_a_fixed_grid(loop):
    interval = 10_000_000
    late, ticks = [], [0]

    def tick(watcher):
        ticks[0] += 1 + watcher.missed
        late.append(time.monotonic_ns() - began - ticks[0] * interval)
        if len(late) == 20:
            loop.stop()

    began = time.monotonic_ns()
    loop.periodic(interval / 1e9, tick)
    loop.run(BOUND)
    assert len(late) == 20
    # A tick of the grid is never early, however late the ones before it were.
    assert min(late) >= 0
    # And never later for what came before: a drift would add up, while one call that the machine held up does not.
    assert min(late[10:]) < interval / 2


@pytest.mark.parametrize("offset", [0, 0.004, 0.02])
def test_first_at_the_offset(loop, offset):
    calls = []

    def tick(watcher):
        calls.append(time.monotonic_ns() - began)
        ticks[0] += 1 + watcher.missed
        assert calls[-1] >= round(offset * 1e9) + (ticks[0] - 1) * 10_000_000
        if len(calls) == 4:
            watcher.stop()

    ticks = [0]
    began = time.monotonic_ns()
    loop.periodic(0.01, tick, offset=offset)
    finish(loop)
    assert len(calls) == 4


def test_offset_none_is_the_interval(loop):
    calls = []
    began = time.monotonic_ns()
    loop.periodic(0.02, lambda w: (calls.append(time.monotonic_ns() - began), w.stop()), offset=None)
    finish(loop)
    assert calls[0] >= 20_000_000


def test_offset_zero_is_due_at_once(loop):
    calls = []
    loop.periodic(BOUND, calls.append, offset=0)
    assert loop.run_once(0) == 1
    assert loop.run_once(0) == 0
    assert len(calls) == 1


def test_an_offset_beyond_the_interval(loop):
    calls = []
    began = time.monotonic_ns()
    loop.periodic(0.001, lambda w: (calls.append((time.monotonic_ns() - began, w.missed)), w.stop()), offset=0.03)
    loop.run(0.02)
    if time.monotonic_ns() - began < 30_000_000:
        assert calls == []
    finish(loop)
    assert calls[0][0] >= 30_000_000


def test_missed_ticks_are_merged_into_one_call(loop):
    interval = 10_000_000
    calls = []

    def tick(watcher):
        calls.append((time.monotonic_ns() - began, watcher.missed))
        if len(calls) == 1:
            spend(0.055)
        elif len(calls) == 4:
            watcher.stop()

    began = time.monotonic_ns()
    loop.periodic(interval / 1e9, tick)
    finish(loop)
    assert len(calls) == 4
    # The callback ran for five and a half intervals: at least four ticks passed, and the fifth is the next call.
    assert calls[1][1] >= 4
    ticks = 0
    for at, missed in calls:
        ticks += 1 + missed
        assert at >= ticks * interval


def test_missed_before_the_loop_runs(loop):
    seen = []
    loop.periodic(0.001, lambda w: (seen.append(w.missed), w.stop()))
    spend(0.0205)
    finish(loop)
    assert seen[0] >= 19


def test_many_missed_ticks_do_not_starve_others(loop):
    order = []
    slow = loop.periodic(1e-6, lambda w: order.append("slow"))
    loop.periodic(0.005, lambda w: (order.append("other"), w.stop()))
    run_until(loop, lambda: "other" in order)
    slow.stop()
    assert order.count("other") == 1


def test_a_callback_slower_than_its_interval_neither_recurses_nor_bursts(loop):
    depth, calls = [0], []

    def tick(watcher):
        assert depth[0] == 0
        depth[0] += 1
        calls.append(loop.statistics().iterations)
        spend(0.003)
        depth[0] -= 1
        if len(calls) == 10:
            watcher.stop()

    loop.periodic(0.001, tick)
    finish(loop)
    assert len(set(calls)) == 10


def test_stop_and_start_begin_a_new_grid(loop):
    calls = []
    periodic = loop.periodic(0.02, lambda w: (calls.append(time.monotonic_ns()), w.stop()))
    spend(0.01)
    began = time.monotonic_ns()
    periodic.stop().start()
    finish(loop)
    assert calls[0] - began >= 20_000_000
    assert not periodic.is_active()
    began = time.monotonic_ns()
    periodic.start()
    finish(loop)
    assert calls[1] - began >= 20_000_000
    assert calls[1] - began >= (1 + periodic.missed) * 20_000_000


def test_start_while_active_keeps_the_grid(loop):
    calls = []

    def tick(watcher):
        calls.append((time.monotonic_ns() - began, watcher.missed))
        watcher.start()
        if len(calls) == 3:
            watcher.stop()

    began = time.monotonic_ns()
    loop.periodic(0.01, tick).start()
    finish(loop)
    ticks = 0
    for at, missed in calls:
        ticks += 1 + missed
        assert at >= ticks * 10_000_000


def test_restart_in_its_own_callback(loop):
    calls = []

    def tick(watcher):
        calls.append(time.monotonic_ns())
        watcher.stop()
        if len(calls) < 4:
            watcher.start()

    loop.periodic(0.005, tick)
    finish(loop)
    assert len(calls) == 4
    assert all(b - a >= 5_000_000 for a, b in itertools.pairwise(calls))


def test_destroy_in_its_own_callback(loop):
    calls = []
    periodic = loop.periodic(0.001, lambda w: (calls.append(1), w.destroy()))
    finish(loop)
    assert calls == [1]
    assert periodic.is_destroyed()
    assert periodic.interval == 0.001
    with pytest.raises(DestroyedError):
        periodic.start()


def test_two_periodics_keep_their_rates(loop):
    counts = {"fast": 0, "slow": 0}

    def tick(watcher):
        counts[watcher.data] += 1 + watcher.missed

    began = time.monotonic()
    loop.periodic(0.002, tick, data="fast")
    loop.periodic(0.01, tick, data="slow")
    run_until(loop, lambda: counts["slow"] >= 10)
    elapsed = time.monotonic() - began
    # As many ticks as intervals have passed; the iteration that ended the wait may have been the last word of one only.
    assert counts["slow"] <= elapsed / 0.01
    assert counts["fast"] <= elapsed / 0.002
    assert counts["fast"] >= 5 * (counts["slow"] - 1)


def test_an_active_periodic_keeps_run_going_and_an_unreferenced_one_does_not(loop):
    calls = []
    periodic = loop.periodic(0.005, lambda w: calls.append(1), ref=False)
    finish(loop)
    assert calls == []
    loop.timer(0.03, lambda w: None)
    finish(loop)
    assert calls
    assert periodic.is_active()
    periodic.ref = True
    began = time.monotonic_ns()
    loop.run(0.02)
    assert time.monotonic_ns() - began >= 20_000_000


def test_an_error_does_not_stop_it(loop):
    seen = []

    def on_error(source, error):
        seen.append(error)
        if len(seen) == 3:
            source.stop()

    loop.on_error = on_error
    loop.periodic(0.001, lambda w: 1 / 0)
    finish(loop)
    assert [type(error) for error in seen] == [ZeroDivisionError] * 3


def test_close_with_active_periodics():
    with made_loop() as loop:
        for n in range(1, 100):
            loop.periodic(n * 0.0001, lambda w: None)
        loop.run(0.01)
