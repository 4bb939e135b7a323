"""Streams that are idle for too long."""

import errno
import gc
import time

import pytest
from _net import FAMILIES, Heard, receive_all, settle, stream_and_peer
from _support import finish


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def both(loop, family, tmp_path):
    with stream_and_peer(loop, family, tmp_path) as ends:
        yield ends
        ends[0].abort()
        settle(loop)


# -- Idle timeout ------------------------------------------------------------------------------------------------------


def test_idle_timeout(loop, both):
    stream, peer = both
    heard = Heard(stream)
    assert stream.idle_timeout is None
    stream.idle_timeout = 0.05
    assert stream.idle_timeout == 0.05
    began = time.monotonic()
    finish(loop)
    assert time.monotonic() - began >= 0.05
    assert heard.calls == ["close"]
    [error] = heard.errors
    assert type(error) is TimeoutError
    assert error.errno == errno.ETIMEDOUT
    assert "nothing was received or sent for 0.05 seconds" in str(error)
    assert receive_all(peer) == b""


def test_bytes_in_either_direction_keep_it_from_being_idle(loop, both):
    stream, peer = both
    heard = Heard(stream)
    stream.idle_timeout = 0.2
    began = time.monotonic()
    ticks = []

    def tick(watcher):
        ticks.append(watcher)
        if len(ticks) == 15:
            watcher.destroy()
        elif len(ticks) % 2:
            peer.sendall(b"x")
        else:
            stream.write(b"y")

    loop.periodic(0.03, tick)
    finish(loop)
    assert heard.calls.count("close") == 1
    assert time.monotonic() - began >= 14 * 0.03 + 0.15
    assert isinstance(heard.errors[0], TimeoutError)


def test_idle_timeout_can_be_taken_back(loop, both):
    stream, _peer = both
    heard = Heard(stream)
    stream.idle_timeout = 0.01
    stream.idle_timeout = None
    assert loop.statistics().timers == 0
    loop.run(0.05)
    assert heard.calls == []
    for value, error in (
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        ("1", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error):
            stream.idle_timeout = value
    stream.idle_timeout = 1000
    stream.abort()
    stream.idle_timeout = 1000
    finish(loop)
    assert loop.statistics().timers == 0


def test_a_slow_reader_is_idle_too(loop, both):
    stream, _peer = both
    heard = Heard(stream)
    stream.write(bytes(16 << 20))
    stream.idle_timeout = 0.1
    finish(loop)
    assert isinstance(heard.errors[0], TimeoutError)
    gc.collect()
