"""One measurement of a server: started on one core, driven from another, and asked what the steady part has taken."""

import csv
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..peers import C_EPOLL, C_URING, REDIS
from ..runner import MeasurementFailed
from ..syscalls import parse_counts
from .cases import Case
from .process import TIMEOUT_SECONDS, NotOffered, Program, other_cpus
from .workshop import Workshop

IN_C = {C_URING: "server_uring", C_EPOLL: "server_epoll"}
LOAD_MODES = {"echo": "echo", "broadcast": "broadcast", "close": "churn"}
PERCENTILES = ("p50", "p90", "p99", "p999", "max", "mean")
# What wrk prints: "50%  181.00us", "15000 requests in 2.10s".
WRK_LATENCY = re.compile(r"^\s*(50|75|90|99)%\s+([\d.]+)(us|ms|s)\s*$", re.MULTILINE)
WRK_REQUESTS = re.compile(r"(\d+) requests in ([\d.]+)(s|m)")
WRK_ERRORS = re.compile(r"Socket errors:.*|Non-2xx.*")
UNITS_NS = {"us": 1e3, "ms": 1e6, "s": 1e9}

# Runs the requests, and returns their number, the elapsed nanoseconds, and latencies in nanoseconds.
Run = Callable[[], tuple[int, float, dict[str, float]]]


def measure(case: Case, peer: str, requests: int, cpu: int, workshop: Workshop) -> dict[str, Any]:
    """Measure one case with one peer.

    Args:
        case, requests: what is to be done how often. With wrk the requests are seconds.
        peer: one of `benchmarks.servers.cases.PEERS`.
        cpu: the core of the server; the client has the others.

    Returns ``{"values": {...}}``, as `benchmarks.worker` prints it: ``cpu``, ``user`` and ``wall`` are nanoseconds per
    request, ``p50`` and so on nanoseconds; or ``{"not_offered": reason}``. Raises MeasurementFailed.
    """
    try:
        with (
            _server(case, peer, cpu, workshop) as (server, address),
            _client(case, address, requests, cpu, workshop) as run,
        ):
            before = server.times()
            done, elapsed, latencies = run()
            spent = server.times() - before
    except NotOffered as reason:
        return {"not_offered": str(reason)}
    values = {"cpu": spent.total / done, "user": spent.user / done, "wall": elapsed / done}
    return {"values": values | latencies}


def count(case: Case, peer: str, requests: int, cpu: int, workshop: Workshop) -> dict[str, float]:
    """Return system call → calls per request, in a run under ``strace -c``.

    Raises MeasurementFailed where strace may not trace, and NotOffered.
    """
    with (
        _server(case, peer, cpu, workshop) as (server, address),
        _client(case, address, requests, cpu, workshop) as run,
    ):
        table = workshop.folder / "table"
        command = ["strace", "-f", "-c", "-o", str(table), "-p", str(server.pid)]
        with Program(command, other_cpus(cpu)) as tracer:
            while "attached" not in (line := tracer.line("stderr")):
                if "ptrace" in line:
                    raise MeasurementFailed(line)
            done = run()[0]
            tracer.process.send_signal(signal.SIGINT)
            try:
                tracer.process.communicate(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                raise MeasurementFailed("strace: does not end") from None
    per_request = {name: calls / done for name, calls in sorted(parse_counts(table.read_text()).items())}
    return {name: value for name, value in per_request.items() if value >= 0.005}


@contextmanager
def _server(case: Case, peer: str, cpu: int, workshop: Workshop) -> Iterator[tuple[Program, str]]:
    """Start the server, and give it with its address when it listens."""
    path = workshop.folder / "socket"
    path.unlink(missing_ok=True)
    address = f"unix:{path}" if case.transport == "unix" else "tcp:0"
    if peer == REDIS:
        with _redis_server(case, cpu, workshop) as server:
            yield server
        return
    if peer in IN_C:
        if case.mode == "redis" or case.transport == "tls":
            raise NotOffered(f"no {case.mode if case.mode == 'redis' else 'TLS'} in C")
        command = [str(_needed(workshop, IN_C[peer])), case.mode, address]
    else:
        command = [sys.executable, "-m", __package__, peer, case.mode, address]
        if case.transport == "tls":
            _needed(workshop, "tls")
            command += ["--tls", str(workshop.certificate)]
        if case.busy_poll and peer == "linux_event":
            command += ["--busy-poll", str(case.busy_poll)]
    with Program(command, {cpu}) as server:
        _word, _, where = server.line().partition(" ")
        yield server, f"unix:{where}" if case.transport == "unix" else f"tcp:{where}"


@contextmanager
def _redis_server(case: Case, cpu: int, workshop: Workshop) -> Iterator[tuple[Program, str]]:
    if case.mode != "redis":
        raise NotOffered("it speaks nothing but its own protocol")
    program = str(_needed(workshop, "redis-server"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no"]
    with Program([*command, "--dir", str(workshop.folder)], {cpu}) as server:
        while "eady to accept connections" not in server.line():
            pass
        yield server, f"tcp:{port}"


@contextmanager
def _client(case: Case, address: str, requests: int, cpu: int, workshop: Workshop) -> Iterator[Run]:
    """Make the client ready, and give what runs it."""
    cpus = other_cpus(cpu)
    if case.client == "load":
        with Program(_load_command(case, address, requests, workshop), cpus) as load:
            if (line := load.line()) != "ready":
                raise MeasurementFailed(f"{load.name}: {line}")
            yield lambda: _load(load)
    elif case.client == "wrk":
        url = f"http://127.0.0.1:{address.partition(':')[2]}/"
        command = [str(_needed(workshop, "wrk")), "-t1", f"-c{case.connections}", f"-d{requests}s", "--latency", url]
        yield lambda: parse_wrk(_whole(command, cpus))
    else:
        command = [str(_needed(workshop, "redis-benchmark")), "-p", address.partition(":")[2], "-t", case.command]
        command += ["-n", str(requests), "-c", str(case.connections), "-P", str(case.pipeline), "--csv"]
        yield lambda: parse_redis(_whole(command, cpus), requests)


def _load_command(case: Case, address: str, requests: int, workshop: Workshop) -> list[str]:
    numbers = {
        "connections": case.connections,
        "size": case.size,
        "requests": requests,
        "warmup": max(1 if case.mode == "broadcast" else case.connections, requests // 10),
        "depth": case.pipeline,
    }
    options = [LOAD_MODES[case.mode], address]
    options += [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    if case.transport == "tls" or "load" not in workshop.programs:
        tls = ["--tls", str(workshop.authority)] if case.transport == "tls" else []
        return [sys.executable, "-m", f"{__package__}.client", *options, *tls]
    return [str(workshop.programs["load"]), *options]


def _load(load: Program) -> tuple[int, float, dict[str, float]]:
    load.say()
    result = json.loads(load.line())
    if result["errors"]:
        raise MeasurementFailed(f"{load.name}: {result['errors']} of {result['requests']} requests failed")
    return result["requests"], result["seconds"] * 1e9, {name: result[name] * 1e3 for name in PERCENTILES}


def _whole(command: list[str], cpus: set[int]) -> str:
    """Run a program to its end, and return what it prints."""
    with Program(command, cpus) as program:
        try:
            printed, complaints = program.process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"{program.name}: no result within {TIMEOUT_SECONDS} s") from None
        if program.process.returncode:
            raise MeasurementFailed(f"{program.name}: {complaints.decode(errors='replace').strip()}")
        return printed.decode()


def parse_wrk(text: str) -> tuple[int, float, dict[str, float]]:
    """Return what ``wrk --latency`` says: requests, elapsed nanoseconds, latencies in nanoseconds."""
    if errors := WRK_ERRORS.search(text):
        raise MeasurementFailed(f"wrk: {errors[0].strip()}")
    done = WRK_REQUESTS.search(text)
    if done is None or done[1] == "0":
        raise MeasurementFailed(f"wrk: {text.strip() or 'nothing said'}")
    latencies = {f"p{percent}": float(value) * UNITS_NS[unit] for percent, value, unit in WRK_LATENCY.findall(text)}
    return int(done[1]), float(done[2]) * (60e9 if done[3] == "m" else 1e9), latencies


def parse_redis(text: str, requests: int) -> tuple[int, float, dict[str, float]]:
    """Return what ``redis-benchmark --csv`` says of `requests`, as `parse_wrk`."""
    rows = list(csv.DictReader(text.splitlines()))
    if len(rows) != 1:
        raise MeasurementFailed(f"redis-benchmark: {text.strip() or 'nothing said'}")
    latencies = {name: float(rows[0][f"{name}_latency_ms"]) * 1e6 for name in ("p50", "p95", "p99", "max")}
    return requests, requests / float(rows[0]["rps"]) * 1e9, latencies


def _needed(workshop: Workshop, name: str) -> Path:
    if name in workshop.lacks:
        raise NotOffered(f"{name}: {workshop.lacks[name]}")
    return workshop.programs.get(name, workshop.folder)
