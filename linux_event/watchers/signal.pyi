from collections.abc import Callable
from typing import Any, NamedTuple, final

from ..loop import Loop
from ..watcher import Watcher

class SignalInfo(NamedTuple):
    pid: int | None
    uid: int | None
    code: int
    status: int | None = None
    value: int | None = None

@final
class unblocked:
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...

@final
class Signal(Watcher):
    def __init__(
        self,
        loop: Loop,
        signal: int | str,
        callback: Callable[[Signal, int], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Signal, int], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Signal, int], object]) -> None: ...
    @property
    def signum(self) -> int: ...
    @property
    def info(self) -> SignalInfo | None: ...
