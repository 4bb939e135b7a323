"""What the tests of read_file and write_file share: the ways that a loop opens files, and a look at what it has open."""

import contextlib
import os
import re
import resource

from _support import finish, made_loop

from linux_event.slots import places

BUFFER = 16384 + 512  # LE_SLOT_SIZE and LE_SLOTS of le_slots.h
SLOTS = 64

# direct: direct descriptors and a chain. small: no room for a chain in the ring. plain: the kernel refuses the table.
MODES = ("direct", "small", "plain")


@contextlib.contextmanager
def few_fds(limit=SLOTS - 1):
    """Lower the soft limit of open files; what is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def loop_of(mode):
    """A loop that opens files in one of the MODES; at the end it is checked that none is left open."""
    with made_loop(entries=1 if mode == "small" else 256) as loop:
        if mode == "plain":
            with few_fds():
                loop.read_file(os.devnull, lambda data, error: None)
            finish(loop)
        yield loop
        if not loop.is_closed():
            finish(loop)
        assert places(loop)[:2] == (0, 0)
        assert open_directly() == []


def open_directly():
    """The files in the tables of direct descriptors of this process's rings, as the kernel tells them."""
    found = []
    for number in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{number}") as info:
            table = re.search(r"^UserFiles:.*\n((?: *\d+: .*\n)*)", info.read(), flags=re.MULTILINE)
            if table:
                found += [line for line in table[1].splitlines() if not line.endswith("<none>")]
    return found


class Outcome:
    """A callback of the form callback(result, error) that keeps what it got and counts its calls."""

    def __init__(self):
        self.calls = 0
        self.result = self.error = None

    def __call__(self, result, error):
        self.calls += 1
        self.result = result
        self.error = error


def outcome_of(loop, start, *args, **keywords):
    """Start an operation, run the loop until nothing is left, and return its Outcome."""
    outcome = Outcome()
    operation = start(*args, outcome, **keywords)
    assert outcome.calls == 0, "the callback was called by the method"
    finish(loop)
    assert outcome.calls == 1
    assert operation.done()
    return outcome
