"""Memory: each allocation that fails, blocks that leak, the resident set under many events."""

import gc
import os
import shutil
import subprocess
import sys
import sysconfig
from textwrap import dedent, indent

import _fault
import pytest
from _support import BOUND, KINDS, blocks_grown, finish, kind_arguments, made_loop, pipes, resting_child, scaled

from linux_event import Loop

# --- allocations that fail -------------------------------------------------------------------------------------------

# What a program does, each to be tried with every single one of its allocations failing. `loop` and the watchers are new
# for each attempt.
BODIES = {
    "make": "Loop().close()",
    "make with arguments": "with Loop(entries=8, cq_entries=16, debug=True, idle_wait=0.5): pass",
    "io": "loop.io(read_end, 'r', ignore)",
    "io of an object": "loop.io(file, 'rw', ignore, edge=True, data=1, priority=1, ref=False)",
    "timer": "loop.timer(3600, ignore)",
    "periodic": "loop.periodic(3600, ignore, offset=5)",
    "signal": "loop.signal('USR2', ignore)",
    "idle": "loop.idle(ignore).stop()",
    "wakeup": "loop.wakeup(ignore).notify(); loop.run_once(0)",
    "child": "loop.child(sleeper, ignore, priority=1); loop.child(ended, ignore).start(); loop.run_once(0)",
    "watch": "loop.watch('/proc/self', 'all', ignore, recursive=False); loop.run_once(0)",
    "class": "Timer(loop, 3600, ignore)",
    "decorator": "loop.timer(3600)(ignore)",
    "defer": "loop.defer(ignore, 1, 2)",
    "post": "loop.post(ignore, 1, 2)",
    "many deferred": "for _ in range(300): loop.defer(ignore, 1)",
    "many timers": "for _ in range(300): loop.timer(3600, ignore)",
    "many watchers": "for _ in range(100): loop.io(read_end, 'r', ignore)",
    "start and stop": "level.start(); edge.start(); level.stop(); edge.stop()",
    "poll": "level.start(); level.poll = 'w'; level.poll = 'r'; level.stop()",
    "setters": "timer.after = 1.5; periodic.interval = 2.5; timer.priority = 2; timer.callback = print; timer.ref = False",
    "getters": "timer.remaining, timer.after, periodic.missed, level.poll, level.fd, timer.loop, timer.data, loop.time()",
    "repr": "repr(loop), repr(timer), repr(level), repr(periodic), repr(watched)",
    "statistics": "loop.statistics()",
    "views": "dict(loop.watchers), dict(loop.io_watchers), dict(loop.signals), loop.watchers.get(timer.id)",
    "run": "loop.timer(0, ignore); loop.run(timeout=0.001)",
    "deferred call": "loop.defer(ignore, 1); loop.run_once(0)",
    "posted call": "loop.post(ignore, 1); loop.run_once(0)",
    "event": "os.write(write_end, b'x'); level.start(); loop.run_once(0); loop.run_once(0); os.read(read_end, 1)",
    "edge event": "os.write(write_end, b'x'); edge.start(); loop.run_once(0); loop.run_once(0); os.read(read_end, 1)",
    "signal that arrives": "os.kill(os.getpid(), signal.SIGUSR1); loop.run_once(0); loop.run_once(0)",
    "bad arguments": """
        for call in (
            lambda: loop.timer(-1, ignore),
            lambda: loop.io("x", "r", ignore),
            lambda: loop.signal("X", ignore),
            lambda: loop.timer(1, None),
            lambda: Loop(entries=0),
        ):
            try:
                call()
            except (TypeError, ValueError):
                pass
        """,
    "callback that raises": "loop.defer(fail); loop.run_once(0)",
    "error handler": "loop.on_error = lambda *_: None; loop.defer(fail); loop.run_once(0)",
    "read": "loop.read(read_end, 100, -1, ignore); loop.run_once(0)",
    "readinto": "loop.readinto(file, bytearray(100), on_success=ignore, on_error=ignore); loop.run_once(0)",
    "result": "os.write(write_end, bytes(100)); loop.read(read_end, 1000, -1, ignore); loop.run_once(0)",
    "fd that arrives": "loop.open('/dev/null', 0, callback=close_fd); loop.run_once(0); loop.run_once(0)",
    "failure": "loop.open('/no/such', 0, on_error=ignore); loop.run_once(0); loop.fsync(read_end); loop.run_once(0)",
    "cancel": "op = loop.read(read_end, 9); op.add_done_callback(ignore); op.cancel(); loop.run_once(0); repr(op), op.done()",
    "timeout": "loop.read(read_end, 9, timeout=0); loop.run_once(0); loop.run_once(0)",
    "many operations": "for _ in range(100): loop.read(read_end, 9, timeout=9)",
    "chain": """
        with loop.link() as chain:
            loop.write(file, b"x")
            loop.fsync(read_end, ignore)
            loop.write(file, b"x", -1, ignore)
        loop.run_once(0)
        repr(chain)
        """,
    "close with operations": "loop.read(read_end, 9, -1, ignore, timeout=9); loop.run_once(0); loop.close()",
    "close": "loop.close()",
    "drop": "other = Loop(); other.timer(1, ignore); other.io(read_end, 'r', ignore); other.run_once(0); del other",
}
if "fswatch" in KINDS:
    BODIES["fswatch"] = """
        watcher = loop.fswatch("/proc", ["open_exec"], ignore, own=False)
        repr(watcher), watcher.path, watcher.events
        with loop.fswatch("/dev/shm", "all", ignore):
            os.listdir("/dev/shm")
            loop.run_once(0)
        watcher.stop()
        """

HARNESS = """
    import contextlib, ctypes, gc, logging, os, signal, sys, warnings
    import _fault
    from linux_event import Loop, Timer

    def ignore(*_):
        pass

    def fail():
        raise ValueError

    def close_fd(fd, error):
        if fd is not None:
            os.close(fd)

    FAILURES

    GIVEN

    def body():
        BODY

    def attempt(number):
        '''Whether the body ended in MemoryError with its allocation of that number failing.'''
        global loop, level, edge, timer, periodic, watched, ended
        ended = os.posix_spawn("/bin/true", ["true"], {})
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        loop = Loop()
        level = loop.io(read_end, "r", ignore, start=False)
        edge = loop.io(read_end, "r", ignore, start=False, edge=True)
        timer = loop.timer(3600, ignore)
        periodic = loop.periodic(3600, ignore)
        watched = loop.signal("USR1", ignore)
        loop.run_once(0)
        gc.collect()
        failed = False
        start_failing(number)
        try:
            body()
        except MemoryError:
            stop_failing()
            failed = True
        except SystemError as error:
            # CPython's own enum does so where it is short of memory.
            stop_failing()
            failed = "without" in str(error)
            assert failed, error
        finally:
            stop_failing()
        while os.get_blocking(read_end) is False:
            try:
                os.read(read_end, 100)
            except BlockingIOError:
                break
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended, 0)
        if not loop.is_closed():
            called = []
            loop.on_error = None
            loop.timer(0, lambda watcher: (called.append(1), loop.stop()))
            loop.defer(called.append, 2)
            loop.run(timeout=20)
            assert sorted(called) == [1, 2], called
            loop.close()
        left = loop.statistics()
        assert left.requests_in_flight == left.watchers == left.active_watchers == left.timers == left.deferred == 0, left
        assert left.operations_in_flight == 0, left
        del loop, level, edge, timer, periodic, watched
        return failed

    logging.disable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = ignore
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    idle_end = os.pipe()[0]
    sleeper = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, idle_end, 0)])
    file = open("/dev/zero", "r+b", buffering=0)
    for number in range(260):
        os.dup(read_end)  # numbers of further fds are no small ints, which need no memory
    for number in range(3):
        attempt(10**6)
    gc.collect()
    fds = _fault.open_fds()
    failed = number = quiet = 0
    # An allocation may fail unseen, so it takes more than one success to know that the body has no more of them.
    while quiet < 30:
        quiet = 0 if attempt(number) else quiet + 1
        failed += quiet == 0
        gc.collect()
        assert _fault.open_fds() == fds, (number, _fault.open_fds())
        assert _fault.disposition(signal.SIGUSR1) == _fault.disposition(signal.SIGUSR2) == "default", number
        number += STEP
    print("failed", failed)
"""

# CPython's own test helper makes the allocators of the interpreter fail: of objects, of memory and of raw memory.
INTERPRETER = """
    try:
        from _testcapi import remove_mem_hooks as stop_failing, set_nomemory
    except ImportError:
        print("not installed")
        sys.exit()

    def start_failing(number):
        set_nomemory(number, number + 1)
"""

# A library in front of libc's makes malloc and its relatives fail, whoever calls them.
LIBC = """
    libc = ctypes.CDLL(None)

    def start_failing(number):
        libc.fail_allocation(number)

    def stop_failing():
        libc.fail_allocation(-1)
"""

SHIM = """
#include <stddef.h>
#include <errno.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static __thread int left = -1;

int fail_allocation(int number)
{
    left = number;
    return 0;
}

static int fails(void)
{
    if (left < 0 || left-- > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
"""


def harness(failures, body, step=1, given=""):
    source = dedent(HARNESS).replace("GIVEN", dedent(given).strip())
    source = source.replace("FAILURES", dedent(failures).strip())
    source = source.replace("    BODY", indent(dedent(body).strip(), "    "))
    return source.replace("STEP", str(step))


# Bodies in which an exception passes through the package, or a function is made. Short of memory for the frame of its
# traceback, or for a function, CPython 3.12 and 3.13 follow a null pointer.
NOT_SURVIVED_BY_CPYTHON = {"bad arguments", "error handler", "callback that raises"}
IS_SURVIVED_BY_CPYTHON = sys.version_info < (3, 12)
needs_to_survive = pytest.mark.skipif(not IS_SURVIVED_BY_CPYTHON, reason="CPython itself does not survive it")


# What measures coverage allocates for itself, between any two lines, and does not bear the failure.
NOT_MEASURED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def expect_survived(result):
    if result.stdout.strip() == "not installed":
        pytest.skip("CPython's _testcapi is not installed")
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr[-4000:])
    assert result.stdout.startswith("failed "), result.stdout
    return int(result.stdout.split()[1])


@pytest.mark.parametrize("name", BODIES)
def test_each_allocation_of_the_interpreter_fails(name):
    """MemoryError or success, never a crash; the loop goes on, and nothing is left open."""
    if name in NOT_SURVIVED_BY_CPYTHON and not IS_SURVIVED_BY_CPYTHON:
        pytest.skip("CPython itself does not survive it")
    step = 7 if name.startswith("many") else 1
    expect_survived(_fault.run_script(harness(INTERPRETER, BODIES[name], step), env=NOT_MEASURED))


def test_allocations_do_fail():
    """The method itself: making a loop takes more than one allocation."""
    assert expect_survived(_fault.run_script(harness(INTERPRETER, BODIES["make"]), env=NOT_MEASURED)) >= 2


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A shared library whose malloc fails on request, built with the compiler that built Python."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    if _fault.IS_SANITIZED:
        pytest.skip("malloc belongs to the sanitizer")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c"], check=True)
    return folder / "shim.so"


@pytest.mark.parametrize(
    "name",
    [
        "make",
        "io",
        "timer",
        "signal",
        "defer",
        "post",
        "many deferred",
        "many timers",
        "many watchers",
        "event",
        "read",
        "result",
        "timeout",
        "many operations",
        "chain",
        "close with operations",
        "close",
    ],
)
def test_each_allocation_of_c_fails(shim, name):
    expect_survived(_fault.run_script(harness(LIBC, BODIES[name]), env={"LD_PRELOAD": str(shim)}))


# --- leaks -----------------------------------------------------------------------------------------------------------


def ignore(*_):
    pass


def watchers_of_each_kind(loop, pipe, **arguments):
    mounts = [loop.fswatch(*kind_arguments("fswatch", pipe), ignore, **arguments)] if "fswatch" in KINDS else []
    return [
        loop.io(pipe.r, "r", ignore, **arguments),
        loop.io(pipe.r, "r", ignore, edge=True, **arguments),
        loop.timer(3600, ignore, **arguments),
        loop.periodic(3600, ignore, **arguments),
        loop.signal("USR1", ignore, **arguments),
        loop.idle(ignore, **arguments),
        loop.wakeup(ignore, **arguments),
        loop.child(resting_child(), ignore, **arguments),
        *mounts,
        loop.watch(__file__, "delete_self", ignore, **arguments),
    ]


def make_and_close(loop, pipe):
    Loop().close()


def make_run_and_close(loop, pipe):
    with Loop() as other:
        watchers_of_each_kind(other, pipe, data=object())
        other.run_once(0)


def make_and_destroy_watchers(loop, pipe):
    for watcher in watchers_of_each_kind(loop, pipe):
        loop.run_once(0)
        watcher.destroy()
    loop.run_once(0)


def start_and_stop_watchers(loop, pipe):
    watchers = watchers_of_each_kind(loop, pipe, start=False)
    for _ in range(3):
        for watcher in watchers:
            watcher.start()
        loop.run_once(0)
        for watcher in watchers:
            watcher.stop()
        loop.run_once(0)
    for watcher in watchers:
        watcher.destroy()


def setters(loop, pipe):
    watcher = loop.io(pipe.r, "r", ignore)
    for number in range(5):
        watcher.poll = "rw"
        watcher.data = [number]
        watcher.callback = lambda *_: None
        watcher.priority = number % 3
        watcher.ref = bool(number % 2)
        watcher.poll = "r"
    timer = loop.timer(1, ignore)
    timer.after = 1234.5
    loop.run_once(0)
    timer.destroy()
    watcher.destroy()
    loop.run_once(0)


def look(loop, pipe):
    watchers = watchers_of_each_kind(loop, pipe, data=[1])
    for watcher in watchers:
        repr(watcher), watcher.data, watcher.callback, watcher.loop, watcher.id, watcher.ref, watcher.priority
    repr(loop), loop.statistics(), dict(loop.watchers), dict(loop.io_watchers), dict(loop.signals), loop.on_error
    watchers[0].poll, watchers[2].remaining, watchers[2].after, watchers[3].interval, watchers[4].signum
    for watcher in watchers:
        watcher.destroy()
    loop.run_once(0)


def call_back(loop, pipe):
    pipe.put()
    loop.io(pipe.r, "r", lambda watcher, events: (pipe.take(), watcher.destroy()))
    loop.timer(0, ignore).data = object()
    loop.signal("USR1", lambda watcher, signum: (watcher.info, watcher.destroy()))
    loop.idle(lambda watcher: watcher.destroy())
    loop.wakeup(ignore, ref=False).notify()
    loop.child(os.posix_spawn("/bin/true", ["true"], {}), ignore)
    loop.defer(ignore, 1, [2])
    loop.post(ignore, 1, [2])
    os.kill(os.getpid(), 10)
    finish(loop)
    for watcher in list(loop.watchers.values()):
        watcher.destroy()
    loop.run_once(0)


def raise_in_callbacks(loop, pipe):
    def fail(*_):
        raise ValueError(object())

    def leave(*_):
        raise KeyboardInterrupt

    loop.on_error = ignore
    for method in (loop.defer, loop.post):
        method(fail)
    loop.timer(0, fail)
    loop.timer(0, leave)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    finish(loop)
    for watcher in list(loop.watchers.values()):
        watcher.destroy()


def refuse(loop, pipe):
    for call in (
        lambda: loop.io(-1, "r", ignore),
        lambda: loop.io(99999, "r", ignore),
        lambda: loop.io(pipe.r, "x", ignore),
        lambda: loop.io(object(), "r", ignore),
        lambda: loop.timer(float("nan"), ignore),
        lambda: loop.timer("1", ignore),
        lambda: loop.signal("KILL", ignore),
        lambda: loop.signal(object(), ignore),
        lambda: loop.timer(1, 5),
        lambda: loop.timer(1, ignore, priority=9),
        lambda: loop.defer(None),
        lambda: Loop(entries=0),
        lambda: loop.run(-1),
        lambda: setattr(loop, "on_error", 5),
    ):
        with pytest.raises((TypeError, ValueError, OSError)):
            call()


def cycles(loop, pipe):
    watcher = loop.timer(3600, ignore)
    watcher.data = watcher
    watcher.callback = lambda *_: watcher
    watcher.destroy()


def dropped(loop, pipe):
    with pytest.warns(ResourceWarning):
        other = Loop()
        watchers_of_each_kind(other, pipe)
        other.run_once(0)
        del other
        gc.collect()


ACTIONS = [
    make_and_close,
    make_run_and_close,
    make_and_destroy_watchers,
    start_and_stop_watchers,
    setters,
    look,
    call_back,
    raise_in_callbacks,
    refuse,
    cycles,
    dropped,
]


@pytest.mark.parametrize("action", ACTIONS)
def test_blocks_do_not_grow(loop, pipe, action):
    """Ten times the same leaves the interpreter with as many blocks of memory as before."""

    def ten_times():
        for _ in range(10):
            action(loop, pipe)

    assert blocks_grown(ten_times) < 10


# --- the resident set ------------------------------------------------------------------------------------------------


def resident():
    """This process's resident memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def expect_level(work, rounds=8, most=256 * 1024):
    """Call work() again and again; after the first few rounds the resident set no longer grows."""
    if _fault.IS_SANITIZED:
        pytest.skip("the sanitizer keeps what was freed")
    for _ in range(3):
        work()
    sizes = []
    for _ in range(rounds):
        work()
        sizes.append(resident())
    assert min(sizes[-3:]) - sizes[0] < most, sizes


def test_resident_set_under_events(loop, pipe):
    count = scaled(20_000)

    def work():
        left = [count]

        def readable(watcher, events):
            left[0] -= 1
            if not left[0]:
                loop.stop()

        watcher = loop.io(pipe.r, "r", readable)
        pipe.put()
        loop.run()
        watcher.destroy()
        pipe.take()

    expect_level(work)


@pytest.mark.parametrize("method", ["defer", "post"])
def test_resident_set_under_deferred_calls(loop, method):
    count = scaled(50_000)
    call = getattr(loop, method)

    def work():
        for _ in range(5):
            for _ in range(count // 5):
                call(ignore, None)
            loop.run()

    expect_level(work)


def test_resident_set_under_timers(loop):
    count = scaled(20_000)

    def work():
        for number in range(count):
            watcher = loop.timer(number % 7 * 0.00001, ignore)
            if number % 2:
                watcher.destroy()
        loop.run(BOUND)
        for watcher in list(loop.watchers.values()):
            watcher.destroy()

    expect_level(work)


def test_resident_set_under_watchers_that_come_and_go(loop, pipe):
    count = scaled(3000)

    def work():
        for number in range(count):
            watcher = loop.io(pipe.r, "rw" if number % 2 else "r", ignore)
            if number % 50 == 0:
                loop.run_once(0)
            watcher.destroy()
        loop.run_once(0)
        loop.run_once(0)

    expect_level(work)


def test_resident_set_under_loops_that_come_and_go():
    def work():
        for _ in range(scaled(50)):
            with made_loop() as loop, pipes(1) as [pipe]:
                watchers_of_each_kind(loop, pipe)
                loop.run_once(0)
                loop.close()

    expect_level(work)
