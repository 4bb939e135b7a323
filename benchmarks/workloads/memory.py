"""Resident memory of timers and watchers that wait for something that does not happen."""

import random
from contextlib import closing

from ..drivers import Driver
from ..meter import MemoryMeter
from ..peers import Peer
from .descriptors import eventfds

FAR_SECONDS = 3600.0
SEED = 20100


def memory_per_timer(peer: Peer, size: int) -> dict[str, float]:
    """Resident bytes of each of `size` timers, all with the same callback."""
    uniform = random.Random(SEED).uniform
    delays = [uniform(FAR_SECONDS, 2 * FAR_SECONDS) for _ in range(size)]
    with closing(peer.driver_class()()) as driver:
        _turn(driver)
        with MemoryMeter() as meter:
            driver.start_timers(delays, _unexpected)
            _turn(driver)
    return {"memory": meter.growth / size}


def memory_per_watcher(peer: Peer, size: int) -> dict[str, float]:
    """Resident bytes of each of `size` watchers of one eventfd each, all with the same callback."""
    with eventfds(size) as fds, closing(peer.driver_class()()) as driver:
        pairs = [(fd, None) for fd in fds]
        _turn(driver)
        with MemoryMeter() as meter:
            driver.watch(pairs, _unexpected)
            _turn(driver)
    return {"memory": meter.growth / size}


def _unexpected(*args: object) -> None:
    raise AssertionError(f"callback of an idle timer or watcher called with {args}")


def _turn(driver: Driver) -> None:
    """Let the loop ask the kernel once, so that it has set up what it was told to."""

    def stop(_watcher: object = None) -> None:
        driver.stop()

    driver.start_timers([0.001], stop)
    driver.run()
