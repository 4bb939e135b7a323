from typing import final

from ..operation import Operation

@final
class PathTruncate(Operation[None]): ...
