"""What an event costs in instructions (callgrind) and system calls (strace), of every micro-workload at once."""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .workloads import LARGE, MARK, SMALL, WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
RUNS = 3  # of each workload: to warm up, small, large
CALL = re.compile(r"^\d+ +(\w+)\(")
SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)


class CannotCount(Exception):
    """A tool is missing or failed; the text says which and why."""


def instructions(names: Iterable[str] = WORKLOADS) -> dict[str, float]:
    """Return workload → instructions of the whole process per event."""
    with tempfile.TemporaryDirectory() as folder:
        # A part of the profile ends wherever the mark is called.
        options = ["--tool=callgrind", "--callgrind-out-file=parts", f"--dump-before={MARK}"]
        names = _run(["valgrind", *options], names, folder)
        parts = []
        for number in range(1, 2 * RUNS * len(names) + 1):
            found = SUMMARY.search(Path(folder, f"parts.{number}").read_text(errors="replace"))
            if found is None:
                raise CannotCount(f"part {number} of what callgrind counted has no total")
            parts.append(int(found[1]))
    if len(parts) != 2 * RUNS * len(names):
        raise CannotCount(f"callgrind cut its count {len(parts)} times, not {2 * RUNS * len(names)} times")
    # The odd ones lead up to what counts.
    counted = parts[1::2]
    return {name: _per_event(counted[RUNS * index : RUNS * (index + 1)]) for index, name in enumerate(names)}


def system_calls(names: Iterable[str] = WORKLOADS) -> dict[str, dict[str, float]]:
    """Return workload → system call → calls per event."""
    with tempfile.TemporaryDirectory() as folder:
        names = _run(["strace", "-f", "-o", "calls"], names, folder)
        parts: list[Counter[str]] = [Counter()]
        for line in Path(folder, "calls").read_text(errors="replace").splitlines():
            if found := CALL.match(line):
                if found[1] == MARK:
                    parts.append(Counter())
                else:
                    parts[-1][found[1]] += 1
    if len(parts) != 2 * RUNS * len(names) + 1:
        raise CannotCount(f"strace saw {len(parts) - 1} marks, not {2 * RUNS * len(names)}")
    counted = parts[1::2]
    costs = {}
    for index, name in enumerate(names):
        runs = counted[RUNS * index : RUNS * (index + 1)]
        calls = {call: _per_event([run[call] for run in runs]) for call in sorted(set().union(*runs))}
        costs[name] = {call: value for call, value in calls.items() if abs(value) >= 0.005}
    return costs


def _per_event(runs: list[int]) -> float:
    _warm, small, large = runs
    return (large - small) / (LARGE - SMALL)


def _run(prefix: list[str], names: Iterable[str], folder: str) -> list[str]:
    names = list(names)
    # The same hashes, the same environment, the same answers of the allocator in each run.
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "PATH": os.defpath, "HOME": folder, "TMPDIR": folder}
    command = [*prefix, sys.executable, "-m", "benchmarks.guard.workloads", *names]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise CannotCount(f"{prefix[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CannotCount(f"{prefix[0]} did not end within {SECONDS} s") from None
    if done.returncode != 0 or done.stdout.split() != names:
        raise CannotCount(f"{prefix[0]} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return names
