"""Child: return codes, arguments, starting and stopping, several watchers of one child, many children."""

import os
import select
import signal
import subprocess
import threading
import time

import pytest
from _children import Calls, ended, gated, is_reaped, is_zombie, kernel_threads, start, wait_ended
from _fault import BOUND, unexpected
from _support import finish, made_loop, many_fds_allowed, open_fds, run_until, scaled

from linux_event import Child, DestroyedError

pytestmark = pytest.mark.usefixtures("way")


# --- return codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 127", 127),
        ("exit 255", 255),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -TERM $$", -signal.SIGTERM),
        ("ulimit -c 0; kill -SEGV $$", -signal.SIGSEGV),
        ("kill -s 40 $$", -40),
    ],
)
def test_return_codes(loop, script, code, before):
    child = ended(script) if before else start(script)
    calls = Calls()
    watcher = loop.child(child.pid, calls)
    assert type(watcher) is Child
    assert watcher.is_active()
    assert watcher.pid == child.pid
    assert watcher.returncode is None
    assert calls == []
    finish(loop)
    assert calls == [(child.pid, code)]
    assert type(calls[0][0]) is type(calls[0][1]) is int
    assert watcher.returncode == code
    assert is_reaped(child.pid)
    child.returncode = code


def test_a_child_that_has_ended_is_told_of_in_the_next_iteration(loop):
    calls = Calls()
    first, second = ended("exit 1"), ended("exit 2")

    def begin(_):
        loop.child(second, calls, priority=2)
        assert calls == []

    loop.child(first, calls)
    loop.timer(0, begin)
    assert loop.run_once(0) == 2
    assert calls.codes == [1]
    assert loop.run_once(0) == 1
    assert calls.codes == [1, 2]


def test_the_end_ends_the_sleep(loop):
    with gated(4) as (child, end):
        calls = Calls()
        loop.child(child.pid, calls)
        assert loop.run_once(0) == 0
        threading.Timer(0.05, end).start()
        assert loop.run_once(BOUND) == 1
        assert calls == [(child.pid, 4)]
        child.returncode = 4


def test_stopped_and_continued_is_not_ended(loop):
    child = start("kill -STOP $$; exit 6")
    calls = Calls()
    loop.child(child.pid, calls)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    loop.run(0.05)
    assert calls == []
    # Nor was the news taken away from whoever waits for it.
    assert os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG).si_status == signal.SIGSTOP
    child.send_signal(signal.SIGCONT)
    finish(loop)
    assert calls.codes == [6]
    child.returncode = 6


def test_a_child_that_execs(loop):
    child = start("exec sh -c 'exit 9'")
    calls = Calls()
    loop.child(child, calls)
    finish(loop)
    assert calls.codes == [9]


def test_children_that_nobody_watches_are_left_alone(loop):
    others = [start(f"exit {code}") for code in (1, 2)]
    with gated(3) as (child, end):
        calls = Calls()
        loop.child(child, calls)
        for other in others:
            wait_ended(other.pid)
        loop.run_once(0)
        assert all(is_zombie(other.pid) for other in others)
        end()
        finish(loop)
    assert calls.codes == [3]
    assert [other.wait() for other in others] == [1, 2]


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [None, 1.0, "1", b"1", True, False, [1], object(), int, 1j])
@pytest.mark.parametrize("keywords", [{}, {"start": False}])
def test_pids_of_bad_type(loop, pid, keywords):
    for call in (lambda: loop.child(pid, print, **keywords), lambda: Child(loop, pid, print), lambda: loop.child(pid)):
        with pytest.raises(TypeError, match=r"pid must be an int or a subprocess\.Popen"):
            call()
    assert not loop.watchers


@pytest.mark.parametrize("pid", [0, -1, -(2**31), 2**31, 2**63, 2**64, -(2**100)])
def test_pids_of_bad_value(loop, pid):
    for call in (lambda: loop.child(pid, print), lambda: Child(loop, pid, print), lambda: loop.child(pid)):
        with pytest.raises(ValueError, match="pid"):
            call()
    assert not loop.watchers


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_a_pid_by_index(loop):
    child, calls = ended("exit 1"), Calls()
    loop.child(Index(child.pid), calls)
    finish(loop)
    assert calls == [(child.pid, 1)]
    child.returncode = 1


def refused(loop, pid, error):
    """Every way to begin fails with the error, and leaves nothing."""
    for call in (
        lambda: loop.child(pid, unexpected),
        lambda: Child(loop, pid, unexpected),
        lambda: loop.child(pid, unexpected, start=False),
        lambda: loop.child(pid),
    ):
        with pytest.raises(error, match=rf"\b{pid}\b"):
            call()
    assert not loop.watchers
    assert loop.statistics().requests_in_flight <= 1


def test_no_such_process(loop):
    child = start("exit 0")
    child.wait()
    refused(loop, child.pid, ProcessLookupError)


def test_not_our_child(loop):
    with subprocess.Popen(["sh", "-c", "sh -c 'echo $$; read x'"], stdin=-1, stdout=-1, text=True) as parent:
        grandchild = int(parent.stdout.readline())
        for pid in (1, os.getpid(), os.getppid(), grandchild):
            refused(loop, pid, ChildProcessError)


def test_bad_callbacks(loop):
    with gated() as (child, _):
        for callback in (None, 1, "print"):
            with pytest.raises(TypeError, match="callback"):
                loop.child(child.pid, callback)
        assert not loop.watchers


def test_the_pid_and_the_code_are_read_only(loop):
    with gated() as (child, _):
        watcher = loop.child(child.pid, print)
        for name in ("pid", "returncode"):
            with pytest.raises(AttributeError):
                setattr(watcher, name, 1)


def test_decorator(loop):
    child, seen = ended("exit 5"), []

    @loop.child(child, data="mine")
    def watcher(watcher, pid, returncode):
        seen.append((watcher.data, pid, returncode))

    assert type(watcher) is Child
    assert watcher.is_active()
    finish(loop)
    assert seen == [("mine", child.pid, 5)]


def test_repr(loop):
    child = ended("exit 7")
    watcher = loop.child(child, Calls())
    assert repr(watcher) == f"<Child id={watcher.id} pid={child.pid} active>"
    finish(loop)
    assert repr(watcher) == f"<Child id={watcher.id} pid={child.pid} returncode=7 stopped>"


# --- start, stop, destroy --------------------------------------------------------------------------------------------


def test_started_again_when_it_is_over(loop):
    child, calls = start("exit 0"), Calls()
    watcher = loop.child(child.pid, calls)
    finish(loop)
    assert watcher.returncode == 0
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        watcher.start()
    assert not watcher.is_active()
    assert not watcher.is_destroyed()
    assert calls.codes == [0]
    child.returncode = 0


@pytest.mark.parametrize("leave", ["stop", "destroy", "close"])
def test_who_leaves_takes_no_status_away(leave):
    with made_loop() as loop, gated(8) as (child, end):
        watcher = loop.child(child.pid, unexpected)
        loop.run_once(0)
        (loop.close if leave == "close" else getattr(watcher, leave))()
        end()
        wait_ended(child.pid)
        if leave != "close":
            loop.run(0.01)
        assert is_zombie(child.pid)
        assert child.wait() == 8


@pytest.mark.parametrize("leave", ["stop", "destroy"])
def test_who_leaves_when_the_end_is_collected(loop, leave):
    child = ended("exit 8")
    watcher = loop.child(child.pid, unexpected)
    loop.child(ended("exit 1"), lambda *_: getattr(watcher, leave)(), priority=1)
    finish(loop)
    assert is_zombie(child.pid)
    assert child.wait() == 8


def test_stopped_and_started_again(loop):
    with gated(2) as (child, end):
        calls = Calls()
        watcher = loop.child(child, calls, start=False)
        assert watcher.stop() is watcher
        for turn in range(20):
            assert watcher.start() is watcher
            assert watcher.start() is watcher
            if turn % 3 == 0 and turn < 10:
                loop.run_once(0)
            if turn == 10:
                end()
                wait_ended(child.pid)
            assert watcher.stop() is watcher
            assert not watcher.is_active()
            if turn % 4 == 0:
                loop.run_once(0)
        assert calls == []
        watcher.start()
        finish(loop)
        assert calls.codes == [2]


def test_from_its_own_callback(loop):
    seen = []

    def again(watcher, pid, returncode):
        seen.append(returncode)
        with pytest.raises(ProcessLookupError):
            watcher.start()
        watcher.stop()
        watcher.destroy()
        with pytest.raises(DestroyedError):
            watcher.start()

    child = start("exit 1")
    loop.child(child.pid, again)
    finish(loop)
    assert seen == [1]
    child.returncode = 1


def test_a_child_of_the_callback(loop):
    codes = []

    def respawn(watcher, pid, returncode):
        codes.append(returncode)
        watcher.destroy()
        if returncode:
            loop.child(start(f"exit {returncode - 1}"), respawn)

    loop.child(start("exit 5"), respawn)
    finish(loop)
    assert codes == [5, 4, 3, 2, 1, 0]
    assert not loop.watchers


def test_ref(loop):
    with gated(1) as (child, end):
        calls = Calls()
        watcher = loop.child(child, calls, ref=False)
        finish(loop)
        assert calls == []
        watcher.ref = True
        end()
        finish(loop)
        assert calls.codes == [1]


def test_an_exception_in_the_callback(loop):
    told = []
    loop.on_error = lambda source, error: told.append((source, str(error)))

    def fail(watcher, pid, returncode):
        raise ValueError(returncode)

    watcher = loop.child(ended("exit 3"), fail)
    finish(loop)
    assert told == [(watcher, "3")]


# --- several watchers of one child -----------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
def test_all_watchers_of_a_child_are_told(loop, early):
    with gated(3) as (child, end):
        calls, order = Calls(), []
        low = loop.child(child.pid, lambda *args: (calls(*args), order.append("low")), priority=-1)
        if early:
            loop.run_once(0)
        end()
        wait_ended(child.pid)
        high = loop.child(child, lambda *args: (calls(*args), order.append("high")), priority=1)
        same = loop.child(child.pid, lambda *args: (calls(*args), order.append("same")))
        idle = loop.child(child.pid, unexpected, start=False)
        finish(loop)
        assert calls.codes == [3, 3, 3]
        assert order == ["high", "same", "low"]
        assert [watcher.returncode for watcher in (low, high, same, idle)] == [3, 3, 3, None]
        assert child.returncode == 3


def test_one_of_several_stops_the_others(loop):
    child, calls = ended("exit 1"), []
    watchers = []

    def first(watcher, pid, returncode):
        calls.append(returncode)
        for other, change in zip(watchers, ("stop", "destroy"), strict=False):
            getattr(other, change)()

    loop.child(child, first, priority=1)
    watchers += [loop.child(child.pid, unexpected), loop.child(child.pid, unexpected)]
    watchers.append(loop.child(child.pid, Calls()))
    finish(loop)
    assert calls == [1]
    assert watchers[2].returncode == 1
    assert child.returncode == 1


def test_two_loops_share_by_the_popen(loop):
    # The first loop that comes to it reaps the child; what the other one is told it takes from the Popen.
    with made_loop() as other:
        child, calls = ended("exit 3"), Calls()
        plain = ended("exit 4")
        loop.child(child, calls)
        other.child(child, calls)
        loop.child(plain.pid, calls)
        other.child(plain.pid, calls)
        finish(loop)
        finish(other)
        assert sorted(calls, key=str) == sorted(
            [(child.pid, 3), (child.pid, 3), (plain.pid, 4), (plain.pid, None)], key=str
        )
    plain.returncode = 4


# --- many ------------------------------------------------------------------------------------------------------------


def test_hundreds_at_once(loop, way):
    count = scaled(300, 20)
    with many_fds_allowed(2 * count):
        children = [start(f"read x; exit {number % 256}", stdin=subprocess.PIPE) for number in range(count)]
        calls, beside = Calls(), Calls()
        threads = kernel_threads()
        for number, child in enumerate(children):
            loop.child(child if number % 2 else child.pid, calls)
            loop.child(child.pid, beside)
        loop.run_once(0)
        pidfds = [target for target in open_fds().values() if "pidfd" in target]
        assert len(pidfds) == (0 if way == "waitid" else 2 * count)
        for child in children:
            child.stdin.close()
        finish(loop)
        expected = sorted((child.pid, number % 256) for number, child in enumerate(children))
        assert sorted(calls) == expected
        assert sorted(beside) == expected
        # Nothing was given to threads of the kernel.
        assert kernel_threads() == threads
        assert loop.statistics().timers == 0
        assert [target for target in open_fds().values() if "pidfd" in target] == []
    for number, child in enumerate(children):
        assert is_reaped(child.pid)
        child.returncode = number % 256


def test_no_spinning_while_children_run(loop):
    with gated() as (child, _):
        loop.child(child, unexpected)
        loop.run_once(0)
        before = loop.statistics()
        loop.run(0.1)
        after = loop.statistics()
        assert after.iterations - before.iterations <= 3
        assert after.completions == before.completions


def test_a_loop_that_polls_its_submissions(way):
    with made_loop(sqpoll=True) as loop, gated(2) as (child, end):
        calls = Calls()
        loop.child(child, calls)
        loop.run_once(0)
        end()
        run_until(loop, lambda: calls)
        assert calls.codes == [2]


def test_inside_another_event_loop(loop):
    with gated(2) as (child, end):
        calls = Calls()
        loop.child(child, calls)
        fd = loop.fileno()
        loop.run_once(0)
        assert select.select([fd], [], [], 0)[0] == []
        end()
        limit = time.monotonic() + BOUND
        while not calls and time.monotonic() < limit:
            select.select([fd], [], [], BOUND)
            loop.run_once(0)
        assert calls.codes == [2]
