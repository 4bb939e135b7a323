from .. import chain as chain
from . import copies as copies
from . import files as files
from . import moving as moving
from . import paths as paths

__all__ = ["chain", "copies", "files", "moving", "paths"]
