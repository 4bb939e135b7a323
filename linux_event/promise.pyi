from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import disjoint_base

from .operation import Operation

_T = TypeVar("_T")

@disjoint_base
class Promise(Operation[_T]): ...

def settle(promise: Promise[_T], value: _T, /) -> bool: ...
def fail(promise: Promise[Any], error: Exception, /) -> bool: ...
def when_abandoned(promise: Promise[Any], function: Callable[[], object], /) -> None: ...
