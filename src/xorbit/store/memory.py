"""A store that lives in memory, for simulation: it does what the one on disk does, and forgets.

No clock, no chance, no files, no threads may enter here. Nothing is hashed on the way out, since
nothing here can rot; what bit rot does to a node is shown by `MemoryStore.damage`.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from xorbit.errors import MisuseError
from xorbit.ids import Id
from xorbit.items import Block, Item, ItemKey, size_of
from xorbit.store.base import (
    DAMAGED,
    STORED,
    ReadResult,
    Usage,
    Write,
    WriteResult,
    decide,
    key_from_bytes,
    key_to_bytes,
    refuse_over_quota,
)


class MemoryStore:
    """A `Store` in memory, with a quota in bytes (`items.size_of`)."""

    def __init__(self, quota_bytes: int) -> None:
        self._quota_bytes = quota_bytes
        self._bytes = 0
        self._items: dict[ItemKey, Item] = {}
        self._damaged: set[ItemKey] = set()
        self._order: list[bytes] = []

    def read(self, keys: Sequence[ItemKey]) -> list[ReadResult]:
        """Return what is held under each key, DAMAGED where `damage` was."""
        return [DAMAGED if key in self._damaged else self._items.get(key) for key in keys]

    def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """Keep a batch; return what became of each write."""
        return [self._write_one(write) for write in batch]

    def have(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Return which keys are held, damaged ones among them."""
        return [key in self._items for key in keys]

    def drop_damaged(self, keys: Sequence[ItemKey]) -> int:
        """Remove those of the keys that are damaged; return how many were."""
        damaged = [key for key in dict.fromkeys(keys) if key in self._damaged]
        for key in damaged:
            self._damaged.remove(key)
            self._bytes -= size_of(self._items.pop(key))
            del self._order[bisect_left(self._order, key_to_bytes(key))]
        return len(damaged)

    def keys_from(self, start: Id, count: int) -> list[ItemKey]:
        """Return up to `count` keys in keyspace order, from `start` on (no wrap-around)."""
        first = bisect_left(self._order, start)
        found = map(key_from_bytes, self._order[first : first + count])
        return [key for key in found if key is not None]

    def usage(self) -> Usage:
        """Return how many items and bytes are held, and the quota."""
        return Usage(len(self._items), self._bytes, self._quota_bytes)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of, and a simulated restart keeps its store."""

    def damage(self, key: ItemKey) -> None:
        """Let what is held under this key be damaged from now on, as bit rot would.

        Raises:
            MisuseError: nothing is held there.
        """
        if key not in self._items:
            raise MisuseError(f"expected a key that is held, got {key.kind.name} {key.id.hex()}")
        self._damaged.add(key)

    def _write_one(self, write: Write) -> WriteResult:
        held = self._items.get(write.key)
        intact = None if write.key in self._damaged else held
        if answer := _answer(intact, write):
            return answer
        wanted, freed = size_of(write.item), size_of(held) if held is not None else 0
        if refusal := refuse_over_quota(self.usage(), wanted, freed):
            return refusal
        if held is None:
            insort(self._order, key_to_bytes(write.key))
        self._items[write.key] = write.item
        self._damaged.discard(write.key)
        self._bytes += wanted - freed
        return STORED


def _answer(intact: Item | None, write: Write) -> WriteResult | None:
    """Blocks of one key are equal and know no `cas`; the other items have versions."""
    if isinstance(write.item, Block):
        return STORED if intact is not None else None
    return decide(intact, write)
