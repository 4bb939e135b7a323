from typing import NamedTuple

__all__ = ["PoolStatistics", "Statistics"]

class Statistics(NamedTuple):
    iterations: int
    callbacks: int
    completions: int
    submissions: int
    syscalls: int
    cq_overflows: int
    active_watchers: int
    operations_in_flight: int
    streams: int
    listeners: int
    datagrams: int
    pool_buffers_in_use: int
    requests_in_flight: int
    watchers: int
    timers: int
    deferred: int

class PoolStatistics(NamedTuple):
    buffers: int
    size: int
    bytes: int
    provided: int
    in_use: int
    waiting: int
    exhausted: int
    grown: int
