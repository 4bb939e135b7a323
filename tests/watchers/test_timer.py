"""Timer: deadlines, order, restarts, odd delays, very many."""

import fractions
import gc
import itertools
import math
import random
import subprocess
import time
import weakref

import pytest
from _fault import run_script
from _support import BOUND, blocks_grown, finish, made_loop, scaled, spend

from linux_event import DestroyedError, Timer

# --- delays -------------------------------------------------------------------------------------------------------


class Index:
    """An int by __index__ only, as numpy's are."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize("after", [0, 0.0, -0.0, 1e-12, 5e-324, 1e-9, Index(0), 0.001])
def test_short_delays_fire(loop, after):
    fired = []
    timer = loop.timer(after, fired.append)
    finish(loop)
    assert fired == [timer]


@pytest.mark.parametrize("after", [1e300, 1.7976931348623157e308, 2**63, 2**64, 10**400, 1e10, 9.3e9, Index(2**80)])
def test_huge_delays_are_far_away(loop, after):
    fired = []
    timer = loop.timer(after, fired.append)
    assert timer.is_active()
    assert timer.remaining > 86400 * 365
    loop.timer(0.001, lambda w: None)
    loop.run(0.01)
    assert fired == []
    timer.stop().start()
    timer.after = after
    assert timer.after > 86400 * 365
    assert loop.run_once(0) == 0


BAD_DELAYS = [
    (math.nan, ValueError),
    (math.inf, ValueError),
    (-math.inf, ValueError),
    (-1, ValueError),
    (-0.001, ValueError),
    (-1e-12, ValueError),
    (-5e-324, ValueError),
    (-(2**70), ValueError),
    ("1", TypeError),
    (b"1", TypeError),
    (None, TypeError),
    ([1], TypeError),
    (1j, TypeError),
    (fractions.Fraction(1, 2), TypeError),
]


@pytest.mark.parametrize(("after", "error"), BAD_DELAYS)
@pytest.mark.parametrize("decorator", [False, True])
def test_bad_delays(loop, after, error, decorator):
    with pytest.raises(error, match="after") as caught:
        loop.timer(after, *([] if decorator else [print]))
    assert repr(after) in str(caught.value)
    assert len(loop.watchers) == 0
    assert loop.statistics().timers == 0


@pytest.mark.parametrize(("after", "error"), BAD_DELAYS)
def test_bad_delays_assigned(loop, after, error):
    timer = loop.timer(5, print)
    with pytest.raises(error, match="after") as caught:
        timer.after = after
    assert repr(after) in str(caught.value)
    assert timer.after == 5
    assert timer.is_active()


def test_an_index_that_raises(loop):
    class Bad:
        def __index__(self):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        loop.timer(Bad(), print)
    assert len(loop.watchers) == 0


def test_after_is_seconds_as_a_float(loop):
    assert loop.timer(5, print).after == 5
    assert loop.timer(0.25, print).after == 0.25
    assert loop.timer(Index(3), print).after == 3
    assert type(loop.timer(5, print).after) is float


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1e-9, 1e-6, 0.0001, 0.001, 0.0033333333, 0.01, 0.05])
def test_never_early(loop, after):
    late = []

    def fired(watcher):
        late.append(time.monotonic_ns() - watcher.data - round(after * 1e9))

    for _ in range(5):
        loop.timer(after, fired, data=time.monotonic_ns())
        finish(loop)
    assert len(late) == 5
    assert min(late) >= 0
    assert min(late) < 1e9


def test_never_early_with_many_random_delays(loop):
    rng = random.Random(5)
    early = []

    def fired(watcher):
        if time.monotonic_ns() < watcher.data:
            early.append(watcher)

    for _ in range(scaled(2000, least=200)):
        after = rng.random() * 0.2
        loop.timer(after, fired, data=time.monotonic_ns() + int(after * 1e9))
    finish(loop)
    assert early == []


def test_never_early_when_the_iteration_took_long(loop):
    # The delay counts from the call, not from when the iteration began.
    fired = []

    def slow(watcher):
        spend(0.02)
        began = time.monotonic_ns()
        loop.timer(0.01, lambda w: fired.append(time.monotonic_ns() - began))

    loop.timer(0, slow)
    finish(loop)
    assert fired[0] >= 10_000_000


def test_zero_fires_in_the_next_iteration_never_in_the_same(loop):
    turns = []

    def fired(watcher):
        turns.append(loop.statistics().iterations)
        if len(turns) < 10:
            loop.timer(0, fired)

    loop.timer(0, fired)
    for expected in range(1, 11):
        assert loop.run_once(0) == 1
        assert len(turns) == expected
    assert turns == list(range(turns[0], turns[0] + 10))


def test_io_goes_on_between_zero_timers(loop, pipe):
    got = []

    def again(watcher):
        watcher.start()

    loop.timer(0, again)
    loop.io(pipe.r, "r", lambda w, events: (got.append(pipe.take()), loop.stop()))
    pipe.put()
    loop.run(BOUND)
    assert got == [b"x"]


def test_in_order_of_deadline(loop):
    order = []
    delays = [0.03, 0.01, 0.02, 0.0, 0.015, 0.005]
    for after in delays:
        loop.timer(after, lambda w: order.append(w.after))
    finish(loop)
    assert order == sorted(delays)


def test_equal_deadlines_in_order_of_start(loop):
    order = []
    kept = [loop.timer(0, lambda w: order.append(w.data), data=n, start=False) for n in range(100)]
    start = list(range(100))
    random.Random(3).shuffle(start)
    for n in start:
        kept[n].start()
    finish(loop)
    assert order == start


# --- one shot -----------------------------------------------------------------------------------------------------


def test_inactive_after_firing_and_start_arms_it_again(loop):
    seen = []
    timer = loop.timer(0.01, lambda w: seen.append(w.is_active()))
    for expected in range(1, 4):
        assert timer.is_active()
        began = time.monotonic_ns()
        finish(loop)
        assert time.monotonic_ns() - began >= (0 if expected == 1 else 10_000_000)
        assert seen == [False] * expected
        assert not timer.is_active()
        assert not timer.is_destroyed()
        assert loop.watchers == {timer.id: timer}
        timer.start()
    timer.destroy()


def test_start_while_active_changes_nothing(loop):
    fired = []
    began = time.monotonic_ns()
    timer = loop.timer(0.05, lambda w: fired.append(time.monotonic_ns() - began))
    spend(0.02)
    before = timer.remaining
    timer.start()
    assert timer.remaining <= before
    finish(loop)
    assert len(fired) == 1


def test_stop_and_start_count_from_now(loop):
    fired = []
    timer = loop.timer(0.03, lambda w: fired.append(time.monotonic_ns()))
    spend(0.02)
    began = time.monotonic_ns()
    timer.stop().start()
    finish(loop)
    assert fired[0] - began >= 30_000_000


def test_stopped_timers_do_not_fire(loop):
    fired = []
    timers = [loop.timer(0.001 * n, fired.append) for n in range(10)]
    for timer in timers[::2]:
        timer.stop()
    finish(loop)
    assert fired == timers[1::2]


def test_start_in_its_own_callback(loop):
    fired = []

    def again(watcher):
        fired.append(time.monotonic_ns())
        if len(fired) < 5:
            assert watcher.start() is watcher
            assert watcher.is_active()

    loop.timer(0.005, again)
    finish(loop)
    assert len(fired) == 5
    assert all(b - a >= 5_000_000 for a, b in itertools.pairwise(fired))


# --- after and remaining ------------------------------------------------------------------------------------------


def test_after_assigned_counts_from_the_next_start(loop):
    fired = []
    timer = loop.timer(BOUND, lambda w: fired.append(time.monotonic_ns()), start=False)
    timer.after = 0.01
    assert timer.after == 0.01
    assert not timer.is_active()
    began = time.monotonic_ns()
    timer.start()
    finish(loop)
    assert 10_000_000 <= fired[0] - began < BOUND * 0.5e9
    timer.after = 0.02
    began = time.monotonic_ns()
    timer.start()
    finish(loop)
    assert fired[1] - began >= 20_000_000


def test_after_assigned_while_active_counts_from_now(loop):
    fired = []
    timer = loop.timer(BOUND, lambda w: fired.append(time.monotonic_ns()))
    began = time.monotonic_ns()
    timer.after = 0.01
    assert timer.is_active()
    assert 0 < timer.remaining <= 0.01
    finish(loop)
    assert 10_000_000 <= fired[0] - began < BOUND * 0.5e9


def test_after_assigned_to_a_timer_already_collected_drops_the_call(loop):
    order = []
    loop.timer(0, lambda w: (order.append("first"), setattr(second, "after", 0.01)))
    second = loop.timer(0, lambda w: order.append("second"))
    assert loop.run_once(0) == 1
    assert second.is_active()
    finish(loop)
    assert order == ["first", "second"]


def test_after_assigned_in_its_own_callback(loop):
    fired = []

    def again(watcher):
        fired.append(watcher.after)
        if len(fired) < 4:
            watcher.after = watcher.after + 0.002
            watcher.start()

    loop.timer(0, again)
    finish(loop)
    assert fired == pytest.approx([0, 0.002, 0.004, 0.006])


def test_after_of_a_destroyed_timer(loop):
    timer = loop.timer(1, print)
    timer.destroy()
    assert timer.after == 1
    assert timer.remaining == 0
    with pytest.raises(DestroyedError):
        timer.after = 2


def test_remaining(loop):
    timer = loop.timer(0.05, lambda w: seen.append(w.remaining))
    seen = []
    first = timer.remaining
    assert 0 < first <= 0.05
    spend(0.002)
    second = timer.remaining
    assert second <= first - 0.002
    spend(0.06)
    assert timer.remaining == 0
    finish(loop)
    assert seen == [0]
    assert timer.remaining == 0
    timer.start()
    assert 0 < timer.remaining <= 0.05
    timer.stop()
    assert timer.remaining == 0
    assert type(timer.remaining) is float
    with pytest.raises(AttributeError):
        timer.remaining = 1


def test_remaining_agrees_with_the_clock(loop):
    before = time.monotonic()
    timer = loop.timer(100, print)
    after = time.monotonic()
    left = timer.remaining
    now = time.monotonic()
    assert before + 100 - now <= left + 1e-6
    assert left <= after + 100 - before


def test_repr(loop):
    timer = loop.timer(1.5, print)
    assert repr(timer).startswith(f"<Timer id={timer.id} after=1.5")
    assert "active" in repr(timer)


# --- many ---------------------------------------------------------------------------------------------------------


def test_a_million_timers():
    # Scaled twice: a build that verifies looks at every timer after every callback.
    count = scaled(scaled(1_000_000))
    fired = [0]

    def on_timer(watcher):
        fired[0] += 1

    with made_loop() as loop:
        rng = random.Random(1)
        timers = [Timer(loop, rng.random() * 0.001, on_timer) for _ in range(count)]
        assert loop.statistics().timers == count
        cancelled = rng.sample(timers, count // 2)
        for timer in cancelled:
            timer.stop()
        assert loop.statistics().timers == count - count // 2
        finish(loop)
        assert fired[0] == count - count // 2
        assert loop.statistics().timers == 0
        assert not any(timer.is_active() for timer in timers)
        assert loop.statistics().syscalls < 100 + count // 100


def test_a_million_timers_destroyed_by_close():
    count = scaled(200_000)
    with made_loop() as loop:
        for n in range(count):
            loop.timer(100 + n % 977, print)
        assert len(loop.watchers) == count
        ref = weakref.ref(next(iter(loop.watchers.values())))
    assert ref() is None


def test_the_heap_keeps_its_order_under_random_use(loop):
    rng = random.Random(11)
    fired = []

    def on_timer(watcher):
        fired.append(watcher.data)

    timers = [loop.timer(0, on_timer, start=False) for _ in range(300)]
    for _ in range(scaled(20_000, least=2000)):
        timer = rng.choice(timers)
        if timer.is_active():
            timer.stop()
        else:
            # Whole seconds apart and far away: the order is that of `after`, whatever the clock does meanwhile.
            timer.after = timer.data = 10_000 + 1000 * rng.randrange(1_000_000)
            timer.start()
    left = sorted(timer.remaining for timer in timers if timer.is_active())
    assert loop.statistics().timers == len(left)
    for timer in timers:
        if timer.is_active():
            order = timer.data
            timer.stop()
            timer.after = order / 1e12
            timer.start()
    spend(0.005)
    finish(loop)
    assert len(fired) == len(left)


def test_random_deadlines_fire_in_order(loop):
    rng = random.Random(17)
    order = []
    kept = []
    for _ in range(scaled(3000, least=300)):
        delay = rng.choice([0.0, rng.random() * 0.02])
        timer = loop.timer(delay, lambda w: order.append(w.data), start=False)
        # The clock is read before and after the start, which reads it too: the deadline lies between the two sums.
        before = time.monotonic()
        timer.start()
        timer.data = (before + delay, time.monotonic() + delay)
        kept.append(timer)
        if rng.random() < 0.3:
            rng.choice(kept).stop()
    expected = sum(timer.is_active() for timer in kept)
    finish(loop)
    assert len(order) == expected
    slack = 1e-6  # of the rounding of floats
    assert all(first[0] <= second[1] + slack for first, second in itertools.pairwise(order))


def test_no_memory_is_left(loop):
    timer = loop.timer(1, print)
    count = scaled(5000, least=500)

    def action():
        for _ in range(count):
            timer.stop().start()
        for _ in range(100):
            loop.timer(0, lambda w: None)
        loop.run_once(0)

    assert blocks_grown(action) < 50


def test_a_new_timer_has_nothing_of_a_former_one(loop):
    """Freed timers are kept for new ones."""
    for _ in range(100):
        former = loop.timer(0, print, data=[], priority=2, ref=False)
        gone = weakref.ref(former)
        former.stop()
        del former
        assert gone() is None
        new = loop.timer(BOUND, repr)
        assert (new.priority, new.data, new.ref, new.callback, new.after) == (0, None, True, repr, BOUND)
        assert new.is_active()
        assert weakref.getweakrefcount(new) == 0
        assert gc.is_tracked(new)
        new.destroy()
        del new


def test_a_time_namespace_with_another_clock():
    """In a container the monotonic clock may count from elsewhere: deadlines are of the clock that the process sees."""
    command = ["unshare", "--time", "--monotonic", "1000000", "--fork"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no time namespace can be made")
    run_script(
        """
        import time
        from linux_event import Loop
        with Loop() as loop:
            assert loop.time() > 1_000_000
            late = []
            for delay in (0, 0.001, 0.02):
                loop.timer(delay, lambda w: late.append(loop.time() - w.data), data=loop.time() + delay)
            ticks = []
            loop.periodic(0.005, lambda w: (ticks.append(1 + w.missed), len(ticks) == 3 and w.destroy()))
            loop.run(timeout=50)
            assert len(late) == len(ticks) == 3
            assert min(late) >= 0
        print("done")
        """,
        prefix=command,
    ).check("done")
