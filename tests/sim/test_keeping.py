"""Keeping things: what was put stays readable and held by r nodes, whoever comes and goes.

In virtual time. A failure prints the seed of its world.
"""

from collections import Counter

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import distance
from xorbit.items import Address, Block, ItemKey, key_of, make_record
from xorbit.store.base import Write
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


def nearest(nodes: list[Node], key: ItemKey) -> list[Node]:
    return sorted(nodes, key=lambda node: distance(node.id, key.id))[:REPLICAS]


def address_of(node: Node) -> Address:
    assert node.address is not None
    return node.address


def read_all(world: World, reader: Node, keys: list[ItemKey]) -> None:
    for guid in [reader.get(key) for key in keys]:
        assert isinstance(world.outcome(reader, guid), fx.Got)


LIMITS = Limits(sweep_interval_s=100.0)


@pytest.mark.parametrize("seed", range(3))
def test_when_a_quarter_dies_all_is_readable_at_once_and_a_minute_later_r_nodes_hold_each(
    seed: int,
) -> None:
    world, nodes, keys = filled(seed, LIMITS)
    dead, alive = nodes[: NODES // 4], nodes[NODES // 4 :]
    for node in dead:
        node.kill()
    read_all(world, alive[0], keys)
    world.run(60.0)
    assert min(holders(alive, key) for key in keys) >= REPLICAS
    for node in dead:
        node.restart()
        node.bootstrap(address_of(alive[0]))
    world.run(30.0)
    read_all(world, nodes[0], keys)
    world.run(130.0)  # every node has gone through all its items
    counts = Counter(holders(nodes, key) for key in keys)
    assert min(counts) >= REPLICAS
    assert max(counts) <= REPLICAS + SURPLUS, f"doubled: {counts}"


def test_a_newcomer_gets_the_items_that_it_is_among_the_closest_to() -> None:
    world, nodes, keys = filled(limits=LIMITS)
    newcomer = world.node(limits=LIMITS)
    newcomer.bootstrap(address_of(nodes[0]))
    world.run(40.0)
    everybody = [*nodes, newcomer]
    near = [key for key in keys if newcomer in nearest(everybody, key)]
    assert near
    assert all(newcomer.holds(key) for key in near)
    world.run(130.0)
    assert max(holders(everybody, key) for key in keys) <= REPLICAS + SURPLUS


def test_a_hand_over_sends_each_item_to_each_taker_about_once() -> None:
    world, nodes, keys = filled(limits=LIMITS)
    newcomer = world.node(limits=LIMITS)
    newcomer.bootstrap(address_of(nodes[0]))
    world.run(40.0)
    got = sum(newcomer.holds(key) for key in keys)
    sent = [
        job.request.item
        for _, job, _ in newcomer.log
        if isinstance(job, jobs.HandleRequest) and isinstance(job.request, message.Store)
    ]
    blocks = sum(isinstance(item, Block) for item in sent)
    assert got <= blocks <= 1.5 * got
    assert len(sent) <= 3 * got


def test_when_all_start_again_at_once_nothing_is_sent_twice_and_few_questions_are_asked() -> None:
    world, nodes, keys = filled(limits=Limits())
    for node in nodes:
        node.kill()
    world.run(5.0)
    for node in nodes:
        node.restart()
        node.bootstrap(address_of(nodes[0]))
    world.run(120.0)
    assert sum(len(node.sent(message.Have)) for node in nodes) <= NODES * NODES * 4
    blocks = [
        envelope
        for node in nodes
        for envelope in node.sent(message.Store)
        if isinstance(envelope.body, message.Store) and isinstance(envelope.body.item, Block)
    ]
    assert blocks == []
    read_all(world, nodes[3], keys)


AGING = Limits(
    item_lifetime_s=600.0,
    refresh_after_s=200.0,
    sweep_interval_s=60.0,
    maintenance_interval_s=10.0,
)


def small(count: int = 8) -> tuple[World, list[Node]]:
    world = World()
    nodes = world.network(count, AGING)
    world.run(20.0)
    return world, nodes


def put(world: World, node: Node, data: bytes) -> ItemKey:
    guid, key = node.put(data)
    assert isinstance(world.outcome(node, guid), fx.PutDone)
    return key


def test_what_its_owner_refreshes_lives_and_what_nobody_does_expires() -> None:
    world, nodes = small()
    kept = put(world, nodes[0], b"kept")
    gone = put(world, nodes[1], b"gone")
    nodes[1].let_go(gone)
    world.run(1_000.0)
    assert holders(nodes, kept) >= REPLICAS
    assert holders(nodes, gone) == 0


def test_a_client_keeps_alive_what_it_put_without_counting_as_a_holder() -> None:
    world, nodes = small()
    client = world.node(listen=False, limits=AGING)
    world.outcome(client, client.bootstrap(address_of(nodes[0])))
    guid, key = client.put(b"from behind a NAT")
    done = world.outcome(client, guid)
    assert client.holds(key)
    assert client.id not in stored_at(done)
    world.run(1_000.0)
    assert holders(nodes, key) >= REPLICAS
    world.outcome(client, client.let_go(key))
    world.run(200.0)
    assert not client.holds(key)
    assert holders(nodes, key) >= REPLICAS


def test_a_record_is_refreshed_with_the_newest_version_that_a_holder_has() -> None:
    world, nodes = small()
    signer = SigningKey(bytes(32))
    old, new = (make_record(signer, seq, b"value") for seq in (1, 2))
    key = key_of(old)
    far = max(nodes, key=lambda node: distance(node.id, key.id))
    world.outcome(far, far.call(lambda guid: jobs.Store(guid, key, old)))
    assert far.holds(key)
    for node in nearest(nodes, key):
        node.store.write([Write(key, new)])
    world.run(300.0)
    assert far.store.read([key]) == [new]
