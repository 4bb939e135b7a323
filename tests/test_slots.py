"""The places for operations on whole files: how many work at a time, who waits, and what it costs."""

import os
import threading

import pytest
from _fault import run_script
from _support import finish, made_loop, run_until, scaled
from _whole_files import MODES, SLOTS, Outcome, loop_of

from linux_event import Loop
from linux_event.cancellation import CancelledError
from linux_event.slots import places


@pytest.fixture(params=MODES)
def loop(request, nothing_left):
    with loop_of(request.param) as loop:
        yield loop


@pytest.fixture
def direct(nothing_left):
    with loop_of("direct") as loop:
        yield loop


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_thousands_at_once_cost_few_system_calls(direct, tmp_path):
    count = scaled(5000, 5 * SLOTS)
    for i in range(count):
        (tmp_path / str(i)).write_bytes(b"%d" % i * 50)
    before = direct.statistics().syscalls
    results = {}
    in_use = set()

    def collect(i, data, error):
        results[i] = data
        in_use.add(places(direct)[0])

    for i in range(count):
        direct.read_file(tmp_path / str(i), lambda data, error, i=i: collect(i, data, error))
    assert places(direct) == (SLOTS, count - SLOTS, True)
    finish(direct)
    assert results == {i: b"%d" % i * 50 for i in range(count)}
    assert max(in_use) == SLOTS
    # Blocking calls would be four or more for each file. Where the kernel can read without a thread it is one for ten.
    assert direct.statistics().syscalls - before < count / 2


def test_what_waits_begins_in_order(loop, fifo, tmp_path):
    """64 that do not end keep all others waiting; each that ends lets one begin."""
    (tmp_path / "file").write_bytes(b"data")
    blocking = [loop.read_file(fifo) for _ in range(SLOTS)]
    order = []
    for i in range(5):
        loop.read_file(tmp_path / "file", lambda data, error, i=i: order.append((i, data)))
    late = Outcome()
    loop.read_file(tmp_path / "file", late, timeout=0.01)
    given_up = Outcome()
    waiting = loop.read_file(tmp_path / "file", given_up)
    assert places(loop)[:2] == (SLOTS, 7)
    run_until(loop, lambda: late.calls)
    assert type(late.error) is TimeoutError
    assert order == []
    waiting.cancel()
    run_until(loop, lambda: given_up.calls)
    assert isinstance(given_up.error, CancelledError)
    assert places(loop)[:2] == (SLOTS, 5)
    blocking[7].cancel()
    run_until(loop, lambda: len(order) == 5)
    assert order == [(i, b"data") for i in range(5)]
    for operation in blocking:
        operation.cancel()
    finish(loop)


def test_started_from_callbacks(loop, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    left = scaled(300, 3 * SLOTS)
    seen = []

    def again(data, error):
        nonlocal left
        seen.append(data)
        if left:
            left -= 1
            loop.read_file(tmp_path / "file", again)

    for _ in range(3):
        loop.read_file(tmp_path / "file", again)
    count = left + 3
    finish(loop)
    assert seen == [b"data"] * count


def test_a_loop_that_is_used_for_none_has_none():
    with made_loop() as loop:
        assert places(loop) == (0, 0, False)
        assert loop.statistics().pool_buffers_in_use == 0


def test_the_statistics(loop, fifo):
    operations = [loop.read_file(fifo) for _ in range(3)]
    assert loop.statistics().pool_buffers_in_use == 3
    for operation in operations:
        operation.cancel()
    finish(loop)
    assert loop.statistics().pool_buffers_in_use == 0


def test_a_kernel_that_refuses_to_register_anything():
    run_script(
        """
        import errno
        from _fault import deny
        from linux_event import Loop
        from linux_event.slots import places

        with Loop() as loop:
            loop.run_once(0)  # the ring is enabled, which is a registration too
            deny(["register"], errno.EPERM)
            results = []
            for _ in range(200):
                loop.read_file("/proc/self/comm", lambda data, error: results.append(data))
            assert places(loop) == (64, 136, False)
            loop.run(60)
            with open("/proc/self/comm", "rb") as file:
                assert results == [file.read()] * 200
        """
    ).check("")


def test_a_loop_made_in_one_thread_and_run_in_another(tmp_path):
    """The table is registered by the thread that makes the first call, before the ring belongs to any."""
    (tmp_path / "file").write_bytes(b"data")
    loop = Loop()
    outcome = Outcome()
    loop.read_file(tmp_path / "file", outcome)

    def run():
        loop.run()
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert outcome.result == b"data"
