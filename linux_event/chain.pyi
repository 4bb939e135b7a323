from types import TracebackType
from typing import Any, Self, final

from .operation import Operation

@final
class Chain:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    @property
    def operations(self) -> list[Operation[Any]]: ...
