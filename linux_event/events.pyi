import enum
from typing import Final

__all__ = ["CACHE", "Events", "parse_poll"]

class Events(enum.IntFlag):
    READ = 1
    PRIORITY = 2
    WRITE = 4
    ERROR = 8
    HANGUP = 16

    def __format__(self, spec: str) -> str: ...

CACHE: Final[tuple[Events, ...]]

def parse_poll(poll: str | Events) -> int: ...
