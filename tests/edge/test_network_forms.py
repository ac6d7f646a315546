"""A network of strangers: processes that know one address find all others, and stay together."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from nacl.signing import SigningKey

from tests.edge.cli_nodes import NETWORK, Deadline, NodeProcess
from tests.edge.nodes import Peer
from xorbit.api import connect
from xorbit.config import DEFAULT_LIMITS
from xorbit.core.status import FingerStatus
from xorbit.errors import XorbitError
from xorbit.identity import open_network
from xorbit.ids import Id, distance
from xorbit.items import Address, ConnectionItem, ItemKey, connection_key, parse_address, record_key
from xorbit.keys import UserKey
from xorbit.run.control_client import ControlClient
from xorbit.wire.message import Have, Missing

FORMS_WITHIN_S = 20.0
HELD_AGAIN_WITHIN_S = 60.0
BACK_WITHIN_S = 60.0
REPLICAS = DEFAULT_LIMITS.replicas
Connect = Callable[[Sequence[NodeProcess]], Awaitable[list[ControlClient]]]
KEEPERS_MAX = REPLICAS + DEFAULT_LIMITS.surplus_holders_max
"""Who is farther from an item than so many others lets go of it; its owner never does."""


@pytest.fixture
def swarm():
    """Start nodes; end whatever still runs."""
    nodes: list[NodeProcess] = []
    yield nodes
    for node in nodes:
        node.kill()


@pytest.fixture
async def clients_of() -> AsyncGenerator[Connect]:
    """Connect clients to nodes; close them in the end."""
    clients: list[ControlClient] = []

    async def connect_to(nodes: Sequence[NodeProcess]) -> list[ControlClient]:
        return [await one(node) for node in nodes]

    async def one(node: NodeProcess) -> ControlClient:
        clients.append(client := await connect(node.home))
        return client

    yield connect_to
    for client in clients:
        await client.close()


@pytest.fixture
async def census() -> AsyncGenerator["Census"]:
    """Give who asks what nodes hold; close its connections in the end."""
    census = Census()
    yield census
    await census.peer.transport.close()


def start(nodes: list[NodeProcess], tmp_path: Path, count: int) -> None:
    """Start so many nodes at once, each given only the first one's address."""
    first = NodeProcess(tmp_path / "0")
    nodes.append(first)

    def one(number: int) -> None:
        nodes.append(NodeProcess(tmp_path / str(number), bootstrap=first.address))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(1, count)))


def id_of_process(node: NodeProcess) -> Id:
    return Id(bytes.fromhex(node.id))


# --- What a network that has formed can do --------------------------------------------------------


def wrong_fingers(own: Id, fingers: Sequence[FingerStatus], ids: Sequence[Id]) -> list[int]:
    """Return the indices of the fingers that are not the nearest contact to their point."""
    others = [other for other in ids if other != own]
    nearest = min(distance(own, other) for other in others).bit_length() - 1
    held = {finger.index: finger for finger in fingers}
    return [
        index
        for index in range(nearest, 256)
        if index not in held
        or held[index].contact.id != min(others, key=lambda id: distance(id, held[index].point))
    ]


async def all_fingers_true(clients: Sequence[ControlClient], ids: Sequence[Id]) -> bool:
    for client, own in zip(clients, ids, strict=True):
        if wrong_fingers(own, await client.fingers(), ids):
            return False
    return True


async def finds(client: ControlClient, wanted: Id) -> ConnectionItem | None:
    try:
        return await client.whereis(wanted)
    except XorbitError:
        return None


async def all_found(
    clients: Sequence[ControlClient], nodes: Sequence[NodeProcess], *, of: Sequence[NodeProcess]
) -> bool:
    for client in clients:
        found = await asyncio.gather(*(finds(client, id_of_process(node)) for node in of))
        for item, node in zip(found, of, strict=True):
            if item is None or str_addresses(item) != [node.address]:
                return False
    return True


def str_addresses(item: ConnectionItem) -> list[str]:
    return [str(address) for address in item.addresses]


async def has_formed(
    clients: Sequence[ControlClient], nodes: Sequence[NodeProcess], within_s: float
) -> None:
    """Wait until every finger is true and every node finds every other by its id."""
    ids = [id_of_process(node) for node in nodes]
    for _ in Deadline(within_s):
        if await all_fingers_true(clients, ids) and await all_found(clients, nodes, of=nodes):
            return
        await asyncio.sleep(0.2)


async def know_each_other(clients: Sequence[ControlClient], nodes: Sequence[NodeProcess]) -> None:
    """Have each node ask each other one: who is near neither it nor its points it need not know."""
    for client, node in zip(clients, nodes, strict=True):
        others = [other.address for other in nodes if other is not node]
        await asyncio.gather(*map(client.ping, others))


# --- What it keeps --------------------------------------------------------------------------------


class Items:
    """A block and a record of each of some nodes, and who holds them."""

    def __init__(self) -> None:
        self.owners: dict[ItemKey, Id] = {}
        self._blocks: dict[ItemKey, bytes] = {}
        self._records: dict[UserKey, bytes] = {}

    async def put(self, client: ControlClient, owner: Id) -> None:
        """Put one more block, and publish one more record."""
        block, value = os.urandom(1_000), os.urandom(100)
        key, user = (await client.put_block(block)).key, UserKey(SigningKey.generate())
        receipt = await client.publish(user, value)
        assert receipt.seq == 1
        self._blocks[key] = block
        self._records[user] = value
        self.owners[key] = self.owners[record_key(user.public_key)] = owner

    async def are_had(self, clients: Sequence[ControlClient]) -> None:
        """Assert that each item is got, whole and once, from each node."""
        for client in clients:
            blocks = await asyncio.gather(*map(client.get_block, self._blocks))
            assert blocks == [*self._blocks.values()]
            users = [user.public_key for user in self._records]
            records = await asyncio.gather(*map(client.resolve, users))
            assert [record.value for record in records] == [*self._records.values()]
            assert {record.seq for record in records} == {1}


class Census:
    """A peer that asks each node itself what it holds."""

    def __init__(self) -> None:
        self.peer = Peer(network=open_network(NETWORK))

    async def holders(
        self, nodes: Sequence[NodeProcess], keys: Sequence[ItemKey]
    ) -> dict[ItemKey, set[Id]]:
        """Return which of the nodes hold each item."""
        held: dict[ItemKey, set[Id]] = {key: set() for key in keys}
        for node in nodes:
            connection = await self.peer.dial(parse_address(node.address), id_of_process(node))
            answer = await self.peer.ask(connection, Have(tuple(keys)))
            assert isinstance(answer, Missing)
            for key in set(keys) - set(answer.keys):
                held[key].add(id_of_process(node))
            connection.close("counted")
        return held


def closest(point: Id, ids: Sequence[Id], count: int) -> set[Id]:
    return set(sorted(ids, key=lambda id: distance(point, id))[:count])


async def is_kept(
    census: Census, nodes: Sequence[NodeProcess], items: Items, *, and_no_heap: bool = False
) -> None:
    """Wait until each item is held by the r living nodes that are closest to it.

    Also the connection item of each. No heap: by at most two more besides, and by its owner.
    """
    ids = [id_of_process(node) for node in nodes]
    keys = [*items.owners, *map(connection_key, ids)]
    for _ in Deadline(HELD_AGAIN_WITHIN_S):
        held = await census.holders(nodes, keys)
        lacking = [key for key in keys if not closest(key.id, ids, REPLICAS) <= held[key]]
        heaps = [
            key
            for key in keys
            if held[key] - closest(key.id, ids, KEEPERS_MAX) - {items.owners.get(key, key.id)}
        ]
        if not lacking and not (and_no_heap and heaps):
            return
        await asyncio.sleep(0.5)


def victims(nodes: Sequence[NodeProcess], items: Items, held: dict[ItemKey, set[Id]]):
    """Choose a quarter of the nodes by chance, the first among them, but no item's last holder.

    An item all of whose r holders die at one moment is what r is too small for.
    """
    rng = Random(0)
    while True:
        chosen = [nodes[0], *rng.sample(nodes[1:], len(nodes) // 4 - 1)]
        dead = {id_of_process(node) for node in chosen}
        if all(closest(key.id, sorted(held[key]), REPLICAS) - dead for key in items.owners):
            return chosen


# --- Two, three and many --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
async def test_a_few_nodes_given_one_address_find_each_other_and_each_others_items(
    count: int, tmp_path: Path, swarm: list[NodeProcess], clients_of: Connect
) -> None:
    """Each finger is the true nearest, each id leads to its node, each item is got everywhere."""
    start(swarm, tmp_path, count)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    items = Items()
    for client, node in zip(clients, swarm, strict=True):
        await items.put(client, id_of_process(node))
    await items.are_had(clients)


@pytest.mark.timeout(300)
async def test_a_network_of_32_forms_and_outlives_a_quarter_of_its_nodes(
    tmp_path: Path, swarm: list[NodeProcess], clients_of: Connect, census: Census
) -> None:
    """As a few do; then eight are killed, and come back with nothing but what they had saved."""
    start(swarm, tmp_path, 32)
    clients = dict(zip(swarm, await clients_of(swarm), strict=True))
    await has_formed([*clients.values()], swarm, FORMS_WITHIN_S)
    items = Items()
    for node, client in clients.items():
        await items.put(client, id_of_process(node))
    await items.are_had([*clients.values()])
    await is_kept(census, swarm, items)

    held = await census.holders(swarm, [*items.owners])
    killed = victims(swarm, items, held)
    for node in killed:
        await clients.pop(node).close()
        node.signal(signal.SIGKILL)
    for node in killed:
        node.kill()
    await items.are_had([*clients.values()])
    await is_kept(census, [*clients], items)

    with ThreadPoolExecutor(len(killed)) as pool:
        back = list(pool.map(NodeProcess, [node.home for node in killed]))
    swarm += back
    clients |= dict(zip(back, await clients_of(back), strict=True))
    await has_formed([*clients.values()], [*clients], BACK_WITHIN_S)
    await know_each_other([*clients.values()], [*clients])
    await is_kept(census, [*clients], items, and_no_heap=True)
    await items.are_had([*clients.values()])


# --- Nodes that go and come -----------------------------------------------------------------------


async def test_the_first_node_dies_and_the_rest_go_on(
    tmp_path: Path, swarm: list[NodeProcess], clients_of: Connect
) -> None:
    """They put, get and find as before, and a newcomer joins through any of them."""
    start(swarm, tmp_path, 6)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    items = Items()
    await items.put(clients[0], id_of_process(swarm[0]))
    await clients[0].close()
    swarm[0].kill()
    rest, others = swarm[1:], clients[1:]
    await items.put(others[0], id_of_process(rest[0]))
    await items.are_had(others)
    assert await all_found(others, rest, of=rest)
    late = NodeProcess(tmp_path / "late", bootstrap=rest[0].address)
    swarm.append(late)
    (client,) = await clients_of([late])
    await has_formed([*others, client], [*rest, late], FORMS_WITHIN_S)
    await items.put(client, id_of_process(late))
    await items.are_had([*others, client])


async def test_routing_table_lost_at_restart(
    tmp_path: Path, swarm: list[NodeProcess], clients_of: Connect
) -> None:
    """A node restarted with no address comes back by its saved table; the first one is gone.

    The network of 32 shows the same of nodes that were killed.
    """
    start(swarm, tmp_path, 4)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    gone, first = swarm[-1], swarm[0]
    await clients[-1].close()
    await clients[0].close()
    gone.signal(signal.SIGTERM)
    assert gone.ended() == 0
    gone.kill()
    first.kill()
    back = NodeProcess(gone.home)
    swarm.append(back)
    rest = swarm[1:3]
    assert back.id == gone.id
    assert back.address != gone.address
    (client,) = await clients_of([back])
    await has_formed([*clients[1:3], client], [*rest, back], BACK_WITHIN_S)
    new = await client.whereis(id_of_process(back))
    assert new.addresses == (Address("127.0.0.1", int(back.address.rpartition(":")[2])),)
