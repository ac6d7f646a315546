"""Crowds: what liars who move in right around an item can hide, and what they can be given."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import crowd as core_crowd
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.crowd import crowd, crowd_last, spacing
from xorbit.core.find import RegionWork
from xorbit.ids import Id, as_id, as_number, distance
from xorbit.items import Contact, ItemKey, key_of, make_block, make_record
from xorbit.wire.message import Closest, Envelope, Found

LIMITS = Limits(
    closest_count=8,
    sweep_interval_s=20.0,
    sweep_settle_s=1.0,
    hand_off_delay_s=1.0,
    newcomer_delay_s=1.0,
)
HONEST, LIARS = 24, 12
ITEM = make_block(b"hidden")
KEY = key_of(ITEM)
WRITER = SigningKey(bytes(range(32)))


def settled() -> tuple[World, list[Node]]:
    world = World()
    nodes = world.network(HONEST, LIMITS)
    world.run(15.0)
    return world, nodes


def besiege(world: World, nodes: list[Node], key: ItemKey) -> list[Node]:
    """Let liars move in around a key: they name only each other, and give nothing."""
    number = as_number(key.id)
    liars = [world.node(limits=LIMITS, own=as_id(number ^ place)) for place in range(1, LIARS + 1)]
    named = Closest(tuple(liar.contact for liar in liars[: LIMITS.closest_count]))

    def lie(envelope: Envelope) -> Envelope:
        is_answer = isinstance(envelope.body, Closest | Found)
        return Envelope(envelope.guid, envelope.work, named) if is_answer else envelope

    assert nodes[0].address is not None
    for liar in liars:
        liar.bootstrap(nodes[0].address)
    world.run(10.0)
    for liar in liars:
        liar.tamper = lie
    world.run(25.0)
    return liars


def stored(outcome: fx.Outcome) -> list[Id]:
    assert isinstance(outcome, fx.PutDone)
    return [receipt.node for receipt in outcome.receipts if receipt.outcome == "stored"]


def far_from(nodes: list[Node], key: ItemKey) -> Node:
    """Return somebody who neither holds an item nor lives near it."""
    return max(nodes, key=lambda node: distance(node.id, key.id))


def begun(node: Node) -> int:
    """Return how many points a node has looked up for works of its own."""
    return sum(isinstance(work, RegionWork) for work in node.machine.state.works.values())


def test_what_a_crowd_hides_is_kept_and_found() -> None:
    world, nodes = settled()
    owner = far_from(nodes, KEY)
    world.outcome(owner, owner.put(ITEM.data)[0])
    besiege(world, nodes, KEY)
    holders = [node for node in nodes if node.holds(KEY) and not node.pins(KEY)]
    assert len(holders) >= LIMITS.replicas - 1
    reader = far_from([node for node in nodes if not node.holds(KEY)], KEY)
    assert isinstance(world.outcome(reader, reader.get(KEY)), fx.Got)


def test_what_is_put_in_a_crowd_goes_to_others_first() -> None:
    world, nodes = settled()
    besiege(world, nodes, KEY)
    owner = far_from(nodes, KEY)
    takers = stored(world.outcome(owner, owner.put(ITEM.data)[0]))
    assert len(takers) == LIMITS.replicas
    assert {*takers} <= {node.id for node in nodes}


def test_who_knows_all_around_a_crowd_tells_others_all_the_same() -> None:
    """The table tells a neighbour of the crowd who is closest: nobody would be asked."""
    world, nodes = settled()
    besiege(world, nodes, KEY)
    owner = min(nodes, key=lambda node: distance(node.id, KEY.id))
    takers = stored(world.outcome(owner, owner.put(ITEM.data)[0]))
    assert len({*takers} & {node.id for node in nodes}) >= LIMITS.replicas - 1


def test_a_record_in_a_crowd_is_read_and_mended_past_it() -> None:
    world, nodes = settled()
    record = make_record(WRITER, 1, b"value")
    besiege(world, nodes, key_of(record))
    owner = far_from(nodes, key_of(record))
    world.outcome(owner, owner.call(lambda guid: jobs.Store(guid, key_of(record), record)))
    holders = [node for node in nodes if node.holds(key_of(record)) and node is not owner]
    for node in holders[1:]:
        node.store.drop([key_of(record)])
    reader = far_from([node for node in nodes if not node.holds(key_of(record))], key_of(record))
    outcome = world.outcome(reader, reader.call(lambda guid: jobs.Get(guid, key_of(record))))
    assert isinstance(outcome, fx.Got)
    world.run(2.0)
    assert sum(node.holds(key_of(record)) for node in nodes) > 2


@pytest.mark.parametrize("without", ["room", "a network"])
def test_without_room_for_more_work_a_crowd_has_its_way(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, nodes = settled()
    besiege(world, nodes, KEY)
    reader = far_from(nodes, KEY)
    state = reader.machine.state
    if without == "room":
        monkeypatch.setattr(core_crowd, "may_work_unasked", lambda _: False)
    else:
        state.joined = False
    outcome = world.outcome(reader, reader.get(KEY))
    assert isinstance(outcome, fx.NotFound)
    assert not begun(reader)


def test_who_is_found_too_late_is_asked_nothing() -> None:
    world, nodes = settled()
    besiege(world, nodes, KEY)
    reader = far_from(nodes, KEY)
    guid = reader.get(KEY)
    world.until(lambda: begun(reader) > 0)
    reader.push(jobs.Cancel(guid))
    world.until(lambda: not begun(reader))
    assert guid not in reader.machine.state.works


def test_who_knows_too_few_neighbours_sees_no_crowd() -> None:
    world = World()
    node = world.network(3, LIMITS)[0]
    assert spacing(node.machine.state) is None
    assert not crowd(node.machine.state, KEY.id, [Contact(KEY.id)] * 9, None)


def test_a_crowd_comes_behind_all_others() -> None:
    state = settled()[1][0].machine.state
    number, apart = as_number(KEY.id), spacing(state) or 0
    tight = [Contact(as_id(number ^ place)) for place in range(1, 7)]
    loose = [Contact(as_id(number ^ (place * apart))) for place in range(2, 6)]
    assert crowd_last(state, KEY.id, [*tight, *loose]) == [*loose, *tight]
    assert crowd_last(state, KEY.id, loose) == loose
