from types import TracebackType
from typing import Self, SupportsIndex, final

from .loop import Loop
from .statistics import PoolStatistics

@final
class BufferPool:
    def __init__(
        self,
        loop: Loop,
        count: SupportsIndex = 64,
        size: SupportsIndex = 16384,
        *,
        limit: SupportsIndex | None = None,
    ) -> None: ...
    def statistics(self) -> PoolStatistics: ...
    def close(self) -> None: ...
    def is_closed(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    @property
    def loop(self) -> Loop: ...
