"""System calls that fail in the middle of work: strace makes io_uring_enter(2) return what a kernel returns rarely."""

import _fault
import pytest

pytestmark = pytest.mark.skipif(_fault.strace_missing() is not None, reason=str(_fault.strace_missing()))

# Work of every kind with a known outcome. Nothing of it may be lost or done twice, whatever the kernel answered.
WORK = """
    import os, shutil, signal, sys, tempfile, time
    import _fault
    from linux_event import Loop

    def work(loop):
        folder = tempfile.mkdtemp()
        read_end, write_end = os.pipe()
        edge_end, other_end = os.pipe()
        seen = {name: 0 for name in ("level", "edge", "timer", "periodic", "deferred", "posted", "signal", "python", "path")}
        early = []

        def level(watcher, events):
            seen["level"] += len(os.read(read_end, 1))
            if seen["level"] < 40:
                os.write(write_end, b"x")
            else:
                watcher.destroy()

        def edge(watcher, events):
            seen["edge"] += len(os.read(edge_end, 1))
            if seen["edge"] < 10:
                os.write(other_end, b"x")
            else:
                watcher.destroy()

        def path(watcher, event):
            seen["path"] += event.path == folder + "/d" * seen["path"] + "/d"
            if seen["path"] < 10:
                os.mkdir(event.path + "/d")
            else:
                watcher.destroy()

        def timer(watcher):
            seen["timer"] += 1
            early.append(time.monotonic() < watcher.data)

        def periodic(watcher):
            seen["periodic"] += 1
            if seen["periodic"] == 5:
                watcher.destroy()
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR2)

        def deferred():
            seen["deferred"] += 1
            if seen["deferred"] < 5:
                loop.defer(deferred)
            else:
                loop.post(posted)

        def posted():
            seen["posted"] += 1

        def watched(watcher, signum):
            seen["signal"] += 1
            watcher.destroy()

        def handler(signum, frame):
            seen["python"] += 1

        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
        signal.signal(signal.SIGUSR2, handler)
        loop.io(read_end, "r", level)
        loop.io(edge_end, "r", edge, edge=True)
        for delay in (0.001, 0.01, 0.03):
            loop.timer(delay, timer, data=time.monotonic() + delay)
        loop.periodic(0.002, periodic)
        loop.signal("USR1", watched)
        loop.watch(folder, "create", path, recursive=True)
        os.mkdir(folder + "/d")
        loop.defer(deferred)
        os.write(write_end, b"x")
        os.write(other_end, b"x")
        loop.run(timeout=40)
        expected = dict(level=40, edge=10, timer=3, periodic=5, deferred=5, posted=1, signal=1, python=1, path=10)
        assert seen == expected, seen
        assert not any(early)
        for fd in (read_end, write_end, edge_end, other_end):
            os.close(fd)
        shutil.rmtree(folder)

    def close(loop):
        loop.close()
        assert loop.statistics().requests_in_flight == 0
        assert loop.statistics().watchers == 0
        assert _fault.open_fds() == before

    before = _fault.open_fds()
"""

WHOLE = (
    WORK
    + """
    loop = Loop()
    work(loop)
    close(loop)
    print("done")
"""
)


def injected(source, *injections, **start):
    """Run the script; it must have been injected into. Return its result."""
    result = _fault.run_injected(source, *injections, **start)
    mark = "--- SIG" if "signal=" in injections[0] else "(DELAYED)" if "delay" in injections[0] else "(INJECTED)"
    assert mark in result.trace, result
    return result


@pytest.mark.parametrize(
    "what",
    [
        "error=EINTR:when=1",
        "error=EINTR:when=2+2",
        "error=EINTR:when=1..10",
        "error=EINTR:when=2+3",
        "error=EBUSY:when=2+2",
        "error=EBUSY:when=1..4",
        "error=EAGAIN:when=1..2",
        "error=EAGAIN:when=3+4",
        "error=ENOMEM:when=1..2",
        "error=ENOMEM:when=4+5",
        "error=ETIME:when=2+3",
        "retval=0:when=1",
        "retval=0:when=1..3",
        "retval=0:when=2+2",
        "delay_enter=20000:when=2+5",
        "delay_exit=20000:when=2+5",
        "signal=SIGUSR1:when=4",
        "signal=SIGUSR2:when=4",
    ],
)
def test_work_is_done(what):
    """Errors that pass, calls that take less than was asked, calls that take long, signals at the entry."""
    # A signal more than the work sends itself may be merged with that one.
    source = WHOLE.replace("assert seen ==", "seen['python'] = min(seen['python'], 1); assert seen ==")
    injected(source, f"io_uring_enter:{what}").check("done")


@pytest.mark.parametrize(
    "what", ["error=EINTR:when=2+2", "error=EAGAIN:when=2+3", "error=EBUSY:when=2+3", "retval=0:when=2+3"]
)
@pytest.mark.parametrize("arguments", ["entries=1, cq_entries=1", "entries=4", "sqpoll=True", "busy_poll=0.001"])
def test_work_is_done_on_other_rings(arguments, what):
    injected(WHOLE.replace("Loop()", f"Loop({arguments})"), f"io_uring_enter:{what}").check("done")


@pytest.mark.parametrize("name", ["EINTR", "EAGAIN", "EBUSY", "ENOMEM"])
def test_close_is_done(name):
    """close() waits for the kernel to let go, though its calls fail at first."""
    source = (
        WORK
        + """
    loop = Loop()
    read_end, write_end = os.pipe()
    for _ in range(20):
        loop.io(read_end, "r", print)
    loop.run_once(0)
    close_from = loop.statistics().syscalls
    os.close(write_end)
    before.update({read_end: os.readlink(f"/proc/self/fd/{read_end}")})
    close(loop)
    print("done", close_from)
    """
    )
    first = injected(source, "io_uring_enter:delay_enter=1:when=1").check(None)
    calls = int(first.stdout.split()[1])
    injected(source, f"io_uring_enter:error={name}:when={calls + 1}..{calls + 3}").check(f"done {calls}")


def test_interrupted_for_ever():
    """A wait that is never let through still keeps to the timeout of run."""
    source = """
    import time
    from linux_event import Loop
    loop = Loop()
    loop.timer(3600, print)
    start = time.monotonic()
    loop.run(timeout=0.2)
    assert time.monotonic() - start >= 0.2
    print("done", flush=True)
    """
    injected(source, "io_uring_enter:error=EINTR:when=1+1").check("done")


@pytest.mark.parametrize("name", ["EAGAIN", "EBUSY", "ENOMEM"])
def test_refused_for_ever(name):
    """Tried again a bounded number of times, with pauses; then run raises that error, and the loop can be closed."""
    source = """
    import errno, os, sys
    import _fault
    from linux_event import Loop
    before = _fault.open_fds()
    read_end, write_end = os.pipe()
    loop = Loop()
    loop.io(read_end, "r", print)
    loop.timer(3600, print)
    try:
        loop.run(timeout=30)
    except OSError as error:
        print(errno.errorcode[error.errno])
    loop.close()
    os.close(read_end)
    os.close(write_end)
    assert _fault.open_fds() == before
    """
    result = injected(source, f"io_uring_enter:error={name}:when=1+1").check(name)
    assert result.trace.count("INJECTED") < 2000


def test_completions_dropped_by_the_kernel():
    """EBADR: the kernel had no memory for a completion and lost it. Nothing can be trusted any more: run raises."""
    source = """
    import errno, os
    import _fault
    from linux_event import Loop
    before = _fault.open_fds()
    loop = Loop()
    loop.periodic(0.001, lambda watcher: None)
    try:
        loop.run(timeout=30)
    except OSError as error:
        print(errno.errorcode[error.errno], error.strerror)
    loop.close()
    assert _fault.open_fds() == before
    """
    result = injected(source, "io_uring_enter:error=EBADR:when=4").check(None)
    assert result.stdout.startswith("EBADR ")


@pytest.mark.parametrize("name", ["EBADF", "EFAULT", "EINVAL", "EPERM", "ENXIO", "EIO"])
def test_impossible_errors(name):
    """An error that has no remedy leaves run with its errno, and the loop can still be closed, or run again."""
    source = """
    import errno, os
    import _fault
    from linux_event import Loop
    before = _fault.open_fds()
    loop = Loop()
    ticks = []
    loop.periodic(0.001, ticks.append)
    try:
        loop.run(timeout=30)
    except OSError as error:
        print(errno.errorcode[error.errno])
    assert not loop.is_running()
    count = len(ticks)
    loop.run(timeout=0.02)
    assert len(ticks) > count
    loop.close()
    assert _fault.open_fds() == before
    """
    injected(source, f"io_uring_enter:error={name}:when=4").check(name)


@pytest.mark.parametrize("first", range(1, 9))
def test_signal_at_each_call(first):
    """A handler that stops the loop at the entry of its n-th wait: run returns, and the next one does all that is left."""
    source = (
        WORK
        + """
    loop = Loop()
    handled = []
    signal.signal(signal.SIGINT, lambda signum, frame: (handled.append(signum), loop.stop_threadsafe()))

    class Interrupted:
        def __getattr__(self, name):
            return getattr(loop, name)

        def run(self, timeout):
            loop.run(timeout)
            assert handled == [signal.SIGINT]
            assert loop.statistics().active_watchers > 0
            loop.run(timeout)

    work(Interrupted())
    assert handled == [signal.SIGINT]
    close(loop)
    print("done")
    """
    )
    injected(source, f"io_uring_enter:signal=SIGINT:when={first}").check("done")


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("embedded", [False, True])
def test_handler_that_closes_the_loop_as_run_ends(number, embedded):
    """What callbacks have cancelled is still being handed to the kernel: the loop is closed, and run returns."""
    source = """
    import os, signal, sys
    import _fault
    from linux_event import Loop
    before = _fault.open_fds()
    read_end, write_end = os.pipe()
    loop = Loop(entries=1)
    if EMBEDDED:
        loop.fileno()
    watchers = [loop.io(read_end, "r", print) for _ in range(20)]
    loop.run_once(0)

    def end(watcher):
        for watcher in watchers:
            watcher.destroy()
        print(loop.statistics().syscalls)
        loop.stop()

    signal.signal(signal.SIGUSR2, lambda *_: loop.is_running() or loop.close())
    loop.timer(0, end)
    loop.run()
    print(loop.is_closed())
    loop.close()
    os.close(read_end)
    os.close(write_end)
    assert _fault.open_fds() == before
    """.replace("EMBEDDED", str(embedded))
    calls = int(injected(source, "io_uring_enter:delay_enter=1:when=1").check(None).stdout.split()[0])
    what = f"io_uring_enter:error=EINTR:signal=SIGUSR2:when={calls + number}"
    result = _fault.run_injected(source, what)
    assert "(INJECTED)" in result.trace
    result.check(f"{calls}\nTrue")


def test_slow_kernel_does_not_fire_timers_twice():
    """After a wait that took long, ticks are merged and timers fire once."""
    source = """
    import time
    from linux_event import Loop
    loop = Loop()
    fired, ticks = [], []
    for number in range(20):
        loop.timer(0.01 * number, lambda watcher: fired.append(watcher.data), data=number)
    start = time.monotonic()
    periodic = loop.periodic(0.005, lambda watcher: ticks.append(1 + watcher.missed))
    loop.timer(0.4, lambda watcher: periodic.destroy())
    loop.run(timeout=30)
    elapsed = time.monotonic() - start
    assert fired == list(range(20)), fired
    assert 75 <= sum(ticks) <= elapsed / 0.005 + 1, (ticks, elapsed)
    assert max(ticks) >= 10, ticks
    loop.close()
    print("done")
    """
    injected(source, "io_uring_enter:delay_exit=100000:when=3+20").check("done")


@pytest.mark.parametrize("name", ["EINTR", "ENOMEM", "EAGAIN"])
def test_recheck_that_fails(name):
    """poll(2), which looks again at level-triggered fds: interrupted or short of memory, nothing is lost."""
    injected(WHOLE, f"poll:error={name}:when=2+3").check("done")


@pytest.mark.parametrize("call", ["io_uring_register", "eventfd2", "pipe2", "rt_sigaction"])
def test_other_calls_fail(call):
    """Whatever else a loop asks of the kernel, a refusal is an OSError at the call, and nothing is left behind."""
    source = """
    import errno, gc, os, signal
    import _fault
    from linux_event import Loop, UringUnavailableError
    before = _fault.open_fds()
    os.getpgid(0)
    for _ in range(4):
        try:
            with Loop() as loop:
                loop.signal("USR1", print)
                # Started where the loop sleeps next, however slow the machine: only a loop that sleeps makes the pipe.
                loop.defer(lambda: loop.timer(0.01, lambda watcher: loop.stop()))
                loop.run(timeout=30)
        except OSError as error:
            assert error.errno == errno.ENFILE, error
        gc.collect()
        assert _fault.open_fds() == before, _fault.open_fds()
        assert _fault.disposition(signal.SIGUSR1) == "default"
    """
    # The interpreter's own calls of the same name come first: a first run tells from which on they are the loop's.
    probe = _fault.run_injected(source, "getpgid:delay_enter=1", f"{call}:delay_enter=1").check(None)
    lines = [line for line in probe.trace.splitlines() if "(" in line]
    start = next(number for number, line in enumerate(lines) if "getpgid(" in line)
    first = sum(f" {call}(" in line for line in lines[:start]) + 1
    if not any(f" {call}(" in line for line in lines[start:]):
        pytest.skip(f"a loop makes no call of {call}")
    # The second call of sigaction(2) gives a signal back: nothing can be done when that is refused.
    for number in range(first, first + (1 if call == "rt_sigaction" else 4)):
        injected(source, f"{call}:error=ENFILE:when={number}").check("")


@pytest.mark.parametrize("call", ["loop.post(called)", "watcher.notify()", "loop.stop_threadsafe()"])
def test_called_in_the_pause_before_the_next_try(call):
    """The loop does not sleep then, and does not look at its queues again before it does: it is to be woken all the same."""
    source = f"""
    import _fault, threading, time
    from linux_event import Loop
    main = threading.get_native_id()

    def pauses():
        with open(f"/proc/self/task/{{main}}/wchan") as file:
            return "nanosleep" in file.read()

    def body():
        _fault.wait_until(pauses)
        {call}

    def called(*arguments):
        loop.stop()

    with Loop() as loop:
        watcher = loop.wakeup(called)
        thread = threading.Thread(target=body)
        thread.start()
        began = time.monotonic()
        loop.run(timeout=30)
        assert time.monotonic() - began < 15
        thread.join()
    print("done")
    """
    # The first calls are the wait; the pauses between them get longer, so one of them is seen.
    injected(source, "io_uring_enter:error=EAGAIN:when=1..8").check("done")
