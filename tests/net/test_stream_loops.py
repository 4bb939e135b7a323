"""Streams in loops of other kinds: small queues, few events at a time, inside another event loop, in threads; and sizes that
change."""

import asyncio
import hashlib
import os
import select
import threading

import pytest
from _net import Heard, client_of, receive_all, settle, stream_and_peer
from _support import finish, made_loop, run_until

SAID = os.urandom(1 << 20)


@pytest.mark.parametrize(
    "arguments",
    [
        {"entries": 1},
        {"entries": 4, "cq_entries": 8, "max_events": 1},
        {"max_events": 3},
        {"sqpoll": True},
        {"busy_poll": 0.001},
        {"debug": True},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_many_streams_in_a_loop_of_another_kind(arguments):
    """More completions than there is room for: they wait in the kernel, and no stream loses or mixes anything."""
    count = 40
    ends = []
    with made_loop(**arguments) as loop:

        def begun(stream):
            stream.on_data = lambda stream, data: stream.write(data)
            stream.on_close = lambda stream, error: ends.append(error)

        listener = loop.listen(("127.0.0.1", 0), begun, backlog=2 * count)
        clients = [client_of(listener) for _ in range(count)]
        got = {}

        def talk(client, number):
            said = SAID[number * 1000 : number * 1000 + 30000]
            digest = hashlib.sha256()
            for place in range(0, len(said), 3000):
                client.sendall(said[place : place + 3000])
            left = len(said)
            while left:
                data = client.recv(left)
                digest.update(data)
                left -= len(data)
            got[number] = digest.digest() == hashlib.sha256(said).digest()
            client.close()

        threads = [threading.Thread(target=talk, args=(client, number)) for number, client in enumerate(clients)]
        for thread in threads:
            thread.start()
        run_until(loop, lambda: len(ends) == count)
        for thread in threads:
            thread.join()
        listener.close()
    assert ends == [None] * count
    assert got == dict.fromkeys(range(count), True)


def test_a_stream_that_becomes_big_and_small_again(loop):
    """Twice 16 KiB at a time make it a big one, sixteen pieces of less a small one; the buffers are those of the pool then."""
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        sent = bytearray()

        def say(size):
            piece = SAID[len(sent) % 1000 :][:size]
            peer.sendall(piece)
            sent.extend(piece)
            run_until(loop, lambda: len(heard.data) == len(sent))
            heard_last = len(heard.pieces[-1])
            return heard_last

        for _ in range(3):
            for _ in range(5):
                say(200000)
            # Received by the loop itself, in one piece each, bigger than a buffer of the pool.
            assert max(map(len, heard.pieces)) > 16384
            before = loop.statistics().submissions
            for _ in range(16):
                say(100)
            assert loop.statistics().submissions - before >= 16  # a poll each
            for _ in range(3):
                say(100)
            before = loop.statistics().submissions
            for _ in range(16):
                say(100)
            assert loop.statistics().submissions - before <= 2  # one request for all of them
        assert heard.data == sent
        peer.close()
        run_until(loop, lambda: "eof" in heard.calls)
        stream.close()
        finish(loop)


@pytest.mark.parametrize("how", ["close", "reset", "pause"])
def test_the_end_of_a_big_stream(loop, how):
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        total = 0
        for _ in range(6):
            peer.sendall(SAID[:200000])
            total += 200000
            run_until(loop, lambda total=total: len(heard.data) == total)
        if how == "pause":
            stream.pause_reading()
            peer.sendall(b"x" * 50000)
            settle(loop)
            assert len(heard.data) == total
            stream.resume_reading()
            run_until(loop, lambda: len(heard.data) == total + 50000)
        if how == "reset":
            peer.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER
        peer.close()
        if how == "reset":
            finish(loop)
            assert isinstance(heard.errors[0], ConnectionResetError)
        else:
            run_until(loop, lambda: "eof" in heard.calls)
            stream.close()
            finish(loop)
            assert heard.errors == [None]


def test_inside_another_event_loop():
    with made_loop() as loop:
        fd = loop.fileno()
        done = []

        def begun(stream):
            stream.on_data = lambda stream, data: (stream.write(data.upper()), stream.close())
            stream.on_close = lambda stream, error: done.append(error)

        listener = loop.listen(("127.0.0.1", 0), begun)

        async def main():
            asyncio.get_running_loop().add_reader(fd, loop.run_once, 0)
            reader, writer = await asyncio.open_connection(*listener.sockname)
            writer.write(b"question")
            assert await reader.read() == b"QUESTION"
            writer.close()
            await writer.wait_closed()
            asyncio.get_running_loop().remove_reader(fd)

        asyncio.run(main())
        run_until(loop, lambda: done)
        listener.close()


def test_a_write_from_outside_is_sent_at_once():
    """The loop around does not know that there is something to submit."""
    with made_loop() as loop, stream_and_peer(loop) as (stream, peer):
        fd = loop.fileno()
        while select.select([fd], [], [], 0)[0]:
            loop.run_once(0)
        stream.write(b"now")
        assert peer.recv(10) == b"now"
        stream.on_data = None
        stream.abort()
        run_until(loop, stream.is_closed)


def test_loops_in_threads():
    """Several loops at once: big streams of all of them receive by way of the same memory."""
    wrong = []

    def serve(number):
        total = 4 << 20
        said = SAID[number * 1000 :] * 5
        with made_loop() as loop:
            ends, digest = [], hashlib.sha256()

            def begun(stream):
                stream.on_data = lambda stream, data: digest.update(data)
                stream.on_close = lambda stream, error: ends.append(error)

            listener = loop.listen(("127.0.0.1", 0), begun)
            client = client_of(listener)
            sender = threading.Thread(target=lambda: (client.sendall(said[:total]), client.close()))
            sender.start()
            run_until(loop, lambda: ends)
            sender.join()
            listener.close()
            if digest.digest() != hashlib.sha256(said[:total]).digest():
                wrong.append(number)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_loop_that_stops_in_the_middle(loop):
    """What was collected when run() was left is delivered by the next one."""
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)

        def on_data(stream, data):
            heard.on_data(stream, data)
            loop.stop()

        stream.on_data = on_data
        for number in range(10):
            peer.sendall(b"%d" % number)
            loop.run(60)
        assert heard.data == b"0123456789"
        stream.write(b"end")
        stream.close()
        finish(loop)
        assert receive_all(peer) == b"end"
