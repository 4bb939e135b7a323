"""The catalogue: which workloads run at which size, which rows the tables have, and the targets."""

from collections.abc import Callable
from dataclasses import dataclass

from . import workloads
from .peers import Peer

Workload = Callable[[Peer, int], dict[str, float]]


@dataclass(frozen=True)
class Job:
    """One workload with its sizes.

    Attributes:
        run: the workload.
        full, quick: operations per measurement.
        warm: run a tenth of it first, in the same process.
        pinned: tied to one core. Not what works with threads, its own or the kernel's.
    """

    run: Workload
    full: int
    quick: int
    warm: bool = True
    pinned: bool = True


JOBS = {
    job.run.__name__: job
    for job in (
        Job(workloads.chained_calls, 200_000, 30_000),
        Job(workloads.batched_calls, 300_000, 50_000),
        Job(workloads.timer_new, 100_000, 20_000),
        Job(workloads.timer_reuse, 300_000, 50_000),
        Job(workloads.timer_fire, 200_000, 100_000),
        Job(workloads.pipe_ping, 60_000, 10_000),
        Job(workloads.post_latency, 20_000, 4_000),
        Job(workloads.post_burst, 200_000, 40_000),
        Job(workloads.notify_burst, 200_000, 40_000),
        Job(workloads.fds_10, 50_000, 8_000),
        Job(workloads.fds_100, 50_000, 8_000),
        Job(workloads.fds_1000, 50_000, 8_000),
        Job(workloads.fds_10000, 50_000, 10_000),
        Job(workloads.read_small, 5_000, 1_000, pinned=False),
        Job(workloads.write_small, 5_000, 1_000, pinned=False),
        Job(workloads.read_big, 8, 2, warm=False, pinned=False),
        Job(workloads.write_big, 8, 2, warm=False, pinned=False),
        Job(workloads.accept_close, 10_000, 2_000),
        Job(workloads.ping_64, 40_000, 8_000),
        Job(workloads.ping_16k, 30_000, 5_000),
        Job(workloads.ping_100k, 8_000, 1_600),
        Job(workloads.udp_64, 100_000, 20_000),
        Job(workloads.udp_1k, 100_000, 20_000),
        Job(workloads.udp_one, 30_000, 6_000),
        Job(workloads.spawn_1, 400, 100),
        Job(workloads.spawn_16, 400, 100),
        Job(workloads.communicate_64k, 300, 80),
        Job(workloads.resolve_numeric, 20_000, 4_000, pinned=False),
        Job(workloads.resolve_local, 5_000, 1_000, pinned=False),
        Job(workloads.tree_events, 10_000, 2_000, pinned=False),
        Job(workloads.tree_start, 10_000, 1_000, pinned=False),
        Job(workloads.timers_among_10, 50_000, 10_000),
        Job(workloads.timers_among_1000, 50_000, 10_000),
        Job(workloads.timers_among_100000, 50_000, 10_000),
        Job(workloads.memory_per_connection, 5_000, 2_000, warm=False),
        Job(workloads.memory_per_timer, 100_000, 50_000, warm=False),
        Job(workloads.memory_per_watcher, 10_000, 10_000, warm=False),
        Job(workloads.import_time, 5, 2, warm=False),
        Job(workloads.create_loop, 500, 50),
    )
}


@dataclass(frozen=True)
class BestPeerTarget:
    """Ours is at most `limit` times the best peer's value of the same round."""

    limit: float

    def __str__(self) -> str:
        return f"≤ {self.limit:.2f} x best"


@dataclass(frozen=True)
class PeerTarget:
    """Ours is at most `limit` times the value of a certain peer in the same round."""

    peer: str
    limit: float

    def __str__(self) -> str:
        return f"≤ {self.limit:.2f} x {self.peer}"


@dataclass(frozen=True)
class OwnTarget:
    """Our own value is at most `limit`, in the row's unit."""

    limit: float
    unit: str = ""

    def __str__(self) -> str:
        return f"≤ {self.limit:g} {self.unit}".rstrip()


Target = BestPeerTarget | PeerTarget | OwnTarget


@dataclass(frozen=True)
class Row:
    """One row of the results.

    Attributes:
        key: its name in the JSON file.
        title: what is measured.
        workload, metric: whose value it shows.
        unit, scale: the value is divided by `scale` to be in `unit`.
        target: what ours has to reach, None for information only.
        per: if not empty, the workload whose value of the same round the value is divided by.
    """

    key: str
    title: str
    workload: str
    metric: str = "cpu"
    unit: str = "ns"
    scale: float = 1.0
    target: Target | None = None
    per: str = ""


ROWS = (
    Row("chained_calls", "deferred call, chained", "chained_calls", target=BestPeerTarget(0.75)),
    Row("batched_calls", "deferred call, 1 000 at a time", "batched_calls"),
    Row("timer_new", "timer: create, start, cancel", "timer_new", target=BestPeerTarget(0.5)),
    Row("timer_reuse", "timer: start + stop of one object", "timer_reuse", target=BestPeerTarget(0.5)),
    Row("timer_fire", "timers due within 50 ms: start + fire", "timer_fire", target=BestPeerTarget(0.5)),
    Row("timer_fire_only", "timers due within 50 ms: fire", "timer_fire", "cpu_fire", target=BestPeerTarget(0.5)),
    Row("timers_among_10", "timer: create, start, cancel among 10", "timers_among_10"),
    Row("timers_among_1000", "timer: create, start, cancel among 1 000", "timers_among_1000"),
    Row("timers_among_100000", "timer: create, start, cancel among 100 000", "timers_among_100000"),
    Row("pipe_ping", "pipe ping through a watcher", "pipe_ping", target=BestPeerTarget(0.8)),
    Row("post_p50", "call from another thread: until it runs, p50", "post_latency", "p50", "µs", 1e3),
    Row("post_latency", "call from another thread, one at a time", "post_latency", unit="µs", scale=1e3),
    Row("post_burst", "call from another thread, many at once", "post_burst"),
    Row("notify_burst", "notification from another thread, many at once", "notify_burst"),
    Row("fds_10", "event among 10 fds", "fds_10"),
    Row("fds_100", "event among 100 fds", "fds_100"),
    Row("fds_1000", "event among 1 000 fds", "fds_1000"),
    Row("fds_10000", "event among 10 000 fds", "fds_10000"),
    Row(
        "fds_growth_1000",
        "event among 1 000 fds against 10",
        "fds_1000",
        unit="x",
        target=OwnTarget(1.5, "x"),
        per="fds_10",
    ),
    Row(
        "fds_growth_10000",
        "event among 10 000 fds against 10",
        "fds_10000",
        unit="x",
        target=OwnTarget(1.5, "x"),
        per="fds_10",
    ),
    Row(
        "read_small",
        "read_file, 4 KiB, 64 at once",
        "read_small",
        unit="µs",
        scale=1e3,
        target=PeerTarget("blocking Python", 0.7),
    ),
    Row(
        "read_small_aiofiles",
        "the same against aiofiles",
        "read_small",
        unit="µs",
        scale=1e3,
        target=PeerTarget("aiofiles", 0.04),
    ),
    Row("write_small", "write_file, 4 KiB, 64 at once", "write_small", unit="µs", scale=1e3),
    Row("read_big", "read_file, 32 MiB, 2 at once", "read_big", unit="ms", scale=1e6),
    Row("write_big", "write_file, 32 MiB, 2 at once", "write_big", unit="ms", scale=1e6),
    Row("accept_close", "accept + close", "accept_close", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row("ping_64", "recv + send there and back, 64 B", "ping_64", unit="µs", scale=1e3),
    Row("ping_16k", "recv + send there and back, 16 KiB", "ping_16k", unit="µs", scale=1e3),
    Row("ping_100k", "recv + send there and back, 100 KiB", "ping_100k", unit="µs", scale=1e3),
    Row("udp_64", "UDP echo, 64 B, 16 clients", "udp_64", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row("udp_1k", "UDP echo, 1 KiB, 16 clients", "udp_1k", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row("udp_one", "UDP echo, 64 B, one at a time", "udp_one", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row("spawn_1", "spawn + wait of true", "spawn_1", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row("spawn_16", "spawn + wait of true, 16 at once", "spawn_16", unit="µs", scale=1e3, target=BestPeerTarget(0.8)),
    Row(
        "communicate_64k",
        "spawn + 64 KiB through cat",
        "communicate_64k",
        unit="µs",
        scale=1e3,
        target=BestPeerTarget(0.8),
    ),
    Row("resolve_numeric", "address in numbers", "resolve_numeric", unit="µs", scale=1e3, target=BestPeerTarget(0.75)),
    Row("resolve_local", "name of the hosts file", "resolve_local", unit="µs", scale=1e3),
    Row("tree_events", "new file in a tree", "tree_events", unit="µs", scale=1e3),
    Row("tree_start", "start to watch 10 000 directories", "tree_start", unit="ms", scale=1e6),
    Row(
        "memory_per_connection",
        "memory per idle connection",
        "memory_per_connection",
        "memory",
        "B",
        target=OwnTarget(1024, "B"),
    ),
    Row("memory_per_timer", "memory per idle timer", "memory_per_timer", "memory", "B", target=OwnTarget(200, "B")),
    Row(
        "memory_per_watcher", "memory per idle watcher", "memory_per_watcher", "memory", "B", target=OwnTarget(200, "B")
    ),
    Row("import_time", "import, beyond bare Python", "import_time", unit="ms", scale=1e6, target=OwnTarget(20, "ms")),
    Row("create_loop", "create + close a loop", "create_loop", unit="µs", scale=1e3, target=OwnTarget(300, "µs")),
)

# The same for elapsed time. Targets of rows that have no peer in them hold here too.
WALL_ROWS = tuple(
    Row(
        row.key,
        row.title,
        row.workload,
        row.metric.replace("cpu", "wall"),
        row.unit,
        row.scale,
        row.target if isinstance(row.target, OwnTarget) else None,
        row.per,
    )
    for row in ROWS
    if row.metric.startswith("cpu")
)
