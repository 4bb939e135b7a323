"""The examples as running programs, and the programs of others that drive them."""

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

from _fault import script_environment, wait_asleep

EXAMPLES = Path(__file__).parent.parent / "examples"
# Seconds after which a wait has failed.
BOUND = 60


class Example:
    """A running example: what it prints is read line by line, each within the bound."""

    def __init__(self, name, *arguments, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=script_environment(),
        )
        self.rest = b""
        self.lines = []

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """The next line of output without its newline, None at the end."""
        limit = time.monotonic() + BOUND
        while b"\n" not in self.rest:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, limit - time.monotonic()))
            assert readable, f"no further line after {self.lines}"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                assert not self.rest
                return None
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        self.lines.append(line.decode())
        return self.lines[-1]

    def port(self):
        """The port in the first line of output."""
        found = re.search(r":(\d+)\b", self.line() or "")
        assert found, self.lines
        return int(found[1])

    def fds(self):
        """How many file descriptors the example has while it waits for something to happen."""
        wait_asleep(self.pid)
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def end(self, signum=None, status=0):
        """Send a signal, if one is given, wait for the end and return the lines not read yet; nothing on stderr."""
        if signum is not None:
            self.process.send_signal(signum)
        stdout, stderr = self.process.communicate(timeout=BOUND)
        assert stderr == b"", stderr.decode()
        assert self.process.returncode == status
        return (self.rest + stdout).decode().splitlines()


@contextlib.contextmanager
def running(name, *arguments, **options):
    example = Example(name, *arguments, **options)
    try:
        yield example
    finally:
        if example.process.poll() is None:
            example.process.kill()
        # Reads what is left and closes the pipes; after end() there is nothing left to do.
        if not example.process.stdout.closed:
            _, stderr = example.process.communicate()
            sys.stderr.write(stderr.decode())


def foreign():
    """The environment of programs of others: a sanitizer's library that is loaded before Python is not for them."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def run(*command, data=b"", status=0):
    """The output of a program that reads `data`."""
    command = [str(word) for word in command]
    done = subprocess.run(command, input=data, capture_output=True, timeout=BOUND, env=foreign())
    assert done.returncode == status, (done.returncode, done.stderr.decode())
    return done.stdout


def is_gone(pid):
    """Whether the process has ended and was reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def nc(port, data):
    """What comes back when netcat sends `data` and the end of it."""
    return run("nc", "-N", "127.0.0.1", port, data=data)
