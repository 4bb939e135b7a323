from .. import chain as chain
from . import files as files
from . import many as many

__all__ = ["chain", "files", "many"]
