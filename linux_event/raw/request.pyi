from typing import final

from linux_event.loop import Loop
from linux_event.operation import Operation

@final
class Request(Operation[int]):
    @property
    def loop(self) -> Loop | None: ...  # type: ignore[override]
    @property
    def message(self) -> tuple[int, int, int] | None: ...
