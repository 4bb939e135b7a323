"""System calls per event, counted by strace."""

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .runner import MeasurementFailed, run_worker

# Two sizes are run and subtracted, so that what start and end cost drops out.
SIZES = (500, 2500)
JOBS = (
    "pipe_ping",
    "chained_calls",
    "fds_1000",
    "read_small",
    "write_small",
    "accept_close",
    "ping_64",
    "udp_64",
    "udp_one",
)

LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(?P<calls>\d+)\s+(?:\d+\s+)?(?P<name>[a-z]\w*)\s*$", re.MULTILINE)


def have_strace() -> bool:
    """Tell whether strace is installed."""
    return shutil.which("strace") is not None


def parse_counts(text: str) -> dict[str, int]:
    """Return system call → number of calls, from the table of ``strace -c``."""
    return {match["name"]: int(match["calls"]) for match in LINE.finditer(text) if match["name"] != "total"}


def count(job: str, peer: str, cpu: int) -> dict[str, float]:
    """Return system call → calls per event, for one workload and peer.

    Raises MeasurementFailed where strace may not trace.
    """
    small, large = (_traced(job, peer, size, cpu) for size in SIZES)
    events = SIZES[1] - SIZES[0]
    per_event = {name: (large[name] - small.get(name, 0)) / events for name in large}
    # A call now and then, of the interpreter's memory management for one.
    return {name: value for name, value in sorted(per_event.items()) if abs(value) >= 0.005}


def count_all(
    peers: Iterable[str], cpu: int, jobs: Iterable[str] = JOBS
) -> tuple[dict[str, dict[str, dict[str, float]]], list[str]]:
    """Return workload → peer → system call → calls per event, and what failed."""
    counts: dict[str, dict[str, dict[str, float]]] = {}
    failures = []
    peers = list(peers)
    for job in jobs:
        counts[job] = {}
        for peer in peers:
            try:
                counts[job][peer] = count(job, peer, cpu)
            except MeasurementFailed as failure:
                failures.append(f"strace of {job}, {peer}: {failure}")
    return counts, failures


def _traced(job: str, peer: str, size: int, cpu: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table")
        run_worker(job, peer, size, cpu, "--cold", prefix=["strace", "-f", "-c", "-o", str(table)])
        return parse_counts(table.read_text())
