from typing import final

from ..operation import Operation

@final
class WriteFile(Operation[int]): ...
