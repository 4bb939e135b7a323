"""IOWatcher: errors and hang-ups, and odd kinds of files."""

import array
import os
import socket

import pytest
from _support import finish, run_until, tcp_pair

from linux_event import Events

READ, WRITE, PRIORITY, ERROR, HANGUP = (Events[n] for n in ("READ", "WRITE", "PRIORITY", "ERROR", "HANGUP"))


def collect(loop, fd, poll, **keywords):
    """Watch the fd; returns the watcher and a list of the events it is called with."""
    seen = []
    return loop.io(fd, poll, lambda watcher, events: seen.append(events), **keywords), seen


# --- errors and hang-ups ------------------------------------------------------------------------------------------


def test_end_of_a_pipe(loop, pipe):
    _, seen = collect(loop, pipe.r, "r")
    loop.run_once(0)
    pipe.close_write()
    assert loop.run_once() == 1
    assert loop.run_once() == 1
    assert seen == [READ | HANGUP] * 2
    assert str(seen[0]) == "rh"


def test_end_of_a_pipe_with_data_left(loop, pipe):
    _, seen = collect(loop, pipe.r, "r")
    pipe.put()
    pipe.close_write()
    loop.run_once(0)
    assert seen == [READ | HANGUP]


def test_pipe_without_a_reader(loop, pipe):
    _, seen = collect(loop, pipe.w, "w")
    pipe.fill()
    assert loop.run_once(0) == 0
    pipe.close_read()
    assert loop.run_once() == 1
    assert seen == [WRITE | ERROR]
    assert str(seen[0]) == "we"


def test_errors_come_even_to_who_did_not_ask_for_that_direction(loop, pipe):
    _, seen = collect(loop, pipe.w, "r")
    loop.run_once(0)
    pipe.close_read()
    loop.run_once()
    assert seen
    assert seen[0] & ERROR
    assert not seen[0] & WRITE


def test_peer_closed_its_socket(loop, pair):
    a, b = pair
    _, reads = collect(loop, a, "r")
    _, writes = collect(loop, a, "w")
    b.close()
    loop.run_once()
    assert reads == [READ | HANGUP]
    assert writes == [WRITE | HANGUP]


def test_half_closed_socket(loop, pair):
    a, b = pair
    _, reads = collect(loop, a, "r")
    b.shutdown(socket.SHUT_WR)
    loop.run_once()
    assert reads == [READ]
    assert a.recv(1) == b""


def test_reset_by_peer(loop):
    with tcp_pair() as (a, b):
        watcher, seen = collect(loop, a, "r")
        loop.run_once(0)
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", [1, 0]).tobytes())
        b.close()
        run_until(loop, lambda: seen)
        assert seen[0] & READ
        assert seen[0] & ERROR
        assert seen[0] & HANGUP
        with pytest.raises(ConnectionResetError):
            a.recv(1)
        watcher.destroy()


def test_refused_connection(loop):
    with socket.socket() as closed, socket.socket() as client:
        closed.bind(("127.0.0.1", 0))
        client.setblocking(False)
        client.connect_ex(closed.getsockname())
        watcher, seen = collect(loop, client, "w")
        run_until(loop, lambda: seen)
        assert seen[0] & WRITE
        assert seen[0] & ERROR
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111
        watcher.destroy()


@pytest.mark.parametrize("edge", [False, True])
def test_urgent_data(loop, edge):
    with tcp_pair() as (a, b):
        watcher, seen = collect(loop, a, "p", edge=edge)
        b.send(b"plain")
        assert loop.run_once(0.02) == 0
        b.send(b"!", socket.MSG_OOB)
        run_until(loop, lambda: seen)
        assert seen[0] == PRIORITY
        assert str(seen[0]) == "p"
        assert a.recv(1, socket.MSG_OOB) == b"!"
        watcher.destroy()


def test_edge_of_a_hang_up_is_told_once(loop, pipe):
    _, seen = collect(loop, pipe.r, "r", edge=True)
    loop.run_once(0)
    pipe.close_write()
    assert loop.run_once() == 1
    assert loop.run_once(0.01) == 0
    assert seen == [READ | HANGUP]


# --- odd kinds of files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "directory", "null"])
def test_files_that_are_always_ready(loop, tmp_path, kind):
    path = {"file": tmp_path / "file", "directory": tmp_path, "null": os.devnull}[kind]
    if kind == "file":
        path.write_bytes(b"data")
    fd = os.open(path, os.O_RDONLY)
    level, seen = collect(loop, fd, "r")
    for expected in range(1, 6):
        assert loop.run_once(0) == 1
        assert len(seen) == expected
    assert set(seen) == {READ}
    level.destroy()
    edge, seen = collect(loop, fd, "r", edge=True)
    run_until(loop, lambda: seen)
    assert loop.run_once(0.01) == 0
    assert seen == [READ]
    edge.destroy()
    os.close(fd)


def test_a_regular_file_read_to_its_end(loop, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789" * 1000)
    got = bytearray()

    def on_read(watcher, events):
        data = file.read(4096)
        got.extend(data)
        if not data:
            watcher.destroy()

    with open(tmp_path / "file", "rb", buffering=0) as file:
        loop.io(file, "r", on_read)
        finish(loop)
    assert got == b"0123456789" * 1000


def test_poll_assigned_to_the_watcher_of_a_file(loop, tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        watcher, seen = collect(loop, file, "r", edge=True)
        loop.run_once(0)
        watcher.poll = "rw"
        loop.run_once(0)
        loop.run_once(0)
        assert seen == [READ, READ | WRITE]
        watcher.destroy()


def test_an_epoll_inside(loop, pipe):
    import select

    with select.epoll() as epoll:
        epoll.register(pipe.r, select.EPOLLIN)
        watcher, seen = collect(loop, epoll, "r")
        assert loop.run_once(0) == 0
        pipe.put()
        assert loop.run_once() == 1
        assert seen == [READ]
        watcher.destroy()


def test_standard_input_of_a_terminal(loop):
    import pty

    parent, child = pty.openpty()
    watcher, seen = collect(loop, child, "r")
    os.write(parent, b"line\n")
    run_until(loop, lambda: seen)
    assert os.read(child, 100) == b"line\n"
    watcher.destroy()
    os.close(parent)
    os.close(child)
