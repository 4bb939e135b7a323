"""Wakeup: notifications of other threads, of signal handlers and of callbacks, merged and counted."""

import gc
import os
import signal
import threading
import time

import _fault
import pytest
from _fault import BOUND, in_thread, unexpected
from _support import finish, made_loop, run_until, scaled

from linux_event import DestroyedError, Loop, Wakeup


def stop_after(total):
    """A callback that notes its counts, and stops the watcher when they come to `total`."""
    counts = []

    def on_wakeup(watcher, count):
        assert count >= 1
        counts.append(count)
        assert sum(counts) <= total
        if sum(counts) == total:
            watcher.stop()

    return counts, on_wakeup


def test_notifications_are_merged_and_counted(loop):
    counts = []
    watcher = loop.wakeup(lambda watcher, count: counts.append((watcher, count)))
    assert loop.run_once(0) == 0
    for _ in range(3):
        assert watcher.notify() is None
    assert not counts
    assert loop.run_once() == 1
    assert counts == [(watcher, 3)]
    assert loop.run_once(0) == 0
    watcher.notify()
    loop.run_once()
    assert counts == [(watcher, 3), (watcher, 1)]


def test_made_by_the_class_and_as_a_decorator(loop):
    counts, on_wakeup = stop_after(1)
    Wakeup(loop, on_wakeup, priority=1).notify()
    finish(loop)
    assert counts == [1]

    @loop.wakeup
    def bare(watcher, count): ...

    @loop.wakeup(data=7)
    def decorated(watcher, count):
        counts.append((watcher.data, count))
        watcher.stop()

    bare.destroy()
    decorated.notify()
    finish(loop)
    assert counts == [1, (7, 1)]


def test_it_keeps_run_going_unless_told_not_to(loop):
    watcher = loop.wakeup(unexpected, ref=False)
    finish(loop)
    watcher.ref = True
    began = time.monotonic()
    loop.run(timeout=0.05)
    assert time.monotonic() - began >= 0.05


def test_from_another_thread_while_the_loop_sleeps(loop, pipe):
    loop.io(pipe.r, "r", unexpected)
    counts = []
    watcher = loop.wakeup(lambda watcher, count: (counts.append(count), loop.stop()))
    with _fault.WhenAsleep(watcher.notify):
        loop.run(timeout=BOUND)
    assert counts == [1]


def test_while_the_loop_spins(pipe):
    with made_loop(busy_poll=BOUND) as loop:
        counts = []
        watcher = loop.wakeup(lambda watcher, count: (counts.append(count), loop.stop()))
        timer = threading.Timer(0.05, watcher.notify)
        timer.start()
        loop.run(timeout=BOUND)
        timer.join()
        assert counts == [1]


def test_from_its_own_callback_it_is_for_the_next_iteration(loop):
    """Others get their turn in between, and deferred calls too."""
    order = []

    def on_wakeup(watcher, count):
        order.append(count)
        watcher.notify()
        watcher.notify()
        loop.defer(order.append, "deferred")

    loop.wakeup(on_wakeup).notify()
    assert loop.run_once() == 1
    assert order == [1]
    assert loop.run_once() == 2
    assert order == [1, "deferred", 2]


def test_before_it_is_started_and_while_it_is_stopped(loop):
    """Nothing is lost: it is told at the next start."""
    counts = []
    watcher = loop.wakeup(lambda watcher, count: counts.append(count), start=False)
    watcher.notify()
    assert loop.run_once(0) == 0
    watcher.start()
    assert loop.run_once() == 1
    watcher.notify()
    watcher.stop()
    watcher.notify()
    assert loop.run_once(0) == 0
    assert watcher.start() is watcher
    assert loop.run_once() == 1
    assert counts == [1, 2]


def test_stopped_by_another_of_the_same_batch(loop):
    """What has been collected is not delivered, and not lost either."""
    counts = []

    def on_wakeup(watcher, count):
        counts.append(count)
        for other in watchers:
            if other is not watcher:
                other.stop()

    watchers = [loop.wakeup(on_wakeup) for _ in range(3)]
    for watcher in watchers:
        watcher.notify()
    assert loop.run_once() == 1
    assert counts == [1]
    watchers[0].destroy()
    watchers[1].start().callback = lambda watcher, count: counts.append(10 + count)
    assert loop.run_once() == 1
    assert counts == [1, 11]


def test_higher_priorities_are_called_first(loop):
    order = []
    watchers = [loop.wakeup(lambda w, c: order.append(w.priority), priority=p) for p in (-2, 2, 0, 1, -1)]
    for watcher in watchers:
        watcher.notify()
    assert loop.run_once() == 5
    assert order == [2, 1, 0, -1, -2]


def test_no_more_than_max_events_in_one_iteration():
    with made_loop(max_events=2) as loop:
        counts = []
        watchers = [loop.wakeup(lambda watcher, count: counts.append(count)) for _ in range(5)]
        for watcher in watchers:
            watcher.notify()
        assert loop.run_once() == 2
        watchers[4].notify()
        assert [loop.run_once(), loop.run_once()] == [2, 1]
        assert sorted(counts) == [1, 1, 1, 1, 2]


def test_a_callback_that_raises_loses_nothing(loop):
    errors, counts = [], []
    loop.on_error = lambda source, error: errors.append((source, str(error)))

    def on_wakeup(watcher, count):
        counts.append(count)
        watcher.notify()
        raise ValueError("no")

    watcher = loop.wakeup(on_wakeup)
    watcher.notify()
    loop.run_once()
    loop.run_once()
    assert counts == [1, 1]
    assert errors == [(watcher, "no")] * 2


@pytest.mark.parametrize("how", ["destroyed", "closed"])
def test_after_the_end(how):
    with made_loop() as loop:
        watcher = loop.wakeup(unexpected)
        watcher.notify()
        if how == "destroyed":
            watcher.destroy()
            loop.run_once(0)
        else:
            loop.close()
        for call in (watcher.notify, lambda: in_thread(watcher.notify)):
            with pytest.raises(DestroyedError, match="create a new one"):
                call()


def test_in_a_forked_child_it_is_dead_and_the_parent_hears_nothing(loop):
    counts, on_wakeup = stop_after(1)
    watcher = loop.wakeup(on_wakeup)

    def body():
        with pytest.raises(RuntimeError, match="dead in a forked child"):
            watcher.notify()

    _fault.in_fork(body)
    assert loop.run_once(0) == 0
    watcher.notify()
    finish(loop)
    assert counts == [1]


def test_from_a_handler_of_python(loop):
    """It ends the sleep of the loop, promptly."""
    counts, on_wakeup = stop_after(1)
    watcher = loop.wakeup(on_wakeup)
    former = signal.signal(signal.SIGUSR1, lambda *_: watcher.notify())
    try:
        with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            finish(loop)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert counts == [1]


def test_a_storm_of_handlers(loop):
    """Handlers run between any two bytecodes: in callbacks, in other handlers, between them."""
    handled, counts = [], []

    def handler(signum, frame):
        handled.append(signum)
        watcher.notify()

    watcher = loop.wakeup(lambda watcher, count: counts.append(count))
    former = signal.signal(signal.SIGUSR1, handler)
    over = threading.Event()

    def storm():
        for _ in range(scaled(2000, least=100)):
            os.kill(os.getpid(), signal.SIGUSR1)
        over.set()

    thread = threading.Thread(target=storm)
    try:
        thread.start()
        run_until(loop, over.is_set)
        thread.join()
        run_until(loop, lambda: sum(counts) == len(handled))
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert handled
    assert loop.run_once(0) == 0


@pytest.mark.parametrize("embedded", [False, True])
def test_eight_threads_at_once(loop, embedded):
    """The counts come to the number of calls, exactly."""
    import select

    threads, calls = 8, scaled(100_000, least=100)
    counts, on_wakeup = stop_after(threads * calls)
    watcher = loop.wakeup(on_wakeup)
    fd = loop.fileno() if embedded else None
    barrier = threading.Barrier(threads)

    def body():
        barrier.wait(BOUND)
        for _ in range(calls):
            watcher.notify()

    bodies = [threading.Thread(target=body) for _ in range(threads)]
    for thread in bodies:
        thread.start()
    if embedded:
        while watcher.is_active():
            assert select.select([fd], [], [], BOUND)[0]
            loop.run_once(0)
    else:
        finish(loop)
    for thread in bodies:
        thread.join()
    assert sum(counts) == threads * calls


def test_the_fd_of_an_embedded_loop_shows_it(loop):
    import select

    counts = []
    watcher = loop.wakeup(lambda watcher, count: counts.append(count))
    fd = loop.fileno()
    loop.run_once(0)
    assert not select.select([fd], [], [], 0)[0]
    in_thread(watcher.notify)
    assert select.select([fd], [], [], BOUND)[0]
    loop.run_once(0)
    assert counts == [1]
    assert not select.select([fd], [], [], 0)[0]


def test_posts_and_notifications_of_one_iteration(loop):
    """Calls that were posted come first: the loop begins with them."""
    order = []
    watcher = loop.wakeup(lambda watcher, count: order.append("notified"))
    watcher.notify()
    loop.post(order.append, "posted")
    loop.run_once()
    assert order == ["posted", "notified"]


def test_the_loop_is_closed_while_others_notify():
    for _ in range(scaled(30, least=3)):
        loop = Loop()
        watcher = loop.wakeup(lambda watcher, count: None)
        ended = []

        def body(watcher=watcher, ended=ended):
            try:
                while True:
                    watcher.notify()
            except DestroyedError:
                ended.append(True)

        thread = threading.Thread(target=body)
        thread.start()
        loop.run(timeout=0.005)
        loop.close()
        thread.join(BOUND)
        assert ended == [True]
        del watcher, body, thread


def test_the_last_reference_is_dropped_in_another_thread(loop):
    """A stopped watcher belongs to whoever holds it."""
    watcher = loop.wakeup(unexpected, start=False)
    watcher.notify()
    holder = [watcher]
    del watcher
    in_thread(holder.clear)
    gc.collect()
    assert not loop.watchers
    assert loop.run_once(0) == 0


@pytest.mark.parametrize("call", ["loop.post(on_call)", "watchers[n % 8].notify()"])
def test_many_calls_cost_one_write(call):
    """A loop that has been woken is not woken again before it sleeps again."""
    script = f"""
    import _fault, sys, threading
    from linux_event import Loop
    sys.setswitchinterval(100)  # whoever has the GIL keeps it until it waits for something
    total = 0
    def on_call(watcher=None, count=1):
        global total
        total += count
        if total == 4000:
            loop.stop()
    def body():
        for n in range(4000):
            {call}
    with Loop() as loop:
        watchers = [loop.wakeup(on_call) for _ in range(8)]
        with _fault.WhenAsleep(body):
            loop.run(timeout=30)
    print(total)
    """
    result = _fault.run_injected(script, "write:delay_enter=1").check("4000")
    writes = [line for line in result.trace.splitlines() if " write(" in line and "= 8" in line]
    assert 1 <= len(writes) <= 4, result.trace
