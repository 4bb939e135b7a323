"""Child and those who reap beside it: subprocess.Popen, other threads, handlers of SIGCHLD, the kernel, tracers."""

import copy
import gc
import os
import signal
import subprocess
import threading
import weakref

import _fault
import pytest
from _children import Calls, ended, gated, is_reaped, is_zombie, start, wait_ended
from _fault import run_script, unexpected, wait_until
from _support import finish, run_until, scaled

pytestmark = pytest.mark.usefixtures("way")


# --- subprocess.Popen ------------------------------------------------------------------------------------------------


class Special(subprocess.Popen):
    pass


@pytest.mark.parametrize("kind", [subprocess.Popen, Special])
def test_the_return_code_of_a_popen_is_filled_in(loop, kind):
    child = kind(["sh", "-c", "echo text; exit 5"], stdout=subprocess.PIPE, env=_fault.script_environment())
    seen = []

    def told(watcher, pid, returncode):
        # All of its methods work, and none looks for the child any more.
        assert child.returncode == returncode
        assert child.poll() == child.wait() == returncode
        seen.append((pid, returncode, child.communicate()[0]))

    watcher = loop.child(child, told)
    assert watcher.pid == child.pid
    finish(loop)
    assert seen == [(child.pid, 5, b"text\n")]
    child.send_signal(signal.SIGTERM)  # a process that has the pid by now gets none


def test_a_popen_that_was_reaped_before(loop):
    child, calls = start("exit 4"), Calls()
    child.wait()
    watcher = loop.child(child, calls)
    assert watcher.is_active()
    assert calls == []
    assert loop.run_once(0) == 1
    # As often as it is started: the Popen still knows.
    watcher.start()
    watcher.stop()
    watcher.start()
    finish(loop)
    assert calls == [(child.pid, 4)] * 2


@pytest.mark.parametrize("submitted", [True, False])
@pytest.mark.parametrize("how", ["poll", "wait", "with", "communicate"])
def test_a_popen_that_reaps_its_child_while_it_is_watched(loop, how, submitted):
    with gated(6) as (child, end):
        calls = Calls()
        loop.child(child, calls)
        if submitted:
            loop.run_once(0)
        end()
        wait_ended(child.pid)
        if how == "with":
            child.__exit__(None, None, None)
        else:
            getattr(child, how)()
        assert is_reaped(child.pid)
        finish(loop)
        assert calls == [(child.pid, 6)]


def test_one_watcher_has_the_popen_and_another_the_pid(loop):
    with gated(6) as (child, end):
        calls = Calls()
        loop.child(child.pid, calls)
        loop.child(child, calls)
        loop.child(child.pid, calls)
        loop.run_once(0)
        end()
        child.wait()
        finish(loop)
        assert calls == [(child.pid, 6)] * 3


def test_a_thread_that_waits_in_the_popen(loop):
    for _ in range(scaled(20, 3)):
        with gated(7) as (child, end):
            calls, waited = Calls(), []
            thread = threading.Thread(target=lambda child=child, waited=waited: waited.append(child.wait()))
            loop.child(child, calls)
            loop.run_once(0)
            thread.start()
            wait_until(child._waitpid_lock.locked)
            end()
            finish(loop)
            thread.join()
            assert calls == [(child.pid, 7)]
            assert waited == [7]


def test_threads_that_poll_the_popen(loop):
    for _ in range(scaled(20, 3)):
        with gated(7) as (child, end):
            calls, polled = Calls(), []

            def poll(child=child, polled=polled):
                while child.poll() is None:
                    pass
                polled.append(child.returncode)

            threads = [threading.Thread(target=poll) for _ in range(3)]
            loop.child(child, calls)
            for thread in threads:
                thread.start()
            end()
            finish(loop)
            for thread in threads:
                thread.join()
            assert calls == [(child.pid, 7)]
            assert polled == [7] * 3


def test_while_another_thread_has_the_lock(loop):
    with gated(9) as (child, end):
        calls = Calls()
        watcher = loop.child(child, calls)
        beside = loop.child(child.pid, calls)
        with child._waitpid_lock:
            end()
            wait_ended(child.pid)
            before = loop.statistics().iterations
            loop.run(0.1)
            # Asked again now and then, and nobody has reaped it behind the back of the thread with the lock.
            assert loop.statistics().iterations - before < 40
            assert loop.statistics().timers == 2
            assert is_zombie(child.pid)
            assert calls == []
            watcher.stop()
            assert loop.statistics().timers == 1
            watcher.start()
            beside.destroy()
        finish(loop)
        assert calls == [(child.pid, 9)]


def test_started_while_another_thread_reaps(loop):
    # Between waitpid() and the assignment of the return code the child is gone and the Popen knows nothing.
    child, calls = ended("exit 3"), Calls()
    with child._waitpid_lock:
        os.waitpid(child.pid, 0)
        loop.child(child, calls)
        loop.run(0.02)
        assert calls == []
        child.returncode = 3
    finish(loop)
    assert calls == [(child.pid, 3)]


def test_a_popen_is_kept_alive(loop):
    child = start("exit 1")
    ref = weakref.ref(child)
    calls = Calls()
    watcher = loop.child(child, calls)
    del child
    gc.collect()
    assert ref() is not None
    finish(loop)
    assert calls.codes == [1]
    assert ref().returncode == 1
    watcher.destroy()
    gc.collect()
    assert ref() is None


def test_two_popens_of_one_child(loop):
    with gated(6) as (child, end):
        twin, calls = copy.copy(child), Calls()
        for given in (child, child.pid, twin):
            loop.child(given, calls)
        end()
        finish(loop)
        assert calls == [(child.pid, 6)] * 3
        assert twin.returncode == child.returncode == 6


def test_a_popen_without_a_process(loop):
    failed = subprocess.Popen.__new__(subprocess.Popen)
    failed.returncode = None
    failed._child_created = False
    with pytest.raises(TypeError, match="pid"):
        loop.child(failed, unexpected)


def test_what_only_looks_like_a_popen(loop):
    class Process:
        pid, returncode = os.getpid(), None

    with pytest.raises(TypeError, match=r"pid must be an int or a subprocess\.Popen"):
        loop.child(Process(), unexpected)


class Odd(subprocess.Popen):
    """A Popen whose returncode runs code of its own while `hook` is set."""

    hook = None

    @property
    def returncode(self):
        if self.hook is not None:
            self.hook()
        return self.__dict__.get("code")

    @returncode.setter
    def returncode(self, code):
        if self.hook is not None:
            self.hook()
        self.__dict__["code"] = code


def test_no_memory_where_a_popen_is_told(loop, way):
    """It is told later, and nothing is lost: neither the code, which nobody can ask for again, nor the call."""
    told, failures = [], [3]
    loop.on_error = lambda source, error: told.append(type(error))
    child = Odd(["sh", "-c", "exit 6"])
    calls = Calls()
    watcher = loop.child(child, calls)

    def hook():
        if failures[0]:
            failures[0] -= 1
            raise MemoryError

    child.hook = hook
    finish(loop)
    assert told == [MemoryError] * 3
    assert calls.codes == [6]
    assert child.returncode == 6
    assert not watcher.is_active()
    loop.on_error = None


def test_a_popen_that_interferes(loop):
    told = []
    loop.on_error = lambda source, error: told.append((source, str(error)))

    def odd(hook):
        child = Odd(["sh", "-c", "exit 2"])
        wait_ended(child.pid)
        watcher = loop.child(child, calls, start=False)
        child.hook = lambda: hook(watcher)
        return child, watcher

    def finished(child):
        child.hook = None
        assert child.wait() == 2

    def fail(watcher):
        raise ValueError("hook")

    calls = Calls()
    # At the start: an exception, one that has started it already, one that destroys it.
    child, watcher = odd(fail)
    with pytest.raises(ValueError, match="hook"):
        watcher.start()
    assert not watcher.is_active()
    finished(child)

    def start_once(watcher):
        child.hook = None
        watcher.start()

    child, watcher = odd(start_once)
    watcher.start()
    finish(loop)
    assert calls.codes == [2]

    child, watcher = odd(lambda watcher: watcher.destroy())
    with pytest.raises(RuntimeError, match="destroyed"):
        watcher.start()
    finished(child)

    # When the end is told: an exception is told of in its place, and who stops the watcher hears nothing.
    calls.clear()
    child, watcher = odd(fail)
    child.hook = None
    watcher.start()
    child.hook = lambda: fail(watcher)
    finish(loop)
    assert told == [(watcher, "hook")]
    assert not watcher.is_active()
    finished(child)

    child, watcher = odd(fail)
    child.hook = None
    watcher.start()
    child.hook = lambda watcher=watcher: watcher.stop()
    finish(loop)
    assert calls == []
    finished(child)


def test_a_program_without_subprocess():
    run_script(
        """
        import os, sys
        from linux_event import Loop
        with Loop() as loop:
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
            loop.child(pid, lambda watcher, pid, code: print(code))
            loop.run(60)
            try:
                loop.child("x", print)
            except TypeError as error:
                print(error)
        assert "subprocess" not in sys.modules
        """
    ).check("3\npid must be an int or a subprocess.Popen, not str ('x')")


# --- reaped by somebody else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("submitted", [True, False])
@pytest.mark.parametrize("with_popen", [True, False])
def test_reaped_by_somebody_else(loop, submitted, with_popen):
    with gated(3) as (child, end):
        calls = Calls()
        watcher = loop.child(child if with_popen else child.pid, calls)
        if submitted:
            loop.run_once(0)
        end()
        os.waitpid(child.pid, 0)
        finish(loop)
        assert calls == [(child.pid, None)]
        assert watcher.returncode is None
        assert child.returncode is None


def test_reaped_when_the_end_is_collected(loop):
    child, calls = ended("exit 3"), Calls()
    loop.child(ended(), lambda *_: os.waitpid(child.pid, 0), priority=1)
    loop.child(child.pid, calls)
    finish(loop)
    assert calls == [(child.pid, None)]
    child.returncode = 3


def test_reaped_by_the_kernel(loop):
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with gated(3) as (child, end):
            calls = Calls()
            loop.child(child.pid, calls)
            end()
            finish(loop)
            assert calls == [(child.pid, None)]
            with pytest.raises(ProcessLookupError):
                loop.child(child.pid, unexpected)
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_beside_watchers_of_the_signal(loop):
    numbers, calls, codes = [], Calls(), []
    with gated(3) as (child, end), gated(4) as (other, end_other):

        def on_signal(watcher, signum):
            numbers.append(watcher.info.pid)
            if other.pid in numbers:
                codes.append(os.waitpid(other.pid, os.WNOHANG)[0])
                watcher.destroy()

        loop.signal("CHLD", on_signal)
        loop.child(child, calls)
        loop.run_once(0)
        end()
        run_until(loop, lambda: calls and numbers)
        assert calls == [(child.pid, 3)]
        assert numbers == [child.pid]
        # One that reaps in the callback of the signal is a somebody else as any other.
        late = loop.child(other.pid, calls, priority=-2)
        end_other()
        finish(loop)
        assert codes == [other.pid]
        assert late.returncode is None
        assert calls[1:] == [(other.pid, None)]


def test_the_signal_is_left_alone(loop):
    seen = []
    previous = signal.signal(signal.SIGCHLD, lambda *args: seen.append(args[0]))
    try:
        with gated(3) as (child, end):
            calls = Calls()
            loop.child(child, calls)
            assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
            end()
            finish(loop)
            assert calls.codes == [3]
            wait_until(lambda: seen)
    finally:
        signal.signal(signal.SIGCHLD, previous)
