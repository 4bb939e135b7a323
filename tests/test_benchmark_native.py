"""The benchmarks' programs in C: the two reference servers, and the client that measures servers."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from _fault import wait_until
from _support import BOUND

NATIVE = Path(__file__).resolve().parent.parent / "benchmarks" / "native"
if not NATIVE.is_dir():
    pytest.skip("an installed package comes without its benchmarks", allow_module_level=True)

# A sanitizer that is loaded before everything is not meant for these.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

# Name → program and options. The small ones find no buffers, no entries and no room.
SERVERS = {
    "epoll": ["server_epoll"],
    "epoll-small": ["server_epoll", "--buffer-size", "50"],
    "uring": ["server_uring"],
    "uring-ring": ["server_uring", "--direct", "1000000"],
    "uring-small": ["server_uring", "--buffers", "2", "--buffer-size", "50", "--entries", "4", "--direct", "9"],
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder that they are built in, without a warning."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler {compiler[0]!r}")
    probe = subprocess.run([*compiler, "-E", "-"], input=b"#include <liburing.h>", env=ENVIRONMENT, capture_output=True)
    if probe.returncode:
        pytest.skip("no headers of liburing")
    folder = tmp_path_factory.mktemp("native")
    for source in NATIVE.glob("*.c"):
        command = [*compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / source.stem)]
        subprocess.run([*command, str(source), "-luring"], check=True, timeout=BOUND, env=ENVIRONMENT)
    return folder


@contextlib.contextmanager
def serving(programs, name, mode, transport="tcp", *options):
    """A server that runs in the block, and has to end well after it: gives its address and its process."""
    address = "tcp:0" if transport == "tcp" else f"unix:{programs / 'socket'}"
    program, *given = SERVERS[name]
    command = [str(programs / program), mode, address, *given, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        try:
            word, where = server.stdout.readline().split()
            assert word == ("port" if transport == "tcp" else "path")
            yield f"{transport}:{where}", server
            server.terminate()
            assert server.wait(BOUND) == 0
        finally:
            server.kill()
    assert not (programs / "socket").exists()


def connect(address):
    kind, _, where = address.partition(":")
    if kind == "tcp":
        return socket.create_connection(("127.0.0.1", int(where)), timeout=BOUND)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(BOUND)
    connection.connect(where)
    return connection


def receive(connection, count):
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, f"the end after {len(data)} of {count} bytes"
        data += piece
    return bytes(data)


def run_load(programs, mode, address, **options):
    """Run the client. Returns its status, its result (None without one), and its complaints."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [str(programs / "load"), mode, address, *words]
    done = subprocess.run(
        command, input="go\nend\n", capture_output=True, text=True, timeout=2 * BOUND, env=ENVIRONMENT
    )
    lines = done.stdout.splitlines()
    if not lines:
        return done.returncode, None, done.stderr
    ready, result = lines
    assert ready == "ready"
    return done.returncode, json.loads(result), done.stderr


def measured(programs, mode, address, **options):
    """What the client measures, without errors."""
    status, result, complaints = run_load(programs, mode, address, **options)
    assert (status, complaints) == (0, "")
    assert result["requests"] == options["requests"]
    assert result["errors"] == 0
    assert 0 < result["p50"] <= result["p90"] <= result["p99"] <= result["p999"] <= result["max"]
    assert 0 < result["mean"] <= result["max"] <= result["seconds"] * 1e6
    return result


def open_fds(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def await_fds(server, count):
    """Wait until it has closed what its peers have closed: it learns of that when it comes to it."""
    wait_until(lambda: open_fds(server) == count, BOUND)


# -- The servers against the client ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("connections", "size", "depth", "requests"),
    [(1, 1, 1, 200), (20, 64, 4, 1000), (5, 100_000, 1, 30), (3, 1 << 20, 2, 9)],
    ids=["1", "64", "100k", "1m"],
)
def test_echo(programs, server, transport, connections, size, depth, requests):
    with serving(programs, server, "echo", transport) as (address, process):
        before = open_fds(process)
        options = {"connections": connections, "size": size, "depth": depth, "requests": requests}
        assert measured(programs, "echo", address, **options)["bytes"] == requests * size
        await_fds(process, before)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
def test_accepts_and_closes(programs, server, transport):
    with serving(programs, server, "close", transport) as (address, process):
        before = open_fds(process)
        measured(programs, "churn", address, connections=5, requests=300)
        await_fds(process, before)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("size", [1, 20_000])
def test_a_request_per_connection(programs, server, transport, size):
    with serving(programs, server, "echo", transport) as (address, process):
        before = open_fds(process)
        result = measured(programs, "churn", address, connections=20, size=size, requests=100)
        assert result["bytes"] == 100 * size
        await_fds(process, before)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("receivers", "size", "requests"), [(1, 1, 50), (50, 64, 20), (10, 300_000, 3)])
def test_broadcast(programs, server, transport, receivers, size, requests):
    with serving(programs, server, "broadcast", transport) as (address, process):
        before = open_fds(process)
        result = measured(programs, "broadcast", address, connections=receivers, size=size, requests=requests)
        assert result["bytes"] == receivers * size * requests
        await_fds(process, before)


# -- The servers against plain sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("body", [0, 128, 100_000])
def test_http(programs, server, body):
    response = HEAD % body + b"x" * body
    request = b"GET /path HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    with (
        serving(programs, server, "http", "tcp", "--body", str(body)) as (address, _process),
        connect(address) as connection,
    ):
        for byte in request:
            connection.sendall(bytes([byte]))
        assert receive(connection, len(response)) == response
        # Pipelined, and the beginning of one more.
        connection.sendall(20 * request + request[:30])
        assert receive(connection, 20 * len(response)) == 20 * response
        connection.sendall(request[30:])
        assert receive(connection, len(response)) == response
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("last", "answers"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nCONNECTION:  close\r\n\r\n", 1),
        (b"GET / HTTP/1.0\r\n\r\n", 1),
        (b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 0),
        (b"what is this, please?\r\n", 0),
        (b"GET /" + b"a" * 70_000, 0),
    ],
    ids=["asked", "old", "method", "nonsense", "endless"],
)
def test_http_closes(programs, server, last, answers):
    response = HEAD % 5 + 5 * b"x"
    with serving(programs, server, "http", "tcp", "--body", "5") as (address, _process), connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert receive(connection, len(response)) == response
        # A reset may come in place of the end where something has been left unread.
        with contextlib.suppress(ConnectionError):
            connection.sendall(last)
            if answers:
                assert receive(connection, len(response)) == response
            assert connection.recv(1) == b""


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("size", [3, 40_000])
def test_half_closed_connections_get_all(programs, server, transport, size):
    """The end comes together with the last bytes."""
    data = os.urandom(size)
    with serving(programs, server, "echo", transport) as (address, _process):
        for _ in range(20):
            with connect(address) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                assert receive(connection, size) == data
                assert connection.recv(1) == b""


@pytest.mark.parametrize("mode", ["echo", "http", "broadcast"])
@pytest.mark.parametrize("server", SERVERS)
def test_survives_resets(programs, server, mode):
    with serving(programs, server, mode) as (address, process):
        before = open_fds(process)
        for size in [0, 1, 100, 100_000] * 5:
            with connect(address) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.setblocking(False)
                if size:
                    connection.send(b"GET / HTTP/1.1\r\n\r\n" + size * b"a")
        await_fds(process, before)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("server", ["epoll", "uring", "uring-ring"])
@pytest.mark.parametrize("mode", ["echo", "broadcast"])
def test_slow_readers_are_not_read_from(programs, server, transport, mode):
    """Who sends and does not read comes to a stop, and when he reads, all is there."""
    piece = os.urandom(1 << 16)
    with serving(programs, server, mode, transport) as (address, process), connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                at = sent % len(piece)
                sent += connection.send(piece[at:])
        connection.settimeout(BOUND)
        assert sent < 64 << 20
        for at in range(0, sent, len(piece)):
            expected = piece[: min(len(piece), sent - at)]
            assert receive(connection, len(expected)) == expected
        connection.sendall(b"more")
        assert receive(connection, 4) == b"more"
        memory = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(memory) < 64 << 10


@pytest.mark.parametrize("server", SERVERS)
def test_one_who_does_not_read_does_not_stop_echo(programs, server):
    with serving(programs, server, "echo") as (address, _process), connect(address) as deaf:
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(200):
                deaf.send(bytes(1 << 16))
        measured(programs, "echo", address, connections=10, size=1000, requests=200)


@pytest.mark.parametrize("server", ["epoll", "uring"])
def test_the_next_one_broadcasts(programs, server):
    with serving(programs, server, "broadcast") as (address, process):
        before = open_fds(process)
        with connect(address) as first:
            first.sendall(b"first")
            assert receive(first, 5) == b"first"
        await_fds(process, before)
        with connect(address) as second, connect(address) as third:
            # The second is the first one now, and what the third says is dropped.
            third.sendall(b"dropped")
            second.sendall(b"second")
            assert receive(second, 6) == b"second"


@pytest.mark.parametrize("server", ["server_epoll", "server_uring"])
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "usage"),
        (["sing", "tcp:0"], "no such mode: sing"),
        (["echo", "tcp:port"], "no such port: tcp:port"),
        (["echo", "0"], "an address is tcp:PORT or unix:PATH, not 0"),
        (["echo", "unix:/dev/null/socket"], "unix:/dev/null/socket: Not a directory"),
        (["echo", "unix:" + 200 * "a"], "a path is of 1 to 107 bytes"),
        (["echo", "tcp:0", "--loud", "1"], "unknown option --loud"),
        (["http", "tcp:0", "--body"], "--body needs a number"),
        (["http", "tcp:0", "--body", "-1"], "--body takes a number from 0 to 1073741824, not -1"),
    ],
)
def test_refuses_what_it_does_not_understand(programs, server, words, complaint):
    done = subprocess.run(
        [str(programs / server), *words], capture_output=True, text=True, timeout=BOUND, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert complaint in done.stderr


@pytest.mark.parametrize("server", ["epoll", "uring"])
def test_a_port_in_use_is_an_error(programs, server):
    with serving(programs, server, "echo") as (address, _process):
        command = [str(programs / SERVERS[server][0]), "echo", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=ENVIRONMENT)
        assert done.returncode == 1
        assert "Address already in use" in done.stderr


# -- The client against servers that do wrong --------------------------------------------------------------------------


@contextlib.contextmanager
def python_server(answer):
    """A server whose answer() is given each connection, one after the other, and what has come before the first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(BOUND)

        def serve():
            # It ends when nobody listens any more.
            with contextlib.suppress(OSError):
                while True:
                    connection, _peer = listening.accept()
                    connection.settimeout(BOUND)
                    with connection:
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp:{listening.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(BOUND)
            assert not thread.is_alive()


def echo_until(connection, count):
    """Echo so many bytes, then return what comes next."""
    while count:
        data = connection.recv(min(count, 65536))
        connection.sendall(data)
        count -= len(data)
    return connection.recv(65536)


def corrupt(connection):
    data = bytearray(echo_until(connection, 1000))
    data[37] ^= 1
    connection.sendall(data)
    connection.recv(1)


def close_early(connection):
    connection.sendall(echo_until(connection, 1000)[:40])


def reset(connection):
    echo_until(connection, 1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_too_much(connection):
    connection.sendall(echo_until(connection, 1000) + b"!")
    connection.recv(1)


def say_nothing(connection):
    echo_until(connection, 1000)
    with contextlib.suppress(OSError):
        connection.recv(1)


WRONG = {
    "corrupt": (corrupt, "connection 0: byte 1037 is 0x", 60),
    "early": (close_early, "connection 0: the server has closed it after 1040 of 1100 bytes", 60),
    "reset": (reset, "connection 0: receive: Connection reset by peer", 60),
    "more": (send_too_much, "connection 0: more than the 1100 bytes that were sent have come", 60),
    "silent": (say_nothing, "nothing has happened for 1 s, with 5 of 50 requests answered", 1),
}


@pytest.mark.parametrize(("answer", "complaint", "timeout"), WRONG.values(), ids=WRONG)
def test_errors_are_told(programs, answer, complaint, timeout):
    with python_server(answer) as address:
        status, result, complaints = run_load(
            programs, "echo", address, size=100, warmup=5, requests=50, timeout=timeout
        )
    assert complaint in complaints
    assert status == 1
    assert result["errors"] == 1
    assert result["requests"] == 5
    assert result["bytes"] in {500, 540}


@pytest.mark.parametrize(("answer", "complaint", "timeout"), WRONG.values(), ids=WRONG)
def test_errors_before_the_measurement_end_it(programs, answer, complaint, timeout):
    with python_server(answer) as address:
        status, result, complaints = run_load(
            programs, "echo", address, size=100, warmup=50, requests=50, timeout=timeout
        )
    assert complaint.replace("5 of", "10 of") in complaints
    assert status == 1
    assert result is None


def test_the_other_connections_go_on(programs):
    """A connection that fails is one error, and its request is lost."""
    accepted = []

    def answer(connection):
        accepted.append(connection)
        if len(accepted) == 1:
            receive(connection, 100)
        else:
            echo_until(connection, 900)

    with python_server(answer) as address:
        # The first one is closed when its first request comes, and only then the second one is accepted.
        status, result, complaints = run_load(programs, "echo", address, connections=2, size=100, warmup=0, requests=10)
    assert "connection 0: the server has closed it after 0 of 100 bytes" in complaints
    assert (status, result["errors"], result["requests"]) == (1, 1, 9)


def test_an_error_ends_a_broadcast(programs):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(BOUND)

        def serve():
            sender, receiver = listening.accept()[0], listening.accept()[0]
            with sender, receiver:
                while (data := sender.recv(1)) != b"\xff":
                    receiver.sendall(data)
                receiver.sendall(data)
                for count in (10, 10, 9):
                    receiver.sendall(receive(sender, 10)[:count])

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp:{listening.getsockname()[1]}"
        status, result, complaints = run_load(programs, "broadcast", address, size=10, warmup=2, requests=1)
        thread.join(BOUND)
    assert (status, result["errors"], result["requests"]) == (1, 1, 0)
    assert "connection 1: the server has closed it after 29 of 30 bytes" in complaints


def test_nobody_listens(programs):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp:{bound.getsockname()[1]}"
        for mode in ("echo", "churn", "broadcast"):
            status, result, complaints = run_load(programs, mode, address, requests=1)
            assert (status, result) == (1, None)
            assert "Connection refused" in complaints


def test_it_measures_when_told_to(programs):
    """Until then it has sent the warm-up, and afterwards it keeps its connections."""
    received = 0
    ended = threading.Event()

    def answer(connection):
        nonlocal received
        while data := connection.recv(65536):
            received += len(data)
            connection.sendall(data)
        ended.set()

    with python_server(answer) as address:
        command = [str(programs / "load"), "echo", address, "--size", "10", "--warmup", "7", "--requests", "20"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        with subprocess.Popen(command, **pipes) as load:
            try:
                assert load.stdout.readline() == "ready\n"
                assert received == 70
                load.stdin.write("go\n")
                load.stdin.flush()
                assert json.loads(load.stdout.readline())["requests"] == 20
                assert received == 270
                assert not ended.is_set()
                load.stdin.write("\n")
                load.stdin.flush()
                assert load.wait(BOUND) == 0
                assert ended.wait(BOUND)
            finally:
                load.kill()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "usage"),
        (["sing", "tcp:1"], "no such mode: sing"),
        (["echo", "tcp:1"], "--requests is missing"),
        (["echo", "tcp:1", "--requests", "0"], "--requests takes a number from 1"),
        (["echo", "tcp:1", "--requests", "many"], "not many"),
        (["echo", "tcp:1", "--requests", "1", "--size", "0"], "--size takes a number above 0 here"),
    ],
)
def test_the_client_refuses_what_it_does_not_understand(programs, words, complaint):
    command = [str(programs / "load"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=ENVIRONMENT)
    assert done.returncode == 1
    assert complaint in done.stderr


@pytest.mark.parametrize("server", ["epoll", "uring"])
def test_a_signal_ends_a_server_at_work(programs, server):
    with serving(programs, server, "echo") as (address, process):
        command = [str(programs / "load"), "echo", address, "--connections", "10", "--requests", "1000000"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
        with subprocess.Popen(command, **pipes) as load:
            try:
                assert load.stdout.readline() == b"ready\n"
                load.stdin.write(b"go\n")
                load.stdin.flush()
                with connect(address) as connection:
                    connection.sendall(b"hallo")
                    assert receive(connection, 5) == b"hallo"
                process.terminate()
                assert process.wait(BOUND) == 0
                assert load.stderr.readline().startswith(b"load: connection ")
            finally:
                load.kill()
