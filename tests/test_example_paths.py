"""The examples that watch files: a restarter and a `tail -F`, driven by sh, mv, truncate and others."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest
from _example import BOUND, EXAMPLES, is_gone, run, running
from _fault import script_environment, wait_asleep, wait_until


def sh(folder, script):
    run("sh", "-ec", 'cd "$0"\n' + script, folder)


# 12: the restarter.

STUBBORN = ("sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 1; done')
SLEEP = ("sleep", 1000)


@contextlib.contextmanager
def restarter(folder, command, *options):
    # Long enough that what a shell does between two changes does not look like silence.
    with running("12_restarter.py", folder, "--quiet", 0.3, *options, "--", *command) as example:
        try:
            yield example
        finally:
            # Only there when the test has failed.
            with (
                contextlib.suppress(FileNotFoundError),
                open(f"/proc/{example.pid}/task/{example.pid}/children") as file,
            ):
                for pid in file.read().split():
                    os.killpg(int(pid), signal.SIGKILL)


def started(example, *also):
    """The pid of the program, which may have written the lines `also` by the time that its start is told."""
    lines = [example.line() for _ in range(1 + len(also))]
    (told,) = (line for line in lines if line not in also)
    assert len(set(lines)) == len(lines)
    return int(re.fullmatch(r"started process (\d+)", told)[1])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def is_started_again(example, pid, changes=r"\d+"):
    assert re.fullmatch(rf"{changes} changes", example.line())
    assert example.line() == f"process {pid} has ended with status -15"
    new = started(example)
    assert new != pid
    assert is_gone(pid)
    return new


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_started_again_at_each_kind_of_change(folder, signum):
    with restarter(folder, SLEEP) as example:
        pid = started(example)
        for script in (
            "echo 1 > a",
            "echo 2 >> a",
            "mv a b",
            "rm b",
            "mkdir -p c/d",
            "touch c/d/e",
            "ln -s c f",
            "rm -r c",
        ):
            sh(folder, script)
            pid = is_started_again(example, pid)
        assert example.end(signum) == [
            f"{signal.Signals(signum).name}: ending",
            f"process {pid} has ended with status -15",
        ]
        assert is_gone(pid)


def test_many_changes_are_one(folder):
    with restarter(folder, SLEEP) as example:
        pid = started(example)
        before = example.fds()
        sh(folder, "for i in 1 2 3 4 5; do mkdir -p $i/x; echo > $i/x/file; done")
        # 5 directories with one in each, 5 files that are created; of their writing only if their directory was known by then.
        pid = is_started_again(example, pid, "(1[5-9]|20)")
        assert example.fds() == before
        assert len(example.end(signal.SIGTERM)) == 2


def test_what_does_not_count(folder):
    sh(folder, "mkdir deep")
    with restarter(folder, SLEEP, "--only", "*.py", "--only", "*.c") as example:
        pid = started(example)
        sh(folder, "mkdir .git __pycache__; touch .git/a.py __pycache__/b.py deep/text .x.py y.py~; touch deep/z.py")
        pid = is_started_again(example, pid, "2")
        sh(folder, "mv deep/z.py deep/z.c")
        is_started_again(example, pid, "2")
        example.end(signal.SIGTERM)
    with restarter(folder, SLEEP, "--ignore", "deep") as example:
        pid = started(example)
        sh(folder, "touch deep/z.py; touch .x.py")
        is_started_again(example, pid, "1")
        example.end(signal.SIGTERM)


def test_a_program_that_ends_waits_for_a_change(folder):
    sh(folder, "echo zero > file")
    with restarter(folder, ("sh", "-c", f"cat '{folder}/file'; exit 3")) as example:
        pid = started(example, "zero")
        assert example.line() == f"process {pid} has ended with status 3"
        for text in ("one", "two"):
            sh(folder, f"echo {text} > .new; mv .new file")
            assert example.line() == "1 changes"
            pid = started(example, text)
            assert example.line() == f"process {pid} has ended with status 3"
        assert example.end(signal.SIGTERM) == ["SIGTERM: ending"]


def test_what_does_not_end_in_time_is_killed_and_started_again(folder):
    with restarter(folder, STUBBORN, "--grace", 0.2) as example:
        pid = started(example, "ready")
        sh(folder, "touch a")
        assert re.fullmatch(r"\d changes", example.line())
        assert example.line() == "killing what did not end in time"
        assert example.line() == f"process {pid} has ended with status -9"
        pid = started(example, "ready")
        assert example.end(signal.SIGTERM, status=1) == [
            "SIGTERM: ending",
            "killing what did not end in time",
            f"process {pid} has ended with status -9",
        ]


def test_a_program_that_is_not_there_yet(folder):
    program = folder / "program"
    with restarter(folder, (program,)) as example:
        assert example.line().startswith("cannot be started: [Errno 2]")
        sh(folder, "printf '#!/bin/sh\\necho here\\n' > .new; chmod +x .new; mv .new program")
        assert example.line() == "1 changes"
        pid = started(example, "here")
        assert example.line() == f"process {pid} has ended with status 0"
        assert example.end(signal.SIGTERM) == ["SIGTERM: ending"]


def test_the_folder_itself_goes_and_comes_back(folder):
    with restarter(folder, SLEEP) as example:
        pid = started(example)
        sh(folder.parent, "rm -r folder; mkdir folder")
        pid = is_started_again(example, pid)
        sh(folder, "touch a")
        is_started_again(example, pid)
        example.end(signal.SIGTERM)


@pytest.mark.parametrize("name", ["12_restarter.py", "13_tail_f.py"])
def test_a_folder_that_is_not_there(folder, name):
    arguments = ("--", "true") if name.startswith("12") else ()
    command = [sys.executable, EXAMPLES / name, folder / "missing" / "x", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=script_environment())
    assert done.returncode == 1
    assert done.stdout == ""
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr


# 13: tail -F.


@contextlib.contextmanager
def tail(*arguments):
    with running("13_tail_f.py", *arguments) as example:
        wait_asleep(example.pid)
        yield example


def lines_of(example, count):
    return [example.line() for _ in range(count)]


def told(example, signum=signal.SIGINT):
    """End it; what it has said on standard error. All of standard output has to have been read."""
    example.process.send_signal(signum)
    stdout, stderr = example.process.communicate(timeout=BOUND)
    assert example.process.returncode == 0
    assert example.rest + stdout == b""
    return stderr.decode().splitlines()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 10),
        ("one\n", 10),
        ("one", 10),
        ("one\ntwo", 1),
        ("\n\n\n", 2),
        ("one\ntwo\n", 0),
        ("x" * 40_000 + "\n" + "y" * 40_000 + "\n", 1),
    ],
)
def test_last_lines(folder, text, count):
    (folder / "log").write_text(text)
    expected = run("tail", "-n", count, folder / "log")
    with tail("-n", count, folder / "log") as example:
        sh(folder, "echo >> log; echo end >> log")
        found = []
        while not found or found[-1] != "end":
            found.append(example.line())
        assert "\n".join(found) == expected.decode() + "\nend"
        assert told(example) == []


def test_last_lines_of_a_large_file(folder):
    sh(folder, "seq 200000 > log")
    for count in (10, 30_000):
        # Without waiting for it: it waits for the pipe itself.
        with running("13_tail_f.py", "-n", count, folder / "log") as example:
            assert lines_of(example, count) == [str(number) for number in range(200_001 - count, 200_001)]
            assert told(example) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_several_files(folder, signum):
    sh(folder, "mkdir other; seq 3 > a; seq 4 5 > other/b")
    with tail("-n", 2, folder / "a", folder / "other/b") as example:
        heading = {name: f"==> {folder / name} <==" for name in ("a", "other/b")}
        assert lines_of(example, 7) == [heading["a"], "2", "3", "", heading["other/b"], "4", "5"]
        sh(folder, "echo 6 >> other/b")
        assert example.line() == "6"
        sh(folder, "echo 7 >> a; echo 8 >> unrelated")
        assert lines_of(example, 3) == ["", heading["a"], "7"]
        before = example.fds()
        sh(folder, "for i in $(seq 1000); do echo $i >> a; done")
        assert lines_of(example, 1000) == [str(number) for number in range(1, 1001)]
        assert example.fds() == before
        assert told(example, signum) == []


ROTATE = "if [ -f log.1 ]; then mv log.1 log.2; fi; mv log log.1; touch log; chmod 600 log"


def test_rotated_as_logrotate_does(folder):
    """The old file is written to for some time after it was renamed, until whoever writes it is told to open the new one."""
    log = folder / "log"
    log.touch()
    with tail(log) as example:
        before = example.fds()
        for number in range(5):
            with log.open("a") as file:
                file.write(f"{number}: before\n")
                file.flush()
                assert example.line() == f"{number}: before"
                sh(folder, "if [ -f log.1 ]; then mv log.1 log.2; fi; mv log log.1")
                file.write(f"{number}: renamed\n")
                file.flush()
                assert example.line() == f"{number}: renamed"
                file.write(f"{number}: last\n")
                file.flush()
                sh(folder, f"touch log; chmod 600 log; echo {number}: first >> log")
                assert lines_of(example, 2) == [f"{number}: last", f"{number}: first"]
        assert example.fds() == before
        assert told(example) == [f"{log}: is {log}.1 now", f"{log}: is a new file"] * 5


def test_rotated_at_once(folder):
    log = folder / "log"
    sh(folder, "echo first > log")
    with tail(log) as example:
        assert example.line() == "first"
        sh(folder, f"for i in 1 2 3; do echo old $i >> log; {ROTATE}; echo new $i >> log; done")
        found = [example.line()]
        while found[-1] != "new 3":
            found.append(example.line())
        # A file that had the name for so short a time that nobody has opened it is not shown.
        assert found[0] == "old 1"
        assert [line for line in ("old 1", "new 1", "old 2", "new 2", "old 3", "new 3") if line in found] == found
        told(example)


@pytest.mark.parametrize(
    "script", ["rm log; echo new > log", "echo new > .log; mv .log log", "echo new > .log; ln -f .log log"]
)
def test_replaced(folder, script):
    log = folder / "log"
    sh(folder, "echo old > log")
    with tail(log) as example:
        assert example.line() == "old"
        sh(folder, script)
        assert example.line() == "new"
        sh(folder, "echo more >> log")
        assert example.line() == "more"
        assert told(example)[-1] == f"{log}: is a new file"


def test_cut(folder):
    log = folder / "log"
    sh(folder, "seq 100 > log")
    with tail("-n", 1, log) as example:
        assert example.line() == "100"
        for _ in range(3):
            sh(folder, "truncate -s 0 log; echo begun again >> log")
            assert example.line() == "begun again"
            sh(folder, "seq 100 >> log")
            assert lines_of(example, 100)[-1] == "100"
        assert told(example) == [f"{log}: has been cut"] * 3


def test_files_that_come_later(folder):
    missing = folder / "missing"
    sh(folder, "echo here > log; ln -s log link; mkdir dir")
    with tail(missing, folder / "link", folder / "dir") as example:
        assert lines_of(example, 2) == [f"==> {folder / 'link'} <==", "here"]
        sh(folder, "echo there > missing")
        assert lines_of(example, 3) == ["", f"==> {missing} <==", "there"]
        sh(folder, "echo through the link >> log")
        assert lines_of(example, 3) == ["", f"==> {folder / 'link'} <==", "through the link"]
        assert told(example) == [
            f"{missing}: No such file or directory",
            f"{folder / 'dir'}: is not a file",
            f"{missing}: is a new file",
        ]


def test_the_folder_goes_and_comes_back(folder):
    log = folder / "log"
    sh(folder, "echo old > log")
    with tail(log) as example:
        assert example.line() == "old"
        sh(folder.parent, "rm -r folder; mkdir folder; echo new > folder/log")
        assert example.line() == "new"
        sh(folder, "echo more >> log")
        assert example.line() == "more"
        assert told(example)[-1] == f"{log}: is a new file"


def test_nobody_reads(folder):
    sh(folder, "echo here > log")
    with tail(folder / "log") as example:
        assert example.line() == "here"
        example.process.stdout.close()
        sh(folder, "echo more >> log")
        wait_until(lambda: example.process.poll() is not None)
        assert example.process.returncode == -signal.SIGPIPE
        assert example.process.stderr.read() == b""
        example.process.stderr.close()
