"""Workloads: what is measured.

Each is a function ``workload(peer, size) -> values``: it does `size`
operations on a loop of `peer` and returns named values per operation, times
in nanoseconds, memory in bytes. It raises `LostCallbacks` where a loop did
not do what was asked, and `NotOffered` where it cannot.
"""

from .deferred import batched_calls, chained_calls
from .descriptors import fds_10, fds_100, fds_1000, fds_10000, pipe_ping
from .files import read_big, read_small, write_big, write_small
from .memory import memory_per_connection, memory_per_timer, memory_per_watcher
from .names import resolve_local, resolve_numeric
from .processes import communicate_64k, spawn_1, spawn_16
from .sockets import accept_close, ping_16k, ping_64, ping_100k, udp_1k, udp_64, udp_one
from .startup import create_loop, import_time
from .threads import notify_burst, post_burst, post_latency
from .timers import (
    timer_fire,
    timer_new,
    timer_reuse,
    timers_among_10,
    timers_among_1000,
    timers_among_100000,
)
from .trees import tree_events, tree_start

__all__ = [
    "accept_close",
    "batched_calls",
    "chained_calls",
    "communicate_64k",
    "create_loop",
    "fds_10",
    "fds_100",
    "fds_1000",
    "fds_10000",
    "import_time",
    "memory_per_connection",
    "memory_per_timer",
    "memory_per_watcher",
    "notify_burst",
    "ping_16k",
    "ping_64",
    "ping_100k",
    "pipe_ping",
    "post_burst",
    "post_latency",
    "read_big",
    "read_small",
    "resolve_local",
    "resolve_numeric",
    "spawn_1",
    "spawn_16",
    "timer_fire",
    "timer_new",
    "timer_reuse",
    "timers_among_10",
    "timers_among_1000",
    "timers_among_100000",
    "tree_events",
    "tree_start",
    "udp_1k",
    "udp_64",
    "udp_one",
    "write_big",
    "write_small",
]
