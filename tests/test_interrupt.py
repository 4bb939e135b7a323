"""Signals that interrupt the loop: storms of EINTR, Ctrl-C at every moment, exceptions that leave ``run``."""

import contextlib
import os
import random
import signal
import threading
import time

import _fault
import pytest
from _fault import BOUND, unexpected
from _signals import handled
from _support import finish, made_loop, pipes, run_until, scaled


class Left(BaseException):
    """An exception that is no ``Exception``, so it leaves ``run``."""


@contextlib.contextmanager
def storm(interval=0.001):
    """SIGALRM every *interval* seconds, taken by a Python handler; yields the list of the times it ran."""
    ticks = []
    with handled(signal.SIGALRM, lambda *_: ticks.append(time.monotonic())):
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        try:
            yield ticks
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture
def silent(loop, pipe):
    """A watcher that keeps the loop running and never calls: of a pipe in which nothing is written."""
    return loop.io(pipe.r, "r", unexpected)


def expect_usable(loop):
    """The loop runs a timer, a deferred callback and a posted one, as if nothing had happened."""
    seen = []
    loop.defer(seen.append, "deferred")
    loop.post(seen.append, "posted")
    loop.timer(0.001, lambda watcher: (seen.append("timer"), loop.stop()))
    loop.run(timeout=BOUND)
    assert seen == ["deferred", "posted", "timer"]


# --- storms ----------------------------------------------------------------------------------------------------------


def test_storm_does_not_shorten_run(loop, silent):
    with storm() as ticks:
        start = time.monotonic()
        loop.run(timeout=0.25)
        elapsed = time.monotonic() - start
    assert elapsed >= 0.25
    assert len(ticks) >= 20


def test_storm_does_not_shorten_run_once(loop, silent):
    with storm() as ticks:
        start = time.monotonic()
        assert loop.run_once(timeout=0.2) == 0
        elapsed = time.monotonic() - start
    assert elapsed >= 0.2
    assert len(ticks) >= 20


def test_storm_does_not_make_timers_early_or_late(loop):
    delays = [0.001, 0.02, 0.05, 0.1, 0.2]
    fired = []
    with storm():
        for delay in delays:
            due = time.monotonic() + delay
            loop.timer(delay, lambda watcher, due=due: fired.append(time.monotonic() - due))
        loop.run(timeout=BOUND)
    assert len(fired) == len(delays)
    assert min(fired) >= 0


def test_storm_loses_no_input(loop, pipe):
    count = scaled(3000, least=1000)
    received = []

    def readable(watcher, events):
        received.append(os.read(pipe.r, 1))
        if len(received) == count:
            loop.stop()
        else:
            pipe.put()

    loop.io(pipe.r, "r", readable)
    pipe.put()
    with storm(0.0002) as ticks:
        loop.run(timeout=BOUND)
    assert len(received) == count
    assert ticks


def test_handlers_run_while_the_loop_sleeps(loop, silent):
    """A Python handler runs at once, not when the loop next wakes for a reason of its own."""
    ran = []
    with handled(signal.SIGUSR1, lambda *_: ran.append(time.monotonic())):
        with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            loop.run_once(timeout=1)
        returned = time.monotonic()
    assert len(ran) == 1
    assert returned - ran[0] > 0.5


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def to_process():
    os.kill(os.getpid(), signal.SIGINT)


def to_main_thread():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def to_this_thread():
    """From a thread other than the loop's: the C handler runs there, and the loop's wait is not interrupted by it."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


@pytest.mark.parametrize("send", [to_process, to_main_thread, to_this_thread])
@pytest.mark.parametrize("method", ["run", "run_once"])
@pytest.mark.parametrize("timer", [False, True])
def test_interrupt_while_asleep(loop, silent, send, method, timer):
    if timer:
        loop.timer(BOUND / 2, unexpected)
    with _fault.WhenAsleep(send), pytest.raises(KeyboardInterrupt):
        getattr(loop, method)(timeout=BOUND)
    assert not loop.is_running()
    assert silent.is_active()
    expect_usable(loop)


def test_interrupts_one_after_the_other(loop, silent):
    for _ in range(30):
        with _fault.WhenAsleep(to_this_thread), pytest.raises(KeyboardInterrupt):
            loop.run(timeout=BOUND)
    expect_usable(loop)


@pytest.mark.parametrize("busy", ["asleep", "timers", "deferred", "idle"])
def test_interrupt_at_any_moment(loop, silent, busy):
    """A signal that arrives between the last check and the wait must not be slept over."""
    seed = random.randrange(2**32)
    print("seed", seed)
    delays = random.Random(seed)

    def interrupt(*_):
        raise Left

    if busy == "timers":
        loop.periodic(0.0001, lambda watcher: None)
    elif busy == "deferred":

        def again():
            loop.defer(again)

        loop.defer(again)
    elif busy == "idle":
        loop.idle(lambda watcher: None)
    with handled(signal.SIGALRM, interrupt):
        for _ in range(150):
            with pytest.raises(Left):
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(0.000001, 0.0003))
                loop.run(timeout=BOUND)
    assert not loop.is_running()
    assert silent.is_active()


def test_interrupt_of_a_spinning_loop(loop):
    """Callbacks that never let the loop sleep do not keep signals out."""

    def again():
        loop.defer(again)

    loop.defer(again)
    with handled(signal.SIGALRM, signal.default_int_handler):
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            loop.run(timeout=BOUND)


def test_interrupt_while_busy_polling(pipe):
    with made_loop(busy_poll=3600) as loop:
        loop.io(pipe.r, "r", unexpected)
        with handled(signal.SIGALRM, signal.default_int_handler):
            started = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                loop.run(timeout=BOUND / 4)
            assert time.monotonic() - started < BOUND / 4


@pytest.mark.parametrize("sender", ["another process", "another thread"])
def test_interrupted_program_ends_as_python_ends(sender):
    process = _fault.start_script(
        """
        import os, signal, sys, threading, _fault
        from linux_event import Loop

        def interrupt():
            _fault.wait_asleep()
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        loop = Loop()
        loop.io(os.pipe()[0], "r", print)
        print("ready", flush=True)
        if sys.argv[1] == "another thread":
            threading.Thread(target=interrupt).start()
        loop.run()
        """,
        sender,
    )
    assert process.stdout.readline() == "ready\n"
    if sender == "another process":
        _fault.wait_asleep(process.pid)
        os.kill(process.pid, signal.SIGINT)
    result = _fault.finish_script(process)
    assert result.returncode == -signal.SIGINT
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


# --- exceptions that leave run ---------------------------------------------------------------------------------------


def start_deferred(loop, callback):
    loop.defer(callback)


def start_posted(loop, callback):
    loop.post(callback)


def start_timer(loop, callback):
    loop.timer(0, callback)


def start_periodic(loop, callback):
    loop.periodic(0.001, callback)


def start_idle(loop, callback):
    loop.idle(callback)


def start_io(loop, callback):
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    os.close(write_end)

    def readable(watcher, events):
        watcher.stop()
        os.close(watcher.fd)
        callback()

    loop.io(read_end, "r", readable)


def start_signal(loop, callback):
    loop.signal(signal.SIGUSR1, callback)
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit, Left])
@pytest.mark.parametrize(
    "start", [start_deferred, start_posted, start_timer, start_periodic, start_idle, start_io, start_signal]
)
def test_callback_raises_what_leaves_run(loop, start, exception):
    raised = exception("from the callback")

    def callback(*_):
        raise raised

    loop.on_error = lambda source, error: pytest.fail(f"{error!r} went to on_error")
    start(loop, callback)
    with pytest.raises(exception) as caught:
        loop.run(timeout=BOUND)
    assert caught.value is raised
    assert not loop.is_running()
    for watcher in list(loop.watchers.values()):
        watcher.destroy()
    expect_usable(loop)


@pytest.mark.parametrize("method", ["run", "run_once"])
def test_rest_of_the_batch_is_called_by_the_next_run(loop, method):
    """What was collected together with the callback that raised is neither lost nor repeated."""
    called = []

    def fired(watcher):
        called.append(watcher.data)
        if watcher.data == 2:
            raise KeyboardInterrupt

    for number in range(5):
        loop.timer(0, fired, data=number)
    with pytest.raises(KeyboardInterrupt):
        getattr(loop, method)(timeout=BOUND)
    assert called == [0, 1, 2]
    loop.run(timeout=BOUND)
    assert called == [0, 1, 2, 3, 4]


def test_edges_of_the_batch_are_called_by_the_next_run(loop):
    """The same for edge-triggered input, which the kernel does not tell again."""
    called = []

    def readable(watcher, events):
        called.append(watcher.data)
        if len(called) == 3:
            raise KeyboardInterrupt

    with pipes(6) as ends:
        for number, pipe in enumerate(ends):
            loop.io(pipe.r, "r", readable, edge=True, data=number)
        loop.run_once(timeout=0)
        for pipe in ends:
            pipe.put()
        with pytest.raises(KeyboardInterrupt):
            loop.run(timeout=BOUND)
        assert len(called) == 3
        run_until(loop, lambda: len(called) >= len(ends))
        assert sorted(called) == list(range(len(ends)))
        assert loop.run_once(timeout=0) == 0
        loop.close()


def test_rest_of_the_deferred_callbacks_is_called_by_the_next_run(loop):
    called = []

    def callback(number):
        called.append(number)
        if number == 2:
            raise SystemExit

    for number in range(5):
        loop.defer(callback, number)
    with pytest.raises(SystemExit):
        loop.run(timeout=BOUND)
    loop.run(timeout=BOUND)
    assert called == [0, 1, 2, 3, 4]


def test_a_stopped_watcher_of_an_interrupted_batch_is_not_called(loop):
    called = []

    def fired(watcher):
        called.append(watcher.data)
        raise KeyboardInterrupt

    timers = [loop.timer(0, fired, data=number) for number in range(3)]
    with pytest.raises(KeyboardInterrupt):
        loop.run(timeout=BOUND)
    timers[1].stop()
    timers[2].destroy()
    loop.run(timeout=BOUND)
    assert called == [0]


def test_close_after_an_interrupted_batch(loop):
    called = []

    def fired(watcher):
        called.append(watcher.data)
        raise KeyboardInterrupt

    for number in range(3):
        loop.timer(0, fired, data=number)
    with pytest.raises(KeyboardInterrupt):
        loop.run(timeout=BOUND)
    loop.close()
    assert called == [0]


def test_python_handler_that_raises_leaves_run(loop, silent):
    def handler(signum, frame):
        raise ValueError("from the handler")

    with (
        handled(signal.SIGUSR1, handler),
        _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
        pytest.raises(ValueError, match="from the handler"),
    ):
        loop.run(timeout=BOUND)
    expect_usable(loop)


# --- Python handlers that talk to the loop ---------------------------------------------------------------------------


def test_stop_threadsafe_in_a_handler(loop, silent):
    with (
        handled(signal.SIGUSR1, lambda *_: loop.stop_threadsafe()),
        _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
    ):
        loop.run(timeout=BOUND)
    assert silent.is_active()
    expect_usable(loop)


def test_stop_threadsafe_in_a_handler_that_another_thread_triggers(loop, silent):
    with (
        handled(signal.SIGUSR1, lambda *_: loop.stop_threadsafe()),
        _fault.WhenAsleep(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)),
    ):
        loop.run(timeout=BOUND)


def test_stop_and_defer_in_a_handler(loop, silent):
    """A handler runs in the loop's own thread, so it may use every method."""
    called = []

    def handler(signum, frame):
        loop.defer(lambda: (called.append("deferred"), loop.stop()))
        loop.timer(0, lambda watcher: called.append("timer"))

    with (
        handled(signal.SIGUSR1, handler),
        _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
    ):
        loop.run(timeout=BOUND)
    assert sorted(called) == ["deferred", "timer"]


def test_post_in_a_handler_during_a_storm(loop):
    """Handlers post while the loop itself takes from the queue of posted callbacks."""
    count = scaled(400)
    posted, called = [], []

    def handler(signum, frame):
        if len(posted) < count:
            posted.append(len(posted))
            loop.post(called.append, posted[-1])

    loop.periodic(0.0001, lambda watcher: None)
    with handled(signal.SIGALRM, handler):
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            run_until(loop, lambda: len(called) == count)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert called == list(range(count))


# --- the wakeup fd of the user ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def wakeup_fd(fd):
    """Have *fd* (-1: none) as Python's wakeup fd in this block; it must still be the one at the end."""
    previous = signal.set_wakeup_fd(fd)
    try:
        yield
        assert signal.set_wakeup_fd(fd) == fd
    finally:
        signal.set_wakeup_fd(previous)


def test_wakeup_fd_of_the_user(loop, silent):
    """It gets its bytes while the loop sleeps, and is still set afterwards."""
    with pipes(1) as [own], wakeup_fd(own.w), handled(signal.SIGUSR1, lambda *_: None):
        with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            loop.run(timeout=0.2)
        assert own.take() == bytes([signal.SIGUSR1])
        signal.raise_signal(signal.SIGUSR1)
        assert own.take() == bytes([signal.SIGUSR1])


def test_no_wakeup_fd_is_left_behind(loop, silent):
    with wakeup_fd(-1):
        loop.run(timeout=0.01)
    with wakeup_fd(-1), _fault.WhenAsleep(to_this_thread), pytest.raises(KeyboardInterrupt):
        loop.run(timeout=BOUND)
    with wakeup_fd(-1):
        loop.close()


def test_wakeup_fd_set_in_a_callback_stays(loop, pipe):
    with wakeup_fd(-1):
        loop.defer(signal.set_wakeup_fd, pipe.w)
        loop.timer(0.01, lambda watcher: None)
        finish(loop)
        assert signal.set_wakeup_fd(-1) == pipe.w


def test_wakeup_fd_set_after_a_sleep_stays(loop, pipe, silent):
    """Asleep, the loop has its own pipe in that place: what a callback puts there instead is not replaced at the end."""
    with wakeup_fd(-1):
        loop.timer(0.01, lambda watcher: (signal.set_wakeup_fd(pipe.w), loop.stop()))
        loop.run(timeout=BOUND)
        assert signal.set_wakeup_fd(-1) == pipe.w


def test_wakeup_fd_of_the_user_closed_meanwhile(loop, silent):
    """It cannot be put back: there is none at the end, and nobody writes into an fd that has its number."""
    with pipes(1) as [own]:
        signal.set_wakeup_fd(own.w)
        loop.timer(0.01, lambda watcher: (own.close_write(), loop.stop()))
        loop.run(timeout=BOUND)
        assert signal.set_wakeup_fd(-1) == -1


def test_wakeup_fd_of_the_user_that_is_full(loop, silent):
    """Its owner has something to wake up for already: the byte is dropped, the handler runs."""
    seen = []
    with pipes(1) as [own], handled(signal.SIGUSR1, lambda *_: (seen.append(1), loop.stop_threadsafe())):
        own.fill()
        signal.set_wakeup_fd(own.w, warn_on_full_buffer=False)
        try:
            with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
                loop.run(timeout=BOUND)
            assert seen == [1]
        finally:
            assert signal.set_wakeup_fd(-1) == own.w
