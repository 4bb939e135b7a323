"""An HTTP/1.1 server for the files of a folder, with keep-alive and pipelining.

    pip install h11
    python examples/02_http_files.py --port 8080 FOLDER
    curl -i http://127.0.0.1:8080/index.html         # in another terminal
    wrk -c 50 -d 5 http://127.0.0.1:8080/index.html

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it. h11 parses the protocol; the
I/O is done here. Reading a file may wait for the disk, as in most servers that are this small.
"""

import argparse
import contextlib
import email.utils
import http
import io
import mimetypes
import os
import socket
import stat
import sys
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import h11

from linux_event import Events, Loop

BLOCK = 65536
# Seconds after which a client that neither sends nor reads is let go.
PATIENCE = 30


class Refused(Exception):
    """A request that gets another answer than a file: the status, and headers to go with it."""

    def __init__(self, status, *headers):
        super().__init__(status)
        self.status = status
        self.headers = headers


class Folder:
    """The folder that is served, and nothing above it or beside it."""

    def __init__(self, path):
        self.root = Path(path).resolve(strict=True)

    def open(self, target):
        """Return the open file for the target of a request, or raise Refused."""
        # A client may send the whole URL in place of the path. What follows "?" is of no interest for a file.
        if target.lower().startswith(b"http://"):
            target = b"/" + target[7:].partition(b"/")[2]
        path = target.partition(b"?")[0]
        name = os.fsdecode(unquote_to_bytes(path)).lstrip("/")
        try:
            # Both ".." and symbolic links are followed first, and only then it is asked where they led.
            found = (self.root / name).resolve(strict=True)
            if not found.is_relative_to(self.root):
                raise Refused(404)
            if found.is_dir():
                # Relative links in the page work only below a path that ends with a slash.
                if not path.endswith(b"/"):
                    place = quote(os.fsencode(found.relative_to(self.root)))
                    raise Refused(301, ("Location", f"/{place}/"))
                found = (found / "index.html").resolve(strict=True)
                if not found.is_relative_to(self.root):
                    raise Refused(404)
            elif path.endswith(b"/"):
                raise Refused(404)
            # Without O_NONBLOCK a FIFO that somebody put there would stop the whole server.
            file = io.FileIO(found, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        except PermissionError:
            raise Refused(403) from None
        except (OSError, ValueError, RuntimeError):  # The last two: a NUL in the name, links that go in a circle.
            raise Refused(404) from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise Refused(404)
        return file


def content_type(path):
    """Return the media type that the name of a file stands for."""
    kind, encoding = mimetypes.guess_type(path, strict=False)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


class Client:
    """One connection: requests come in, one response at a time goes out."""

    def __init__(self, loop, connection, folder):
        self.socket = connection
        self.socket.setblocking(False)
        # The head of a response and a short file would otherwise wait for each other's acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.folder = folder
        self.protocol = h11.Connection(h11.SERVER)
        self.request = None  # What is to be answered when it has come in whole.
        self.file = None  # What is being sent.
        self.left = 0  # Bytes of it that are not in the queue yet.
        self.queue = bytearray()  # What is ready to be sent.
        self.is_ending = False  # We said all that we will say, and wait for the client to close.
        self.watcher = loop.io(connection, "r", self.on_ready)
        self.patience = loop.timer(PATIENCE, lambda timer: self.close())

    def on_ready(self, watcher, events):
        if not self.is_ending:
            self.patience.stop().start()
        try:
            if watcher.poll & Events.READ:
                self.receive()
            self.advance()
        except BlockingIOError:
            pass
        except OSError:
            self.close()  # The client has gone, which is its right.
        if not watcher.is_destroyed():
            # One thing at a time: as long as something waits to be sent, the next request may wait too.
            watcher.poll = "w" if self.queue or self.file is not None else "r"

    def receive(self):
        data = self.socket.recv(BLOCK)
        if self.is_ending:
            if not data:
                self.close()
            return
        self.protocol.receive_data(data)

    def advance(self):
        """Go on with what was received, until more has to come in or the socket takes no more."""
        while not self.watcher.is_destroyed():
            if self.queue:
                sent = self.socket.send(self.queue)
                del self.queue[:sent]
                if self.file is not None:
                    return  # The rest of a long file is for the next call: now it is the other clients' turn.
            elif self.file is not None:
                self.send_block()
            elif self.is_ending:
                return
            elif self.protocol.our_state is h11.MUST_CLOSE or self.protocol.our_state is h11.ERROR:
                # Closing now could destroy what is still on its way, if the client has sent more than we read.
                self.socket.shutdown(socket.SHUT_WR)
                self.is_ending = True
                return
            elif not self.next_event():
                return

    def next_event(self):
        """Take the next part of a request; False when it has not come in yet."""
        if self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE:
            self.protocol.start_next_cycle()
        try:
            event = self.protocol.next_event()
        except h11.RemoteProtocolError as error:
            self.request = None
            self.respond(error.error_status_hint, ("Connection", "close"))
            return True
        if event is h11.NEED_DATA or event is h11.PAUSED:
            if not self.protocol.they_are_waiting_for_100_continue:
                return False
            self.send(h11.InformationalResponse(status_code=100, headers=[]))
        if isinstance(event, h11.Request):
            self.request = event
        elif isinstance(event, h11.EndOfMessage):
            self.answer()
        elif isinstance(event, h11.ConnectionClosed):
            self.close()
        return True  # Otherwise it is the body of a request, which no file has a use for.

    def answer(self):
        """Answer the request that has come in."""
        try:
            if self.request.method not in (b"GET", b"HEAD"):
                raise Refused(405, ("Allow", "GET, HEAD"))
            file = self.folder.open(self.request.target)
        except Refused as refused:
            self.respond(refused.status, *refused.headers)
            return
        status = os.fstat(file.fileno())
        self.send(
            h11.Response(
                status_code=200,
                reason="OK",
                headers=[
                    ("Date", email.utils.formatdate(usegmt=True)),
                    ("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True)),
                    ("Content-Type", content_type(file.name)),
                    ("Content-Length", str(status.st_size)),
                ],
            )
        )
        # h11 itself leaves out the body of an answer to HEAD, but then the file need not be read either.
        if self.request.method == b"HEAD" or status.st_size == 0:
            file.close()
            self.send(h11.EndOfMessage())
            return
        self.file = file
        self.left = status.st_size
        self.send_block()

    def send_block(self):
        """Queue the next block of the file."""
        data = self.file.read(min(BLOCK, self.left))
        if not data:
            # It has become shorter than the length that we promised. Closing early is the only way to say so.
            self.close()
            return
        self.left -= len(data)
        self.send(h11.Data(data=data))
        if not self.left:
            self.file.close()
            self.file = None
            self.send(h11.EndOfMessage())

    def respond(self, status, *headers):
        """Queue a short answer in plain text."""
        reason = http.HTTPStatus(status).phrase
        text = f"{status} {reason}\n".encode()
        date = email.utils.formatdate(usegmt=True)
        fixed = [("Date", date), ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
        self.send(h11.Response(status_code=status, reason=reason, headers=[*fixed, *headers]))
        if self.request is None or self.request.method != b"HEAD":
            self.send(h11.Data(data=text))
        self.send(h11.EndOfMessage())

    def send(self, event):
        self.queue += self.protocol.send(event)

    def close(self):
        self.patience.destroy()
        # In this order: the kernel must not be polling a socket that is closed.
        self.watcher.destroy()
        self.socket.close()
        if self.file is not None:
            self.file.close()


def serve(loop, listener, folder):
    """Accept clients on the listening socket for as long as the loop runs."""
    listener.setblocking(False)

    @loop.io(listener, "r")
    def on_connect(watcher, events):
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # The client left before we came.
        except OSError as error:
            # Out of file descriptors, say. The client still waits, so the watcher would call again at once: pause it.
            print(f"cannot accept: {error}", file=sys.stderr)
            watcher.stop()
            loop.timer(0.1, lambda timer: watcher.start())
            return
        Client(loop, connection, folder)


def main():
    parser = argparse.ArgumentParser(description="Serve the files of a folder over HTTP.")
    parser.add_argument("folder", nargs="?", default=".")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    folder = Folder(arguments.folder)
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener, Loop() as loop:
        serve(loop, listener, folder)
        print(f"listening on http://{arguments.host}:{listener.getsockname()[1]}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
