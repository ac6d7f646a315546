"""The density check: a lookup that ends too sparse, among friends of one liar, begins elsewhere."""

from random import Random

import pytest

from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core.find import LookUpWork
from xorbit.core.routing import RoutingTable
from xorbit.core.state import Answer, State
from xorbit.ids import Id, as_id, as_number, id_of
from xorbit.items import Address, Contact
from xorbit.wire.message import Closest

LIMITS = Limits(lookup_parallel=1)
OWN = id_of(b"own")
TARGET = as_id(as_number(OWN) ^ (1 << 255))
"""On the other side of the keyspace."""
SPACING = 1 << 240
"""How far nodes are from each other, for all that our own neighbours tell."""


def contact(net: int, around: Id, place: int, spacing: int = SPACING) -> Contact:
    """Return the contact that is so many places away from a point, at an address of net.0.0.0/8."""
    number = as_number(around) ^ place * spacing
    return Contact(as_id(number), (Address(f"{net}.{place >> 8}.{place & 255}.1", 4000),))


def asker(*more: Contact) -> State:
    """Return the state of a node that knows those around itself, by whom it came in, and `more`."""
    state = State(OWN, LIMITS, Random(1), RoutingTable(OWN, LIMITS.contacts_max))
    state.now = 1.0
    near = [contact(20, OWN, place) for place in range(1, LIMITS.closest_count + 1)]
    for known in (*near, *more):
        state.table.proved(known.id, known.addresses[0], state.now)
    state.anchors[near[0].id] = near[0]
    return state


@pytest.mark.parametrize("times", [1, 64])
def test_a_lookup_that_ends_too_sparse_begins_elsewhere(times: int) -> None:
    """Friends who stand as close as all nodes do are believed; fewer of them are not."""
    liar = contact(21, TARGET, 1_000)
    friends = tuple(contact(22, TARGET, place, SPACING * times) for place in range(1, 9))
    honest = tuple(contact(23, TARGET, place, SPACING + 1) for place in range(1, 9))
    lying = {liar.id, *(friend.id for friend in friends)}
    state = asker(liar)
    work = LookUpWork(state, state.new_guid(), state.now + 60.0, TARGET)
    state.start_work(work)
    while dials := [effect for effect in state.effects if isinstance(effect, fx.Dial)]:
        state.effects = [effect for effect in state.effects if not isinstance(effect, fx.Dial)]
        for dial in dials:
            assert dial.expected is not None
            named = friends if dial.expected in lying else honest
            said = Answer(work.guid, dial.guid, dial.expected, Closest(named), 0.1)
            work.on_answer(state, said)
    (outcome,) = [effect.outcome for effect in state.effects if isinstance(effect, fx.Finish)]
    assert isinstance(outcome, fx.LookedUp)
    found = {found.id for found in outcome.contacts}
    assert found == {true.id for true in (friends if times == 1 else honest)}
