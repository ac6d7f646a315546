"""What the users of a simulated network did and saw, and whether it may be so.

A user is never handed what does not prove itself, and a reader, or a follower, never sees a record
go back: what breaks that is kept as a sentence. What was acknowledged, and by how many, is kept for
the judge (judge.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

from xorbit.errors import ItemError
from xorbit.items import Item, ItemKey, Record, check_is, version
from xorbit.sim.node import SimNode


@dataclass(slots=True)
class Looked:
    """One lookup of a user's: how far, how long, and whether it found the truly closest node."""

    hops: int
    took_s: float
    messages: int
    right: bool


@dataclass(slots=True)
class Followed:
    """A record that a user follows at a node, in one life of it."""

    node: SimNode
    life: int
    key: ItemKey
    heard: tuple[int, bytes] | None = None
    """The newest version that was pushed to it."""


@dataclass(slots=True)
class History:
    """Everything that users did in one run."""

    lookups: list[Looked] = field(default_factory=list[Looked])
    puts_ok: int = 0
    puts_failed: int = 0
    gets_ok: int = 0
    gets_failed: int = 0
    get_s: list[float] = field(default_factory=list[float])
    """How long each get took that found its item."""
    acknowledged: dict[ItemKey, Item] = field(default_factory=dict[ItemKey, Item])
    """What some node says it stored, the newest version of each."""
    copies: dict[ItemKey, int] = field(default_factory=dict[ItemKey, int])
    """How many nodes said so of that version."""
    seen: dict[tuple[int, ItemKey], tuple[int, bytes]] = field(
        default_factory=dict[tuple[int, ItemKey], tuple[int, bytes]]
    )
    """The newest version of a record that each reader has seen."""
    followed: list[Followed] = field(default_factory=list[Followed])
    faults: list[str] = field(default_factory=list[str])

    def take(self, parts: "Iterable[History]") -> None:
        """Put together what the users of all shards did; what is acknowledged all know alike."""
        parts = list(parts)
        self.lookups = [one for part in parts for one in part.lookups]
        self.get_s = [one for part in parts for one in part.get_s]
        self.puts_ok = sum(part.puts_ok for part in parts)
        self.puts_failed = sum(part.puts_failed for part in parts)
        self.gets_ok = sum(part.gets_ok for part in parts)
        self.gets_failed = sum(part.gets_failed for part in parts)
        self.faults = [one for part in parts for one in part.faults]

    def note_acknowledged(self, key: ItemKey, item: Item, copies: int) -> None:
        """An item was stored at so many nodes, one at least."""
        held = self.acknowledged.get(key)
        if held is None or version(item) > version(held):
            self.acknowledged[key], self.copies[key] = item, copies

    def note_got(self, reader: SimNode, key: ItemKey, item: Item) -> None:
        """A reader was handed an item: one that proves itself, and never an older one."""
        try:
            check_is(item, key)
        except ItemError as error:
            self.faults.append(f"node {reader.number} handed out what proves nothing: {error}")
        if isinstance(item, Record):
            self.note_read(reader, key, item)

    def note_read(self, reader: SimNode, key: ItemKey, record: Record) -> None:
        """A reader saw a version of a record: never an older one than before."""
        before = self.seen.get((reader.number, key))
        now = version(record)
        if before is not None and now < before:
            self._went_back("read", reader, key, now, before)
        self.seen[reader.number, key] = max(now, before or now)

    def note_pushed(self, by: Followed, record: Record) -> None:
        """A follower was told of a version: always a newer one."""
        now = version(record)
        if by.heard is not None and now <= by.heard:
            self._went_back("was told of", by.node, by.key, now, by.heard)
        by.heard = max(now, by.heard or now)

    def _went_back(
        self,
        did: str,
        reader: SimNode,
        key: ItemKey,
        now: tuple[int, bytes],
        before: tuple[int, bytes],
    ) -> None:
        self.faults.append(
            f"node {reader.number} {did} version {now[0]} of {key.id.hex()[:8]} "
            f"after it had seen {before[0]}"
        )


def holds(node: SimNode, key: ItemKey, item: Item | None = None) -> bool:
    """Return whether a node has something on disk, that very version of `item` or a newer one."""
    held = node.disk.store.peek(key)
    return held is not None and (item is None or version(held) >= version(item))


def percentile(values: list[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed; 0 where there is none.

    The nearest-rank method.
    """
    if not values:
        return 0.0
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)]


def mean(values: list[float]) -> float:
    """Return the mean; 0 where there is none."""
    return sum(values) / len(values) if values else 0.0
