from collections.abc import Callable
from subprocess import Popen
from typing import Any, SupportsIndex, final

from ..loop import Loop
from ..watcher import Watcher

def pretend(*operations: str) -> None: ...

@final
class Child(Watcher):
    def __init__(
        self,
        loop: Loop,
        pid: SupportsIndex | Popen[Any],
        callback: Callable[[Child, int, int | None], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[Child, int, int | None], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[Child, int, int | None], object]) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
