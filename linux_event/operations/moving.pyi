from typing import final

from ..operation import Operation

@final
class Splice(Operation[int]): ...
