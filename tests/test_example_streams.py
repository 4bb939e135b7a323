"""The examples of streams: the echo server, HTTP over h11, and the chat room, driven by nc, curl and wrk."""

import contextlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from _example import BOUND, foreign, nc, run, running
from _fault import wait_until

# -- 15: the echo server on streams ------------------------------------------------------------------------------------


@pytest.fixture
def echo(nothing_left):
    with running("15_stream_echo.py", "--port", 0) as example:
        yield example


@pytest.mark.parametrize("size", [1, 6, 100_000, 8 << 20])
def test_echo(echo, size):
    data = random.Random(size).randbytes(size)
    assert nc(echo.port(), data) == data
    assert echo.end(signal.SIGINT) == []


def test_echo_to_a_client_that_reads_late(echo):
    """More than all buffers hold: the server stops reading, so the client cannot send all before it reads."""
    data = random.Random(2).randbytes(16 << 20)
    with socket.create_connection(("127.0.0.1", echo.port()), timeout=BOUND) as client:
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += client.send(data[sent : sent + (1 << 16)])
        assert 0 < sent < len(data)
        # What the server holds itself is little beside that.
        with open(f"/proc/{echo.pid}/status") as status:
            resident = int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1])
        assert resident < 200_000
        client.settimeout(BOUND)
        rest = threading.Thread(target=lambda: (client.sendall(data[sent:]), client.shutdown(socket.SHUT_WR)))
        rest.start()
        with client.makefile("rb") as stream:
            assert stream.read() == data
        rest.join()
    assert echo.end(signal.SIGINT) == []


def test_echo_to_many_at_a_time(echo):
    port = echo.port()
    before = echo.fds()
    blocks = [random.Random(number).randbytes(100_000) for number in range(20)]
    clients = [
        subprocess.Popen(
            ["nc", "-N", "127.0.0.1", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=foreign()
        )
        for _ in blocks
    ]
    for client, block in zip(clients, blocks, strict=True):
        assert client.communicate(block, timeout=BOUND)[0] == block
    wait_until(lambda: echo.fds() == before)
    assert echo.end(signal.SIGINT) == []


def test_echo_tells_of_a_reset(echo):
    port = echo.port()
    before = echo.fds()
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        # Closing with a linger time of zero is a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert "connection lost: [Errno 104]" in echo.line()
    wait_until(lambda: echo.fds() == before)
    assert nc(port, b"still there") == b"still there"
    assert echo.end(signal.SIGINT) == []


def test_echo_ends_silent_clients(nothing_left):
    with running("15_stream_echo.py", "--port", 0, "--idle", 0.1) as example:
        # nc ends when the server closes.
        client = subprocess.Popen(["nc", "-d", "127.0.0.1", str(example.port())], env=foreign())
        assert "connection lost: [Errno 110]" in example.line()
        assert client.wait(BOUND) == 0
        assert example.end(signal.SIGINT) == []


def test_echo_ends_while_clients_are_there(echo):
    with socket.create_connection(("127.0.0.1", echo.port()), timeout=BOUND) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert echo.end(signal.SIGINT) == []
        assert client.recv(1) == b""


def test_echo_on_a_path(nothing_left, tmp_path):
    path = tmp_path / "echo.sock"
    for signum in (signal.SIGKILL, signal.SIGINT):
        with running("15_stream_echo.py", "--port", 0, "--path", path) as example:
            port = example.port()
            assert example.line() == f"listening on {path}"
            assert run("nc", "-N", "-U", path, data=b"by path") == b"by path"
            assert nc(port, b"by port") == b"by port"
            # What the first one leaves behind does not stop the second one.
            example.end(signum, status=-signal.SIGKILL if signum == signal.SIGKILL else 0)
        assert path.exists() is (signum == signal.SIGKILL)


# -- 16: HTTP over h11 -------------------------------------------------------------------------------------------------


@pytest.fixture
def http(nothing_left):
    with running("16_http_h11.py", "--port", 0) as example:
        example.number = example.port()
        example.base = f"http://127.0.0.1:{example.number}"
        yield example


def curl(http, *options, path="/", status=0):
    """What curl gets: the status, the headers by their names in lower case, the body."""
    answer = run("curl", "-sS", "-i", "--max-time", BOUND, *options, http.base + path, status=status)
    # What curl was told first, such as "100 Continue", stands before the answer.
    while re.match(rb"HTTP/1\.1 1\d\d ", answer):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


def numbers(limit):
    return b"".join(b"%d\n" % number for number in range(1, limit + 1))


def test_http_get_and_head(http):
    status, headers, body = curl(http)
    assert (status, body, headers["content-length"]) == (200, b"It works.\n", "10")
    assert headers["date"].endswith("GMT")
    status, headers, body = curl(http, "-I")
    assert (status, body, headers["content-length"]) == (200, b"", "10")
    assert http.end(signal.SIGINT) == []


@pytest.mark.parametrize("limit", [0, 1, 1000, 1_000_000])
@pytest.mark.parametrize("option", ["--http1.1", "--http1.0"])
def test_http_body_of_unknown_length(http, limit, option):
    status, headers, body = curl(http, option, path=f"/count/{limit}")
    assert (status, body) == (200, numbers(limit))
    assert ("transfer-encoding" in headers) == (option == "--http1.1")
    assert curl(http, option, "-I", path=f"/count/{limit}")[2] == b""


@pytest.mark.parametrize(
    ("options", "path", "status", "allow"),
    [
        ([], "/none", 404, None),
        ([], "/count/x", 400, None),
        ([], "/count/-1", 400, None),
        ([], "/count/" + "9" * 13, 400, None),
        (["-I"], "/none", 404, None),
        (["-d", "x"], "/", 405, "GET, HEAD"),
        (["-X", "PUT", "-d", "x" * 100_000], "/", 405, "GET, HEAD"),
        ([], "/echo", 405, "POST, PUT"),
    ],
)
def test_http_refusals(http, options, path, status, allow):
    got, headers, body = curl(http, *options, path=path)
    assert (got, headers.get("allow")) == (status, allow)
    assert body.startswith(b"" if options == ["-I"] else b"%d " % status)


@pytest.mark.parametrize("size", [1, 1 << 20, 8 << 20])
@pytest.mark.parametrize("header", ["X: y", "Transfer-Encoding: chunked", "Expect: 100-continue", "Expect:"])
def test_http_echo_of_a_body(http, tmp_path, size, header):
    upload = tmp_path / "upload"
    upload.write_bytes(random.Random(size).randbytes(size))
    status, headers, body = curl(http, "-X", "POST", "-T", upload, "-H", header, path="/echo")
    assert (status, body) == (200, upload.read_bytes())
    assert ("content-length" in headers) == ("chunked" not in header)
    assert http.end(signal.SIGINT) == []


def test_http_echo_of_a_form(http):
    status, headers, body = curl(http, "-d", "a=1&b=2", path="/echo")
    assert (status, body) == (200, b"a=1&b=2")
    assert headers["content-type"] == "application/x-www-form-urlencoded"


def test_http_keeps_the_connection(http, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(1 << 20))
    urls = [f"{http.base}{path}" for path in ("/", "/none", "/count/3", "/", "/echo")]
    answer = run("curl", "-sS", "-o/dev/null", "-w", "%{num_connects} %{http_code}\n", urls[0], *urls[1:])
    wanted = b"1 200\n0 404\n0 200\n0 200\n0 405\n"
    assert re.findall(rb"\d \d{3}\n", answer) == re.findall(rb"\d \d{3}\n", wanted)
    answer = run("curl", "-sS", "--data-binary", f"@{upload}", "-w", "%{num_connects}\n", urls[4], urls[4])
    assert answer == upload.read_bytes() + b"1\n" + upload.read_bytes() + b"0\n"
    for options in (["--http1.0"], ["-H", "Connection: close"]):
        assert curl(http, *options)[1]["connection"] == "close"


def test_http_pipelining(http):
    requests = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /none HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    answer = nc(http.number, b"".join(requests))
    heads = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
    assert heads == [b"200", b"200", b"200", b"404", b"404", b"200"]
    assert answer.count(b"It works.\n") == 2
    assert answer.endswith(b"It works.\n")
    assert b"\r\n\r\nhelloHTTP/1.1 200" in answer
    assert http.end(signal.SIGINT) == []


def test_http_of_a_client_that_asks_and_does_not_read(http):
    """Answers that do not fit into the buffers stop the server from taking further requests."""
    # The kernel keeps megabytes of requests: they are long, so that it is not too many of them.
    request = b"GET /count/2000 HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8000 + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", http.number), timeout=1) as client:
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.send(request[sent % len(request) :])
                assert sent < 64 << 20
        asked = sent // len(request)
        client.settimeout(BOUND)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            answers = stream.read()
        # What of the last request was not sent is an error of ours, not of the server.
        assert answers.count(b"HTTP/1.1 200 ") == asked
        assert answers.count(b"\n2000\n") == asked
    assert http.end(signal.SIGINT) == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"405"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"200"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", b"200"),
    ],
    ids=["nonsense", "no host", "huge header", "bad chunk", "bad chunk of an echo", "cut short"],
)
def test_http_bad_requests(http, request_, status):
    before = http.fds()
    answer = nc(http.number, request_)
    # The server may have begun its answer, which is then all that comes, or lost.
    assert answer.startswith(b"HTTP/1.1 " + status) or (status == b"200" and answer == b"")
    wait_until(lambda: http.fds() == before)
    assert http.end(signal.SIGINT) == []


def test_http_offers_of_other_protocols_are_not_taken(http):
    assert curl(http, "--http2")[::2] == (200, b"It works.\n")
    requests = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
    assert len(re.findall(rb"HTTP/1.1 40[45] ", nc(http.number, requests))) == 2


def test_http_clients_that_give_up(http):
    before = http.fds()
    options = ("--limit-rate", "1", "--max-time", "0.2", "-o/dev/null")
    run("curl", "-sS", *options, f"{http.base}/count/10000000", status=28)
    wait_until(lambda: http.fds() == before)
    assert http.end(signal.SIGINT) == []


@pytest.mark.parametrize("path", ["/", "/count/20000"])
def test_http_under_load(http, path):
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    before = http.fds()
    output = run("wrk", "-t", 1, "-c", 50, "-d", "2s", "--timeout", "30s", http.base + path).decode()
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output
    assert int(re.search(r"(\d+) requests in", output)[1]) > 50, output
    wait_until(lambda: http.fds() == before)
    assert http.end(signal.SIGINT) == []


# -- 17: the chat room -------------------------------------------------------------------------------------------------


class Guest:
    """netcat in the chat room."""

    def __init__(self, port, name=None):
        self.nc = subprocess.Popen(
            ["nc", "127.0.0.1", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=foreign(),
        )
        self.rest = b""
        assert self.hear() == "* what is your name?"
        if name is not None:
            self.say(name)
            assert self.hear().startswith("* here: ")

    def say(self, text, end="\n"):
        self.nc.stdin.write(f"{text}{end}".encode())

    def hear(self):
        """The next line."""
        while b"\n" not in self.rest:
            assert select.select([self.nc.stdout], [], [], BOUND)[0]
            piece = self.nc.stdout.read(1 << 16)
            assert piece, "the end"
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def leave(self):
        self.nc.kill()
        self.nc.communicate()


@contextlib.contextmanager
def chat(*names, **options):
    """The chat room, and guests of these names, who have heard of each other."""
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    with running("17_chat.py", "--port", 0, *arguments) as example:
        example.number = example.port()
        example.at_first = example.fds()
        guests = []
        for name in names:
            guest = Guest(example.number, name)
            for other in guests:
                assert other.hear() == f"* {name} has come"
            guests.append(guest)
        try:
            yield example, guests
        finally:
            for guest in guests:
                guest.leave()


def test_chat(nothing_left):
    with chat("ada", "bob", "cleo") as (example, [ada, bob, cleo]):
        ada.say("hello")
        assert bob.hear() == cleo.hear() == "ada: hello"
        bob.say("/who")
        assert bob.hear() == "* here: ada, bob, cleo"
        bob.say("/name robert")
        assert ada.hear() == bob.hear() == cleo.hear() == "* bob is now robert"
        bob.say("grüße \x1b[2J")
        assert ada.hear() == cleo.hear() == "robert: grüße [2J"
        cleo.say("/quit")
        assert cleo.hear() == "* good-bye"
        assert ada.hear() == bob.hear() == "* cleo has left"
        ada.leave()
        assert bob.hear() == "* ada has left"
        bob.say("/help")
        assert bob.hear() == "* /who, /name NAME, /quit"
        assert example.end(signal.SIGINT) == []


def test_chat_names(nothing_left):
    with chat("ada") as (example, [ada]):
        bob = Guest(example.number)
        for name in ("", "two words", "x" * 21, "_a", "/who"):
            bob.say(name)
            assert "up to 20 letters" in bob.hear()
        bob.say("ada")
        assert "somebody has that name" in bob.hear()
        bob.say("bob")
        assert bob.hear() == "* here: ada, bob"
        # Nobody has heard of it before it had a name.
        assert ada.hear() == "* bob has come"
        bob.leave()
        assert ada.hear() == "* bob has left"
        Guest(example.number).leave()
        ada.say("/who")
        assert ada.hear() == "* here: ada"
        ada.leave()
        wait_until(lambda: example.fds() == example.at_first)
        assert example.end(signal.SIGINT) == []


def test_chat_of_pieces_of_lines(nothing_left):
    with chat("ada", "bob") as (example, [ada, bob]):
        for piece in ("a", "b", "c\nd\n", "e", "\n"):
            ada.say(piece, end="")
        assert [bob.hear() for _ in range(3)] == ["ada: abc", "ada: d", "ada: e"]
        ada.say("x" * 5000, end="")
        assert ada.hear() == "* that is too long"
        assert bob.hear() == "* ada has left"
        assert example.end(signal.SIGINT) == []


def test_chat_with_one_who_does_not_read(nothing_left):
    with chat("ada", "bob", limit=100_000) as (example, [ada, bob]):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(BOUND)
            slow.connect(("127.0.0.1", example.number))
            slow.sendall(b"slow\n")
            assert ada.hear() == bob.hear() == "* slow has come"
            heard = []

            def listen():
                while heard[-1:] != ["* slow has left"]:
                    heard.append(bob.hear())

            listener = threading.Thread(target=listen)
            listener.start()
            said = 0
            while listener.is_alive() and said < 100_000:
                ada.say(f"{said} {'x' * 1000}")
                said += 1
                # Bob reads, but may be slower than ada.
                wait_until(lambda said=said: len(heard) >= said - 20 or not listener.is_alive())
            listener.join(BOUND)
            assert not listener.is_alive()
            assert example.line() == "slow does not read, and has to leave"
        # Bob has missed nothing.
        *lines, last = heard
        assert last == "* slow has left"
        assert [line.split()[1] for line in lines] == [str(number) for number in range(len(lines))]
        assert ada.hear() == "* slow has left"
        assert example.end(signal.SIGINT) == []
