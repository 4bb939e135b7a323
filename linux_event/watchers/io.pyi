from collections.abc import Callable
from typing import Any, final

from _typeshed import FileDescriptorLike

from ..events import Events
from ..loop import Loop
from ..watcher import Watcher

@final
class IOWatcher(Watcher):
    def __init__(
        self,
        loop: Loop,
        fd: FileDescriptorLike,
        poll: str | Events,
        callback: Callable[[IOWatcher, Events], object],
        *,
        edge: bool = False,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> None: ...
    @property
    def callback(self) -> Callable[[IOWatcher, Events], object] | None: ...
    @callback.setter
    def callback(self, callback: Callable[[IOWatcher, Events], object]) -> None: ...
    @property
    def fd(self) -> int: ...
    @property
    def poll(self) -> Events: ...
    @poll.setter
    def poll(self, poll: str | Events) -> None: ...
    @property
    def edge(self) -> bool: ...
