from concurrent.futures import CancelledError as CancelledError
from concurrent.futures import InvalidStateError as InvalidStateError

__all__ = ["CancelledError", "ChainCancelledError", "InvalidStateError"]

class ChainCancelledError(CancelledError, OSError): ...
