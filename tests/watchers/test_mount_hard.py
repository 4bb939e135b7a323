"""MountWatcher in hard cases: fds that nobody takes, limits, forks, threads, ends in the middle of it all."""

import errno
import gc
import os
import random
import threading
import time
import warnings

import pytest
from _fault import in_fork, in_thread, run_script, short_of_fds, start_fork, unexpected, wait_child, wait_until
from _mounts import MNT_DETACH, Told, mount, mounted, privileged, run, take, touch, unmount
from _support import blocks_grown, finish, made_loop, open_fds, run_until, scaled

from linux_event import Loop
from linux_event.watchers import mount as mount_module

# Python 3.12 warns of every fork of a process with threads.
pytestmark = [privileged, pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")]


@pytest.fixture
def told(folder, loop):
    """Notes who has closed a file of the folder after writing."""
    told = Told()
    told.watcher = loop.fswatch(folder, ["close_write"], told)
    loop.run(0.001)  # the loop has all its own fds by now
    return told


@pytest.fixture(params=["FD_ERROR", "older"])
def errors(request):
    """With records of files that could not be opened, or as kernels before 6.13 do it, which fail the read."""
    if request.param == "older":
        mount_module.pretend("FD_ERROR")
    yield request.param
    mount_module.pretend()


def event_fds(folder):
    """The fds of this process that are files of the folder."""
    return [path for path in open_fds().values() if path.startswith(folder)]


# --- fds that nobody takes -------------------------------------------------------------------------------------------

COUNT = 64 + 30  # more than one read brings


@pytest.mark.parametrize("method", ["stop", "destroy"])
@pytest.mark.parametrize("when", [1, 64, 65, COUNT])
def test_a_callback_that_ends_its_watcher(loop, told, folder, method, when):
    def end(watcher, event):
        told(watcher, event)
        if len(told) == when:
            getattr(watcher, method)()
            assert event_fds(folder) == []

    told.watcher.callback = end
    paths = touch(folder, COUNT)
    take(loop)
    assert told.paths == paths[:when]
    assert event_fds(folder) == []
    assert not told.watcher.is_active()


@pytest.mark.parametrize("end", ["stop", "destroy", "close", "drop"])
@pytest.mark.parametrize("max_events", [1, 7, 64])
def test_what_was_read_and_not_told(folder, end, max_events):
    before = open_fds()
    loop = Loop(max_events=max_events)
    told = Told()
    watcher = loop.fswatch(folder, ["close_write"], told)
    touch(folder, COUNT)
    loop.run_once(0)
    assert len(told) == max_events
    assert len(event_fds(folder)) == 64 - max_events
    if end in ("stop", "destroy"):
        getattr(watcher, end)()
        assert event_fds(folder) == []
        take(loop)
        assert len(told) == max_events
        loop.close()
    elif end == "close":
        loop.close()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del watcher, loop
            gc.collect()
    assert open_fds() == before


def test_all_are_told_in_order_one_for_each_call(loop, told, folder):
    paths = touch(folder, scaled(2000, 200))
    assert loop.run_once(0) == 64
    run_until(loop, lambda: len(told) == len(paths))
    assert told.paths == paths
    assert event_fds(folder) == []


def test_events_of_others_while_it_is_told(loop, told, folder):
    paths = touch(folder, 50)

    def more(watcher, event):
        told(watcher, event)
        if len(told) <= 200:
            paths.extend(touch(folder, 1, first=1000 + len(told)))

    told.watcher.callback = more
    take(loop)
    assert told.paths == paths


def test_priorities(loop, folder):
    order = []
    for priority in (-1, 2, 0):
        loop.fswatch(folder, ["close_write"], lambda watcher, event: order.append(watcher.priority), priority=priority)
    touch(folder, 3)
    take(loop)
    assert order == [2, 2, 2, 0, 0, 0, -1, -1, -1]


def test_deferred_calls_get_their_turn(folder):
    with made_loop(max_events=5) as loop:
        told, seen = Told(), []
        watcher = loop.fswatch(folder, ["close_write"], told)
        touch(folder, 40)
        loop.run_once(0)
        loop.defer(lambda: seen.append(len(told)))
        loop.run_once(0)
        take(loop)
        assert seen == [5]
        assert len(told) == 40
        watcher.destroy()


def test_callbacks_that_raise(loop, told, folder):
    seen = []

    def fail(watcher, event):
        told(watcher, event)
        raise KeyError(len(told))

    loop.on_error = lambda source, error: seen.append((source, error.args))
    told.watcher.callback = fail
    paths = touch(folder, COUNT)
    take(loop)
    assert told.paths == paths
    assert seen == [(told.watcher, (number + 1,)) for number in range(COUNT)]


def test_interrupts(loop, told, folder):
    def interrupt(watcher, event):
        told(watcher, event)
        if len(told) in (1, 64, COUNT):
            raise KeyboardInterrupt

    told.watcher.callback = interrupt
    paths = touch(folder, COUNT)
    for number in (1, 64, COUNT):
        with pytest.raises(KeyboardInterrupt):
            loop.run(1)
        assert told.paths == paths[:number]
    assert event_fds(folder) == []


def test_stopped_while_events_arrive(loop, folder):
    """The read is cancelled and succeeds, in any order: what it brings is closed."""
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed).choice
    told = Told()
    watcher = loop.fswatch(folder, ["close_write"], told)
    for number in range(scaled(300, 60)):
        step = choice(["touch", "touch", "stop", "start", "run", "restart"])
        if step == "touch":
            touch(folder, choice([1, 3, 70]), first=number)
        elif step == "run":
            loop.run_once(0)
        elif step == "restart":
            watcher.stop().start()
        else:
            getattr(watcher, step)()
    watcher.stop()
    assert event_fds(folder) == []
    watcher.start()
    told.clear()
    [path] = touch(folder, 1, first=10**6)
    take(loop)
    assert told.paths == [path]


def test_stopped_from_callbacks_while_events_arrive(loop, folder):
    """In a running loop the cancellation goes with the next system call."""
    told = Told()
    watcher = loop.fswatch(folder, ["close_write"], told, ref=False)
    numbers = iter(range(10**6))

    def act(timer):
        touch(folder, 2, first=next(numbers))
        watcher.stop()
        if timer.data % 3:
            watcher.start()
        touch(folder, 2, first=next(numbers))
        if timer.data % 2:
            watcher.stop().start()
        timer.data -= 1
        if timer.data:
            timer.start()

    loop.timer(0, act, data=scaled(60, 20))
    finish(loop)
    watcher.stop()
    assert event_fds(folder) == []


# --- limits ----------------------------------------------------------------------------------------------------------


def test_events_whose_file_cannot_be_opened(loop, told, folder, errors):
    seen = []
    loop.on_error = lambda source, error: seen.append((source, error))
    told.watcher.stop().start()  # with what the kernel can do now
    paths = touch(folder, 20)
    # Older kernels say nothing of the one after the last for which there is an fd.
    with short_of_fds(5 if errors == "FD_ERROR" else 0):
        run_until(loop, lambda: seen)
        if errors == "FD_ERROR":
            assert (len(told), len(seen)) == (5, 15)
    run_until(loop, lambda: len(told) + len(seen) == 20)
    paths += touch(folder, 1, first=100)
    run_until(loop, lambda: told.paths[-1] == paths[-1])
    assert told.paths == [path for path in paths if path in told.paths]
    for source, error in seen:
        assert source is told.watcher
        assert error.errno == errno.EMFILE
        assert error.filename == folder
        assert "is lost" in str(error)
    if errors == "FD_ERROR":
        assert f"process {os.getpid()} (close_write)" in str(seen[0][1])


def test_no_spinning_while_fds_are_short(loop, told, folder, errors):
    seen = []
    loop.on_error = lambda source, error: seen.append(error.errno)
    told.watcher.stop().start()
    touch(folder, 200)
    with short_of_fds(0):
        before = loop.statistics().iterations
        loop.run(0.3)
        assert loop.statistics().iterations - before < 60
        assert seen
        assert set(seen) == {errno.EMFILE}
        lost = len(seen)
    assert lost < 10 or errors == "FD_ERROR"
    run_until(loop, lambda: len(told) + len(seen) == 200)


def test_stopped_in_the_pause(loop, told, folder, errors):
    loop.on_error = lambda source, error: None
    told.watcher.stop().start()
    touch(folder, 3)
    with short_of_fds(0):
        loop.run_once(0)
        assert loop.statistics().timers == 1
    told.watcher.stop()
    assert loop.statistics().timers == 0
    told.watcher.start()
    paths = touch(folder, 1)
    take(loop)
    assert told.paths == paths


@pytest.mark.parametrize("start", [True, False])
def test_no_fd_for_the_group(loop, folder, start):
    with short_of_fds(0), pytest.raises(OSError, match="max_user_groups") as caught:
        loop.fswatch(folder, "all", print, start=start)
    assert caught.value.errno == errno.EMFILE
    assert not loop.watchers


def test_a_ring_that_must_not_read(folder):
    """A read that is refused again and again ends the watcher, and nothing spins."""
    with made_loop() as loop:
        seen = []
        loop.on_error = lambda source, error: seen.append(str(error))
        loop.ring.restrict("nop", "poll_add")
        watcher = loop.fswatch(folder, "all", unexpected)
        finish(loop)
        assert not watcher.is_active()
        assert 3 < len(seen) < 12
        assert "the watcher was stopped" in seen[-1]
        assert not any("the watcher was stopped" in text for text in seen[:-1])
        watcher.destroy()


def test_overflow(loop, told, folder):
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        limit = int(file.read())
    if limit > 40_000:
        pytest.skip(f"{limit} events fit into the queue")
    bulk = Told()
    watcher = loop.fswatch(os.fsencode(folder), ["close_write"], bulk)
    touch(folder, limit + 100)
    run_until(loop, lambda: bulk and bulk[-1][0] == {"overflow"})
    assert bulk[-1] == ({"overflow"}, os.fsencode(folder), 0)
    assert len(bulk) == limit + 1
    watcher.destroy()
    run_until(loop, lambda: told and told[-1][0] == {"overflow"})
    paths = touch(folder, 3, first=10**6)
    run_until(loop, lambda: len(told) == limit + 4)
    assert told.paths[-4:] == [folder, *paths]


# --- unmounting ------------------------------------------------------------------------------------------------------


def test_unmounted_under_it(loop, tmp_path):
    told = Told()
    with mounted(tmp_path / "mount") as folder:
        loop.fswatch(folder, ["close_write"], told)
        touch(folder, 1)
        take(loop)
        assert len(told) == 1
        touch(folder, 1)
        with pytest.raises(OSError):
            unmount(folder)  # an event that has not been taken keeps it busy
        take(loop)
        assert len(told) == 2
    touch(tmp_path, 1)
    take(loop)
    assert len(told) == 2


def test_unmounted_lazily(loop, tmp_path):
    told = Told()
    with mounted(tmp_path / "mount") as folder, mounted(tmp_path / "mount" / "inner") as inner:
        watcher = loop.fswatch(inner, ["close_write"], told)
        [path] = touch(inner, 1)
        unmount(inner, MNT_DETACH)
        take(loop)
        assert len(told) == 1
        assert told.paths[0].endswith(os.path.basename(path))
        watcher.destroy()
        # What is to be unmounted at the end.
        mount("none", inner, b"tmpfs")
        assert os.listdir(folder) == ["inner"]


# --- forks -----------------------------------------------------------------------------------------------------------


def test_a_child_has_none_of_its_fds(loop, told, folder):
    paths = touch(folder, 10)
    first = []

    def fork(watcher, event):
        told(watcher, event)
        if not first:
            assert len(event_fds(folder)) == 9
            first.append(in_fork(lambda: (event_fds(folder), "anon_inode:[fanotify]" in open_fds().values())))

    told.watcher.callback = fork
    take(loop)
    assert first == [([], False)]
    assert told.paths == paths


def test_the_group_ends_with_the_parents_watcher(loop, folder, tmp_path):
    """A child that lives on keeps neither the group nor a file open: the mount is free."""
    told = Told()
    with mounted(tmp_path / "other") as other:
        watcher = loop.fswatch(other, ["close_write"], told)
        loop.run_once(0)
        touch(other, 3)
        inner, outer = os.pipe()
        pid = start_fork(lambda: (os.close(outer), os.read(inner, 1)))
        os.close(inner)
        take(loop)
        assert len(told) == 3
        watcher.destroy()
    os.close(outer)
    wait_child(pid)


def test_in_the_child_the_watcher_is_dead(loop, told, folder):
    touch(folder, 3)
    loop.run_once(0)
    touch(folder, 3)

    def body():
        fds = open_fds()
        told.watcher.stop()
        told.watcher.destroy()
        with pytest.raises(RuntimeError, match="dead in a forked child"):
            told.watcher.start()
        with made_loop() as own:
            noted = Told()
            watcher = own.fswatch(folder, ["close_write"], noted)
            paths = touch(folder, 2, first=50)
            take(own)
            assert noted.paths == paths
            watcher.destroy()
        return open_fds() == fds

    assert in_fork(body)
    take(loop)
    assert len(told) == 8


@pytest.mark.parametrize("end", ["fork", "drop", "close"])
def test_what_the_kernel_has_written_and_nobody_has_seen(folder, end):
    """A thread of the kernel reads for a loop that polls its submissions: events are there before the loop looks."""
    before = open_fds()
    loop = Loop(sqpoll=True)
    loop.fswatch(folder, ["close_write"], unexpected)
    loop.run_once(0)
    touch(folder, 3)
    wait_until(lambda: event_fds(folder))
    if end == "fork":
        assert in_fork(lambda: event_fds(folder)) == []
    if end == "close":
        loop.close()
    elif end == "drop":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del loop
            gc.collect()
    else:
        for watcher in list(loop.watchers.values()):
            watcher.destroy()
        loop.close()
        del watcher
    wait_until(lambda: open_fds() == before)


def test_a_program_that_is_executed(loop, told, folder):
    touch(folder, 3)
    loop.run_once(0)
    touch(folder, 3)
    result = run_script("import os; print(len(os.listdir('/proc/self/fd')))")
    result.check("4")  # with that of the listing


# --- threads, the end of the program ---------------------------------------------------------------------------------


def test_a_thread_that_ends(folder):
    """Its requests are cancelled by the kernel, and made again by the next thread that runs the loop."""
    told = Told()

    def body():
        with made_loop() as loop:
            loop.fswatch(folder, ["close_write"], told)
            paths = touch(folder, 3)
            run_until(loop, lambda: len(told) == 3)
            loop.watchers[1].destroy()
            return paths

    assert in_thread(body) == told.paths


def test_a_loop_whose_thread_is_gone(folder):
    loops = []

    def body():
        loop = Loop()
        loop.fswatch(folder, ["close_write"], unexpected)
        loop.run_once(0)
        loops.append(loop)
        touch(folder, 3)

    before = open_fds()
    in_thread(body)
    loops[0].close()
    loops.clear()
    gc.collect()
    wait_until(lambda: open_fds() == before)


def test_writers_in_threads(loop, told, folder):
    count = scaled(300, 50)
    threads = [threading.Thread(target=touch, args=(folder, count, number * 10**6)) for number in range(4)]
    for thread in threads:
        thread.start()
    run_until(loop, lambda: len(told) == 4 * count)
    for thread in threads:
        thread.join()
    assert len(set(told.paths)) == 4 * count
    assert {pid for _, _, pid in told} == {os.getpid()}


@pytest.mark.parametrize("ending", ["", "os._exit(0)", "raise SystemExit", "loop.close()", "del loop", "os.abort()"])
def test_the_end_of_a_program(loop, folder, ending):
    result = run_script(
        f"""
        import os, sys, warnings
        from linux_event import Loop
        warnings.simplefilter("ignore")
        loop = Loop(max_events=2)
        def told(watcher, event):
            print(event.path, flush=True)
        loop.fswatch({folder!r}, ["close_write"], told)
        for number in range(5):
            open({folder!r} + "/" + str(number), "w").close()
        loop.run_once(0)
        {ending}
        """
    )
    assert result.returncode == (-6 if "abort" in ending else 0), result.stderr
    assert result.stdout.split() == [f"{folder}/0", f"{folder}/1"]


# --- figures ---------------------------------------------------------------------------------------------------------


def test_memory_is_given_back(loop, told, folder):
    def action():
        touch(folder, 70)
        told.clear()
        take(loop)
        told.clear()
        with loop.fswatch(folder, "all", unexpected):
            pass

    assert blocks_grown(action) <= 0


def test_system_calls_for_many_events(loop, told, folder):
    touch(folder, 640)
    before = loop.statistics()
    start = time.perf_counter()
    take(loop)
    print(f"{(time.perf_counter() - start) / 640 * 1e6:.2f} us for an event")
    after = loop.statistics()
    assert len(told) == 640
    assert after.iterations - before.iterations < 40


def test_another_program_writes_much(loop, told, folder):
    pid = run("sh", "-c", f"for i in $(seq 200); do : > {folder}/$i; done")
    take(loop)
    assert sorted(told.paths) == sorted(f"{folder}/{number}" for number in range(1, 201))
    assert {told_pid for _, _, told_pid in told} == {pid}
