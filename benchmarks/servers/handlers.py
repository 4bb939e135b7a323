"""What servers answer, for every loop the same: the loops are compared, not the parsers.

A handler belongs to one connection: ``handler(data)`` takes what has come and returns what is to be written, perhaps nothing.
"""

from collections.abc import Callable

Handler = Callable[[bytes], bytes]

# What a server does with a connection: send back what comes, send it to all connections, close it, or answer.
MODES = ("echo", "broadcast", "close", "http", "redis")


def maker_of_handlers(mode: str, body: int) -> Callable[[], Handler]:
    """Return what makes the handler of a connection, for the modes that answer.

    Args:
        mode: ``http`` or ``redis``.
        body: bytes in an answer of HTTP.
    """
    if mode == "http":
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % body + b"x" * body
        return lambda: Http(answer)
    store: dict[bytes, bytes] = {}
    return lambda: Redis(store)


class Http:
    """HTTP/1.1 with keep-alive: one fixed answer to every GET."""

    BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.rest = b""

    def __call__(self, data: bytes) -> bytes:
        if self.rest:
            data = self.rest + data
        *heads, self.rest = data.split(b"\r\n\r\n")
        if len(heads) == 1:
            return self._one(heads[0])
        return b"".join([self._one(head) for head in heads])

    def _one(self, head: bytes) -> bytes:
        line, _, fields = head.partition(b"\r\n")
        words = line.split(b" ")
        headers = dict(field.split(b": ", 1) for field in fields.split(b"\r\n")) if fields else {}
        if len(words) != 3 or words[0] != b"GET" or words[2] != b"HTTP/1.1" or b"Host" not in headers:
            return self.BAD
        return self.answer


class Redis:
    """As much of Redis' protocol, RESP2, as redis-benchmark speaks for SET and GET.

    All that has come is taken apart by one call of split(), however many commands it holds, and all their answers are
    returned together. Keys and values must not hold ends of lines, as those of redis-benchmark never do.
    """

    def __init__(self, store: dict[bytes, bytes]) -> None:
        self.store = store
        self.rest = b""

    def __call__(self, data: bytes) -> bytes:
        if self.rest:
            data = self.rest + data
        lines = data.split(b"\r\n")
        last = len(lines) - 1
        answers = []
        at = 0
        while at < last:
            # "*2", "$3", "GET", "$1", "k": every word has its length in the line above it.
            end = at + 1 + 2 * int(lines[at][1:])
            if end > last:
                break
            answers.append(self._run(lines[at + 2 : end : 2]))
            at = end
        self.rest = b"\r\n".join(lines[at:])
        return b"".join(answers)

    def _run(self, words: list[bytes]) -> bytes:
        match words:
            case [b"GET", key]:
                value = self.store.get(key)
                return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
            case [b"SET", key, value]:
                self.store[key] = value
                return b"+OK\r\n"
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"CONFIG", b"GET", name]:
                return b"*2\r\n$%d\r\n%b\r\n$0\r\n\r\n" % (len(name), name)
        return b"-ERR unknown command\r\n"
