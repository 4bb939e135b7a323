"""Read-only mappings that show a loop's tables as they are now."""

from collections.abc import ItemsView, Mapping, ValuesView

__all__ = ["LiveView"]


class _LiveItems(ItemsView):
    """The items of a LiveView: what disappears while they are walked is left out."""

    __slots__ = ()

    def __iter__(self):
        for key in self._mapping:
            try:
                value = self._mapping[key]
            except KeyError:
                continue
            yield key, value


class _LiveValues(ValuesView):
    """The values of a LiveView: what disappears while they are walked is left out."""

    __slots__ = ()

    def __iter__(self):
        for _, value in self._mapping.items():
            yield value


class LiveView(Mapping):
    """A read-only mapping from ints onto a table that lives elsewhere; nothing is copied and nothing is cached.

    It shows the table as it is at the moment of each call. Iteration walks the keys that were there when it began, so
    the body may start, stop and destroy watchers; items() and values() leave out what has gone meanwhile.

    name: a str, what repr() calls the view.
    lookup: called with an int, returns the value or raises KeyError.
    keys: called with nothing, returns a list of the keys, its caller's own.
    count: called with nothing, returns the number of keys.

    A key of another type than int, or out of the table's range, is simply not in it: KeyError.
    """

    __slots__ = ("__weakref__", "_count", "_keys", "_lookup", "_name")

    def __init__(self, name, lookup, keys, count):
        self._name = name
        self._lookup = lookup
        self._keys = keys
        self._count = count

    def __getitem__(self, key):
        if not isinstance(key, int):
            raise KeyError(key)
        try:
            # int() makes a plain key of an enum's member: loop.signals[signal.SIGINT].
            return self._lookup(int(key))
        except OverflowError:
            # An int too big for the table's C key type.
            raise KeyError(key) from None

    def __iter__(self):
        return iter(self._keys())

    def __len__(self):
        return self._count()

    def items(self):
        """Return a set-like view of the (key, value) pairs."""
        return _LiveItems(self)

    def values(self):
        """Return a view of the values."""
        return _LiveValues(self)

    def __repr__(self):
        return f"<{self._name} {dict(self.items())!r}>"
