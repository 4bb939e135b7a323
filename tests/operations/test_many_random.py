"""Random lives of receives and accepts: whatever happens in whatever order, the bytes are those that were sent."""

import contextlib
import random
import socket
from concurrent.futures import CancelledError

import pytest
from _support import finish, made_loop, run_until, scaled, tcp_pair

from linux_event import BufferPool

RINGS = (
    {},
    {"entries": 8, "cq_entries": 8},
    {"entries": 1, "cq_entries": 2, "max_events": 3},
    {"max_events": 1},
    {"sqpoll": True, "entries": 16},
)


class Connection:
    """One connection whose data are numbered, so that a byte that is lost, doubled or misplaced shows."""

    def __init__(self, loop, draw, pools):
        self.loop, self.draw, self.pools = loop, draw, pools
        self.stack = contextlib.ExitStack()
        if draw.random() < 0.5:
            self.a, self.b = self.stack.enter_context(tcp_pair())
        else:
            self.a, self.b = (self.stack.enter_context(end) for end in socket.socketpair())
            self.a.setblocking(False)
        self.secret = draw.randrange(256)
        self.sent = self.received = 0
        self.op = None
        self.is_ended = self.is_lossy = False
        self.cancelled = 0
        self.begin()

    def at(self, start, count):
        return bytes((self.secret + i * 7) & 255 for i in range(start, start + count))

    def begin(self):
        self.op = self.loop.recv_many(self.b, self.on_data, pool=self.draw.choice(self.pools))

    def on_data(self, result, error):
        if error is not None:
            assert type(error) is CancelledError
            assert self.cancelled == 1
            self.cancelled = 0
            self.begin()
            return
        assert self.cancelled == 0, "data after cancel()"
        if not result:
            self.is_ended = True
            self.op = None
            assert self.is_lossy or self.received == self.sent
            return
        if self.is_lossy:
            # What was received and not handed over at the cancellation is lost; what comes is still in order.
            while result != self.at(self.received, len(result)):
                self.received += 1
                assert self.received <= self.sent
        assert result == self.at(self.received, len(result))
        self.received += len(result)
        if self.draw.random() < 0.05:
            self.cancel()
        if self.draw.random() < 0.02:
            raise ValueError("of the test")

    def cancel(self):
        if self.op is not None and not self.cancelled and self.op.cancel():
            self.cancelled = 1
            self.is_lossy = True

    def step(self):
        chance = self.draw.random()
        if chance < 0.7 and self.sent < 200_000:
            count = self.draw.choice((1, 10, 100, 1000, 20_000))
            with contextlib.suppress(BlockingIOError):
                self.sent += self.a.send(self.at(self.sent, count))
        elif chance < 0.75:
            self.cancel()

    def end(self):
        if self.a.fileno() >= 0:
            if self.draw.random() < 0.5:
                self.a.shutdown(socket.SHUT_WR)
            else:
                self.a.close()


@pytest.mark.parametrize("arguments", RINGS, ids=repr)
@pytest.mark.parametrize("number", range(2))
def test_random_receives(arguments, number):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    with made_loop(**arguments) as loop:
        failed = []
        loop.on_error = lambda source, error: None if isinstance(error, ValueError) else failed.append(error)
        pools = [BufferPool(loop, 2, 16, limit=32), BufferPool(loop, 1, 1000), None]
        connections = [Connection(loop, draw, pools) for _ in range(12)]
        try:
            for _ in range(scaled(120, least=40)):
                for connection in connections:
                    connection.step()
                loop.run_once(0)
                assert not failed
            for connection in connections:
                connection.end()
            run_until(loop, lambda: failed or all(connection.is_ended for connection in connections))
            assert not failed
            assert all(connection.is_lossy or connection.received == connection.sent for connection in connections)
            finish(loop)
            assert loop.statistics().pool_buffers_in_use == 0
        finally:
            for connection in connections:
                connection.stack.close()


@pytest.mark.parametrize("arguments", RINGS, ids=repr)
def test_random_accepts(arguments):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    with made_loop(**arguments) as loop, contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        made, accepted, is_ended = [], [], []
        is_cancelling = False

        def on_connection(result, error):
            nonlocal is_cancelling
            if error is not None:
                assert type(error) is CancelledError
                is_cancelling = False
                begin()
                return
            assert not is_cancelling
            accepted.append(result[1])
            result[0].close()

        def begin():
            nonlocal op
            op = None if is_ended else loop.accept_many(server, on_connection)

        op = None
        begin()
        for _ in range(scaled(200, least=50)):
            for _ in range(draw.randrange(4)):
                client = stack.enter_context(socket.create_connection(server.getsockname()))
                made.append(client.getsockname())
            loop.run_once(0)
            if draw.random() < 0.05 and not is_cancelling:
                is_cancelling = op.cancel()
        # Those that were accepted when it was cancelled are closed; nobody is told twice, and order is kept.
        assert [name for name in made if name in set(accepted)] == accepted
        run_until(loop, lambda: not is_cancelling)
        count = len(accepted)
        last = stack.enter_context(socket.create_connection(server.getsockname()))
        run_until(loop, lambda: accepted[-1:] == [last.getsockname()])
        assert len(accepted) > count
        is_ended.append(True)
        op.cancel()
        finish(loop)
