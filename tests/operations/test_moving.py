"""splice and sendfile: what arrives, who is waited for, and what is left when they end early."""

import contextlib
import errno
import os
import random
import socket
import struct
import tempfile
import threading
import weakref
from concurrent.futures import CancelledError

import pytest
from _fault import run_script
from _support import Pipe, close_checked, finish, made_loop, open_fds, run_until, scaled, tcp_pair, unused_fd

from linux_event import Loop

DATA = random.Random(3).randbytes(5 << 20)
RESET = struct.pack("ii", 1, 0)


class Calls(list):
    """A callback of the first form, and what it got."""

    def __call__(self, result, error):
        self.append((result, error))

    @property
    def result(self):
        assert len(self) == 1
        assert self[0][1] is None, self[0][1]
        return self[0][0]

    @property
    def error(self):
        assert len(self) == 1
        assert self[0][0] is None
        return self[0][1]


class Reader(threading.Thread):
    """Reads a socket to its end, or `limit` bytes, and keeps what came."""

    def __init__(self, end, limit=1 << 62):
        super().__init__()
        self.end, self.limit, self.data = end, limit, bytearray()
        end.setblocking(True)
        self.start()

    def run(self):
        while len(self.data) < self.limit and (part := self.end.recv(1 << 16)):
            self.data += part

    def finish(self):
        self.join()
        return bytes(self.data)


@pytest.fixture
def content(tmp_path):
    """A file with DATA in it, open."""
    path = tmp_path / "content"
    path.write_bytes(DATA)
    with open(path, "rb") as file:
        yield file


@pytest.fixture(params=["unix", "unix blocking", "tcp", "tcp blocking"])
def ends(request, nothing_left):
    """Two connected sockets: stream sockets of two families, the first with O_NONBLOCK or without."""
    family, *rest = request.param.split()
    with contextlib.ExitStack() as stack:
        pair = (
            stack.enter_context(tcp_pair())
            if family == "tcp"
            else [stack.enter_context(s) for s in socket.socketpair()]
        )
        pair[0].setblocking(bool(rest))
        pair[1].setblocking(True)
        yield pair


def send(loop, *args, **keywords):
    calls = Calls()
    loop.sendfile(*args, callback=calls, **keywords)
    assert not calls
    finish(loop)
    return calls


# --- splice ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(nothing_left):
    """Two pipes without blocking."""
    pipes = [Pipe(), Pipe()]
    yield pipes
    for pipe in pipes:
        pipe.close()


def splice(loop, *args, **keywords):
    calls = Calls()
    loop.splice(*args, callback=calls, **keywords)
    assert not calls
    finish(loop)
    return calls


@pytest.mark.parametrize("count", [0, 1, 4, 100])
def test_splice_from_pipe_to_pipe(loop, two, count):
    two[0].put(b"data")
    assert splice(loop, two[0].r, two[1].w, count).result == min(4, count)
    assert two[1].take() == b"data"[:count]
    assert two[0].take() == b"data"[count:]


def test_splice_is_told_of_the_end(loop, two):
    two[0].put(b"last")
    two[0].close_write()
    assert splice(loop, two[0].r, two[1].w, 100).result == 4
    assert splice(loop, two[0].r, two[1].w, 100).result == 0


def test_splice_from_a_file(loop, pipe, content):
    assert splice(loop, content, pipe.w, 10, offset_in=1000).result == 10
    assert pipe.take() == DATA[1000:1010]
    assert content.tell() == 0
    assert splice(loop, content.fileno(), pipe.w, 10).result == 10
    assert pipe.take() == DATA[:10]
    assert os.lseek(content.fileno(), 0, os.SEEK_CUR) == 10
    assert splice(loop, content, pipe.w, 10, offset_in=len(DATA) - 3).result == 3
    assert splice(loop, content, pipe.w, 10, offset_in=len(DATA)).result == 0


def test_splice_to_a_file(loop, pipe, tmp_path):
    with open(tmp_path / "target", "w+b") as file:
        pipe.put(b"one")
        assert splice(loop, pipe.r, file, 10, offset_out=5).result == 3
        pipe.put(b"two")
        assert splice(loop, pipe.r, file, 10).result == 3
        assert file.read() == b"\0\0one"
        file.seek(0)
        assert file.read() == b"two\0\0one"


def test_splice_beyond_four_gib(loop, pipe, tmp_path):
    with open(tmp_path / "large", "w+b") as file:
        pipe.put(b"far away")
        assert splice(loop, pipe.r, file, 100, offset_out=5 << 30).result == 8
        assert splice(loop, file, pipe.w, 100, offset_in=(5 << 30) + 4).result == 4
        assert pipe.take() == b"away"


def test_splice_from_and_to_a_socket(loop, pipe, pair):
    pair[0].send(b"hello")
    assert splice(loop, pair[1], pipe.w, 100).result == 5
    assert splice(loop, pipe.r, pair[1], 100).result == 5
    assert pair[0].recv(100) == b"hello"


@pytest.mark.parametrize("blocking", [False, True])
def test_splice_waits_for_data(loop, pair, pipe, blocking):
    pair[1].setblocking(blocking)
    calls = Calls()
    operation = loop.splice(pair[1], pipe.w, 100, calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 5)
    assert not operation.done()
    pair[0].send(b"at last")
    run_until(loop, operation.done)
    timer.destroy()
    assert calls.result == 7
    assert pipe.take() == b"at last"


@pytest.mark.parametrize("blocking", [False, True])
def test_splice_waits_for_room(loop, two, blocking):
    two[1].fill()
    os.set_blocking(two[1].w, blocking)
    two[0].put(b"more")
    calls = Calls()
    operation = loop.splice(two[0].r, two[1].w, 100, calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 5)
    assert not operation.done()
    # Waiting costs nothing: the kernel is not asked over and over.
    before = loop.statistics()
    run_until(loop, lambda: len(ticks) >= 15)
    assert loop.statistics().completions - before.completions < 10
    full = two[1].take(1 << 20)
    run_until(loop, operation.done)
    timer.destroy()
    assert calls.result == 4
    assert (full + two[1].take(1 << 20)).endswith(b"xmore")


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
def test_splice_ends_early(pair, pipe, blocking, how):
    pair[1].setblocking(blocking)
    calls = Calls()
    with made_loop() as loop:
        operation = loop.splice(pair[1], pipe.w, 100, calls, timeout=0.02 if how == "timeout" else None)
        if how == "timeout":
            finish(loop)
            assert calls.error.filename == pair[1]
            assert calls.error.filename2 == pipe.w
            assert isinstance(calls.error, TimeoutError)
        else:
            ticks = []
            timer = loop.periodic(0.001, ticks.append)
            run_until(loop, lambda: len(ticks) >= 3)
            timer.destroy()
            if how == "cancel":
                assert operation.cancel()
                assert not operation.cancel() or operation.cancelled()
                finish(loop)
    assert isinstance(calls.error, TimeoutError if how == "timeout" else CancelledError)
    # Nothing is taken out of the socket by what has ended.
    pair[0].send(b"kept")
    assert pair[1].recv(100) == b"kept"


@pytest.mark.parametrize("rounds", range(6))
def test_splice_is_cancelled_while_data_arrive(loop, two, rounds):
    calls = Calls()
    operation = loop.splice(two[0].r, two[1].w, 100, calls)
    for _ in range(rounds):
        loop.run_once(0)
        if rounds == 3:
            two[0].put()
    was_done = operation.done()
    assert operation.cancel() is not was_done
    finish(loop)
    assert len(calls) == 1


def test_splice_of_two_files_fails(loop, content, tmp_path):
    with open(tmp_path / "target", "wb") as target:
        error = splice(loop, content, target, 10).error
        assert (error.errno, error.filename, error.filename2) == (errno.EINVAL, content, target)


def test_splice_with_the_offset_of_a_pipe_fails(loop, two):
    assert splice(loop, two[0].r, two[1].w, 10, offset_in=0).error.errno == errno.ESPIPE


def test_splice_takes_the_other_form_of_callbacks(loop, two):
    results, errors = [], []
    two[0].put(b"four")
    loop.splice(two[0].r, two[1].w, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    two[1].close_read()
    two[0].put(b"four")
    loop.splice(two[0].r, two[1].w, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    assert results == [4]
    assert [type(error) for error in errors] == [BrokenPipeError]


def test_a_chain_of_splices(loop, two, content):
    with loop.link() as chain:
        loop.splice(content, two[0].w, 1000, offset_in=0)
        loop.splice(two[0].r, two[1].w, 1000)
    finish(loop)
    assert [operation.result() for operation in chain.operations] == [1000, 1000]
    assert two[1].take() == DATA[:1000]
    # In a chain the kernel's word is final.
    with loop.link() as chain:
        loop.splice(two[0].r, two[1].w, 1000, callback=Calls())
        loop.splice(content, two[0].w, 1000, offset_in=0, callback=Calls())
    finish(loop)
    assert chain.operations[0].exception().errno == errno.EAGAIN
    assert chain.operations[1].cancelled()


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"count": -1}, ValueError, "count.*-1"),
        ({"count": 2**31}, ValueError, "count"),
        ({"count": 1.5}, TypeError, "count.*1.5"),
        ({"offset_in": -2}, ValueError, "offset_in.*-2"),
        ({"offset_out": 2**63}, ValueError, "offset_out"),
        ({"offset_out": "0"}, TypeError, "offset_out.*0"),
        ({"fd_in": -1}, ValueError, "-1"),
        ({"fd_out": "1"}, TypeError, "1"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"callback": 1}, TypeError, "callback"),
        ({"callback": print, "on_error": print}, TypeError, "both"),
    ],
)
def test_wrong_arguments_of_splice(loop, two, change, error, named):
    two[0].put()
    arguments = {"fd_in": two[0].r, "fd_out": two[1].w, "count": 10} | change
    with pytest.raises(error, match=named):
        loop.splice(**arguments)
    for name in ("fd_in", "fd_out"):
        with pytest.raises(OSError) as raised:
            loop.splice(
                **arguments
                | change
                | {"count": 10, name: unused_fd(), "callback": None}
                | {other: two[0].r for other in ("fd_in", "fd_out") if other != name}
            )
        assert raised.value.errno == errno.EBADF
    finish(loop)
    assert two[0].take() == b"x"


# --- sendfile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65536, (1 << 20) + 1, len(DATA)])
def test_sendfile_sends_a_file(loop, ends, tmp_path, size):
    (tmp_path / "file").write_bytes(DATA[:size])
    reader = Reader(ends[1])
    with open(tmp_path / "file", "rb") as file:
        assert send(loop, ends[0], file).result == size
        assert file.tell() == 0
    ends[0].shutdown(socket.SHUT_WR)
    assert reader.finish() == DATA[:size]


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        (0, 0, 0),
        (0, 10, 10),
        (1, 4096, 4096),
        (4095, 2, 2),
        (1000, None, len(DATA) - 1000),
        (len(DATA) - 5, 100, 5),
        (len(DATA), None, 0),
        (len(DATA) + 1, 10, 0),
        (2**62, None, 0),
        (12345, 3 << 20, 3 << 20),
        (0, 2**63 - 1, len(DATA)),
    ],
)
def test_sendfile_sends_a_part(loop, ends, content, offset, count, expected):
    reader = Reader(ends[1])
    assert send(loop, ends[0], content.fileno(), offset, count).result == expected
    ends[0].shutdown(socket.SHUT_WR)
    assert reader.finish() == DATA[offset:][:expected]


def test_sendfile_beyond_four_gib(loop, ends, tmp_path):
    with open(tmp_path / "large", "w+b") as file:
        file.seek(5 << 30)
        file.write(b"the end")
        file.flush()
        assert send(loop, ends[0], file, (5 << 30) - 3).result == 10
    assert ends[1].recv(100) == b"\0\0\0the end"


def test_sendfile_to_a_pipe_and_to_a_file(loop, pipe, content, tmp_path):
    assert send(loop, pipe.w, content, 5, 1000).result == 1000
    assert pipe.take() == DATA[5:1005]
    with open(tmp_path / "target", "wb") as target:
        target.write(b"before ")
        target.flush()
        assert send(loop, target, content).result == len(DATA)
    assert (tmp_path / "target").read_bytes() == b"before " + DATA


def test_sendfile_waits_for_a_slow_reader(loop, ends, content):
    calls = Calls()
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    operation = loop.sendfile(ends[0], content, callback=calls)
    ticks = []
    timer = loop.periodic(0.001, ticks.append)
    run_until(loop, lambda: len(ticks) >= 20)
    # The peer has read nothing, and the loop goes on all the same, without asking over and over.
    assert not operation.done()
    before = loop.statistics()
    run_until(loop, lambda: len(ticks) >= 30)
    assert loop.statistics().completions - before.completions < 10
    reader = Reader(ends[1])
    run_until(loop, operation.done)
    timer.destroy()
    assert calls.result == len(DATA)
    ends[0].shutdown(socket.SHUT_WR)
    assert reader.finish() == DATA


@pytest.mark.parametrize("how", ["closed before", "closed meanwhile", "reset"])
def test_sendfile_to_a_peer_that_is_gone(loop, ends, content, how):
    calls = Calls()
    if how == "closed before":
        ends[1].close()
    operation = loop.sendfile(ends[0], content, callback=calls)
    if how != "closed before":
        ticks = []
        timer = loop.periodic(0.001, ticks.append)
        run_until(loop, lambda: len(ticks) >= 10)
        timer.destroy()
        assert not operation.done()
        if how == "reset":
            ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        ends[1].close()
    finish(loop)
    assert isinstance(calls.error, (BrokenPipeError, ConnectionResetError))
    assert (calls.error.filename, calls.error.filename2) == (ends[0], content)


def test_no_sigpipe(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    run_script(
        """
        import os, signal, socket
        from linux_event import Loop

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with Loop() as loop, open("file", "rb") as file:
            for blocking in (True, False):
                for make in (socket.socketpair, os.pipe):
                    reading, writing = make()
                    for end in (reading, writing):
                        os.set_blocking(end if isinstance(end, int) else end.fileno(), blocking)
                    os.close(reading) if isinstance(reading, int) else reading.close()
                    filled, source = os.pipe()
                    os.write(source, b"x")
                    for operation in (
                        loop.sendfile(writing, file, callback=lambda *call: None),
                        loop.splice(filled, writing, 10, callback=lambda *call: None),
                    ):
                        loop.run(60)
                        assert isinstance(operation.exception(), BrokenPipeError), operation
        """,
        cwd=tmp_path,
    ).check("")


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5, 20])
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_sendfile_ends_early(ends, content, rounds, how):
    calls = Calls()
    before = len(open_fds())
    with made_loop() as loop:
        operation = loop.sendfile(ends[0], content, callback=calls)
        for _ in range(rounds):
            loop.run_once(0)
        assert not operation.done()
        if how == "cancel":
            assert operation.cancel()
            assert not calls
            finish(loop)
    assert isinstance(calls.error, CancelledError)
    assert len(open_fds()) == before
    ends[0].close()
    assert DATA.startswith(Reader(ends[1]).finish())


@pytest.mark.parametrize("timeout", [0, 0.001, 0.02])
def test_sendfile_with_a_timeout(loop, ends, content, timeout):
    calls = send(loop, ends[0], content, timeout=timeout)
    assert isinstance(calls.error, TimeoutError)
    assert (calls.error.filename, calls.error.filename2) == (ends[0], content)
    # What was left in the pipe of that one does not go to the next peer.
    with tcp_pair() as (one, other):
        reader = Reader(other)
        assert send(loop, one, content, 100, 1000).result == 1000
        one.close()
        assert reader.finish() == DATA[100:1100]


def test_pipes_are_used_again_and_bounded(content, tmp_path):
    with Loop() as loop, open("/dev/null", "wb") as null:
        before = len(open_fds())
        for _ in range(20):
            assert send(loop, null, content, 0, 100).result == 100
        assert len(open_fds()) <= before + 4  # what the loop itself opens when it first runs, and one pipe
        kept = []
        for count in (3, 50):
            every = [loop.sendfile(null, content, 0, 1000) for _ in range(count)]
            finish(loop)
            assert [operation.result() for operation in every] == [1000] * count
            kept.append(len(open_fds()) - before)
        assert kept[0] <= 2 * 3 + 2
        assert kept[1] <= 2 * 8 + 2
        close_checked(loop)


def test_a_forked_child_has_no_pipes(content):
    run_script(
        """
        import os, sys
        from linux_event import Loop

        with Loop() as loop, open("/dev/null", "wb") as null, open(sys.argv[1], "rb") as file:
            loop.sendfile(null, file, 0, 10)
            loop.run(60)
            pid = os.fork()
            if not pid:
                names = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 30) if os.path.exists(f"/proc/self/fd/{fd}")]
                os._exit(any(name.startswith("pipe") for name in names))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            loop.sendfile(null, file, 0, 10)
            loop.run(60)
        """,
        content.name,
    ).check("")


def test_no_fd_is_left_for_a_pipe(content, tmp_path):
    run_script(
        """
        import errno, os, resource, sys
        from linux_event import Loop

        with Loop() as loop, open("/dev/null", "wb") as null, open(sys.argv[1], "rb") as file:
            loop.timer(0.001, lambda timer: None)
            loop.run(60)
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                os.close(taken.pop())
            calls = []
            loop.sendfile(null, file, callback=lambda *call: calls.append(call))
            assert not calls
            loop.run(60)
            assert calls[0][0] is None
            assert calls[0][1].errno == errno.EMFILE
            os.close(taken.pop())
            os.close(taken.pop())
            operation = loop.sendfile(null, file)
            loop.run(60)
            assert operation.result() == os.fstat(file.fileno()).st_size
        """,
        content.name,
    ).check("")


def test_sendfile_of_a_file_that_grows(loop, tmp_path, ends):
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        file.write(DATA[: 3 << 20])
        calls = Calls()
        operation = loop.sendfile(ends[0], file, callback=calls)
        loop.run_once(0)
        assert not operation.done()
        file.seek(0, os.SEEK_END)
        file.write(DATA[3 << 20 :])
        reader = Reader(ends[1])
        finish(loop)
        assert calls.result == len(DATA)
        ends[0].close()
        assert reader.finish() == DATA


def test_sendfile_of_a_file_that_is_cut(loop, tmp_path, ends):
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        file.write(DATA)
        calls = Calls()
        loop.sendfile(ends[0], file, callback=calls)
        loop.run_once(0)
        file.truncate(10)
        reader = Reader(ends[1])
        finish(loop)
        ends[0].close()
        # What was taken before is sent, whatever it has become: how many bytes is what matters.
        assert calls.result == len(reader.finish()) < len(DATA)


@pytest.mark.parametrize("what", ["pipe", "folder", "for writing"])
def test_sendfile_of_something_else_fails(loop, pair, pipe, tmp_path, what):
    fd = {"pipe": lambda: os.dup(pipe.r), "folder": lambda: os.open(tmp_path, os.O_RDONLY)}.get(
        what, lambda: os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    )()
    try:
        error = send(loop, pair[0], fd).error
        assert error.errno in {"pipe": (errno.ESPIPE,), "folder": (errno.EINVAL, errno.EISDIR)}.get(
            what, (errno.EBADF,)
        )
    finally:
        os.close(fd)


def test_objects_are_kept_alive(loop, pair, tmp_path):
    (tmp_path / "file").write_bytes(DATA[:100])
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(DATA[:100])
    file.flush()
    alive = weakref.ref(file)
    operation = loop.sendfile(pair[0], file)
    del file
    assert alive() is not None
    finish(loop)
    assert operation.result() == 100
    alive().close()


@pytest.mark.parametrize("entries", [1, 2, 8])
def test_many_at_once_on_a_small_ring(entries, content):
    with made_loop(entries=entries) as loop, contextlib.ExitStack() as stack:
        pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(scaled(50, 10))]
        readers = [Reader(pair[1]) for pair in pairs]
        operations = []
        for number, (sender, _) in enumerate(pairs):
            sender.setblocking(number % 3 == 0)
            operations.append(loop.sendfile(sender, content, number, 300_000))
        finish(loop)
        for number, (operation, reader) in enumerate(zip(operations, readers, strict=True)):
            assert operation.result() == 300_000
            pairs[number][0].shutdown(socket.SHUT_WR)
            assert reader.finish() == DATA[number : number + 300_000]


def test_cancelled_at_random(content):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(scaled(60, 10)):
        with made_loop() as loop, contextlib.ExitStack() as stack:
            pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(5)]
            readers = [Reader(pair[1]) for pair in pairs]
            operations, calls = [], Calls()
            for sender, _ in pairs:
                sender.setblocking(chance.random() < 0.5)
                operations.append(loop.sendfile(sender, content, callback=calls))
            for _ in range(chance.randrange(20)):
                loop.run_once(0)
                if chance.random() < 0.3:
                    chance.choice(operations).cancel()
            if chance.random() < 0.7:
                for operation in operations:
                    operation.cancel()
                finish(loop)
            close_checked(loop)
            assert len(calls) == 5
            for (sender, _), reader, operation in zip(pairs, readers, operations, strict=True):
                sender.close()
                data = reader.finish()
                assert DATA.startswith(data)
                if not operation.cancelled():
                    assert operation.result() == len(data) == len(DATA)


def test_sendfile_takes_the_other_form_of_callbacks(loop, pair, content):
    results, errors = [], []
    loop.sendfile(pair[0], content, 0, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    pair[1].close()
    loop.sendfile(pair[0], content, 0, 10, on_success=results.append, on_error=errors.append)
    finish(loop)
    assert results == [10]
    assert len(errors) == 1


def test_sendfile_is_not_for_chains(loop, pair, content):
    with pytest.raises(ValueError, match="sendfile is more than one request"), loop.link():
        loop.sendfile(pair[0], content)
    finish(loop)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"offset": -1}, ValueError, "offset.*-1"),
        ({"offset": None}, TypeError, "offset.*None"),
        ({"count": -1}, ValueError, "count.*-1"),
        ({"count": "all"}, TypeError, "count.*all"),
        ({"sock": -1}, ValueError, "-1"),
        ({"file": None}, TypeError, "None"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"on_success": 1}, TypeError, "on_success"),
    ],
)
def test_wrong_arguments_of_sendfile(loop, pair, content, change, error, named):
    with pytest.raises(error, match=named):
        loop.sendfile(**{"sock": pair[0], "file": content} | change)
    finish(loop)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
