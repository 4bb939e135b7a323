"""post and stop_threadsafe: what any thread may call, while the loop sleeps, runs or closes."""

import threading
import weakref

import _fault
import pytest
from _fault import BOUND, in_thread, unexpected
from _support import close_checked, finish, run_until, scaled

from linux_event import Loop, LoopClosedError


def ignore(*_):
    pass


# --- post ------------------------------------------------------------------------------------------------------------


def test_post_wakes_a_sleeping_loop(loop, pipe):
    called = []
    loop.io(pipe.r, "r", unexpected)
    with _fault.WhenAsleep(lambda: loop.post(lambda *arguments: (called.append(arguments), loop.stop()), 1, "two")):
        loop.run(timeout=BOUND)
    assert called == [(1, "two")]


def test_post_wakes_run_once(loop, pipe):
    loop.io(pipe.r, "r", unexpected)
    called = []
    with _fault.WhenAsleep(lambda: loop.post(called.append, 1)):
        run_until(loop, lambda: called)


@pytest.mark.parametrize("asleep", [True, False])
def test_post_storm_from_eight_threads(loop, asleep):
    """None is lost, none comes twice, and each thread's own come in order."""
    threads, count = 8, scaled(3000)
    received = [[] for _ in range(threads)]
    barrier = threading.Barrier(threads)
    total = 0

    def called(number, value):
        nonlocal total
        received[number].append(value)
        total += 1
        if total == threads * count:
            loop.stop()

    def body(number):
        barrier.wait(BOUND)
        for value in range(count):
            loop.post(called, number, value)

    bodies = [threading.Thread(target=body, args=(number,)) for number in range(threads)]
    keep = loop.timer(BOUND, unexpected) if asleep else loop.idle(ignore)
    for thread in bodies:
        thread.start()
    loop.run(timeout=BOUND)
    for thread in bodies:
        thread.join(BOUND)
    assert received == [list(range(count))] * threads
    keep.destroy()
    finish(loop)
    assert total == threads * count


def test_each_post_is_called_though_the_loop_falls_asleep_between(loop, pipe):
    """One at a time, each into a loop that has just gone to sleep: no wake-up is lost."""
    count = scaled(300)
    loop.io(pipe.r, "r", unexpected)
    arrived = threading.Semaphore(0)
    late = []

    def body():
        for _ in range(count):
            loop.post(arrived.release)
            if not arrived.acquire(timeout=BOUND):
                late.append(True)
                break
        loop.stop_threadsafe()

    thread = threading.Thread(target=body)
    thread.start()
    loop.run(timeout=BOUND * 2)
    thread.join(BOUND)
    assert not late


def test_posts_before_the_first_run_keep_their_order(loop):
    called = []
    in_thread(lambda: [loop.post(called.append, number) for number in range(10)])
    loop.post(called.append, 10)
    finish(loop)
    assert called == list(range(11))


def test_post_keeps_run_going(loop):
    called = []
    loop.post(called.append, 1)
    loop.run()
    assert called == [1]


def test_a_posted_callback_that_posts(loop):
    """It runs one iteration later, as with defer."""
    called = []

    def again(left):
        called.append(left)
        if left:
            loop.post(again, left - 1)

    loop.post(again, 3)
    counts = []
    while len(called) < 4:
        counts.append(loop.run_once(BOUND))
    assert called == [3, 2, 1, 0]
    assert counts == [1, 1, 1, 1]


def test_post_that_raises_goes_to_on_error(loop):
    errors = []
    loop.on_error = lambda source, error: errors.append((source, error))

    def fail():
        raise ValueError("posted")

    in_thread(loop.post, fail)
    finish(loop)
    [(source, error)] = errors
    assert source is fail
    assert str(error) == "posted"


def test_post_refuses_what_cannot_be_called(loop):
    def post():
        for callback in (None, 1, "text"):
            with pytest.raises(TypeError):
                loop.post(callback)
        with pytest.raises(TypeError):
            loop.post()

    in_thread(post)
    post()
    assert loop.statistics().deferred == 0


def test_post_after_close():
    loop = Loop()
    loop.close()
    for method in (lambda: loop.post(ignore), loop.stop_threadsafe):
        with pytest.raises(LoopClosedError):
            method()
        with pytest.raises(LoopClosedError):
            in_thread(method)


def test_post_while_the_loop_closes():
    """Threads that post and stop while the owner closes get LoopClosedError, never another fd's wake-up or a crash."""
    for _ in range(scaled(30)):
        loop = Loop()
        started = threading.Barrier(4)
        wrong = []

        def body(loop=loop, started=started, wrong=wrong):
            started.wait(BOUND)
            try:
                while True:
                    loop.post(ignore)
                    loop.stop_threadsafe()
            except LoopClosedError:
                pass
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=body) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait(BOUND)
        loop.run_once(0)
        close_checked(loop)
        for thread in threads:
            thread.join(BOUND)
            assert not thread.is_alive()
        assert not wrong


def test_what_was_posted_is_dropped_by_close():
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    loop = Loop()
    in_thread(loop.post, unexpected, argument)
    del argument
    assert gone() is not None
    close_checked(loop)
    assert gone() is None


def test_objects_posted_are_released_in_the_loop(loop):
    """The thread that posted keeps nothing: the reference moves with the call."""

    class Argument:
        pass

    references = []

    def body():
        for _ in range(100):
            argument = Argument()
            references.append(weakref.ref(argument))
            loop.post(ignore, argument)

    in_thread(body)
    assert all(reference() is not None for reference in references)
    finish(loop)
    assert all(reference() is None for reference in references)


# --- stop_threadsafe -------------------------------------------------------------------------------------------------


def test_stop_threadsafe_wakes_a_sleeping_loop(loop, pipe):
    watcher = loop.io(pipe.r, "r", unexpected)
    for _ in range(20):
        with _fault.WhenAsleep(loop.stop_threadsafe):
            loop.run()
    assert watcher.is_active()


def test_stop_threadsafe_storm(loop, pipe):
    """However often it is asked to, the loop stops, and can run again."""
    loop.io(pipe.r, "r", unexpected)
    done = threading.Event()

    def body():
        while not done.is_set():
            loop.stop_threadsafe()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(scaled(30)):
        loop.run()
    done.set()
    for thread in threads:
        thread.join(BOUND)
    loop.run(0)
    called = []
    loop.timer(0.001, lambda watcher: (called.append(1), loop.stop()))
    loop.run(timeout=BOUND)
    assert called == [1]


def test_stop_threadsafe_in_its_own_callback(loop, pipe):
    loop.io(pipe.r, "r", unexpected)
    loop.defer(loop.stop_threadsafe)
    loop.run(timeout=BOUND)
