"""Timers that are cancelled, and timers that fire."""

import random
from contextlib import closing
from typing import Any

from ..meter import LostCallbacks, Meter
from ..peers import Peer

BATCH = 1000
SPREAD_SECONDS = 0.050
SEED = 20100


def timer_new(peer: Peer, size: int) -> dict[str, float]:
    """Create, start and cancel `size` timers, from callbacks of the running loop.

    1000 at a time, with an iteration of the loop between, so that what a loop
    puts off at the cancelling is done within the measurement.
    """
    return _in_batches(peer, size, "start_and_cancel_timers")


def timer_reuse(peer: Peer, size: int) -> dict[str, float]:
    """Start and stop one timer object `size` times, as a timeout that is renewed."""
    return _in_batches(peer, size, "restart_timer")


def timers_among_10(peer: Peer, size: int) -> dict[str, float]:
    """As `timer_new`, while 10 others wait."""
    return _in_batches(peer, size, "start_and_cancel_timers", 10)


def timers_among_1000(peer: Peer, size: int) -> dict[str, float]:
    """As `timer_new`, while 1 000 others wait."""
    return _in_batches(peer, size, "start_and_cancel_timers", 1000)


def timers_among_100000(peer: Peer, size: int) -> dict[str, float]:
    """As `timer_new`, while 100 000 others wait."""
    return _in_batches(peer, size, "start_and_cancel_timers", 100_000)


def _in_batches(peer: Peer, size: int, method: str, others: int = 0) -> dict[str, float]:
    batches = max(1, size // BATCH)
    operations = batches * BATCH
    fired = 0
    with closing(peer.driver_class()()) as driver:
        defer, stop, start_and_stop = driver.defer, driver.stop, getattr(driver, method)

        def fire(*_args: object) -> None:
            nonlocal fired
            fired += 1

        def step() -> None:
            nonlocal batches
            if not batches:
                stop()
                return
            batches -= 1
            start_and_stop(BATCH, fire)
            defer(step)

        if others:
            # Due before and after the ones that are measured, which last 60 s.
            uniform = random.Random(SEED).uniform
            driver.start_timers((uniform(30, 90) for _ in range(others)), fire)
        # A loop that cannot do it says so here, not inside a callback.
        start_and_stop(1, fire)
        defer(step)
        with Meter() as meter:
            driver.run()
    if batches or fired:
        raise LostCallbacks(f"{batches} batches of timers not started, {fired} cancelled timers fired")
    return meter.per(operations)


def timer_fire(peer: Peer, size: int) -> dict[str, float]:
    """Start `size` timers due at random times within 50 ms, and let all fire.

    The values ``cpu_fire`` and ``wall_fire`` leave the starting out.
    """
    left = size
    uniform = random.Random(SEED).uniform
    delays = [uniform(0, SPREAD_SECONDS) for _ in range(size)]
    with closing(peer.driver_class()()) as driver:
        stop = driver.stop

        def fire(_watcher: Any = None) -> None:
            nonlocal left
            left -= 1
            if not left:
                stop()

        with Meter() as starting:
            driver.start_timers(delays, fire)
        with Meter() as firing:
            driver.run()
    if left:
        raise LostCallbacks(f"{left} of {size} timers did not fire")
    start, fire_only = starting.per(size), firing.per(size)
    return {name: start[name] + fire_only[name] for name in start} | {
        f"{name}_fire": value for name, value in fire_only.items()
    }
