from collections.abc import Callable
from typing import Any, final

from ..loop import Loop
from ..watcher import Watcher

@final
class Wakeup(Watcher):
    def __init__(
        self,
        loop: Loop,
        callback: Callable[[Wakeup, int], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Wakeup, int], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Wakeup, int], object]) -> None: ...
    def notify(self) -> None: ...
