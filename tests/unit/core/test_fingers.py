"""Fingers: each point's true nearest contact, learned by FindNext and proved by dialling."""

from itertools import pairwise

import pytest

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import fingers
from xorbit.core import job as jobs
from xorbit.ids import Id, as_id, distance, finger_point
from xorbit.items import Address, Contact
from xorbit.wire.message import FindClosest, FindNext, Next, Pong, Refused

NO_LOOKS = Limits(look_around_s_min=1e6, look_around_s_max=1e6, maintenance_interval_s=1e6)


def true_finger(node: Node, others: list[Node], index: int) -> Id:
    point = finger_point(node.id, index)
    return min(
        (other.id for other in others if other is not node), key=lambda i: distance(i, point)
    )


def knows_only(node: Node, *others: Node) -> None:
    """Let a node be connected to these, and have no other contact."""
    for other in others:
        node.world.outcome(node, node.connect(other))
    node.world.run(0.2)


def with_id(world: World, first_byte: int, limits: Limits = NO_LOOKS) -> Node:
    return world.node(own=as_id(first_byte << 248), limits=limits)


@pytest.mark.parametrize("count", [2, 3, 32])
def test_each_finger_equals_the_true_nearest_contact_to_its_point(count: int) -> None:
    world = World(count)
    nodes = world.network(count)
    world.run(20.0)
    for node in nodes:
        told = node.machine.fingers()
        assert [finger.index for finger in told] == list(fingers.useful(node.machine.state))
        for finger in told:
            assert finger.point == finger_point(node.id, finger.index)
            assert finger.contact.id == true_finger(node, nodes, finger.index)
            assert finger.connected


def test_a_node_that_knows_nobody_has_no_fingers_and_asks_nobody() -> None:
    world = World()
    node = world.node()
    world.outcome(node, node.bootstrap())
    world.run(10.0)
    assert node.machine.fingers() == []
    assert not node.sent(FindNext)


def test_checks_alone_find_the_neighbour_and_every_finger_without_any_look_around() -> None:
    """A line of nodes, each knowing only the next: FindNext leads all the way to its end."""
    world = World()
    quiet = NO_LOOKS.replace(finger_check_s_min=1e5, finger_check_s_max=1e5)
    one = with_id(world, 0b1111_0000)
    others = [with_id(world, byte, quiet) for byte in (0b0111_0000, 0b0011_0000, 0b0001_0000, 0)]
    for left, right in pairwise(others):
        knows_only(left, right)
    knows_only(one, others[0])
    fingers.begin(one.machine.state)
    one.step(jobs.Tick())
    world.run(120.0)
    nodes = [one, *others]
    for finger in one.machine.fingers():
        assert finger.contact.id == true_finger(one, nodes, finger.index)
    assert len(one.sent(FindNext)) > 5
    assert {env.body.not_equal for env in one.sent(FindNext)} == {True, False}


def test_rounds_follow_each_other_ever_more_slowly() -> None:
    world = World()
    nodes = world.network(2, Limits(finger_check_s_max=4.0))
    node = nodes[0]

    def checks() -> int:
        return sum(env.body.hops == 0 for env in node.sent(FindNext))

    world.run(12.0)
    soon = checks()
    world.run(60.0)
    before = checks()
    world.run(60.0)
    assert soon >= 3
    assert 10 <= checks() - before <= 20


def test_a_lost_connection_to_a_finger_makes_the_checks_hurry() -> None:
    world = World()
    nodes = world.network(4)
    world.run(60.0)
    node, lost = nodes[:2]
    before = node.machine.state.fingers.wait_s
    lost.kill()
    world.run(1.0)
    assert node.machine.state.fingers.wait_s < before
    alone = world.node()
    fingers.note_lost(alone.machine.state, None)
    assert ("finger", None) not in alone.machine.state.timers


# --- One check ------------------------------------------------------------------------------------


def check(one: Node, other: Node, answer: object) -> None:
    """Let `one` check its neighbour with `other`, which answers so."""

    def tamper(envelope):
        if isinstance(envelope.body, Next):
            return type(envelope)(envelope.guid, envelope.work, answer)
        return envelope

    other.tamper = tamper
    state = one.machine.state
    state.fingers.turn = 1
    state.start_work(fingers.FingerWork(state, other.contact, FindNext(finger_point(one.id, 255))))
    one.step(jobs.Tick())
    one.world.run(0.2)


def dialled(node: Node) -> list[Id | None]:
    return [e.expected for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]


def test_hearsay_is_no_finger() -> None:
    """Who is named is dialled; where somebody else answers, or nobody, it does not enter."""
    world = World()
    one, other = with_id(world, 0xF0), with_id(world, 0x01)
    knows_only(one, other)
    nearer = as_id(0x70 << 248)
    check(one, other, Next(Contact(nearer, (world.free_address(),))))
    assert dialled(one)[-1] == nearer
    assert nearer not in one.machine.state.table
    check(one, other, Next(Contact(nearer, (other.address,))))
    assert nearer not in one.machine.state.table
    assert not one.machine.state.works


@pytest.mark.parametrize(
    "answer",
    [
        Next(Contact(as_id(0x02 << 248), ())),
        Next(Contact(as_id(0x70 << 248), ())),
        Next(Contact(as_id(0x8F << 248), (Address("10.9.9.9", 1),))),
        Next(Contact(as_id(0xF0 << 248), (Address("10.9.9.9", 1),))),
        Next(Contact(as_id(0x01 << 248), (Address("10.9.9.9", 1),))),
        Refused("busy"),
        Pong(),
    ],
    ids=["farther", "no address", "other side", "ourselves", "known", "refusal", "nonsense"],
)
def test_an_answer_that_names_nobody_nearer_ends_the_check(answer: object) -> None:
    world = World()
    one, other = with_id(world, 0xF0), with_id(world, 0x01)
    knows_only(one, other)
    before = dialled(one)
    check(one, other, answer)
    assert dialled(one) == before
    assert not one.machine.state.works


def test_every_lost_or_late_branch_ends() -> None:
    world = World()
    one, other = with_id(world, 0xF0), with_id(world, 0x01)
    knows_only(one, other)
    other.mute = True
    state = one.machine.state
    state.start_work(fingers.FingerWork(state, other.contact, FindNext(one.id, not_equal=True)))
    one.step(jobs.Tick())
    world.run(30.0)
    assert not state.works
    late = fingers.FingerWork(state, Contact(as_id(5)), FindNext(one.id))
    state.works[late.guid] = late
    state.timers.set(("work", late.guid), world.now)
    one.step(jobs.Tick())
    assert late.guid not in state.works


def test_a_neighbour_that_names_us_as_our_own_neighbour_changes_nothing() -> None:
    world = World()
    one, other = with_id(world, 0xF0), with_id(world, 0x01)
    knows_only(one, other)
    state = one.machine.state
    work = fingers.FingerWork(state, other.contact, FindNext(as_id(7), not_equal=True))
    assert not work._is_news(state, Contact(as_id(7)))


def test_a_stopping_node_checks_nothing() -> None:
    world = World()
    nodes = world.network(3)
    nodes[0].push(jobs.Shutdown())
    world.run(0.1)
    before = len(nodes[0].sent(FindNext)) + len(nodes[0].sent(FindClosest))
    world.run(60.0)
    assert len(nodes[0].sent(FindNext)) + len(nodes[0].sent(FindClosest)) == before


# --- Relays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [Limits(relays_per_peer_max=2), Limits(relays_max=2)], ids=["per peer", "in total"]
)
def test_relays_are_bounded_per_peer_and_in_total(limits: Limits) -> None:
    world = World()
    quiet = limits.replace(maintenance_interval_s=1e6)
    far, middle, near = (with_id(world, byte, quiet) for byte in (0xF0, 0x0F, 0x01))
    knows_only(middle, near)
    knows_only(far, middle)
    near.mute = True
    asked = [far.ask(middle, FindNext(as_id(number))) for number in range(5)]
    world.run(1.0)
    refused = [
        far.outcomes[guid].response
        for guid in asked
        if guid in far.outcomes and isinstance(far.outcomes[guid], fx.Answered)
    ]
    assert [no.code for no in refused] == ["busy"] * 3
    assert middle.machine.state.relays == 2
    world.run(30.0)
    assert all(guid in far.outcomes for guid in asked)
    assert middle.machine.state.relays == 0
