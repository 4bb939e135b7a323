"""A server that ends cleanly: on SIGTERM or Ctrl-C it takes no new clients, finishes those it has, and exits with 0.

    python examples/04_clean_shutdown.py --port 8009
    nc 127.0.0.1 8009                                # in another terminal: counts for a while
    kill -TERM PID                                   # in a third one; PID is in the first line of output

Port 0 takes any free port; the first line of output says which. A second signal ends the server at once, with status 1.
So does the time limit `--grace`, for clients that do not go.
"""

import argparse
import os
import signal
import socket
import sys

from linux_event import Events, Loop


class Countdown:
    """One client: gets a number every so often, down to 0, and is closed."""

    def __init__(self, server, connection, count, interval):
        self.server = server
        self.socket = connection
        self.socket.setblocking(False)
        self.count = count
        self.queue = bytearray()
        self.ticker = server.loop.periodic(interval, self.on_tick)
        # The client is not asked anything. Reading tells when it goes.
        self.watcher = server.loop.io(connection, "r", self.on_ready)

    def on_tick(self, ticker):
        self.queue += b"%d\n" % self.count
        if self.count == 0:
            ticker.destroy()
        self.count -= 1
        self.send()

    def on_ready(self, watcher, events):
        if events & Events.READ:
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                data = None
            except OSError:
                self.close()
                return
            if data == b"":
                self.close()
                return
        self.send()

    def send(self):
        """Send what the socket takes; when the last number is gone, the client is finished."""
        try:
            if self.queue:
                sent = self.socket.send(self.queue)
                del self.queue[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.queue:
            self.watcher.poll = "rw"
        elif self.ticker.is_destroyed():
            self.close()
        else:
            self.watcher.poll = "r"

    def close(self):
        self.ticker.destroy()
        self.watcher.destroy()
        self.socket.close()
        self.server.clients.discard(self)


class Server:
    """Accepts clients until a signal comes, and then waits for the last one."""

    def __init__(self, loop, listener, arguments):
        self.loop = loop
        self.listener = listener
        self.listener.setblocking(False)
        self.arguments = arguments
        self.clients = set()
        self.status = 0
        self.accepting = loop.io(listener, "r", self.on_connect)
        # Signals do not keep the loop going: when the last client has left, run() returns although they are watched.
        for name in ("TERM", "INT"):
            loop.signal(name, self.on_signal, ref=False)

    def on_connect(self, watcher, events):
        try:
            connection, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            print(f"cannot accept: {error}", file=sys.stderr)
            watcher.stop()
            self.loop.timer(0.1, self.accept_again, ref=False)
            return
        self.clients.add(Countdown(self, connection, self.arguments.count, self.arguments.interval))

    def accept_again(self, timer):
        if not self.accepting.is_destroyed():
            self.accepting.start()

    def on_signal(self, watcher, signum):
        name = signal.Signals(signum).name
        if self.accepting.is_destroyed():
            print(f"{name} again: ending at once", flush=True)
            self.status = 1
            self.loop.stop()
            return
        # Closing the listening socket, and not only ignoring it, tells new clients to go elsewhere.
        self.accepting.destroy()
        self.listener.close()
        print(f"{name}: finishing {len(self.clients)} clients", flush=True)
        self.loop.timer(self.arguments.grace, self.on_grace_over, ref=False)

    def on_grace_over(self, timer):
        print(f"{len(self.clients)} clients did not finish in time", flush=True)
        self.status = 1
        self.loop.stop()

    def close(self):
        for client in tuple(self.clients):
            client.close()


def main():
    parser = argparse.ArgumentParser(description="Count down for each client, and end cleanly.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8009)
    parser.add_argument("--count", type=int, default=20, help="where the countdown begins")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds from one number to the next")
    parser.add_argument("--grace", type=float, default=30, help="seconds that clients get to finish after a signal")
    arguments = parser.parse_args()
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener, Loop() as loop:
        server = Server(loop, listener, arguments)
        print(f"listening on {arguments.host}:{listener.getsockname()[1]}, process {os.getpid()}", flush=True)
        loop.run()
        server.close()
    print("all clients are finished" if server.status == 0 else "clients were cut off", flush=True)
    return server.status


if __name__ == "__main__":
    sys.exit(main())
