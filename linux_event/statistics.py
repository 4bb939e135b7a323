"""The records of counts that Loop.statistics() and BufferPool.statistics() return."""

from collections import namedtuple

__all__ = ["PoolStatistics", "Statistics"]

_FIELDS = {
    "iterations": "Iterations of the loop since it was made.",
    "callbacks": "Callbacks run since the loop was made: of watchers, deferred and posted ones.",
    "completions": "Completions taken from the kernel's completion queue since the loop was made.",
    "submissions": "Requests given to the kernel since the loop was made.",
    "syscalls": "System calls made by the loop itself since it was made: io_uring_enter(2), poll(2), reads of its eventfds.",
    "cq_overflows": "Times the completion queue was found overflowed. The kernel keeps what did not fit: nothing is lost.",
    "active_watchers": "Watchers that are started now, those with ref=False included.",
    "operations_in_flight": "Operations not finished yet.",
    "streams": "Streams whose end has not been told yet.",
    "listeners": "Listeners not closed yet.",
    "datagrams": "Datagram sockets whose end has not been told yet.",
    "pool_buffers_in_use": "Buffers of the loop's pools that hold data not yet handed over.",
    "requests_in_flight": "Kernel requests of watchers whose final completion has not come yet, without the loop's own.",
    "watchers": "Watchers not destroyed yet, active or not.",
    "timers": "Armed deadlines in the timer heap.",
    "deferred": "Deferred and posted callbacks that wait to be run.",
}

Statistics = namedtuple("Statistics", _FIELDS, module=__name__)
Statistics.__doc__ = """Counts of one loop at one moment: a named tuple of ints, all 0 or more, in the order of the fields.

The first group (`iterations` to `cq_overflows`) only grows; the others say what is there now.
"""

_POOL_FIELDS = {
    "buffers": "Buffers that the pool has now.",
    "size": "Bytes of one buffer.",
    "bytes": "Bytes of all buffers. Those that were never used take no memory.",
    "provided": "Buffers that are with the kernel now. Those beyond what is needed at a time are kept back.",
    "in_use": "Buffers that hold data not yet handed over.",
    "waiting": "Operations that wait for a buffer.",
    "exhausted": "Times that an operation found no buffer, since the pool was made.",
    "grown": "Times that buffers were added, since the pool was made.",
}

PoolStatistics = namedtuple("PoolStatistics", _POOL_FIELDS, module=__name__)
PoolStatistics.__doc__ = """Counts of one pool of buffers at one moment: a named tuple of ints, all 0 or more."""

for _record, _texts in ((Statistics, _FIELDS), (PoolStatistics, _POOL_FIELDS)):
    for _name, _text in _texts.items():
        getattr(_record, _name).__doc__ = _text
