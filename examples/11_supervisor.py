"""A supervisor: keeps processes running, starts them again with growing pauses, and stops them all on SIGTERM or Ctrl-C.

    python examples/11_supervisor.py                          # five workers that end now and then
    python examples/11_supervisor.py 'sleep 3' 'false' 'sh -c "sleep 1; exit 3"'
    kill -TERM PID                                            # in another terminal; PID is in the first line of output

What ends soon after its start is started again after `--pause` seconds, twice that the next time, and so on, up to
`--longest`; what was up for `--steady` seconds begins anew with the shortest pause. In the end every process gets SIGTERM,
and SIGKILL if it is still there after `--grace` seconds. The exit status is 0, or 1 if one had to be killed; a second signal
kills them at once.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys

from linux_event import Loop

WORKER = "import random, sys, time; time.sleep(random.uniform(1, 8)); sys.exit(random.choice((0, 0, 1, 3)))"


class Worker:
    """One process that is to run, and runs or waits to be started again."""

    def __init__(self, supervisor, number, command):
        self.supervisor = supervisor
        self.name = f"worker {number}"
        self.command = command
        self.process = None
        self.pause = supervisor.arguments.pause
        self.timer = supervisor.loop.timer(0, self.on_start)

    def on_start(self, timer):
        try:
            # In a process group of its own: Ctrl-C in the terminal is for the supervisor, which tells the others.
            self.process = subprocess.Popen(self.command, process_group=0)
        except OSError as error:
            print(f"{self.name}: cannot be started: {error}", flush=True)
            self.start_later()
            return
        print(f"{self.name}: process {self.process.pid}", flush=True)
        self.started = self.supervisor.loop.time()
        self.supervisor.loop.child(self.process, self.on_end)

    def on_end(self, watcher, pid, returncode):
        watcher.destroy()
        self.process = None
        how = "a status that nobody knows" if returncode is None else f"status {returncode}"
        if returncode is not None and returncode < 0:
            try:
                how = signal.Signals(-returncode).name
            except ValueError:  # a real-time signal has no name
                how = f"signal {-returncode}"
        if self.supervisor.is_ending:
            print(f"{self.name}: ended with {how}", flush=True)
            return
        if self.supervisor.loop.time() - self.started >= self.supervisor.arguments.steady:
            self.pause = self.supervisor.arguments.pause
        print(f"{self.name}: ended with {how}, again in {self.pause:g} s", flush=True)
        self.start_later()

    def start_later(self):
        self.timer.after = self.pause
        self.timer.start()
        self.pause = min(2 * self.pause, self.supervisor.arguments.longest)

    def send(self, signum):
        """Signal the process and all that it has started. It has not been reaped, so the number is still its own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)


class Supervisor:
    def __init__(self, loop, arguments, commands):
        self.loop = loop
        self.arguments = arguments
        self.is_ending = False
        self.status = 0
        # Signals do not keep the loop going: when the last process has ended, run() returns although they are watched.
        for name in ("TERM", "INT"):
            loop.signal(name, self.on_signal, ref=False)
        self.workers = [Worker(self, number, command) for number, command in enumerate(commands, 1)]
        self.killer = loop.timer(arguments.grace, self.on_grace_over, ref=False, start=False)

    def on_signal(self, watcher, signum):
        name = signal.Signals(signum).name
        if self.is_ending:
            print(f"{name} again: killing", flush=True)
            self.kill()
            return
        self.is_ending = True
        running = [worker for worker in self.workers if worker.process is not None]
        print(f"{name}: stopping {len(running)} processes", flush=True)
        for worker in self.workers:
            worker.timer.destroy()
            worker.send(signal.SIGTERM)
        self.killer.start()

    def on_grace_over(self, timer):
        print("killing what did not end in time", flush=True)
        self.kill()

    def kill(self):
        self.status = 1
        for worker in self.workers:
            worker.send(signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description="Keep processes running.")
    parser.add_argument(
        "command", nargs="*", help="a command line, quoted as for a shell; default: five workers in Python"
    )
    parser.add_argument("--pause", type=float, default=0.5, help="seconds before a process is started again, at first")
    parser.add_argument("--longest", type=float, default=30, help="seconds that the growing pause stops at")
    parser.add_argument(
        "--steady", type=float, default=5, help="seconds up after which the pause is the first one again"
    )
    parser.add_argument("--grace", type=float, default=10, help="seconds that processes get to end after SIGTERM")
    arguments = parser.parse_args()
    commands = [shlex.split(line) for line in arguments.command] or [[sys.executable, "-c", WORKER]] * 5
    if not all(commands):
        parser.error("a command is empty")
    with Loop() as loop:
        supervisor = Supervisor(loop, arguments, commands)
        print(f"supervisor of {len(commands)} processes, process {os.getpid()}", flush=True)
        loop.run()
    print("all processes have ended", flush=True)
    return supervisor.status


if __name__ == "__main__":
    sys.exit(main())
