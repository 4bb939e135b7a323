"""An echo server: every byte that a client sends comes back to it. Many clients, one thread.

    python examples/01_echo_server.py --port 8007
    nc 127.0.0.1 8007                                # in another terminal; type something

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it.
"""

import argparse
import contextlib
import socket

from linux_event import Events, Loop

# A client that sends but does not read must not fill our memory: with this many bytes waiting we stop reading from it.
QUEUE_MAX = 1 << 20


class Client:
    """One connection: what it sent and did not get back yet waits in the queue."""

    def __init__(self, loop, connection):
        self.socket = connection
        self.socket.setblocking(False)
        self.queue = bytearray()
        self.at_end = False
        self.watcher = loop.io(connection, "r", self.on_ready)

    def on_ready(self, watcher, events):
        """Do what the socket is ready for, then wait for what is needed next."""
        try:
            if events & Events.READ and not self.at_end and len(self.queue) < QUEUE_MAX:
                data = self.socket.recv(65536)
                self.queue += data
                # No bytes at all is how the client says that it will send no more. It may still want to read.
                self.at_end = not data
            if self.queue:
                # The kernel takes as much as it has room for; the rest waits for the next call.
                sent = self.socket.send(self.queue)
                del self.queue[:sent]
        except BlockingIOError:
            pass  # Not ready after all, or full: the next call goes on.
        except OSError as error:
            print(f"connection lost: {error}", flush=True)
            self.close()
            return
        if self.at_end and not self.queue:
            self.close()
            return
        # A socket has room for more nearly always, so "w" would call us all the time: ask only while something waits.
        reads = not self.at_end and len(self.queue) < QUEUE_MAX
        watcher.poll = ("r" if reads else "") + ("w" if self.queue else "")

    def close(self):
        # In this order: the kernel must not be polling a socket that is closed.
        self.watcher.destroy()
        self.socket.close()


def serve(loop, listener):
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
            print(f"cannot accept: {error}", flush=True)
            watcher.stop()
            loop.timer(0.1, lambda timer: watcher.start())
            return
        # Nobody needs to keep the client: the loop keeps its active watcher, which keeps the method, which keeps it.
        Client(loop, connection)


def main():
    parser = argparse.ArgumentParser(description="Send every byte back to where it came from.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8007)
    arguments = parser.parse_args()
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener, Loop() as loop:
        serve(loop, listener)
        print(f"listening on {arguments.host}:{listener.getsockname()[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
