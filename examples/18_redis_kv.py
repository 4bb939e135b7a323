"""A key-value store that speaks the protocol of Redis (RESP2): strings, lists, hashes, and keys that expire.

    python examples/18_redis_kv.py --port 6380
    redis-cli -p 6380                                # in another terminal
    redis-benchmark -p 6380 -t get,set,incr,lpush,rpush,lpop,hset,mset -n 100000 -P 16 -q

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it, and what it knows is lost.

What makes it fast: all that has come is taken apart by one call of split(), however many commands it holds, and all their
answers leave in one write.
"""

import argparse
import contextlib
import heapq
import inspect
import time
from collections import deque

from linux_event import Loop, Stream

COMMAND_MAX = 128 << 20
BULK_MAX = 64 << 20
ARGUMENTS_MAX = 1 << 20
LINE_MAX = 64 << 10

OK = b"+OK\r\n"
NIL = b"$-1\r\n"
EMPTY = b"*0\r\n"
ZERO = b":0\r\n"
ONE = b":1\r\n"


class Failure(Exception):
    """The answer to a command that cannot be done."""


class Quit(Exception):
    """The client wants to end the connection."""


class ProtocolError(Exception):
    """What came is not the protocol: the connection ends."""


WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
SYNTAX = "ERR syntax error"


class Parser:
    """Makes commands, lists of bytes, of what comes in pieces of any size."""

    def __init__(self):
        self.pieces = []  # What has come and is not a whole command yet.
        self.size = 0
        self.needed = 0  # With fewer bytes there is no whole command, so nobody needs to look.

    def feed(self, data):
        """Return the commands that are complete now, and the error that comes after them, or None."""
        if self.pieces:
            self.pieces.append(data)
            self.size += len(data)
            if self.size < self.needed:
                return [], None
            data = b"".join(self.pieces)
            self.pieces = []
        # What stands after the last end of line is not complete. A value may hold ends of lines too; its length says so,
        # and it is put together again.
        parts = data.split(b"\r\n")
        last = len(parts) - 1
        commands = []
        at = 0
        try:
            while at < last:
                start = at
                head = parts[at]
                at += 1
                if head[:1] != b"*":
                    # A line of words, as somebody types it.
                    if len(head) > LINE_MAX:
                        raise ProtocolError("too big inline request")
                    if words := head.split():
                        commands.append(words)
                    continue
                command = []
                for _ in range(length_of(head, ARGUMENTS_MAX, "multibulk")):
                    # There have to be its length, the value, and something after that, if only the end of its line.
                    if at >= last:
                        return commands, self.keep(parts, start, 0)
                    head = parts[at]
                    if head[:1] != b"$":
                        raise ProtocolError(f"expected '$', got '{chr(head[0]) if head else ' '}'")
                    length = length_of(head, BULK_MAX, "bulk")
                    at += 1
                    value = parts[at]
                    if len(value) != length:
                        first = at
                        size = len(value)
                        while size < length and at < last:
                            at += 1
                            size += 2 + len(parts[at])
                        # Behind the last end of line the first half of the next one may stand.
                        if size > length + (at == last):
                            raise ProtocolError("a bulk string is longer than announced")
                        if size == length:
                            value = b"\r\n".join(parts[first : at + 1])
                    if at >= last:
                        return commands, self.keep(parts, start, length)
                    command.append(value)
                    at += 1
                if command:
                    commands.append(command)
        except ProtocolError as error:
            return commands, error
        if parts[last]:
            return commands, self.keep(parts, last, 0)
        return commands, None

    def keep(self, parts, start, length):
        """Keep the beginning of a command for later. `length` is that of the value that is not complete, or 0."""
        rest = b"\r\n".join(parts[start:])
        if not length and len(rest) - rest.rfind(b"\r\n") > LINE_MAX:
            return ProtocolError("too big inline request")
        if len(rest) > COMMAND_MAX:
            return ProtocolError("too big request")
        self.pieces = [rest]
        self.size = len(rest)
        # The value begins after the last "$" line, whose place is not worth looking for: this is less than needed, which is
        # fine, and more than enough for not looking at a big value again with each piece of it.
        self.needed = max(self.size + 1, length)
        return None


def length_of(head, limit, what):
    """The number in "*3" or "$5"."""
    digits = head[1:]
    if not digits.isdigit() or len(digits) > 10 or int(digits) > limit:
        raise ProtocolError(f"invalid {what} length")
    return int(digits)


# -- Answers -----------------------------------------------------------------------------------------------------------


def bulk(value):
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(values):
    return b"*%d\r\n%b" % (len(values), b"".join(map(bulk, values)))


def failure(error):
    return f"-{error}\r\n".encode()


# -- What is stored ----------------------------------------------------------------------------------------------------


def integer(text):
    # int() would also take blanks and underscores.
    if not text.removeprefix(b"-").isdigit() or len(text) > 20:
        raise Failure(NOT_AN_INTEGER)
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise Failure(NOT_AN_INTEGER)
    return number


def pairs(words, name):
    """What comes in twos."""
    if len(words) % 2 or not words:
        raise Failure(f"ERR wrong number of arguments for '{name}' command")
    return zip(words[::2], words[1::2], strict=True)


def arguments_of(function):
    """How many words a command may have, its name included: as many as its method takes."""
    parameters = inspect.signature(function).parameters.values()
    least = 1 + sum(p.kind is not p.VAR_POSITIONAL and p.default is p.empty for p in parameters)
    has_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return least, ARGUMENTS_MAX if has_more else 1 + len(parameters)


class Store:
    """The keys with their values: bytes, a deque or a dict. A method do_NAME for each command; it returns the answer."""

    def __init__(self, loop):
        self.loop = loop
        self.started = time.monotonic()
        self.values = {}
        self.deadlines = {}  # For keys that expire: when, by time.monotonic().
        self.queue = []  # The same as a heap; what is not in `deadlines` any more, or with another time, is passed over.
        self.timer = loop.timer(0, self.on_timer, ref=False, start=False)
        self.done = 0
        # Names are looked up as they come, and if need be in capitals.
        self.commands = {}
        for name in dir(self):
            if name.startswith("do_"):
                function = getattr(self, name)
                name = name.removeprefix("do_")
                entry = (function, *arguments_of(function))
                self.commands[name.encode()] = self.commands[name.upper().encode()] = entry

    def execute(self, command):
        """Return the answer to a command."""
        entry = self.commands.get(command[0]) or self.commands.get(command[0].upper())
        if entry is None:
            return failure(f"ERR unknown command '{printable(command[0])}'")
        function, least, most = entry
        if not least <= len(command) <= most:
            return failure(f"ERR wrong number of arguments for '{printable(command[0].lower())}' command")
        self.done += 1
        try:
            return function(*command[1:])
        except Failure as error:
            return failure(error)

    # Keys that expire: nobody sees one that is over, and the timer removes those that nobody asks for.

    def get(self, key, kind):
        """The value of a key that has to be of this kind, or None."""
        if key in self.deadlines and self.deadlines[key] <= time.monotonic():
            self.remove(key)
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise Failure(WRONG_TYPE)
        return value

    def has(self, key):
        if key in self.deadlines and self.deadlines[key] <= time.monotonic():
            self.remove(key)
        return key in self.values

    def remove(self, key):
        self.deadlines.pop(key, None)
        return self.values.pop(key, None) is not None

    def expire_in(self, key, seconds):
        deadline = time.monotonic() + seconds
        self.deadlines[key] = deadline
        heapq.heappush(self.queue, (deadline, key))
        if self.queue[0][1] is key:
            self.set_timer()
        elif len(self.queue) > 1000 + 2 * len(self.deadlines):
            self.queue = [(deadline, key) for key, deadline in self.deadlines.items()]
            heapq.heapify(self.queue)

    def set_timer(self):
        self.timer.stop()
        self.timer.after = max(0, min(self.queue[0][0] - time.monotonic(), 3600))
        self.timer.start()

    def on_timer(self, timer):
        now = time.monotonic()
        # Some at a time: those whose commands wait get their turn in between.
        for _ in range(1000):
            if not self.queue or self.queue[0][0] > now:
                break
            deadline, key = heapq.heappop(self.queue)
            if self.deadlines.get(key) == deadline:
                self.remove(key)
        if self.queue:
            self.set_timer()

    # The connection and the server.

    def do_ping(self, text=None):
        return b"+PONG\r\n" if text is None else bulk(text)

    def do_echo(self, text):
        return bulk(text)

    def do_select(self, number):
        if integer(number) != 0:
            raise Failure("ERR DB index is out of range")
        return OK

    def do_client(self, what, *arguments):
        return OK  # SETNAME and SETINFO, which clients send unasked.

    def do_command(self, *arguments):
        return ZERO if arguments and arguments[0].upper() == b"COUNT" else EMPTY

    def do_config(self, what, *arguments):
        if what.upper() == b"GET" and arguments:
            # Nothing is written to disk, which redis-benchmark wants to know.
            known = {b"save": b"", b"appendonly": b"no", b"maxmemory": b"0"}
            return array([text for name in arguments if name in known for text in (name, known[name])])
        raise Failure("ERR unknown subcommand")

    def do_info(self, *sections):
        facts = {
            "redis_version": "7.0.0",
            "redis_mode": "standalone",
            "uptime_in_seconds": int(time.monotonic() - self.started),
            "connected_clients": self.loop.statistics().streams,
            "total_commands_processed": self.done,
        }
        text = "# Server\r\n" + "".join(f"{name}:{value}\r\n" for name, value in facts.items())
        return bulk(f"{text}# Keyspace\r\ndb0:keys={len(self.values)},expires={len(self.deadlines)}\r\n".encode())

    def do_dbsize(self):
        return b":%d\r\n" % len(self.values)

    def do_flushall(self, mode=b""):
        self.values.clear()
        self.deadlines.clear()
        self.queue.clear()
        return OK

    def do_quit(self):
        raise Quit

    # Any key.

    def do_del(self, key, *keys):
        return b":%d\r\n" % sum(self.has(key) and self.remove(key) for key in (key, *keys))

    def do_exists(self, key, *keys):
        return b":%d\r\n" % sum(map(self.has, (key, *keys)))

    def do_type(self, key):
        kinds = {bytes: b"string", deque: b"list", dict: b"hash"}
        return b"+%b\r\n" % (kinds[type(self.values[key])] if self.has(key) else b"none")

    def do_expire(self, key, seconds):
        return self.expire(key, integer(seconds))

    def do_pexpire(self, key, milliseconds):
        return self.expire(key, integer(milliseconds) / 1000)

    def expire(self, key, after):
        if not self.has(key):
            return ZERO
        if after <= 0:
            self.remove(key)
        else:
            self.expire_in(key, after)
        return ONE

    def do_persist(self, key):
        return ONE if self.has(key) and self.deadlines.pop(key, None) is not None else ZERO

    def do_ttl(self, key):
        return self.left(key, 1)

    def do_pttl(self, key):
        return self.left(key, 1000)

    def left(self, key, scale):
        if not self.has(key):
            return b":-2\r\n"
        if key not in self.deadlines:
            return b":-1\r\n"
        return b":%d\r\n" % round((self.deadlines[key] - time.monotonic()) * scale)

    # Strings.

    def do_get(self, key):
        value = self.get(key, bytes)
        return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)

    def do_set(self, key, value, *options):
        if options:
            return self.set_with_options(key, value, [option.upper() for option in options])
        self.values[key] = value
        if self.deadlines:
            self.deadlines.pop(key, None)
        return OK

    def set_with_options(self, key, value, options):
        seconds = wanted = None
        keeps = False
        words = iter(options)
        for word in words:
            if word in (b"EX", b"PX") and seconds is None:
                amount = next(words, None)
                if amount is None:
                    raise Failure(SYNTAX)
                seconds = integer(amount) / (1 if word == b"EX" else 1000)
                if seconds <= 0:
                    raise Failure("ERR invalid expire time in 'set' command")
            elif word in (b"NX", b"XX") and wanted is None:
                wanted = word == b"XX"
            elif word == b"KEEPTTL":
                keeps = True
            else:
                raise Failure(SYNTAX)
        if keeps and seconds is not None:
            raise Failure(SYNTAX)
        if wanted is not None and self.has(key) != wanted:
            return NIL
        deadline = self.deadlines.get(key) if keeps and self.has(key) else None
        self.values[key] = value
        if seconds is not None:
            self.expire_in(key, seconds)
        elif deadline is None:
            self.deadlines.pop(key, None)
        return OK

    def do_mset(self, *words):
        for key, value in pairs(words, "mset"):
            self.do_set(key, value)
        return OK

    def do_mget(self, key, *keys):
        keys = (key, *keys)
        return array([self.values[key] if self.has(key) and type(self.values[key]) is bytes else None for key in keys])

    def do_incrby(self, key, step):
        return self.add(key, integer(step))

    def do_incr(self, key):
        return self.add(key, 1)

    def do_decr(self, key):
        return self.add(key, -1)

    def add(self, key, step):
        value = self.get(key, bytes)
        number = (0 if value is None else integer(value)) + step
        if not -(1 << 63) <= number < 1 << 63:
            raise Failure("ERR increment or decrement would overflow")
        self.values[key] = b"%d" % number
        return b":%d\r\n" % number

    # Lists.

    def list_of(self, key):
        values = self.get(key, deque)
        if values is None:
            values = self.values[key] = deque()
        return values

    def do_lpush(self, key, value, *values):
        found = self.list_of(key)
        found.extendleft((value, *values))
        return b":%d\r\n" % len(found)

    def do_rpush(self, key, value, *values):
        found = self.list_of(key)
        found.extend((value, *values))
        return b":%d\r\n" % len(found)

    def do_lpop(self, key):
        return self.pop(key, deque.popleft)

    def do_rpop(self, key):
        return self.pop(key, deque.pop)

    def pop(self, key, take):
        found = self.get(key, deque)
        if found is None:
            return NIL
        value = take(found)
        if not found:
            self.remove(key)
        return bulk(value)

    def do_llen(self, key):
        return b":%d\r\n" % len(self.get(key, deque) or ())

    def do_lrange(self, key, first, last):
        first, last = integer(first), integer(last)
        found = self.get(key, deque) or ()
        first = max(0, first + len(found) if first < 0 else first)
        last = min(len(found) - 1, last + len(found) if last < 0 else last)
        return array([found[at] for at in range(first, last + 1)])

    # Hashes.

    def do_hset(self, key, *words):
        fields = pairs(words, "hset")
        found = self.get(key, dict)
        if found is None:
            found = self.values[key] = {}
        before = len(found)
        found.update(fields)
        return b":%d\r\n" % (len(found) - before)

    def do_hget(self, key, field):
        return bulk((self.get(key, dict) or {}).get(field))

    def do_hdel(self, key, field, *fields):
        found = self.get(key, dict) or {}
        before = len(found)
        for name in (field, *fields):
            found.pop(name, None)
        gone = before - len(found)
        if gone and not found:
            self.remove(key)
        return b":%d\r\n" % gone

    def do_hgetall(self, key):
        return array([text for item in (self.get(key, dict) or {}).items() for text in item])

    def do_hlen(self, key):
        return b":%d\r\n" % len(self.get(key, dict) or ())


def printable(text):
    return "".join(letter for letter in text[:40].decode("latin-1") if letter.isprintable())


# -- Connections -------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, store, stream):
        self.store = store
        self.parser = Parser()
        stream.on_data = self.on_data
        # A client that sends commands and does not read the answers has to wait.
        stream.on_drain = Stream.resume_reading

    def on_data(self, stream, data):
        commands, error = self.parser.feed(data)
        execute = self.store.execute
        answers = []
        try:
            for command in commands:
                answers.append(execute(command))
        except Quit:
            self.finish(stream, [*answers, OK])
            return
        if error is not None:
            answers.append(failure(f"ERR Protocol error: {error}"))
            self.finish(stream, answers)
        elif not stream.write(b"".join(answers)):
            stream.pause_reading()

    def finish(self, stream, answers):
        """Say the last words, and wait for the client to close: what it sends meanwhile must not destroy them by a reset."""
        stream.write(b"".join(answers))
        stream.write_eof()
        stream.on_data = lambda stream, data: None
        stream.idle_timeout = 5


def main():
    parser = argparse.ArgumentParser(description="A key-value store that speaks the protocol of Redis.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6380)
    arguments = parser.parse_args()
    with Loop() as loop:
        store = Store(loop)
        listener = loop.listen((arguments.host, arguments.port), lambda stream: Client(store, stream))
        print(f"listening on {arguments.host}:{listener.sockname[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
