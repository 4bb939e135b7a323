"""Fork in every direction: in the child the parent's loop is dead, and the parent never notices what the child does."""

import gc
import os
import select
import signal
import socket
import threading
import time

import _fault
import pytest
from _fault import BOUND, in_fork, start_fork
from _support import finish, made_loop, open_fds, rings, run_until, scaled
from _traffic import Traffic, error_of, make_a_loop

from linux_event import Child, Idle, IOWatcher, Loop, LoopClosedError, MountWatcher, Periodic, Signal, Timer, Wakeup

# Python 3.12 warns of every fork of a process with threads, which is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


# gcc's sanitizer does not take its allocator's locks at a fork, so a child of a process with other threads may find them held.
with_threads = pytest.mark.skipif(_fault.IS_SANITIZED, reason="fork with threads under a sanitizer")


def ignore(*_):
    pass


@pytest.fixture
def traffic(loop):
    traffic = Traffic(loop)
    yield traffic
    traffic.close()


# --- the parent's loop in the child ----------------------------------------------------------------------------------

DEAD = {
    "run": lambda loop: loop.run(0),
    "run_once": lambda loop: loop.run_once(0),
    "stop": lambda loop: loop.stop(),
    "stop_threadsafe": lambda loop: loop.stop_threadsafe(),
    "defer": lambda loop: loop.defer(ignore),
    "post": lambda loop: loop.post(ignore),
    "fileno": lambda loop: loop.fileno(),
    "io": lambda loop: loop.io(0, "r", ignore),
    "timer": lambda loop: loop.timer(1, ignore),
    "periodic": lambda loop: loop.periodic(1, ignore),
    "signal": lambda loop: loop.signal("USR1", ignore),
    "idle": lambda loop: loop.idle(ignore),
    "child": lambda loop: loop.child(1, ignore),
    "fswatch": lambda loop: loop.fswatch("/", "all", ignore),
    "watch": lambda loop: loop.watch("/", "all", ignore),
    "decorator": lambda loop: loop.idle()(ignore),
    "IOWatcher": lambda loop: IOWatcher(loop, 0, "r", ignore),
    "Timer": lambda loop: Timer(loop, 1, ignore),
    "Periodic": lambda loop: Periodic(loop, 1, ignore),
    "Signal": lambda loop: Signal(loop, "USR1", ignore),
    "wakeup": lambda loop: loop.wakeup(ignore),
    "Wakeup": lambda loop: Wakeup(loop, ignore),
    "Idle": lambda loop: Idle(loop, ignore),
    "Child": lambda loop: Child(loop, 1, ignore),
    "MountWatcher": lambda loop: MountWatcher(loop, "/", "all", ignore),
}


@pytest.mark.parametrize("when", ["before run", "after run"])
def test_methods_in_the_child(when):
    with made_loop() as loop:
        loop.timer(3600, ignore)
        if when == "after run":
            loop.run_once(0)
        errors = in_fork(lambda: {name: error_of(call, loop) for name, call in DEAD.items()})
        for name, (kind, text) in errors.items():
            assert kind == "RuntimeError", name
            assert "fork" in text, name


def test_methods_of_a_closed_loop_in_the_child():
    """Closed stays closed."""
    loop = Loop()
    loop.close()
    kind, _ = in_fork(lambda: error_of(loop.run))
    assert kind in (LoopClosedError.__name__, "RuntimeError")
    in_fork(loop.close)


def test_watchers_in_the_child(traffic):
    def child():
        for watcher in traffic.loop.watchers.values():
            for call in (watcher.start, watcher.__enter__):
                kind, text = error_of(call)
                assert kind == "RuntimeError"
                assert "fork" in text

    in_fork(child)
    traffic.expect()


def test_what_the_child_may_still_do(traffic):
    """Look at the objects, close and destroy them: without effect and without error."""

    def child():
        loop = traffic.loop
        for watcher in loop.watchers.values():
            assert repr(watcher)
            assert watcher.callback is not None
            watcher.data = "changed"
            watcher.stop()
            watcher.destroy()
            assert watcher.is_destroyed()
            watcher.destroy()
        assert repr(loop)
        assert loop.time() > 0
        assert not loop.is_running()
        loop.close()
        loop.close()

    in_fork(child)
    traffic.expect()


def anonymous(fds):
    """Of fds those that are no files, pipes or sockets: rings, eventfds and the like."""
    return sorted(target for target in fds.values() if target.startswith("anon_inode"))


@pytest.mark.parametrize("arguments", [{}, {"sqpoll": True}, {"entries": 8}])
def test_no_fd_of_the_loop_is_open_in_the_child(arguments):
    before = open_fds()
    with made_loop(**arguments) as loop:
        loop.signal("USR1", ignore)
        loop.run_once(0)
        inherited = in_fork(open_fds)
        assert rings(inherited) == []
        assert anonymous(inherited) == anonymous(before)


def test_an_fd_that_took_the_number_of_the_ring_is_left_alone():
    """Closing the dead loop in the child must not close what has been opened since under the same numbers."""
    with made_loop() as loop:
        loop.timer(3600, ignore)
        loop.run_once(0)

        def child():
            opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
            loop.close()
            for fd in opened:
                os.fstat(fd)

        in_fork(child)


# --- what children do to themselves, and the parent goes on ----------------------------------------------------------


def child_does_nothing(loop):
    pass


def child_uses(loop):
    for call in DEAD.values():
        # Where the child has closed it, it is closed as well as dead.
        assert error_of(call, loop)[0] in ("RuntimeError", "LoopClosedError")


def child_closes(loop):
    loop.close()


def child_destroys_watchers(loop):
    for watcher in loop.watchers.values():
        watcher.destroy()


def child_collects(loop):
    """Nothing but the cycle of the loop with its watchers is left of it."""
    for referrer in gc.get_objects():
        if type(referrer) is Traffic:
            vars(referrer).clear()
    gc.unfreeze()
    gc.collect()


def child_closes_fds(loop):
    os.closerange(3, 1000)


def child_closes_while_its_own_works(loop):
    """The end of the parent's watchers takes no signal away from those of the child's own loop."""
    with made_loop() as own:
        called = []
        own.signal("USR1", lambda watcher, signum: (called.append("signal"), watcher.destroy()))
        loop.close()
        os.kill(os.getpid(), signal.SIGUSR1)
        finish(own)
        assert called == ["signal"]


def child_forks(loop):
    in_fork(lambda: child_uses(loop))
    in_fork(lambda: make_a_loop(loop))
    in_fork(lambda: child_closes(loop))


def child_closes_and_makes_a_loop(loop):
    loop.close()
    make_a_loop(loop)
    child_forks(loop)


CHILDREN = [
    child_does_nothing,
    child_uses,
    child_closes,
    child_destroys_watchers,
    child_collects,
    child_closes_fds,
    make_a_loop,
    child_closes_while_its_own_works,
    child_forks,
    child_closes_and_makes_a_loop,
]


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("where", ["outside", "callback", pytest.param("thread", marks=with_threads)])
def test_parent_goes_on(traffic, child, where):
    loop = traffic.loop

    def fork():
        # child_closes_fds takes the pipe of in_fork away with the rest.
        if child is child_closes_fds:
            assert _fault.wait_child(start_fork(lambda: child(loop))) == 0
        else:
            in_fork(lambda: child(loop))

    if where == "outside":
        fork()
    elif where == "callback":
        done = []
        loop.timer(0, lambda watcher: (fork(), done.append(1)))
        run_until(loop, lambda: done)
    else:
        failed = []

        def body():
            try:
                fork()
            except BaseException as error:
                failed.append(error)
            loop.stop_threadsafe()

        thread = threading.Thread(target=body)
        thread.start()
        loop.run(timeout=BOUND)
        thread.join(BOUND)
        assert not failed
    traffic.expect()


@pytest.mark.parametrize("how", ["_exit", "normally", "exit", "exec", "killed", "exception"])
def test_parent_goes_on_after_the_child_ended(how):
    """The child runs all its finalizers, with the parent's loop and watchers still referenced in it."""
    result = _fault.run_script(
        """
        import os, signal, sys
        import _fault
        from _traffic import Traffic
        from linux_event import Loop

        how = sys.argv[1]
        traffic = Traffic(Loop())
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                if how == "_exit":
                    os._exit(0)
                elif how == "exit":
                    sys.exit(0)
                elif how == "exec":
                    os.execv("/bin/true", ["true"])
                elif how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif how == "exception":
                    raise SystemExit("in the child")
                break
            assert _fault.wait_child(pid) == {"killed": -9, "exception": 1}.get(how, 0)
        else:
            traffic.expect()
            traffic.close()
            print("parent done")
        """,
        how,
    )
    result.check("parent done", None)
    assert result.stderr.split("\n") == ["in the child"] * (3 if how == "exception" else 0) + [""]


def test_parent_goes_on_after_many_forks(traffic):
    """A child for each call of a periodic, all alive at once."""
    children = []

    def child():
        assert error_of(traffic.loop.run)[0] == "RuntimeError"

    def fork(watcher):
        children.append(start_fork(child))

    watcher = traffic.loop.periodic(0.001, fork)
    run_until(traffic.loop, lambda: len(children) >= scaled(40))
    watcher.destroy()
    assert [_fault.wait_child(pid) for pid in children] == [0] * len(children)
    traffic.expect()


def test_deferred_callbacks_of_the_parent_do_not_run_in_the_child(traffic):
    before = len(traffic.ticks)

    def child():
        make_a_loop(traffic.loop)
        assert traffic.calls == []
        assert traffic.received == []
        assert len(traffic.ticks) == before

    in_fork(child)
    traffic.expect()


# --- fork in a callback: the child returns into run ------------------------------------------------------------------


# --- loops in other threads ------------------------------------------------------------------------------------------


@with_threads
def test_fork_while_a_loop_runs_in_another_thread(traffic):
    """The child has one thread, and the loop that ran in another is dead in it like any other."""
    children, alive = [], threading.Event()

    def body():
        with made_loop() as other:
            ticks = []
            other.periodic(0.0005, ticks.append)
            other.post(alive.set)
            holder.append(other)
            other.run()
            other.close()
            children.append(len(ticks))

    holder = []
    thread = threading.Thread(target=body)
    thread.start()
    assert alive.wait(BOUND)
    for child in (child_uses, child_closes, make_a_loop, child_collects):
        in_fork(lambda child=child: child(holder[0]))
    ticks_wanted = threading.Event()
    holder[0].post(ticks_wanted.set)
    assert ticks_wanted.wait(BOUND)
    holder.pop().stop_threadsafe()
    thread.join(BOUND)
    assert children
    traffic.expect()


@with_threads
def test_fork_while_other_threads_post(loop):
    """Whatever lock or half-done state the fork copies, the child can make a loop and end."""
    done = threading.Event()
    posted = [0, 0]

    def body(number):
        while not done.is_set():
            loop.post(ignore)
            posted[number] += 1

    threads = [threading.Thread(target=body, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(scaled(15)):
        loop.run_once(0)
        in_fork(lambda: (make_a_loop(loop), child_uses(loop), child_closes(loop)))
    done.set()
    for thread in threads:
        thread.join(BOUND)
    finish(loop)
    assert min(posted) > 0


def test_a_child_keeps_nothing_of_the_parent_open():
    """What the parent closes is closed for its peer, though a child that was forked meanwhile lives on."""
    ours, theirs = socket.socketpair()
    release_r, release_w = os.pipe()
    ready_r, ready_w = os.pipe()
    loop = Loop()
    loop.io(ours, "r", ignore)
    loop.run_once(0)

    def child():
        ours.close()
        theirs.close()
        os.close(release_w)
        os.write(ready_w, b"x")
        os.read(release_r, 1)

    pid = start_fork(child)
    assert os.read(ready_r, 1) == b"x"
    loop.close()
    ours.close()
    theirs.settimeout(BOUND)
    assert theirs.recv(1) == b""
    os.close(release_w)
    assert _fault.wait_child(pid) == 0
    theirs.close()
    for fd in (release_r, ready_r, ready_w):
        os.close(fd)


def test_a_child_collects_a_loop_that_the_parent_runs_on():
    """The last reference goes away in the child: no warning there, and no effect here."""
    result = _fault.run_script(
        """
        import gc, os, warnings
        import _fault
        from linux_event import Loop

        warnings.simplefilter("error")
        loop = Loop()
        ticks = []
        loop.periodic(0.001, ticks.append)
        loop.run_once()
        pid = os.fork()
        if pid == 0:
            del loop
            gc.collect()
            os._exit(0)
        assert _fault.wait_child(pid) == 0
        count = len(ticks)
        loop.run(timeout=0.05)
        assert len(ticks) > count
        loop.close()
        """,
        options=["-X", "dev"],
    )
    result.check()


def test_signals_of_the_child_do_not_reach_the_parent(traffic):
    """While the child sits in the handler that it inherited, nothing is written that the parent reads."""

    def child():
        for _ in range(10):
            os.kill(os.getpid(), signal.SIGUSR1)

    assert _fault.wait_child(start_fork(child)) in (0, -signal.SIGUSR1)
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline:
        traffic.loop.run_once(0.01)
    assert traffic.signals == []
    traffic.expect()


def test_the_ring_of_the_parent_is_not_polled_through_the_child(loop, pipe):
    """The fd of the ring, kept open by a dup in the child, does not wake it with the parent's completions."""
    loop.io(pipe.r, "r", lambda watcher, events: pipe.take() and loop.stop())
    loop.run_once(0)

    def child():
        assert error_of(loop.fileno)[0] == "RuntimeError"
        pipe.put()
        return select.select([], [], [], 0)

    in_fork(child)
    loop.run(timeout=BOUND)
