"""A server for a proxy to stand in front of: on http.server, with answers that tell what it was asked, and all faults.

    python tests/_backend.py HOST PORT NAME

It prints a line for each connection and each request. A line that it reads lets one request of /wait go on.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

HOST, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
BLOCK = 1 << 16

turnstile = threading.Semaphore(0)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.asked = 0
        print("connection", flush=True)

    def body(self):
        """The body of the request, piece by piece."""
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, BLOCK))
            left -= len(piece)
            yield piece
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

    def answer(self, body, *headers):
        self.send_response(200)
        for name, value in (("Content-Length", str(len(body))), ("X-Server", NAME), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do(self):
        self.asked += 1
        what, _, argument = self.path[1:].partition("?")
        print(self.command, self.path, flush=True)
        getattr(self, f"do_{what or 'name'}")(unquote(argument))

    do_GET = do_HEAD = do_POST = do_PUT = do

    def log_message(self, *arguments):
        pass

    def do_name(self, argument):
        self.answer(NAME.encode())

    def do_head(self, argument):
        """What came: the request line and the headers."""
        for _ in self.body():
            pass
        self.answer(json.dumps([self.requestline, *self.headers.items()]).encode(), ("Keep-Alive", "timeout=5"))

    def do_hash(self, argument):
        """The length of the body, and its hash."""
        total, hashed = 0, hashlib.sha256()
        for piece in self.body():
            total += len(piece)
            hashed.update(piece)
        self.answer(f"{total} {hashed.hexdigest()}".encode())

    def do_old(self, argument):
        """An answer without a length, which ends with the connection."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"old " * 100_000)
        self.close_connection = True

    def do_wait(self, argument):
        """An answer that takes until the test says so."""
        turnstile.acquire()
        self.do_hash(argument)

    def do_hang(self, argument):
        """No answer, or one that does not go on."""
        if argument:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        threading.Event().wait()

    def do_die(self, argument):
        """The first one to be asked dies, at once or within an answer."""
        try:
            os.unlink(argument)
        except FileNotFoundError:
            self.answer(NAME.encode())
            return
        die()

    def do_half(self, argument):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        die()

    def do_drop(self, argument):
        """A connection that was used before is closed."""
        if self.asked > 1:
            self.close_connection = True
        else:
            self.do_hash(argument)

    def do_nonsense(self, argument):
        self.wfile.write(b"nonsense\r\n\r\n")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def read_lines():
    for _ in sys.stdin:
        turnstile.release()


threading.Thread(target=read_lines, daemon=True).start()
server = Server((HOST, PORT), Handler)
assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
print(f"listening on {HOST}:{server.server_port}", flush=True)
server.serve_forever()
