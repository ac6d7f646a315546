"""Keeping things: what was put stays readable and held by r nodes, whoever comes and goes.

In virtual time. A failure prints the seed of its world.
"""

from collections import Counter

import pytest

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import distance
from xorbit.items import ItemKey
from xorbit.wire import message

NODES = 32
ITEMS = 50
REPLICAS = Limits().replicas
SURPLUS = Limits().surplus_holders_max


def filled(seed: int = 0, limits: Limits | None = None) -> tuple[World, list[Node], list[ItemKey]]:
    """A network that has settled, with items that a client put and then let go of."""
    world = World(seed)
    nodes = world.network(NODES, limits)
    world.run(30.0)
    client = world.node(listen=False, limits=limits)
    assert nodes[0].address is not None
    world.outcome(client, client.bootstrap(nodes[0].address))
    puts = [client.put(bytes([number])) for number in range(ITEMS)]
    for guid, _ in puts:
        done = world.outcome(client, guid)
        assert isinstance(done, fx.PutDone)
        assert len(done.receipts) >= REPLICAS
    client.kill()
    return world, nodes, [key for _, key in puts]


def holders(nodes: list[Node], key: ItemKey) -> int:
    return sum(node.alive and node.holds(key) for node in nodes)


def read_all(world: World, reader: Node, keys: list[ItemKey]) -> None:
    for guid in [reader.get(key) for key in keys]:
        assert isinstance(world.outcome(reader, guid), fx.Got)


@pytest.mark.parametrize("seed", range(3))
def test_when_a_quarter_dies_all_is_readable_at_once_and_a_minute_later_r_nodes_hold_each(
    seed: int,
) -> None:
    world, nodes, keys = filled(seed)
    dead, alive = nodes[: NODES // 4], nodes[NODES // 4 :]
    for node in dead:
        node.kill()
    read_all(world, alive[0], keys)
    world.run(60.0)
    assert min(holders(alive, key) for key in keys) >= REPLICAS
    for node in dead:
        node.restart()
        node.bootstrap(alive[0].address)
    world.run(30.0)
    read_all(world, nodes[0], keys)
    for _ in range(10):
        world.run(360.0)
    counts = Counter(holders(nodes, key) for key in keys)
    assert min(counts) >= REPLICAS
    assert max(counts) <= REPLICAS + SURPLUS, f"doubled: {counts}"
