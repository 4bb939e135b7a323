"""A reverse proxy for HTTP/1.1 in front of several servers, which goes on when one of them dies.

    pip install h11
    python examples/16_http_h11.py --port 8001                  # two servers, each in its terminal
    python examples/16_http_h11.py --port 8002
    python examples/22_reverse_proxy.py 127.0.0.1:8080 127.0.0.1:8001 127.0.0.1:8002
    curl -i http://127.0.0.1:8080/                              # while one of the servers is killed and started again
    wrk -c 50 -d 5 http://127.0.0.1:8080/

Port 0 takes any free port; the first line of output says which. A request goes to the server that works on the fewest. A
server that cannot be connected to is left out until it can: that is tried every `--pause` seconds. A request that a dying
server has not answered goes to another one, if it does no harm when it is made twice and had no body. However big a body
is, and however slow who takes it, no more than a few blocks of it are in memory.

On SIGTERM or Ctrl-C no more clients are taken, and requests that have come are finished. A second signal, or the end of
`--grace` seconds, ends the proxy at once, with status 1.
"""

import argparse
import http
import itertools
import signal
import sys

import h11

from linux_event import Loop

# Seconds: for a connection to a server to come about, for one that is not in use to be kept, for a client to send or read
# something, and to close after its last answer.
CONNECT = 5
KEPT = 15
IDLE = 60
LINGER = 5
# Connections to each server that are kept while they are not in use.
POOL = 64
# What does no harm when it is made twice: RFC 9110, section 9.2.2.
IDEMPOTENT = {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
# Headers for the next hop alone, as are those that Connection names, but for some: RFC 9110, section 7.6.1.
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
END_TO_END = {b"host", b"content-length", b"x-forwarded-for", b"via"}


def is_chunked(message):
    return any(name == b"transfer-encoding" for name, _ in message.headers)


def has_body(request):
    return any(name in (b"transfer-encoding", b"content-length") for name, _ in request.headers)


def passed_on(message):
    """The headers of a request or an answer that are not only for us."""
    named = {
        name.strip().lower() for key, value in message.headers if key == b"connection" for name in value.split(b",")
    }
    dropped = HOP_BY_HOP | (named - END_TO_END)
    if is_chunked(message):
        dropped.add(b"content-length")  # It says nothing then, but a server could believe it.
    headers = [(name, value) for name, value in message.headers.raw_items() if name.lower() not in dropped]
    return [*headers, (b"Via", message.http_version + b" linux_event")]


class Connection:
    """A stream to a client or a server, and what h11 makes of its bytes."""

    def __init__(self, stream, role):
        self.stream = stream
        self.http = h11.Connection(role)
        self.exchange = None  # The request that it is used for.
        self.is_full = False  # The other end has to read before more is written.
        stream.on_data, stream.on_eof = self.on_data, self.on_eof
        stream.on_drain, stream.on_close = self.on_drain, self.on_close

    def on_data(self, stream, data):
        self.http.receive_data(data)
        self.advance()

    def on_eof(self, stream):
        self.on_data(stream, b"")

    def on_drain(self, stream):
        self.is_full = False
        if self.exchange is None:
            self.advance()
        else:
            self.exchange.advance()

    def send(self, event):
        # What is written in one iteration of the loop leaves together: the parts of a short message are one packet.
        if not self.stream.write(self.http.send(event)):
            self.is_full = True


class Client(Connection):
    """A connection from a client: requests come in, and are worked on one after the other."""

    def __init__(self, proxy, stream):
        super().__init__(stream, h11.SERVER)
        self.proxy = proxy
        self.address = stream.peername[0].encode() if stream.peername else b"unknown"  # It may have gone already.
        stream.idle_timeout = IDLE

    def on_close(self, stream, error):
        if self.exchange is not None:
            self.exchange.give_up()
        self.proxy.on_client_gone(self)

    def is_idle(self):
        return self.http.their_state is h11.IDLE and not self.http.trailing_data[0]

    def advance(self):
        """Go on with what has come, until more has to come, or something else has to happen first."""
        while not self.stream.is_closing():
            exchange = self.exchange
            if self.is_full or (exchange is not None and not exchange.takes_body()):
                # What the client sends meanwhile waits where it is: in the kernel, and at the client.
                self.stream.pause_reading()
                break
            if exchange is None and self.http.our_state in (h11.DONE, h11.MUST_CLOSE):
                if self.http.our_state is h11.MUST_CLOSE or self.proxy.is_ending:
                    return self.linger()
                if self.http.their_state is h11.DONE:
                    self.http.start_next_cycle()
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                return self.refuse(error.error_status_hint, error)
            if isinstance(event, h11.Request):
                if event.method == b"CONNECT":
                    return self.refuse(501, "This proxy makes no tunnels.")
                self.exchange = Exchange(self, event)
                self.exchange.attempt()
            elif isinstance(event, (h11.Data, h11.EndOfMessage)):
                if exchange is not None:  # Otherwise it has been answered already, and the rest is forgotten.
                    exchange.pass_on(event)
            elif isinstance(event, h11.ConnectionClosed):
                return self.stream.close()
            else:
                self.stream.resume_reading()
                break
        if self.exchange is not None:
            self.exchange.watch()

    def respond(self, status, reason, headers, is_last=False):
        """Begin the answer. h11 adds how the body is delimited."""
        # Who waits for "100 Continue" sends the body that he has announced, or does not: nobody knows what is next.
        if is_last or self.proxy.is_ending or self.http.they_are_waiting_for_100_continue:
            headers = [*headers, ("Connection", "close")]
        self.send(h11.Response(status_code=status, reason=reason, headers=headers))

    def answer(self, status, text, method=b"", is_last=False):
        """Answer without a server."""
        reason = http.HTTPStatus(status).phrase
        body = f"{status} {reason}\n{text}\n".encode()
        self.respond(status, reason, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))], is_last)
        if method != b"HEAD":
            self.send(h11.Data(data=body))
        self.send(h11.EndOfMessage())

    def refuse(self, status, text):
        """Nothing sensible can follow: say so, if that is still possible, and end the connection."""
        if self.exchange is not None:
            self.exchange.give_up()
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.stream.abort()  # It is in the middle of an answer.
        self.answer(status, text, is_last=True)
        self.linger()

    def linger(self):
        """Nothing more will be said. Wait for the client to close: to close first could destroy what is still on its way."""
        if self.http.trailing_data[1]:  # It has closed already.
            return self.stream.close()
        self.stream.on_data = lambda stream, data: None
        self.stream.on_eof = self.stream.on_drain = None
        self.stream.resume_reading()
        self.stream.idle_timeout = LINGER
        self.stream.write_eof()


class Exchange:
    """A request on its way from a client to a server, to another one if need be, and the answer on its way back."""

    def __init__(self, client, request):
        self.client, self.proxy, self.method = client, client.proxy, request.method
        self.tried = set()  # The servers that are out of the question.
        self.server = self.upstream = None  # The one that it was given to, and the connection to that.
        self.is_complete = False  # All of the request has been taken from the client.
        self.may_repeat = self.method in IDEMPOTENT  # ... and until some of a body has been taken.
        # Then a connection that the server may be closing at this very moment is no risk.
        self.may_reuse = self.may_repeat and not has_body(request)
        self.is_answered = False  # The client has been sent a part of the answer.
        came_by = [value for name, value in request.headers if name == b"x-forwarded-for"]
        came_by.append(client.address)
        headers = [(name, value) for name, value in passed_on(request) if name.lower() != b"x-forwarded-for"]
        headers.append((b"X-Forwarded-For", b", ".join(came_by)))
        if is_chunked(request):
            headers.append((b"Transfer-Encoding", b"chunked"))
        if not any(name.lower() == b"host" for name, _ in headers):  # HTTP/1.0 does without.
            headers.append((b"Host", "{}:{}".format(*client.stream.sockname).encode()))
        self.request = h11.Request(method=request.method, target=request.target, headers=headers)

    def attempt(self, error=None):
        """Give the request to a server that has not failed yet. `error` is that of the one before."""
        self.server = self.proxy.choose(self.tried)
        if self.server is None:
            return self.fail(504 if isinstance(error, TimeoutError) else 502, "No server can be reached.")
        self.tried.add(self.server)
        self.server.requests += 1
        upstream = self.server.idle_connection() if self.may_reuse else None
        if upstream is not None:
            self.begin(upstream)
        else:
            timeout = min(CONNECT, self.proxy.options.timeout)
            self.proxy.loop.connect_stream(self.server.address, self.on_connected, timeout=timeout)

    def on_connected(self, stream, error):
        if self.server is None:  # The client has gone meanwhile.
            if stream is not None:
                stream.close()
        elif error is not None:
            self.server.went_down(error)
            self.let_go()
            self.attempt(error)
        else:
            self.begin(Upstream(self.server, stream))
            self.advance()

    def begin(self, upstream):
        self.upstream = upstream
        upstream.exchange = self
        upstream.has_answered = False
        upstream.send(self.request)
        if self.is_complete:
            upstream.send(h11.EndOfMessage())

    def advance(self):
        if self.upstream is not None:
            self.upstream.advance()
        if self.client.exchange is self:
            self.client.advance()

    def takes_body(self):
        return self.upstream is not None and not self.upstream.is_full and self.client.http.their_state is h11.SEND_BODY

    def watch(self):
        """Who is waited for has to do something within his time; the others are not to blame."""
        waits_for_client = self.client.is_full or self.takes_body()
        self.client.stream.idle_timeout = IDLE if waits_for_client else None
        if self.upstream is not None:
            self.upstream.stream.idle_timeout = None if waits_for_client else self.proxy.options.timeout

    def pass_on(self, event):
        """A part of the request has come."""
        if isinstance(event, h11.Data):
            self.may_repeat = False
            self.upstream.send(event)
        else:
            self.is_complete = True
            self.upstream.send(h11.EndOfMessage())

    def on_answer(self, event):
        """A part of the answer has come."""
        client = self.client
        if isinstance(event, h11.InformationalResponse):
            if client.http.their_http_version >= b"1.1":
                client.send(h11.InformationalResponse(status_code=event.status_code, headers=passed_on(event)))
        elif isinstance(event, h11.Response):
            self.is_answered = True
            client.respond(event.status_code, event.reason, passed_on(event))
        elif isinstance(event, h11.Data):
            client.send(event)
        else:
            client.send(h11.EndOfMessage())
            self.let_go().keep()
            self.end()

    def on_lost(self, error):
        """The server has closed the connection, or does not go on, or talks nonsense."""
        upstream = self.let_go()
        upstream.stream.abort()
        if self.is_answered:
            self.client.exchange = None
            self.client.stream.idle_timeout = IDLE
            self.client.stream.close()  # What has come of the answer is sent. That it stops is the only sign.
        elif isinstance(error, TimeoutError):
            self.fail(504, "The server did not answer in time.")
        elif upstream.has_answered or not self.may_repeat:
            self.fail(502, "The server ended the connection before it had answered.")
        else:
            if upstream.was_kept:  # This is no wonder, and says nothing about the server.
                self.tried.discard(upstream.server)
            self.attempt(error)

    def fail(self, status, text):
        self.client.answer(status, text, self.method)
        self.end()

    def let_go(self):
        """Leave the server, and the connection to it, which is returned."""
        upstream = self.upstream
        self.server.requests -= 1
        self.server = self.upstream = None
        if upstream is not None:
            upstream.exchange = None
        return upstream

    def give_up(self):
        self.client.exchange = None
        if self.server is not None and (upstream := self.let_go()) is not None:
            upstream.stream.abort()

    def end(self):
        self.client.exchange = None
        self.client.stream.idle_timeout = IDLE
        self.client.advance()


class Upstream(Connection):
    """A connection to a server."""

    def __init__(self, server, stream):
        super().__init__(stream, h11.CLIENT)
        self.server = server
        self.has_answered = False  # The answer to the request that it is used for has begun.
        self.was_kept = False  # There was one before.

    def on_data(self, stream, data):
        if self.exchange is None:  # It ends, or says what nobody has asked for.
            stream.abort()
            return
        self.has_answered = self.has_answered or data != b""
        super().on_data(stream, data)

    def on_close(self, stream, error):
        if self.exchange is not None:
            self.exchange.on_lost(error)
        elif self in self.server.idle:
            self.server.idle.remove(self)

    def advance(self):
        while self.exchange is not None and not self.stream.is_closing():
            if self.exchange.client.is_full:
                self.stream.pause_reading()
                return self.exchange.watch()
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                return self.exchange.on_lost(error)
            if event is h11.NEED_DATA:
                self.stream.resume_reading()
                return self.exchange.watch()
            self.exchange.on_answer(event)

    def keep(self):
        """An answer is complete: the connection may be used again, if it is left as it should be."""
        is_clean = self.http.our_state is self.http.their_state is h11.DONE and not self.http.trailing_data[0]
        if is_clean and len(self.server.idle) < POOL and not self.server.proxy.is_ending:
            self.http.start_next_cycle()
            self.was_kept = True
            self.stream.idle_timeout = KEPT
            self.stream.resume_reading()
            self.server.idle.append(self)
        else:
            self.stream.abort()


class Server:
    """One of those that do the work."""

    def __init__(self, proxy, address):
        self.proxy, self.address = proxy, address
        self.requests = 0  # So many it is working on.
        self.turn = 0  # When it got the last one.
        self.is_down = False
        self.idle = []  # Connections that are not in use, the one used last at the end.

    def idle_connection(self):
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.stream.is_closing():
                return upstream
        return None

    def went_down(self, error):
        if not self.is_down:
            self.is_down = True
            print("server {}:{} is down: {}".format(*self.address, error), flush=True)
            self.probe_later()

    def probe_later(self):
        self.proxy.loop.timer(self.proxy.options.pause, self.probe, ref=False)

    def probe(self, timer):
        self.proxy.loop.connect_stream(self.address, self.on_probed, timeout=CONNECT)

    def on_probed(self, stream, error):
        if error is not None and not self.proxy.is_ending:
            self.probe_later()
        elif stream is not None:
            stream.close()
            self.is_down = False
            print("server {}:{} is back".format(*self.address), flush=True)


class Proxy:
    """The clients, and the servers that they are served by."""

    def __init__(self, loop, options):
        self.loop, self.options = loop, options
        self.servers = [Server(self, address) for address in options.servers]
        self.turns = itertools.count(1)
        self.clients = set()
        self.is_ending = False
        self.status = 0
        self.listener = loop.listen(options.listen, self.on_connect)
        for name in ("TERM", "INT"):
            loop.signal(name, self.on_signal)

    def on_connect(self, stream):
        self.clients.add(Client(self, stream))

    def on_client_gone(self, client):
        self.clients.discard(client)
        if self.is_ending and not self.clients:
            self.loop.stop()

    def choose(self, tried):
        """The server that works on the fewest requests, of those the one whose turn it is; one that is down only if no other
        is left. None: all have been tried."""
        servers = [server for server in self.servers if server not in tried]
        server = min(servers, key=lambda server: (server.is_down, server.requests, server.turn), default=None)
        if server is not None:
            server.turn = next(self.turns)
        return server

    def on_signal(self, watcher, signum):
        name = signal.Signals(signum).name
        if self.is_ending:
            print(f"{name} again: ending at once", flush=True)
            return self.end_at_once()
        self.is_ending = True
        self.listener.close()
        for client in self.clients:
            if client.is_idle():
                client.linger()
        print(f"{name}: finishing {sum(client.exchange is not None for client in self.clients)} requests", flush=True)
        self.loop.timer(self.options.grace, lambda timer: self.end_at_once())
        if not self.clients:
            self.loop.stop()

    def end_at_once(self):
        self.status = 1
        for client in self.clients:
            client.stream.abort()


def endpoint(text):
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("listen", type=endpoint, help="host:port")
    parser.add_argument("servers", type=endpoint, nargs="+", metavar="server", help="host:port")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a server gets to go on")
    parser.add_argument(
        "--pause", type=float, default=2, help="seconds after which a server that is down is tried again"
    )
    parser.add_argument("--grace", type=float, default=30, help="seconds that requests get to finish after a signal")
    options = parser.parse_args()
    with Loop() as loop:
        proxy = Proxy(loop, options)
        print("listening on {}:{}".format(*proxy.listener.sockname[:2]), flush=True)
        loop.run()
    return proxy.status


if __name__ == "__main__":
    sys.exit(main())
