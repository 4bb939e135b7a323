"""The examples, each as its own program, driven by programs of others: nc and seq here, curl and wrk for the HTTP server."""

import contextlib
import os
import random
import re
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from _example import BOUND, EXAMPLES, foreign, nc, running
from _fault import wait_until


def test_all_examples_are_tested():
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_example*.py"))
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert [name[:3] for name in names] == [f"{number:02}_" for number in range(1, 23)]
    for name in names:
        assert f'running("{name}"' in source
        docstring = (EXAMPLES / name).read_text().split('"""')[1]
        assert f"python examples/{name}" in docstring


# 01: the echo server.


@pytest.fixture
def echo(nothing_left):
    with running("01_echo_server.py", "--port", 0) as example:
        yield example


def test_echo_of_a_line(echo):
    assert nc(echo.port(), b"hello\n") == b"hello\n"
    assert echo.end(signal.SIGINT) == []


def test_echo_of_more_than_any_buffer_holds(echo):
    data = random.Random(1).randbytes(8 << 20)
    assert nc(echo.port(), data) == data
    assert echo.end(signal.SIGINT) == []


def test_echo_to_a_client_that_does_not_read_until_it_has_sent_all(echo):
    # nc reads while it sends. This client does not, so the queue of the server fills up and is emptied again.
    data = random.Random(2).randbytes(1 << 20)
    with socket.create_connection(("127.0.0.1", echo.port()), timeout=BOUND) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            assert stream.read() == data
    assert echo.end(signal.SIGINT) == []


def test_echo_to_many_at_a_time(echo):
    port = echo.port()
    before = echo.fds()
    blocks = [random.Random(number).randbytes(100_000) for number in range(20)]
    answers = [None] * len(blocks)

    def ask(number):
        answers[number] = nc(port, blocks[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(blocks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == blocks
    wait_until(lambda: echo.fds() == before)
    assert echo.end(signal.SIGINT) == []


def test_echo_survives_a_reset(echo):
    port = echo.port()
    before = echo.fds()
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        # Closing with a linger time of zero is a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert "connection lost" in echo.line()
    wait_until(lambda: echo.fds() == before)
    assert nc(port, b"still there") == b"still there"
    assert echo.end(signal.SIGINT) == []


def test_echo_waits_when_it_is_out_of_fds(echo):
    port = echo.port()
    limit = echo.fds() + 2
    resource.prlimit(echo.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=BOUND)) for _ in range(4)]
        assert "cannot accept: [Errno 24]" in echo.line()
        for client in clients[:2]:
            client.sendall(b"a")
            assert client.recv(1) == b"a"
            client.close()
        # Now there is room, and those who waited get their turn.
        for client in clients[2:]:
            client.sendall(b"b")
            assert client.recv(1) == b"b"
    assert all("cannot accept: [Errno 24]" in line for line in echo.end(signal.SIGINT))


# 03: the tour of timers.


def test_timers():
    with running("03_timers.py") as example:
        lines = example.end()
    happened = [re.fullmatch(r" *(\d+\.\d\d) s  (.*)", line).groups() for line in lines]
    times = [float(when) for when, _ in happened]
    texts = [text for _, text in happened]
    assert times == sorted(times)
    assert not any("never" in text for text in texts)

    def at(text):
        return times[texts.index(text)]

    # Never before the time; the second digit is rounded.
    assert at("a timer of 0.3 s fired") >= 0.295
    assert at("shifted tick 1") >= 0.095
    assert at("shifted tick 2") >= 0.595
    assert at("stopped a limit with 0.1 s to go") >= 0.395
    for number, left in enumerate((2, 1, 0), 1):
        assert at(f"a timer that starts itself again: {left} to go") >= 0.2 * number - 0.005
    together = [text for text in texts if text.startswith("due together")]
    assert together == [f"due together, priority {priority}" for priority in (2, 0, -2)]
    # Each call of the periodic stands for one tick and those that were merged into it.
    total = merged = 0
    for when, text in zip(times, texts, strict=True):
        found = re.fullmatch(r"tick (\d+) of a periodic of 0.25 s(?:, (\d+) merged)?", text)
        if found:
            merged += int(found[2] or 0)
            assert int(found[1]) == total + 1 + int(found[2] or 0)
            total = int(found[1])
            assert when >= 0.25 * total - 0.005
    assert total >= 8
    # The callback of the fourth tick takes so long that one tick at least is missed.
    assert merged >= 1
    assert texts[-1] == "nothing is left to do, so run() has returned"


# 04: the clean shutdown.


@pytest.fixture
def countdown(nothing_left):
    arguments = ("--port", 0, "--count", 8, "--interval", 0.1)
    with running("04_clean_shutdown.py", *arguments) as example:
        yield example


def netcat(port):
    # -d: netcat is not to read from its standard input.
    return subprocess.Popen(["nc", "-d", "127.0.0.1", str(port)], stdout=subprocess.PIPE, env=foreign())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_finishes_clients(countdown, signum):
    port = countdown.port()
    clients = [netcat(port) for _ in range(3)]
    for client in clients:
        assert client.stdout.readline() == b"8\n"
    countdown.process.send_signal(signum)
    assert countdown.line() == f"{signum.name}: finishing 3 clients"
    # No new clients, while the old ones are still served. The kernel lets go of the socket when the callback has returned.
    wait_until(
        lambda: subprocess.run(["nc", "-d", "127.0.0.1", str(port)], timeout=BOUND, env=foreign()).returncode == 1
    )
    for client in clients:
        output, _ = client.communicate(timeout=BOUND)
        assert output == b"7\n6\n5\n4\n3\n2\n1\n0\n"
        assert client.returncode == 0
    assert countdown.end() == ["all clients are finished"]


def test_shutdown_without_clients(countdown):
    port = countdown.port()
    client = netcat(port)
    assert client.communicate(timeout=BOUND)[0] == b"8\n7\n6\n5\n4\n3\n2\n1\n0\n"
    assert countdown.end(signal.SIGTERM) == ["SIGTERM: finishing 0 clients", "all clients are finished"]


def test_shutdown_forgets_clients_that_left(countdown):
    client = netcat(countdown.port())
    assert client.stdout.readline() == b"8\n"
    before = countdown.fds()
    client.kill()
    client.communicate()
    wait_until(lambda: countdown.fds() < before)
    assert countdown.end(signal.SIGTERM) == ["SIGTERM: finishing 0 clients", "all clients are finished"]


def test_second_signal_ends_at_once(nothing_left):
    with running("04_clean_shutdown.py", "--port", 0, "--interval", 0.1, "--count", 1_000_000) as example:
        client = netcat(example.port())
        assert client.stdout.readline() == b"1000000\n"
        example.process.send_signal(signal.SIGTERM)
        assert example.line() == "SIGTERM: finishing 1 clients"
        assert example.end(signal.SIGINT, status=1) == ["SIGINT again: ending at once", "clients were cut off"]
        client.communicate(timeout=BOUND)


def test_grace_is_limited(nothing_left):
    with running("04_clean_shutdown.py", "--port", 0, "--count", 1_000_000, "--grace", 0.2) as example:
        client = netcat(example.port())
        assert client.stdout.readline() == b"1000000\n"
        assert example.end(signal.SIGTERM, status=1) == [
            "SIGTERM: finishing 1 clients",
            "1 clients did not finish in time",
            "clients were cut off",
        ]
        client.communicate(timeout=BOUND)


# 05: lines.


def test_lines_of_two_pipes():
    with (
        subprocess.Popen(["seq", "2000"], stdout=subprocess.PIPE, env=foreign()) as seq,
        running("05_lines.py", "seq", "5000", "6000", stdin=seq.stdout) as example,
    ):
        *lines, last = example.end()
    assert last == "2000 lines from stdin, 1001 lines from seq"
    assert [line for line in lines if line.startswith("stdin: ")] == [f"stdin: {n}" for n in range(1, 2001)]
    assert [line for line in lines if line.startswith("seq: ")] == [f"seq: {n}" for n in range(5000, 6001)]


def test_lines_of_a_regular_file(tmp_path):
    text = "one\n\n" + 200_000 * "long" + "\nlast without newline"
    (tmp_path / "file").write_text(text)
    with open(tmp_path / "file") as file, running("05_lines.py", stdin=file) as example:
        *lines, last = example.end()
    assert lines == [f"stdin: {line}" for line in text.split("\n")]
    assert last == "4 lines from stdin"


def test_lines_as_they_come():
    with running("05_lines.py", stdin=subprocess.PIPE) as example:
        stdin = example.process.stdin
        for part in (b"one\ntw", b"o\n", b"thr", b"ee\n"):
            stdin.write(part)
            stdin.flush()
        assert [example.line() for _ in range(3)] == ["stdin: one", "stdin: two", "stdin: three"]
        stdin.close()
        example.process.stdin = None
        assert example.end() == ["3 lines from stdin"]


def test_lines_of_a_terminal():
    master, slave = os.openpty()
    try:
        with running("05_lines.py", "seq", "1", stdin=slave) as example:
            assert example.line() == "seq: 1"
            os.write(master, b"typed\n")
            assert example.line() == "stdin: typed"
            os.write(master, b"\x04")  # Ctrl-D
            assert example.end() == ["1 lines from stdin, 1 lines from seq"]
    finally:
        os.close(master)
        os.close(slave)


def test_lines_nobody_reads():
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE, env=foreign()) as source:
        with running("05_lines.py", stdin=source.stdout) as example:
            assert example.line() == "stdin: y"
            example.process.stdout.close()
            assert example.process.wait(timeout=BOUND) == -signal.SIGPIPE
            assert example.process.stderr.read() == b""
            example.process.stderr.close()
        source.kill()
