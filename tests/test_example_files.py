"""The examples that move files and data, driven by programs of others: diff, nc, seq, mount."""

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import threading

import pytest
from _example import BOUND, foreign, nc, run, running
from _fault import wait_until

from linux_event import Loop

RESET = struct.pack("ii", 1, 0)

# 06: copying a tree.


@pytest.fixture
def tree(tmp_path):
    """A folder with files of many sizes, links, folders in folders, and an empty one."""
    chance = random.Random(6)
    root = tmp_path / "tree"
    for number in range(20):
        folder = root / f"folder {number}" / "inner" / "innermost"
        folder.mkdir(parents=True)
        for size in (0, 1, 4096, chance.randrange(200_000)):
            (folder.parent / f"{size} bytes").write_bytes(chance.randbytes(size))
    (root / "large").write_bytes(chance.randbytes(5 << 20))
    (root / "link").symlink_to("large")
    (root / "dangling").symlink_to("nowhere")
    (root / "names\nwith newlines").touch(mode=0o600)
    return root


def test_copy_tree(tree, tmp_path):
    with running("06_copy_tree.py", tree, tmp_path / "copy") as example:
        stdout, stderr = example.process.communicate(timeout=BOUND)
    assert example.process.returncode == 0
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    assert stdout.decode() == f"{len(files)} files, {size} bytes, 0 errors\n"
    assert b"copying" in stderr
    assert run("diff", "-r", "--no-dereference", tree, tmp_path / "copy") == b""
    # Permissions too, and one at a time as well as many.
    with running("06_copy_tree.py", "--jobs", 1, tree, tmp_path / "second") as example:
        example.process.communicate(timeout=BOUND)
    listing = ("find", "-printf", "%P %y %m %s %l\\n")
    listed = [
        sorted(subprocess.run(listing, cwd=folder, capture_output=True, check=True, env=foreign()).stdout.splitlines())
        for folder in (tree, tmp_path / "copy", tmp_path / "second")
    ]
    for copied in listed[1:]:
        assert [line for line in copied if b" d " not in line] == [line for line in listed[0] if b" d " not in line]


def test_copy_tree_goes_on_after_an_error(tree, tmp_path):
    os.mkfifo(tree / "fifo")
    with running("06_copy_tree.py", tree, tmp_path / "copy") as example:
        stdout, stderr = example.process.communicate(timeout=BOUND)
    assert example.process.returncode == 1
    assert b"fifo: neither file, folder nor link" in stderr
    assert stdout.endswith(b"1 errors\n")
    (tree / "fifo").unlink()
    assert run("diff", "-r", "--no-dereference", tree, tmp_path / "copy") == b""


def test_copy_tree_does_not_overwrite(tree, tmp_path):
    with running("06_copy_tree.py", tree, tree) as example:
        _, stderr = example.process.communicate(timeout=BOUND)
    assert example.process.returncode == 1
    assert b"exists" in stderr


# 07: the port forwarder.


class Server(threading.Thread):
    """Listens, and calls a function with each connection in turn."""

    def __init__(self, serve):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.serve = serve
        self.start()

    @property
    def port(self):
        return self.listener.getsockname()[1]

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection, contextlib.suppress(ConnectionError):  # the reset of a client is passed on
            connection.settimeout(BOUND)
            self.serve(connection)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self.listener.close()


def shout(connection):
    """Answer with all that has come, in reverse, when the other side has closed its half."""
    said = bytearray()
    while part := connection.recv(1 << 16):
        said += part
    connection.sendall(said[::-1])


@pytest.fixture
def forwarder(nothing_left):
    if not hasattr(Loop, "accept"):
        pytest.skip("this build has no operations on sockets")
    server = Server(shout)
    with running("07_port_forwarder.py", "127.0.0.1:0", f"127.0.0.1:{server.port}") as example:
        yield example
    server.close()


def test_forwarder_closes_half_by_half(forwarder):
    port = forwarder.port()
    before = forwarder.fds()
    for size in (0, 1, 100_000, 8 << 20):
        data = random.Random(size).randbytes(size)
        assert nc(port, data) == data[::-1]
    wait_until(lambda: forwarder.fds() == before)
    assert forwarder.end(signal.SIGINT) == []


def test_forwarder_of_many_connections(forwarder):
    port = forwarder.port()
    before = forwarder.fds()
    clients = []
    try:
        for number in range(100):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=BOUND))
            clients[-1].sendall(b"%d " % number * 1000)
        for number, client in enumerate(clients):
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as stream:
                assert stream.read() == (b"%d " % number * 1000)[::-1]
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: forwarder.fds() == before)
    assert forwarder.end(signal.SIGINT) == []


def test_forwarder_survives_resets(forwarder):
    port = forwarder.port()
    before = forwarder.fds()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
            client.sendall(b"unheard" * 1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: forwarder.fds() == before)
    assert nc(port, b"still there") == b"ereht llits"
    assert forwarder.end(signal.SIGINT) == []


def test_forwarder_to_a_port_that_nobody_listens_on():
    if not hasattr(Loop, "accept"):
        pytest.skip("this build has no operations on sockets")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("07_port_forwarder.py", "127.0.0.1:0", f"127.0.0.1:{port}") as example:
        assert nc(example.port(), b"anybody?") == b""
        assert "Connection refused" in example.line()
        assert example.end(signal.SIGINT) == []


# 08: the log writer.


def test_log_writer(tmp_path):
    log = tmp_path / "log"
    for first, last in ((1, 50_000), (50_001, 50_010)):
        with (
            subprocess.Popen(["seq", str(first), str(last)], stdout=subprocess.PIPE, env=foreign()) as seq,
            running("08_log_writer.py", log, stdin=seq.stdout) as example,
        ):
            assert example.end() == []
    assert log.read_bytes() == run("seq", 1, 50_010)


def test_log_writer_of_a_last_line_without_newline(tmp_path):
    (tmp_path / "input").write_text("one\n\ntwo")
    with open(tmp_path / "input") as file, running("08_log_writer.py", tmp_path / "log", stdin=file) as example:
        assert example.end() == []
    assert (tmp_path / "log").read_text() == "one\n\ntwo\n"


def test_log_writer_gives_up_at_last(tmp_path):
    (tmp_path / "input").write_text("one\ntwo\nthree\n")
    with (
        open(tmp_path / "input") as file,
        running("08_log_writer.py", "--retry", 0.01, "--patience", 0.1, "/dev/full", stdin=file) as example,
    ):
        _, stderr = example.process.communicate(timeout=BOUND)
    assert example.process.returncode == 1
    assert stderr.decode().splitlines() == ["waiting: No space left on device", "3 lines are lost"]


@pytest.fixture
def small_disk(tmp_path, nothing_left):
    """A file system of 256 KiB, full but for 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, env=foreign())
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.decode().strip()}")
    try:
        (disk / "ballast").write_bytes(b"x" * (192 << 10))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True, env=foreign())


def test_log_writer_survives_a_full_disk(small_disk):
    log = small_disk / "log"
    with running("08_log_writer.py", "--limit", 40_000, "--retry", 0.01, log, stdin=subprocess.PIPE) as example:
        error, stdin = example.process.stderr, example.process.stdin

        def say(numbers):
            stdin.write(b"".join(b"line %d\n" % number for number in numbers))
            stdin.flush()

        # A few lines at a time, so that none has to wait long, until there is no room for more.
        said = 0
        while not select.select([error], [], [], 0)[0]:
            say(range(said, said + 1000))
            said += 1000
            last = b"line %d\n" % (said - 1)
            wait_until(
                lambda last=last: (
                    (log.exists() and log.read_bytes().endswith(last)) or select.select([error], [], [], 0)[0]
                )
            )
        assert error.readline() == b"waiting: No space left on device\n"
        # Now more than may wait.
        say(range(said, 30_000))
        (small_disk / "ballast").unlink()
        assert error.readline() == b"there is room again\n"
        say([30_000])
        stdin.close()
        example.process.stdin = None
        _, rest = example.process.communicate(timeout=BOUND)
    lines = log.read_text().splitlines()
    missing = [line for line in lines if "missing" in line]
    assert missing
    lost = sum(int(line.split()[0].strip("(")) for line in missing)
    assert rest.decode() == f"{lost} lines are lost\n"
    assert example.process.returncode == 1
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert len(numbers) + len(missing) == len(lines)
    assert numbers == sorted(set(numbers))
    assert len(numbers) + lost == 30_001
    assert numbers[-1] == 30_000
    # Where lines are missing, it is said.
    for before, at, after in zip(lines, lines[1:], lines[2:], strict=False):
        if at in missing:
            gap = int(after.split()[1]) - int(before.split()[1]) - 1
            assert at == f"({gap} lines are missing here)"
