"""What the users of a simulated network did and saw, and whether it may be so.

The promises: what was acknowledged stays readable while not all who hold it are gone, and a reader
never sees a record go back. What breaks the second is kept as a sentence.
"""

from dataclasses import dataclass, field
from math import ceil

from xorbit.items import Item, ItemKey, Record, version
from xorbit.sim.node import SimNode
from xorbit.sim.world import World


@dataclass(slots=True)
class Looked:
    """One lookup of a user's: how far, how long, and whether it found the truly closest node."""

    hops: int
    took_s: float
    messages: int
    right: bool


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
    seen: dict[tuple[int, ItemKey], tuple[int, bytes]] = field(
        default_factory=dict[tuple[int, ItemKey], tuple[int, bytes]]
    )
    """The newest version of a record that each reader has seen."""
    faults: list[str] = field(default_factory=list[str])

    def note_acknowledged(self, key: ItemKey, item: Item) -> None:
        """An item was stored at one node at least."""
        held = self.acknowledged.get(key)
        is_older = (
            isinstance(item, Record) and isinstance(held, Record) and version(item) <= version(held)
        )
        if not is_older:
            self.acknowledged[key] = item

    def note_read(self, reader: SimNode, key: ItemKey, record: Record) -> None:
        """A reader saw a version of a record: never an older one than before."""
        before = self.seen.get((reader.number, key))
        now = version(record)
        if before is not None and now < before:
            self.faults.append(
                f"node {reader.number} read version {now[0]} of {key.id.hex()[:8]} "
                f"after it had seen {before[0]}"
            )
        self.seen[reader.number, key] = max(now, before or now)


def holders(world: World, key: ItemKey) -> list[SimNode]:
    """Return all nodes that hold an item on disk, dead ones too."""
    return [node for node in world.nodes if node.disk.store.have([key])[0]]


def is_excused(world: World, key: ItemKey) -> bool:
    """Return whether an item may be unreadable: everybody who holds it is dead or lies."""
    return not any(node.alive and node.liar is None for node in holders(world, key))


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
