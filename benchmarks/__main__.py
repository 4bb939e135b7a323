"""Command line: ``python -m benchmarks [--quick]``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from . import record, tables
from .catalogue import JOBS, ROWS, WALL_ROWS, Row
from .peers import OURS
from .runner import choose_cpu
from .servers import cases
from .servers.cases import CASES
from .session import ALL_PEERS, FULL_ROUNDS, QUICK_ROUNDS, Session
from .summary import Result

RESULTS = Path(__file__).resolve().parent / "results"
TABLE_WIDTH = 190
TABLES = {
    "Processor time and memory per operation, medians": ROWS,
    "Elapsed time per operation, medians": WALL_ROWS,
    **cases.TABLES,
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
    **{case.name: case.title for case in CASES.values()},
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
    run = Session(console, options, cpu).run()
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
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds, about a minute")
    parser.add_argument("--rounds", type=int, help=f"default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument(
        "--only", nargs="+", choices=[*JOBS, *CASES], metavar="WORKLOAD", help=f"of {', '.join([*JOBS, *CASES])}"
    )
    parser.add_argument("--peers", nargs="+", choices=ALL_PEERS, metavar="PEER", help=f"of {', '.join(ALL_PEERS)}")
    parser.add_argument("--cpu", type=int, help="the core to measure on, default the last")
    parser.add_argument("--no-strace", action="store_true", help="do not count system calls")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--name", help="file name of the results, default full or quick")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of an earlier run's JSON file")
    parser.add_argument("--markdown", action="store_true", help="with --show: in Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="with --show: draw the picture too")
    return parser.parse_args()


def _print_report(console: Console, run: dict[str, Any]) -> None:
    peers = list(run["peers"])
    # A table that is cut off at the edge tells less than one that is wrapped by the terminal.
    console = Console(width=max(console.width, TABLE_WIDTH))
    console.print(record.caption(run))
    for title, results in _results(run):
        tables.print_results(console, title, results, _with_values(results, peers))
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
    for title, results in _results(run):
        print(f"{title}:\n\n{tables.markdown_results(results, _with_values(results, peers))}")
    print(f"System calls per event:\n\n{tables.markdown_syscalls(run['syscalls_per_event'], TITLES, peers)}")
    print(_in_c(run))


def _results(run: dict[str, Any]) -> list[tuple[str, list[Result]]]:
    """Return the tables that the run has something for."""
    found = ((title, record.results(run, rows)) for title, rows in TABLES.items())
    return [(title, results) for title, results in found if results]


def _with_values(results: list[Result], peers: list[str]) -> list[str]:
    return [peer for peer in peers if any(peer in result.values for result in results)]


def _in_c(run: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{method} {tables.number(spread['median'])}" for method, spread in run["pipe_ping_in_c"].items()
    )
    return f"Pipe ping in C, ns per event by how readiness is learnt: {figures}" if figures else ""


def _draw(console: Console, run: dict[str, Any], path: Path) -> None:
    try:
        from . import curves, picture
    except ImportError as error:
        console.print(f"no picture: {error}")
        return
    themes: dict[str, tuple[Sequence[Row], Sequence[str]]] = {"": (ROWS, picture.BARS)}
    themes |= {f"-{name}": ((*cases.CPU_ROWS, *cases.LATENCY_ROWS), keys) for name, keys in cases.PICTURES.items()}
    for ending, (rows, keys) in themes.items():
        results = [result for result in record.results(run, rows) if result.values]
        if any(result.row.key in keys for result in results):
            file = path.with_stem(path.stem + ending)
            shown = {result.row.key: result for result in results}
            picture.draw(shown, list(run["peers"]), record.caption(run), file, keys)
            console.print(f"written: {file}")
    shown = {result.row.key: result for result in record.results(run, (*ROWS, *cases.CPU_ROWS)) if result.values}
    if curves.possible(shown):
        file = path.with_stem(f"{path.stem}-curves")
        curves.draw(shown, list(run["peers"]), record.caption(run), file)
        console.print(f"written: {file}")


if __name__ == "__main__":
    sys.exit(main())
