"""The benchmarks: every workload at a tiny size, the statistics, and the record that is written."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("an installed package comes without its benchmarks", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import record, runner, summary, syscalls  # noqa: E402
from benchmarks.catalogue import JOBS, ROWS, BestPeerTarget, OwnTarget, PeerTarget, Row  # noqa: E402
from benchmarks.drivers import Driver, NotOffered  # noqa: E402
from benchmarks.meter import LostCallbacks  # noqa: E402
from benchmarks.peers import FLOOR, OURS, PEERS, Peer  # noqa: E402
from benchmarks.workloads import chained_calls, notify_burst, pipe_ping, post_burst, timer_fire  # noqa: E402

TINY = dict.fromkeys(JOBS, 40) | {
    "memory_per_timer": 5000,
    "memory_per_connection": 2000,
    "memory_per_watcher": 500,
    "import_time": 1,
    "create_loop": 2,
    "read_big": 1,
    "write_big": 1,
}
ASYNCIO = "asyncio"
NOT_OF_ASYNCIO = {"restart_timer", "read_files", "write_files", "watch_tree", "new_files"}
NOT_OFFERED_BY_ASYNCIO = dict.fromkeys(("read_small", "write_small", "read_big", "write_big"), "no whole files") | {
    "tree_events": "no trees of directories",
    "tree_start": "no trees of directories",
    "timer_reuse": "no timer object that can be started again",
}


def worker(job, peer, size, *options):
    return runner.run_worker(job, peer, size, runner.choose_cpu(), *options)


@pytest.mark.parametrize("peer", [OURS, ASYNCIO])
@pytest.mark.parametrize("job", JOBS)
def test_every_workload_runs(job, peer):
    result = worker(job, peer, TINY[job])
    if peer == ASYNCIO and job in NOT_OFFERED_BY_ASYNCIO:
        assert result == {"not_offered": NOT_OFFERED_BY_ASYNCIO[job]}
        return
    if job == "fds_10000" and "not_offered" in result:
        assert "hard limit of open files" in result["not_offered"]
        return
    values = result["values"]
    metrics = {row.metric for row in ROWS if row.workload == job}
    assert metrics <= values.keys()
    for name, value in values.items():
        if name == "in_vain":
            # A loop of ours calls only where there is something to read.
            assert value == 0
        elif job != "import_time":
            # The import's is a difference of two runs, which chance may turn.
            assert value > 0, name


@pytest.mark.parametrize("job", ["read_small", "write_small", "read_big", "write_big"])
def test_files_without_a_loop(job):
    assert worker(job, "blocking Python", TINY[job])["values"]["cpu"] > 0


@pytest.mark.parametrize("job", ["tree_events", "tree_start"])
@pytest.mark.parametrize("peer", ["watchfiles", "watchdog"])
def test_trees_without_a_loop(job, peer):
    if find_spec(peer) is None:
        pytest.skip(f"needs {peer}")
    assert worker(job, peer, TINY[job])["values"]["cpu"] > 0


@pytest.mark.parametrize("job", ["chained_calls", "ping_64", "accept_close", "create_loop"])
def test_a_library_for_files_offers_nothing_else(job):
    assert "not_offered" in worker(job, "blocking Python", 10)


@pytest.mark.parametrize(
    "job",
    [
        "chained_calls",
        "batched_calls",
        "pipe_ping",
        "fds_10",
        "fds_1000",
        "timer_new",
        "timer_reuse",
        "post_latency",
        "post_burst",
        "spawn_1",
        "spawn_16",
    ],
)
def test_floor_runs(job):
    assert worker(job, FLOOR.name, TINY[job])["values"]["cpu"] > 0


@pytest.mark.parametrize("job", ["timer_fire", "memory_per_timer", "import_time", "create_loop"])
def test_floor_has_no_timers_and_no_loop(job):
    assert "not_offered" in worker(job, FLOOR.name, 10)


def test_worker_is_tied_to_the_core_and_cold_on_request():
    assert "values" in worker("chained_calls", ASYNCIO, 10, "--cold")
    with pytest.raises(runner.MeasurementFailed, match="exit status"):
        runner.run_worker("chained_calls", ASYNCIO, 10, 4095)


def test_version_is_told():
    assert worker("version", ASYNCIO, 0)["version"].startswith("Python 3.")
    assert worker("version", OURS, 0)["version"].startswith("linux_event ")


class LosingDriver(Driver):
    """A loop that forgets what it is told."""

    def __init__(self):
        self.defer = self.run = self.stop = lambda *_args: None

    def start_timers(self, delays, callback):
        pass

    def watch(self, fds, callback):
        pass

    def poster(self):
        return lambda _callback: None

    def notifier(self, callback):
        return lambda: None


class LosingPeer(Peer):
    def driver_class(self):
        return LosingDriver


@pytest.mark.parametrize("workload", [chained_calls, timer_fire, pipe_ping, post_burst, notify_burst])
def test_lost_callbacks_are_an_error(workload):
    with pytest.raises(LostCallbacks, match="5 of 5"):
        workload(LosingPeer("losing", ""), 5)


@pytest.mark.parametrize("peer", [ASYNCIO, OURS])
def test_drivers_define_all_operations(peer):
    driver = PEERS[peer].driver_class()
    offered = {name for name in vars(Driver) if not name.startswith("_") and callable(getattr(Driver, name))}
    missing = {name for name in offered if getattr(driver, name) is getattr(Driver, name)}
    assert missing == (NOT_OF_ASYNCIO if peer == ASYNCIO else set())


def test_driver_offers_nothing_by_itself():
    with pytest.raises(NotOffered):
        Driver().start_timers([1.0], print)


def samples(**by_peer):
    """Samples of one workload "work": for each peer the cpu value of each round, None for a failed one."""
    return {
        "work": {
            peer: [None if value is None else {"cpu": value} for value in values] for peer, values in by_peer.items()
        }
    }


ROW = Row("key", "title", "work", target=BestPeerTarget(0.5))


def test_spread_is_median_and_extremes():
    assert summary.Spread.of([5.0, 1.0, 3.0]) == summary.Spread(3.0, 1.0, 5.0)
    assert summary.Spread.of([4.0, 1.0, 2.0, 9.0]) == summary.Spread(3.0, 1.0, 9.0)
    assert summary.Spread.of([7.0]) == summary.Spread(7.0, 7.0, 7.0)


def test_ratio_is_taken_within_each_round():
    # The machine became ten times slower in the second round: the ratio does not see it.
    result = summary.summarise(
        ROW, samples(linux_event=[40, 400, 41], asyncio=[100, 1000, 100], uvloop=[150, 900, 160])
    )
    assert result.best == "asyncio"
    assert result.ratio == summary.Spread(0.4, 0.4, 0.41)
    assert result.values["uvloop"] == summary.Spread(160, 150, 900)
    assert result.met is True


def test_ratio_skips_rounds_without_a_value():
    result = summary.summarise(ROW, samples(linux_event=[None, 60, 80], asyncio=[100, None, 100]))
    assert result.ratio == summary.Spread(0.8, 0.8, 0.8)
    assert result.met is False


def test_target_is_met_at_its_limit():
    assert summary.summarise(ROW, samples(linux_event=[50], asyncio=[100])).met is True
    assert summary.summarise(ROW, samples(linux_event=[51], asyncio=[100])).met is False


def test_a_target_may_name_its_peer():
    row = Row("key", "title", "work", target=PeerTarget("slow", 0.1))
    both = summary.summarise(row, samples(linux_event=[9, 99], slow=[100, 1000], quick=[1, 1]))
    assert (both.best, both.met) == ("slow", True)
    assert both.ratio == summary.Spread(0.0945, 0.09, 0.099)
    assert summary.summarise(row, samples(linux_event=[20], slow=[100])).met is False
    assert summary.summarise(row, samples(linux_event=[20], quick=[100])).met is None


def test_no_verdict_without_peers_or_without_ours():
    assert summary.summarise(ROW, samples(linux_event=[50])).met is None
    without = summary.summarise(ROW, samples(asyncio=[100]))
    assert (without.best, without.ratio, without.met) == ("asyncio", None, None)


def test_floor_is_no_peer():
    result = summary.summarise(ROW, samples(**{OURS: [50], FLOOR.name: [10], ASYNCIO: [100]}))
    assert result.best == ASYNCIO
    assert FLOOR.name in result.values


def test_own_target_is_in_the_unit_of_the_row():
    row = Row("key", "title", "work", unit="µs", scale=1000.0, target=OwnTarget(300, "µs"))
    result = summary.summarise(row, samples(linux_event=[299_000.0, 300_000.0, 301_000.0]))
    assert result.values[OURS] == summary.Spread(300.0, 299.0, 301.0)
    assert result.met is True


def test_growth_divides_within_each_round():
    row = Row("growth", "title", "many", target=OwnTarget(1.5), per="few")
    both = {
        "many": {OURS: [{"cpu": 200.0}, {"cpu": 3000.0}, None]},
        "few": {OURS: [{"cpu": 100.0}, {"cpu": 1000.0}, {"cpu": 100.0}]},
    }
    result = summary.summarise(row, both)
    assert result.values[OURS] == summary.Spread(2.5, 2.0, 3.0)
    assert (result.best, result.met) == (None, False)


def test_every_row_has_a_workload_and_every_workload_a_row():
    assert {row.workload for row in ROWS} == JOBS.keys()
    assert {row.per for row in ROWS if row.per} <= JOBS.keys()
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_rounds_rotate_over_the_peers(monkeypatch):
    calls = []

    def fake_worker(job, peer, size, cpu):
        calls.append((job, peer, size, cpu))
        if peer == "broken":
            raise runner.MeasurementFailed("exit status 1: broken")
        if peer == "poor":
            return {"not_offered": "no such thing"}
        return {"values": {"cpu": float(len(calls))}}

    monkeypatch.setattr(runner, "run_worker", fake_worker)
    seen = []
    outcome = runner.run_rounds({"first": 10, "second": 20}, ["good", "broken", "poor"], 2, 1, seen.append)
    assert [call[:3] for call in calls] == [
        ("first", "good", 10),
        ("first", "broken", 10),
        ("first", "poor", 10),
        ("second", "good", 20),
        ("second", "broken", 20),
        ("second", "poor", 20),
        # Round two begins with the next peer, and does not ask again for what is not offered.
        ("first", "broken", 10),
        ("first", "good", 10),
        ("second", "broken", 20),
        ("second", "good", 20),
    ]
    assert outcome.samples["first"] == {"good": [{"cpu": 1.0}, {"cpu": 8.0}], "broken": [None] * 2, "poor": [None] * 2}
    assert outcome.not_offered == {"first": {"poor": "no such thing"}, "second": {"poor": "no such thing"}}
    assert len(outcome.failures) == 4
    assert len(seen) == 12


def test_missing_peers_are_named(monkeypatch):
    def fake_worker(_job, peer, _size, _cpu):
        if peer == "absent":
            raise runner.MeasurementFailed("exit status 1: ModuleNotFoundError: No module named 'absent'")
        return {"version": f"{peer} 1.0"}

    monkeypatch.setattr(runner, "run_worker", fake_worker)
    versions, missing = runner.available(["present", "absent"], 0)
    assert versions == {"present": "present 1.0"}
    assert "No module named 'absent'" in missing["absent"]


def test_record_is_json_with_everything_in_it():
    sizes = {"chained_calls": 20, "timer_reuse": 20}
    peers = {name: worker("version", name, 0)["version"] for name in (OURS, ASYNCIO)}
    outcome = runner.run_rounds(sizes, list(peers), 2, runner.choose_cpu())
    made = record.make(outcome, peers, {"absent": "why"}, sizes, 1, 2.5)
    read = json.loads(json.dumps(made))
    assert read == made
    assert read["rounds"] == 2
    assert read["failures"] == []
    assert read["missing_peers"] == {"absent": "why"}
    assert set(read["machine"]) >= {"processor", "cores", "kernel", "python"}
    assert all(read["machine"][key] for key in ("processor", "cores", "kernel", "python"))
    chained = read["processor_time_and_memory"]["chained_calls"]
    assert chained["best_peer"] == ASYNCIO
    assert chained["values"][OURS]["low"] <= chained["values"][OURS]["median"] <= chained["values"][OURS]["high"]
    assert isinstance(chained["met"], bool)
    assert "timer_reuse" in read["not_offered"]
    # What was read back gives the same results.
    assert [result.as_json() for result in record.results(read, ROWS)] == list(
        read["processor_time_and_memory"].values()
    )
    assert peers[OURS] in record.caption(read)


STRACE_TABLE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 61.84    0.005904          16       359        77 openat
 38.16    0.000100           0        12           io_uring_enter
------ ----------- ----------- --------- --------- ------------------
100.00    0.006004          16       371        77 total
"""


def test_strace_table_is_read():
    assert syscalls.parse_counts(STRACE_TABLE) == {"openat": 359, "io_uring_enter": 12}


def test_system_calls_are_counted_per_event(monkeypatch):
    small, large = syscalls.SIZES
    counts = {
        small: {"read": small + 7, "mmap": 30},
        large: {"read": large + 7, "mmap": 31, "poll": 2 * (large - small)},
    }
    monkeypatch.setattr(syscalls, "_traced", lambda _job, _peer, size, _cpu: counts[size])
    assert syscalls.count("job", "peer", 0) == {"poll": 2.0, "read": 1.0}


def test_tables_show_verdicts():
    tables = pytest.importorskip("benchmarks.tables", reason="needs rich", exc_type=ImportError)
    met = summary.summarise(ROW, samples(linux_event=[40], asyncio=[100]))
    missed = summary.summarise(ROW, samples(linux_event=[90], asyncio=[100]))
    text = tables.markdown_results([met, missed], [OURS, ASYNCIO, "absent"])
    head, rule, first, second = text.splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert first.endswith("| 40.0 | 100 | - | asyncio | 0.40 (0.40-0.40) | ≤ 0.50 x best | met |")
    assert second.endswith("| MISSED |")


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (123.4, "123"), (1234567, "1 234 567")])
def test_numbers_have_three_digits(value, text):
    tables = pytest.importorskip("benchmarks.tables", reason="needs rich", exc_type=ImportError)
    assert tables.number(value) == text


@pytest.mark.skipif(not find_spec("rich") or not find_spec("matplotlib"), reason="needs rich and matplotlib")
def test_earlier_run_is_shown_and_drawn(tmp_path):
    outcome = runner.Outcome(
        {"chained_calls": {OURS: [{"cpu": 40.0, "wall": 41.0}], ASYNCIO: [{"cpu": 90.0, "wall": 91.0}]}}
    )
    run = record.make(
        outcome, {OURS: "linux_event 1", ASYNCIO: "Python 3"}, {"absent": "why"}, {"chained_calls": 9}, 0, 1.0
    )
    beside = {"syscalls_per_event": {}, "pipe_ping_in_c": {}, "failures_beside": ["strace is not installed"]}
    saved, picture = tmp_path / "run.json", tmp_path / "run.png"
    saved.write_text(json.dumps(run | beside))
    command = [sys.executable, "-m", "benchmarks", "--show", saved, "--picture", picture]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in (
        "deferred call, chained",
        "0.44 (0.44-0.44)",
        "met",
        "absent is left out: why",
        "strace is not installed",
    ):
        assert text in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
