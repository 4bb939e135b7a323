"""read_file: files of every size and kind, their errors, and what is left when it is ended at any moment."""

import contextlib
import errno
import fcntl
import functools
import gc
import os
import pathlib
import select
import struct
import termios
import threading

import pytest
from _fault import IS_SANITIZED, become_unprivileged, in_fork, run_script
from _support import SCALE, blocks_grown, finish, made_loop, run_until, scaled
from _whole_files import BUFFER, MODES, SLOTS, Outcome, few_fds, loop_of, open_directly, outcome_of

from linux_event import Loop, Operation
from linux_event.cancellation import CancelledError

PORTION = 1 << 20
GROWN = 1 << 17

SIZES = (
    *(0, 1, 4096, 16384, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER),
    *(GROWN - 1, GROWN, GROWN + 1, PORTION, 4 * GROWN + PORTION + 1, 5_000_000),
)


def pattern(size):
    """Bytes that tell where they belong."""
    return b"".join(struct.pack("<I", i) for i in range((size + 3) // 4))[:size]


@pytest.fixture(params=MODES)
def loop(request, nothing_left):
    with loop_of(request.param) as loop:
        yield loop


@pytest.fixture
def direct(nothing_left):
    with loop_of("direct") as loop:
        yield loop


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def write_end(loop, fifo):
    """The write end of a FIFO that the loop has been told to read, once it has opened it."""
    opened = []

    def is_open():
        with contextlib.suppress(OSError):
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return bool(opened)

    run_until(loop, is_open)
    return opened[0]


def unread(fd):
    """How many bytes are in a pipe."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]


# --- Results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_all_of_a_file(loop, tmp_path, size):
    (tmp_path / "file").write_bytes(pattern(size))
    outcome = outcome_of(loop, loop.read_file, tmp_path / "file")
    assert outcome.error is None
    assert type(outcome.result) is bytes
    assert outcome.result == pattern(size)


def test_a_large_file(direct, tmp_path):
    data = pattern(PORTION) * scaled(100)
    (tmp_path / "file").write_bytes(data)
    assert outcome_of(direct, direct.read_file, tmp_path / "file").result == data


def test_a_file_over_two_gib(direct, tmp_path):
    size = int(2.5 * 2**30) if SCALE >= 1 else 2**26
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < 2 * size:
        pytest.skip(f"{available >> 20} MiB of memory are free, {2 * size >> 20} MiB are needed")
    with open(tmp_path / "file", "wb") as file:
        file.write(b"first")
        file.seek(size - 4)
        file.write(b"last")
    data = outcome_of(direct, direct.read_file, tmp_path / "file").result
    assert len(data) == size
    assert data[:6] == b"first\0"
    assert data[-5:] == b"\0last"
    for start in range(PORTION, size - PORTION, 50 * PORTION):
        assert data[start : start + 4096] == bytes(4096)


@pytest.mark.parametrize("name", ["cmdline", "environ", "auxv", "mountinfo", "limits", "cgroup"])
def test_files_of_proc_that_tell_no_size(loop, name):
    with open(f"/proc/self/{name}", "rb") as file:
        expected = file.read()
    assert outcome_of(loop, loop.read_file, f"/proc/self/{name}").result == expected


def test_files_of_proc_that_are_read_in_small_pieces(loop):
    # The kernel gives at most a page of these at a time.
    data = outcome_of(loop, loop.read_file, "/proc/self/smaps").result
    assert len(data) > BUFFER
    assert data.count(b"VmFlags") == data.count(b"\nSize:") > 10
    assert data.endswith(b"\n")


def test_devices(loop):
    assert outcome_of(loop, loop.read_file, "/dev/null").result == b""


def test_a_terminal(loop):
    controller, terminal = os.openpty()
    try:
        os.write(controller, b"some\nlines\n\x04")  # Ctrl-D
        outcome = outcome_of(loop, loop.read_file, os.ttyname(terminal))
        assert outcome.result == b"some\nlines\n"
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize("kind", [str, bytes, pathlib.Path])
def test_kinds_of_paths(loop, tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    given = os.fsencode(path) if kind is bytes else kind(path)
    assert outcome_of(loop, loop.read_file, given).result == b"data"
    missing = given + (b"x" if kind is bytes else "x") if kind is not pathlib.Path else path.with_name("filex")
    assert outcome_of(loop, loop.read_file, missing).error.filename is missing


def test_names_that_are_not_text(loop, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe\n"
    with open(path, "wb") as file:
        file.write(b"data")
    assert outcome_of(loop, loop.read_file, path).result == b"data"
    assert outcome_of(loop, loop.read_file, os.fsdecode(path)).result == b"data"
    missing = os.fsdecode(path + b"\xff")
    assert outcome_of(loop, loop.read_file, missing).error.filename == missing


def test_the_other_form_of_callbacks(direct, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    results, errors = [], []
    direct.read_file(tmp_path / "file", on_success=results.append, on_error=errors.append)
    direct.read_file(tmp_path / "missing", on_success=results.append, on_error=errors.append)
    finish(direct)
    assert results == [b"data"]
    assert [error.errno for error in errors] == [errno.ENOENT]


def test_a_failure_that_nobody_is_told_of(direct, tmp_path):
    told = []
    direct.on_error = lambda source, error: told.append((source, error))
    operation = direct.read_file(tmp_path / "missing", on_success=print)
    finish(direct)
    assert [(source, type(error)) for source, error in told] == [(operation, FileNotFoundError)]


def test_the_operation(direct, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    operation = direct.read_file(str(tmp_path / "file"))
    assert isinstance(operation, Operation)
    assert repr(operation) == f"<ReadFile read_file {str(tmp_path / 'file')!r} in flight>"
    assert not operation.done()
    finish(direct)
    assert operation.result() == b"data"
    assert operation.exception() is None
    assert not operation.cancel()


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing", errno.ENOENT),
        ("", errno.ENOENT),
        ("file/below", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        (".", errno.EISDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("x/" * 4000, errno.ENAMETOOLONG),
    ],
)
def test_errors_of_the_kernel(loop, tmp_path, monkeypatch, name, number):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "loop").symlink_to("loop")
    outcome = outcome_of(loop, loop.read_file, name)
    assert outcome.result is None
    assert type(outcome.error) is type(OSError(number, ""))
    assert outcome.error.errno == number
    assert outcome.error.strerror == os.strerror(number)
    assert outcome.error.filename == name


@pytest.mark.parametrize("mode", MODES)
def test_permission_denied(tmp_path, mode):
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.getuid() and folder != pathlib.Path("/"):
            folder.chmod(folder.stat().st_mode | 0o111)
    path = tmp_path / "file"
    path.write_bytes(b"data")
    path.chmod(0o600)

    def as_another_user():
        become_unprivileged()
        with loop_of(mode) as loop:
            error = outcome_of(loop, loop.read_file, path).error
            assert error is not None, "it is the user of the file"
            return type(error), error.filename

    assert in_fork(as_another_user) == (PermissionError, path)


@pytest.mark.parametrize(
    ("args", "keywords", "error", "text"),
    [
        ((b"a\0b",), {}, ValueError, "null byte"),
        (("a\0b",), {}, ValueError, "null byte"),
        ((1,), {}, TypeError, "PathLike object, not int"),
        ((None,), {}, TypeError, "PathLike object, not NoneType"),
        ((), {}, TypeError, "argument"),
        (("x", 1), {}, TypeError, "callback"),
        (("x", print), {"on_success": print}, TypeError, "both"),
        (("x",), {"on_error": 1}, TypeError, "on_error"),
        (("x",), {"timeout": -1}, ValueError, "timeout"),
        (("x",), {"timeout": "1"}, TypeError, "timeout"),
        (("x",), {"size": 1}, TypeError, "size"),
    ],
)
def test_bad_arguments(loop, args, keywords, error, text):
    with pytest.raises(error, match=text):
        loop.read_file(*args, **keywords)
    assert loop.statistics().operations_in_flight == 0


def test_no_part_of_a_chain(direct):
    with pytest.raises(ValueError, match="read_file is more than one request"), direct.link():
        direct.read_file("/dev/null")
    assert direct.statistics().operations_in_flight == 0


def test_no_memory_is_an_error():
    if IS_SANITIZED:
        pytest.skip("the sanitizer takes more memory than can be allowed")
    run_script(
        """
        import errno, resource
        from linux_event import Loop

        with Loop() as loop:
            results = []
            resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
            loop.read_file("/dev/zero", lambda data, error: results.append((data, error.errno, error.filename)))
            loop.run(60)
            assert results == [(None, errno.ENOMEM, "/dev/zero")], results
            loop.read_file("/dev/null", lambda data, error: results.append(data))
            loop.run(60)
            assert results[1:] == [b""]
        """
    ).check("")


# --- Files that change --------------------------------------------------------------------------------------------------


def test_a_file_that_grows(loop, tmp_path):
    path = tmp_path / "file"
    data = pattern(30_000_000)
    path.write_bytes(data[:100_000])
    is_over = threading.Event()

    def append():
        with open(path, "ab", buffering=0) as file:
            for start in range(100_000, len(data), 50_000):
                if is_over.is_set():
                    break
                file.write(data[start : start + 50_000])

    writer = threading.Thread(target=append)
    outcome = Outcome()
    loop.read_file(path, outcome)
    loop.run_once(0)
    writer.start()
    finish(loop)
    is_over.set()
    writer.join()
    assert len(outcome.result) >= 100_000
    assert outcome.result == data[: len(outcome.result)]


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_a_file_that_shrinks(loop, tmp_path, iterations):
    path = tmp_path / "file"
    data = pattern(8_000_000)
    path.write_bytes(data)
    outcome = Outcome()
    loop.read_file(path, outcome)
    for _ in range(iterations):
        loop.run_once(0)
    os.truncate(path, 1000)
    finish(loop)
    assert outcome.error is None
    assert 1000 <= len(outcome.result) < len(data)
    assert outcome.result == data[: len(outcome.result)]


def test_a_file_that_is_replaced(loop, tmp_path):
    path = tmp_path / "file"
    data = pattern(8_000_000)
    path.write_bytes(data)
    outcome = Outcome()
    loop.read_file(path, outcome)
    for _ in range(3):
        loop.run_once(0)
    (tmp_path / "other").write_bytes(b"other")
    os.replace(tmp_path / "other", path)
    finish(loop)
    assert outcome.result in (data, b"other")


# --- FIFOs ---------------------------------------------------------------------------------------------------------------


def test_a_fifo_with_a_slow_writer(loop, fifo):
    outcome = Outcome()
    loop.read_file(fifo, outcome)
    writer = write_end(loop, fifo)
    data = pattern(60_000)
    for start in range(0, len(data), 7000):
        os.write(writer, data[start : start + 7000])
        run_until(loop, lambda: unread(writer) == 0)
    assert outcome.calls == 0, "the writer is still there"
    os.close(writer)
    finish(loop)
    assert outcome.result == data


def test_a_fifo_is_waited_for(loop, fifo):
    """Nobody has opened it for writing yet: open(2) would wait."""
    outcome = Outcome()
    loop.read_file(fifo, outcome)
    for _ in range(10):
        loop.run_once(0.01)
    assert outcome.calls == 0
    writer = write_end(loop, fifo)
    loop.run_once(0)
    assert outcome.calls == 0
    os.close(writer)
    finish(loop)
    assert outcome.result == b""


def test_a_fifo_whose_pieces_fill_the_buffer(loop, fifo):
    outcome = Outcome()
    loop.read_file(fifo, outcome)
    writer = write_end(loop, fifo)
    data = pattern(7 * BUFFER)
    for start in range(0, len(data), BUFFER):
        os.write(writer, data[start : start + BUFFER])
        run_until(loop, lambda: unread(writer) == 0)
    os.close(writer)
    finish(loop)
    assert outcome.result == data


# --- Ended early --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", range(9))
@pytest.mark.parametrize("name", ["small", "empty", "large", "fifo", "missing"])
def test_cancel_at_every_stage(loop, tmp_path, fifo, name, iterations):
    (tmp_path / "small").write_bytes(b"data")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    outcome = Outcome()
    operation = loop.read_file(tmp_path / name, outcome)
    for _ in range(iterations):
        loop.run_once(0)
    was_done = operation.done()
    assert operation.cancel() is not was_done
    assert operation.done()
    finish(loop)
    assert outcome.calls == 1
    assert operation.cancelled() is not was_done
    if not was_done:
        assert outcome.result is None
        assert isinstance(outcome.error, CancelledError)
    assert name != "fifo" or not was_done


@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 6])
def test_cancel_between_the_pieces_of_a_fifo(loop, fifo, iterations):
    outcome = Outcome()
    operation = loop.read_file(fifo, outcome)
    writer = write_end(loop, fifo)
    os.write(writer, b"piece")
    for _ in range(iterations):
        loop.run_once(0)
    operation.cancel()
    finish(loop)
    assert isinstance(outcome.error, CancelledError)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"nobody reads")
    os.close(writer)


def test_a_timeout(loop, fifo):
    outcome = outcome_of(loop, loop.read_file, fifo, timeout=0.01)
    assert type(outcome.error) is TimeoutError
    assert outcome.error.errno == errno.ETIMEDOUT
    assert outcome.error.filename == fifo
    assert outcome_of(loop, loop.read_file, "/dev/null", timeout=60).result == b""


def test_a_timeout_and_then_cancel(loop, fifo):
    outcome = Outcome()
    operation = loop.read_file(fifo, outcome, timeout=0)
    loop.run_once(0)
    operation.cancel()
    finish(loop)
    assert outcome.calls == 1
    assert operation.cancelled() or isinstance(outcome.error, TimeoutError)


def test_a_file_without_an_end_is_ended_by_a_timeout(loop):
    outcome = outcome_of(loop, loop.read_file, "/dev/zero", timeout=0.02)
    assert type(outcome.error) is TimeoutError


def test_cancelled_in_the_callback_of_another(loop, fifo, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    outcome = Outcome()
    operation = loop.read_file(fifo, outcome)
    loop.read_file(tmp_path / "file", lambda data, error: operation.cancel())
    finish(loop)
    assert isinstance(outcome.error, CancelledError)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_the_loop_is_closed_with_hundreds_in_flight(loop, fifo, tmp_path, iterations):
    (tmp_path / "file").write_bytes(bytes(50_000))
    outcomes = [Outcome() for _ in range(scaled(400, 2 * SLOTS))]
    for i, outcome in enumerate(outcomes):
        loop.read_file(fifo if i % 3 else tmp_path / "file", outcome)
    for _ in range(iterations):
        loop.run_once(0)
    loop.close()
    assert all(outcome.calls == 1 for outcome in outcomes)
    ended = [outcome for outcome in outcomes if outcome.error is not None]
    assert len(ended) >= len(outcomes) // 2
    assert all(isinstance(outcome.error, CancelledError) for outcome in ended)
    assert open_directly() == []


def test_a_loop_that_is_dropped(fifo):
    with pytest.warns(ResourceWarning, match="unclosed"):
        loop = Loop()
        operations = [loop.read_file(fifo, functools.partial(print, loop)) for _ in range(SLOTS + 10)]
        loop.run_once(0)
        del loop, operations
        gc.collect()
    assert open_directly() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_leaves_it_alone(fifo, mode):
    with loop_of(mode) as loop:
        outcome = Outcome()
        operation = loop.read_file(fifo, outcome)
        writer = write_end(loop, fifo)

        def in_child():
            os.close(writer)
            with pytest.raises(RuntimeError, match="forked"):
                loop.read_file(fifo)
            loop.close()
            return operation.cancelled()

        assert in_fork(in_child)
        os.write(writer, b"data")
        os.close(writer)
        finish(loop)
        assert outcome.result == b"data"


# --- What it takes, and what is left ---------------------------------------------------------------------------------


def test_it_takes_no_fd(direct, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    direct.read_file(tmp_path / "file")
    finish(direct)
    with few_fds(3):  # not one more can be opened
        outcome = outcome_of(direct, direct.read_file, tmp_path / "file")
    assert outcome.result == b"data"


def test_no_fd_is_left_where_it_takes_one(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    with loop_of("plain") as loop:
        with few_fds(3):
            outcome = outcome_of(loop, loop.read_file, tmp_path / "file")
        assert outcome.error.errno == errno.EMFILE
        assert outcome_of(loop, loop.read_file, tmp_path / "file").result == b"data"


def test_nothing_leaks(direct, tmp_path):
    for name, size in (("small", 100), ("large", 200_000)):
        (tmp_path / name).write_bytes(bytes(size))

    def once():
        for name in ("small", "large", "missing"):
            direct.read_file(tmp_path / name, lambda data, error: None)
        direct.read_file(tmp_path / "large", lambda data, error: None).cancel()
        operation = direct.read_file(tmp_path / "large", lambda data, error: None)
        direct.run_once(0)
        operation.cancel()
        finish(direct)

    assert blocks_grown(once) <= 0


def test_a_closed_loop(tmp_path):
    with made_loop() as loop:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        loop.read_file("/dev/null")


def test_one_small_file_is_four_requests(direct, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    outcome_of(direct, direct.read_file, tmp_path / "file")
    before = direct.statistics()
    outcome_of(direct, direct.read_file, tmp_path / "file")
    after = direct.statistics()
    assert after.submissions - before.submissions == 4
    assert after.syscalls - before.syscalls <= 8


def test_memory_is_made_for_the_size(direct, tmp_path):
    """A large file takes no more requests than there are portions; what it says is no more than a hint."""
    (tmp_path / "file").write_bytes(bytes(3 * PORTION))
    outcome_of(direct, direct.read_file, tmp_path / "file")
    before = direct.statistics().submissions
    outcome_of(direct, direct.read_file, tmp_path / "file")
    # Open, the buffer, three portions and a rest, the end, close.
    assert direct.statistics().submissions - before <= 7


def test_inside_another_event_loop(loop, tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    outcome = Outcome()
    fd = loop.fileno()
    loop.read_file(tmp_path / "file", outcome)
    while not outcome.calls:
        assert select.select([fd], [], [], 60)[0]
        loop.run_once(0)
    assert len(outcome.result) == 100_000


def test_an_exception_in_a_callback(loop, tmp_path):
    told = []
    loop.on_error = lambda source, error: told.append(error)
    seen = []
    for _ in range(SLOTS + 3):
        loop.read_file("/dev/null", lambda data, error: (seen.append(data), 1 / 0))
    finish(loop)
    assert len(seen) == SLOTS + 3
    assert [type(error) for error in told] == [ZeroDivisionError] * (SLOTS + 3)
