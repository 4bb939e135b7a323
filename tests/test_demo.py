"""The demo: it succeeds, and it fails when anything at all is missing."""

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

from _fault import run_script, script_environment

from linux_event import demo

ROWS = [
    "client processes that got all bytes back",
    "TCP connections accepted",
    "messages echoed",
    "bytes received",
    "bytes sent back",
    "bytes of a regular file read",
    "lines read from a FIFO",
    "one-shot timers fired",
    "ticks every 0.05 s",
    "signals taken from another process",
    "signals taken from this process",
    "calls deferred one by the other",
    "calls posted by another thread",
    "idle calls",
]


def table(text):
    """The rows of the table as dictionary: what -> (count, expected, verdict)."""
    rows = re.findall(r"^(\S.*?)  +(\d+)  +(\d+|>= \d+|\d+ or \d+)  (ok|WRONG)$", text, re.MULTILINE)
    return {what: (int(count), expected, verdict) for what, count, expected, verdict in rows}


def failed(seconds=1.0):
    """Run the demo here, see it fail, and return the rows that it calls wrong."""
    output = io.StringIO()
    assert demo.run(seconds, output) is False
    text = output.getvalue()
    wrong = {what for what, (_, _, verdict) in table(text).items() if verdict == "WRONG"}
    assert f"{len(wrong)} of {len(table(text))} checks FAILED." in text
    return wrong


def test_command():
    command = [sys.executable, "-m", "linux_event", "demo", "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=script_environment())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    rows = table(done.stdout)
    for what in ROWS:
        assert rows[what][0] > 0, what
    assert {verdict for _, _, verdict in rows.values()} == {"ok"}
    assert f"All {len(rows)} checks passed." in done.stdout
    assert rows["bytes received"][0] == rows["bytes sent back"][0]
    assert re.search(r"The loop ran for [\d.]+ s: \d+ iterations, \d+ callbacks, \d+ completions", done.stdout)


def test_run_leaves_nothing_behind(capfd):
    # The fixture of all tests looks at fds, watchers and loops.
    assert demo.run(1.0) is True
    output, errors = capfd.readouterr()
    assert "checks passed" in output
    assert errors == ""
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_timer_that_does_not_restart(monkeypatch):
    monkeypatch.setattr(demo.Timers, "on_restart", lambda self, timer: None)
    assert failed() == {"times a timer fired that starts itself again"}


def test_posts_out_of_order(monkeypatch):
    def post(self):
        for number in reversed(range(demo.POSTED)):
            self.loop.post(self.on_posted, number)

    monkeypatch.setattr(demo.Calls, "post", post)
    assert failed() == {"of these in order and in the loop's thread"}


def test_missing_post(monkeypatch):
    monkeypatch.setattr(demo.Calls, "post", lambda self: None)
    assert failed() == {"calls posted by another thread", "of these in order and in the loop's thread"}


def test_signal_of_an_unknown_process(monkeypatch):
    def on_signal(self, watcher, signum):
        self.taken += 1
        self.sender.acknowledge()

    monkeypatch.setattr(demo.Signals, "on_signal", on_signal)
    assert failed() == {"of these with the number of that process"}


def test_missed_signal(monkeypatch):
    def on_own_signal(self, watcher, signum):
        self.own += 1

    monkeypatch.setattr(demo.Signals, "on_own_signal", on_own_signal)
    assert failed() == {"signals taken from this process"}


def test_callback_that_raises(monkeypatch, capfd):
    def on_tick(self, periodic):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(demo.Periodics, "on_tick", on_tick)
    wrong = failed()
    assert wrong == {"callbacks that raised", "ticks every 0.05 s", "ticks every 0.25 s"}
    assert "ZeroDivisionError: on purpose" in capfd.readouterr().err


def test_byte_that_changes_on_the_way(monkeypatch, capfd):
    receive = demo.Connection.receive

    def damaged(self):
        receive(self)
        if self.queue:
            self.queue[0] ^= 1

    monkeypatch.setattr(demo.Connection, "receive", damaged)
    assert "client processes that got all bytes back" in failed()
    assert "other bytes came back" in capfd.readouterr().err


def test_peers_that_fail(monkeypatch, capfd, tmp_path):
    # The FIFO gets no writer and the sender of signals sends none, so the parts that wait for them are given up.
    broken = tmp_path / "peers.py"
    broken.write_text("raise SystemExit('broken on purpose')")
    monkeypatch.setattr(demo.peers, "__file__", str(broken))
    monkeypatch.setattr(demo, "PATIENCE", 0.0)
    wrong = failed()
    assert wrong >= {
        "client processes that got all bytes back",
        "TCP connections accepted",
        "lines read from a FIFO",
        "signals taken from another process",
        "times the loop had to be stopped",
    }
    assert capfd.readouterr().err.count("broken on purpose") == demo.CLIENTS + 2


def test_connections_that_are_reset(monkeypatch, tmp_path):
    # Closing with a linger time of zero is a reset.
    end = "connection.shutdown(socket.SHUT_WR)"
    reset = "connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))"
    source = Path(demo.peers.__file__).read_text()
    assert end in source
    rude = tmp_path / "peers.py"
    rude.write_text(source.replace(end, f"{reset}; connection.close(); continue"))
    monkeypatch.setattr(demo.peers, "__file__", str(rude))
    assert failed() == {"TCP connections broken or left open"}


def test_idle_that_is_not_called(monkeypatch):
    monkeypatch.setattr(demo, "IDLE_CALLS", 10**9)
    monkeypatch.setattr(demo, "PATIENCE", 0.0)
    assert failed() >= {"idle calls", "times the loop had to be stopped"}


def test_interrupt_ends_the_peers():
    # A process left behind would keep the pipe of the standard error open, for which run_script() waits.
    done = run_script(
        """
        import os, signal, sys
        from linux_event import demo
        from linux_event.__main__ import main
        demo.RESTARTS = 10_000
        demo.Timers.on_restart = lambda self, timer: os.kill(os.getpid(), signal.SIGINT)
        sys.exit(main(["demo", "--seconds", "3600"]))
        """
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert len(done.stdout.splitlines()) == 1


def test_refused():
    done = run_script(
        """
        import sys
        import _fault
        _fault.deny()
        from linux_event.__main__ import main
        sys.exit(main(["demo"]))
        """
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("io_uring cannot be used here:")
    assert "seccomp" in done.stderr
