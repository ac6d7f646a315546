"""A store that lives in memory, for simulation: it does what the one on disk does, and forgets.

No clock, no chance, no files, no threads may enter here. Nothing is hashed on the way out, since
nothing here can rot; what bit rot does to a node is shown by `MemoryStore.damage`.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

from xorbit.config import EXPIRED_LOOK_INTERVAL_S
from xorbit.errors import MisuseError
from xorbit.ids import Id
from xorbit.items import Block, Contact, Held, Item, ItemKey, size_of
from xorbit.pins import Order, Told
from xorbit.store.asked import Asked
from xorbit.store.base import (
    DAMAGED,
    STORED,
    Eviction,
    ReadResult,
    Usage,
    Write,
    WriteResult,
    decide,
    key_from_bytes,
    key_to_bytes,
    refuse_over_quota,
)
from xorbit.store.evict import choose
from xorbit.store.ledger import MemoryPins, MemoryTable, tend


class MemoryStore:
    """A `Store` in memory, with a quota in bytes (`items.size_of`)."""

    def __init__(
        self,
        quota_bytes: int,
        eviction: Eviction | None = None,
        clock: Callable[[], float] = float,  # time stands still at 0.0 unless somebody says more
    ) -> None:
        self._quota_bytes = quota_bytes
        self._eviction = eviction
        self._clock = clock
        self._expired_looked_at = -EXPIRED_LOOK_INTERVAL_S
        self._asked = Asked()
        self._times: dict[ItemKey, float] = {}
        self._pins: dict[ItemKey, float] = {}
        self._bytes = 0
        self._items: dict[ItemKey, Item] = {}
        self._damaged: set[ItemKey] = set()
        self._order: list[bytes] = []
        self._roots = MemoryTable()
        self._contacts: dict[bytes, tuple[Contact, ...]] = {}

    def read(self, keys: Sequence[ItemKey]) -> list[ReadResult]:
        """Return what is held under each key, DAMAGED where `damage` was."""
        self._asked.note(key for key in keys if key in self._items)
        return [DAMAGED if key in self._damaged else self._items.get(key) for key in keys]

    def peek(self, key: ItemKey) -> Item | None:
        """Return what is held under a key, without that it counts as asked for: for a checker."""
        return self._items.get(key)

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
            self._remove(key)
        return len(damaged)

    def scan(self, start: Id, count: int) -> list[Held]:
        """Return up to `count` items in keyspace order, from `start` on, with age and pin."""
        lost = [key for key in self._pins if key not in self._items and key.id >= start]
        keys = sorted([*self.keys_from(start, count), *lost], key=key_to_bytes)[:count]
        return [self._held(key) for key in keys]

    def _held(self, key: ItemKey) -> Held:
        now, pinned = self._clock(), self._pins.get(key)
        age_s = max(now - self._times.get(key, now), 0.0)
        pinned_age_s = None if pinned is None else max(now - pinned, 0.0)
        return Held(key, age_s, pinned_age_s, key not in self._items)

    def drop(self, keys: Sequence[ItemKey], aged_s: float = 0.0) -> list[ItemKey]:
        """Remove those of the keys that are held, not pinned and so old; return them."""
        held = [k for k in dict.fromkeys(keys) if k in self._items and k not in self._pins]
        dropped = [key for key in held if self._held(key).age_s >= aged_s]
        for key in dropped:
            self._remove(key)
        return dropped

    def pin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Pin those of the keys that are held, refreshed as of now; return which are held."""
        self._pins.update({key: self._clock() // 1 for key in keys if key in self._items})
        return self.have(keys)

    def unpin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Let go of pins; return which of the keys had one."""
        return [self._pins.pop(key, None) is not None for key in keys]

    def tend(self, orders: Sequence[Order]) -> list[Told]:
        """Do these orders of an owner; return what became of each."""
        pins, now = MemoryPins(self._pins), self._clock()
        return [tend(order, self._roots, pins, now) for order in orders]

    def write_and_tend(
        self, batch: Sequence[Write], orders: Sequence[Order]
    ) -> tuple[list[WriteResult], list[Told]] | None:
        """Do both."""
        return self.write(batch), self.tend(orders)

    def touch(self, keys: Sequence[ItemKey], *, pins: bool = False) -> list[bool]:
        """Note that an owner (ours, with `pins`) has refreshed these; return which are held."""
        for key in keys:
            if key in self._items:
                self._stamp(key, self._clock())
        self.pin([key for key in keys if pins and key in self._pins])
        return self.have(keys)

    def keys_from(self, start: Id, count: int) -> list[ItemKey]:
        """Return up to `count` keys in keyspace order, from `start` on (no wrap-around)."""
        first = bisect_left(self._order, start)
        found = map(key_from_bytes, self._order[first : first + count])
        return [key for key in found if key is not None]

    def save_contacts(self, network: bytes, contacts: Sequence[Contact]) -> None:
        """Keep these contacts for a network, in place of those kept before."""
        self._contacts[network] = tuple(contacts)

    def load_contacts(self, network: bytes) -> tuple[Contact, ...]:
        """Return the contacts kept for a network."""
        return self._contacts.get(network, ())

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
        result = self._replace(write)
        if result.code == "stored":
            self._stamp(write.key, self._clock() - write.age_s)
            if write.pin:
                self._pins[write.key] = max(0.0, self._clock() - write.age_s) // 1
        return result

    def _stamp(self, key: ItemKey, when: float) -> None:
        """Whole seconds, as on disk; never earlier than what is known."""
        self._times[key] = max(self._times.get(key, 0.0), when // 1, 0.0)

    def _remove(self, key: ItemKey) -> None:
        self._damaged.discard(key)
        self._bytes -= size_of(self._items.pop(key))
        self._times.pop(key, None)
        del self._order[bisect_left(self._order, key_to_bytes(key))]

    def _replace(self, write: Write) -> WriteResult:
        held = self._items.get(write.key)
        intact = None if write.key in self._damaged else held
        if answer := _answer(intact, write):
            return answer
        wanted, freed = size_of(write.item), size_of(held) if held is not None else 0
        if refusal := self._refuse(write, wanted, freed):
            return refusal
        if held is None:
            insort(self._order, key_to_bytes(write.key))
        self._items[write.key] = write.item
        self._damaged.discard(write.key)
        self._bytes += wanted - freed
        return STORED

    def _refuse(self, write: Write, wanted: int, freed: int) -> WriteResult | None:
        refusal = refuse_over_quota(self.usage(), wanted, freed)
        if refusal is None or self._eviction is None:
            return refusal
        now = self._clock()
        if now - self._expired_looked_at >= EXPIRED_LOOK_INTERVAL_S:
            self._expired_looked_at = now
            before = max(now - self._eviction.lifetime_s, 0.0) // 1
            expired = [key for key, when in self._times.items() if when < before]
            self.drop([key for key in expired if key != write.key])
        lacking = self._bytes + wanted - freed - self._quota_bytes
        if 0 < lacking <= self._quota_bytes:
            own = self._eviction.own
            chosen = choose(own, write, lacking, self.keys_from, self._frees, self._asked.when)
            self.drop(chosen)
        return refuse_over_quota(self.usage(), wanted, freed)

    def _frees(self, key: ItemKey) -> int | None:
        return None if key in self._pins else size_of(self._items[key])


def _answer(intact: Item | None, write: Write) -> WriteResult | None:
    """Blocks of one key are equal and know no `cas`; the other items have versions."""
    if isinstance(write.item, Block):
        return STORED if intact is not None else None
    return decide(intact, write)
