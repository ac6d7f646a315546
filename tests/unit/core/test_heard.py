"""Hearsay: whom others named, bounded, in the order of distance; it is nobody's contact."""

from random import Random

import pytest

from tests.world import Node, World
from xorbit.config import BLAME_MAX, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.heard import Heard
from xorbit.ids import Id, as_id, as_number, distance, id_of
from xorbit.items import Address, Contact, block_key
from xorbit.wire.message import Closest, Envelope, FindClosest

HERE = (Address("10.0.0.1", 1),)
NOBODY = Contact(id_of(b"nobody"), (Address("10.7.7.7", 7),))
ALONE = Limits(
    maintenance_interval_s=1e6,
    look_around_s_min=1e6,
    look_around_s_max=1e6,
    finger_check_s_min=1e6,
    finger_check_s_max=1e6,
    survey_s_min=1e6,
    survey_s_max=1e6,
)
"""Nothing is asked but what the test asks."""


def some(count: int, seed: int = 0) -> list[Contact]:
    rng = Random(seed)
    return [Contact(Id(rng.randbytes(32)), HERE) for _ in range(count)]


def listen_to(one: Node, other: Node, *named: Contact) -> None:
    """Let `other` answer a question of `one` by naming these."""

    def tamper(envelope: Envelope) -> Envelope:
        if isinstance(envelope.body, Closest):
            return Envelope(envelope.guid, envelope.work, Closest(named))
        return envelope

    other.tamper = tamper
    answer = one.world.outcome(one, one.ask(other, FindClosest(one.id)))
    assert isinstance(answer, fx.Answered)


# --- What is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_closest_are_those_that_going_through_all_would_give(seed: int) -> None:
    heard, contacts = Heard(100), some(60, seed)
    heard.note(contacts)
    for contact in contacts[::3]:
        heard.forget(contact.id)
    left = [contact for contact in contacts if contact not in contacts[::3]]
    assert len(heard) == len(left) == 40
    for point in (contacts[0].id, contacts[1].id, Id(bytes(32)), Id(b"\xff" * 32)):
        order = sorted(left, key=lambda contact: distance(contact.id, point))
        assert heard.closest(point, 7) == order[:7]
        assert heard.closest(point, 1_000) == order


def test_those_heard_of_longest_ago_give_way() -> None:
    heard, contacts = Heard(3), some(5)
    heard.note(contacts)
    assert [contact.id in heard for contact in contacts] == [False, False, True, True, True]
    assert len(heard.closest(contacts[0].id, 9)) == 3


def test_what_was_heard_of_somebody_first_stands_until_it_is_dropped() -> None:
    """Who has been named truthfully cannot be hidden by naming it again at a wrong place."""
    heard = Heard(3)
    (contact,) = some(1)
    elsewhere = Contact(contact.id, (Address("10.6.6.6", 6),))
    heard.note([contact])
    heard.note([elsewhere])
    assert heard.closest(contact.id, 1) == [contact]
    heard.forget(contact.id)
    heard.forget(contact.id)
    assert heard.closest(contact.id, 1) == []
    heard.note([elsewhere])
    assert heard.closest(contact.id, 1) == [elsewhere]


# --- What a node makes of it ----------------------------------------------------------------------


def test_whom_an_answer_names_is_hearsay_and_no_contact_and_is_not_handed_on() -> None:
    world = World()
    one, other = world.pair(ALONE)
    listen_to(one, other, NOBODY)
    state = one.machine.state
    assert NOBODY.id in state.heard
    assert NOBODY.id not in state.table
    told = world.outcome(other, other.ask(one, FindClosest(NOBODY.id)))
    assert isinstance(told, fx.Answered)
    assert isinstance(told.response, Closest)
    assert NOBODY not in told.response.contacts


def test_who_is_known_revoked_or_cannot_be_dialled_is_no_hearsay() -> None:
    world = World()
    one, other = world.pair(ALONE)
    revoked = Contact(id_of(b"revoked"), HERE)
    assert one.address is not None
    ourselves_elsewhere = Contact(id_of(b"an earlier life"), (one.address,))
    one.push(jobs.Revoked((revoked.id,)))
    nowhere = Contact(id_of(b"nowhere"))
    listen_to(one, other, one.contact, other.contact, revoked, nowhere, ourselves_elsewhere)
    assert len(one.machine.state.heard) == 0


def test_a_node_that_is_revoked_later_is_no_hearsay_any_more() -> None:
    world = World()
    one, other = world.pair(ALONE)
    listen_to(one, other, NOBODY)
    one.push(jobs.Revoked((NOBODY.id,)))
    world.run(0.1)
    assert NOBODY.id not in one.machine.state.heard


def test_hearsay_leads_a_lookup_right_there_and_becomes_a_contact_by_that() -> None:
    world = World()
    one, other = world.pair(ALONE)
    third = world.node(limits=ALONE)
    third.listen()
    listen_to(one, other, third.contact)
    found = world.outcome(one, one.call(lambda guid: jobs.LookUp(guid, third.id)))
    assert isinstance(found, fx.LookedUp)
    assert found.contacts[0].id == third.id
    assert found.hops == 1
    assert third.id in one.machine.state.table
    assert third.id not in one.machine.state.heard


@pytest.mark.parametrize("answers", ["nobody", "another"])
def test_hearsay_that_proves_wrong_is_forgotten(answers: str) -> None:
    world = World()
    one, other = world.pair(ALONE)
    assert other.address is not None
    wrong = NOBODY if answers == "nobody" else Contact(NOBODY.id, (other.address,))
    listen_to(one, other, wrong)
    assert wrong.id in one.machine.state.heard
    other.tamper = lambda envelope: envelope
    found = world.outcome(one, one.call(lambda guid: jobs.LookUp(guid, wrong.id)))
    assert isinstance(found, fx.LookedUp)
    assert wrong.id not in {contact.id for contact in found.contacts}
    assert wrong.id not in one.machine.state.heard


def test_hearsay_that_turns_out_to_lead_back_to_us_is_forgotten() -> None:
    world = World()
    one, other = world.pair(ALONE)
    us = Contact(NOBODY.id, (Address("10.5.5.5", 5),))
    listen_to(one, other, us)
    one.push(jobs.Listening(us.addresses))
    world.outcome(one, one.call(lambda guid: jobs.LookUp(guid, us.id)))
    assert us.id not in one.machine.state.heard


def test_after_some_hearsay_that_was_wrong_a_lookup_asks_no_more_of_it() -> None:
    world = World()
    one, other = world.pair(ALONE)
    listen_to(one, other, *(Contact(who.id, NOBODY.addresses) for who in some(20)))
    other.tamper = lambda envelope: envelope
    world.outcome(one, one.call(lambda guid: jobs.LookUp(guid, id_of(b"anywhere"))))
    tried = {e.expected for _, _, effects in one.log for e in effects if isinstance(e, fx.Dial)}
    assert 0 < len(tried - {other.id}) <= one.limits.lookup_width + BLAME_MAX


@pytest.mark.parametrize("is_get", [False, True])
def test_dead_hearsay_costs_a_lookup_one_hedge_and_a_get_a_few(is_get: bool) -> None:
    """As where half of what we heard of has vanished without a word."""
    world = World()
    nodes = world.network(24, ALONE.replace(look_around_s_min=0.5, look_around_s_max=4.0))
    world.run(20.0)
    one, key = nodes[0], block_key(b"anything")
    nearest = min((node.id for node in nodes[1:]), key=lambda id: distance(id, key.id))
    near = [Contact(as_id(as_number(key.id) ^ (1 << bit)), NOBODY.addresses) for bit in range(9)]
    world.black_holes[NOBODY.addresses[0]] = None
    one.machine.state.heard.note(near)
    began = world.now
    if is_get:
        asked = world.outcome(one, one.get(key))
        assert isinstance(asked, fx.NotFound)
    else:
        found = world.outcome(one, one.call(lambda guid: jobs.LookUp(guid, key.id)))
        assert isinstance(found, fx.LookedUp)
        assert found.contacts[0].id == nearest
    hedges = BLAME_MAX if is_get else 1
    assert world.now - began < (hedges + 0.5) * one.limits.request_timeout_s_min


def test_neighbours_only_heard_of_are_dialled_in_maintenances_turn() -> None:
    world = World()
    one, other = world.pair(ALONE.replace(maintenance_interval_s=1.0))
    third = world.node(limits=ALONE)
    third.listen()
    listen_to(one, other, third.contact, NOBODY)
    world.run(3.0)
    assert third.id in one.machine.state.table
    assert len(one.machine.state.heard) == 0


def test_a_neighbour_heard_of_at_what_is_our_own_address_is_forgotten() -> None:
    world = World()
    one, other = world.pair(ALONE.replace(maintenance_interval_s=1.0))
    us = Contact(NOBODY.id, (Address("10.5.5.5", 5),))
    world.black_holes[us.addresses[0]] = None
    listen_to(one, other, us)
    one.push(jobs.Listening(us.addresses))
    world.run(3.0)
    assert us.id not in one.machine.state.heard


def test_somebody_far_away_is_not_dialled_for_being_heard_of() -> None:
    world = World()
    limits = ALONE.replace(
        maintenance_interval_s=1.0, closest_count=5, neighbours_connected=5, known_retry_s=1e6
    )
    near = [world.node(own=Id(bytes([number]) + bytes(31)), limits=limits) for number in range(7)]
    one, *others = near
    for other in others:
        other.listen()
        world.outcome(one, one.connect(other))
    far = Contact(Id(b"\xff" * 32), NOBODY.addresses)
    listen_to(one, others[0], far)
    world.run(10.0)
    assert far.id in one.machine.state.heard
