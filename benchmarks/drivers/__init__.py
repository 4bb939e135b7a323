"""Drivers: the operations that workloads need, in each loop's own fastest form."""

from .base import Driver, NotOffered

__all__ = ["Driver", "NotOffered"]
