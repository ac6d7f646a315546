"""Crowds: nodes around a point that stand far closer to each other than chance would put them.

Whoever chooses its id can move in right around an item with as many nodes as one answer names: then
all who look for the item find only these, hand their copies to them, and are told of nobody else
(Sridhar et al., "Content Censorship in the InterPlanetary File System", NDSS 2024). So those found
are held against the density of our own neighbourhood. A crowd is asked as all others are, but items
are kept by those around it, who are found by looking for points beside. To take honest nodes for a
crowd costs those lookups, and little else: all are asked.
"""

from collections.abc import Callable, Sequence

from xorbit.config import CELL_BITS, CROWD_HALVES, CROWD_MIN, CROWDED, NEIGHBOURS_PER_CELL
from xorbit.core.find import RegionWork
from xorbit.core.lookup import Lookup
from xorbit.core.state import State, Work
from xorbit.core.work import drive_lookup, may_work_unasked
from xorbit.ids import ID_BITS, Id, as_id, as_number, distance
from xorbit.items import Contact
from xorbit.wire.message import Request


def spacing(state: State) -> int | None:
    """Return how far nodes are apart, from our own neighbours; None as long as we know too few.

    Neither a crowd around us nor one beside us changes that: of the neighbours only the farther
    half counts, and those who stand very close to each other count as one.
    """
    count = state.limits.closest_count
    cells: dict[tuple[int, int], int] = {}
    for contact in state.table.closest(state.own, count * NEIGHBOURS_PER_CELL):
        away = distance(state.own, contact.id)
        shift = max(away.bit_length() - CELL_BITS, 0)
        cells.setdefault((shift, away >> shift), away)
    away_by_rank = [*cells.values()][: 2 * count]
    if len(away_by_rank) < count:
        return None
    half = len(away_by_rank) // 2
    return (away_by_rank[-1] - away_by_rank[half - 1]) // (len(away_by_rank) - half)


def crowd(state: State, target: Id, found: Sequence[Contact], apart: int | None) -> dict[Id, None]:
    """Return whom of those found, the closest to the target first, stand too close to each other.

    These are any r in a row, or five, that have the room of less than one where nodes are so far
    `apart`.
    """
    count = max(state.limits.replicas, CROWD_MIN)
    crowd: dict[Id, None] = {}
    if apart is None:
        return crowd
    away = [distance(target, contact.id) for contact in found]
    for first, (near, far) in enumerate(zip(away, away[count - 1 :], strict=False)):
        if (far - near) * CROWDED < count * apart:
            crowd |= dict.fromkeys(contact.id for contact in found[first : first + count])
    return crowd


def crowd_last(state: State, target: Id, found: Sequence[Contact]) -> list[Contact]:
    """Return those found, the closest to the target first, with a crowd behind all others."""
    hidden = crowd(state, target, found, spacing(state))
    return sorted(found, key=lambda contact: contact.id in hidden)


def drive_item_lookup(
    state: State, work: Work, lookup: Lookup, ask: Callable[[Contact], Request]
) -> bool:
    """Ask whom a lookup for an item wants asked, and past a crowd; return whether it has finished.

    As soon as so many have answered as a lookup of nodes needs, or all, points beside the target
    are looked up if these are a crowd, and those found there are asked as well.
    """
    is_over = drive_lookup(state, work, lookup, ask)
    if not lookup.is_past_crowd and (is_over or lookup.asked_count >= state.limits.lookup_width):
        found = lookup.closest(state.limits.closest_count)
        is_crowd = bool(crowd(state, lookup.target, found, spacing(state)))
        lookup.is_past_crowd = is_crowd or is_over
        if is_crowd and state.joined and may_work_unasked(state):
            _look_past(state, work, lookup)
            return False
    return is_over and not lookup.is_looking_beside


def _look_past(state: State, work: Work, lookup: Lookup) -> None:
    lookup.is_looking_beside = True

    def take(state: State, found: list[Contact]) -> None:
        lookup.is_looking_beside = False
        lookup.ask_too(found)
        if work.guid in state.works:
            work.on_time(state)

    _look_beside(state, lookup.target, take)


def _look_beside(state: State, target: Id, done: Callable[[State, list[Contact]], None]) -> None:
    """Find who is around a target that a crowd hides; tell `done`, the closest first.

    Each point beside is in the half of what is left that the target is not in: the crowd is no
    closer to it than to the target, and so comes behind all who are in that half.
    """
    first = (spacing(state) or 1).bit_length() - 2
    found: dict[Id, Contact] = {}
    left = CROWD_HALVES

    def take(state: State, contacts: tuple[Contact, ...]) -> None:
        nonlocal left
        left -= 1
        found.update((contact.id, contact) for contact in contacts)
        if not left:
            done(state, sorted(found.values(), key=lambda one: distance(target, one.id)))

    for bit in range(first, first + CROWD_HALVES):
        point = as_id(as_number(target) ^ (1 << min(max(bit, 0), ID_BITS - 1)))
        state.start_work(RegionWork(state, point, take))
