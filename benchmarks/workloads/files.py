"""Whole files: many small ones, and big ones. All are in the page cache."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle, islice

from ..meter import LostCallbacks, Meter
from ..peers import Peer

SMALL = 4096
BIG = 32 << 20
AT_ONCE = 64
BIG_AT_ONCE = 2
FULL, FEW = 5000, 500


def read_small(peer: Peer, size: int) -> dict[str, float]:
    """Read `size` files of 4 KiB, 64 at once."""
    return _read(peer, size, SMALL, AT_ONCE)


def read_big(peer: Peer, size: int) -> dict[str, float]:
    """Read `size` files of 32 MiB, two at once."""
    return _read(peer, size, BIG, BIG_AT_ONCE)


def write_small(peer: Peer, size: int) -> dict[str, float]:
    """Write `size` new files of 4 KiB, 64 at once."""
    return _write(peer, size, SMALL, AT_ONCE)


def write_big(peer: Peer, size: int) -> dict[str, float]:
    """Write `size` new files of 32 MiB, two at once."""
    return _write(peer, size, BIG, BIG_AT_ONCE)


def _read(peer: Peer, count: int, length: int, at_once: int) -> dict[str, float]:
    with _folder(count) as (files, paths), closing(peer.driver_class()()) as driver:
        for path in files:
            with open(path, "wb") as file:
                file.write(os.urandom(length))
        with Meter() as meter:
            total = driver.read_files(paths, at_once)
    return _checked(meter, total, count, length)


def _write(peer: Peer, count: int, length: int, at_once: int) -> dict[str, float]:
    data = os.urandom(length)
    with _folder(count) as (files, paths), closing(peer.driver_class()()) as driver:
        with Meter() as meter:
            total = driver.write_files(paths, data, at_once)
        if any(os.path.getsize(path) != length for path in files):
            raise LostCallbacks("a file has not the length that was told of")
    return _checked(meter, total, count, length)


def _checked(meter: Meter, total: int, count: int, length: int) -> dict[str, float]:
    if total != count * length:
        raise LostCallbacks(f"{total} of {count * length} bytes were moved")
    return meter.per(count)


@contextmanager
def _folder(count: int) -> Iterator[tuple[list[str], list[str]]]:
    """A folder for files: their paths, and the `count` paths to work on.

    A run below the full size goes over 500 files again and again: making and removing them costs two runs of
    different length the same number of system calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        distinct = count if count >= FULL else min(count, FEW)
        files = [os.path.join(folder, f"file-{number:05}") for number in range(distinct)]
        yield files, list(islice(cycle(files), count))
