"""sendfile: what arrives, who is waited for, and what is left when it ends early."""

import contextlib
import errno
import os
import random
import socket
import struct
import tempfile
import weakref
from concurrent.futures import CancelledError

import pytest
from _fault import run_script
from _moving import DATA, Calls, Reader, say_end
from _support import BOUND, close_checked, finish, made_loop, open_fds, run_until, scaled, tcp_pair

from linux_event import Loop

RESET = struct.pack("ii", 1, 0)


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
    assert (calls.error.filename, calls.error.filename2) == (ends[0].fileno(), content.fileno())


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
    say_end(ends[0])
    assert DATA.startswith(Reader(ends[1]).finish())


@pytest.mark.parametrize("timeout", [0, 0.001, 0.02])
def test_sendfile_with_a_timeout(loop, ends, content, timeout):
    calls = send(loop, ends[0], content, timeout=timeout)
    assert isinstance(calls.error, TimeoutError)
    assert (calls.error.filename, calls.error.filename2) == (ends[0].fileno(), content.fileno())
    # What was left in the pipe of that one does not go to the next peer.
    with tcp_pair() as (one, other):
        reader = Reader(other)
        assert send(loop, one, content, 100, 1000).result == 1000
        say_end(one)
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
        say_end(ends[0])
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
        say_end(ends[0])
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


def test_objects_are_kept_alive(loop, pair):
    class Owner:
        def __init__(self, file):
            self.fileno = file.fileno

    with tempfile.TemporaryFile() as file:
        file.write(DATA[:100])
        file.flush()
        owner = Owner(file)
        alive = weakref.ref(owner)
        operation = loop.sendfile(pair[0], owner)
        del owner
        assert alive() is not None
        finish(loop)
        assert operation.result() == 100
        assert alive() is None  # and no longer than the kernel needs it


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
                say_end(sender)
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


def test_a_timeout_whose_conversion_starts_operations(loop, ends, content):
    """What it starts does not come between the two requests of a round."""
    started = []

    class Starting:
        def __index__(self):
            started.append(loop.recv(ends[0], 1, on_error=lambda error: None))
            return int(BOUND)

    reader = Reader(ends[1])
    calls = Calls()
    loop.sendfile(ends[0], content, callback=calls, timeout=Starting())
    run_until(loop, lambda: calls)
    assert calls.result == len(DATA)
    for operation in started:
        operation.cancel()
    finish(loop)
    ends[0].shutdown(socket.SHUT_WR)
    assert reader.finish() == DATA
