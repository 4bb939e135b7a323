"""Show the last lines of log files and what is added to them, as `tail -F` does: by name, also when they are rotated.

    python examples/13_tail_f.py /var/log/syslog /var/log/auth.log
    python examples/13_tail_f.py -n 0 app.log                          # only what comes from now on

A file that is renamed is followed under its new name until there is another one under the old name; that one is then shown from
its beginning. One that is cut is shown from its beginning, too. A file may be missing, as long as its folder is there; symbolic
links are followed as they are at the start. What happens to a file is told on standard error. Ctrl-C ends it.
"""

import argparse
import os
import signal
import stat
import sys

from linux_event import Loop

BLOCK = 1 << 16
EVENTS = ("modify", "create", "delete", "moved_from", "moved_to")


class Screen:
    """Standard output, with a heading wherever another file has its turn."""

    def __init__(self, has_headings):
        self.has_headings = has_headings
        self.last = None

    def show(self, name, data):
        if self.has_headings and name != self.last:
            sys.stdout.buffer.write(b"\n" * (self.last is not None) + b"==> %s <==\n" % os.fsencode(name))
        self.last = name
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


class Log:
    """One file that is followed by its name. Its end is read at once: a local file does not make one wait."""

    def __init__(self, name, screen):
        self.name = name
        self.screen = screen
        self.fd = None

    def say(self, text):
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def open(self, path):
        """Go over to the file that has the name now. Returns whether that is another one."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self.say(error.strerror)
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self.say("is not a file")
            os.close(fd)
            return False
        if self.fd is not None and os.path.samestat(os.fstat(fd), os.fstat(self.fd)):
            os.close(fd)
            return False
        self.close()
        self.fd = fd
        self.offset = 0
        return True

    def close(self):
        if self.fd is not None:
            self.read()  # what was added in the meantime
            os.close(self.fd)
            self.fd = None

    def read(self):
        """Show what has been added. What is added while this goes on, the next event tells of."""
        size = os.fstat(self.fd).st_size
        if size < self.offset:
            self.say("has been cut")
            self.offset = 0
        while self.offset < size:
            data = os.pread(self.fd, min(BLOCK, size - self.offset), self.offset)
            if not data:
                break
            self.offset += len(data)
            self.screen.show(self.name, data)

    def skip(self, count):
        """Go to where the last lines begin."""
        self.offset = position = os.fstat(self.fd).st_size
        # The newline at the end of the last line is none between lines.
        newlines = count + (position > 0 and os.pread(self.fd, 1, position - 1) == b"\n")
        while position and newlines:
            start = max(0, position - BLOCK)
            block = os.pread(self.fd, position - start, start)
            while newlines and b"\n" in block:
                block = block[: block.rindex(b"\n")]
                newlines -= 1
                self.offset = start + len(block) + 1
            position = start
        if newlines:
            self.offset = 0


class Follower:
    """Follows the files of one folder, which is watched as a whole: renames and new files are told of there."""

    def __init__(self, loop, folder, logs):
        self.logs = logs  # by path
        self.renamed = {}  # those that are not at their own path, by the one they are at
        self.moving = {}  # those of which half of a rename has been told, by cookie
        loop.watch(folder, EVENTS, self.on_event)

    def on_event(self, watcher, event):
        path, names = event.path, event.names
        if "overflow" in names:
            for path, log in self.logs.items():
                self.look(path, log)
        elif "moved_from" in names:
            log = self.renamed.pop(path, None) or self.logs.get(path)
            if log is not None and log.fd is not None:
                self.moving[event.cookie] = log
        elif path in self.logs:
            log = self.logs[path]
            if "delete" in names:
                log.say("has been deleted")
                log.close()
            else:
                self.look(path, log, "modify" not in names)
        elif "modify" in names:
            if path in self.renamed:
                self.renamed[path].read()
        else:
            self.renamed.pop(path, None)  # another file has got the name, or it is gone
            if event.cookie in self.moving:
                log = self.renamed[path] = self.moving.pop(event.cookie)
                log.say(f"is {path} now")

    def look(self, path, log, is_another=True):
        if (is_another or log.fd is None) and log.open(path):
            log.say("is a new file")
            for places in (self.renamed, self.moving):
                for place in [place for place, other in places.items() if other is log]:
                    del places[place]
        if log.fd is not None:
            log.read()


def main():
    parser = argparse.ArgumentParser(description="Show what is added to files.")
    parser.add_argument("file", nargs="+")
    parser.add_argument("-n", "--lines", type=int, default=10, help="of each file to begin with; default: 10")
    arguments = parser.parse_args()
    # When nobody reads our output any more (`| head`), end without a word as other programs do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    screen = Screen(len(arguments.file) > 1)
    folders = {}
    for name in arguments.file:
        path = os.path.realpath(name)
        folders.setdefault(os.path.dirname(path), {})[path] = Log(name, screen)
    with Loop() as loop:
        for name in ("INT", "TERM"):
            loop.signal(name, lambda watcher, signum: loop.stop())
        for folder, logs in folders.items():
            try:
                Follower(loop, folder, logs)  # first, so that nothing is missed
            except OSError as error:
                print(f"{folder}: {error.strerror}", file=sys.stderr)
                return 1
            for path, log in logs.items():
                if log.open(path):
                    log.skip(arguments.lines)
                    log.read()
        loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
