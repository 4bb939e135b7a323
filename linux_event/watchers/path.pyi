from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, final

from ..loop import Loop
from ..watcher import Watcher
from .happening import PathEvent

@final
class PathWatcher(Watcher):
    def __init__(
        self,
        loop: Loop,
        path: str | bytes | PathLike[str] | PathLike[bytes],
        events: Iterable[str],
        callback: Callable[[PathWatcher, PathEvent], object],
        *,
        recursive: bool = False,
        follow_symlinks: bool = False,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[PathWatcher, PathEvent], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[PathWatcher, PathEvent], object]) -> None: ...
    @property
    def path(self) -> str | bytes: ...
    @property
    def events(self) -> frozenset[str]: ...
    @property
    def recursive(self) -> bool: ...
    @property
    def follow_symlinks(self) -> bool: ...
