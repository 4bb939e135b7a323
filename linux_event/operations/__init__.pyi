from .. import chain as chain
from . import files as files

__all__ = ["chain", "files"]
