"""Finding: FindNext leads to the true neighbour by nearer and nearer hops, lookups stop in time."""

import pytest

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Id, distance, id_of
from xorbit.items import Address, Contact
from xorbit.wire.message import Closest, FindClosest, FindNext, Next

QUIET = Limits(maintenance_interval_s=1e6, look_around_s_min=1e6, look_around_s_max=1e6)


def nearest(nodes: list[Node], point: Id, count: int) -> list[Id]:
    return sorted((node.id for node in nodes), key=lambda peer: distance(peer, point))[:count]


def sparse(world: World, count: int) -> list[Node]:
    """A ring in the order of the distance to its last: each knows the next, and the fifth next."""
    limits = QUIET.replace(finger_check_s_min=1e6, finger_check_s_max=1e6)
    nodes = [world.node(limits=limits) for _ in range(count)]
    end = nodes[0].id
    nodes.sort(key=lambda node: distance(node.id, end), reverse=True)
    for place, node in enumerate(nodes[:-1]):
        for other in nodes[place + 1 : place + 7 : 5]:
            world.outcome(node, node.connect(other))
    world.run(1.0)
    return nodes


def test_a_node_finds_its_own_neighbour_over_several_hops_each_strictly_nearer() -> None:
    """Asked for "nearest but not equal": the target itself is never the answer."""
    world = World()
    nodes = sparse(world, 20)
    target = nodes[-1].id
    guid = nodes[0].ask(nodes[1], FindNext(target, not_equal=True))
    outcome = world.outcome(nodes[0], guid)
    assert isinstance(outcome, fx.Answered)
    answer = outcome.response
    assert isinstance(answer, Next)
    assert answer.contact.id == nearest(nodes[:-1], target, 1)[0]
    path = [node for node in nodes if node.sent(FindNext) and node is not nodes[0]]
    assert len(path) == answer.hops >= 3
    away = [distance(node.id, target) for node in path]
    assert away == sorted(away, reverse=True)


@pytest.mark.parametrize("cut", [False, True])
def test_a_lost_branch_ends_with_the_nearest_that_is_known(cut: bool) -> None:
    world = World()
    nodes = sparse(world, 20)
    target = nodes[-1].id
    guid = nodes[0].ask(nodes[1], FindNext(target))
    world.until(lambda: bool(nodes[7].sent(FindNext)))
    if cut:
        nodes[13].kill()
    else:
        nodes[13].mute = True
    outcome = world.outcome(nodes[0], guid, 30.0)
    assert isinstance(outcome, fx.Answered)
    assert isinstance(outcome.response, Next)
    assert outcome.response.contact.id == nodes[13].id
    world.run(60.0)
    assert not any(node.machine.state.relays for node in nodes if node.alive)


def look_up(world: World, node: Node, point: Id) -> fx.LookedUp:
    found = world.outcome(node, node.call(lambda guid: jobs.LookUp(guid, point)))
    assert isinstance(found, fx.LookedUp)
    return found


def test_a_lookup_stops_when_its_answer_cannot_improve() -> None:
    """It asks the closest and hardly anybody else, of many more that it knows."""
    world = World()
    nodes = world.network(30)
    world.run(60.0)
    node = nodes[7]
    others = [other for other in nodes if other is not node]
    before = len(node.sent(FindClosest))
    point = id_of(b"anywhere")
    found = look_up(world, node, point)
    assert [contact.id for contact in found.contacts] == nearest(
        others, point, Limits().lookup_width
    )
    assert len(node.sent(FindClosest)) - before < 14


@pytest.mark.parametrize("kind", ["silent", "empty", "liar"])
def test_silent_and_lying_peers_cost_time_and_never_correctness(kind: str) -> None:
    """A third of the nodes: those that answer are found, whatever the others do."""
    world = World()
    nodes = world.network(24)
    world.run(60.0)
    bad = nodes[1::3]
    good = [node for node in nodes if node not in bad]
    for node in bad:
        if kind == "silent":
            node.mute = True
        else:
            node.tamper = lambda envelope: (
                type(envelope)(envelope.guid, envelope.work, Closest(_lies(kind)))
                if isinstance(envelope.body, Closest)
                else envelope
            )
    asker = good[0]
    for number in range(5):
        point = id_of(bytes((number,)))
        found = [contact.id for contact in look_up(world, asker, point).contacts]
        others = [node for node in good if node is not asker]
        wanted = nearest(others, point, len(others))
        honest = [peer for peer in found if peer in wanted]
        assert honest == wanted[: len(honest)]
        assert len(honest) >= 3


def _lies(kind: str) -> tuple[Contact, ...]:

    if kind == "empty":
        return ()
    hosts = (Address("10.77.0.1", number) for number in range(1, 20))
    return tuple(Contact(id_of(str(host).encode()), (host,)) for host in hosts)
