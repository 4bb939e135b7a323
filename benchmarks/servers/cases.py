"""The catalogue of servers: which cases run with how many requests, which rows the tables have, and the targets."""

from dataclasses import dataclass

from ..catalogue import BestPeerTarget, OwnTarget, PeerTarget, Row, Target
from ..peers import C_EPOLL, C_URING, REDIS

KIB, MIB = 1 << 10, 1 << 20
LOOPS = ("linux_event", "asyncio", "uvloop", "rloop")
PEERS = (*LOOPS, C_URING, C_EPOLL, REDIS)

# Cases whose system calls are counted are samples of their own, by this ending.
COUNTED = ", counted"


@dataclass(frozen=True)
class Case:
    """One thing that servers do.

    Attributes:
        name: on the command line and in the JSON file.
        title: in the tables.
        mode: of the server, see `benchmarks.servers.handlers.MODES`.
        client: what drives it: ``load``, ``wrk``, ``redis``.
        full, quick: requests per measurement, seconds with wrk; quick 0: not in the quick run.
        size: bytes of a request.
        connections: at once.
        transport: ``tcp``, ``unix`` or ``tls``.
        pipeline: requests that are sent without waiting for answers.
        command: of Redis.
        busy_poll: for linux_event, seconds.
        counted: requests for the counting of system calls, 0: not counted.
    """

    name: str
    title: str
    mode: str
    full: int
    quick: int = 0
    client: str = "load"
    size: int = 64
    connections: int = 50
    transport: str = "tcp"
    pipeline: int = 1
    command: str = ""
    busy_poll: float = 0.0
    counted: int = 0


OVER = {"": "", "unix": " over Unix sockets", "tls": " over TLS"}


def _size(size: int) -> tuple[str, str]:
    if size >= MIB:
        return f"{size // MIB}m", f"{size // MIB} MiB"
    return (f"{size // KIB}k", f"{size // KIB} KiB") if size >= KIB else (f"{size}", f"{size} B")


def _echo(size: int, connections: int, full: int, quick: int = 0, *, over: str = "", counted: int = 0) -> Case:
    key, bytes_ = _size(size)
    noun = "connection" if connections == 1 else "connections"
    return Case(
        f"echo{f'_{over}' if over else ''}_{key}_{connections}",
        f"echo{OVER[over]}, {bytes_}, {connections} {noun}",
        "echo",
        full,
        quick,
        size=size,
        connections=connections,
        transport=over or "tcp",
        counted=counted,
    )


def _redis(command: str, pipeline: int, full: int, quick: int = 0) -> Case:
    return Case(
        f"redis_{command}" + (f"_p{pipeline}" if pipeline > 1 else ""),
        f"Redis {command.upper()}" + (f", {pipeline} at once" if pipeline > 1 else ""),
        "redis",
        full,
        quick,
        "redis",
        command=command,
        pipeline=pipeline,
        counted=20_000 if command == "get" else 0,
    )


CASES = {
    case.name: case
    for case in (
        _echo(64, 1, 15_000, 5_000, counted=2_000),
        _echo(64, 50, 250_000, 40_000, counted=20_000),
        _echo(64, 500, 60_000),
        _echo(KIB, 1, 15_000),
        _echo(KIB, 50, 60_000),
        _echo(KIB, 500, 60_000),
        _echo(16 * KIB, 1, 12_000),
        _echo(16 * KIB, 50, 40_000, 10_000, counted=5_000),
        _echo(16 * KIB, 500, 30_000),
        _echo(100 * KIB, 1, 6_000),
        _echo(100 * KIB, 50, 12_000, 3_000, counted=2_000),
        _echo(100 * KIB, 500, 8_000),
        _echo(MIB, 1, 800),
        _echo(MIB, 50, 800, counted=200),
        _echo(MIB, 500, 1_000),
        _echo(64, 50, 60_000, over="unix"),
        _echo(16 * KIB, 50, 30_000, over="unix"),
        _echo(64, 1, 6_000, over="tls"),
        _echo(64, 50, 12_000, over="tls", counted=2_000),
        _echo(16 * KIB, 1, 3_000, over="tls"),
        _echo(16 * KIB, 50, 6_000, over="tls"),
        _echo(MIB, 1, 100, over="tls"),
        _echo(MIB, 50, 150, over="tls"),
        Case("echo_busy", "echo, 64 B, 1 connection, busy_poll", "echo", 15_000, connections=1, busy_poll=0.001),
        Case("http", "HTTP GET by wrk", "http", 2, 1, "wrk", counted=2),
        _redis("set", 1, 40_000),
        _redis("get", 1, 40_000, 20_000),
        _redis("set", 16, 200_000),
        _redis("get", 16, 200_000, 60_000),
        Case("broadcast", "broadcast to 1 000 connections", "broadcast", 150, 40, connections=1000, counted=50),
        Case("churn", "connection accepted and closed", "close", 12_000, 3_000, size=0, connections=8, counted=2_000),
    )
}

BIG_PER_UVLOOP = {"echo_16k_1", "echo_16k_50", "echo_16k_500", "echo_100k_1", "echo_100k_50", "echo_100k_500"}


def _target(case: Case) -> Target | None:
    if case.name == "echo_64_50":
        return PeerTarget("uvloop", 0.8)
    if case.name in BIG_PER_UVLOOP:
        return PeerTarget("uvloop", 1.0)
    return BestPeerTarget(0.8) if case.name in ("broadcast", "churn") else None


def with_target(case: Case) -> bool:
    """Tell whether there is a target for the case, so that it is measured more often."""
    return case.name in LATENCY_TARGETS or _target(case) is not None


LATENCY_TARGETS = {"echo_64_1": PeerTarget("uvloop", 1.0), "echo_busy": PeerTarget("uvloop", 0.6)}


def _processor_rows() -> list[Row]:
    rows = []
    for case in CASES.values():
        rows.append(Row(case.name, case.title, case.name, unit="µs", scale=1e3, target=_target(case)))
        if case.name == "echo_64_50":
            in_c = PeerTarget(C_URING, 1.08)
            rows.append(Row("echo_64_50_c", "echo, 64 B, 50 connections, against C", case.name, "cpu", "µs", 1e3, in_c))
            user = PeerTarget("uvloop", 0.35)
            rows.append(
                Row(
                    "echo_64_50_user", "echo, 64 B, 50 connections, user mode alone", case.name, "user", "µs", 1e3, user
                )
            )
    return rows


def _latency_rows() -> list[Row]:
    rows = []
    for case in CASES.values():
        for metric in ("p50", "p99"):
            target = LATENCY_TARGETS.get(case.name) if metric == "p50" else None
            rows.append(Row(f"{case.name}_{metric}", f"{case.title}, {metric}", case.name, metric, "µs", 1e3, target))
    return rows


def _counted_rows() -> list[Row]:
    targets = {"echo_64_50": OwnTarget(0.1)}
    return [
        Row(f"{name}_calls", case.title, name + COUNTED, "calls", "", target=targets.get(name))
        for name, case in CASES.items()
        if case.counted
    ]


CPU_ROWS = tuple(_processor_rows())
ELAPSED_ROWS = tuple(Row(row.key, row.title, row.workload, "wall", "µs", 1e3) for row in CPU_ROWS if row.key in CASES)
LATENCY_ROWS = tuple(_latency_rows())
COUNTED_ROWS = tuple(_counted_rows())

ALL_ROWS = (*CPU_ROWS, *ELAPSED_ROWS, *LATENCY_ROWS, *COUNTED_ROWS)

# Title → rows, as the tables are printed.
TABLES = {
    "Servers: processor time per request, medians": CPU_ROWS,
    "Servers: elapsed time per request, medians": ELAPSED_ROWS,
    "Servers: latency, medians of the rounds": LATENCY_ROWS,
    "Servers: system calls per request": COUNTED_ROWS,
}

ECHO = tuple(row.key for row in CPU_ROWS if row.key.startswith("echo") and row.key != "echo_busy")
SERVICES = ("http", *(name for name in CASES if name.startswith("redis")), "broadcast", "churn")
# Name of a picture → the rows that it shows.
PICTURES = {
    "echo": tuple(key for key in ECHO if "_tls_" not in key and key != "echo_64_50_c"),
    "services": (*(key for key in ECHO if "_tls_" in key), *SERVICES),
    "latency": tuple(row.key for row in LATENCY_ROWS if row.metric == "p50" and "_tls_" not in row.key),
}
