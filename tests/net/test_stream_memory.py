"""Each allocation of a stream and of a listener fails: an error or success, never a crash, and nothing is left open."""

import _fault
import pytest
from test_memory import INTERPRETER, LIBC, NOT_MEASURED, expect_survived, harness, needs_to_survive, shim

__all__ = ["shim"]

SETTLE = "for _ in range(6): loop.run_once(0)"

# What is there before anything fails. Short of memory for a function, CPython 3.12 and 3.13 follow a null pointer.
GIVEN = {
    "stream": """
        import socket

        streams = []

        def answer(stream, data):
            stream.write(data)

        def connected(stream):
            stream.on_data = answer
            stream.on_close = ignore
            streams.append(stream)
    """,
    "listener": """
        import socket

        def connected(stream):
            stream.on_data = ignore
    """,
    "connect_stream": """
        import socket

        streams, failures = [], []

        def connected(stream, error):
            if stream is not None:
                stream.on_data = ignore
                streams.append(stream)
            elif isinstance(error, MemoryError):
                failures.append(error)
    """,
    "spawn": """
        import subprocess

        class Started(subprocess.Popen):
            def __init__(self, *args, **options):
                stop_failing()  # short of memory it leaves fds open
                super().__init__(*args, **options)
                start_failing(number)

        subprocess.Popen = Started
    """,
}

BODIES = {
    "stream": f"""
        streams.clear()
        listener = loop.listen(chr(0) + "linux_event of memory %d" % os.getpid(), connected)
        with socket.socket(socket.AF_UNIX) as far:
            far.connect(listener.sockname)
            far.send(bytes(100))
            {SETTLE}
            for stream in streams:
                stream.write(bytearray(5000))
                stream.writelines([b"a", b"b", bytes(5000), bytes(20000)])
                stream.idle_timeout = 5
                {SETTLE}
                stream.pause_reading()
                far.send(bytes(100))
                {SETTLE}
                stream.resume_reading()
                repr(stream), stream.peername, stream.sockname, stream.socket
                {SETTLE}
                stream.close()
            {SETTLE}
    """,
    "listener": f"""
        with loop.listen(chr(0) + "linux_event of memory %d" % os.getpid(), connected) as listener:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.sockname)
                {SETTLE}
                client.send(b"x")
                {SETTLE}
            listener.pause()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.sockname)
                listener.resume()
                {SETTLE}
            repr(listener), listener.socket
        {SETTLE}
    """,
    "connect_stream": f"""
        streams.clear(), failures.clear()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            address, nobody = server.getsockname(), bound.getsockname()
            for target in address, nobody, address:
                loop.connect_stream(target, connected, timeout=5, local_address=("", 0))
                {SETTLE}
            loop.connect_stream(address, connected).cancel()
            {SETTLE}
            for stream in streams:
                stream.close()
            {SETTLE}
        if failures:
            raise failures.pop()
    """,
    "spawn": f"""
        process = loop.spawn(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.on_exit = ignore
        process.stdout.on_data = ignore
        process.stdin.write(b"x")
        process.stdin.write_eof()
        repr(process)
        process.kill()
        for _ in range(100):
            if process.returncode is None:
                loop.run_once(0.01)
        {SETTLE}
    """,
}


def program(failures, name):
    """What fails within a callback goes to on_error, so that many more attempts than elsewhere seem to succeed."""
    source = harness(failures, BODIES[name], given=GIVEN[name])
    assert "quiet < 30:" in source
    return source.replace("quiet < 30:", "quiet < 300:")


@needs_to_survive
@pytest.mark.parametrize("name", BODIES)
def test_each_allocation_of_the_interpreter_fails(name):
    assert expect_survived(_fault.run_script(program(INTERPRETER, name), env=NOT_MEASURED))


@pytest.mark.parametrize("name", BODIES)
def test_each_allocation_of_c_fails(shim, name):
    assert expect_survived(_fault.run_script(program(LIBC, name), env={**NOT_MEASURED, "LD_PRELOAD": str(shim)}))
