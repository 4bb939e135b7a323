"""The other processes of the demo: plain blocking programs with nothing of this package in them.

Started by path as ``python -P demo_peers.py WHAT ARGUMENT...``. Each does its part, prints what it did as one line of
JSON and exits with status 0; anything unexpected is a traceback and status 1.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable


def echo_clients(port: str, connections: str, seconds: str, seed: str) -> dict[str, int]:
    """Send blocks of random bytes over several connections for some seconds and compare what comes back."""
    source = random.Random(int(seed))
    sockets = [connect(int(port)) for _ in range(int(connections))]
    end = time.monotonic() + float(seconds)
    messages = size = 0
    # Each connection is used at least once, however late this process came to run.
    while messages < len(sockets) or time.monotonic() < end:
        connection = sockets[messages % len(sockets)]
        block = source.randbytes(source.randint(1, 65536))
        connection.sendall(block)
        if receive(connection, len(block)) != block:
            raise ValueError(f"other bytes came back on the connection from port {connection.getsockname()[1]}")
        messages += 1
        size += len(block)
        # A client that thinks before it asks again leaves the server something to wait for.
        time.sleep(0.001)
    for connection in sockets:
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1):
            raise ValueError("more bytes came back than were sent")
        connection.close()
    return {"connections": len(sockets), "messages": messages, "bytes": size}


def connect(port: int) -> socket.socket:
    """Return a connection that has little room for what comes back, so that the server must send it in parts."""
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", port))
    return connection


def receive(connection: socket.socket, size: int) -> bytes:
    """Return the next ``size`` bytes of a connection."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = connection.recv_into(view[got:])
        if not count:
            raise EOFError(f"connection closed {size - got} bytes too early")
        got += count
    return bytes(data)


def fifo_writer(path: str, lines: str) -> dict[str, int]:
    """Write numbered lines to a FIFO, in pieces that do not end where the lines do."""
    text = b"".join(b"line %d\n" % number for number in range(int(lines)))
    fd = os.open(path, os.O_WRONLY)
    for start in range(0, len(text), 1000):
        os.write(fd, text[start : start + 1000])
        time.sleep(0.001)
    os.close(fd)
    return {"lines": int(lines)}


def signal_sender(pid: str, count: str) -> dict[str, int]:
    """Send SIGUSR1 and wait for the byte that acknowledges it, several times: the kernel merges what is not taken."""
    for _ in range(int(count)):
        os.kill(int(pid), signal.SIGUSR1)
        if os.read(0, 1) != b"!":
            raise EOFError("a signal was not acknowledged")
    return {"signals": int(count)}


PARTS: dict[str, Callable[..., dict[str, int]]] = {
    "echo-clients": echo_clients,
    "fifo-writer": fifo_writer,
    "signal-sender": signal_sender,
}


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
