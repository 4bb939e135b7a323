from typing import Any, final

from ..operation import Operation

@final
class ManyOperation(Operation[Any]): ...
