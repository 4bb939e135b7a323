"""splice: what arrives, who is waited for, and what is left when it ends early."""

import errno
import os
from concurrent.futures import CancelledError

import pytest
from _moving import DATA, Calls
from _support import Pipe, finish, made_loop, run_until, unused_fd


@pytest.fixture
def content(tmp_path):
    """A file with DATA in it, open."""
    path = tmp_path / "content"
    path.write_bytes(DATA)
    with open(path, "rb") as file:
        yield file


@pytest.fixture
def two(nothing_left):
    """Two pipes without blocking."""
    pipes = [Pipe(), Pipe()]
    yield pipes
    for pipe in pipes:
        pipe.close()


def splice(loop, *args, **keywords):
    calls = Calls()
    loop.splice(*args, callback=calls, **keywords)
    assert not calls
    finish(loop)
    return calls


@pytest.mark.parametrize("count", [0, 1, 4, 100])
def test_splice_from_pipe_to_pipe(loop, two, count):
    two[0].put(b"data")
    assert splice(loop, two[0].r, two[1].w, count).result == min(4, count)
    assert two[1].take() == b"data"[:count]
    assert two[0].take() == b"data"[count:]


def test_splice_is_told_of_the_end(loop, two):
    two[0].put(b"last")
    two[0].close_write()
    assert splice(loop, two[0].r, two[1].w, 100).result == 4
    assert splice(loop, two[0].r, two[1].w, 100).result == 0


def test_splice_from_a_file(loop, pipe, content):
    assert splice(loop, content, pipe.w, 10, offset_in=1000).result == 10
    assert pipe.take() == DATA[1000:1010]
    assert content.tell() == 0
    assert splice(loop, content.fileno(), pipe.w, 10).result == 10
    assert pipe.take() == DATA[:10]
    assert os.lseek(content.fileno(), 0, os.SEEK_CUR) == 10
    assert splice(loop, content, pipe.w, 10, offset_in=len(DATA) - 3).result == 3
    assert splice(loop, content, pipe.w, 10, offset_in=len(DATA)).result == 0


def test_splice_to_a_file(loop, pipe, tmp_path):
    with open(tmp_path / "target", "w+b") as file:
        pipe.put(b"one")
        assert splice(loop, pipe.r, file, 10, offset_out=5).result == 3
        pipe.put(b"two")
        assert splice(loop, pipe.r, file, 10).result == 3
        assert file.read() == b"\0\0one"
        file.seek(0)
        assert file.read() == b"two\0\0one"


def test_splice_beyond_four_gib(loop, pipe, tmp_path):
    with open(tmp_path / "large", "w+b") as file:
        pipe.put(b"far away")
        assert splice(loop, pipe.r, file, 100, offset_out=5 << 30).result == 8
        assert splice(loop, file, pipe.w, 100, offset_in=(5 << 30) + 4).result == 4
        assert pipe.take() == b"away"


def test_splice_from_and_to_a_socket(loop, pipe, pair):
    pair[0].send(b"hello")
    assert splice(loop, pair[1], pipe.w, 100).result == 5
    assert splice(loop, pipe.r, pair[1], 100).result == 5
    assert pair[0].recv(100) == b"hello"


@pytest.mark.parametrize("blocking", [False, True])
def test_splice_waits_for_data(loop, pair, pipe, blocking):
    pair[1].setblocking(blocking)
    calls = Calls()
    operation = loop.splice(pair[1], pipe.w, 100, calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 5)
    assert not operation.done()
    pair[0].send(b"at last")
    run_until(loop, operation.done)
    timer.destroy()
    assert calls.result == 7
    assert pipe.take() == b"at last"


@pytest.mark.parametrize("blocking", [False, True])
def test_splice_waits_for_room(loop, two, blocking):
    two[1].fill()
    os.set_blocking(two[1].w, blocking)
    two[0].put(b"more")
    calls = Calls()
    operation = loop.splice(two[0].r, two[1].w, 100, calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 5)
    assert not operation.done()
    # Waiting costs nothing: the kernel is not asked over and over.
    before = loop.statistics()
    run_until(loop, lambda: len(ticks) >= 15)
    assert loop.statistics().completions - before.completions < 10
    full = two[1].take(1 << 20)
    run_until(loop, operation.done)
    timer.destroy()
    assert calls.result == 4
    assert (full + two[1].take(1 << 20)).endswith(b"xmore")


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
def test_splice_ends_early(pair, pipe, blocking, how):
    pair[1].setblocking(blocking)
    calls = Calls()
    with made_loop() as loop:
        operation = loop.splice(pair[1], pipe.w, 100, calls, timeout=0.02 if how == "timeout" else None)
        if how == "timeout":
            finish(loop)
            assert calls.error.filename == pair[1].fileno()
            assert calls.error.filename2 == pipe.w
            assert isinstance(calls.error, TimeoutError)
        else:
            ticks = []
            timer = loop.periodic(0.001, ticks.append)
            run_until(loop, lambda: len(ticks) >= 3)
            timer.destroy()
            if how == "cancel":
                assert operation.cancel()
                assert not operation.cancel() or operation.cancelled()
                finish(loop)
    assert isinstance(calls.error, TimeoutError if how == "timeout" else CancelledError)
    # Nothing is taken out of the socket by what has ended.
    pair[0].send(b"kept")
    assert pair[1].recv(100) == b"kept"


@pytest.mark.parametrize("rounds", range(6))
def test_splice_is_cancelled_while_data_arrive(loop, two, rounds):
    calls = Calls()
    operation = loop.splice(two[0].r, two[1].w, 100, calls)
    for _ in range(rounds):
        loop.run_once(0)
        if rounds == 3:
            two[0].put()
    was_done = operation.done()
    assert operation.cancel() is not was_done
    finish(loop)
    assert len(calls) == 1


def test_splice_of_two_files_fails(loop, content, tmp_path):
    with open(tmp_path / "target", "wb") as target:
        error = splice(loop, content, target, 10).error
        assert (error.errno, error.filename, error.filename2) == (errno.EINVAL, content.fileno(), target.fileno())


def test_splice_with_the_offset_of_a_pipe_fails(loop, two):
    assert splice(loop, two[0].r, two[1].w, 10, offset_in=0).error.errno == errno.ESPIPE


def test_splice_takes_the_other_form_of_callbacks(loop, two):
    results, errors = [], []
    two[0].put(b"four")
    loop.splice(two[0].r, two[1].w, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    two[1].close_read()
    two[0].put(b"four")
    loop.splice(two[0].r, two[1].w, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    assert results == [4]
    assert [type(error) for error in errors] == [BrokenPipeError]


def test_a_chain_of_splices(loop, two, content):
    with loop.link() as chain:
        loop.splice(content, two[0].w, 1000, offset_in=0)
        loop.splice(two[0].r, two[1].w, 1000)
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1000, 1000]
    assert two[1].take() == DATA[:1000]
    # In a chain the kernel's word is final.
    with loop.link() as chain:
        loop.splice(two[0].r, two[1].w, 1000, callback=Calls())
        loop.splice(content, two[0].w, 1000, offset_in=0, callback=Calls())
    finish(loop)
    assert chain.operations[0].exception().errno == errno.EAGAIN
    assert chain.operations[1].cancelled()


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"count": -1}, ValueError, "count.*-1"),
        ({"count": 2**31}, ValueError, "count"),
        ({"count": 1.5}, TypeError, "count.*1.5"),
        ({"offset_in": -2}, ValueError, "offset_in.*-2"),
        ({"offset_out": 2**63}, ValueError, "offset_out"),
        ({"offset_out": "0"}, TypeError, "offset_out.*0"),
        ({"fd_in": -1}, ValueError, "-1"),
        ({"fd_out": "1"}, TypeError, "1"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"callback": 1}, TypeError, "callback"),
        ({"callback": print, "on_error": print}, TypeError, "both"),
    ],
)
def test_wrong_arguments_of_splice(loop, two, change, error, named):
    two[0].put()
    arguments = {"fd_in": two[0].r, "fd_out": two[1].w, "count": 10} | change
    with pytest.raises(error, match=named):
        loop.splice(**arguments)
    for name in ("fd_in", "fd_out"):
        with pytest.raises(OSError) as raised:
            loop.splice(
                **arguments
                | change
                | {"count": 10, name: unused_fd(), "callback": None}
                | {other: two[0].r for other in ("fd_in", "fd_out") if other != name}
            )
        assert raised.value.errno == errno.EBADF
    finish(loop)
    assert two[0].take() == b"x"
