"""Run a program, and start it again whenever a file of a tree changes.

    python examples/12_restarter.py src -- python -m http.server 8000
    python examples/12_restarter.py . --only '*.c' --only '*.h' -- sh -c 'make && ./server'

Everything below the folder counts, also in directories that appear later, but for what `--ignore` names: hidden files, backups
of editors and what Python compiles. Changes that come close together, as those of a checkout, are one: the program is started
again when nothing has changed for `--quiet` seconds. Before that it gets SIGTERM, and SIGKILL if it is still there after
`--grace` seconds, together with all that it has started. A program that ends by itself is started at the next change. Ctrl-C and
SIGTERM end it all; the exit status then is 0, or 1 if the program had to be killed.
"""

import argparse
import contextlib
import fnmatch
import os
import signal
import subprocess
import sys

from linux_event import Loop

EVENTS = ("close_write", "create", "delete", "moved_from", "moved_to")
IGNORED = [".*", "*~", "__pycache__", "*.pyc"]


def tell(text):
    """Print a line in one write, even where Python does not buffer: the program prints to the same place."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Restarter:
    def __init__(self, loop, arguments):
        self.loop = loop
        self.arguments = arguments
        self.process = None
        self.is_stopping = self.is_ending = self.was_killed = False
        self.changes = 0
        # Signals and the tree do not keep the loop going once the end has been asked for: the program does.
        for name in ("INT", "TERM"):
            loop.signal(name, self.on_signal, ref=False)
        self.quiet = loop.timer(arguments.quiet, self.on_quiet, ref=False, start=False)
        self.killer = loop.timer(arguments.grace, self.on_grace_over, ref=False, start=False)
        self.tree = loop.watch(arguments.folder, EVENTS, self.on_change, recursive=True)
        self.start()

    def is_of_interest(self, path):
        names = os.path.relpath(path, self.arguments.folder).split("/")
        if names == ["."]:
            return True  # the folder itself, or more has happened than could be told
        if any(fnmatch.fnmatch(name, pattern) for name in names for pattern in self.arguments.ignore):
            return False
        return any(fnmatch.fnmatch(names[-1], pattern) for pattern in self.arguments.only)

    def on_change(self, watcher, event):
        if self.is_of_interest(event.path):
            self.changes += 1
            self.quiet.stop().start()  # from now

    def on_quiet(self, timer):
        tell(f"{self.changes} changes")
        self.changes = 0
        if self.process is None:
            self.start()
        else:
            self.stop()

    def start(self):
        try:
            # In a process group of its own, which is signalled as a whole.
            self.process = subprocess.Popen(self.arguments.command, stdin=subprocess.DEVNULL, process_group=0)
        except OSError as error:
            tell(f"cannot be started: {error}")
            return
        tell(f"started process {self.process.pid}")
        self.loop.child(self.process, self.on_end)

    def stop(self):
        # While it is being stopped further changes make no difference: it is started afterwards.
        if not self.is_stopping:
            self.is_stopping = True
            self.send(signal.SIGTERM)
            self.killer.start()

    def send(self, signum):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)

    def on_grace_over(self, timer):
        tell("killing what did not end in time")
        self.was_killed = True
        self.send(signal.SIGKILL)

    def on_end(self, watcher, pid, returncode):
        watcher.destroy()
        self.killer.stop()
        self.process = None
        tell(f"process {pid} has ended with status {returncode}")
        if self.is_stopping and not self.is_ending:
            self.is_stopping = False
            self.start()

    def on_signal(self, watcher, signum):
        tell(f"{signal.Signals(signum).name}: ending")
        self.is_ending = True
        self.was_killed = False
        self.tree.destroy()
        self.quiet.destroy()
        if self.process is not None:
            self.stop()


def main():
    parser = argparse.ArgumentParser(description="Start a program again when files change.")
    parser.add_argument("folder")
    parser.add_argument("command", nargs="+", help="the program and its arguments, after --")
    parser.add_argument("--only", action="append", help="names that count, such as '*.py'; default: all")
    parser.add_argument("--ignore", action="append", help=f"names that do not; default: {' '.join(IGNORED)}")
    parser.add_argument("--quiet", type=float, default=0.2, help="seconds without a change before it is started again")
    parser.add_argument("--grace", type=float, default=5, help="seconds that it gets to end after SIGTERM")
    arguments = parser.parse_args()
    arguments.only = arguments.only or ["*"]
    arguments.ignore = arguments.ignore or IGNORED
    with Loop() as loop:
        try:
            restarter = Restarter(loop, arguments)
        except OSError as error:
            print(f"{error.filename}: {error.strerror}", file=sys.stderr)
            return 1
        loop.run()
    return int(restarter.was_killed)


if __name__ == "__main__":
    sys.exit(main())
