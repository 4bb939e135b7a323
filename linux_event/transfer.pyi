from typing_extensions import disjoint_base

from .operation import Operation

@disjoint_base
class Transfer(Operation[int]): ...
