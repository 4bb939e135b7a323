"""Signals that a loop reads through a signalfd: values and order, masks, threads, other loops, fork, children."""

import ctypes
import errno
import gc
import os
import signal
import subprocess
import threading

import _fault
import pytest
from _fault import BOUND, in_thread, unexpected
from _signals import Calls
from _support import finish, made_loop, open_fds, run_until, scaled

from linux_event import Loop
from linux_event.watchers.signal import unblocked

FIRST = int(signal.SIGRTMIN) + 4


def blocked():
    """The signals that the calling thread blocks."""
    return {int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def queue_signal(pid, signum, value):
    """sigqueue(3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.sigqueue(pid, signum, ctypes.c_void_p(value)) < 0:
        assert ctypes.get_errno() == errno.EAGAIN


@pytest.fixture
def loop(nothing_left):
    before = blocked()
    with made_loop(signals="signalfd") as loop:
        yield loop
    assert blocked() == before


# --- The argument ----------------------------------------------------------------------------------------------------


def test_bad_arguments():
    for value in ("", "fd", "Signalfd"):
        with pytest.raises(ValueError, match="signals must be 'handler' or 'signalfd'"):
            Loop(signals=value)
    for value in (None, 1, b"signalfd"):
        with pytest.raises(TypeError, match="signals must be a str"):
            Loop(signals=value)


def test_not_with_a_thread_of_the_kernel():
    """It would read in place of the loop's thread, and not see what is sent to that one."""
    with pytest.raises(ValueError, match="signals='signalfd' cannot be had with sqpoll=True"):
        Loop(signals="signalfd", sqpoll=True)


@pytest.mark.parametrize("how", ["process", "thread", "itself"])
def test_sent_to_the_process_or_to_the_thread(loop, how):
    calls = Calls()
    watcher = loop.signal("USR1", calls)
    loop.run_once(0)
    thread = threading.get_ident()
    if how == "process":
        os.kill(os.getpid(), signal.SIGUSR1)
    elif how == "thread":
        in_thread(lambda: signal.pthread_kill(thread, signal.SIGUSR1))
    else:
        signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: calls)
    watcher.stop()
    assert calls == [signal.SIGUSR1]


# --- What comes with a signal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["handler", "signalfd"])
def test_values_of_sigqueue(nothing_left, mode):
    with made_loop(signals=mode) as loop:
        seen = []
        loop.signal("USR1", lambda watcher, signum: (seen.append(watcher.info), watcher.stop()))
        loop.run_once(0)
        queue_signal(os.getpid(), signal.SIGUSR1, -5)
        finish(loop)
        assert seen == [(os.getpid(), os.getuid(), -1, None, -5)]
        assert (seen[0].value, seen[0].status) == (-5, None)


@pytest.mark.parametrize("mode", ["handler", "signalfd"])
def test_no_value_and_no_status_with_kill(nothing_left, mode):
    with made_loop(signals=mode) as loop:
        seen = []
        loop.signal("USR1", lambda watcher, signum: (seen.append(watcher.info), watcher.stop()))
        os.kill(os.getpid(), signal.SIGUSR1)
        finish(loop)
        assert seen == [(os.getpid(), os.getuid(), 0, None, None)]


@pytest.mark.parametrize("mode", ["handler", "signalfd"])
@pytest.mark.parametrize(("script", "code", "status"), [("exit 7", 1, 7), ("kill -TERM $$", 2, signal.SIGTERM)])
def test_status_of_a_child(nothing_left, mode, script, code, status):
    with made_loop(signals=mode) as loop:
        seen = []
        loop.signal("CHLD", lambda watcher, signum: (seen.append(watcher.info), watcher.stop()))
        loop.run_once(0)
        child = subprocess.Popen(["sh", "-c", script])
        finish(loop)
        child.wait()
        assert seen == [(child.pid, os.getuid(), code, status, None)]


def test_bursts_come_in_order_and_complete(loop):
    """More than fit into one read, or into the queue that a handler writes to."""
    count = scaled(3000, least=600)
    values = []
    watcher = loop.signal(FIRST, lambda watcher, signum: values.append(watcher.info.value))
    loop.run_once(0)
    for value in range(count):
        queue_signal(os.getpid(), FIRST, value)
    run_until(loop, lambda: len(values) == count)
    assert values == list(range(count))
    watcher.stop()


def test_from_another_process_while_the_loop_sleeps(loop):
    values = []

    def called(watcher, signum):
        values.append(watcher.info.value)
        if len(values) == 200:
            watcher.stop()

    loop.signal(FIRST, called)
    parent = os.getpid()
    sender = _fault.start_fork(lambda: [queue_signal(parent, FIRST, value) for value in range(200)])
    finish(loop)
    _fault.wait_child(sender)
    assert values == list(range(200))


# --- Masks -----------------------------------------------------------------------------------------------------------


def test_blocked_while_it_is_watched_and_the_loop_has_a_thread(loop):
    before = blocked()
    first = loop.signal("USR1", unexpected)
    second = loop.signal("USR1", unexpected)
    other = loop.signal("USR2", unexpected)
    assert blocked() == before  # nobody runs the loop yet
    loop.run_once(0)
    assert blocked() == before | {signal.SIGUSR1, signal.SIGUSR2}
    first.stop()
    assert blocked() == before | {signal.SIGUSR1, signal.SIGUSR2}
    second.destroy()
    assert blocked() == before | {signal.SIGUSR2}
    first.start()
    assert blocked() == before | {signal.SIGUSR1, signal.SIGUSR2}
    other.stop()
    first.stop()
    assert blocked() == before


def test_what_was_blocked_before_stays_so(loop):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        calls = Calls()
        watcher = loop.signal("USR1", calls)
        os.kill(os.getpid(), signal.SIGUSR1)
        run_until(loop, lambda: calls)
        watcher.destroy()
        assert signal.SIGUSR1 in blocked()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_two_loops_of_one_thread(loop):
    """The last one unblocks."""
    calls, others = Calls(), Calls()
    watcher = loop.signal("USR1", calls)
    loop.run_once(0)
    with made_loop(signals="signalfd") as other:
        second = other.signal("USR1", others)
        other.run_once(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        run_until(other, lambda: others)
        run_until(loop, lambda: calls)
        watcher.stop()
        assert signal.SIGUSR1 in blocked()
        os.kill(os.getpid(), signal.SIGUSR1)
        run_until(other, lambda: len(others) == 2)
        second.stop()
        assert signal.SIGUSR1 not in blocked()
    assert len(calls) == 1


def test_pending_when_the_last_watcher_stops(loop):
    """It ends nobody: the handler is there until the signal is unblocked. Other loops are told."""
    with made_loop() as other:
        calls = Calls()
        watcher = loop.signal("USR1", unexpected)
        loop.run_once(0)
        handled = other.signal("USR1", calls)
        os.kill(os.getpid(), signal.SIGUSR1)
        watcher.stop()
        run_until(other, lambda: calls)
        handled.stop()
    watcher.start()
    os.kill(os.getpid(), signal.SIGUSR1)
    watcher.stop()  # alone: dropped, as what was collected is
    loop.run_once(0)


def test_built_here_and_run_there(nothing_left):
    before = blocked()
    calls, masks = Calls(), []
    loop = Loop(signals="signalfd")
    watcher = loop.signal("USR1", lambda w, signum: (calls.append(signum), masks.append(blocked()), w.stop()))

    def body():
        former = blocked()
        os.kill(os.getpid(), signal.SIGUSR1)  # read, or caught in the thread that does not block it
        finish(loop)
        assert blocked() == former
        watcher.destroy()
        loop.close()

    in_thread(body)
    assert calls == [signal.SIGUSR1]
    assert signal.SIGUSR1 in masks[0]
    assert blocked() == before


def test_a_thread_that_does_not_block_it(loop):
    """The kernel gives it to whoever takes it: nothing is lost."""
    count = scaled(200, least=20)
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(BOUND,))
    thread.start()
    try:
        values = []
        watcher = loop.signal(FIRST, lambda watcher, signum: values.append(watcher.info.value))
        loop.run_once(0)
        for value in range(count):
            queue_signal(os.getpid(), FIRST, value)
        run_until(loop, lambda: len(values) == count)
        assert sorted(values) == list(range(count))
        watcher.stop()
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("modes", [("signalfd", "handler"), ("handler", "signalfd"), ("signalfd", "signalfd")])
def test_loops_in_several_threads(nothing_left, modes):
    """All of them are told of each signal."""
    ready, calls = threading.Barrier(3), [Calls(), Calls()]

    def body(number):
        with Loop(signals=modes[number]) as loop:

            def called(watcher, signum):
                calls[number].append(signum)
                if len(calls[number]) == 20:
                    watcher.stop()

            loop.signal(FIRST, called)
            loop.run_once(0)
            ready.wait(BOUND)
            finish(loop)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    ready.wait(BOUND)
    for value in range(20):
        queue_signal(os.getpid(), FIRST, value)
    for thread in threads:
        thread.join(BOUND)
    assert calls == [[FIRST] * 20] * 2


# --- Children --------------------------------------------------------------------------------------------------------


def test_a_forked_child_has_the_mask_of_before(loop):
    before = blocked()
    watcher = loop.signal("USR1", unexpected)
    loop.run_once(0)
    assert any("signalfd" in target for target in open_fds().values())

    def body():
        assert blocked() == before
        assert _fault.disposition(signal.SIGUSR1) == "default"
        assert not any("signalfd" in target for target in open_fds().values())
        loop.close()

    _fault.in_fork(body)
    assert signal.SIGUSR1 in blocked()
    watcher.callback = calls = Calls()
    os.kill(os.getpid(), signal.SIGUSR1)
    run_until(loop, lambda: calls)


def test_programs_that_are_started(loop):
    """They inherit the mask, but for those that are started with it taken back; what comes meanwhile is not lost."""
    before = blocked()
    calls = Calls()
    loop.signal("USR1", calls)
    loop.run_once(0)
    masks = {}
    for name, start in (("plain", subprocess.Popen), ("unblocked", started_unblocked)):
        with start(["sleep", "60"]) as child:
            masks[name] = _fault.signal_masks(f"/proc/{child.pid}/status")["SigBlk"]
            child.kill()
    bit = 1 << (signal.SIGUSR1 - 1)
    assert masks["plain"] & bit
    assert not masks["unblocked"] & bit
    with unblocked():
        assert blocked() == before
        os.kill(os.getpid(), signal.SIGUSR1)
    assert blocked() == before | {signal.SIGUSR1}
    run_until(loop, lambda: calls)


def test_unblocked_within_unblocked(loop):
    loop.signal("USR1", unexpected)
    loop.run_once(0)
    before = blocked()
    with unblocked():
        outer = blocked()
        with unblocked():
            assert blocked() == outer
        assert blocked() == outer == before - {signal.SIGUSR1}
    assert blocked() == before


def test_stopped_within_unblocked(loop):
    """It is not blocked again."""
    watcher = loop.signal("USR1", unexpected)
    other = loop.signal("USR2", unexpected)
    loop.run_once(0)
    with unblocked():
        watcher.stop()
        assert not blocked() & {signal.SIGUSR1, signal.SIGUSR2}
    assert blocked() & {signal.SIGUSR1, signal.SIGUSR2} == {signal.SIGUSR2}
    other.stop()


def test_a_forked_child_stops_what_it_has_inherited(loop):
    """Its watchers are dead, and a loop of its own counts from the beginning."""
    before = blocked()
    watcher = loop.signal("USR1", unexpected)
    loop.run_once(0)

    def body():
        watcher.stop()
        watcher.destroy()
        assert blocked() == before
        with made_loop(signals="signalfd") as own:
            calls = Calls()
            second = own.signal("USR1", calls)
            own.run_once(0)
            assert blocked() == before | {signal.SIGUSR1}
            os.kill(os.getpid(), signal.SIGUSR1)
            run_until(own, lambda: calls)
            second.stop()
            assert blocked() == before

    _fault.in_fork(body)


def started_unblocked(arguments):
    with unblocked():
        return subprocess.Popen(arguments)


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1])
def test_no_fd_is_left_for_it(left):
    def body():
        with Loop(signals="signalfd") as loop:
            loop.run_once(0)
            before = open_fds()
            filling = _fault.fill_fds(left)
            with pytest.raises(OSError, match="Too many open files"):
                loop.signal("USR1", unexpected)
            for fd in filling:
                os.close(fd)
            assert open_fds() == before
            assert not loop.signals
            assert _fault.disposition(signal.SIGUSR1) == "default"
            assert signal.SIGUSR1 not in blocked()

    _fault.in_fork(body)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_the_loop_goes_while_signals_come(how):
    before = blocked()
    for _ in range(scaled(20, least=3)):
        loop = Loop(signals="signalfd")
        watcher = loop.signal(FIRST, lambda watcher, signum: None)
        loop.run_once(0)
        for value in range(50):
            queue_signal(os.getpid(), FIRST, value)
        loop.run_once(0)
        queue_signal(os.getpid(), FIRST, 1)
        if how == "closed":
            loop.close()
        else:
            with pytest.warns(ResourceWarning):
                del loop, watcher
                gc.collect()
        assert blocked() == before


@pytest.mark.parametrize("pending", [False, True])
def test_dropped_in_another_thread(nothing_left, pending):
    """That one cannot unblock anything here. The main thread does so itself at once; what is pending ends nobody."""
    before = blocked()
    loop = Loop(signals="signalfd")
    watcher = loop.signal("USR1", unexpected)
    loop.run_once(0)
    assert blocked() == before | {signal.SIGUSR1}
    if pending:
        os.kill(os.getpid(), signal.SIGUSR1)
    gc.collect()
    gc.disable()
    try:
        with pytest.warns(ResourceWarning):
            del loop, watcher
            in_thread(gc.collect)
    finally:
        gc.enable()
    assert blocked() == before
    assert _fault.disposition(signal.SIGUSR1) == "default"


def test_dropped_elsewhere_than_in_the_thread_that_ran_it(nothing_left):
    """A thread that is not the main one unblocks it when it has to do with such loops again."""
    box, ready, go_on = [], threading.Event(), threading.Event()

    def body():
        loop = Loop(signals="signalfd")
        loop.signal("USR1", unexpected)
        loop.run_once(0)
        box.append(loop)
        del loop
        ready.set()
        assert go_on.wait(BOUND)
        with unblocked():
            assert signal.SIGUSR1 not in blocked()
        assert signal.SIGUSR1 not in blocked()
        with made_loop(signals="signalfd") as other:
            watcher = other.signal("USR1", unexpected)
            other.run_once(0)
            assert signal.SIGUSR1 in blocked()
            watcher.stop()
            assert signal.SIGUSR1 not in blocked()

    def drop():
        assert ready.wait(BOUND)
        with pytest.warns(ResourceWarning):
            box.clear()
            gc.collect()
        go_on.set()

    thread = threading.Thread(target=drop)
    thread.start()
    in_thread(body)
    thread.join()


def test_closed_when_its_thread_has_ended(nothing_left):
    """Whoever closes it has a mask of its own."""
    box = []

    def run():
        loop = Loop(signals="signalfd")
        loop.signal("USR1", unexpected)
        loop.run_once(0)
        box.append(loop)

    def close():
        with made_loop(signals="signalfd") as own:
            watcher = own.signal("USR1", unexpected)
            own.run_once(0)
            box.pop().close()
            assert signal.SIGUSR1 in blocked()
            watcher.stop()
            assert signal.SIGUSR1 not in blocked()

    for _ in range(scaled(20, least=3)):
        in_thread(run)
        in_thread(close)


def test_the_signalfd_fails(nothing_left):
    """Then the handler has the signals again."""
    script = """
    import os, signal
    from linux_event import Loop
    with Loop(signals="signalfd") as loop:
        loop.signal("USR1", lambda watcher, signum: (print("caught", flush=True), watcher.stop()))
        loop.run_once(0)
        # Another file in the place of the signalfd: reading it fails.
        fd = next(int(fd) for fd in os.listdir("/proc/self/fd") if "signalfd" in os.readlink(f"/proc/self/fd/{fd}"))
        os.dup2(os.open("/", os.O_RDONLY), fd)
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_once(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run(timeout=30)
    """
    result = _fault.run_script(script)
    assert result.stdout.startswith("caught"), result
