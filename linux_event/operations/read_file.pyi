from typing import final

from ..operation import Operation

@final
class ReadFile(Operation[bytes]): ...
