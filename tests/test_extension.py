"""Another package builds a kind of watcher of its own on the installed declarations and headers."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from _support import finish

import linux_event
from linux_event import DestroyedError, Loop

SOURCE = Path(__file__).resolve().parent / "extension_package"


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """The module of the package, built in a folder of its own."""
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
    name = f"round_trip{EXTENSION_SUFFIXES[0]}"
    spec = importlib.util.spec_from_file_location("round_trip", folder / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules["round_trip"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["round_trip"]


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
