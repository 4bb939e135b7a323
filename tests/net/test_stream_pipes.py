"""Streams on what is no socket, and in one direction: as the pipes of a process are."""

import os
import pty
import socket
import threading

import pytest
from _fault import run_script
from _net import Heard, settle
from _support import finish, run_until, unused_fd

from linux_event.net.stream import stream_of_fd

SAID = os.urandom(1 << 20)


@pytest.fixture
def ends():
    """The two ends of a pipe: reading, writing. The test closes them."""
    return os.pipe2(os.O_CLOEXEC)


def close_later(fd, data):
    def write():
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_reading(loop, ends):
    stream = stream_of_fd(loop, ends[0], writes=False)
    heard = Heard(stream)
    writer = close_later(ends[1], SAID)
    assert stream.socket is None
    assert stream.peername is None
    with pytest.raises(RuntimeError, match="is only read from"):
        stream.write(b"x")
    with pytest.raises(RuntimeError, match="is only read from"):
        stream.write_eof()
    finish(loop)  # it can neither receive nor send
    writer.join()
    assert heard.data == SAID
    assert heard.calls[-2:] == ["eof", "close"]
    assert heard.errors == [None]


def test_reading_with_pauses(loop, ends):
    stream = stream_of_fd(loop, ends[0], writes=False)
    heard = Heard(stream, eof=False)

    def on_data(stream, data):
        heard.on_data(stream, data)
        stream.pause_reading()
        loop.defer(stream.resume_reading)

    stream.on_data = on_data
    writer = close_later(ends[1], SAID)
    finish(loop)
    writer.join()
    assert heard.data == SAID
    assert heard.errors == [None]


def test_more_in_a_pipe_than_a_buffer_holds(loop, ends):
    """All of it was there before: no news come."""
    os.write(ends[1], SAID[:60000])
    heard = Heard(stream_of_fd(loop, ends[0], writes=False))
    run_until(loop, lambda: len(heard.data) == 60000)
    assert heard.data == SAID[:60000]
    os.close(ends[1])
    heard.stream.close()
    finish(loop)


@pytest.mark.parametrize("pieces", [1, 1000])
def test_writing(loop, ends, pieces):
    stream = stream_of_fd(loop, ends[1], reads=False)
    got = []

    def read():
        while data := os.read(ends[0], 1 << 16):
            got.append(data)
        os.close(ends[0])

    reader = threading.Thread(target=read)
    reader.start()
    ended = []
    stream.on_close = lambda stream, error: ended.append(error)
    size = len(SAID) // pieces
    for place in range(0, len(SAID), size):
        stream.write(SAID[place : place + size])
    stream.write_eof()
    finish(loop)
    reader.join()
    assert b"".join(got) == SAID
    assert ended == [None]
    assert not stream.is_reading()


@pytest.mark.parametrize("queued", [0, 1 << 20])
def test_the_reader_goes(loop, ends, queued):
    stream = stream_of_fd(loop, ends[1], reads=False)
    ended = []
    stream.on_close = lambda stream, error: ended.append(type(error))
    stream.write(bytes(queued))
    settle(loop)
    assert ended == []
    os.close(ends[0])
    finish(loop)
    assert ended == ([BrokenPipeError] if queued else [type(None)])


def test_a_write_to_a_reader_that_has_gone(loop, ends):
    os.close(ends[0])
    stream = stream_of_fd(loop, ends[1], reads=False)
    ended = []
    stream.on_close = lambda stream, error: ended.append(error)
    stream.write(b"x")
    finish(loop)
    assert isinstance(ended[0], BrokenPipeError)


def test_abort_with_a_full_pipe(loop, ends):
    stream = stream_of_fd(loop, ends[1], reads=False)
    stream.write(bytes(1 << 20))
    settle(loop)
    stream.abort()
    finish(loop)
    count = 0
    while data := os.read(ends[0], 1 << 16):
        count += len(data)
    assert count < 1 << 20
    os.close(ends[0])


def test_a_terminal(loop):
    ours, theirs = pty.openpty()
    os.set_inheritable(ours, False)
    stream = stream_of_fd(loop, ours)
    heard = Heard(stream)
    stream.write(b"typed\n")
    run_until(loop, lambda: b"typed\r\n" in heard.data)
    os.write(theirs, b"answer")
    run_until(loop, lambda: b"answer" in heard.data)
    stream.abort()
    finish(loop)
    os.close(theirs)


def test_a_socket(loop):
    a, b = socket.socketpair()
    with b:
        heard = Heard(stream_of_fd(loop, a.detach()))
        b.sendall(b"hello")
        run_until(loop, lambda: heard.data == b"hello")
        heard.stream.write(b"back")
        settle(loop)
        assert b.recv(10) == b"back"
        heard.stream.close()
        finish(loop)


def test_one_direction_of_a_socket(loop):
    a, b = socket.socketpair()
    with b:
        stream = stream_of_fd(loop, a.detach(), reads=False)
        ended = []
        stream.on_close = lambda stream, error: ended.append(error)
        stream.on_data = ended.append
        b.sendall(b"unheard")
        stream.write(b"x" * 100000)
        stream.write_eof()
        settle(loop)
        assert ended == []
        stream.abort()
        finish(loop)
        assert ended == [None]


def test_arguments(loop):
    for arguments, keywords, error in (
        ((loop, -1), {}, ValueError),
        ((loop, unused_fd()), {}, OSError),
        ((loop, "0"), {}, TypeError),
        ((None, 0), {}, TypeError),
        ((loop, 0), {"reads": 1}, TypeError),
        ((loop, 0), {"writes": None}, TypeError),
    ):
        with pytest.raises(error):
            stream_of_fd(*arguments, **keywords)
    assert loop.statistics().streams == 0


def test_a_broken_pipe_is_never_a_signal():
    """In a program that has given SIGPIPE its default action back, which ends the process."""
    script = """
    import os, signal
    from linux_event import Loop
    from linux_event.net.stream import stream_of_fd

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with Loop() as loop:
        for count in (1, 3):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            stream = stream_of_fd(loop, writer, reads=False)
            stream.on_close = lambda stream, error: print(type(error).__name__)
            stream.writelines([bytes(5000)] * count)
            os.close(reader)
            loop.run(60)
    """
    run_script(script).check("BrokenPipeError\nBrokenPipeError")
