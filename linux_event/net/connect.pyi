from typing import Any, final

from ..promise import Promise
from .stream import Stream

@final
class Connecting(Promise[Stream]):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
