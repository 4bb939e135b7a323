"""Copy a tree of files, many at a time, with a progress bar.

    python -m pip install rich                       # draws the bar
    python examples/06_copy_tree.py SOURCE TARGET    # TARGET must not exist

The kernel moves the content of the files; this program sees names and counts. What cannot be copied is named, the rest is
copied all the same, and the exit status is 1.
"""

import argparse
import collections
import os
import sys

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from linux_event import Loop


class Copier:
    """Takes paths from a queue, at most `jobs` at a time; a folder that has been made puts what is in it into the queue."""

    def __init__(self, loop, source, target, jobs, on_progress):
        self.loop = loop
        self.source = source
        self.target = target
        self.free = jobs
        self.on_progress = on_progress
        self.queue = collections.deque([("", os.stat(source).st_mode & 0o777, "folder")])
        self.files = self.copied = self.expected = 0
        self.errors = []

    def work(self):
        """Start as many operations as may be in flight."""
        while self.queue and self.free:
            path, detail, kind = self.queue.popleft()
            source, target = os.path.join(self.source, path), os.path.join(self.target, path)
            self.free -= 1

            # The names of this round of the loop are bound here: by the time of the call they mean something else.
            def done(result, error, path=path, kind=kind):
                self.free += 1
                if error is not None:
                    self.errors.append(error)
                elif kind == "folder":
                    self.look_into(path)
                elif kind == "file":
                    self.files += 1
                    self.copied += result
                self.on_progress(self.copied, self.expected)
                self.work()

            if kind == "folder":
                # We have to be able to write into it, whatever its original allows.
                self.loop.mkdir(target, detail | 0o700, done)
            elif kind == "file":
                self.loop.copy_file(source, target, done)
            else:
                self.loop.symlink(detail, target, done)

    def look_into(self, folder):
        try:
            with os.scandir(os.path.join(self.source, folder)) as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if entry.is_symlink():
                        self.queue.append((path, os.readlink(entry.path), "link"))
                    elif entry.is_dir():
                        self.queue.append((path, entry.stat().st_mode & 0o777, "folder"))
                    elif entry.is_file():
                        self.expected += entry.stat().st_size
                        self.queue.append((path, None, "file"))
                    else:
                        self.errors.append(f"{entry.path}: neither file, folder nor link")
        except OSError as error:
            self.errors.append(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--jobs", type=int, default=32, help="how many copies at a time (%(default)s)")
    options = parser.parse_args()
    if os.path.exists(options.target):
        sys.exit(f"{options.target} exists")

    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Loop() as loop, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=None)

        def show(copied, expected):
            progress.update(bar, completed=copied, total=expected)

        copier = Copier(loop, options.source, options.target, options.jobs, show)
        copier.work()
        loop.run()  # returns when no operation is left
    for error in copier.errors:
        print(error, file=sys.stderr)
    print(f"{copier.files} files, {copier.copied} bytes, {len(copier.errors)} errors")
    sys.exit(bool(copier.errors))


if __name__ == "__main__":
    main()
