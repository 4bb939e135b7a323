"""What the running kernel's io_uring can do, by name."""


class Features(frozenset):
    """The names of what the running kernel's io_uring can do: operations (``"WAITID"``) and features (``"EXT_ARG"``).

    A frozen set of the kernel's names without ``IORING_OP_`` and ``IORING_FEAT_``. ``in`` also takes them with these, and in
    small letters, so that ``"waitid" in ring.features`` tells whether the method ``waitid`` can be used.
    """

    __slots__ = ()

    def __contains__(self, name):
        if isinstance(name, str):
            name = name.upper().removeprefix("IORING_OP_").removeprefix("IORING_FEAT_")
        return frozenset.__contains__(self, name)

    def __repr__(self):
        return f"{type(self).__name__}({sorted(self)})"
