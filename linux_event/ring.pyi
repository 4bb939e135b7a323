from typing import TypedDict

class _Probed(TypedDict):
    features: tuple[str, ...]
    operations: tuple[str, ...]

def liburing_version() -> str: ...
def probe() -> _Probed: ...
