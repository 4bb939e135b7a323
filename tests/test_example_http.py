"""The HTTP server of the examples, driven by curl, wrk and nc."""

import hashlib
import os
import random
import re
import signal
import socket
from pathlib import Path

import pytest
from _example import BOUND, nc, run, running
from _fault import wait_until

PAGE = b"<!DOCTYPE html>\n<title>A page</title>\n"


@pytest.fixture
def folder(tmp_path):
    """A folder to serve, with a secret beside it."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    folder = tmp_path / "www"
    (folder / "sub folder").mkdir(parents=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "sub folder" / "index.html").write_bytes(b"below")
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_bytes(b"")
    (folder / "größe 100%.txt").write_bytes("größe".encode())
    (folder / "data.tar.gz").write_bytes(b"\x1f\x8b")
    (folder / "medium.bin").write_bytes(bytes(1 << 20))
    (folder / "big.bin").write_bytes(random.Random(3).randbytes(16 << 20))
    (folder / "inside.html").symlink_to("index.html")
    (folder / "outside.txt").symlink_to("../secret.txt")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture
def http(nothing_left, folder):
    with running("02_http_files.py", "--port", 0, folder) as example:
        example.base = f"http://127.0.0.1:{example.port()}"
        yield example


def curl(http, *options, path="/"):
    """What curl gets: the status, the headers by their names in lower case, the body."""
    answer = run("curl", "-sS", "-i", "--max-time", BOUND, "--path-as-is", *options, http.base + path)
    # What curl was told first, such as "100 Continue", stands before the answer.
    while re.match(rb"HTTP/1\.1 1\d\d ", answer):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


def test_http_file(http):
    status, headers, body = curl(http, path="/index.html")
    assert (status, body) == (200, PAGE)
    assert headers["content-length"] == str(len(PAGE))
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["last-modified"].endswith("GMT")
    assert headers["date"].endswith("GMT")
    assert http.end(signal.SIGINT) == []


@pytest.mark.parametrize("path", ["/", "/?query", "/index.html?a=/..", "//index.html", "/%69ndex.html", "/inside.html"])
def test_http_names_of_one_page(http, path):
    assert curl(http, path=path)[::2] == (200, PAGE)


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/gr%C3%B6%C3%9Fe%20100%25.txt", "text/plain; charset=utf-8", "größe".encode()),
        ("/empty.txt", "text/plain; charset=utf-8", b""),
        ("/data.tar.gz", "application/octet-stream", b"\x1f\x8b"),
        ("/sub%20folder/", "text/html; charset=utf-8", b"below"),
    ],
)
def test_http_kinds(http, path, kind, body):
    status, headers, got = curl(http, path=path)
    assert (status, got, headers["content-type"]) == (200, body, kind)


def test_http_head(http):
    status, headers, body = curl(http, "-I", path="/index.html")
    assert (status, headers["content-length"], body) == (200, str(len(PAGE)), b"")
    status, headers, body = curl(http, "-I", path="/none")
    assert (status, body) == (404, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/none.html",
        "/none/",
        "/index.html/",
        "/index.html/more",
        "/empty/",
        "/fifo",
        "/circle",
        "/%00",
        "/" + 300 * "x",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/sub%20folder/../../secret.txt",
        "/outside.txt",
        "//etc/passwd",
        "/%2Fetc/passwd",
        "/../../../../../../../../etc/passwd",
        "/../www2",
    ],
)
def test_http_not_found(http, path):
    (Path(f"{http.process.args[-1]}2")).write_bytes(b"a neighbour whose name begins the same")
    status, headers, body = curl(http, path=path)
    assert (status, body, headers["content-type"]) == (404, b"404 Not Found\n", "text/plain; charset=utf-8")


def test_http_folder_without_slash(http):
    status, headers, _ = curl(http, path="/sub%20folder")
    assert (status, headers["location"]) == (301, "/sub%20folder/")
    # Not "//...", which would be another host.
    assert curl(http, path="//sub%20folder")[1]["location"] == "/sub%20folder/"
    assert run("curl", "-sS", "-L", f"{http.base}/sub%20folder") == b"below"


def test_http_other_methods(http):
    for options in (["-d", "some data"], ["-X", "DELETE"], ["-X", "PUT", "-d", "x" * 100_000]):
        status, headers, _ = curl(http, *options)
        assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_http_offers_of_other_protocols_are_not_taken(http):
    assert curl(http, "--http2")[::2] == (200, PAGE)
    requests = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
    assert nc(http.base.rpartition(":")[2], requests).count(b"HTTP/1.1 405 ") == 2
    assert http.end(signal.SIGINT) == []


def test_http_whole_url_as_target(http):
    for target, status in (
        (b"http://a/index.html", b"200"),
        (b"HTTP://a", b"200"),
        (b"http://a/../secret.txt", b"404"),
    ):
        answer = nc(http.base.rpartition(":")[2], b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)


def test_http_body_of_a_get_is_of_no_interest(http, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(3_000_000))
    for options in ([], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]):
        assert curl(http, "-X", "GET", "-T", upload, *options, path="/index.html")[::2] == (200, PAGE)


def test_http_large_file(http, folder):
    status, headers, body = curl(http, path="/big.bin")
    assert (status, headers["content-length"]) == (200, str(16 << 20))
    assert hashlib.sha256(body).digest() == hashlib.sha256((folder / "big.bin").read_bytes()).digest()


def test_http_keeps_the_connection(http):
    url = f"{http.base}/index.html"
    answer = run("curl", "-sS", "-w", "%{num_connects}\n", url, url, url)
    assert answer == PAGE + b"1\n" + PAGE + b"0\n" + PAGE + b"0\n"


def test_http_closes_when_asked(http):
    for option in ("--http1.0", "-HConnection: close"):
        answer = run("curl", "-sS", "-o/dev/null", option, "-w", "%{num_connects} ", http.base, http.base)
        assert answer.split()[0] == b"1"
        status, headers, body = curl(http, option)
        assert (status, headers["connection"], body) == (200, "close", PAGE)


def test_http_pipelining(http):
    paths = ["index.html", "none", "sub%20folder/", "big.bin", "empty.txt", "index.html"]
    requests = [f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths]
    answer = nc(http.base.rpartition(":")[2], "".join(requests).encode())
    bodies = [PAGE, b"404 Not Found\n", b"below", random.Random(3).randbytes(16 << 20), b"", PAGE]
    for body in bodies:
        head, _, answer = answer.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        assert answer[: len(body)] == body
        answer = answer[len(body) :]
    assert answer == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(100_000).replace(b"\0", b"x") + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
    ids=["nonsense", "no host", "bad length", "huge header", "cut short", "bad chunk"],
)
def test_http_bad_requests(http, request_, status):
    answer = nc(http.base.rpartition(":")[2], request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer
    assert http.end(signal.SIGINT) == []


def test_http_file_that_shrinks_ends_the_connection(http, folder):
    host, port = "127.0.0.1", int(http.base.rpartition(":")[2])
    with socket.create_connection((host, port), timeout=BOUND) as client:
        client.sendall(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        os.truncate(folder / "big.bin", 1)
        size = 0
        while data := client.recv(1 << 20):
            size += len(data)
        assert size < 16 << 20
    assert http.end(signal.SIGINT) == []


def test_http_leaves_no_fd(http):
    before = http.fds()
    for path in ("/", "/none", "/big.bin", "/fifo", "/empty.txt", "/sub%20folder"):
        curl(http, path=path)
        curl(http, "-I", path=path)
    # curl gives up in the middle.
    run("curl", "-sS", "-o/dev/null", "--limit-rate", "1", "--max-time", "0.2", f"{http.base}/big.bin", status=28)
    wait_until(lambda: http.fds() == before)
    assert http.end(signal.SIGINT) == []


@pytest.mark.parametrize("path", ["/index.html", "/medium.bin"])
def test_http_under_load(http, path):
    before = http.fds()
    output = run("wrk", "-t", 1, "-c", 50, "-d", "3s", "--timeout", "30s", http.base + path).decode()
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output
    assert int(re.search(r"(\d+) requests in", output)[1]) > 50, output
    wait_until(lambda: http.fds() == before)
    assert http.end(signal.SIGINT) == []
