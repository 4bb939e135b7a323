"""The guard: its workloads, its counters and its verdict."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _fault import script_environment

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("an installed package comes without its benchmarks", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks.guard import counts  # noqa: E402
from benchmarks.guard.compare import compare  # noqa: E402
from benchmarks.guard.workloads import WORKLOADS  # noqa: E402

NAMES = ["deferred_call", "readable_fd"]
# What counts would load the sanitizers too.
SANITIZED = pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="not under a sanitizer")


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_runs(name):
    command = [sys.executable, "-m", "benchmarks.guard.workloads", name]
    done = subprocess.run(command, cwd=ROOT, env=script_environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@SANITIZED
def test_system_calls_per_event():
    calls = counts.system_calls(NAMES)
    assert calls["deferred_call"] == {}
    assert calls["readable_fd"]["read"] == calls["readable_fd"]["write"] == 1
    assert sum(calls["readable_fd"].values()) == pytest.approx(3, abs=0.01)


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
@pytest.mark.skipif(
    "libasan" in script_environment().get("LD_PRELOAD", ""), reason="valgrind and a sanitizer do not mix"
)
def test_instructions_repeat():
    first, second = counts.instructions(NAMES), counts.instructions(NAMES)
    assert list(first) == NAMES
    for name in NAMES:
        assert 100 < first[name] == pytest.approx(second[name], rel=0.02)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (["no-such-tool"], "no-such-tool is not installed"),
        (["false"], "false ended with status 1"),
        (["echo"], "echo ended with status 0"),
    ],
)
def test_a_tool_that_does_not_work(prefix, message, tmp_path):
    with pytest.raises(counts.CannotCount, match=message):
        counts._run(prefix, NAMES, str(tmp_path))


def test_a_tool_that_does_not_end(monkeypatch, tmp_path):
    monkeypatch.setattr(counts, "SECONDS", 0.1)
    with pytest.raises(counts.CannotCount, match="did not end within"):
        counts._run(["sh", "-c", "exec sleep 100"], NAMES, str(tmp_path))


@pytest.mark.parametrize(
    ("kept", "now", "lines"),
    [
        ({"a": 1000}, {"a": 1049}, []),
        ({"a": 1000}, {"a": 500}, []),
        ({"a": 1000}, {"a": 1051}, ["a: 1051 calls per event, 1000 are kept"]),
        ({"a": 0}, {"a": 0.01}, []),
        ({"a": 0}, {"a": 0.1}, ["a: 0.1 calls per event, 0 are kept"]),
        ({"a": 1}, {"a": 1, "b": 2}, ["b: 2 calls per event, and no figure is kept: run with --record"]),
    ],
)
def test_what_has_grown(kept, now, lines):
    assert compare("calls", kept, now) == lines
