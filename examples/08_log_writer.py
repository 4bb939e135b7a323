"""Write lines from standard input to a log file, and survive a full disk.

    some-program | python examples/08_log_writer.py /var/log/some-program.log

While the disk is full the lines wait, up to a limit; the oldest are dropped beyond it. As soon as there is room again the
lines go on, after one that says how many are missing. A line that found room in part is completed, none is written twice.
"""

import argparse
import collections
import errno
import os
import sys
from concurrent.futures import CancelledError

from linux_event import Loop

BATCH = 1 << 16  # bytes of one write, more or less


class LogWriter:
    """Appends lines to a file in batches: while one is being written the next one gathers."""

    def __init__(self, loop, fd, limit, retry, patience):
        self.loop, self.fd = loop, fd
        self.limit, self.retry, self.patience = limit, retry, patience
        self.lines = collections.deque()
        self.waiting = 0  # bytes in them
        self.lost = 0  # lines dropped, and not told in the log so far
        self.lost_in_all = 0
        self.position = os.fstat(fd).st_size
        self.batch = b""  # what is being written
        self.deadline = None
        self.is_full = self.is_busy = False

    def put(self, line):
        self.lines.append(line)
        self.waiting += len(line)
        while self.waiting > self.limit:
            self.drop()
        self.write()

    def drop(self):
        self.waiting -= len(self.lines.popleft())
        self.lost += 1
        self.lost_in_all += 1

    def end(self):
        """No more lines come. What waits has `patience` seconds to get written."""
        if self.is_busy:
            self.deadline = self.loop.timer(self.patience, self.give_up)

    def give_up(self, timer):
        self.lost_in_all += len(self.lines) + self.batch.count(b"\n")
        self.loop.stop()

    def write(self):
        if self.is_busy:
            return  # one at a time
        if not self.batch:
            parts = []
            if self.lost:
                parts.append(b"(%d lines are missing here)\n" % self.lost)
                self.lost = 0
            size = 0
            while self.lines and size < BATCH:
                parts.append(self.lines.popleft())
                size += len(parts[-1])
            self.waiting -= size
            self.batch = b"".join(parts)
        if self.batch:
            self.is_busy = True
            self.loop.write(self.fd, self.batch, self.position, self.on_written)
        elif self.deadline is not None:
            self.deadline.destroy()

    def on_written(self, count, error):
        if error is None:
            self.go_on(count)
            self.is_busy = False
            if self.is_full:
                self.is_full = False
                print("there is room again", file=sys.stderr, flush=True)
            self.write()
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            if not self.is_full:
                self.is_full = True
                print(f"waiting: {error.strerror}", file=sys.stderr, flush=True)
            # A part may have found room. How large the file has become tells how much.
            self.loop.stat(self.fd, self.on_measured)
        else:
            raise error

    def on_measured(self, found, error):
        if error is not None:
            raise error
        self.go_on(max(0, found.st_size - self.position))
        self.loop.timer(self.retry, self.try_again)

    def try_again(self, timer):
        self.is_busy = False
        self.write()

    def go_on(self, count):
        self.position += count
        self.batch = self.batch[count:]


class Lines:
    """Reads standard input to its end and hands on each line with its newline."""

    def __init__(self, loop, writer):
        self.loop, self.writer = loop, writer
        self.rest = b""
        self.read()

    def read(self):
        self.loop.read(sys.stdin.fileno(), 65536, callback=self.on_read)

    def on_read(self, data, error):
        if error is not None:
            raise error
        if not data:
            if self.rest:
                self.writer.put(self.rest + b"\n")
            self.writer.end()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.writer.put(line + b"\n")
        self.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path")
    parser.add_argument("--limit", type=int, default=1 << 20, help="bytes that wait at most (%(default)s)")
    parser.add_argument("--retry", type=float, default=1, help="seconds between attempts (%(default)s)")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for room at the end (%(default)s)")
    options = parser.parse_args()

    fd = os.open(options.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    failures = []
    with Loop() as loop:

        def fail(source, error):
            # What is on its way when the loop is closed is cancelled: that is no failure.
            if not isinstance(error, CancelledError):
                failures.append(error)
                loop.stop()

        loop.on_error = fail
        writer = LogWriter(loop, fd, options.limit, options.retry, options.patience)
        Lines(loop, writer)
        loop.run()
    for error in failures:
        sys.exit(f"cannot go on: {error}")
    if writer.lost_in_all:
        sys.exit(f"{writer.lost_in_all} lines are lost")


if __name__ == "__main__":
    main()
