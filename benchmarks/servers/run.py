"""A run of servers: which peers can be started, rounds of measurements, system calls counted."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

from ..peers import REDIS
from ..runner import MeasurementFailed, Outcome, run_rounds
from .cases import CASES, COUNTED, with_target
from .measure import IN_C, count, measure
from .process import NotOffered
from .workshop import Workshop

# A run of so many rounds has this share of them for what has no target.
INFORMATION = 0.4


def programs(peers: Iterable[str], workshop: Workshop) -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of those peers that are programs and not loops of Python, and why the others are missing."""
    versions, missing = {}, {}
    for peer in peers:
        program = IN_C.get(peer, peer)
        if program not in (*IN_C.values(), REDIS):
            continue
        if program in workshop.lacks:
            missing[peer] = workshop.lacks[program]
        else:
            versions[peer] = _version(str(workshop.programs[REDIS]) if peer == REDIS else "")
    return versions, missing


def lacking(workshop: Workshop) -> list[str]:
    """Return what is not there of the tools, one text each."""
    tools = {"load": "the client in C", "wrk": "wrk", "redis-benchmark": "redis-benchmark", "tls": "TLS"}
    return [f"{title}: {workshop.lacks[name]}" for name, title in tools.items() if name in workshop.lacks]


def run(
    sizes: dict[str, int],
    peers: list[str],
    rounds: int,
    cpu: int,
    workshop: Workshop,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Measure the cases, those with a target `rounds` times, and the others less often.

    Args:
        sizes: case → requests per measurement.
        peers: those of `benchmarks.servers.cases.PEERS` that there are.
        rounds, cpu, on_progress: see `benchmarks.runner.run_rounds`.
    """

    def one(name: str, peer: str, size: int, core: int) -> dict[str, Any]:
        return measure(CASES[name], peer, size, core, workshop)

    outcome = Outcome()
    for part, times in plan(sizes, rounds):
        outcome.add(run_rounds(part, peers, times, cpu, on_progress, one))
    return outcome


def plan(sizes: dict[str, int], rounds: int) -> list[tuple[dict[str, int], int]]:
    """Return what is measured how many times: cases with their sizes, and rounds."""
    aimed = {name: size for name, size in sizes.items() if with_target(CASES[name])}
    rest = {name: size for name, size in sizes.items() if name not in aimed}
    return [(aimed, rounds), (rest, max(1, round(INFORMATION * rounds)))]


def count_calls(
    names: Iterable[str], peers: Iterable[str], cpu: int, workshop: Workshop, *, quick: bool
) -> tuple[dict[str, dict[str, dict[str, float]]], Outcome]:
    """Return case → peer → system call → calls per request, and their sums as samples, by `COUNTED`."""
    calls: dict[str, dict[str, dict[str, float]]] = {}
    outcome = Outcome()
    for name in names:
        case = CASES[name]
        by_peer = calls[name] = {}
        for peer in peers:
            try:
                requests = max(1, case.counted // (4 if quick else 1))
                by_peer[peer] = count(case, peer, requests, cpu, workshop)
            except MeasurementFailed as failure:
                outcome.failures.append(f"strace of {name}, {peer}: {failure}")
            except NotOffered:
                pass
        outcome.samples[name + COUNTED] = {peer: [{"calls": sum(counts.values())}] for peer, counts in by_peer.items()}
    return calls, outcome


def _version(redis: str) -> str:
    if redis:
        words = subprocess.run([redis, "--version"], capture_output=True, text=True).stdout.split()
        return "Redis " + next((word[2:] for word in words if word.startswith("v=")), "")
    compiler = os.environ.get("CC", "cc").split()[0]
    told = subprocess.run([shutil.which(compiler) or compiler, "-dumpfullversion"], capture_output=True, text=True)
    return f"{compiler} {told.stdout.strip()}"
