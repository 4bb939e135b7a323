"""Trees of directories that are watched: to begin with, and what it takes to hear of new files."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..drivers import NotOffered
from ..meter import LostCallbacks, Meter
from ..peers import Peer

FOLDERS = 100
# Where files are made in no time: what a disk takes would be most of the figures.
MEMORY = "/dev/shm"
WATCH_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
# Makes files in a process of its own, when it is told to: one event each, as nothing is opened.
MAKER = """
import os, sys
folders = [entry.path for entry in os.scandir(sys.argv[1])]
paths = [f"{folders[number % len(folders)]}/{number}" for number in range(int(sys.argv[2]))]
print(flush=True)
sys.stdin.read(1)
for path in paths:
    os.mknod(path)
"""


def tree_events(peer: Peer, size: int) -> dict[str, float]:
    """Hear of `size` new files in a tree of 100 directories, which another process makes as fast as it can."""
    with _tree(FOLDERS) as root, closing(peer.driver_class()()) as driver:
        driver.watch_tree(root)
        command = [sys.executable, "-S", "-E", "-c", MAKER, root, str(size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
            assert maker.stdin and maker.stdout
            maker.stdout.read(1)
            with Meter() as meter:
                maker.stdin.close()
                told = driver.new_files(size)
        lost = {entry.path for folder in os.scandir(root) for entry in os.scandir(folder)}.difference(told)
    if lost or len(told) != size:
        raise LostCallbacks(f"{len(lost)} of {size} files were not told of, {len(told)} were")
    return meter.per(size)


def tree_start(peer: Peer, size: int) -> dict[str, float]:
    """Begin to watch a tree of `size` directories."""
    limit = int(WATCH_LIMIT.read_text())
    if limit < size + FOLDERS:
        raise NotOffered(f"fs.inotify.max_user_watches is {limit}")
    with _tree(size) as root, closing(peer.driver_class()()) as driver:
        with Meter() as meter:
            driver.watch_tree(root)
        # All of it, that is: what is new anywhere is told of.
        paths = {f"{folder.path}/new" for folder in list(os.scandir(root))[:: max(1, size // FOLDERS)]}
        for path in paths:
            os.mknod(path)
        lost = paths.difference(driver.new_files(len(paths)))
    if lost:
        raise LostCallbacks(f"{len(lost)} of {len(paths)} directories were not watched")
    return meter.per(1)


@contextmanager
def _tree(count: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as root:
        for number in range(count):
            os.mkdir(f"{root}/{number}")
        yield os.path.realpath(root)
