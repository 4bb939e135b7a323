"""What an I/O watcher waits for and what happened: the flags of poll(2)."""

import enum

__all__ = ["CACHE", "Events", "parse_poll"]


class Events(enum.IntFlag, boundary=enum.STRICT):
    """A set of readiness events of one file descriptor.

    The values are those of the kernel (``POLLIN``, ``POLLPRI``, ``POLLOUT``, ``POLLERR``, ``POLLHUP``), see poll(2).
    ``READ``, ``WRITE`` and ``PRIORITY`` can be asked for; ``ERROR`` and ``HANGUP`` are always reported.

    ``str(events)`` is one letter for each event in the order ``r w p e h``: ``"r"``, ``"rw"``, ``"re"``, and ``""`` for
    none. ``format(events)`` and f-strings print the same. A value with any other bit raises ``ValueError``.
    """

    READ = 1
    PRIORITY = 2
    WRITE = 4
    ERROR = 8
    HANGUP = 16

    def __str__(self):
        return _TEXTS[self._value_]

    def __format__(self, spec):
        # The mixed-in int would print a number where str() prints letters.
        # A specification that asks for a number still gets one.
        if spec.endswith(tuple("bcdnoxX")):
            return int.__format__(self._value_, spec)
        return format(str(self), spec)


# A letter of a poll string and the event it stands for, in the order in which str() writes them.
_LETTERS = {
    "r": Events.READ,
    "w": Events.WRITE,
    "p": Events.PRIORITY,
    "e": Events.ERROR,
    "h": Events.HANGUP,
}

_TEXTS = tuple("".join(letter for letter, flag in _LETTERS.items() if value & flag) for value in range(32))

# The flags object of each value, so that the dispatch of an event is an index and not a call of the enum.
CACHE = tuple(Events(value) for value in range(32))

# What can be asked for, as plain ints: arithmetic on flags costs twenty times as much.
_POLL_BITS = {letter: int(_LETTERS[letter]) for letter in "rwp"}
_POLL_MASK = sum(_POLL_BITS.values())


def parse_poll(poll):
    """Return the events named by `poll` as an int of the bits READ, PRIORITY and WRITE.

    `poll` is a str of the letters ``r``, ``w`` and ``p``, each at most once and in any order, or an ``Events`` value
    with at least one of READ, WRITE and PRIORITY. ERROR and HANGUP in it are dropped: poll(2) reports them unasked.

    Raises ``TypeError`` for any other type (a plain int too: ``select`` has constants of other meanings) and
    ``ValueError`` for an empty string, a letter that is unknown or given twice, or flags with nothing to wait for.
    """
    if isinstance(poll, str):
        bits = 0
        for letter in poll:
            bit = _POLL_BITS.get(letter, 0)
            if not bit or bits & bit:
                bits = 0
                break
            bits |= bit
        if not bits:
            raise ValueError(f"poll must name events by the letters 'r', 'w' and 'p', each at most once, not {poll!r}")
        return bits
    if isinstance(poll, Events):
        bits = int(poll) & _POLL_MASK
        if not bits:
            raise ValueError(f"poll must have at least one of READ, WRITE and PRIORITY, not {poll!r}")
        return bits
    raise TypeError(f"poll must be a str such as 'r' or 'rw', or Events flags, not {poll!r} ({type(poll).__name__})")
