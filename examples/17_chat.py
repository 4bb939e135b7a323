"""A chat room: what one says the others read. The first line that a client sends is its name.

    python examples/17_chat.py --port 8010
    nc 127.0.0.1 8010                                # in other terminals, one for each guest
    /who, /name NAME, /quit                          # what can be said beside text

Nobody waits for a guest who does not read: when more than `--limit` bytes wait for it, it has to leave. Port 0 takes any
free port; the first line of output says which. Ctrl-C ends it.
"""

import argparse
import contextlib
import re

from linux_event import Loop

LINE_MAX = 2048
NAME = re.compile(r"[^\W_][\w.-]{0,19}")


class Room:
    """Who is here, by name."""

    def __init__(self, limit):
        self.limit = limit
        self.guests = {}

    def on_connect(self, stream):
        Guest(self, stream)

    def tell(self, text, but=None):
        """Send a line to all, except one."""
        data = f"{text}\n".encode()
        for guest in self.guests.values():
            if guest is not but:
                guest.send(data)


class Guest:
    """One connection. It is in the room once it has a name."""

    def __init__(self, room, stream):
        self.room = room
        self.stream = stream
        self.name = None
        self.rest = b""  # the beginning of a line whose end has not come yet
        # Nobody needs to keep the guest: the loop keeps its open stream, which keeps the methods, which keep it.
        stream.on_data = self.on_data
        stream.on_close = self.on_close
        self.send(b"* what is your name?\n")

    def send(self, data):
        if self.stream.is_closing():
            return  # It has left, or has to leave, and on_close will be called.
        self.stream.write(data)
        if self.stream.write_buffer_size > self.room.limit:
            print(f"{self.name} does not read, and has to leave", flush=True)
            self.stream.abort()

    def on_data(self, stream, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if stream.is_closing():
                return
            self.on_line(line.decode(errors="replace").rstrip("\r"))
        if len(self.rest) > LINE_MAX:
            self.send(b"* that is too long\n")
            stream.close()

    def on_line(self, line):
        # Nobody is to move the cursors of others.
        line = "".join(letter for letter in line if letter.isprintable())
        if self.name is None:
            self.take_name(line)
        elif not line.startswith("/"):
            if line:
                self.room.tell(f"{self.name}: {line}", but=self)
        elif line == "/who":
            self.send(f"* here: {', '.join(self.room.guests)}\n".encode())
        elif line.startswith("/name "):
            self.take_name(line.removeprefix("/name "))
        elif line == "/quit":
            self.send(b"* good-bye\n")
            self.stream.close()
        else:
            self.send(b"* /who, /name NAME, /quit\n")

    def take_name(self, name):
        if not NAME.fullmatch(name):
            self.send(b"* a name has up to 20 letters and digits, try another one\n")
        elif name in self.room.guests:
            self.send(b"* somebody has that name, try another one\n")
        elif self.name is None:
            self.room.tell(f"* {name} has come")
            self.room.guests[name] = self
            self.name = name
            self.send(f"* here: {', '.join(self.room.guests)}\n".encode())
        else:
            del self.room.guests[self.name]
            self.room.guests[name] = self
            self.room.tell(f"* {self.name} is now {name}")
            self.name = name

    def on_close(self, stream, error):
        """Called once for each stream, whichever way it has ended."""
        if self.name is not None:
            del self.room.guests[self.name]
            self.room.tell(f"* {self.name} has left")


def main():
    parser = argparse.ArgumentParser(description="A chat room.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--limit", type=int, default=1 << 20, help="bytes that may wait for one who does not read")
    arguments = parser.parse_args()
    with Loop() as loop:
        listener = loop.listen((arguments.host, arguments.port), Room(arguments.limit).on_connect)
        print(f"listening on {arguments.host}:{listener.sockname[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
