from collections.abc import Callable, Iterable
from typing import Any, final

from _typeshed import StrOrBytesPath

from ..loop import Loop
from ..watcher import Watcher

def pretend(*abilities: str) -> None: ...

@final
class MountEvent:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def path(self) -> Any: ...  # str or bytes, as the path that is watched
    @property
    def names(self) -> frozenset[str]: ...
    @property
    def pid(self) -> int: ...

@final
class MountWatcher(Watcher):
    def __init__(
        self,
        loop: Loop,
        path: StrOrBytesPath,
        events: Iterable[str],
        callback: Callable[[MountWatcher, MountEvent], object],
        *,
        own: bool = True,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[MountWatcher, MountEvent], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[MountWatcher, MountEvent], object]) -> None: ...
    @property
    def path(self) -> str | bytes: ...
    @property
    def events(self) -> frozenset[str]: ...
    @property
    def own(self) -> bool: ...
