"""Each allocation of a conversation by TLS fails: no crash, no hang; whoever is concerned is told; nothing is left open.

There are hundreds of them, of C thousands, and a conversation takes milliseconds: each run tries a part of them.
"""

import random

import _fault
import pytest
from _tls import authority, certificate
from test_memory import INTERPRETER, LIBC, NOT_MEASURED, expect_survived, harness, needs_to_survive, shim

__all__ = ["shim"]

# What the callbacks of the program note needs no memory, except for `got`: where that fails it is told of as anything else.
BODY = """
    import ssl, time
    from concurrent.futures import CancelledError

    stop_failing()
    if "server_side" not in globals():

        class Context(ssl.SSLContext):
            def wrap_bio(self, *args, **keywords):
                stop_failing()  # where OpenSSL is short of memory here, CPython follows a null pointer
                try:
                    return super().wrap_bio(*args, **keywords)
                finally:
                    start_failing(number)

        server_side = Context(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(CHAIN)
        client_side = Context(ssl.PROTOCOL_TLS_CLIENT)
        client_side.load_verify_locations(AUTHORITY)
        server_side.minimum_version = server_side.maximum_version = ssl.TLSVersion.VERSION
        globals().update(server_side=server_side, client_side=client_side)
    server_side, client_side = globals()["server_side"], globals()["client_side"]
    errors, ends, streams, got = [None] * 20, [0] * 2, [None] * 2, [0] * 2
    noted, calls = [0], [0]

    def note(error):
        if error is not None:
            errors[noted[0]] = error
            noted[0] += 1

    def is_expected(error):
        # ssl and the codecs of CPython have other words for it, too.
        if isinstance(error, RuntimeError) and "allocate lock" in str(error):
            return True
        return isinstance(error, (MemoryError, OSError, LookupError, SystemError, CancelledError))

    def heard(source, error):
        note(error)

    def begin(place, stream):
        assert streams[place] is None
        streams[place] = stream
        stream.on_close = closed
        stream.on_data = on_data
        stream.on_eof = on_eof

    def place_of(stream):
        return 0 if streams[0] is stream else 1

    def closed(stream, error):
        ends[place_of(stream)] += 1
        note(error)

    def on_data(stream, data):
        got[place_of(stream)] += len(data)
        if streams[0] is stream:
            stream.write(data)

    def on_eof(stream):
        stream.close()

    def talk(stream):
        stream.write(b"x" * 100)
        stream.write(bytearray(50000))
        stream.writelines([b"one", b"two", bytes(20000)])
        stream.write_eof()

    loop.on_error = heard
    raised = None
    start_failing(number)
    try:
        START
        for _ in range(40):
            loop.run_once(0)
    except Exception as error:
        stop_failing()
        raised = error
        note(error)
    finally:
        stop_failing()
    complete = [70106, 70106]
    limit = time.monotonic() + 20
    while ends != [1, 1] and time.monotonic() < limit:
        loop.run_once(0.005)
        if noted[0] and (raised is not None or calls[0]):
            limit = min(limit, time.monotonic() + 0.03)  # who has begun nothing has nothing to end
    assert noted[0] or got == complete, (number, got, ends)
    assert noted[0] or ends == [1, 1], (number, got, ends)
    assert raised is not None or calls[0] == 1, (number, calls, errors[:noted[0]])
    for error in errors[:noted[0]]:
        assert is_expected(error), (number, error)
    for place, stream in enumerate(streams):
        if stream is not None:
            stream.abort()
    listener = globals().pop("listener", None)
    if listener is not None:
        assert listener.connections == sum(1 for stream in streams[:1] if stream is not None and not stream.is_closed())
        listener.close()
    for _ in range(3):
        loop.run_once(0)
    # A callback of the program may have failed before it has assigned on_close.
    assert all(stream is None or stream.is_closed() for stream in streams), number
    assert max(ends) <= 1, (number, ends)
    is_short = any(isinstance(error, MemoryError) for error in errors[:noted[0]])
    was_noted = noted[0]
    errors.clear()
    streams.clear()
    if was_noted:
        raise MemoryError
"""

TLS_FROM_THE_START = """
        def served(stream):
            begin(0, stream)

        def connected(stream, error):
            calls[0] += 1
            note(error)
            if stream is not None:
                begin(1, stream)
                talk(stream)

        globals()["listener"] = listener = loop.listen(("127.0.0.1", 0), served, tls=server_side)
        loop.connect_stream(listener.sockname, connected, tls=client_side, server_hostname="localhost", timeout=30)
"""

TLS_LATER = """
        def served(stream):
            begin(0, stream)
            stream.start_tls(server_side, shaken, server_side=True)

        def shaken(stream, error):
            note(error)

        def client_shaken(stream, error):
            note(error)
            if error is None:
                stream.resume_reading()

        def connected(stream, error):
            calls[0] += 1
            note(error)
            if stream is not None:
                begin(1, stream)
                stream.start_tls(client_side, client_shaken, server_hostname="localhost")
                stream.pause_reading()
                talk(stream)

        globals()["listener"] = listener = loop.listen(("127.0.0.1", 0), served)
        loop.connect_stream(listener.sockname, connected, timeout=30)
"""

STARTS = {"from the start": TLS_FROM_THE_START, "later": TLS_LATER}


def program(failures, start, version, folder, step):
    chain, authorities = folder / "chain.pem", folder / "authority.pem"
    cert = certificate()
    chain.write_bytes(cert.private_key_and_cert_chain_pem.bytes())
    authority().cert_pem.write_to_path(authorities)
    source = BODY.replace("CHAIN", repr(str(chain))).replace("AUTHORITY", repr(str(authorities)))
    source = source.replace("VERSION", {"1.2": "TLSv1_2", "1.3": "TLSv1_3"}[version])
    source = source.replace("        START", STARTS[start].strip("\n"))
    first = random.randrange(step)
    print("first", first, "step", step)
    source = harness(failures, source, step)
    source = source.replace("failed = number = quiet = 0", f"failed = quiet = 0; number = {first}")
    return source.replace("quiet < 30:", "quiet < 15:")


@needs_to_survive
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_some_allocations_of_the_interpreter_fail(start, version, tmp_path):
    source = program(INTERPRETER, start, version, tmp_path, 2)
    assert expect_survived(_fault.run_script(source, env=NOT_MEASURED))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_some_allocations_of_c_fail(shim, start, version, tmp_path):
    source = program(LIBC, start, version, tmp_path, 37)
    assert expect_survived(_fault.run_script(source, env={**NOT_MEASURED, "LD_PRELOAD": str(shim)}))
