from . import resolve as resolve

__all__ = ["resolve"]
