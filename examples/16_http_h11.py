"""An HTTP/1.1 server on streams, with keep-alive, pipelining, and bodies of any size in both directions.

    pip install h11
    python examples/16_http_h11.py --port 8080
    curl -i http://127.0.0.1:8080/                              # in another terminal
    curl -T FILE -X POST http://127.0.0.1:8080/echo             # what is sent comes back while it is being sent
    curl http://127.0.0.1:8080/count/1000000                    # an answer whose length is not known in advance
    wrk -c 50 -d 5 http://127.0.0.1:8080/

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it. h11 parses the protocol, the stream does
the I/O; the server that 02_http_files.py is does both by hand. However big a body is, and however slow the client, no more
than a few blocks of it are in memory: a write that returns False stops what feeds it, until on_drain.
"""

import argparse
import contextlib
import http
import time
from email.utils import formatdate

import h11

from linux_event import Loop

# Seconds after which a client that neither sends nor reads is let go, and one that has been sent its last answer.
IDLE = 60
LINGER = 5


class Refused(Exception):
    """A request that gets an error for an answer: the status, and headers to go with it."""

    def __init__(self, status, *headers):
        super().__init__(status)
        self.status = status
        self.headers = headers


def count(limit):
    """The body of /count/LIMIT: the numbers up to there, a line each, in blocks."""
    for first in range(1, limit + 1, 1000):
        yield "".join(f"{number}\n" for number in range(first, min(first + 1000, limit + 1))).encode()


class Clock:
    """The header Date, made once a second."""

    def __init__(self):
        self.second = None

    def header(self):
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.value = ("Date", formatdate(second, usegmt=True))
        return self.value


clock = Clock()


class Client:
    """One connection: requests come in, one response at a time goes out."""

    def __init__(self, stream):
        self.stream = stream
        self.http = h11.Connection(h11.SERVER)
        self.blocks = None  # The rest of the body that is being sent, an iterator.
        self.is_echo = False  # The body of the request is that of the response.
        self.is_full = False  # The client has to read before more is written.
        self.is_at_end = False  # The client sends no more.
        stream.on_data = self.on_data
        stream.on_eof = self.on_eof
        stream.on_drain = self.on_drain
        stream.idle_timeout = IDLE

    # Called by the stream.

    def on_data(self, stream, data):
        self.http.receive_data(data)
        self.advance()

    def on_eof(self, stream):
        self.is_at_end = True
        self.http.receive_data(b"")
        self.advance()

    def on_drain(self, stream):
        self.is_full = False
        stream.resume_reading()
        self.advance()

    # The protocol.

    def advance(self):
        """Go on with what has come, until more has to come, or the client has to read first."""
        while not self.stream.is_closing():
            if self.is_full:
                # What the client sends meanwhile waits where it is: in the kernel, and at the client.
                self.stream.pause_reading()
                return
            if self.blocks is not None:
                self.send_block()
            elif self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                self.http.start_next_cycle()
            elif self.http.our_state is h11.MUST_CLOSE or self.http.our_state is h11.ERROR:
                self.linger()
                return
            elif not self.next_event():
                return

    def next_event(self):
        """Take the next part of a request; False when it has not come yet."""
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as error:
            return self.fail(error)
        if isinstance(event, h11.Request):
            self.answer(event)
        elif isinstance(event, h11.Data):
            # Otherwise the request has no use for its body, which is read and forgotten.
            if self.is_echo:
                self.send(event)
        elif isinstance(event, h11.EndOfMessage):
            if self.is_echo:
                self.is_echo = False
                self.send(h11.EndOfMessage())
        elif isinstance(event, h11.ConnectionClosed):
            self.stream.close()
        else:
            return False  # h11.NEED_DATA
        return True

    def answer(self, request):
        """Answer a request whose body, if it has one, comes next."""
        path = request.target.partition(b"?")[0].decode("latin-1")
        method = request.method
        try:
            if path == "/":
                self.allow(method, b"GET", b"HEAD")
                self.send_whole(200, b"It works.\n", [], method)
            elif path == "/echo":
                self.allow(method, b"POST", b"PUT")
                self.start_echo(request)
            elif path.startswith("/count/"):
                self.allow(method, b"GET", b"HEAD")
                self.start_count(path.removeprefix("/count/"), method)
            else:
                raise Refused(404)
        except Refused as refused:
            self.send_error(refused.status, refused.headers, method)

    def allow(self, method, *methods):
        if method not in methods:
            raise Refused(405, ("Allow", ", ".join(method.decode() for method in methods)))

    def start_echo(self, request):
        if self.http.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))
        # The response has the length of the request. If the client does not know it yet both are sent in chunks.
        kept = [(name, value) for name, value in request.headers if name in (b"content-length", b"content-type")]
        self.send(h11.Response(status_code=200, reason="OK", headers=[clock.header(), *kept]))
        self.is_echo = True

    def start_count(self, limit, method):
        # int() alone would also take "+1", "1_0" and a million digits.
        if not limit.isascii() or not limit.isdecimal() or len(limit) > 12:
            raise Refused(400)
        headers = [clock.header(), ("Content-Type", "text/plain")]
        # Without Content-Length h11 sends chunks, or ends the connection after the body where the client is of HTTP/1.0.
        self.send(h11.Response(status_code=200, reason="OK", headers=headers))
        self.blocks = count(int(limit)) if method == b"GET" else iter(())

    def send_block(self):
        block = next(self.blocks, None)
        if block is not None:
            self.send(h11.Data(data=block))
        else:
            self.blocks = None
            self.send(h11.EndOfMessage())

    def send_error(self, status, headers, method):
        reason = http.HTTPStatus(status).phrase
        self.send_whole(status, f"{status} {reason}\n".encode(), headers, method)

    def send_whole(self, status, body, headers, method):
        self.send(
            h11.Response(
                status_code=status,
                reason=http.HTTPStatus(status).phrase,
                headers=[
                    clock.header(),
                    ("Content-Type", "text/plain"),
                    ("Content-Length", str(len(body))),
                    *headers,
                ],
            )
        )
        if method != b"HEAD":
            self.send(h11.Data(data=body))
        self.send(h11.EndOfMessage())

    def send(self, event):
        # What is written in one call of the loop leaves together, so the parts of a short answer are one packet.
        if not self.stream.write(self.http.send(event)):
            self.is_full = True

    # The end.

    def fail(self, error):
        """The client does not speak HTTP: say so if that is still possible, and end the connection."""
        if self.http.our_state is h11.SEND_BODY:
            self.stream.abort()  # Within an answer the only sign is that it stops.
            return False
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.send_error(error.error_status_hint, [("Connection", "close")], b"")
        self.linger()
        return False

    def linger(self):
        """Nothing more will be said. Wait for the client to close: to close first could destroy what is still on its way."""
        if self.is_at_end:
            self.stream.close()
            return
        self.stream.on_data = lambda stream, data: None
        self.stream.on_eof = None
        self.stream.idle_timeout = LINGER
        self.stream.write_eof()


def main():
    parser = argparse.ArgumentParser(description="Answer requests over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    with Loop() as loop:
        listener = loop.listen((arguments.host, arguments.port), Client)
        print(f"listening on http://{arguments.host}:{listener.sockname[1]}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
