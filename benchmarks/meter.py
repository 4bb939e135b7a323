"""What one measurement reads: processor time, elapsed time, resident memory."""

import gc
import os
import re
import time


class LostCallbacks(Exception):
    """A loop did not run every callback that the workload asked for."""


class Meter:
    """Context manager that measures the time of its block.

    Attributes, valid after the block:
        cpu_ns: processor time of all threads of the process, nanoseconds.
        wall_ns: elapsed time, nanoseconds.
    """

    def __enter__(self) -> "Meter":
        # Rubbish of the set-up is not charged to the block.
        gc.collect()
        self.wall_ns = time.perf_counter_ns()
        self.cpu_ns = time.process_time_ns()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.cpu_ns = time.process_time_ns() - self.cpu_ns
        self.wall_ns = time.perf_counter_ns() - self.wall_ns

    def per(self, operations: int) -> dict[str, float]:
        """Return the times divided by `operations`, as ``cpu`` and ``wall``."""
        return {"cpu": self.cpu_ns / operations, "wall": self.wall_ns / operations}


def resident_bytes() -> int:
    """Return the resident memory of this process.

    The kernel's running counters behind ``/proc/self/statm`` are off by up to
    some hundred KiB; ``smaps_rollup`` walks the page tables and is exact.
    """
    with open("/proc/self/smaps_rollup") as file:
        match = re.search(r"^Rss:\s+(\d+) kB", file.read(), re.MULTILINE)
    if match is None:
        raise OSError("no Rss line in /proc/self/smaps_rollup")
    return int(match[1]) * 1024


class MemoryMeter:
    """Context manager that measures the growth of resident memory in its block.

    Attribute, valid after the block:
        growth: bytes of resident memory more than before.
    """

    def __enter__(self) -> "MemoryMeter":
        gc.collect()
        self.growth = -resident_bytes()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        gc.collect()
        self.growth += resident_bytes()


def user_and_system_ns(usage: "os._ResourceUsage") -> int:
    """Return the processor time in a resource usage record, in nanoseconds."""
    return round((usage.ru_utime + usage.ru_stime) * 1e9)
