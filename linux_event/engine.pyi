from typing_extensions import disjoint_base

from linux_event.requests import Requests

@disjoint_base
class Engine(Requests): ...
