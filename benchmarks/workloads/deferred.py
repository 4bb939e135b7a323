"""Deferred calls: how fast the loop turns with nothing but callbacks to run."""

from contextlib import closing

from ..meter import LostCallbacks, Meter
from ..peers import Peer

BATCH = 1000


def chained_calls(peer: Peer, size: int) -> dict[str, float]:
    """Each of `size` callbacks defers the next one."""
    left = size
    with closing(peer.driver_class()()) as driver:
        defer, stop = driver.defer, driver.stop

        def step() -> None:
            nonlocal left
            left -= 1
            if left:
                defer(step)
            else:
                stop()

        defer(step)
        with Meter() as meter:
            driver.run()
    if left:
        raise LostCallbacks(f"{left} of {size} chained calls did not run")
    return meter.per(size)


def batched_calls(peer: Peer, size: int) -> dict[str, float]:
    """`size` callbacks, deferred 1000 at a time."""
    batches = max(1, size // BATCH)
    called = 0
    with closing(peer.driver_class()()) as driver:
        defer, stop = driver.defer, driver.stop

        def count() -> None:
            nonlocal called
            called += 1

        def step() -> None:
            nonlocal batches
            if not batches:
                stop()
                return
            batches -= 1
            for _ in range(BATCH - 1):
                defer(count)
            defer(step)

        expected = batches * (BATCH - 1)
        defer(step)
        with Meter() as meter:
            driver.run()
    if called != expected:
        raise LostCallbacks(f"{expected - called} of {expected} batched calls did not run")
    return meter.per(expected)
