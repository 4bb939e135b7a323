"""Child in hard cases: threads, forks, tracers, a kernel that refuses, limits."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
import weakref

import _fault
import pytest
from _children import Calls, ended, gated, start
from _fault import in_fork, run_script, start_fork, unexpected, wait_until
from _support import finish, made_loop, scaled

# Python 3.12 warns of every fork of a process with threads.
pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


# --- threads and forks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watching", [True, False])
def test_a_child_of_a_thread_that_is_gone(loop, watching):
    calls, pids, leave = Calls(), [], threading.Event()

    def body():
        pids.append(start("sleep 0.1; exit 3"))
        leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    wait_until(lambda: pids)
    if watching:
        loop.child(pids[0], calls)
        loop.run_once(0)
    leave.set()
    thread.join()
    if not watching:
        loop.child(pids[0], calls)
    finish(loop)
    assert calls.codes == [3]


def test_loops_in_threads(way):
    children = [start(f"sleep 0.02; exit {number}") for number in range(8)]
    calls = [Calls() for _ in range(4)]

    def body(number):
        with made_loop() as loop:
            for child in children[number::4]:
                loop.child(child, calls[number])
            finish(loop)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sorted(own.codes) for own in calls] == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_loops_in_threads_that_watch_the_same_popen():
    for _ in range(scaled(10, 2)):
        with gated(6) as (child, end):
            calls, ready = Calls(), threading.Barrier(4)

            def body(child=child, calls=calls, ready=ready):
                with made_loop() as loop:
                    loop.child(child, calls)
                    loop.run_once(0)
                    ready.wait()
                    finish(loop)

            threads = [threading.Thread(target=body) for _ in range(3)]
            for thread in threads:
                thread.start()
            ready.wait()
            end()
            for thread in threads:
                thread.join()
            assert calls == [(child.pid, 6)] * 3


def test_in_a_forked_child(loop):
    with gated(5) as (child, end):
        calls = Calls()
        watcher = loop.child(child, calls)
        loop.run_once(0)

        def forked():
            with pytest.raises(RuntimeError, match="fork"):
                loop.child(child, unexpected)
            with made_loop() as own, pytest.raises(ChildProcessError):
                own.child(child.pid, unexpected)
            watcher.stop()
            with pytest.raises(RuntimeError, match="fork"):
                watcher.start()
            watcher.destroy()

        in_fork(forked)
        end()
        finish(loop)
        assert calls == [(child.pid, 5)]


# --- tracers ---------------------------------------------------------------------------------------------------------

PTRACE_TRACEME, PTRACE_CONT = 0, 7


def test_traced_by_this_process(loop):
    """Stops of a tracee are told to whoever waits for its end; they are no end, and belong to the tracer."""
    libc = ctypes.CDLL(None, use_errno=True)

    def traced():
        libc.ptrace(PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(7)

    pid = start_fork(traced)
    calls = Calls()
    watcher = loop.child(pid, calls)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    for turn, signum in enumerate((signal.SIGSTOP, signal.SIGUSR1)):
        if turn == 1:
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
            watcher.stop().start()
        before = loop.statistics().iterations
        loop.run(0.05)
        assert loop.statistics().iterations - before < 30
        assert calls == []
        assert os.WSTOPSIG(os.waitpid(pid, os.WUNTRACED | os.WNOHANG)[1]) == signum
        assert libc.ptrace(PTRACE_CONT, pid, None, None) == 0
    finish(loop)
    assert calls == [(pid, 7)]


def test_a_stop_that_the_tracer_has_seen_by_then(loop, way):
    """The kernel tells of a stop, and when the watcher looks, the child runs again: it is waited for as before."""
    libc = ctypes.CDLL(None, use_errno=True)
    read_end, write_end = os.pipe()

    def traced():
        libc.ptrace(PTRACE_TRACEME, 0, None, None)
        os.read(read_end, 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(7)

    pid = start_fork(traced)
    calls = Calls()
    loop.child(pid, calls)
    loop.run_once(0)
    os.write(write_end, b"x")
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)

    def tracer(timer):
        assert os.WSTOPSIG(os.waitpid(pid, os.WUNTRACED)[1]) == signal.SIGUSR1
        assert libc.ptrace(PTRACE_CONT, pid, None, None) == 0

    loop.timer(0, tracer, priority=2)
    finish(loop)
    assert calls == [(pid, 7)]
    os.close(read_end)
    os.close(write_end)


TRACER = """
import ctypes, sys
PTRACE_SEIZE = 0x4206
failed = ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None)
print(ctypes.get_errno() if failed else 0, flush=True)
sys.stdin.read()
"""


def test_traced_by_another_process(loop):
    """Its tracer is told first: until it has let go, the child has ended and cannot be reaped."""
    with gated(5) as (child, end):
        command = [sys.executable, "-c", TRACER, str(child.pid)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tracer:
            if number := int(tracer.stdout.readline()):
                pytest.skip(f"no process can be traced: {os.strerror(number)}")
            calls = Calls()
            loop.child(child, calls)
            loop.run_once(0)
            end()
            before = loop.statistics().iterations
            loop.run(0.2)
            assert loop.statistics().iterations - before < 40
            assert calls == []
            tracer.stdin.close()
            finish(loop)
            assert calls == [(child.pid, 5)]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("submitted", [True, False])
@pytest.mark.parametrize("allowed", [(), ("nop", "waitid")])
@pytest.mark.parametrize("asked", [True, False])
def test_a_ring_that_may_do_little(allowed, submitted, asked):
    """Where the kernel refuses to wait for a child, a pidfd is polled. A ring that must not ask is told by another one."""
    with made_loop() as loop, gated(5) as (child, end):
        loop.ring.restrict(*allowed)
        loop.run_once(0)
        if asked:
            with made_loop() as other:
                other.child(ended(), Calls())
                finish(other)
        calls = Calls()
        loop.child(child, calls)
        if submitted:
            loop.run_once(0)
        end()
        loop.child(child.pid, calls)
        finish(loop)
        assert calls.codes == [5, 5]
        again = loop.child(child, calls)
        finish(loop)
        assert again.returncode == 5


def test_without_a_free_fd(way):
    result = run_script(
        """
        import errno, os, subprocess, sys
        sys.path.insert(0, sys.argv[2])
        from _fault import fill_fds
        from linux_event import Loop
        from linux_event.watchers import child

        if sys.argv[1] == "pidfd":
            child.pretend("WAITID")
        process = subprocess.Popen(["sh", "-c", "exit 3"])
        with Loop() as loop:
            loop.timer(0.001, lambda timer: None)
            loop.run(60)
            fds = fill_fds(0)
            try:
                watcher = loop.child(process, lambda watcher, pid, code: print(code))
                loop.run(60)
            except OSError as error:
                assert error.errno == errno.EMFILE
                assert not loop.watchers
                print("none left")
            for fd in fds:
                os.close(fd)
            loop.child(process, lambda watcher, pid, code: print(code))
            loop.run(60)
        """,
        way,
        os.path.dirname(_fault.__file__),
    )
    result.check("3\n3" if way == "waitid" else "none left\n3")


def test_a_ring_that_may_do_little_without_a_free_fd(way):
    """Where neither way is open, the child is asked for now and then."""
    if way == "pidfd":
        return  # the start says so
    run_script(
        """
        import os, subprocess, sys
        sys.path.insert(0, sys.argv[1])
        from _fault import fill_fds
        from linux_event import Loop

        process = subprocess.Popen(["sh", "-c", "read x; exit 3"], stdin=subprocess.PIPE)
        with Loop() as other:
            other.child(process, print)
        with Loop() as loop:
            loop.ring.restrict()
            loop.timer(0.001, lambda timer: None)
            loop.run(60)
            loop.child(process, lambda watcher, pid, code: print(code))
            fds = fill_fds(0)
            loop.run(0.1)
            print(loop.statistics().timers, loop.statistics().iterations < 40)
            process.stdin.close()
            loop.run(60)
        """,
        os.path.dirname(_fault.__file__),
    ).check("1 True\n3")


@pytest.mark.skipif(_fault.strace_missing() is not None, reason="needs strace")
def test_a_waitid_that_is_refused(way):
    source = f"""
        import os
        from linux_event import Loop
        from linux_event.watchers import child
        if {way!r} == "pidfd":
            child.pretend("WAITID")
        with Loop() as loop:
            loop.on_error = lambda source, error: print(source.is_active(), error.errno)
            pid = os.posix_spawn("/bin/true", ["true"], {{}})
            loop.child(pid, print)
            loop.run(60)
            try:
                loop.child(pid, print)
            except OSError as error:
                print(error.errno, len(loop.watchers))
        """
    _fault.run_injected(source, "waitid:error=EPERM:when=2+").check(f"False {errno.EPERM}\n{errno.EPERM} 0")


def test_memory_is_given_back(loop):
    watchers = [weakref.ref(loop.child(start("exit 0"), Calls())) for _ in range(20)]
    finish(loop)
    assert [ref() for ref in watchers] == [None] * 20
