"""Child processes: started and waited for."""

from contextlib import closing

from ..meter import LostCallbacks, Meter
from ..peers import Peer

COMMAND = ["/bin/true"]
CAT = ["/bin/cat"]


def spawn_1(peer: Peer, size: int) -> dict[str, float]:
    """Start `true` and wait for its end, `size` times, one after the other."""
    return _spawn(peer, size, 1)


def spawn_16(peer: Peer, size: int) -> dict[str, float]:
    """The same with 16 at a time."""
    return _spawn(peer, size, 16)


def communicate_64k(peer: Peer, size: int) -> dict[str, float]:
    """Start `cat`, give it 64 KiB, take them back and wait for its end, `size` times."""
    data = bytes(64 << 10)
    with closing(peer.driver_class()()) as driver:
        driver.communicate(CAT, data, 1)
        with Meter() as meter:
            said = driver.communicate(CAT, data, size)
    if said != size * len(data):
        raise LostCallbacks(f"{said} of {size * len(data)} bytes came back")
    return meter.per(size)


def _spawn(peer: Peer, size: int, at_once: int) -> dict[str, float]:
    with closing(peer.driver_class()()) as driver:
        # What the first child needs beyond others, such as a thread or a handler, is no cost of a child.
        driver.spawn(COMMAND, 1, 1)
        with Meter() as meter:
            succeeded = driver.spawn(COMMAND, size, at_once)
    if succeeded != size:
        raise LostCallbacks(f"{succeeded} of {size} processes ended with status 0")
    return meter.per(size)
