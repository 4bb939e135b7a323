"""Resident memory of timers and watchers that wait for something that does not happen."""

import os
import random
import socket
from contextlib import closing

from ..drivers import Driver
from ..meter import MemoryMeter
from ..peers import Peer
from .descriptors import eventfds, room_for_fds

FAR_SECONDS = 3600.0
SEED = 20100
WARM_CONNECTIONS = 50


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


def memory_per_connection(peer: Peer, size: int) -> dict[str, float]:
    """Resident bytes of each of `size` connections that were accepted and wait for data, all with the same callbacks."""
    room_for_fds(2 * size)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=min(size, 4096)) as server,
        closing(peer.driver_class()()) as driver,
    ):
        server.setblocking(False)
        clients: list[int] = []

        def connect(count: int) -> None:
            for _ in range(count):
                client = socket.create_connection(server.getsockname())
                clients.append(client.detach())

        try:
            # What the first ones bring with them, pools and buffers, is not of each.
            driver.hold(server, WARM_CONNECTIONS, connect)
            with MemoryMeter() as meter:
                driver.hold(server, size, connect)
        finally:
            for fd in clients:
                os.close(fd)
    return {"memory": meter.growth / size}


def _unexpected(*args: object) -> None:
    raise AssertionError(f"callback of an idle timer or watcher called with {args}")


def _turn(driver: Driver) -> None:
    """Let the loop ask the kernel once, so that it has set up what it was told to."""

    def stop(_watcher: object = None) -> None:
        driver.stop()

    driver.start_timers([0.001], stop)
    driver.run()
