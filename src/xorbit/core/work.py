"""Works on items: what they share, and Get: in phases over one Lookup (Put: put.py).

A work is started by a job, addressed by its guid, told of answers by the machine, and ends with one
Finish. No I/O; what a work wants goes out through `State.emit` and `links.request`.
"""

from collections.abc import Callable
from typing import assert_never

from xorbit.config import FAR_STARTS, SPARSE
from xorbit.core import links
from xorbit.core.effect import DropDamaged
from xorbit.core.lookup import HEARSAY, Ask, Finished, Lookup, Wait
from xorbit.core.state import State, Work
from xorbit.ids import Id, distance
from xorbit.items import (
    Contact,
    ItemKey,
)
from xorbit.wire.message import (
    Request,
)


def new_lookup(state: State, target: Id, *, width: int, alone: bool = False) -> Lookup:
    """Return a lookup that starts from whom we know and have heard of closest to the target.

    Asks `lookup_parallel` at a time, and in the end all that are left at once; `alone` always one.
    """
    limits = state.limits
    parallel, at_end = (1, 1) if alone else (limits.lookup_parallel, width)
    lookup = Lookup(
        target,
        state.own,
        seeds(state, target),
        width=width,
        parallel=parallel,
        asked_max=limits.lookup_asked_max,
        at_end=at_end,
    )
    lookup.offer(state.heard.closest(target, limits.closest_count), HEARSAY)
    return lookup


def seeds(state: State, target: Id) -> list[Contact]:
    """Return where a lookup begins: the table's closest; where these are few, all connected peers.

    A connected peer that nobody has dialled yet can be asked, though it is never handed on.
    """
    count = state.limits.closest_count
    found = state.table.closest(target, count)
    if len(found) >= count:
        return found
    known = {contact.id for contact in found}
    others = sorted(
        (peer for peer in state.link_of if peer not in known),
        key=lambda peer: distance(target, peer),
    )
    return [*found, *(Contact(peer) for peer in others[: count - len(found)])]


def drive_lookup(
    state: State, work: Work, lookup: Lookup, ask: Callable[[Contact], Request]
) -> bool:
    """Ask whom the lookup wants asked; return whether it has finished."""
    while True:
        match lookup.next(state.now):
            case Ask(contact):
                lookup.asked(contact.id, state.now + links.slow_after_s(state, contact.id))
                links.request(state, contact, ask(contact), work)
            case Wait(until):
                state.wake_at(work, until)
                return False
            case Finished():
                if lookup.is_wide or not _is_sparse(state, lookup):
                    return True
                lookup.begin_at(wide_starts(state, lookup.target))
            case _ as never:
                assert_never(never)


def _is_sparse(state: State, lookup: Lookup) -> bool:
    """Return whether those found stand farther from each other than our own neighbours do.

    Liars who name only each other cannot be as many as all nodes are (a density check, as in Castro
    et al., "Secure routing for structured peer-to-peer overlay networks", OSDI 2002).
    """
    count = min(lookup.width, state.limits.lookup_width)
    reach, near = lookup.reach(count), state.table.closest(state.own, state.limits.closest_count)
    if reach is None or len(near) < count:
        return False
    usual = distance(state.own, near[-1].id) * count / len(near)
    return reach > SPARSE * usual


def wide_starts(state: State, target: Id) -> list[Contact]:
    """Return where a lookup begins that must not be led astray: with whom we have proved ourselves.

    By whom we came in, somebody by chance of each of the farthest buckets, and of another target
    than ourselves the closest of the table: liars choose how close they claim to be to a point, not
    whom we know.
    """
    table, width = state.table, state.limits.lookup_width
    far = [state.rng.choice(table.bucket(index)) for index in table.buckets()[:FAR_STARTS]]
    near = () if target == state.own else table.closest(target, width)
    found = (*state.anchors.values(), *near, *far)
    return list({contact.id: contact for contact in found}.values())


def may_hold(state: State, found: list[Contact]) -> list[Contact]:
    """Return whom of those found others can dial as well: a copy elsewhere is of no use to them.

    A peer that is only connected to us was asked without an address.
    """
    return [contact for contact in found if contact.addresses or contact.id in state.table]


def note_bad_read(state: State, key: ItemKey, fault: str) -> None:
    """Report bytes that the disk gave wrongly or not at all; have damaged ones dropped."""
    state.warn("bad read from the store", f"{key.kind.name} {key.id.hex()}: {fault}")
    if fault == "damaged":
        state.counters.damaged_found += 1
        state.emit(DropDamaged(key))


def may_work_unasked(state: State) -> bool:
    """Return whether a work that our own user did not ask for may be started."""
    limits = state.limits
    return len(state.works) < limits.works_max * limits.works_share_for_peers
