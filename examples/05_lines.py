"""Read lines from standard input and from the output of another program, whichever has some first.

    python examples/05_lines.py ping -c 3 127.0.0.1      # and type lines meanwhile; Ctrl-D ends the input
    seq 3 | python examples/05_lines.py seq 10 12
    python examples/05_lines.py < /etc/services          # a regular file works the same

Each line is printed with where it came from, and at the end how many there were.
"""

import os
import signal
import subprocess
import sys

from linux_event import Loop


class Lines:
    """Calls a function with each line that comes in on a file descriptor, without its newline."""

    def __init__(self, loop, fd, on_line):
        self.on_line = on_line
        self.rest = b""
        self.count = 0
        # Terminals, pipes and sockets are ready when they have something; a regular file always is.
        self.watcher = loop.io(fd, "r", self.on_readable)

    def on_readable(self, watcher, events):
        # One read for each call does not block, as something is there. O_NONBLOCK is left alone on purpose: standard
        # input belongs to the shell too, and to whoever else got it from there.
        data = os.read(watcher.fd, 65536)
        # What comes after the last newline is the beginning of a line whose end is still to come.
        *lines, self.rest = (self.rest + data).split(b"\n")
        if not data:
            watcher.destroy()
            if self.rest:
                lines.append(self.rest)
        for line in lines:
            self.count += 1
            self.on_line(line.decode(errors="replace"))


def main():
    # When nobody reads our output any more (`| head`), end without a word as other programs do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    command = sys.argv[1:]
    with Loop() as loop:
        sources = {"stdin": Lines(loop, 0, lambda line: print("stdin:", line, flush=True))}
        if command:
            # Its input is empty: ours is read by us.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            name = command[0]
            sources[name] = Lines(loop, process.stdout, lambda line: print(f"{name}:", line, flush=True))
        loop.run()
    if command:
        process.stdout.close()
        process.wait()
    print(", ".join(f"{source.count} lines from {name}" for name, source in sources.items()))


if __name__ == "__main__":
    main()
