"""Regions: which nodes are closest to a point, where that is known and where it must be asked.

The routing table knows all nodes around us; farther away it is a sample. Whoever walks through the
keyspace asks for the nodes around a point only where nothing learned before tells them: one lookup
for a region, not one for each key. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xorbit.core.state import State
from xorbit.ids import ID_BITS, Id, as_id, as_number, distance
from xorbit.items import Contact

EVERYWHERE = 1 << ID_BITS


@dataclass(frozen=True, slots=True)
class Region:
    """All nodes within a distance of a point."""

    centre: Id
    reach: int
    """How far from the centre nobody is missing."""
    closest: Callable[[Id, int], list[Contact]]
    """Return so many of the nodes that are known, the closest to a point first."""

    def holds(self, point: Id, count: int) -> bool:
        """Return whether nobody is missing among the `count` closest to a point.

        XOR distance keeps the triangle inequality: who is nearer to the point than the last of
        them is within `reach` of the centre, and known.
        """
        found = self.closest(point, count)
        away = distance(self.centre, point)
        if not away or self.reach >= EVERYWHERE:
            return True
        return len(found) == count and away + distance(point, found[-1].id) <= self.reach


def around_us(state: State) -> Region:
    """Return what the table knows all of: everything, where that is less than one answer holds.

    A node looks itself up now and then: nobody is missing among the `closest_count` around it, up
    to the first who has only been heard of.
    """
    count = state.limits.closest_count
    near = state.table.closest(state.own, count, failing=True)
    reach = EVERYWHERE if len(near) < count else distance(state.own, near[-1].id)
    for unproved in state.heard.closest(state.own, 1):
        reach = min(reach, distance(state.own, unproved.id) - 1)
    return Region(state.own, reach, state.table.closest)


def around(centre: Id, found: Sequence[Contact]) -> Region:
    """Return what a lookup of `centre` has found all of, closest first."""
    reach = distance(centre, found[-1].id) if found else 0

    def closest(point: Id, count: int) -> list[Contact]:
        return sorted(found, key=lambda contact: distance(point, contact.id))[:count]

    return Region(centre, reach, closest)


def near(state: State, peer: Id) -> tuple[Id, Id]:
    """Return the first and the last point where a node may be among those who keep a copy.

    The keyspace is halved towards it: where the other half has so many nodes itself, each of them
    is nearer to all points there. What is left when first it has not is the answer.
    """
    number = as_number(peer)
    count = state.limits.replicas + state.limits.surplus_holders_max

    def is_full(index: int) -> bool:
        point = as_id(number ^ (1 << index))
        found = state.table.closest(point, count)
        return len(found) == count and not distance(point, found[-1].id) >> index

    index = next((index for index in reversed(range(ID_BITS)) if not is_full(index)), 0)
    below = (2 << index) - 1
    return as_id(number & ~below), as_id(number | below)


def apart(parts: Iterable[tuple[Id, Id]]) -> list[tuple[Id, Id]]:
    """Return the same in order, without those that lie in others; no two overlap in part."""
    kept: list[tuple[Id, Id]] = []
    for first, last in sorted(set(parts), key=lambda part: (part[0], -as_number(part[1]))):
        if not kept or first > kept[-1][1]:
            kept.append((first, last))
    return kept
