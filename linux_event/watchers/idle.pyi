from collections.abc import Callable
from typing import Any, final

from ..loop import Loop
from ..watcher import Watcher

@final
class Idle(Watcher):
    def __init__(
        self,
        loop: Loop,
        callback: Callable[[Idle], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Idle], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Idle], object]) -> None: ...
