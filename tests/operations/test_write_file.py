"""write_file: in its place, behind what is there, and beside it; its errors, and what is left when it is ended at any moment."""

import contextlib
import errno
import os
import pathlib
import re
import resource
import shutil
import stat

import pytest
from _fault import become_unprivileged, finish_script, in_fork, run_script, start_script
from _support import blocks_grown, finish, run_until, scaled
from _whole_files import MODES, SLOTS, Outcome, loop_of, outcome_of

from linux_event import Operation
from linux_event.cancellation import CancelledError
from linux_event.slots import places

# The ways to write, and those of them that replace the file.
WAYS = ({}, {"append": True}, {"sync": True}, {"atomic": True}, {"atomic": True, "sync": True})
ATOMIC = WAYS[3:]


def way(keywords):
    return "+".join(keywords) or "plain"


@pytest.fixture(params=MODES)
def loop(request, nothing_left):
    with loop_of(request.param) as loop:
        yield loop


@pytest.fixture
def direct(nothing_left):
    with loop_of("direct") as loop:
        yield loop


@pytest.fixture(params=WAYS, ids=way)
def how(request):
    return request.param


@pytest.fixture(params=ATOMIC, ids=way)
def atomic(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """An empty folder; what a test leaves there shows."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def largest_file(size):
    """Lower the limit on the size of files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- Results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 3_000_000])
def test_a_new_file(loop, folder, how, size):
    data = os.urandom(size)
    outcome = outcome_of(loop, loop.write_file, folder / "file", data, **how)
    assert outcome.error is None
    assert outcome.result == size
    assert type(outcome.result) is int
    assert (folder / "file").read_bytes() == data
    assert os.listdir(folder) == ["file"]


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_file_that_exists(loop, folder, how, size):
    (folder / "file").write_bytes(b"old" * 1000)
    assert outcome_of(loop, loop.write_file, folder / "file", bytes(size), **how).result == size
    kept = b"old" * 1000 if "append" in how else b""
    assert (folder / "file").read_bytes() == kept + bytes(size)
    assert os.listdir(folder) == ["file"]


def test_a_large_file(direct, folder, how):
    data = os.urandom(1 << 20) * scaled(100)
    assert outcome_of(direct, direct.write_file, folder / "file", data, **how).result == len(data)
    assert (folder / "file").read_bytes() == data


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
def test_kinds_of_data(direct, folder, make):
    data = b"12345678"
    assert outcome_of(direct, direct.write_file, folder / "file", make(data)).result == 8
    assert (folder / "file").read_bytes() == data


def test_the_data_are_held(direct, folder, how):
    data = bytearray(b"data")
    operation = direct.write_file(folder / "file", data, lambda count, error: None, **how)
    with pytest.raises(BufferError):
        data.append(1)
    finish(direct)
    data.append(1)
    assert operation.result() == 4


@pytest.mark.parametrize("kind", [str, bytes, pathlib.Path])
def test_kinds_of_paths(direct, folder, how, kind):
    given = os.fsencode(folder / "file") if kind is bytes else kind(folder / "file")
    assert outcome_of(direct, direct.write_file, given, b"data", **how).result == 4
    missing = os.fsencode(folder / "no" / "file") if kind is bytes else kind(folder / "no" / "file")
    assert outcome_of(direct, direct.write_file, missing, b"data", **how).error.filename is missing


def test_names_that_are_not_text(direct, folder, how):
    path = os.fsencode(folder) + b"/\xff\xfe\n"
    assert outcome_of(direct, direct.write_file, path, b"data", **how).result == 4
    assert os.listdir(os.fsencode(folder)) == [b"\xff\xfe\n"]
    assert outcome_of(direct, direct.write_file, os.fsdecode(path), b"data", **how).result == 4
    assert os.listdir(os.fsencode(folder)) == [b"\xff\xfe\n"]


def test_relative_paths_and_the_longest_name(direct, folder, how, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("file", "./x" + "y" * 254, "../folder/z"):
        assert outcome_of(direct, direct.write_file, name, b"data", **how).result == 4
    assert sorted(os.listdir()) == ["file", "x" + "y" * 254, "z"]


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o777, 0o4755, 0])
@pytest.mark.parametrize("umask", [0o022, 0, 0o077])
def test_the_mode_and_the_umask(direct, folder, how, mode, umask):
    before = os.umask(umask)
    try:
        outcome_of(direct, direct.write_file, folder / "file", b"data", mode=mode, **how)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == mode & ~umask


def test_a_file_written_in_its_place_keeps_its_mode(direct, folder):
    (folder / "file").touch(0o640)
    outcome_of(direct, direct.write_file, folder / "file", b"data", mode=0o600)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640


def test_links(direct, folder, how):
    """A file in its place is written through its link; what replaces it replaces the link."""
    (folder / "file").write_bytes(b"old")
    (folder / "link").symlink_to("file")
    outcome_of(direct, direct.write_file, folder / "link", b"data", **how)
    assert (folder / "link").is_symlink() is ("atomic" not in how)
    assert (folder / "file").read_bytes() == ((b"old" * ("append" in how) + b"data") if "atomic" not in how else b"old")


def test_the_other_form_of_callbacks(direct, folder):
    results, errors = [], []
    direct.write_file(folder / "file", b"data", on_success=results.append, on_error=errors.append)
    direct.write_file(folder, b"data", on_success=results.append, on_error=errors.append)
    finish(direct)
    assert results == [4]
    assert [type(error) for error in errors] == [IsADirectoryError]


def test_the_operation(direct, folder):
    operation = direct.write_file(str(folder / "file"), b"data")
    assert isinstance(operation, Operation)
    assert repr(operation) == f"<WriteFile write_file {str(folder / 'file')!r} in flight>"
    finish(direct)
    assert operation.result() == 4


def test_devices_and_fifos(loop, folder):
    assert outcome_of(loop, loop.write_file, "/dev/null", b"data").result == 4
    os.mkfifo(folder / "fifo")
    reader = Outcome()
    loop.read_file(folder / "fifo", reader)
    data = bytes(range(256)) * 1000  # more than a pipe holds
    assert outcome_of(loop, loop.write_file, folder / "fifo", data).result == len(data)
    assert reader.result == data


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("no/file", errno.ENOENT),
        ("", errno.ENOENT),
        ("file/below", errno.ENOTDIR),
        ("file/", errno.ENOTDIR),
        ("loop/file", errno.ELOOP),
        (".", errno.EISDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("x/" * 4000 + "x", errno.ENAMETOOLONG),
    ],
)
def test_errors_of_the_kernel(loop, folder, how, monkeypatch, name, number):
    monkeypatch.chdir(folder)
    (folder / "file").write_bytes(b"old")
    (folder / "loop").symlink_to("loop")
    outcome = outcome_of(loop, loop.write_file, name, b"data", **how)
    assert outcome.result is None
    # What it says of a name that can be no file's depends on what was to be done with it.
    expected = {number, errno.EBUSY, errno.EISDIR} if name in (".", "file/") else {number}
    assert outcome.error.errno in expected
    assert outcome.error.filename == name
    assert sorted(os.listdir()) == ["file", "loop"]
    assert (folder / "file").read_bytes() == b"old"


@pytest.mark.parametrize("keywords", [{}, {"append": True}, {"sync": True}], ids=way)
def test_a_full_device(loop, keywords):
    outcome = outcome_of(loop, loop.write_file, "/dev/full", b"data", **keywords)
    assert outcome.error.errno == errno.ENOSPC
    assert outcome.error.filename == "/dev/full"


def test_a_disk_that_fills_up(tmp_path):
    """Short writes, and then the error; what replaces a file leaves the old one and takes its own away."""
    if not shutil.which("unshare") or os.getuid():
        pytest.skip("a small file system takes unshare(1) and root")
    run_script(
        """
        import errno, os, subprocess, sys
        from linux_event import Loop

        folder = sys.argv[1]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", folder], check=True)
        os.chdir(folder)
        with open("file", "w") as file:
            file.write("old")
        results = []
        with Loop() as loop:
            for keywords in ({"atomic": True}, {"atomic": True, "sync": True}, {}):
                loop.write_file("file", bytes(300_000), lambda count, error: results.append(error.errno), **keywords)
                loop.run(60)
                if keywords:
                    assert os.listdir() == ["file"], os.listdir()
                    assert open("file").read() == "old"
        assert results == [errno.ENOSPC] * 3, results
        assert 200_000 < os.path.getsize("file") < 300_000
        """,
        tmp_path,
        prefix=("unshare", "-m"),
    ).check("")


def test_a_limit_on_the_size(loop, folder, how):
    (folder / "file").write_bytes(b"old")
    with largest_file(100_000):
        outcome = outcome_of(loop, loop.write_file, folder / "file", bytes(300_000), **how)
    assert outcome.error.errno == errno.EFBIG
    assert outcome.error.filename == folder / "file"
    assert os.listdir(folder) == ["file"]
    if "atomic" in how:
        assert (folder / "file").read_bytes() == b"old"
    else:
        assert (folder / "file").stat().st_size == 100_000


def test_the_target_is_a_folder(loop, folder, atomic):
    """The last step fails: the rename."""
    (folder / "file").mkdir()
    outcome = outcome_of(loop, loop.write_file, folder / "file", b"data", **atomic)
    assert type(outcome.error) is IsADirectoryError
    assert outcome.error.filename == folder / "file"
    assert os.listdir(folder) == ["file"]


@pytest.mark.parametrize(
    ("permissions", "failing"),
    [
        (0o755, {"atomic", "sync"}),  # the folder cannot be written to: nothing can be put beside
        (0o733, {"sync"}),  # it cannot be opened, which has to be told before there is no way back
        (0o711, {"atomic", "sync"}),
    ],
)
def test_permission_denied(tmp_path, folder, permissions, failing):
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent != pathlib.Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    (folder / "file").write_bytes(b"old")
    (folder / "file").chmod(0o666)
    (folder / "secret").write_bytes(b"secret")
    (folder / "secret").chmod(0o600)
    folder.chmod(permissions)

    def as_another_user():
        become_unprivileged()
        with loop_of("direct") as loop:
            error = outcome_of(loop, loop.write_file, folder / "secret", b"data").error
            assert type(error) is PermissionError
            assert error.filename == folder / "secret"
            for keywords, name in (({"atomic": True}, "atomic"), ({"atomic": True, "sync": True}, "sync")):
                outcome = outcome_of(loop, loop.write_file, folder / "file", name.encode(), **keywords)
                assert (type(outcome.error) is PermissionError) is (name in failing)
        return True

    assert in_fork(as_another_user)
    folder.chmod(0o755)
    assert sorted(os.listdir(folder)) == ["file", "secret"]
    assert (folder / "file").read_bytes() == (b"old" if "atomic" in failing else b"atomic")


@pytest.mark.parametrize(
    ("args", "keywords", "error", "text"),
    [
        ((b"a\0b", b""), {}, ValueError, "null byte"),
        ((1, b""), {}, TypeError, "PathLike object, not int"),
        (("x",), {}, TypeError, "argument"),
        (("x", "text"), {}, TypeError, "bytes-like"),
        (("x", memoryview(b"abcd")[::2]), {}, BufferError, "contiguous"),
        (("x", b"", 1), {}, TypeError, "callback"),
        (("x", b""), {"mode": -1}, ValueError, "mode"),
        (("x", b""), {"mode": 0o10000}, ValueError, "mode"),
        (("x", b""), {"mode": "r"}, TypeError, "mode"),
        (("x", b""), {"append": 1}, TypeError, "append"),
        (("x", b""), {"sync": 1}, TypeError, "sync"),
        (("x", b""), {"atomic": None}, TypeError, "atomic"),
        (("x", b""), {"atomic": True, "append": True}, ValueError, "append and atomic"),
        (("x", b"", print), {"on_error": print}, TypeError, "both"),
        (("x", b""), {"timeout": float("nan")}, ValueError, "timeout"),
    ],
)
def test_bad_arguments(direct, folder, monkeypatch, args, keywords, error, text):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=text):
        direct.write_file(*args, **keywords)
    assert direct.statistics().operations_in_flight == 0
    assert os.listdir() == []


def test_no_part_of_a_chain(direct):
    with pytest.raises(ValueError, match="write_file is more than one request"), direct.link():
        direct.write_file("/dev/null", b"")
    assert direct.statistics().operations_in_flight == 0


# --- Replacing ----------------------------------------------------------------------------------------------------------


def test_the_name_beside_is_hidden_and_new(direct, folder, atomic):
    names = set()
    for _ in range(20):
        direct.write_file(folder / "file", bytes(100_000), lambda count, error: None, **atomic)
        # The names that are there while it is written.
        while direct.statistics().operations_in_flight:
            direct.run_once(0)
            names.update(os.listdir(folder))
    names.discard("file")
    assert names, "none of the files was ever seen"
    assert all(re.fullmatch(r"\.linux_event-[0-9a-f]{16}", name) for name in names)
    assert os.listdir(folder) == ["file"]


READER = """
import os, sys
path, over = sys.argv[1:]
seen = set()
while not os.path.exists(over):
    with open(path, "rb") as file:
        data = file.read()
    if not seen:
        print("reading", flush=True)
    seen.add((len(data), len(set(data))))
print(seen)
"""


def test_a_reader_finds_whole_files(direct, folder, tmp_path, atomic):
    """Another process reads all the time. A thread of this one would do so too, and hardly ever leave the GIL to the loop."""
    path, over = folder / "file", tmp_path / "over"
    path.write_bytes(b"\0" * 100_000)
    reader = start_script(READER, path, over)
    try:
        assert reader.stdout.readline() == "reading\n"
        for i in range(1, scaled(200, 20)):
            direct.write_file(path, bytes([i]) * 100_000, lambda count, error: None, **atomic)
            finish(direct)
    finally:
        over.touch()
        result = finish_script(reader)
    result.check("{(100000, 1)}")
    assert os.listdir(folder) == ["file"]


def test_many_replace_one(direct, folder, atomic):
    for i in range(scaled(200, 2 * SLOTS)):
        direct.write_file(folder / "file", bytes([i % 256]) * 5000, lambda count, error: None, **atomic)
    finish(direct)
    data = (folder / "file").read_bytes()
    assert (len(data), len(set(data))) == (5000, 1)
    assert os.listdir(folder) == ["file"]


# --- Ended early --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", range(12))
def test_cancel_at_every_stage(loop, folder, how, iterations):
    (folder / "file").write_bytes(b"old")
    data = bytearray(b"new!") * 10_000
    outcome = Outcome()
    operation = loop.write_file(folder / "file", data, outcome, **how)
    for _ in range(iterations):
        loop.run_once(0.001)
    was_cancelled = operation.cancel()
    finish(loop)
    assert outcome.calls == 1
    assert operation.cancelled() is was_cancelled
    assert isinstance(outcome.error, CancelledError) is was_cancelled
    assert was_cancelled or outcome.result == len(data)
    assert os.listdir(folder) == ["file"]
    data.append(0)  # nobody holds it any more
    if "atomic" in how:
        assert (folder / "file").read_bytes() == (b"old" if was_cancelled else data[:-1])
    elif not was_cancelled:
        assert (folder / "file").read_bytes() == (b"old" if "append" in how else b"") + data[:-1]


@pytest.mark.parametrize("timeout", [0, 0.00001, 0.0001, 0.0003, 0.001])
def test_a_timeout_at_every_stage(loop, folder, how, timeout):
    (folder / "file").write_bytes(b"old")
    outcome = outcome_of(loop, loop.write_file, folder / "file", b"new", timeout=timeout, **how)
    assert os.listdir(folder) == ["file"]
    if outcome.error is not None:
        assert type(outcome.error) is TimeoutError
        assert outcome.error.filename == folder / "file"
    if "atomic" in how:
        assert (folder / "file").read_bytes() == (b"new" if outcome.error is None else b"old")


def test_a_fifo_that_nobody_reads(loop, folder):
    """The open waits for a reader, in a thread of the kernel, and can be ended there."""
    os.mkfifo(folder / "fifo")
    outcome = outcome_of(loop, loop.write_file, folder / "fifo", b"data", timeout=0.01)
    assert type(outcome.error) is TimeoutError
    outcome = Outcome()
    operation = loop.write_file(folder / "fifo", b"data", outcome)
    loop.run_once(0.01)
    operation.cancel()
    finish(loop)
    assert isinstance(outcome.error, CancelledError)


def test_a_fifo_whose_reader_is_slow(loop, folder):
    os.mkfifo(folder / "fifo")
    reader = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    outcome = outcome_of(loop, loop.write_file, folder / "fifo", bytes(200_000), timeout=0.05)
    assert type(outcome.error) is TimeoutError
    operation = loop.write_file(folder / "fifo", bytes(200_000), outcome)
    loop.run_once(0.01)
    os.close(reader)
    run_until(loop, operation.done)
    assert type(outcome.error) is BrokenPipeError


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_the_loop_is_closed_with_hundreds_in_flight(loop, folder, how, iterations):
    count = scaled(300, 2 * SLOTS)
    outcomes = [Outcome() for _ in range(count)]
    for i in range(count):
        (folder / str(i)).write_bytes(b"old")
    data = bytearray(1000)
    for i, outcome in enumerate(outcomes):
        loop.write_file(folder / str(i), data, outcome, **how)
    for _ in range(iterations):
        loop.run_once(0)
    loop.close()
    data.append(0)
    assert all(outcome.calls == 1 for outcome in outcomes)
    assert sorted(os.listdir(folder)) == sorted(str(i) for i in range(count))
    for i, outcome in enumerate(outcomes):
        assert outcome.result == 1000 or isinstance(outcome.error, CancelledError)
        if "atomic" in how:
            assert (folder / str(i)).read_bytes() == (bytes(1000) if outcome.error is None else b"old")


# --- Many at once --------------------------------------------------------------------------------------------------------


def test_hundreds_at_once(loop, folder, how):
    count = scaled(500, 2 * SLOTS)
    written = []
    in_use = set()

    def note(number, error):
        written.append(number)
        in_use.add(places(loop)[0])

    for i in range(count):
        loop.write_file(folder / str(i), b"%d" % i, note, **how)
    assert places(loop)[:2] == (SLOTS, count - SLOTS)
    finish(loop)
    assert sum(written) == sum(len(str(i)) for i in range(count))
    assert max(in_use) == SLOTS
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == {
        str(i): b"%d" % i for i in range(count)
    }


def test_appended_pieces_stay_together(direct, folder):
    pieces = [bytes([i]) * 1000 for i in range(200)]
    for piece in pieces:
        direct.write_file(folder / "file", piece, lambda count, error: None, append=True)
    finish(direct)
    data = (folder / "file").read_bytes()
    assert sorted(data[i : i + 1000] for i in range(0, len(data), 1000)) == pieces


def test_nothing_leaks(direct, folder):
    def once():
        for keywords in WAYS:
            direct.write_file(folder / "file", bytes(100), lambda count, error: None, **keywords)
            direct.write_file(folder / "no" / "file", bytes(100), lambda count, error: None, **keywords)
            direct.write_file(folder / "file", bytes(100), lambda count, error: None, **keywords).cancel()
            operation = direct.write_file(folder / "file", bytes(100), lambda count, error: None, **keywords)
            direct.run_once(0)
            operation.cancel()
        finish(direct)

    assert blocks_grown(once) <= 0


@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_leaves_it_alone(folder, mode):
    os.mkfifo(folder / "fifo")
    with loop_of(mode) as loop:
        reader = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        outcome = Outcome()
        operation = loop.write_file(folder / "fifo", bytes(100_000), outcome)
        first = b""
        while not first:
            loop.run_once(0.01)
            with contextlib.suppress(BlockingIOError):
                first = os.read(reader, 1)

        def in_child():
            loop.close()
            return operation.cancelled()

        assert in_fork(in_child)
        count = 1
        os.set_blocking(reader, False)
        while count < 100_000:
            loop.run_once(0.01)
            with contextlib.suppress(BlockingIOError):
                count += len(os.read(reader, 100_000))
        finish(loop)
        assert outcome.result == 100_000
        os.close(reader)
