"""What somebody pins lives as long as the pin does, and expires after it; in virtual time."""

import pytest
from nacl.signing import SigningKey

from tests.sim.test_keeping import AGING, REPLICAS, address_of, holders, put, small
from tests.world import Node, World
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.items import ItemKey, key_of, make_record
from xorbit.pins import AddRoot, LeaveRoot, Root, ScanRoots


def member(world: World, nodes: list[Node], *, listen: bool) -> Node:
    node = world.node(listen=listen, limits=AGING)
    world.outcome(node, node.bootstrap(address_of(nodes[0])))
    return node


def pin(world: World, node: Node, key: ItemKey) -> None:
    got = world.outcome(node, node.call(lambda guid: jobs.Pin(guid, key)))
    assert isinstance(got, fx.Got)
    world.outcome(node, node.tend(AddRoot(Root(key))))


def refreshed_age_s(world: World, node: Node) -> float | None:
    said = world.outcome(node, node.tend(ScanRoots(9)))
    assert isinstance(said, fx.Tended)
    [kept] = said.told.roots
    return kept.refreshed_age_s


@pytest.mark.parametrize("listen", [True, False], ids=["node", "client"])
def test_what_is_pinned_outlives_whoever_put_it_and_expires_after_the_pin(listen: bool) -> None:
    world, nodes = small()
    putter = member(world, nodes, listen=False)
    key = put(world, putter, b"somebody's")
    pinner = member(world, nodes, listen=listen)
    pin(world, pinner, key)
    putter.kill()
    assert refreshed_age_s(world, pinner) is None
    world.run(3 * AGING.sweep_interval_s)  # two, each stretched by chance
    age_s = refreshed_age_s(world, pinner)
    assert age_s is not None
    assert age_s <= 3 * AGING.sweep_interval_s, "at the first sweep, others' copies may be old"
    everybody = [*nodes, pinner]
    world.run(3 * AGING.item_lifetime_s)
    assert holders(nodes, key) >= REPLICAS - listen
    world.outcome(pinner, pinner.tend(LeaveRoot(key, tree=False)))
    world.outcome(pinner, pinner.let_go(key))
    world.run(2 * AGING.item_lifetime_s)
    assert holders(everybody, key) == 0


def test_a_pinned_record_survives_a_restart_of_the_node_and_the_loss_of_all_its_holders() -> None:
    world, nodes = small()
    record = make_record(SigningKey(bytes(32)), 1, b"value")
    key = key_of(record)
    pinner = member(world, nodes, listen=False)
    world.outcome(pinner, pinner.call(lambda guid: jobs.Store(guid, key, record)))
    pinner.kill()
    world.run(2 * AGING.item_lifetime_s)
    assert holders(nodes, key) == 0
    pinner.restart()
    world.outcome(pinner, pinner.bootstrap(address_of(nodes[0])))
    world.run(2 * AGING.sweep_interval_s)
    assert holders(nodes, key) >= REPLICAS
