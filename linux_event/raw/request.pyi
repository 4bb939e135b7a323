from typing import final

from linux_event.operation import Operation

@final
class Request(Operation[int]):
    @property
    def message(self) -> tuple[int, int, int] | None: ...
