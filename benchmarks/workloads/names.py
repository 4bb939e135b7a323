"""Addresses of names, one after the other."""

from contextlib import closing

from ..meter import LostCallbacks, Meter
from ..peers import Peer


def resolve_numeric(peer: Peer, size: int) -> dict[str, float]:
    """An address in numbers, for which nobody has to be asked."""
    return _resolve(peer, size, "127.0.0.1")


def resolve_local(peer: Peer, size: int) -> dict[str, float]:
    """A name that the hosts file has."""
    return _resolve(peer, size, "localhost")


def _resolve(peer: Peer, size: int, host: str) -> dict[str, float]:
    with closing(peer.driver_class()()) as driver:
        # What the first name needs beyond others, such as threads, is no cost of a name.
        driver.resolve(host, 10)
        with Meter() as meter:
            found = driver.resolve(host, size)
    if found != size:
        raise LostCallbacks(f"{found} of {size} names were found")
    return meter.per(size)
