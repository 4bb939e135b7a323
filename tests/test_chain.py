"""Chains: operations that the kernel runs one after the other, submitted together."""

import concurrent.futures
import errno
import mmap
import os

import _fault
import pytest
from _support import BOUND, finish, made_loop, pipes, run_until, scaled

import linux_event.chain
from linux_event import LoopClosedError, WrongThreadError

CancelledError = concurrent.futures.CancelledError
InvalidStateError = concurrent.futures.InvalidStateError
Chain = linux_event.chain.Chain
MAP_NORESERVE = 0x4000


def expect_chain_cancelled(operation):
    """The error of what was not begun: a CancelledError and an OSError with ECANCELED."""
    assert operation.done() and operation.cancelled()
    with pytest.raises(CancelledError) as raised:
        operation.exception()
    assert isinstance(raised.value, OSError)
    assert raised.value.errno == errno.ECANCELED
    assert "in the chain" in str(raised.value)
    return raised.value


def expect_cancelled(operation):
    """The error of what was cancelled by cancel()."""
    with pytest.raises(CancelledError) as raised:
        operation.result()
    assert type(raised.value) is CancelledError


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        yield file


# --- order --------------------------------------------------------------------------------------------------------


def test_operations_run_in_order(loop, file):
    """Each write waits for the one before: at the current position they come out in order."""
    count = 200
    order = []
    with loop.link() as chain:
        assert repr(chain) == "<Chain operations=0>"
        for number in range(count):
            operation = loop.write(file, b"%03d" % number, -1, lambda *_, number=number: order.append(number))
        loop.fsync(file)
    assert repr(chain) == f"<Chain operations={count + 1}>"
    assert len(chain.operations) == count + 1
    assert chain.operations[count - 1] is operation
    finish(loop)
    assert os.pread(file.fileno(), 10000, 0) == b"".join(b"%03d" % number for number in range(count))
    assert order == list(range(count))
    assert all(operation.exception() is None for operation in chain.operations)


def test_what_waits_holds_back_what_follows(loop, pipe, file):
    with loop.link() as chain:
        loop.read(pipe.r, 4)
        loop.write(file, b"after")
    loop.run_once(0)
    assert os.fstat(file.fileno()).st_size == 0
    pipe.put(b"data")
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [b"data", 5]


def test_a_chain_is_submitted_together(loop, file):
    loop.timer(0, lambda watcher: None)
    finish(loop)
    before = loop.statistics()
    with loop.link():
        for _ in range(50):
            loop.write(file, b"x")
    assert loop.statistics().submissions == before.submissions
    loop.run_once(0)
    assert loop.statistics().submissions >= before.submissions + 50
    assert loop.statistics().syscalls <= before.syscalls + 10
    finish(loop)


def test_two_chains_and_operations_beside_them(loop, pipe, file):
    """One chain does not wait for the other, nor for what stands between them."""
    with loop.link() as first:
        loop.read(pipe.r, 1)
        loop.write(file, b"a", 0)
    beside = loop.write(file, b"b", 1)
    with loop.link() as second:
        loop.write(file, b"c", 2)
        loop.write(file, b"d", 3)
    run_until(loop, lambda: beside.done() and second.operations[1].done())
    assert not first.operations[1].done()
    assert os.pread(file.fileno(), 10, 0) == b"\0bcd"
    pipe.put()
    finish(loop)
    assert os.pread(file.fileno(), 10, 0) == b"abcd"


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("count", [0, 1])
def test_short_chains(loop, file, hard, count):
    with loop.link(hard=hard) as chain:
        for _ in range(count):
            loop.write(file, b"x")
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1] * count
    assert loop.write(file, b"not in a chain").cancel()
    finish(loop)


def test_a_chain_from_a_callback(loop, pipe, file):
    chains = []

    def callback(result, error):
        with loop.link() as chain:
            loop.write(file, result)
            loop.fsync(file)
        chains.append(chain)

    pipe.put(b"data")
    loop.read(pipe.r, 10, -1, callback)
    finish(loop)
    assert [operation.result() for operation in chains[0].operations] == [4, None]


# --- failure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_failure_cancels_the_rest(loop, pipe, file, place):
    told = []
    loop.on_error = lambda *told_of: told.append(told_of)
    with loop.link() as chain:
        for number in range(4):
            loop.write(pipe.r if number == place else file, b"x")
    finish(loop)
    loop.on_error = None
    failed = chain.operations[place]
    assert [operation.result() for operation in chain.operations[:place]] == [1] * place
    assert failed.exception().errno == errno.EBADF
    for operation in chain.operations[place + 1 :]:
        assert expect_chain_cancelled(operation).filename == file.fileno()
    assert os.fstat(file.fileno()).st_size == place
    # What was cancelled is no failure of its own.
    assert told == [(failed, failed.exception())]


def test_callbacks_of_what_was_not_begun(loop, pipe, file):
    calls = []
    with loop.link() as chain:
        loop.write(pipe.r, b"x", -1, lambda *result: calls.append(result))
        loop.write(file, b"x", -1, lambda *result: calls.append(result))
        loop.write(file, b"x", on_error=lambda error: calls.append(error))
    finish(loop)
    assert [error.errno for _, error in calls[:2]] == [errno.EBADF, errno.ECANCELED]
    assert isinstance(calls[1][1], CancelledError)
    assert isinstance(calls[2], CancelledError)
    assert chain.operations[1].cancel() is True  # as concurrent.futures has it for what is cancelled


def test_a_short_read_counts_as_failed(loop, pipe, file):
    pipe.put(b"abc")
    with loop.link() as chain:
        loop.read(pipe.r, 10)
        loop.write(file, b"x")
    finish(loop)
    assert chain.operations[0].result() == b"abc"
    expect_chain_cancelled(chain.operations[1])


def test_a_write_in_parts_ends_the_chain_and_writes_the_rest(loop, pipe, file):
    size = 300_000  # more than the pipe takes
    got = []
    with loop.link() as chain:
        loop.write(pipe.w, b"a" * size)
        loop.write(file, b"x")
    loop.io(pipe.r, "r", lambda watcher, events: got.append(pipe.take()), ref=False)
    finish(loop)
    assert chain.operations[0].result() == size
    expect_chain_cancelled(chain.operations[1])
    run_until(loop, lambda: len(b"".join(got)) == size)


def test_hard_goes_on_after_a_failure(loop, pipe, file):
    pipe.put(b"abc")
    with loop.link(hard=True) as chain:
        loop.write(file, b"1")
        loop.write(pipe.r, b"x", on_error=lambda error: None)
        loop.write(file, b"2")
        loop.read(pipe.r, 10)
        loop.write(file, b"3")
    assert "hard" in repr(chain)
    finish(loop)
    results = [operation.exception() or operation.result() for operation in chain.operations]
    assert results[1].errno == errno.EBADF
    assert results[0:1] + results[2:] == [1, 1, b"abc", 1]
    assert os.pread(file.fileno(), 10, 0) == b"123"


# --- the queue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 8])
def test_longer_than_the_ring(file, entries):
    """Refused at the call; then nothing of the chain is begun, and the loop goes on."""
    with made_loop(entries=entries) as loop:
        with pytest.raises(ValueError, match=f"which has {entries} entries"), loop.link() as chain:
            for _ in range(entries + 1):
                loop.write(file, b"x")
        assert len(chain.operations) == entries
        finish(loop)
        assert all(operation.cancelled() for operation in chain.operations)
        assert os.fstat(file.fileno()).st_size == 0
        with loop.link() as chain:
            for _ in range(entries):
                loop.write(file, b"x")
        finish(loop)
        assert os.fstat(file.fileno()).st_size == entries


def test_a_call_refused_for_length_may_be_left_out(file):
    with made_loop(entries=2) as loop:
        with loop.link() as chain:
            for _ in range(5):
                try:
                    loop.write(file, b"x")
                except ValueError:
                    break
        finish(loop)
        assert [operation.result() for operation in chain.operations] == [1, 1]


@pytest.mark.parametrize("before", range(9))
def test_a_chain_with_little_room_in_the_queue(file, before):
    """Chains of 8 entries on a ring of 8, behind requests that leave less room: each is submitted whole."""
    with made_loop(entries=8) as loop, pipes(1) as [pipe]:
        for _ in range(before):
            loop.read(pipe.r, 1)
        chains = []
        for number in range(3):
            with loop.link() as chain:
                # Each to a place of its own: chains run beside each other, and the position of the file is one for all.
                for step in range(8):
                    loop.write(file, b"x", 8 * number + step)
            chains.append(chain)
            for _ in range(before):
                loop.fsync(file)
        pipe.put(b"x" * before)
        finish(loop)
        assert all(operation.result() == 1 for chain in chains for operation in chain.operations)
        assert os.pread(file.fileno(), 100, 0) == b"x" * 24


def test_many_chains_on_a_small_ring(file):
    count = scaled(300, least=20)
    with made_loop(entries=8) as loop:
        chains = []
        for number in range(count):
            with loop.link() as chain:
                for step in range(number % 8 + 1):
                    loop.write(file, b"%d" % step, number * 8 + step)
            chains.append(chain)
            if number % 50 == 0:
                loop.run_once(0)
        finish(loop)
        assert all(operation.result() == 1 for chain in chains for operation in chain.operations)
        for number in range(count):
            length = number % 8 + 1
            assert os.pread(file.fileno(), length, number * 8) == b"01234567"[:length]


def test_a_write_of_more_than_one_request_is_refused(loop, file):
    """The kernel would take the first part for the whole. The memory is never touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    with mmap.mmap(-1, 0x7FFFF001, flags=flags) as large:
        with loop.link(), pytest.raises(ValueError, match="more than one request"):
            loop.write(file, large)
        finish(loop)


# --- the with statement -------------------------------------------------------------------------------------------


def test_nested(loop, file):
    with loop.link() as outer:
        loop.write(file, b"1")
        with pytest.raises(RuntimeError, match="nested"), loop.link():
            pass
        loop.write(file, b"2")
    finish(loop)
    assert [operation.result() for operation in outer.operations] == [1, 1]


def test_chains_of_two_loops_may_be_nested(loop, file):
    with made_loop() as other:
        with loop.link() as outer, other.link() as inner:
            loop.write(file, b"1", 0)
            other.write(file, b"2", 1)
        finish(loop)
        finish(other)
        assert len(outer.operations) == len(inner.operations) == 1


class Expected(Exception):
    pass


@pytest.mark.parametrize("hard", [False, True])
def test_an_exception_inside(loop, file, hard):
    """Nothing of the chain is begun, and nobody is told of a failure; what comes after is not part of it."""
    calls = []
    with pytest.raises(Expected), loop.link(hard=hard) as chain:
        loop.write(file, b"1", -1, lambda *result: calls.append(result))
        loop.write(file, b"2")
        raise Expected
    assert [operation.cancelled() for operation in chain.operations] == [True, True]
    after = loop.write(file, b"3")
    finish(loop)
    assert after.result() == 1
    assert os.pread(file.fileno(), 10, 0) == b"3"
    assert type(calls[0][1]) is CancelledError
    for operation in chain.operations:
        with pytest.raises(CancelledError):
            operation.result()


def test_watchers_started_inside_are_not_part_of_it(loop, pipe, file):
    events = []
    with loop.link() as chain:
        loop.write(file, b"1")
        loop.io(pipe.r, "r", lambda watcher, what: (events.append(str(what)), watcher.destroy()))
        loop.timer(0, lambda watcher: events.append("timer"))
        loop.defer(events.append, "deferred")
        loop.write(file, b"2")
    pipe.put()
    finish(loop)
    assert sorted(events) == ["deferred", "r", "timer"]
    assert [operation.result() for operation in chain.operations] == [1, 1]
    assert len(chain.operations) == 2


def test_the_loop_does_not_run_inside(loop, file):
    """It would wait for what is held back until the end of the with statement."""
    with loop.link() as chain:
        loop.write(file, b"1")
        for run in (loop.run, loop.run_once):
            with pytest.raises(RuntimeError, match="chain"):
                run()
    finish(loop)
    assert chain.operations[0].result() == 1


@pytest.mark.parametrize("has_run", [False, True])
def test_the_loop_is_closed_inside(file, has_run):
    calls = []
    with made_loop() as loop:
        if has_run:
            loop.run_once(0)
        with loop.link() as chain:
            operations = [loop.write(file, b"x", -1, lambda *result: calls.append(result)) for _ in range(3)]
            operations[1].cancel()
            loop.close()
            assert len(calls) == 3
            with pytest.raises(LoopClosedError):
                loop.write(file, b"x")
        assert all(operation.cancelled() for operation in operations)
        assert chain.operations == []
        assert {type(error) for _, error in calls} == {CancelledError}
        with pytest.raises(LoopClosedError):
            loop.link()
    assert os.fstat(file.fileno()).st_size == 0


def test_the_loop_is_closed_with_chains_in_flight(pipe, file):
    """Those that wait for their turn, too, are over before close() returns."""
    calls = []
    with made_loop() as loop:
        for _ in range(10):
            with loop.link():
                loop.read(pipe.r, 1, -1, lambda *result: calls.append(result))
                loop.write(file, b"x", -1, lambda *result: calls.append(result))
        loop.run_once(0)
        with loop.link():
            loop.read(pipe.r, 1, -1, lambda *result: calls.append(result))
            loop.write(file, b"x", -1, lambda *result: calls.append(result))
        loop.close()
        assert len(calls) == 22
        assert all(isinstance(error, CancelledError) for _, error in calls)
    assert os.fstat(file.fileno()).st_size == 0


def test_entered_once(loop, file):
    chain = loop.link()
    with chain, pytest.raises(RuntimeError, match="once"):
        chain.__enter__()
    with pytest.raises(RuntimeError, match="once"):
        chain.__enter__()
    with pytest.raises(RuntimeError, match="not being made"):
        chain.__exit__(None, None, None)
    loop.write(file, b"1")
    finish(loop)


def test_left_without_having_been_entered(loop, file):
    with loop.link() as chain:
        loop.write(file, b"1")
        with pytest.raises(RuntimeError, match="not being made"):
            loop.link().__exit__(None, None, None)
        loop.write(file, b"2")
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1, 1]


def test_an_object_made_without_a_loop_cannot_crash():
    with pytest.raises(TypeError, match="link"):
        Chain()
    chain = Chain.__new__(Chain)
    assert "Chain" in repr(chain)
    assert not chain.operations
    with pytest.raises(RuntimeError):
        chain.__enter__()
    with pytest.raises(RuntimeError):
        chain.__exit__(None, None, None)


@pytest.mark.parametrize("hard", [1, "yes", None])
def test_hard_must_be_a_bool(loop, hard):
    with pytest.raises(TypeError, match="hard"):
        loop.link(hard=hard)
    with pytest.raises(TypeError):
        loop.link(True)


def test_from_another_thread(loop, file):
    loop.run_once(0)
    chain = loop.link()
    for function in (loop.link, chain.__enter__):
        with pytest.raises(WrongThreadError):
            _fault.in_thread(function)
    with chain:
        loop.write(file, b"1")
        with pytest.raises(WrongThreadError):
            _fault.in_thread(chain.__exit__, None, None, None)
        loop.write(file, b"2")
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1, 1]


def test_a_bad_call_inside_leaves_the_chain_as_it_was(loop, file):
    with loop.link() as chain:
        loop.write(file, b"1")
        for arguments in ((-1, b""), (file, None), (file, b"", -5)):
            with pytest.raises((ValueError, TypeError)):
                loop.write(*arguments)
        loop.write(file, b"2")
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1, 1]


# --- cancel and timeout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_cancel_of_a_member_before_it_is_submitted(loop, file, hard, place, inside):
    """It keeps its place and fails there: what follows it in a soft chain is not begun."""
    with loop.link(hard=hard) as chain:
        operations = [loop.write(file, b"%d" % number) for number in range(3)]
        if inside:
            assert operations[place].cancel() is True
    if not inside:
        assert operations[place].cancel() is True
    assert chain.operations == operations
    finish(loop)
    expect_cancelled(operations[place])
    for number, operation in enumerate(operations):
        if number < place or (hard and number > place):
            assert operation.result() == 1
        elif number > place:
            expect_chain_cancelled(operation)
    written = [b"%d" % number for number in range(3) if number < place or (hard and number > place)]
    assert os.pread(file.fileno(), 10, 0) == b"".join(written)


def test_cancel_of_the_member_that_runs(loop, pipe, file):
    with loop.link() as chain:
        loop.read(pipe.r, 1)
        loop.write(file, b"x")
    loop.run_once(0)
    assert chain.operations[0].cancel() is True
    finish(loop)
    expect_cancelled(chain.operations[0])
    expect_chain_cancelled(chain.operations[1])
    assert os.fstat(file.fileno()).st_size == 0


@pytest.mark.parametrize("way", ["cancel", "timeout"])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("leader", ["pipe", "file"])
def test_a_member_that_is_to_end_before_its_turn_has_come(loop, pipe, file, way, hard, leader):
    """The kernel finds only what it has begun: it is ended when it begins, though it waits for ever by itself."""
    for _ in range(scaled(30, least=3)):
        with pipes(1) as [other]:
            failed = []
            with loop.link(hard=hard) as chain:
                first = loop.read(pipe.r, 1) if leader == "pipe" else loop.fsync(file)
                loop.read(other.r, 1, timeout=0 if way == "timeout" else None, on_error=failed.append)
                loop.write(file, b"x", 0)
            loop.run_once(0)
            if way == "cancel":
                assert chain.operations[1].cancel() is True
            if leader == "pipe":
                before = loop.statistics().syscalls
                loop.run_once(0)
                loop.run_once(0)
                assert loop.statistics().syscalls <= before + 6  # it is not asked again and again
                assert failed == []
                pipe.put()
            finish(loop)
            assert first.exception() is None
            assert [type(error) for error in failed] == [CancelledError if way == "cancel" else TimeoutError]
            if hard:
                assert chain.operations[2].result() == 1
            else:
                expect_chain_cancelled(chain.operations[2])


@pytest.mark.parametrize("hard", [False, True])
def test_close_after_a_member_was_cancelled_before_its_turn(pipe, file, hard):
    calls = []
    with made_loop() as loop, pipes(1) as [other]:
        for _ in range(5):
            with loop.link(hard=hard) as chain:
                for each in (pipe, other, other):
                    loop.read(each.r, 1, -1, lambda *result: calls.append(result))
            loop.run_once(0)
            chain.operations[1].cancel()
        loop.close()
        assert len(calls) == 15
        assert all(isinstance(error, CancelledError) for _, error in calls)


def test_timeout_of_the_member_that_runs(loop, pipe, file):
    failed = []
    with loop.link() as chain:
        loop.read(pipe.r, 1, timeout=0, on_error=failed.append)
        loop.write(file, b"x")
    finish(loop)
    assert type(failed[0]) is TimeoutError
    expect_chain_cancelled(chain.operations[1])


def test_a_timeout_of_the_rest_of_a_write(loop, pipe, file):
    """The first part has ended the chain; what is left of the write is on its own, and can be timed out."""
    pipe.fill()
    pipe.take(65536)
    failed = []
    with loop.link() as chain:
        loop.write(pipe.w, b"x" * 300_000, timeout=0.01, on_error=failed.append)
        loop.write(file, b"x")
    finish(loop)
    assert type(failed[0]) is TimeoutError
    expect_chain_cancelled(chain.operations[1])


def test_timeouts_that_do_not_come(loop, file):
    with loop.link() as chain:
        for _ in range(5):
            loop.write(file, b"x", timeout=BOUND)
    assert loop.statistics().timers == 5
    finish(loop)
    assert loop.statistics().timers == 0
    assert [operation.result() for operation in chain.operations] == [1] * 5


def test_a_bad_timeout_inside(loop, file):
    with loop.link() as chain, pytest.raises(ValueError, match="timeout"):
        loop.write(file, b"x", timeout=-1)
    assert chain.operations == []
    finish(loop)
    with pytest.raises(InvalidStateError):
        loop.write(file, b"x").result()
    finish(loop)
