from typing import final

from ..transfer import Transfer

@final
class Copy(Transfer): ...
