"""Signal: names, delivery, sender, dispositions and masks, several watchers, loops and threads, storms."""

import os
import signal
import subprocess
import sys
import threading

import _fault
import pytest
from _fault import BOUND, unexpected
from _signals import Calls, handled, send
from _support import finish, made_loop, pipes, run_until, scaled

from linux_event import DestroyedError, Signal

REAL_TIME = int(signal.SIGRTMIN) + 3


@pytest.fixture(params=["handler", "signalfd"])
def loop(request, nothing_left):
    """A loop of each way to get signals."""
    with made_loop(signals=request.param) as loop:
        yield loop


# --- which signal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("INT", 2),
        ("SIGINT", 2),
        (2, 2),
        (signal.SIGINT, 2),
        ("USR1", signal.SIGUSR1),
        ("SIGWINCH", signal.SIGWINCH),
        ("CHLD", signal.SIGCHLD),
        ("CLD", signal.SIGCHLD),
        ("IO", signal.SIGIO),
        ("POLL", signal.SIGIO),
        ("SEGV", signal.SIGSEGV),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMAX", signal.SIGRTMAX),
        (REAL_TIME, REAL_TIME),
        (64, 64),
        (1, 1),
    ],
)
def test_which_signal(loop, name, number):
    calls = Calls()
    watcher = loop.signal(name, calls)
    assert type(watcher) is Signal
    assert watcher.signum == number
    assert list(loop.signals) == [number]
    send(number)
    loop.run_once(BOUND)
    assert calls == [number]
    assert type(calls[0]) is int


def test_every_signal_that_can_be_caught(loop):
    numbers = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    calls = Calls()
    for number in numbers:
        loop.signal(number, calls)
    for number in numbers:
        send(number)
    run_until(loop, lambda: len(calls) >= len(numbers))
    assert sorted(calls) == numbers


@pytest.mark.parametrize(
    "name",
    ["KILL", "SIGKILL", "STOP", "SIGSTOP", 9, 19, signal.SIGKILL, signal.SIGSTOP]
    + ["", "SIG", "FOO", "SIGFOO", "SIGSIGINT", "INT ", "INT\0", "2", "SIG_DFL", "SIG_BLOCK", "\udc80", "x" * 10_000]
    + [0, -1, 32, 33, 65, 1000, 2**31, 2**63, 2**64, -(2**100)],
)
def test_signals_of_bad_value(loop, name):
    with pytest.raises(ValueError, match="signal"):
        loop.signal(name, print)
    with pytest.raises(ValueError, match="signal"):
        Signal(loop, name, print)
    with pytest.raises(ValueError, match="signal"):
        loop.signal(name)
    assert not loop.signals
    assert not loop.watchers


@pytest.mark.parametrize("name", [None, 2.0, b"INT", ["INT"], object(), int, 1j])
def test_signals_of_bad_type(loop, name):
    with pytest.raises(TypeError, match="signal"):
        loop.signal(name, print)
    assert not loop.watchers


def test_the_signal_is_read_only(loop):
    watcher = loop.signal("USR1", print)
    with pytest.raises(AttributeError):
        watcher.signum = 3
    assert watcher.signum == signal.SIGUSR1


def test_repr(loop):
    watcher = loop.signal("USR1", print)
    assert "Signal" in repr(watcher)
    assert "USR1" in repr(watcher)
    assert "active" in repr(watcher)
    watcher.destroy()
    assert "destroyed" in repr(watcher)


# --- delivery --------------------------------------------------------------------------------------------------------


def test_callback_gets_watcher_and_number(loop):
    calls = []

    @loop.signal("USR1", data="data")
    def watcher(*arguments):
        calls.append(arguments)

    send()
    assert calls == []
    assert loop.run_once(BOUND) == 1
    assert calls == [(watcher, signal.SIGUSR1)]
    assert watcher.is_active()
    send()
    assert loop.run_once(BOUND) == 1
    assert len(calls) == 2
    assert loop.run_once(0) == 0


def test_signal_while_asleep(loop):
    calls = Calls()
    loop.signal("USR1", calls)
    with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
        run_until(loop, lambda: calls)
    assert calls == [signal.SIGUSR1]


def test_signal_in_another_thread_while_asleep(loop):
    """The kernel may give a signal to any thread: the loop hears of it all the same."""
    calls = Calls()
    loop.signal("USR1", calls)
    with _fault.WhenAsleep(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)):
        loop.run_once(BOUND)
        run_until(loop, lambda: calls)
    assert calls == [signal.SIGUSR1]


def test_signal_from_another_process(loop):
    calls = Calls()
    loop.signal("USR1", calls)
    subprocess.run(["sh", "-c", f"kill -USR1 {os.getpid()}"], check=True)
    run_until(loop, lambda: calls)
    assert calls == [signal.SIGUSR1]


def test_signal_during_a_callback_is_delivered_after_it(loop):
    order = []

    def fired(watcher):
        send()
        order.append("timer")

    loop.signal("USR1", lambda watcher, signum: (order.append("signal"), watcher.destroy()))
    loop.timer(0, fired)
    finish(loop)
    assert order == ["timer", "signal"]


def test_signal_in_its_own_callback_is_delivered_again(loop):
    calls = []

    def callback(watcher, signum):
        calls.append(signum)
        if len(calls) < 5:
            send()
        else:
            watcher.destroy()

    loop.signal("USR1", callback)
    send()
    finish(loop)
    assert calls == [signal.SIGUSR1] * 5


def test_signal_before_the_first_run(loop):
    calls = Calls()
    loop.signal("USR1", calls)
    send()
    assert loop.run_once(0) == 1
    assert calls == [signal.SIGUSR1]


def test_signal_watchers_keep_run_going(loop):
    loop.signal("USR1", lambda watcher, signum: watcher.stop())
    with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
        finish(loop)
    watcher = loop.signal("USR1", unexpected, ref=False)
    loop.run()
    assert watcher.is_active()


def test_alarm_and_children(loop):
    """Signals that the kernel sends: SIGALRM of a timer, SIGCHLD of a child, SIGPIPE of a pipe that nobody reads."""
    calls = Calls()
    for name in ("ALRM", "CHLD", "PIPE"):
        loop.signal(name, calls)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    subprocess.run(["true"], check=True)
    with pipes(1) as [pipe]:
        pipe.close_read()
        with pytest.raises(BrokenPipeError):
            pipe.put()
    run_until(loop, lambda: len(calls) >= 3)
    assert sorted(calls) == sorted([signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE])


def test_sub_second_storms_of_other_signals_do_not_disturb(loop):
    """A watched signal among many with a Python handler."""
    calls, handled_calls = Calls(), []
    loop.signal("USR1", calls)
    with handled(signal.SIGUSR2, lambda *_: handled_calls.append(1)):
        for _ in range(50):
            send(signal.SIGUSR2)
            send(signal.SIGUSR1)
            run_until(loop, lambda: calls)
            assert calls == [signal.SIGUSR1]
            calls.clear()
    assert len(handled_calls) == 50


# --- stop and destroy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "destroy", "close"])
def test_nothing_is_delivered_after_the_end(end):
    """A signal that has arrived and was not yet told of: the watcher ended, so it is not called."""
    for _ in range(scaled(100)):
        with made_loop() as loop:
            watcher = loop.signal("USR1", unexpected)
            other = loop.signal("USR1", Calls())
            send()
            if end == "close":
                loop.close()
            else:
                getattr(watcher, end)()
                loop.run_once(0)
                assert other.callback == [signal.SIGUSR1]


def test_kill_and_stop_many_times(loop):
    watcher = loop.signal("USR1", unexpected)
    for _ in range(scaled(2000)):
        watcher.start()
        send()
        watcher.stop()
        loop.run_once(0)


def test_a_new_start_does_not_get_the_old_signal(loop):
    watcher = loop.signal("USR1", unexpected)
    send()
    watcher.stop().start()
    loop.run_once(0)
    loop.run_once(0)


@pytest.mark.parametrize("end", ["stop", "destroy"])
def test_a_callback_that_ends_the_others(loop, end):
    """Of three watchers of one signal the first called ends the two others."""
    calls = []

    def callback(watcher, signum):
        calls.append(watcher)
        for other in watchers:
            if other is not watcher:
                getattr(other, end)()

    watchers = [loop.signal("USR1", callback) for _ in range(3)]
    send()
    loop.run_once(BOUND)
    loop.run_once(0)
    assert len(calls) == 1


def test_callbacks_that_start_and_destroy_watchers_of_the_same_signal(loop):
    calls = []

    def callback(watcher, signum):
        calls.append(watcher.data)
        watcher.destroy()
        if watcher.data < 20:
            loop.signal("USR1", callback, data=watcher.data + 1)
            send()

    loop.signal("USR1", callback, data=0)
    send()
    finish(loop)
    assert calls == list(range(21))


def test_start_and_stop_are_idempotent(loop):
    calls = Calls()
    watcher = loop.signal("USR1", calls)
    assert watcher.start() is watcher
    send()
    loop.run_once(BOUND)
    assert calls == [signal.SIGUSR1]
    assert watcher.stop() is watcher
    assert watcher.stop() is watcher
    assert _fault.disposition(signal.SIGUSR1) == "default"
    watcher.destroy()
    with pytest.raises(DestroyedError):
        watcher.start()
    assert _fault.disposition(signal.SIGUSR1) == "default"


def test_exception_in_a_callback(loop):
    errors = []
    calls = Calls()
    loop.on_error = lambda source, error: errors.append((source, str(error)))

    def fail(watcher, signum):
        raise ValueError("from the callback")

    failing = loop.signal("USR1", fail)
    loop.signal("USR1", calls)
    send()
    loop.run_once(BOUND)
    assert errors == [(failing, "from the callback")]
    assert calls == [signal.SIGUSR1]


# --- several watchers, loops, threads --------------------------------------------------------------------------------


def test_several_watchers_of_one_signal(loop):
    order = []
    for number, priority in enumerate([0, 1, -1, 2, 0]):
        loop.signal("USR1", lambda watcher, signum: order.append(watcher.data), data=number, priority=priority)
    send()
    run_until(loop, lambda: len(order) >= 5)
    assert order == [3, 1, 0, 4, 2]


def test_several_loops_in_one_thread():
    with made_loop() as one, made_loop() as two:
        first, second = Calls(), Calls()
        one.signal("USR1", first)
        two.signal("USR1", second)
        two.signal("USR1", second)
        send()
        one.run_once(BOUND)
        assert (first, second) == ([signal.SIGUSR1], [])
        two.run_once(BOUND)
        assert (first, second) == ([signal.SIGUSR1], [signal.SIGUSR1] * 2)
        one.close()
        send()
        two.run_once(BOUND)
        assert second == [signal.SIGUSR1] * 4
        assert _fault.disposition(signal.SIGUSR1) == "caught"
    assert _fault.disposition(signal.SIGUSR1) == "default"


def test_loops_in_several_threads():
    """A signal to the process is told to every loop, whichever thread took it."""
    count = 4
    ready = threading.Barrier(count + 1)
    results, failures = [], []

    def body():
        try:
            with made_loop() as loop:
                calls = Calls()
                watcher = loop.signal("USR1", calls)
                loop.signal("USR2", lambda watcher, signum: loop.stop())
                loop.defer(ready.wait, BOUND)
                loop.run(timeout=BOUND)
                results.append(list(calls))
                watcher.destroy()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait(BOUND)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    for thread in threads:
        thread.join(BOUND)
    assert not failures
    assert results == [[signal.SIGUSR1]] * count
    assert _fault.disposition(signal.SIGUSR1) == "default"
    assert _fault.disposition(signal.SIGUSR2) == "default"


def test_watchers_that_come_and_go_in_threads_during_a_storm():
    """Starts and stops of one signal in four threads, while it arrives all the time."""
    done = threading.Event()
    failures = []

    def body():
        try:
            with made_loop() as loop:
                while not done.is_set():
                    watchers = [loop.signal("USR1", Calls()) for _ in range(3)]
                    loop.run_once(0)
                    for watcher in watchers:
                        watcher.destroy()
        except BaseException as error:
            failures.append(error)

    with handled(signal.SIGUSR1, lambda *_: None):
        threads = [threading.Thread(target=body) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(scaled(2000)):
            os.kill(os.getpid(), signal.SIGUSR1)
        done.set()
        for thread in threads:
            thread.join(BOUND)
        assert not failures
        calls = []
        signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
        send()
        assert calls


# --- the sender ------------------------------------------------------------------------------------------------------


def test_info_names_the_sender(loop):
    seen = []
    watcher = loop.signal("USR1", lambda watcher, signum: seen.append((watcher.info.pid, watcher.info.uid)))
    process = subprocess.Popen(["sh", "-c", f"kill -USR1 {os.getpid()}; exec cat"], stdin=subprocess.PIPE)
    run_until(loop, lambda: seen)
    assert seen == [(process.pid, os.getuid())]
    process.communicate()
    os.kill(os.getpid(), signal.SIGUSR1)
    run_until(loop, lambda: len(seen) > 1)
    assert seen[1] == (os.getpid(), os.getuid())
    assert watcher.is_active()


def test_info_of_another_user(loop):
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    seen = []
    loop.signal("USR1", lambda watcher, signum: seen.append(watcher.info.uid))

    def child():
        # The kernel tells the real uid; the effective one keeps the right to send.
        os.setresuid(12345, 0, 0)
        os.kill(os.getppid(), signal.SIGUSR1)

    _fault.in_fork(child)
    run_until(loop, lambda: seen)
    assert seen == [12345]


def test_info_of_a_child_that_ended(loop):
    seen = []
    loop.signal("CHLD", lambda watcher, signum: seen.append((watcher.info.pid, watcher.info.uid)))
    process = subprocess.Popen(["true"])
    process.wait()
    run_until(loop, lambda: seen)
    assert seen[0] == (process.pid, os.getuid())


def test_info_of_the_kernel(loop):
    """A timer has no sender."""
    seen = []
    loop.signal("ALRM", lambda watcher, signum: seen.append(watcher.info))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    run_until(loop, lambda: seen)
    assert seen[0] is None or seen[0].pid in (0, None)


# --- storms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGUSR1, REAL_TIME])
def test_storm(loop, signum):
    """However many come, the loop goes on, is called no more often than they came, and hears of the last."""
    count = scaled(20_000)
    calls, ticks = Calls(), []
    loop.signal(signum, calls)
    loop.periodic(0.001, ticks.append)
    sent = 0
    while sent < count:
        for _ in range(500):
            send(signum)
        sent += 500
        seen = len(calls)
        run_until(loop, lambda seen=seen: len(calls) > seen)
    for _ in range(3):
        loop.run_once(0)
    assert sent // 500 <= len(calls) <= sent
    seen = len(calls)
    send(signum)
    run_until(loop, lambda: len(calls) > seen and ticks)


def test_storm_from_another_process(loop):
    """Signals at full speed while the loop sleeps, wakes and calls."""
    count = scaled(3000)
    calls, ended = Calls(), []
    code = f"import os, signal, time\nfor _ in range({count}): os.kill({os.getpid()}, {REAL_TIME}); time.sleep(0)"
    # Should the test fail, the signals that are still on their way must not end this process.
    with handled(REAL_TIME, lambda *_: None):
        watcher = loop.signal(REAL_TIME, calls)
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.DEVNULL)
        try:
            pidfd = os.pidfd_open(process.pid)
            loop.io(pidfd, "r", lambda watcher, events: (ended.append(1), watcher.destroy()))
            run_until(loop, lambda: ended)
            os.close(pidfd)
        finally:
            process.kill()
            process.wait()
        while loop.run_once(0):
            pass
        assert 1 <= len(calls) <= count
        os.kill(os.getpid(), REAL_TIME)
        seen = len(calls)
        run_until(loop, lambda: len(calls) > seen)
        watcher.destroy()
    assert process.returncode == 0


# --- the table of the loop -------------------------------------------------------------------------------------------


def test_signals_view_lists_each_watcher_once(loop):
    one, two = loop.signal("USR1", print), loop.signal("USR1", print)
    other = loop.signal("USR2", print)
    assert dict(loop.signals) == {signal.SIGUSR1: (one, two), signal.SIGUSR2: (other,)}
    one.destroy()
    assert loop.signals[signal.SIGUSR1] == (two,)


def test_statistics_count_signal_watchers(loop):
    before = loop.statistics()
    watchers = [loop.signal("USR1", print) for _ in range(3)]
    assert loop.statistics().active_watchers == before.active_watchers + 3
    for watcher in watchers:
        watcher.destroy()
    loop.run_once(0)
    after = loop.statistics()
    assert after.active_watchers == before.active_watchers
    assert after.requests_in_flight == before.requests_in_flight


def test_many_watchers_cost_no_fd_each(loop):
    loop.signal("USR1", print)
    loop.run_once(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        loop.signal("USR1", print)
        loop.signal("USR2", print)
    assert len(os.listdir("/proc/self/fd")) == before
