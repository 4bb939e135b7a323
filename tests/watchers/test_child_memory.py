"""Each allocation between the end of a child and the callback fails: the child is told of all the same, and how it has ended."""

import _fault
import pytest
from test_memory import INTERPRETER, LIBC, NOT_MEASURED, expect_survived, harness, needs_to_survive, shim

__all__ = ["shim"]

# The child was killed and its pid is no small int: both numbers need memory. What is written into is there before.
BODY = """
    import subprocess
    from linux_event.watchers import child as module

    told, errors = [None, None], []

    def note(watcher, pid, returncode):
        told[0] = returncode

    def note_other(watcher, pid, returncode):
        told[1] = returncode

    def exited(process, returncode):
        told[0] = returncode

    stop_failing()
    module.pretend(PRETENDED)
    popen = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    loop.on_error = lambda source, error: errors.append(error)
    watchers = []
    WATCH
    loop.run_once(0)
    os.kill(popen.pid, signal.SIGKILL)
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    start_failing(number)
    for _ in range(4):
        loop.run_once(0)
    stop_failing()
    for _ in range(200):
        if None in told:
            loop.run_once(0.05)
    assert told == [-9, -9], (number, told, errors)
    assert popen.returncode == -9
    assert all(type(error) is MemoryError for error in errors), errors
    popen.stdin.close()
    for watcher in watchers:
        watcher.destroy()
    module.pretend()
    if errors:
        raise errors.pop()
"""

WATCHING = {
    "a pid": "watchers += [loop.child(popen.pid, note), loop.child(popen.pid, note_other)]; popen.returncode = -9",
    "a Popen": "watchers += [loop.child(popen, note)]; told[1] = -9",
    "one of each": "watchers += [loop.child(popen.pid, note), loop.child(popen, note_other)]",
    "a process": """
        popen.kill()
        popen.wait()
        popen.stdin.close()
        process = loop.spawn(["cat"], stdin=subprocess.PIPE, on_exit=exited)
        popen, told[1] = process, -9
    """,
}


def program(failures, watching, way):
    pretended = "'WAITID'" if way == "pidfd" else ""
    lines = [line.strip() for line in WATCHING[watching].strip().splitlines()]
    source = BODY.replace("PRETENDED", pretended).replace("WATCH", "\n    ".join(lines))
    return harness(failures, source).replace("quiet < 30:", "quiet < 60:")


@needs_to_survive
@pytest.mark.parametrize("watching", WATCHING)
def test_each_allocation_of_the_interpreter_fails(way, watching):
    result = _fault.run_script(program(INTERPRETER, watching, way), env=NOT_MEASURED)
    assert expect_survived(result) >= 2


@pytest.mark.parametrize("watching", WATCHING)
def test_each_allocation_of_c_fails(way, shim, watching):
    expect_survived(_fault.run_script(program(LIBC, watching, way), env={**NOT_MEASURED, "LD_PRELOAD": str(shim)}))
