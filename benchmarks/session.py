"""A whole run, with a progress bar: loops in processes of their own, then servers, then system calls."""

import argparse
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import kernel, record, syscalls
from .catalogue import JOBS
from .peers import PEERS
from .runner import Outcome, available, run_rounds
from .servers import cases, workshop
from .servers import run as servers
from .servers.cases import CASES

FULL_ROUNDS, QUICK_ROUNDS = 5, 1
FULL_SERVER_ROUNDS, QUICK_SERVER_ROUNDS = 5, 1
ALL_PEERS = tuple(dict.fromkeys([*PEERS, *cases.PEERS]))


class Session:
    """What a run brings.

    Args:
        console: for progress, and for the names of what is missing.
        options: of the command line, see `benchmarks.__main__`.
        cpu: the core that is measured on.
    """

    def __init__(self, console: Console, options: argparse.Namespace, cpu: int) -> None:
        self.console = console
        self.quick = options.quick
        self.rounds = options.rounds
        self.traces = not options.no_strace
        self.cpu = cpu
        self.peers = options.peers or ALL_PEERS
        self.outcome = Outcome()
        self.sizes: dict[str, int] = {}
        self.calls: dict[str, dict[str, dict[str, float]]] = {}
        self.in_c: dict[str, Any] = {}
        self.beside: list[str] = []
        wanted = options.only or [*JOBS, *(name for name, case in CASES.items() if case.quick or not self.quick)]
        self.jobs = [name for name in JOBS if name in wanted]
        self.cases = [name for name in CASES if name in wanted]
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Measure everything, and return the record."""
        begin = time.monotonic()
        self._add(available([peer for peer in self.peers if peer in (PEERS if self.jobs else cases.LOOPS)], self.cpu))
        # What this process does between measurements stays off the measured core.
        if others := os.sched_getaffinity(0) - {self.cpu}:
            os.sched_setaffinity(0, others)
        if self.traces and not syscalls.have_strace():
            self.traces = False
            self.beside.append("strace is not installed: system calls not counted")
        if self.jobs and self.versions:
            self._loops()
        if self.cases:
            with workshop.opened() as shop:
                self._servers(shop)
        if not self.versions:
            raise SystemExit("no peer works here")
        made = record.make(self.outcome, self.versions, self.missing, self.sizes, self.cpu, time.monotonic() - begin)
        return made | {
            "syscalls_per_event": self.calls,
            "pipe_ping_in_c": self.in_c,
            "failures_beside": self.beside,
        }

    def _loops(self) -> None:
        sizes = {name: JOBS[name].quick if self.quick else JOBS[name].full for name in self.jobs}
        self.sizes |= sizes
        rounds = self.rounds or (QUICK_ROUNDS if self.quick else FULL_ROUNDS)
        peers = list(self.versions)
        with self._progress("loops", rounds * len(sizes) * len(peers)) as advance:
            self.outcome.add(run_rounds(sizes, peers, rounds, self.cpu, advance))
        counted = [job for job in (syscalls.JOBS[:1] if self.quick else syscalls.JOBS) if job in sizes]
        if self.traces and counted:
            with self.console.status("counting system calls"):
                calls, failures = syscalls.count_all(peers, self.cpu, counted)
            # A peer that has no such operation starts and ends, and that is all.
            for job, by_peer in calls.items():
                without = self.outcome.not_offered.get(job, {})
                self.calls[job] = {peer: counts for peer, counts in by_peer.items() if peer not in without}
            self.beside += failures
        if "pipe_ping" in sizes:
            try:
                with self.console.status("the pipe ping in C"):
                    in_c = kernel.measure(10 * sizes["pipe_ping"], rounds, self.cpu)
                self.in_c = {method: asdict(spread) for method, spread in in_c.items()}
            except (kernel.NoCompiler, subprocess.CalledProcessError) as failure:
                self.beside.append(f"pipe ping in C: {failure}")

    def _servers(self, shop: workshop.Workshop) -> None:
        sizes = {name: CASES[name].quick or CASES[name].full for name in self.cases}
        if not self.quick:
            sizes = {name: CASES[name].full for name in self.cases}
        self.sizes |= sizes
        rounds = self.rounds or (QUICK_SERVER_ROUNDS if self.quick else FULL_SERVER_ROUNDS)
        self._add(servers.programs(self.peers, shop))
        self.beside += servers.lacking(shop)
        peers = [peer for peer in cases.PEERS if peer in self.versions]
        steps = sum(len(part) * times for part, times in servers.plan(sizes, rounds)) * len(peers)
        with self._progress("servers", steps) as advance:
            self.outcome.add(servers.run(sizes, peers, rounds, self.cpu, shop, advance))
        # The quick run counts where there is a target.
        counted = [name for name in self.cases if CASES[name].counted and (name == "echo_64_50" or not self.quick)]
        if self.traces and counted:
            with self.console.status("counting system calls of servers"):
                calls, outcome = servers.count_calls(counted, peers, self.cpu, shop, quick=self.quick)
            self.calls |= calls
            self.beside += outcome.failures
            self.outcome.samples |= outcome.samples

    def _add(self, found: tuple[dict[str, str], dict[str, str]]) -> None:
        versions, missing = found
        self.versions |= versions
        self.missing |= missing
        for peer, reason in missing.items():
            self.console.print(f"[bold red]{peer} is left out:[/] {reason}")

    @contextmanager
    def _progress(self, what: str, steps: int) -> Iterator[Callable[[str], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(what, total=steps)
            yield lambda text: progress.update(task, advance=1, description=f"{text:<32}")
