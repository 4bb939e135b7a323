"""One measurement in a process of its own: ``python -m benchmarks.worker JOB PEER SIZE [--cpu N] [--cold]``.

Prints one line of JSON: ``{"values": {...}}``, ``{"not_offered": reason}``, or
for the job ``version``, which tests whether the peer works, ``{"version": ...}``.
"""

import argparse
import json
import os
import sys

from .catalogue import JOBS
from .drivers import NotOffered
from .peers import PEERS


def measure(job_name: str, peer_name: str, size: int, *, warm: bool = True) -> dict[str, object]:
    """Run one measurement in this process and return what the worker prints.

    Args:
        job_name: a key of JOBS, or ``version``.
        peer_name: a key of PEERS.
        size: operations.
        warm: whether a tenth of the operations may run first, unmeasured.
    """
    peer = PEERS[peer_name]
    if job_name == "version":
        return {"version": peer.version()}
    job = JOBS[job_name]
    try:
        if job.warm and warm:
            job.run(peer, max(1, size // 10))
        return {"values": job.run(peer, size)}
    except NotOffered as reason:
        return {"not_offered": str(reason)}


def main() -> int:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("job", choices=["version", *JOBS])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("size", type=int)
    parser.add_argument("--cpu", type=int, help="run on this core only")
    parser.add_argument("--cold", action="store_true", help="without running a tenth of it first")
    options = parser.parse_args()
    if options.job in JOBS and not JOBS[options.job].pinned:
        # Whatever started this may have kept to the other cores.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    elif options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    print(json.dumps(measure(options.job, options.peer, options.size, warm=not options.cold)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
