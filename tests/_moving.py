"""What the tests of operations that move data share."""

import random
import socket
import threading

DATA = random.Random(3).randbytes(5 << 20)


class Calls(list):
    """A callback of the first form, and what it got."""

    def __call__(self, result, error):
        self.append((result, error))

    @property
    def result(self):
        assert len(self) == 1
        assert self[0][1] is None, self[0][1]
        return self[0][0]

    @property
    def error(self):
        assert len(self) == 1
        assert self[0][0] is None
        return self[0][1]


class Reader(threading.Thread):
    """Reads a socket to its end, or `limit` bytes, and keeps what came."""

    def __init__(self, end, limit=1 << 62):
        super().__init__()
        self.end, self.limit, self.data = end, limit, bytearray()
        end.setblocking(True)
        self.start()

    def run(self):
        while len(self.data) < self.limit and (part := self.end.recv(1 << 16)):
            self.data += part

    def finish(self):
        self.join()
        return bytes(self.data)


def say_end(sock):
    """Close a socket that data were moved to, so that the other end hears of it at once.

    A worker of the kernel that has done the moving may keep it for a moment, until the loop next enters the ring.
    """
    sock.shutdown(socket.SHUT_WR)
    sock.close()
