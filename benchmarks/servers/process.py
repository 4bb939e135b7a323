"""Processes of a measurement: started on a core, asked for their processor time, and ended for sure."""

import os
import select
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..runner import ROOT, MeasurementFailed
from . import NOT_OFFERED

TIMEOUT_SECONDS = 60
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class NotOffered(Exception):
    """A peer has no such thing; the text says why."""


@dataclass(frozen=True)
class Times:
    """Processor time of a process, of all its threads, in nanoseconds.

    Attributes:
        total: as the scheduler counts it.
        user: what of it was in user mode, as the clock interrupt samples it: to a hundredth of a second at best.
    """

    total: int
    user: int

    def __sub__(self, earlier: "Times") -> "Times":
        return Times(self.total - earlier.total, self.user - earlier.user)


class Program:
    """A program that runs as long as the block does. Its lines are read one by one.

    Args:
        command: with its arguments.
        cpus: the cores it is tied to; none: those of this process.
        stderr: where what it complains of goes; by default it is kept for the text of an error.
    """

    def __init__(self, command: Sequence[str], cpus: Iterable[int] = ()) -> None:
        self.name = Path(command[0]).name
        with _tied(set(cpus)):
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        self.pid = self.process.pid
        self._pending = b""

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self, stream: str = "stdout") -> str:
        """Return the next line that the program prints.

        Raises NotOffered where it ends because its peer has no such thing, and MeasurementFailed where it ends
        otherwise, or takes too long.
        """
        pipe: IO[bytes] | None = getattr(self.process, stream)
        assert pipe is not None
        while b"\n" not in self._pending:
            if not select.select([pipe], [], [], TIMEOUT_SECONDS)[0]:
                raise MeasurementFailed(f"{self.name}: no answer within {TIMEOUT_SECONDS} s")
            piece = os.read(pipe.fileno(), 65536)
            if not piece:
                raise self._ended()
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def say(self) -> None:
        """Give the program the empty line that it waits for."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"\n")
        except BrokenPipeError:
            raise self._ended() from None

    def times(self) -> Times:
        """Return what the program has taken of the processor until now."""
        # The clock of another process, see clock_getcpuclockid(3), which Python has for threads only. Unlike the files
        # in /proc it counts threads that have ended too. Of one that is running it may lag by a clock interrupt.
        total = time.clock_gettime_ns(~self.pid << 3 | 2)
        # Behind the name, which may hold anything in its brackets: state, ppid, ... utime is the 14th field.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return Times(total, int(fields[11]) * TICK_NS)

    def _ended(self) -> Exception:
        try:
            _out, complaints = self.process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return MeasurementFailed(f"{self.name}: has closed its output, and goes on")
        lines = complaints.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "nothing said"
        if self.process.returncode == NOT_OFFERED:
            return NotOffered(reason)
        return MeasurementFailed(f"{self.name}: exit status {self.process.returncode}: {reason}")


@contextmanager
def _tied(cpus: set[int]) -> Iterator[None]:
    """Tie what is started in the block to these cores, from its first instruction on."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def other_cpus(cpu: int) -> set[int]:
    """Return the cores for what is not measured: all others, or the same where there is but one."""
    return set(range(os.cpu_count() or 1)) - {cpu} or {cpu}
