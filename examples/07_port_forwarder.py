"""Forward a TCP port: what comes in on one is sent to another, and the answers back. The data never enter this process.

    python examples/07_port_forwarder.py 127.0.0.1:8007 127.0.0.1:80
    curl http://127.0.0.1:8007/

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it.
"""

import argparse
import contextlib
import os
import resource
import socket

from linux_event import Loop

PIECE = 1 << 16  # bytes that are under way in one direction at most: what a pipe holds


class Direction:
    """From one socket to another, through a pipe, until the first has no more to say."""

    def __init__(self, connection, source, target):
        self.connection, self.source, self.target = connection, source, target
        self.loop = connection.loop
        self.pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        self.operation = None
        self.is_done = False

    def take(self):
        self.operation = self.loop.splice(self.source, self.pipe[1], PIECE, self.on_taken)

    def on_taken(self, count, error):
        if error is not None:
            self.connection.on_end(self, error)
        elif count == 0:
            # Half of the connection is closed; the other half goes on for as long as it likes.
            try:
                self.target.shutdown(socket.SHUT_WR)
            except OSError as gone:
                error = gone
            self.connection.on_end(self, error)
        else:
            self.held = count
            self.give()

    def give(self):
        self.operation = self.loop.splice(self.pipe[0], self.target, self.held, self.on_given)

    def on_given(self, count, error):
        if error is not None:
            self.connection.on_end(self, error)
            return
        self.held -= count
        if self.held:
            self.give()
        else:
            self.take()

    def close(self):
        for fd in self.pipe:
            os.close(fd)


class Connection:
    """A client, and our connection to the other port on its behalf."""

    def __init__(self, loop, client, address, forget):
        self.loop, self.client, self.forget = loop, client, forget
        self.client.setblocking(False)
        self.server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.server.setblocking(False)
        self.directions = []
        loop.connect(self.server, address, self.on_connected)

    def on_connected(self, result, error):
        if error is None:
            try:
                for ends in ((self.client, self.server), (self.server, self.client)):
                    self.directions.append(Direction(self, *ends))
            except OSError as short:  # of fds
                error = short
        if error is not None:
            print(f"cannot connect: {error}", flush=True)
            self.close()
            return
        for direction in self.directions:
            direction.take()

    def on_end(self, direction, error):
        direction.is_done = True
        if error is not None:
            # One of the two is gone: the other one is to know. A reset is passed on as such, not as an end.
            for end in (self.client, self.server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            for other in self.directions:
                if not other.is_done:
                    other.operation.cancel()
        if all(direction.is_done for direction in self.directions):
            self.close()

    def close(self):
        for direction in self.directions:
            direction.close()
        self.client.close()
        self.server.close()
        self.forget(self)


class Forwarder:
    def __init__(self, loop, listener, address):
        self.loop, self.listener, self.address = loop, listener, address
        self.connections = set()
        self.accept()

    def accept(self, timer=None):
        self.loop.accept(self.listener, self.on_accepted)

    def on_accepted(self, result, error):
        if error is not None:
            if isinstance(error, OSError) and not self.listener.fileno() < 0:
                print(f"cannot accept: {error}", flush=True)  # out of fds, most likely: clients wait in the backlog
                self.loop.timer(0.1, self.accept)
            return
        client, _ = result
        try:
            self.connections.add(Connection(self.loop, client, self.address, self.connections.discard))
        except OSError as short:  # of fds
            print(f"cannot connect: {short}", flush=True)
            client.close()
        self.accept()


def endpoint(text):
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("listen", type=endpoint, help="host:port")
    parser.add_argument("forward", type=endpoint, help="host:port")
    options = parser.parse_args()
    # A connection takes six fds.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    with socket.create_server(options.listen, backlog=1024) as listener, contextlib.closing(Loop()) as loop:
        print("forwarding {}:{}".format(*listener.getsockname()), flush=True)
        Forwarder(loop, listener, options.forward)
        loop.signal("INT", lambda watcher, signum: loop.stop())
        loop.run()


if __name__ == "__main__":
    main()
