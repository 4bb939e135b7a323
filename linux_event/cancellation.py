"""The exceptions of what was cancelled. A module of its own, imported when the first one is needed: concurrent.futures brings
threading and logging along, which take longer to import than this whole package."""

from concurrent.futures import CancelledError, InvalidStateError

__all__ = ["CancelledError", "ChainCancelledError", "InvalidStateError"]


class ChainCancelledError(CancelledError, OSError):
    """An operation of a chain was not begun, because one before it failed: a CancelledError, and an OSError with ECANCELED."""
