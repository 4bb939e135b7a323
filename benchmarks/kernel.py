"""The pipe ping in C: how much of it is the kernel's, whatever the loop."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .summary import Spread

SOURCE = Path(__file__).resolve().parent / "native" / "pipe_ping.c"
METHODS = ("none", "poll", "epoll", "io_uring")


class NoCompiler(Exception):
    """The program cannot be built here; the text says why."""


def compiled(source: Path, program: Path) -> Path:
    """Compile one file of C, which may use liburing, and return the program. Raises NoCompiler."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        raise NoCompiler(f"no C compiler {compiler[0]!r}")
    command = [*compiler, "-std=gnu11", "-O2", "-o", str(program), str(source), "-luring"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoCompiler((done.stderr.strip().splitlines() or ["unknown error"])[0])
    return program


@contextmanager
def built() -> Iterator[Path]:
    """Compile the pipe ping; the path is valid within the block. Raises NoCompiler."""
    with tempfile.TemporaryDirectory() as folder:
        yield compiled(SOURCE, Path(folder, "pipe_ping"))


def measure(events: int, rounds: int, cpu: int, on_progress: Callable[[], None] = lambda: None) -> dict[str, Spread]:
    """Return method → nanoseconds of processor time per event.

    Args:
        events: per measurement.
        rounds: measurements of each method, in alternation.
        cpu: the core that the program ties itself to.
        on_progress: called after each measurement.
    """
    figures: dict[str, list[float]] = {method: [] for method in METHODS}
    with built() as program:
        for _ in range(rounds):
            for method, values in figures.items():
                command = [str(program), method, str(events), str(cpu)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                values.append(float(done.stdout))
                on_progress()
    return {method: Spread.of(values) for method, values in figures.items()}
