"""The reverse proxy of the examples in front of real servers, some of which die, driven by curl, wrk and nc."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from _example import BOUND, foreign, nc, run, running
from _fault import IS_SANITIZED, wait_asleep, wait_until
from _net import silence
from _support import scaled

BACKEND = Path(__file__).parent / "_backend.py"
# An address of the loopback network for the servers of this process alone: a port stays free while its server is dead.
HOST = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


class Backend:
    """A server in a process of its own, which may be killed and started again on the same port."""

    def __init__(self, stack, *command):
        self.stack, self.command = stack, command
        self.number = 0
        self.start()

    def start(self):
        words = [str(self.number) if word == "PORT" else word for word in self.command]
        self.example = self.stack.enter_context(running(*words, stdin=subprocess.PIPE))
        self.number = self.example.port()

    @property
    def address(self):
        return f"{HOST}:{self.number}"

    @property
    def pid(self):
        return self.example.pid

    def kill(self):
        self.example.process.kill()
        self.died()

    def died(self):
        assert self.example.process.wait(timeout=BOUND) == -signal.SIGKILL

    def let_go(self):
        """One request of /wait is answered."""
        self.example.process.stdin.write(b"\n")
        self.example.process.stdin.flush()

    def asked(self, line):
        """Wait for a request, given as it is printed. Returns what was printed before."""
        before = []
        while (printed := self.example.line()) != line:
            assert printed is not None, before
            before.append(printed)
        return before

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextlib.contextmanager
def proxied(*commands, options=()):
    """The proxy in front of a server for each command; the servers are its attribute `servers`."""
    with contextlib.ExitStack() as stack:
        servers = [Backend(stack, *command) for command in commands]
        addresses = [server.address for server in servers]
        example = stack.enter_context(
            running("22_reverse_proxy.py", "--pause", 0.05, *options, "127.0.0.1:0", *addresses)
        )
        example.number = example.port()
        example.base = f"http://127.0.0.1:{example.number}"
        example.servers = servers
        example.at_first = example.fds()
        yield example


def of_python(name):
    return str(BACKEND), HOST, "PORT", name


OF_H11 = ("16_http_h11.py", "--host", HOST, "--port", "PORT")


@pytest.fixture
def proxy(nothing_left):
    """In front of two servers that tell who they are and what they were asked."""
    with proxied(of_python("a"), of_python("b")) as example:
        yield example


@pytest.fixture
def alone(nothing_left):
    """In front of a single one."""
    with proxied(of_python("a")) as example:
        yield example


@pytest.fixture
def echoing(nothing_left):
    """In front of two that send back what they get."""
    with proxied(OF_H11, OF_H11) as example:
        yield example


def curl(example, path, *options, status=0):
    return run("curl", "-sS", "--max-time", BOUND, *options, example.base + path, status=status)


def ended(example, *lines):
    """The proxy has nothing to do any more, and ends when it is told to."""
    assert example.end(signal.SIGTERM) == [*lines, "SIGTERM: finishing 0 requests"]


# -- Messages ----------------------------------------------------------------------------------------------------------


def test_proxy_answers(proxy):
    answer = curl(proxy, "/name", "-i")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nVia: 1.1 " in head
    assert body in (b"a", b"b")
    ended(proxy)


def test_proxy_takes_turns(proxy):
    """Those who are equally busy are asked in turn, over connections that are kept on both sides."""
    output = curl(proxy, "/name?[1-40]", "-w", " %{num_connects}\\n").decode()
    names, connects = zip(*(line.split() for line in output.splitlines()), strict=True)
    assert names in (("a", "b") * 20, ("b", "a") * 20)
    assert connects == ("1",) + 39 * ("0",)
    for server in proxy.servers:
        first = "GET /name?39" if server.number == proxy.servers[0].number else "GET /name?40"
        before = server.asked(first)
        assert Counter(before)["connection"] == 1
    ended(proxy)


def test_proxy_spares_the_busy(proxy):
    waiting = subprocess.Popen(["curl", "-sS", f"{proxy.base}/wait"], stdout=subprocess.PIPE, env=foreign())
    busy, _ = proxy.servers
    busy.asked("GET /wait")
    assert curl(proxy, "/name?[1-20]") == 20 * b"b"
    busy.let_go()
    assert waiting.communicate(timeout=BOUND)[0].startswith(b"0 ")
    assert sorted(curl(proxy, "/name?[1-2]").decode()) == ["a", "b"]
    ended(proxy)


def test_proxy_head(proxy):
    assert b"\r\nContent-Length: 1\r\n" in curl(proxy, "/name", "-I")
    # What comes next on the same connection is not disturbed.
    answers = curl(proxy, "/name", "-I", f"{proxy.base}/name", "--next", "-sS", "-w", " %{num_connects}")
    assert answers.count(b"HTTP/1.1 200 OK") == 1
    assert re.search(rb"\r\n\r\n[ab] 0$", answers)
    ended(proxy)


def test_proxy_passes_headers_on(alone):
    sent = {
        "X-Mine": "kept",
        "X-Named": "dropped",
        "Connection": "X-Named, Content-Length, keep-alive",
        "Keep-Alive": "timeout=1",
        "TE": "trailers",
        "Proxy-Connection": "keep-alive",
        "Upgrade": "nothing",
        "X-Forwarded-For": "192.0.2.1",
        "Via": "1.0 before",
        "Host": "somewhere:1",
    }
    words = [word for name, value in sent.items() for word in ("-H", f"{name}: {value}")]
    answer = curl(alone, "/head?a=b", "-i", *words)
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert "keep-alive" not in head.lower()
    line, *came = json.loads(body)
    assert line == "GET /head?a=b HTTP/1.1"
    came = [tuple(pair) for pair in came if pair[0] not in ("User-Agent", "Accept")]
    assert sorted(came) == [
        ("Host", "somewhere:1"),
        ("Via", "1.0 before"),
        ("Via", "1.1 linux_event"),
        ("X-Forwarded-For", "192.0.2.1, 127.0.0.1"),
        ("X-Mine", "kept"),
    ]
    # A body does not lose its length, whatever Connection says of it.
    assert curl(alone, "/hash", "-d", "body", "-H", "Connection: Content-Length").startswith(b"4 ")
    ended(alone)


def test_proxy_passes_one_length_on(alone):
    """A body in chunks has no other length, or servers could be led to believe that a part of it is the next request."""
    request = b"POST /head HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    _, *came = json.loads(nc(alone.number, request).partition(b"\r\n\r\n")[2])
    assert ["Transfer-Encoding", "chunked"] in came
    assert "content-length" not in {name.lower() for name, _ in came}
    ended(alone)


def test_proxy_and_old_clients(alone):
    answer = nc(alone.number, b"GET /head HTTP/1.0\r\n\r\n").decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert "\r\nConnection: close" in head
    names = dict(json.loads(body)[1:])
    assert names["Host"] == f"127.0.0.1:{alone.number}"
    assert names["Via"] == "1.0 linux_event"
    ended(alone)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_proxy_and_answers_without_a_length(echoing, version):
    body = "".join(f"{number}\n" for number in range(1, 100_001)).encode()
    answer = curl(echoing, "/count/100000", version, "-i")
    assert answer.endswith(b"\r\n\r\n" + body)
    assert (b"Transfer-Encoding: chunked" in answer) == (version == "--http1.1")
    ended(echoing)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_proxy_and_old_servers(alone, version):
    assert curl(alone, "/old", version) == b"old " * 100_000
    ended(alone)


@pytest.mark.parametrize("size", [0, 1, 100_000, 16 << 20])
@pytest.mark.parametrize("header", ["X: length", "Transfer-Encoding: chunked", "Expect: 100-continue"])
def test_proxy_carries_bodies(echoing, tmp_path, size, header):
    size = scaled(size, min(size, 1 << 20))
    body = random.Random(size).randbytes(size)
    (tmp_path / "body").write_bytes(body)
    options = ("--data-binary", f"@{tmp_path / 'body'}", "-H", header)
    assert curl(echoing, "/echo", *options) == body
    # The server may answer before it has got everything. The rest of the body is forgotten, and the client goes on.
    answer = curl(echoing, "/none", *options, f"{echoing.base}/", "-i")
    assert re.findall(rb"HTTP/1.1 ([45]..) ", answer) == [b"405", b"404"]
    ended(echoing)


def test_proxy_passes_100_on(echoing, tmp_path):
    (tmp_path / "body").write_bytes(b"body")
    options = ("-i", "-X", "POST", "-T", tmp_path / "body", "-H", "Expect: 100-continue", "--expect100-timeout", BOUND)
    assert re.match(rb"HTTP/1.1 100 .*\r\n\r\nHTTP/1.1 200 ", curl(echoing, "/echo", *options), re.DOTALL)
    # Who has been told the end of it before he was to go on may do so or not: it is unknown what he says next.
    assert b"\r\nConnection: close\r\n" in curl(echoing, "/none", *options)
    ended(echoing)


def test_proxy_many_requests_at_once(proxy):
    """One after the other, on one connection, without waiting for answers."""
    count = scaled(500, 20)
    asked = b"".join(b"GET /head?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count))
    answers = nc(proxy.number, asked)
    assert re.findall(rb"GET /head\?(\d+) HTTP", answers) == [b"%d" % number for number in range(count)]
    ended(proxy)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"POST /hash HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nzz\r\n", b"501"),
        (b"POST /hash HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST /hash HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", b"400"),
    ],
    ids=["nonsense", "no host", "huge header", "tunnel", "coding", "bad chunk", "cut short"],
)
def test_proxy_and_bad_requests(proxy, request_, status):
    assert nc(proxy.number, request_).startswith(b"HTTP/1.1 " + status)
    assert curl(proxy, "/name") in (b"a", b"b")
    ended(proxy)


# -- Servers that fail -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_proxy_loses_nothing_when_a_server_dies(echoing):
    """Under load; and the server is asked again when it has come back."""
    at_rest = max(server.example.fds() for server in echoing.servers)  # while nobody is connected
    command = ["wrk", "-t", "1", "-c", "20", "-d", "600s", "--timeout", f"{BOUND}s", f"{echoing.base}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=foreign()) as wrk:
        try:
            for server in echoing.servers:
                wait_until(lambda server=server: server.fds() > at_rest + 2)
                server.kill()
                assert f"server {server.address} is down: " in echoing.line()
                server.start()
                assert echoing.line() == f"server {server.address} is back"
                wait_until(lambda server=server: server.fds() > at_rest + 2)
            wrk.send_signal(signal.SIGINT)
            output = wrk.communicate(timeout=BOUND)[0].decode()
        finally:
            wrk.kill()
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output
    assert int(re.search(r"(\d+) requests in", output)[1]) > 20, output
    # Requests that wrk has no longer waited for are finished, too.
    [line] = echoing.end(signal.SIGTERM)
    assert re.fullmatch(r"SIGTERM: finishing \d+ requests", line)


def test_proxy_without_servers(proxy):
    """502 while all are dead; and the first one to come back does the work."""
    for server in proxy.servers:
        server.kill()
    answer = curl(proxy, "/name", "-i")
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert answer.endswith(b"\r\n\r\n502 Bad Gateway\nNo server can be reached.\n")
    assert curl(proxy, "/name", "-I").startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert curl(proxy, "/name", "-d", "x" * 100_000).startswith(b"502 ")
    assert {proxy.line().partition(" is down: ")[0] for _ in range(2)} == {
        f"server {server.address}" for server in proxy.servers
    }
    proxy.servers[1].start()
    assert proxy.line() == f"server {proxy.servers[1].address} is back"
    assert curl(proxy, "/name?[1-5]") == b"bbbbb"
    assert curl(proxy, "/hash", "-d", "body").startswith(b"4 ")
    ended(proxy)


def test_proxy_leaves_out_who_is_down(nothing_left):
    """Until a connection succeeds again; the time for that is far away here."""
    with proxied(of_python("a"), of_python("b"), options=("--pause", 10 * BOUND)) as example:
        first, _ = example.servers
        first.kill()
        assert curl(example, "/name") == b"b"
        assert f"server {first.address} is down: " in example.line()
        first.start()
        assert curl(example, "/name?[1-20]") == 20 * b"b"
        ended(example)


@pytest.mark.parametrize(
    ("options", "is_repeated"),
    [
        ((), True),
        (("-I",), True),
        (("-X", "PUT"), True),
        (("-X", "PUT", "-d", "body"), False),
        (("-X", "POST"), False),
        (("-d", "body"), False),
    ],
    ids=["GET", "HEAD", "PUT without a body", "PUT", "POST without a body", "POST"],
)
def test_proxy_repeats_what_may_be_repeated(proxy, tmp_path, options, is_repeated):
    """One server dies of the request. Another one gets it, if nothing can have been done twice."""
    victim = tmp_path / "victim"
    victim.touch()
    answer = curl(proxy, f"/die?{victim}", *([] if "-I" in options else ["-i"]), *options)
    dead, alive = proxy.servers
    dead.died()
    if is_repeated:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nX-Server: b\r\n" in answer
    else:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"ended the connection before" in answer
        # What has not been sent yet can go anywhere.
        assert curl(proxy, "/name?[1-2]", *options) == b"bb"
        assert alive.asked("PUT /name?1" if "PUT" in options else "POST /name?1") == ["connection"]
    proxy.process.send_signal(signal.SIGTERM)
    proxy.end()


@pytest.mark.parametrize("options", [(), ("-d", "body"), ("-d", "body", "-X", "PUT")], ids=["GET", "POST", "PUT"])
def test_proxy_and_connections_that_are_closed_while_they_are_not_used(alone, options):
    """The server closes a connection that was kept at the moment when it gets a request."""
    for _ in range(3):
        assert curl(alone, "/name") == b"a"
        assert curl(alone, "/drop", *options).startswith(b"4 " if options else b"0 ")
    ended(alone)


@pytest.mark.parametrize(
    ("path", "timeout"), [("/half", BOUND), ("/hang?begun", 2)], ids=["server dies", "server hangs"]
)
def test_proxy_and_answers_that_stop(nothing_left, path, timeout):
    """The client is told in the only way that is left: its answer stops."""
    with proxied(of_python("a"), options=("--timeout", timeout)) as example:
        assert curl(example, path, status=18) == b"begun"
        ended(example)


def test_proxy_and_answers_that_do_not_come(nothing_left):
    with proxied(of_python("a"), options=("--timeout", 2)) as example:
        answer = curl(example, "/hang", "-i")
        assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert answer.endswith(b"\r\n\r\n504 Gateway Timeout\nThe server did not answer in time.\n")
        assert curl(example, "/name") == b"a"
        ended(example)


def test_proxy_and_connections_that_do_not_come(nothing_left):
    with silence(HOST) as address:
        arguments = ("--timeout", 0.2, "--pause", BOUND, "127.0.0.1:0", "{}:{}".format(*address))
        with running("22_reverse_proxy.py", *arguments) as example:
            example.base = f"http://127.0.0.1:{example.port()}"
            answer = curl(example, "/")
            assert answer == b"504 Gateway Timeout\nNo server can be reached.\n"
            assert "is down: " in example.line()
            assert example.end(signal.SIGTERM) == ["SIGTERM: finishing 0 requests"]


def test_proxy_and_nonsense_of_servers(proxy):
    assert curl(proxy, "/nonsense").startswith(b"502 Bad Gateway\n")
    assert curl(proxy, "/name?[1-2]") in (b"ab", b"ba")
    ended(proxy)


# -- Slow ones ---------------------------------------------------------------------------------------------------------


def peak(example):
    """The most memory that the example has had, in bytes."""
    with open(f"/proc/{example.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) << 10


def stalled(*processes):
    """Wait until all of them have slept for a while: nothing goes on any more."""
    for _ in range(20):
        for pid in processes:
            wait_asleep(pid)


def test_proxy_and_a_slow_client(nothing_left, tmp_path):
    """It gets every byte, and what it does not take yet is left to the server."""
    size = scaled(100 << 20, 24 << 20)
    block = random.Random(1).randbytes(1 << 20)
    with open(tmp_path / "big.bin", "wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(4, "big") + block[4:])
    with proxied(("02_http_files.py", "--host", HOST, "--port", "PORT", str(tmp_path))) as example:
        assert curl(example, "/big.bin", "-r", "0-10", "-o", "/dev/null") == b""
        before = peak(example)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.settimeout(BOUND)
            client.connect(("127.0.0.1", example.number))
            client.sendall(b"GET /big.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            stalled(example.pid, example.servers[0].pid)
            with client.makefile("rb") as stream:
                while stream.readline() != b"\r\n":
                    pass
                for number in range(size >> 20):
                    assert stream.read(1 << 20) == number.to_bytes(4, "big") + block[4:]
                assert stream.read() == b""
        assert IS_SANITIZED or peak(example) - before < 8 << 20  # a sanitizer keeps what was freed
        ended(example)


def test_proxy_and_a_slow_server(alone):
    """It takes the body of a request when it is told to, and until then it is left to the client."""
    size = scaled(64 << 20, 24 << 20)
    body = random.Random(2).randbytes(size)
    assert curl(alone, "/hash", "-d", "x").startswith(b"1 ")
    before = peak(alone)
    with socket.create_connection(("127.0.0.1", alone.number), timeout=BOUND) as client:
        client.sendall(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=client.sendall, args=(body,))
        sender.start()
        alone.servers[0].asked("POST /wait")
        stalled(alone.pid)
        assert sender.is_alive()
        alone.servers[0].let_go()
        sender.join(BOUND)
        assert not sender.is_alive()
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            answer = stream.read()
    assert answer.endswith(f"\r\n\r\n{size} {hashlib.sha256(body).hexdigest()}".encode())
    assert IS_SANITIZED or peak(alone) - before < 8 << 20
    ended(alone)


def test_proxy_and_clients_that_give_up(alone):
    """Their servers are told."""
    for path in ("/wait", "/hang", "/hang?begun"):
        with socket.create_connection(("127.0.0.1", alone.number), timeout=BOUND) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            alone.servers[0].asked(f"GET {path}")
            # Closing with a linger time of zero is a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: alone.fds() == alone.at_first)
    ended(alone)


# -- The end -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_at_work(example):
    """A request that takes until the server is let go; and a client that has nothing to ask any more."""
    with socket.create_connection(("127.0.0.1", example.number), timeout=BOUND) as idle:
        idle.sendall(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
        command = ["curl", "-sSi", f"{example.base}/wait"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=foreign()) as curl:
            try:
                example.servers[0].asked("GET /wait")
                yield idle, curl
            finally:
                curl.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_proxy_finishes_what_it_has_begun(alone, signum):
    with one_at_work(alone) as (idle, curl):
        alone.process.send_signal(signum)
        assert alone.line() == f"{signum.name}: finishing 1 requests"
        # Who has nothing to ask is sent away, and nobody comes in. The kernel lets go of the socket when the callback is over.
        while idle.recv(1000):
            pass
        wait_until(lambda: run_status("nc", "-z", "127.0.0.1", alone.number) == 1)
        alone.servers[0].let_go()
        answer, _ = curl.communicate(timeout=BOUND)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        idle.close()
        assert alone.end() == []


def run_status(*command):
    return subprocess.run([str(word) for word in command], timeout=BOUND, env=foreign()).returncode


def test_proxy_ends_at_once_at_a_second_signal(alone):
    with one_at_work(alone) as (_, curl):
        alone.process.send_signal(signal.SIGTERM)
        assert alone.line() == "SIGTERM: finishing 1 requests"
        assert alone.end(signal.SIGINT, status=1) == ["SIGINT again: ending at once"]
        curl.communicate(timeout=BOUND)
        assert curl.returncode == 52


def test_proxy_waits_so_long_for_the_last_requests(nothing_left):
    with proxied(of_python("a"), options=("--grace", 0.1)) as example, one_at_work(example) as (_, curl):
        assert example.end(signal.SIGTERM, status=1) == ["SIGTERM: finishing 1 requests"]
        curl.communicate(timeout=BOUND)
        assert curl.returncode == 52
