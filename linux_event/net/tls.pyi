from typing import final

from .transport import Filter

@final
class Tls(Filter): ...
