"""What a program pays before its first event."""

import os
import statistics
import subprocess
import sys
import time

from ..drivers import NotOffered
from ..meter import Meter, user_and_system_ns
from ..peers import Peer


def create_loop(peer: Peer, size: int) -> dict[str, float]:
    """Create and close `size` loops, one after the other."""
    driver = peer.driver_class()
    driver.create_and_close(1)
    with Meter() as meter:
        driver.create_and_close(size)
    return meter.per(size)


def import_time(peer: Peer, size: int) -> dict[str, float]:
    """Import in a new interpreter, beyond what the interpreter alone takes.

    `size` interpreters with the import and as many without, in turn; medians.
    """
    if not peer.statement:
        raise NotOffered("nothing to import")
    # The first start compiles and reads what later ones find in caches.
    _interpreter(peer.statement)
    bare, full = [], []
    for _ in range(size):
        bare.append(_interpreter("pass"))
        full.append(_interpreter(peer.statement))
    cpu, wall = (
        statistics.median(with_import) - statistics.median(without)
        for with_import, without in zip(zip(*full, strict=True), zip(*bare, strict=True), strict=True)
    )
    bare_cpu, bare_wall = (statistics.median(times) for times in zip(*bare, strict=True))
    return {"cpu": cpu, "wall": wall, "cpu_bare": bare_cpu, "wall_bare": bare_wall}


def _interpreter(program: str) -> tuple[int, int]:
    """Run `program` in a new interpreter; return its processor and elapsed time, nanoseconds."""
    begin = time.perf_counter_ns()
    process = subprocess.Popen([sys.executable, "-c", program])
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter_ns() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ImportError(f"exit status {process.returncode} of: {program}")
    return user_and_system_ns(usage), wall
