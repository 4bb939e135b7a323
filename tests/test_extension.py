"""Another package builds a kind of watcher, and ring operations, of its own on the installed declarations and headers."""

import contextlib
import errno
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from _net import Heard, settle, stream_and_peer
from _support import BOUND, finish, made_loop, run_until

import linux_event
from linux_event import DestroyedError, Loop, UringUnavailableError

SOURCE = Path(__file__).resolve().parent / "extension_package"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder in which the package was built."""
    folder = tmp_path_factory.mktemp("extension") / "package"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("build", "*.c", "*.so", "__pycache__"))
    # The build imports linux_event, and Cython looks for its declarations, where this test found it.
    path = os.pathsep.join(
        [str(Path(linux_event.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert built.returncode == 0, built.stdout
    return folder


@contextlib.contextmanager
def imported(folder, name):
    """A module of the package."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}{EXTENSION_SUFFIXES[0]}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def round_trip(package):
    with imported(package, "round_trip") as module:
        yield module


@pytest.fixture
def scripted(package):
    with imported(package, "scripted_ring") as module:
        yield module
        module.restore()


# --- a kind of watcher ------------------------------------------------------------------------------------------------


def test_a_request_goes_to_the_kernel_and_back(loop, round_trip):
    calls = []
    watcher = round_trip.RoundTrip(loop, lambda *arguments: calls.append(arguments), data="mine", priority=1)
    assert watcher.is_active()
    assert watcher in loop.watchers.values()
    assert repr(watcher) == f"<RoundTrip id={watcher.id} nop active>"
    completions = loop.statistics().completions
    finish(loop)
    assert calls == [(watcher, 0)]
    assert loop.statistics().completions == completions + 1
    assert not watcher.is_active()
    assert watcher.data == "mine" and watcher.priority == 1
    watcher.destroy()


def test_it_starts_again_from_its_callback(loop, round_trip):
    results = []

    @loop.round_trip(data=1000)
    def again(watcher, result):
        results.append(result)
        watcher.data -= 1
        if watcher.data:
            watcher.start()

    assert type(again) is round_trip.RoundTrip
    finish(loop)
    assert results == [0] * 1000
    again.destroy()


def test_stopped_or_destroyed_it_is_not_called(loop, round_trip):
    def unexpected(watcher, result):
        raise AssertionError("called")

    stopped = loop.round_trip(unexpected)
    destroyed = loop.round_trip(unexpected)
    stopped.stop()
    destroyed.destroy()
    # Collected together with the first, which stops it before its turn.
    loop.round_trip(lambda watcher, result: last.stop(), priority=1)
    last = loop.round_trip(unexpected)
    finish(loop)
    assert not stopped.is_active() and not last.is_active()
    with pytest.raises(DestroyedError):
        destroyed.start()
    assert loop.statistics().requests_in_flight == 0


def test_more_of_them_than_the_ring_has_entries(round_trip):
    with Loop(entries=8) as loop:
        results = []
        for _ in range(1000):
            loop.round_trip(lambda watcher, result: results.append(result))
        finish(loop)
        assert results == [0] * 1000
        assert loop.statistics().requests_in_flight == 0


def test_its_errors_are_those_of_all_watchers(loop, round_trip):
    with pytest.raises(TypeError, match="callback"):
        round_trip.RoundTrip(loop, None)
    with pytest.raises(TypeError, match="loop"):
        round_trip.RoundTrip("loop", print)
    with pytest.raises(ValueError, match="priority"):
        round_trip.RoundTrip(loop, print, priority=3)
    assert len(loop.watchers) == 0
    errors = []
    loop.on_error = lambda source, error: errors.append((source, error))
    watcher = loop.round_trip(lambda watcher, result: 1 / result)
    finish(loop)
    assert [(source, type(error)) for source, error in errors] == [(watcher, ZeroDivisionError)]
    loop.on_error = None


def test_a_loop_closed_with_requests_in_flight(round_trip):
    loop = Loop()
    watchers = [loop.round_trip(print) for _ in range(10)]
    loop.close()
    assert all(watcher.is_destroyed() for watcher in watchers)


# --- rings ------------------------------------------------------------------------------------------------------------


def test_results_of_a_scripted_ring(scripted, pipe):
    """What passes is tried again, and nothing is lost or done twice."""
    passing = [-errno.EINTR, -errno.EAGAIN, 0, -errno.EBUSY, None, -errno.ENOMEM, -errno.ETIME]
    scripted.use(on_enter=passing * 5)
    with made_loop(entries=1) as loop:
        seen = []

        def on_read(watcher, events):
            seen.append(pipe.take(1))
            if len(seen) == 40:
                watcher.destroy()
            else:
                loop.timer(0, lambda timer: pipe.put())

        loop.io(pipe.r, "r", on_read)
        pipe.put()
        finish(loop)
        assert seen == [b"x"] * 40
        assert scripted.left() == 0


@pytest.mark.parametrize("name", ["EAGAIN", "EBUSY", "ENOMEM"])
def test_what_a_refused_wait_has_brought_is_not_kept_waiting(scripted, pipe, name):
    """The kernel refuses, but completions have come meanwhile: the loop does not sleep until there are more."""
    scripted.use(on_enter=[-getattr(errno, name)], late=True)
    with made_loop() as loop:
        pipe.put()
        loop.io(pipe.r, "r", lambda watcher, events: watcher.destroy(), edge=True)
        start = time.monotonic()
        assert loop.run_once(BOUND) == 1
        assert time.monotonic() - start < BOUND / 2
        assert scripted.left() == 0


def test_a_scripted_ring_that_cannot_be_enabled(scripted):
    scripted.use(on_enable=[-errno.EIO])
    with made_loop() as loop:
        loop.timer(0, print).destroy()
        with pytest.raises(OSError) as caught:
            loop.run()
        assert caught.value.errno == errno.EIO
        loop.run()


def test_sizes_where_memory_is_short(scripted):
    """A refusal may be over in a moment; one that stays is met with smaller queues, that of completions first."""
    scripted.use(on_open=[-errno.ENOMEM] * 3)
    with made_loop(entries=64):
        assert scripted.sizes() == [(64, 0)] * 4
    scripted.use(on_open=[-errno.ENOMEM] * 200)
    with pytest.raises(UringUnavailableError) as caught:
        Loop(entries=64, cq_entries=256)
    assert caught.value.errno == errno.ENOMEM
    tried = scripted.sizes()
    smaller = [size for size in tried if size != (64, 256)]
    assert smaller == [(64, 64), (32, 64), (32, 32), (16, 32), (16, 16), (8, 16), (8, 8)]
    assert tried[: -len(smaller)] == [(64, 256)] * (len(tried) - len(smaller))
    scripted.use(on_open=[-errno.ENOMEM] * (len(tried) - 1))
    with made_loop(entries=64, cq_entries=256) as loop:
        finish(loop)
    assert scripted.sizes()[-1] == (8, 8)


def test_operations_of_another_abi_are_refused(scripted):
    with pytest.raises(ValueError, match="ABI 999"):
        scripted.use(abi=999)
    with made_loop() as loop:
        finish(loop)


# --- a filter of streams ----------------------------------------------------------------------------------------------


@pytest.fixture
def scrambler(package):
    with imported(package, "scrambler") as module:
        yield module


def scrambled(data):
    return bytes(byte ^ 0x55 for byte in data)


def test_a_filter_stands_between_a_stream_and_its_user(loop, scrambler):
    made = []
    with stream_and_peer(loop, begun=lambda stream: made.append(scrambler.scramble(stream))) as (stream, peer):
        [filter] = made
        peer.sendall(scrambled(b"!before"))
        run_until(loop, lambda: filter.log)
        assert filter.log == [("greeted", b"!")]
        heard = Heard(stream)
        run_until(loop, lambda: heard.data == b"before")
        assert heard.pieces == [b"b", b"e", b"f", b"o", b"r", b"e"]
        stream.write(b"answer")
        settle(loop)
        assert peer.recv(100) == scrambled(b"answer")

        def pausing(stream, data):
            heard.on_data(stream, data)
            stream.pause_reading()

        stream.on_data = pausing
        peer.sendall(scrambled(b"xyz"))
        for number in range(1, 4):
            run_until(loop, lambda number=number: len(heard.pieces) == 6 + number)
            settle(loop)
            assert len(heard.pieces) == 6 + number
            peer.sendall(scrambled(b"%d" % number))
            settle(loop)
            stream.resume_reading()
        stream.on_data = heard.on_data
        stream.resume_reading()
        run_until(loop, lambda: heard.data == b"beforexyz123")
        peer.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: "eof" in heard.calls)
        stream.close()
        finish(loop)
        assert peer.recv(100) == scrambled(b".")
        assert filter.log[1:] == ["ended", "closing", ("lost", None)]
        assert heard.errors == [None]


def test_a_filter_and_half_closing(loop, scrambler):
    made = []
    with stream_and_peer(loop, begun=lambda stream: made.append(scrambler.scramble(stream))) as (stream, peer):
        stream.writelines([b"a", b"b"])
        stream.write_eof()
        settle(loop)
        assert peer.recv(100) == scrambled(b"ab")
        assert peer.recv(100) == b""
        stream.abort()
        finish(loop)
        assert made.pop().log == ["write_end", ("lost", None)]


def test_a_filter_that_does_nothing(loop, scrambler):
    with stream_and_peer(loop, begun=scrambler.put_default) as (stream, peer):
        heard = Heard(stream)
        for number in range(20):
            said = bytes([number]) * (100000 if number % 4 == 0 else 100)
            peer.sendall(said)
            expected = len(heard.data) + len(said)
            run_until(loop, lambda expected=expected: len(heard.data) == expected)
            stream.pause_reading()
            peer.sendall(b"x")
            settle(loop)
            stream.resume_reading()
            run_until(loop, lambda expected=expected: len(heard.data) == expected + 1)
        stream.write(b"out")
        peer.close()
        run_until(loop, lambda: "eof" in heard.calls)
        stream.write_eof()
        stream.close()
        finish(loop)
        assert len(heard.errors) == 1
