"""Calls from another thread: how soon they run, and how many there can be."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

from ..meter import LostCallbacks, Meter
from ..peers import Peer


def post_latency(peer: Peer, size: int) -> dict[str, float]:
    """`size` calls from another thread, each made when the one before has run and the loop has gone to sleep.

    The value ``p50`` is the median time from the call to its callback.
    """
    left = size
    called_at = 0
    latencies = []
    answered = threading.Semaphore(0)
    clock = time.perf_counter_ns
    with closing(peer.driver_class()()) as driver:
        post, stop = driver.poster(), driver.stop

        def answer() -> None:
            nonlocal left
            latencies.append(clock() - called_at)
            left -= 1
            if not left:
                stop()
            answered.release()

        def ask() -> None:
            nonlocal called_at
            for _ in range(size):
                called_at = clock()
                post(answer)
                answered.acquire()

        values = _with_thread(ask, driver.run).per(size)
    if left:
        raise LostCallbacks(f"{left} of {size} calls from another thread did not run")
    return values | {"p50": float(median(latencies))}


def post_burst(peer: Peer, size: int) -> dict[str, float]:
    """`size` calls from another thread, as fast as it can."""
    left = size
    with closing(peer.driver_class()()) as driver:
        post, stop = driver.poster(), driver.stop

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                stop()

        def call() -> None:
            for _ in range(size):
                post(count)

        meter = _with_thread(call, driver.run)
    if left:
        raise LostCallbacks(f"{left} of {size} calls from another thread did not run")
    return meter.per(size)


def notify_burst(peer: Peer, size: int) -> dict[str, float]:
    """`size` notifications from another thread, as fast as it can; a loop may merge them if it counts them."""
    left = size
    with closing(peer.driver_class()()) as driver:
        stop = driver.stop

        def notified(count: int) -> None:
            nonlocal left
            left -= count
            if not left:
                stop()

        notify = driver.notifier(notified)

        def call() -> None:
            for _ in range(size):
                notify()

        meter = _with_thread(call, driver.run)
    if left:
        raise LostCallbacks(f"{left} of {size} notifications were not told")
    return meter.per(size)


def _with_thread(body: Callable[[], None], run: Callable[[], Any]) -> Meter:
    begin = threading.Event()

    def wait_and_call() -> None:
        begin.wait()
        body()

    thread = threading.Thread(target=wait_and_call, daemon=True)
    thread.start()
    with Meter() as meter:
        begin.set()
        run()
    thread.join()
    return meter
