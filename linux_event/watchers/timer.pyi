from collections.abc import Callable
from typing import Any, SupportsIndex, final

from ..loop import Loop
from ..watcher import Watcher

@final
class Timer(Watcher):
    def __init__(
        self,
        loop: Loop,
        after: float | SupportsIndex,
        callback: Callable[[Timer], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Timer], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Timer], object]) -> None: ...
    @property
    def after(self) -> float: ...
    @after.setter
    def after(self, after: float | SupportsIndex) -> None: ...
    @property
    def remaining(self) -> float: ...

@final
class Periodic(Watcher):
    def __init__(
        self,
        loop: Loop,
        interval: float | SupportsIndex,
        callback: Callable[[Periodic], object],
        *,
        offset: float | SupportsIndex | None = None,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Periodic], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Periodic], object]) -> None: ...
    @property
    def interval(self) -> float: ...
    @interval.setter
    def interval(self, interval: float | SupportsIndex) -> None: ...
    @property
    def offset(self) -> float: ...
    @property
    def remaining(self) -> float: ...
    @property
    def missed(self) -> int: ...
