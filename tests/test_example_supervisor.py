"""The supervisor of processes, with programs of others to keep running."""

import os
import re
import signal

import pytest
from _example import is_gone, running
from _fault import wait_until

# It ignores SIGTERM, and so does what it starts; it says when it does.
STUBBORN = """sh -c 'trap "" TERM; echo ready; while :; do sleep 1; done'"""


def started(example, count):
    """The pids of the processes that the next lines tell of, by number of the worker."""
    pids = {}
    while len(pids) < count:
        number, pid = re.fullmatch(r"worker (\d+): process (\d+)", example.line()).groups()
        pids[int(number)] = int(pid)
    return pids


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("commands", [(), ("sleep 100",) * 5])
def test_all_are_stopped(signum, commands):
    with running("11_supervisor.py", *commands) as example:
        assert example.line() == f"supervisor of 5 processes, process {example.pid}"
        pids = started(example, 5)
        *lines, last = example.end(signum)
        name = signal.Signals(signum).name
        if commands:
            assert lines[0] == f"{name}: stopping 5 processes"
            assert sorted(lines[1:]) == [f"worker {number}: ended with SIGTERM" for number in range(1, 6)]
        assert last == "all processes have ended"
        assert all(is_gone(pid) for pid in pids.values())


def test_what_ends_is_started_again_after_growing_pauses():
    with running("11_supervisor.py", "false", "--pause", 0.02, "--longest", 0.1) as example:
        example.line()
        pids = []
        for pause in ("0.02", "0.04", "0.08", "0.1", "0.1"):
            pids += started(example, 1).values()
            assert example.line() == f"worker 1: ended with status 1, again in {pause} s"
        assert len(set(pids)) == 5
        assert example.end(signal.SIGTERM)[-1] == "all processes have ended"


def test_the_first_pause_again_after_a_while():
    with running("11_supervisor.py", "sleep 0.1", "--pause", 0.02, "--steady", 0.05) as example:
        example.line()
        for _ in range(3):
            started(example, 1)
            assert example.line() == "worker 1: ended with status 0, again in 0.02 s"
        example.end(signal.SIGTERM)


def test_one_that_is_killed_and_four_that_go_on():
    with running("11_supervisor.py", *["sleep 100"] * 5, "--pause", 0.02) as example:
        example.line()
        pids = started(example, 5)
        before = example.fds()
        os.kill(pids[3], signal.SIGKILL)
        assert example.line() == "worker 3: ended with SIGKILL, again in 0.02 s"
        assert started(example, 1)[3] != pids[3]
        assert not any(is_gone(pids[number]) for number in (1, 2, 4, 5))
        assert example.fds() == before
        example.end(signal.SIGTERM)


def test_what_does_not_end_in_time_is_killed():
    with running("11_supervisor.py", STUBBORN, "sleep 100", "--grace", 0.2) as example:
        example.line()
        lines = [example.line() for _ in range(3)]
        assert "ready" in lines
        lines = example.end(signal.SIGTERM, status=1)
        assert lines == [
            "SIGTERM: stopping 2 processes",
            "worker 2: ended with SIGTERM",
            "killing what did not end in time",
            "worker 1: ended with SIGKILL",
            "all processes have ended",
        ]


def test_a_second_signal_kills_at_once():
    with running("11_supervisor.py", STUBBORN) as example:
        example.line()
        lines = [example.line() for _ in range(2)]
        assert "ready" in lines
        example.process.send_signal(signal.SIGTERM)
        assert example.line() == "SIGTERM: stopping 1 processes"
        assert example.end(signal.SIGINT, status=1) == [
            "SIGINT again: killing",
            "worker 1: ended with SIGKILL",
            "all processes have ended",
        ]


def test_a_signal_while_all_wait_to_be_started_again():
    with running("11_supervisor.py", "false", "/no/such/program", "--pause", 100) as example:
        example.line()
        lines = [example.line() for _ in range(3)]
        assert "worker 1: ended with status 1, again in 100 s" in lines
        assert any(line.startswith("worker 2: cannot be started: [Errno 2]") for line in lines)
        assert example.end(signal.SIGTERM) == ["SIGTERM: stopping 0 processes", "all processes have ended"]


def test_the_terminal_is_for_the_supervisor():
    # Ctrl-C goes to the process group in front; the processes have groups of their own.
    with running("11_supervisor.py", "sleep 100") as example:
        example.line()
        [pid] = started(example, 1).values()
        assert os.getpgid(pid) == pid
        assert example.end(signal.SIGINT)[0] == "SIGINT: stopping 1 processes"
        wait_until(lambda: is_gone(pid))
