"""Each allocation of a datagram socket fails: an error or success, never a crash, and nothing is left open."""

import _fault
import pytest
from test_memory import INTERPRETER, LIBC, NOT_MEASURED, expect_survived, harness, needs_to_survive, shim

__all__ = ["shim"]

SETTLE = "for _ in range(6): loop.run_once(0)"

# What is there before anything fails. Short of memory for a function, CPython 3.12 and 3.13 follow a null pointer.
GIVEN = """
    import socket

    def echo(datagram, data, address):
        datagram.send(bytearray(data), address)
"""

BODIES = {
    "receiving": f"""
        datagram = loop.datagram(chr(0) + "linux_event of memory %d" % os.getpid())
        datagram.on_datagram = echo
        datagram.on_close = ignore
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
            far.bind(chr(0) + "linux_event of memory, far %d" % os.getpid())
            for data in (b"one", b"", bytes(5000)):
                far.sendto(data, datagram.sockname)
            {SETTLE}
            datagram.pause_reading()
            far.sendto(b"parked", datagram.sockname)
            {SETTLE}
            datagram.resume_reading()
            {SETTLE}
            repr(datagram), datagram.socket, datagram.peername
        datagram.close()
        {SETTLE}
    """,
    "sending": f"""
        with loop.datagram(("127.0.0.1", 0)) as near, loop.datagram(None, near.sockname) as far:
            near.on_datagram = near.on_error = far.on_error = far.on_drain = ignore
            for _ in range(10):
                far.send(b"x")
                near.send(b"x", ("127.0.0.1", 9))
            far.send(bytes(70000))
            {SETTLE}
        {SETTLE}
    """,
}


def program(failures, name):
    """What fails within a callback goes to on_error, so that many more attempts than elsewhere seem to succeed."""
    source = harness(failures, BODIES[name], given=GIVEN)
    assert "quiet < 30:" in source
    return source.replace("quiet < 30:", "quiet < 300:")


@needs_to_survive
@pytest.mark.parametrize("name", BODIES)
def test_each_allocation_of_the_interpreter_fails(name):
    assert expect_survived(_fault.run_script(program(INTERPRETER, name), env=NOT_MEASURED))


@pytest.mark.parametrize("name", BODIES)
def test_each_allocation_of_c_fails(shim, name):
    assert expect_survived(_fault.run_script(program(LIBC, name), env={**NOT_MEASURED, "LD_PRELOAD": str(shim)}))
