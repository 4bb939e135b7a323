"""The example that shows who opens what, on a file system of its own, with programs of others."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest
from _example import BOUND, EXAMPLES, foreign, running
from _fault import script_environment, wait_until
from _mounts import privileged, touch
from _support import KINDS


@contextlib.contextmanager
def holder(path):
    """A shell that opens a file and then stays, so that its name can be asked for; its pid."""
    script = 'exec 3< "$0"; echo; read x'
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["sh", "-c", script, path], env=foreign(), **pipes) as process:
        process.stdout.read(1)
        yield process.pid
        process.stdin.close()


@privileged
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_who_opens_what(folder, signum):
    for name in ("inside", "inside/deep", "inside2"):
        os.mkdir(f"{folder}/{name}")
    touch(f"{folder}/inside", 1)
    odd = os.fsencode(f"{folder}/inside/deep/") + b"\xff\n"
    touch(f"{folder}/inside2", 1)
    with open(odd, "w"):
        pass
    with running("14_who_opens.py", f"{folder}/inside") as example:
        assert example.line() == f"watching {folder}/inside, process {example.pid}"
        with holder(f"{folder}/inside2/0"), holder(f"{folder}/inside/0") as first:
            assert example.line() == f"{first:>7} {'sh':<15} open        {folder}/inside/0"
            with holder(odd) as second:
                assert example.line() == f"{second:>7} {'sh':<15} open        {folder}/inside/deep/\\udcff\\n"
        os.listdir(f"{folder}/inside")
        line = example.line()
        assert re.fullmatch(rf" *{os.getpid()} .* open        {folder}/inside/", line), line
        last = example.end(signum)
        assert last[0] == "3 events"
        assert sorted(last[1:]) == sorted(
            [*(f"      1 of process {pid}, sh" for pid in (first, second)), last_of(line)]
        )


def last_of(line):
    """What is said in the end of the process in a line, with one event."""
    pid, rest = line.split(None, 1)
    return f"      1 of process {pid}, {rest.rsplit(None, 2)[0].rstrip()}"


def output_of(folder):
    with open(f"{folder}/output") as file:
        return file.read()


@privileged
def test_its_own_output_on_the_same_mount(folder):
    """Each line that is written would be an event."""
    with open(f"{folder}/output", "wb") as output:
        command = [sys.executable, str(EXAMPLES / "14_who_opens.py"), folder, "--events", "all"]
        process = subprocess.Popen(command, stdout=output, env=script_environment())
    try:
        wait_until(lambda: "watching" in output_of(folder))
        with holder(f"{folder}/output") as pid:
            wait_until(lambda: f"{pid:>7} sh " in output_of(folder))
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        process.wait()
    pids = {line.split()[0] for line in output_of(folder).splitlines()[1:] if folder in line}
    assert str(process.pid) not in pids
    assert {str(pid), str(os.getpid())} == pids


def test_without_privileges(tmp_path):
    prefix = ["setpriv", "--bounding-set", "-sys_admin"] if "fswatch" in KINDS else []
    command = [*prefix, sys.executable, str(EXAMPLES / "14_who_opens.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=script_environment())
    assert done.returncode == 1
    assert done.stdout == ""
    assert "CAP_SYS_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_events(tmp_path):
    command = [sys.executable, str(EXAMPLES / "14_who_opens.py"), str(tmp_path), "--events", "open,create"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=script_environment())
    assert done.returncode == 2
    assert "loop.watch" in done.stderr
