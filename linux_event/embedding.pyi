from typing_extensions import disjoint_base

from linux_event.engine import Engine

@disjoint_base
class Embedding(Engine): ...
