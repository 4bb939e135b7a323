"""Processes started while a loop runs: subprocess, multiprocessing by each start method, loops in parent and child."""

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap

import _fault
import pytest
from _support import finish, made_loop, run_until, scaled
from _traffic import Traffic

# Python 3.12 warns of every fork of a process with threads, which is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def ignore(*_):
    pass


@pytest.fixture
def traffic(loop):
    traffic = Traffic(loop)
    yield traffic
    traffic.close()


@pytest.mark.parametrize("close_fds", [True, False])
def test_subprocess_in_a_callback(traffic, close_fds):
    """The new program inherits no fd of ours and no changed signal mask."""
    outputs = []

    def call(watcher):
        outputs.append(subprocess.check_output(["ls", "-l", "/proc/self/fd"], close_fds=close_fds, text=True))
        command = ["grep", "SigBlk", "/proc/self/status"]
        outputs.append(subprocess.check_output(command, close_fds=close_fds, text=True))
        _fault.prepare_fork()
        assert subprocess.run(["true"], preexec_fn=ignore).returncode == 0
        assert os.system("true") == 0
        pid = os.posix_spawn("/bin/true", ["true"], {})
        assert _fault.wait_child(pid) == 0

    traffic.loop.timer(0, call)
    run_until(traffic.loop, lambda: len(outputs) == 2)
    assert "pipe:" in outputs[0]
    assert "anon_inode" not in outputs[0]
    assert int(outputs[1].split()[1], 16) == _fault.signal_masks()["SigBlk"]
    traffic.expect()


def test_subprocess_whose_output_the_loop_reads(loop):
    received = []
    with subprocess.Popen(["echo", "hello"], stdout=subprocess.PIPE) as process:

        def readable(watcher, events):
            received.append(process.stdout.read())
            watcher.destroy()

        loop.io(process.stdout, "r", readable)
        finish(loop)
    assert received == [b"hello\n"]
    assert process.returncode == 0


MULTIPROCESSING = """
    import multiprocessing
    import os
    import signal
    import sys

    import _fault
    from linux_event import Loop


    def work(connection, number):
        called = []
        with Loop() as own:
            own.timer(0.001, lambda watcher: called.append("timer"))
            own.signal("USR1", lambda watcher, signum: (called.append("signal"), watcher.destroy()))
            os.kill(os.getpid(), signal.SIGUSR1)
            own.run(timeout=50)
        connection.send((number, sorted(called)))


    def main():
        context = multiprocessing.get_context(sys.argv[1])
        loop = Loop()
        ticks, received, processes = [], [], []

        def start(watcher):
            for number in range(3):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(theirs, number))
                process.start()
                theirs.close()
                processes.append(process)
                loop.io(ours, "r", readable, data=ours)

        def readable(watcher, events):
            received.append(watcher.data.recv())
            watcher.destroy()
            if len(received) == 3:
                periodic.destroy()

        periodic = loop.periodic(0.001, ticks.append)
        loop.timer(0.005, start)
        loop.run(timeout=50)
        for process in processes:
            process.join(50)
            assert process.exitcode == 0, process
        assert sorted(received) == [(number, ["signal", "timer"]) for number in range(3)], received
        with context.Pool(2) as pool:
            assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
        loop.timer(0.001, ticks.append)
        loop.run(timeout=50)
        loop.close()
        print("parent done", len(ticks) > 1)


    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(tmp_path, method):
    """Processes started in a callback make loops of their own while the parent's runs."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(MULTIPROCESSING))
    process = subprocess.Popen(
        [sys.executable, path, method],
        env=_fault.script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _fault.finish_script(process).check("parent done True")


def test_a_child_that_is_waited_for_by_its_pidfd(loop):
    """A pidfd is an fd like any other: readable when the child has ended."""
    pid = _fault.start_fork(lambda: os._exit(3))
    pidfd = os.pidfd_open(pid)
    codes = []

    def ended(watcher, events):
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        watcher.destroy()

    loop.io(pidfd, "r", ended)
    finish(loop)
    os.close(pidfd)
    assert codes == [3]


def test_pidfd_of_a_child_with_a_loop_of_its_own_that_runs_at_the_same_time(traffic):
    """Parent and child each in a run of its own, over the two ends of one socket pair."""
    ours, theirs = socket.socketpair()
    count = scaled(200)

    def child():
        ours.close()
        with made_loop() as own:
            total = 0

            def readable(watcher, events):
                nonlocal total
                total += len(data := theirs.recv(10))
                theirs.send(data)
                if total == count:
                    watcher.destroy()

            own.io(theirs, "r", readable)
            finish(own)
            assert total == count

    received = []
    pid = _fault.start_fork(child)
    theirs.close()

    def readable(watcher, events):
        received.append(ours.recv(10))
        if len(received) < count:
            ours.send(b"x")
        else:
            watcher.destroy()

    traffic.loop.io(ours, "r", readable)
    ours.send(b"x")
    run_until(traffic.loop, lambda: len(received) == count)
    assert _fault.wait_child(pid) == 0
    ours.close()
    traffic.expect()
