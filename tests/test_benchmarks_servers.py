"""The benchmarks of servers: every case at a tiny size, the clients, and what is read from other programs."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("an installed package comes without its benchmarks", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import record, runner, syscalls  # noqa: E402
from benchmarks.catalogue import JOBS  # noqa: E402
from benchmarks.catalogue import ROWS as LOOP_ROWS  # noqa: E402
from benchmarks.peers import C_EPOLL, C_URING, FLOORS, OURS, REDIS  # noqa: E402
from benchmarks.servers import cases, measure, process, run, workshop  # noqa: E402
from benchmarks.servers.cases import CASES  # noqa: E402
from benchmarks.servers.handlers import Http, Redis  # noqa: E402

ASYNCIO = "asyncio"
IN_C = (C_URING, C_EPOLL)
# One of each kind, with the smallest sizes that are still that kind.
TINY = {
    "echo_64_1": 20,
    "echo_64_50": 100,
    "echo_1m_1": 2,
    "echo_unix_64_50": 100,
    "echo_tls_64_1": 10,
    "echo_tls_1m_1": 1,
    "echo_busy": 20,
    "http": 1,
    "redis_set": 100,
    "redis_get_p16": 320,
    "broadcast": 2,
    "churn": 30,
}
LATENCIES = {
    "load": {"p50", "p90", "p99", "p999", "max", "mean"},
    "wrk": {"p50", "p90", "p99"},
    "redis": {"p50", "p99"},
}


@pytest.fixture(scope="module")
def shop():
    with workshop.opened() as opened:
        yield opened


def measured(shop, name, peer, requests=0, **others):
    """The values of a case, or skip where this machine lacks what it needs."""
    case = CASES[name]
    tools = {"wrk": "wrk", "redis": "redis-benchmark", "load": ""}
    for tool in (tools[case.client], "tls" if case.transport == "tls" else "", measure.IN_C.get(peer, "")):
        if tool in shop.lacks:
            pytest.skip(f"{tool}: {shop.lacks[tool]}")
    if peer not in cases.PEERS or (peer in cases.LOOPS and find_spec(peer) is None):
        pytest.skip(f"needs {peer}")
    return measure.measure(case, peer, requests or TINY[name], runner.choose_cpu(), shop)


@pytest.mark.parametrize("peer", [OURS, ASYNCIO, *IN_C])
@pytest.mark.parametrize("name", TINY)
def test_every_kind_of_case_runs(shop, name, peer):
    result = measured(shop, name, peer)
    if peer in IN_C and (CASES[name].transport == "tls" or CASES[name].mode == "redis"):
        assert "not_offered" in result
        return
    values = result["values"]
    assert values.keys() >= {"cpu", "user", "wall"} | LATENCIES[CASES[name].client]
    # The clock of a server that polls all the time lags by some milliseconds, which is all there is here.
    assert values["cpu"] > 0 or name == "echo_busy"
    assert values["user"] >= 0
    assert 0 < values["p50"] <= values["p99"]


@pytest.mark.parametrize("name", ["echo_64_50", "echo_unix_64_50", "broadcast", "churn"])
def test_the_client_in_python_does_the_same(shop, name):
    without = workshop.Workshop(shop.folder, {}, {"load": "not wanted"})
    values = measured(without, name, OURS)["values"]
    assert values["cpu"] > 0
    assert 0 < values["p50"] <= values["max"]


@pytest.mark.parametrize("peer", ["uvloop", "rloop"])
@pytest.mark.parametrize("name", ["echo_64_50", "http", "redis_set", "broadcast"])
def test_other_loops_serve(shop, name, peer):
    assert measured(shop, name, peer)["values"]["cpu"] > 0


def test_what_a_loop_has_not_is_not_offered(shop):
    assert "rloop" in measured(shop, "echo_tls_64_1", "rloop")["not_offered"]
    assert "not_offered" in measured(shop, "echo_64_1", REDIS)


def test_a_server_that_fails_is_a_failure(shop, monkeypatch):
    monkeypatch.setattr(measure, "__package__", "benchmarks.absent")
    with pytest.raises(runner.MeasurementFailed, match=r"exit status 1.*No module named"):
        measured(shop, "echo_64_1", OURS)


def test_what_was_not_built_is_not_offered(shop):
    without = workshop.Workshop(shop.folder, {}, {"server_epoll": "no C compiler", "wrk": "not installed"})
    cpu = runner.choose_cpu()
    assert measure.measure(CASES["echo_64_1"], C_EPOLL, 1, cpu, without) == {
        "not_offered": "server_epoll: no C compiler"
    }
    assert measure.measure(CASES["http"], ASYNCIO, 1, cpu, without) == {"not_offered": "wrk: not installed"}
    assert run.programs([ASYNCIO, C_URING, C_EPOLL], without)[1] == {C_EPOLL: "no C compiler"}
    assert run.lacking(without) == ["wrk: not installed"]


@pytest.mark.parametrize("peer", [OURS, C_EPOLL])
def test_system_calls_of_the_steady_part_are_counted(shop, peer):
    if not syscalls.have_strace():
        pytest.skip("needs strace")
    if peer == C_EPOLL and "server_epoll" in shop.lacks:
        pytest.skip(shop.lacks["server_epoll"])
    try:
        calls = measure.count(CASES["echo_64_1"], peer, 200, runner.choose_cpu(), shop)
    except runner.MeasurementFailed as failure:
        if "ptrace" in str(failure):
            pytest.skip(str(failure))
        raise
    # Nothing of the start: one wait, and sends and receives of one connection.
    assert calls.keys() == ({"io_uring_enter"} if peer == OURS else {"epoll_wait", "recvfrom", "sendto"})
    assert 0.9 <= min(calls.values()) <= max(calls.values()) < 3.5


@pytest.mark.skipif(not find_spec("rich") or not find_spec("matplotlib"), reason="needs rich and matplotlib")
def test_a_run_of_servers_is_measured_recorded_and_drawn(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-strace", "--output", str(tmp_path)]
    command += ["--only", "echo_64_1", "--peers", OURS, ASYNCIO, REDIS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo, 64 B, 1 connection" in done.stdout
    run = json.loads((tmp_path / "quick.json").read_text())
    assert run["failures"] == []
    assert run["sizes"] == {"echo_64_1": CASES["echo_64_1"].quick}
    assert run["peers"].keys() | run["missing_peers"].keys() == {OURS, ASYNCIO, REDIS}
    latencies = run["servers"]["Servers: latency, medians of the rounds"]
    assert latencies.keys() == {"echo_64_1_p50", "echo_64_1_p99"}
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["quick-echo.png", "quick-latency.png"]


@pytest.mark.skipif(not find_spec("rich") or not find_spec("matplotlib"), reason="needs rich and matplotlib")
def test_curves_are_drawn_of_a_run_that_is_kept(tmp_path):
    kept = ROOT / "benchmarks" / "results" / "servers.json"
    command = [sys.executable, "-m", "benchmarks", "--show", str(kept), "--picture", str(tmp_path / "servers.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "servers-curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not find_spec("matplotlib"), reason="needs matplotlib")
def test_the_points_of_the_curves_are_rows():
    from benchmarks.catalogue import ROWS
    from benchmarks.curves import CURVES

    keys = {row.key for row in (*ROWS, *cases.CPU_ROWS)}
    assert {key for curve in CURVES for key in curve.points.values()} <= keys


# -- Processes ---------------------------------------------------------------------------------------------------------


def program(text, cpus=()):
    return process.Program([sys.executable, "-c", text], cpus)


def test_a_program_is_tied_to_its_core_from_the_beginning():
    cpu = runner.choose_cpu()
    before = os.sched_getaffinity(0)
    with program("import os; print(sorted(os.sched_getaffinity(0))); input()", {cpu}) as child:
        assert child.line() == f"[{cpu}]"
    assert os.sched_getaffinity(0) == before
    assert cpu not in process.other_cpus(cpu) or os.cpu_count() == 1


def test_processor_time_is_that_of_all_threads_and_of_user_mode():
    burn = """
import threading, time
def burn():
    end = time.thread_time() + 0.2
    while time.thread_time() < end: pass
input()
thread = threading.Thread(target=burn); thread.start(); burn(); print("done"); input()
"""
    with program(burn) as child:
        before = child.times()
        child.say()
        assert child.line() == "done"
        spent = child.times() - before
    # Of the thread that is over too.
    assert spent.total >= 0.38e9  # schedstat is up to date at ticks
    assert spent.user > 0


def test_how_a_program_ends_is_told():
    with (
        program(f"import sys; sys.stderr.write('no such thing\\n'); sys.exit({3})") as child,
        pytest.raises(process.NotOffered, match="no such thing"),
    ):
        child.line()
    with program("print('one'); raise SystemExit('broken')") as child:
        assert child.line() == "one"
        with pytest.raises(runner.MeasurementFailed, match="exit status 1: broken"):
            child.line()


def test_a_silent_program_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(process, "TIMEOUT_SECONDS", 0.05)
    with program("input()") as child, pytest.raises(runner.MeasurementFailed, match="no answer within"):
        child.line()
    assert child.process.returncode == -signal.SIGKILL


# -- Protocols ---------------------------------------------------------------------------------------------------------


def pieces(handler, data, size):
    return b"".join(handler(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_http_answers_every_request_however_it_is_cut(size):
    good = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"
    handler = Http(b"answer;")
    assert pieces(handler, good * 3, size) == b"answer;" * 3
    assert pieces(handler, b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", size) == Http.BAD
    assert pieces(handler, b"GET /\r\n\r\n" + good, size) == Http.BAD + b"answer;"


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_redis_answers_every_command_however_it_is_cut(size):
    def command(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    handler = Redis({})
    asked = command(b"SET", b"k", b"value") + command(b"GET", b"k") + command(b"GET", b"none") + command(b"PING")
    assert pieces(handler, asked, size) == b"+OK\r\n$5\r\nvalue\r\n$-1\r\n+PONG\r\n"
    assert pieces(handler, command(b"CONFIG", b"GET", b"save"), size) == b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
    assert pieces(handler, command(b"NONE"), size).startswith(b"-ERR")


WRK = """Running 1s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  181.00us
     75%    1.50ms
     90%    1.00s
     99%    3.00ms
  1500 requests in 2.00s, 30.00MB read
Requests/sec:  750.00
"""


def test_what_wrk_says_is_read():
    latencies = {"p50": 181e3, "p75": 1.5e6, "p90": 1e9, "p99": 3e6}
    assert measure.parse_wrk(WRK) == (1500, 2e9, latencies)
    for wrong in (
        WRK + "  Socket errors: connect 0, read 3\n",
        WRK + "Non-2xx or 3xx responses: 5\n",
        "",
        "0 requests in 1.00s",
    ):
        with pytest.raises(runner.MeasurementFailed, match="wrk"):
            measure.parse_wrk(wrong)


def test_what_redis_benchmark_says_is_read():
    text = (
        '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
        '"GET","50000.00","0.5","0.1","0.25","0.75","1.00","2.00"\n'
    )
    assert measure.parse_redis(text, 1000) == (1000, 2e7, {"p50": 0.25e6, "p95": 0.75e6, "p99": 1e6, "max": 2e6})
    with pytest.raises(runner.MeasurementFailed, match="redis-benchmark"):
        measure.parse_redis("", 1)


# -- Catalogue and record ----------------------------------------------------------------------------------------------


def test_every_row_has_a_case_and_every_case_a_row():
    named = {row.workload.removesuffix(cases.COUNTED) for row in cases.ALL_ROWS}
    assert named == CASES.keys()
    assert not CASES.keys() & JOBS.keys()
    keys = [row.key for row in (*cases.CPU_ROWS, *cases.LATENCY_ROWS, *cases.COUNTED_ROWS)]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {row.key for row in LOOP_ROWS}
    assert {key for picture in cases.PICTURES.values() for key in picture} <= set(keys)


def test_sizes_connections_and_transports_are_those_that_were_asked_for():
    echo = {(case.size, case.connections) for case in CASES.values() if case.mode == "echo" and case.transport == "tcp"}
    assert echo == {(size, count) for size in (64, 1 << 10, 16 << 10, 100 << 10, 1 << 20) for count in (1, 50, 500)}
    assert {case.transport for case in CASES.values()} == {"tcp", "unix", "tls"}


def test_what_has_a_target_is_measured_more_often():
    sizes = dict.fromkeys(CASES, 1)
    (aimed, often), (rest, seldom) = run.plan(sizes, 5)
    assert (often, seldom) == (5, 2)
    assert aimed.keys() | rest.keys() == CASES.keys()
    assert not aimed.keys() & rest.keys()
    assert {"echo_64_50", "echo_busy", "broadcast", "churn"} <= aimed.keys()


def test_a_floor_is_no_peer_to_be_compared_with():
    samples = {"churn": {OURS: [{"cpu": 90.0}], C_URING: [{"cpu": 10.0}], ASYNCIO: [{"cpu": 100.0}]}}
    row = next(row for row in cases.CPU_ROWS if row.key == "churn")
    [result] = record.results({"samples": samples}, [row])
    assert (result.best, result.met) == (ASYNCIO, False)
    assert {C_URING, C_EPOLL, REDIS} < FLOORS


def test_the_calls_of_a_case_are_a_row(shop, monkeypatch):
    def counted(case, peer, requests, cpu, shop):
        if peer == REDIS:
            raise process.NotOffered("no")
        if peer == ASYNCIO:
            raise runner.MeasurementFailed("may not trace")
        return {"io_uring_enter": 0.04, "close": 0.01}

    monkeypatch.setattr(run, "count", counted)
    calls, outcome = run.count_calls(["echo_64_50"], [OURS, ASYNCIO, REDIS], 0, shop, quick=True)
    assert calls == {"echo_64_50": {OURS: {"io_uring_enter": 0.04, "close": 0.01}}}
    assert outcome.failures == ["strace of echo_64_50, asyncio: may not trace"]
    row = next(row for row in cases.COUNTED_ROWS if row.key == "echo_64_50_calls")
    [result] = record.results({"samples": outcome.samples}, [row])
    assert (result.values[OURS].median, result.met) == (pytest.approx(0.05), True)
