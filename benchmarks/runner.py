"""Runs measurements in alternation, each in a process of its own on one core."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 120

# samples[workload][peer] holds one dict of values per round; None where the
# measurement failed, so that the position in the list is the round.
Samples = dict[str, dict[str, list[dict[str, float] | None]]]

Measure = Callable[[str, str, int, int], dict[str, Any]]


class MeasurementFailed(Exception):
    """A worker did not end well; the text is the end of what it said."""


def choose_cpu() -> int:
    """Return the core for measurements: the last one we may use."""
    return max(os.sched_getaffinity(0))


def run_worker(job: str, peer: str, size: int, cpu: int, *options: str, prefix: Iterable[str] = ()) -> dict[str, Any]:
    """Run one measurement in a new process and return what it printed.

    Args:
        job, peer, size: see `benchmarks.worker`.
        cpu: the core that the process is tied to.
        options: further arguments of the worker.
        prefix: a command that runs the worker, with its arguments.
    """
    worker = [sys.executable, "-m", f"{__package__}.worker", job, peer, str(size), "--cpu", str(cpu)]
    try:
        done = subprocess.run(
            [*prefix, *worker, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"no result within {TIMEOUT_SECONDS} s") from None
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode or not lines:
        reason = lines[-1] if lines else "no output"
        raise MeasurementFailed(f"exit status {done.returncode}: {reason}")
    return json.loads(lines[-1])


def available(names: Iterable[str], cpu: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of the peers that work here, and why the others do not."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = run_worker("version", name, 0, cpu)["version"]
        except MeasurementFailed as failure:
            missing[name] = str(failure)
    return versions, missing


@dataclass
class Outcome:
    """What a run brought.

    Attributes:
        samples: the values of every measurement.
        not_offered: workload → peer → why the peer has no such thing.
        failures: what went wrong, one text each.
    """

    samples: Samples = field(default_factory=dict)
    not_offered: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Take over what another run brought, of other workloads."""
        self.samples |= other.samples
        self.not_offered |= other.not_offered
        self.failures += other.failures


def run_rounds(
    sizes: dict[str, int],
    peers: list[str],
    rounds: int,
    cpu: int,
    on_progress: Callable[[str], None] = lambda text: None,
    measure: Measure | None = None,
) -> Outcome:
    """Measure every workload with every peer, `rounds` times.

    Within a round the peers follow each other directly, workload by workload,
    so that the values that are divided by one another were taken within
    seconds; each round begins with another peer.

    Args:
        sizes: workload → operations per measurement.
        on_progress: called after each measurement with its name.
        measure: takes workload, peer, size and core, and returns what `run_worker` does, which is the default.
    """
    outcome = Outcome({job: {peer: [] for peer in peers} for job in sizes}, {job: {} for job in sizes})
    for number in range(rounds):
        turn = number % len(peers)
        order = peers[turn:] + peers[:turn]
        for job, size in sizes.items():
            for peer in order:
                outcome.samples[job][peer].append(_measure(measure or run_worker, outcome, job, peer, size, cpu))
                on_progress(f"{job} · {peer}")
    return outcome


def _measure(measure: Measure, outcome: Outcome, job: str, peer: str, size: int, cpu: int) -> dict[str, float] | None:
    if peer in outcome.not_offered[job]:
        return None
    try:
        result = measure(job, peer, size, cpu)
    except MeasurementFailed as failure:
        outcome.failures.append(f"{job}, {peer}: {failure}")
        return None
    if reason := result.get("not_offered"):
        outcome.not_offered[job][peer] = reason
        return None
    return result["values"]
