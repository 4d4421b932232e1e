"""A cache of values read from the state, which never keeps one that a change has outdated."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class VersionedCache(Generic[K, V]):
    """A cache that is emptied by every change, and that rejects values read before the last one.

    The race: a reader awaits the database and gets the old row. Before it runs again, another task
    or process commits a change, `Watch` notices it and calls `clear`. If the reader then stored its
    old row, the cache would serve it until the next change: a revoked key would stay valid.

    So every `clear` increases `version`. A reader takes the version before it reads and passes it
    to `put`, which refuses the value when a change came in between. The reader may still use the
    value for its own call, which began before the change was noticed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._values: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value, or None when it has to be read."""
        return self._values.get(key)

    def put(self, key: K, value: V, version: int) -> bool:
        """Store a value that was read at this version; return whether it was still current."""
        if version != self.version:
            return False
        self._values[key] = value
        return True

    def values(self) -> list[V]:
        """Return all values."""
        return list(self._values.values())

    def clear(self) -> list[V]:
        """Remove all values, because something has changed, and return them."""
        removed = self.values()
        self.version += 1
        self._values = {}
        return removed
