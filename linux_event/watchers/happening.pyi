from typing import Any, final

@final
class PathEvent:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def path(self) -> Any: ...  # str or bytes, as the path was given
    @property
    def names(self) -> frozenset[str]: ...
    @property
    def cookie(self) -> int: ...
