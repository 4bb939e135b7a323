"""Send back each datagram to where it came from.

    python examples/20_udp_echo.py                 # UDP, port 7007 of this machine
    python examples/20_udp_echo.py --host ::1 --port 0
    python examples/20_udp_echo.py --unix echo.socket

    nc -u 127.0.0.1 7007                           # type lines, Ctrl-C ends it

Ctrl-C ends the server: what is queued is sent first. It prints how many datagrams and bytes there were.
"""

import argparse

from linux_event import Loop


class Echo:
    """A datagram socket that answers, and counts."""

    def __init__(self, loop, address):
        self.count = self.bytes = self.dropped = 0
        self.socket = loop.datagram(address)
        self.socket.on_datagram = self.on_datagram
        self.socket.on_error = self.on_error
        self.socket.on_drain = lambda datagram: datagram.resume_reading()
        self.socket.on_close = lambda datagram, error: loop.stop()

    def on_datagram(self, datagram, data, address):
        self.count += 1
        self.bytes += len(data)
        if address is None:
            self.dropped += 1  # a Unix socket without a name: there is no way back
        elif not datagram.send(data, address):
            # The answers do not leave as fast as questions come: these wait in the kernel until most answers have left.
            datagram.pause_reading()

    def on_error(self, datagram, error):
        # One answer was refused: whoever asked has gone. The others have nothing to do with it.
        self.dropped += 1
        print(f"not answered: {error}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Send datagrams back.")
    parser.add_argument("--host", default="127.0.0.1", help="a numeric address (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7007, help="0: one that is free (default 7007)")
    parser.add_argument("--unix", metavar="PATH", help="a Unix socket instead")
    options = parser.parse_args()

    with Loop() as loop:
        echo = Echo(loop, options.unix or (options.host, options.port))
        where = options.unix or ":".join(map(str, echo.socket.sockname[:2]))
        print(f"answering on {where}", flush=True)
        loop.signal("INT", lambda watcher, signum: echo.socket.close())
        loop.run()
    print(f"{echo.count} datagrams, {echo.bytes} bytes, {echo.dropped} not answered")


if __name__ == "__main__":
    main()
