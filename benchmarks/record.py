"""The record of a run: what is written as JSON, and results read back from it."""

import datetime
from collections.abc import Sequence
from typing import Any

from . import machine
from .catalogue import ROWS, WALL_ROWS, Row
from .runner import Outcome
from .servers.cases import TABLES
from .summary import Result, summarise


def make(
    outcome: Outcome,
    versions: dict[str, str],
    missing: dict[str, str],
    sizes: dict[str, int],
    cpu: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the record of a run, as data that JSON can hold.

    Args:
        outcome: what was measured.
        versions, missing: see `benchmarks.runner.available`.
        sizes: workload → operations per measurement.
        cpu: the core measured on.
        seconds: how long it took.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "measured_on_core": cpu,
        "seconds": round(seconds),
        "peers": versions,
        "missing_peers": missing,
        "rounds": max((len(rounds) for by_peer in outcome.samples.values() for rounds in by_peer.values()), default=0),
        "sizes": sizes,
        "processor_time_and_memory": _as_json(ROWS, outcome),
        "elapsed_time": _as_json(WALL_ROWS, outcome),
        "servers": {title: _as_json(rows, outcome) for title, rows in TABLES.items()},
        "not_offered": {job: reasons for job, reasons in outcome.not_offered.items() if reasons},
        "failures": outcome.failures,
        "samples": outcome.samples,
    }


def results(record: dict[str, Any], rows: Sequence[Row]) -> list[Result]:
    """Return the results of those rows that the record has samples of."""
    return [summarise(row, record["samples"]) for row in rows if row.workload in record["samples"]]


def caption(record: dict[str, Any]) -> str:
    """Return one line on when, where and with what the run was made."""
    machine_record = record["machine"]
    versions = dict.fromkeys(version for version in record["peers"].values() if not version.startswith("Python "))
    parts = [
        record["date"][:10],
        f"{machine_record['processor']}, Linux {machine_record['kernel']}, {machine_record['python']}",
        ", ".join(versions),
        f"{record['rounds']} rounds",
    ]
    return " · ".join(parts)


def _as_json(rows: Sequence[Row], outcome: Outcome) -> dict[str, Any]:
    return {row.key: summarise(row, outcome.samples).as_json() for row in rows if row.workload in outcome.samples}
