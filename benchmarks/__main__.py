"""Command line: ``python -m benchmarks [--quick]``."""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import kernel, record, syscalls, tables
from .catalogue import JOBS, ROWS, WALL_ROWS
from .peers import OURS, PEERS
from .runner import Outcome, available, choose_cpu, run_rounds

RESULTS = Path(__file__).resolve().parent / "results"
FULL_ROUNDS, QUICK_ROUNDS = 11, 3
TABLE_WIDTH = 170
TABLES = {
    "Processor time and memory per operation, medians": ROWS,
    "Elapsed time per operation, medians": WALL_ROWS,
}
TITLES = {
    "pipe_ping": "pipe ping",
    "chained_calls": "chained call",
    "fds_1000": "event among 1 000 fds",
    "read_small": "read_file",
    "write_small": "write_file",
    "accept_close": "accept + close",
    "ping_64": "there and back, 64 B",
    "udp_64": "UDP echo",
    "udp_one": "UDP echo, one at a time",
}


def main() -> int:
    """Measure, print, and write the results; return the exit status."""
    options = _parse()
    console = Console()
    if options.show:
        run = json.loads(options.show.read_text())
        _print_markdown(run) if options.markdown else _print_report(console, run)
        if options.picture:
            _draw(console, run, options.picture)
        return 0
    cpu = choose_cpu() if options.cpu is None else options.cpu
    run = _measure(console, options, cpu)
    name = options.name or ("quick" if options.quick else "full")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{name}.json"
    path.write_text(json.dumps(run, indent=1) + "\n")
    _print_report(console, run)
    _draw(console, run, path.with_suffix(".png"))
    console.print(f"written: {path}")
    # A missed target is a result; a measurement that failed is an error.
    return 1 if run["failures"] or OURS in run["missing_peers"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare linux_event with other event loops."
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--rounds", type=int, help=f"default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--only", nargs="+", choices=JOBS, metavar="WORKLOAD", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--cpu", type=int, help="the core to measure on, default the last")
    parser.add_argument("--no-strace", action="store_true", help="do not count system calls")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--name", help="file name of the results, default full or quick")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of an earlier run's JSON file")
    parser.add_argument("--markdown", action="store_true", help="with --show: in Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="with --show: draw the picture too")
    return parser.parse_args()


def _measure(console: Console, options: argparse.Namespace, cpu: int) -> dict[str, Any]:
    # What this process does between measurements stays off the measured core.
    others = os.sched_getaffinity(0) - {cpu}
    versions, missing = available(options.peers or PEERS, cpu)
    if others:
        os.sched_setaffinity(0, others)
    for peer, reason in missing.items():
        console.print(f"[bold red]{peer} is left out:[/] {reason}")
    if not versions:
        raise SystemExit("no peer works here")
    sizes = {name: job.quick if options.quick else job.full for name, job in JOBS.items()}
    sizes = {name: size for name, size in sizes.items() if not options.only or name in options.only}
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    begin = time.monotonic()
    outcome = _run_with_progress(console, sizes, list(versions), rounds, cpu)
    counted = [job for job in (syscalls.JOBS[:1] if options.quick else syscalls.JOBS) if job in sizes]
    if options.no_strace:
        calls, strace_failures = {}, []
    elif not syscalls.have_strace():
        calls, strace_failures = {}, ["strace is not installed: system calls not counted"]
    else:
        with console.status("counting system calls"):
            calls, strace_failures = syscalls.count_all(versions, cpu, counted)
            # A peer that has no such operation starts and ends, and that is all.
            calls = {
                job: {peer: calls for peer, calls in by_peer.items() if peer not in outcome.not_offered.get(job, {})}
                for job, by_peer in calls.items()
            }
    in_c, kernel_failures = {}, []
    if "pipe_ping" in sizes:
        try:
            with console.status("the pipe ping in C"):
                in_c = kernel.measure(10 * sizes["pipe_ping"], rounds, cpu)
        except (kernel.NoCompiler, subprocess.CalledProcessError) as failure:
            kernel_failures.append(f"pipe ping in C: {failure}")
    return record.make(outcome, versions, missing, sizes, cpu, time.monotonic() - begin) | {
        "syscalls_per_event": calls,
        "pipe_ping_in_c": {method: asdict(spread) for method, spread in in_c.items()},
        "failures_beside": strace_failures + kernel_failures,
    }


def _run_with_progress(console: Console, sizes: dict[str, int], peers: list[str], rounds: int, cpu: int) -> Outcome:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(sizes) * len(peers))
        return run_rounds(
            sizes, peers, rounds, cpu, lambda text: progress.update(task, advance=1, description=f"{text:<32}")
        )


def _print_report(console: Console, run: dict[str, Any]) -> None:
    peers = list(run["peers"])
    # A table that is cut off at the edge tells less than one that is wrapped by the terminal.
    console = Console(width=max(console.width, TABLE_WIDTH))
    console.print(record.caption(run))
    for title, rows in TABLES.items():
        tables.print_results(console, title, record.results(run, rows), peers)
    if run["syscalls_per_event"]:
        tables.print_syscalls(console, run["syscalls_per_event"], TITLES, peers)
    console.print(_in_c(run))
    for peer, reason in run["missing_peers"].items():
        console.print(f"[bold red]{peer} is left out:[/] {reason}")
    for failure in run["failures"] + run["failures_beside"]:
        console.print(f"[bold red]failed:[/] {failure}")


def _print_markdown(run: dict[str, Any]) -> None:
    peers = list(run["peers"])
    print(f"{record.caption(run)}\n")
    for title, rows in TABLES.items():
        print(f"{title}:\n\n{tables.markdown_results(record.results(run, rows), peers)}")
    print(f"System calls per event:\n\n{tables.markdown_syscalls(run['syscalls_per_event'], TITLES, peers)}")
    print(_in_c(run))


def _in_c(run: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{method} {tables.number(spread['median'])}" for method, spread in run["pipe_ping_in_c"].items()
    )
    return f"Pipe ping in C, ns per event by how readiness is learnt: {figures}" if figures else ""


def _draw(console: Console, run: dict[str, Any], path: Path) -> None:
    try:
        from . import picture
    except ImportError as error:
        console.print(f"no picture: {error}")
        return
    shown = {result.row.key: result for result in record.results(run, ROWS) if result.values}
    picture.draw(shown, list(run["peers"]), record.caption(run), path)
    console.print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
