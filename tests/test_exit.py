"""The end of a program, and the end of a loop that nobody closed."""

import gc
import os
import signal
import threading
import weakref
from textwrap import dedent

import _fault
import pytest
from _fault import unexpected
from _support import living, made_loop, open_fds, pipes, unraisable

from linux_event import IOWatcher, Loop, Watcher

# Every kind of watcher, active, with the loop in the middle of its work.
BUSY = """
    import atexit, contextlib, gc, os, signal, sys, threading, time, weakref
    import _fault
    from linux_event import Loop

    def fail(*_):
        print("called after the end", file=sys.stderr)

    def idler():
        # It ends with this process, and has none of its files.
        read_end, write_end = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, read_end, 0), (os.POSIX_SPAWN_CLOSE, 1), (os.POSIX_SPAWN_CLOSE, 2)]
        return os.posix_spawn("/bin/sh", ["sh", "-c", "read x"], {}, file_actions=actions)

    def busy():
        loop = Loop()
        loop.io(os.eventfd(0), "r", fail)
        loop.io(os.eventfd(0), "r", fail, edge=True)
        loop.timer(3600, fail)
        loop.periodic(3600, fail)
        loop.signal("USR1", fail)
        loop.child(idler(), fail)
        loop.wakeup(fail)
        with contextlib.suppress(OSError):  # it takes privileges
            loop.fswatch("/proc", ["open_exec"], fail)
        loop.watch("/proc/self/task", "delete_self", fail, recursive=True)
        loop.run_once(0)
        return loop
"""


def run(source, *arguments, **start):
    """Run a script that begins with BUSY."""
    return _fault.run_script(dedent(BUSY) + dedent(source), *arguments, **start)


# --- an open loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "os._exit(0)",
        "os.execv('/bin/true', ['true'])",
        "loop.idle(fail)",
        "loop.defer(fail)",
        "loop.post(fail)",
        "loops = [loop, busy(), busy()]",
        "del loop",
        "gc.disable(); holder = [loop]; holder.append(holder); del holder, loop",
        "watcher = loop.timer(1, fail); watcher.data = watcher; del loop",
        "watcher = loop.timer(1, fail); watcher.callback = lambda w, loop=loop: None; del watcher, loop",
        "sys.modules['kept'] = loop",
        "sys.kept = loop",
        "import builtins; builtins.kept = loop",
        "gc.freeze()",
        "signal.signal(signal.SIGUSR1, signal.SIG_DFL)",
        "weakref.finalize(loop, print, end='')",
        "weakref.finalize(loop, lambda: None); weakref.finalize(next(iter(loop.watchers.values())), lambda: None)",
        "loop.close()",
        "del Loop",
    ],
)
def test_exit_with_an_open_loop(ending):
    run("loop = busy()\n" + ending).check("")


def test_exit_with_an_open_loop_says_so_in_development_mode():
    """ResourceWarning is shown only where Python shows warnings of resources; nothing else is."""
    result = run("loop = busy()", options=["-X", "dev"])
    assert result.returncode == 0
    lines = [line for line in result.stderr.splitlines() if "ResourceWarning" not in line and not line.startswith(" ")]
    assert not lines
    assert not result.stdout


@pytest.mark.parametrize(
    "action",
    [
        "self.loop.close()",
        "self.loop.stop()",
        "self.watcher.destroy()",
        "self.watcher.stop()",
        "repr(self.loop), repr(self.watcher)",
        "self.loop.run_once(0)",
        "self.loop.timer(0, fail)",
        "self.loop.statistics()",
        "list(self.loop.watchers)",
        "self.loop.post(fail)",
    ],
)
def test_finalizers_that_use_the_loop(action):
    """Objects that end with the interpreter call the loop, in whatever state it is by then."""
    result = run(
        f"""
        class Late:
            def __init__(self):
                self.loop = busy()
                self.watcher = next(iter(self.loop.watchers.values()))
                self.watcher.data = self

            def __del__(self):
                try:
                    {action}
                except Exception as error:
                    assert isinstance(error, (RuntimeError, TypeError, AttributeError)), repr(error)

        late = Late()
        """
    )
    assert result.returncode == 0, result
    assert not result.stderr


def test_atexit_runs_a_loop():
    result = run(
        """
        def last():
            loop.timer(0.001, lambda watcher: (print("timer"), loop.stop()))
            loop.run()
            loop.close()

        loop = busy()
        atexit.register(last)
        """
    )
    result.check("timer")


def test_atexit_closes_a_loop():
    run("loop = busy(); atexit.register(loop.close)").check("")


# --- a running loop --------------------------------------------------------------------------------------------------

DAEMON = """
    def body():
        loop = busy()
        SETUP
        loops.append(loop)
        ready.set()
        loop.run()

    loops, ready = [], threading.Event()
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    ready.wait()
"""


@pytest.mark.parametrize(
    "setup",
    [
        "",
        "loop.periodic(0.0001, lambda watcher: None)",
        "loop.idle(lambda watcher: None)",
        "loop.timer(0, lambda watcher: time.sleep(3600))",
        "again = lambda: loop.defer(again); loop.defer(again)",
    ],
)
@pytest.mark.parametrize("ending", ["", "sys.exit(4)", "1 / 0"])
def test_exit_while_a_loop_runs_in_a_daemon_thread(setup, ending):
    code = {"": 0, "sys.exit(4)": 4, "1 / 0": 1}[ending]
    source = dedent(DAEMON).replace("SETUP", setup or "pass")
    result = run(source + ("" if setup else "_fault.wait_asleep(thread=thread.native_id)\n") + ending)
    assert result.returncode == code, result
    if ending == "1 / 0":
        assert result.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
        assert result.stderr.count("Traceback") == 1
    else:
        assert not result.stderr


def test_exit_while_a_daemon_thread_posts():
    result = run(
        """
        def body():
            while True:
                loop.post(ignore)

        def ignore():
            pass

        loop = busy()
        for _ in range(3):
            threading.Thread(target=body, daemon=True).start()
        loop.run(timeout=0.05)
        """
    )
    result.check("")


def test_exit_waits_for_a_thread_whose_loop_the_program_stops():
    result = run(
        """
        def body():
            with busy() as loop:
                loops.append(loop)
                ready.set()
                loop.run()
            print("thread done")

        loops, ready = [], threading.Event()
        threading.Thread(target=body).start()
        ready.wait()
        threading._register_atexit(lambda: loops.pop().stop_threadsafe())
        """
    )
    result.check("thread done")


# --- the end in a callback -------------------------------------------------------------------------------------------

STARTS = {
    "deferred": "loop.defer(end)",
    "posted": "loop.post(end)",
    "timer": "loop.timer(0, end)",
    "periodic": "loop.periodic(0.001, end)",
    "idle": "loop.idle(end)",
    "io": "loop.io(os.eventfd(1), 'r', end)",
    "signal": "loop.signal('USR2', end); os.kill(os.getpid(), signal.SIGUSR2)",
    "on_error": "loop.on_error = end; loop.defer(lambda: 1 / 0)",
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("os._exit(5)", 5),
        ("os.execv('/bin/sh', ['sh', '-c', 'exit 6'])", 6),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_exit_in_a_callback(start, ending, code):
    result = run(
        f"""
        def end(*_):
            {ending}

        loop = busy()
        {STARTS[start]}
        loop.run(timeout=50)
        """
    )
    assert result.returncode == code, result
    assert not result.stderr


def test_exit_in_a_callback_with_the_loop_as_context():
    """``with`` closes the loop on the way out."""
    result = run(
        """
        with busy() as loop:
            loop.timer(0, sys.exit)
            atexit.register(lambda: print(loop.is_closed()))
            loop.run(timeout=50)
        """
    )
    assert result.stdout.strip() == "True"
    assert "fail" not in result.stderr


def test_default_signals_end_a_sleeping_loop():
    process = _fault.start_script(
        """
        import os
        from linux_event import Loop
        loop = Loop()
        loop.io(os.eventfd(0), "r", print)
        print("ready", flush=True)
        loop.run()
        """
    )
    assert process.stdout.readline() == "ready\n"
    _fault.wait_asleep(process.pid)
    process.send_signal(signal.SIGTERM)
    result = _fault.finish_script(process)
    assert result.returncode == -signal.SIGTERM
    assert not result.stderr


def test_a_stopped_program_goes_on():
    """SIGSTOP and SIGCONT in the middle of a wait: it goes on, and its timers are not early."""
    process = _fault.start_script(
        """
        import os, time
        from linux_event import Loop
        loop = Loop()
        start = time.monotonic()
        loop.io(os.eventfd(0), "r", print)
        loop.timer(0.3, lambda watcher: (print(time.monotonic() - start >= 0.3), loop.stop()))
        print("ready", flush=True)
        loop.run()
        loop.close()
        """
    )
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        _fault.wait_asleep(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        process.send_signal(signal.SIGCONT)
    _fault.finish_script(process).check("True")


# --- a loop that nobody closed ---------------------------------------------------------------------------------------


def ignore(*_):
    pass


def drop(loop):
    """Let go of a loop in a list, and return what it warned of."""
    reference = weakref.ref(loop[0])
    with pytest.warns(ResourceWarning) as caught:
        loop.clear()
        gc.collect()
    [message] = [str(warning.message) for warning in caught]
    # The record of the warning names its source.
    caught.clear()
    gc.collect()
    assert reference() is None
    return message


@pytest.mark.parametrize("ran", [True, False])
def test_a_dropped_loop_is_collected_with_its_watchers(pipe, ran):
    before = open_fds()
    loop = [Loop()]
    for edge in (False, True):
        loop[0].io(pipe.r, "r", ignore, edge=edge)
    loop[0].timer(3600, ignore)
    loop[0].periodic(3600, ignore)
    loop[0].signal("USR1", ignore)
    loop[0].idle(ignore)
    loop[0].io(pipe.r, "r", ignore, start=False)
    if ran:
        loop[0].run_once(0)
    message = drop(loop)
    assert "Loop" in message
    assert not living(Loop, Watcher)
    assert open_fds() == before
    assert _fault.disposition(signal.SIGUSR1) == "default"


def test_a_dropped_loop_without_watchers_warns():
    drop([Loop()])


def test_a_closed_loop_does_not_warn():
    loop = Loop()
    loop.close()
    del loop
    gc.collect()


def test_a_dropped_loop_in_a_cycle(pipe):
    """The callback of a watcher holds the loop, the loop its watcher, and data both."""
    loop = [Loop()]

    def callback(watcher, events, loop=loop[0]):
        pytest.fail(repr(loop))

    watcher = loop[0].io(pipe.r, "r", callback)
    watcher.data = (watcher, loop[0], loop[0].watchers, loop[0].io_watchers)
    loop[0].on_error = callback
    loop[0].defer(callback, watcher, None)
    del watcher, callback
    drop(loop)


def test_a_watcher_keeps_its_loop():
    watcher = Loop().timer(0, ignore)
    gc.collect()
    watcher.loop.run()
    assert not watcher.is_active()
    watcher.loop.close()


def test_an_active_watcher_is_kept_by_its_loop(loop, pipe):
    called = []
    reference = weakref.ref(loop.io(pipe.r, "r", lambda watcher, events: (called.append(1), watcher.stop())))
    pipe.put()
    gc.collect()
    assert reference() is not None
    loop.run()
    assert called == [1]
    gc.collect()
    assert reference() is None or not reference().is_active()


def test_a_stopped_watcher_with_requests_in_flight_is_collected(loop, pipe):
    references = []
    for _ in range(10):
        watcher = loop.io(pipe.r, "r", unexpected)
        loop.run_once(0)
        watcher.stop()
        references.append(weakref.ref(watcher))
    watcher.destroy()
    del watcher
    for reference in references:
        if reference() is not None:
            reference().destroy()
    gc.collect()
    pipe.put()
    loop.run_once(0)
    loop.run_once(0)
    gc.collect()
    assert [reference() for reference in references] == [None] * 10
    assert loop.statistics().requests_in_flight == 0


def test_a_loop_dropped_in_its_own_callback(pipe):
    """While it runs it is held by run; afterwards it is gone."""
    called = []
    loop = [Loop()]

    def callback(watcher):
        loop.clear()
        gc.collect()
        called.append(1)

    loop[0].timer(0, callback)
    reference = weakref.ref(loop[0])
    with pytest.warns(ResourceWarning):
        loop[0].run()
        gc.collect()
    assert called == [1]
    assert reference() is None


def test_a_loop_dropped_in_the_callback_of_another(loop, pipe):
    other = [Loop()]
    other[0].io(pipe.r, "r", unexpected)
    other[0].run_once(0)
    messages = []
    loop.timer(0, lambda watcher: messages.append(drop(other)))
    loop.run()
    assert len(messages) == 1


def test_a_failing_finalizer_of_a_dropped_callback(pipe):
    """What a dropped loop releases may run any code, which may fail, and even use the loop."""

    class Argument:
        def __init__(self, loop):
            self.loop = weakref.ref(loop)

        def __call__(self, *_):
            pytest.fail("called")

        def __del__(self):
            ended.append(self.loop())
            raise ValueError("from __del__")

    ended = []
    loop = [Loop()]
    loop[0].io(pipe.r, "r", Argument(loop[0]))
    loop[0].timer(1, Argument(loop[0]))
    loop[0].defer(Argument(loop[0]), Argument(loop[0]))
    with unraisable() as errors:
        drop(loop)
    assert len(ended) == 4
    assert len(errors) == 4


def test_finalizers_that_use_the_loop_while_it_closes():
    """close() lets go of callbacks whose end calls the loop that is closing."""

    class Callback:
        def __init__(self, loop, action):
            self.loop, self.action = loop, action

        def __call__(self, *_):
            pytest.fail("called")

        def __del__(self):
            try:
                self.action(self.loop)
            except RuntimeError as error:
                errors.append(type(error).__name__)
            else:
                errors.append(None)

    actions = [
        lambda loop: loop.close(),
        lambda loop: loop.timer(0, ignore),
        lambda loop: loop.run(0),
        lambda loop: loop.post(ignore),
        lambda loop: [watcher.destroy() for watcher in loop.watchers.values()],
        lambda loop: loop.statistics(),
    ]
    errors = []
    with pipes(1) as [pipe]:
        for action in actions:
            with made_loop() as loop:
                stopped = loop.io(pipe.r, "r", Callback(loop, action), start=False)
                loop.io(pipe.r, "r", Callback(loop, action))
                loop.timer(1, Callback(loop, action))
                loop.defer(Callback(loop, action))
                loop.close()
                assert stopped.is_destroyed()
    gc.collect()
    assert len(errors) == 4 * len(actions)


def test_loops_made_and_dropped_in_threads(pipe):
    """Each thread leaves a loop behind that is collected elsewhere."""

    def body():
        loop = Loop()
        loop.io(pipe.r, "r", ignore)
        loop.run_once(0)
        loops.append(loop)

    loops = []
    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.warns(ResourceWarning) as caught:
        loops.clear()
        gc.collect()
    assert len(caught) == 8
    caught.clear()
    assert not living(Loop, IOWatcher)
