"""A network of strangers: processes that know one address find all others, and stay together."""

import asyncio
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.edge.cli_nodes import Deadline, NodeProcess
from xorbit.api import connect
from xorbit.core.status import FingerStatus
from xorbit.errors import XorbitError
from xorbit.ids import Id, distance
from xorbit.items import Address, ConnectionItem
from xorbit.run.control_client import ControlClient

FORMS_WITHIN_S = 20.0


@pytest.fixture
def swarm():
    """Start nodes; end whatever still runs."""
    nodes: list[NodeProcess] = []
    yield nodes
    for node in nodes:
        node.kill()


def start(nodes: list[NodeProcess], tmp_path: Path, count: int) -> None:
    """Start so many nodes at once, each given only the first one's address."""
    first = NodeProcess(tmp_path / "0")
    nodes.append(first)

    def one(number: int) -> None:
        nodes.append(NodeProcess(tmp_path / str(number), bootstrap=first.address))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(1, count)))


async def clients_of(nodes: Sequence[NodeProcess]) -> list[ControlClient]:
    return [await connect(node.home) for node in nodes]


def id_of_process(node: NodeProcess) -> Id:
    return Id(bytes.fromhex(node.id))


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


async def close_all(clients: Sequence[ControlClient]) -> None:
    for client in clients:
        await client.close()


@pytest.mark.parametrize("count", [2, 3, 32])
async def test_nodes_given_one_address_find_each_other_and_each_others_items(
    count: int, tmp_path: Path, swarm: list[NodeProcess]
) -> None:
    """Each finger is the true nearest, each id leads to its node, each item is got everywhere."""
    start(swarm, tmp_path, count)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    blocks = [os.urandom(1_000) for _ in clients]
    keys = [
        (await client.put_block(block)).key for client, block in zip(clients, blocks, strict=True)
    ]
    for client in clients:
        got = await asyncio.gather(*(client.get_block(key) for key in keys))
        assert got == blocks
    await close_all(clients)


async def test_the_first_node_dies_and_the_rest_go_on(
    tmp_path: Path, swarm: list[NodeProcess]
) -> None:
    start(swarm, tmp_path, 6)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    key = (await clients[0].put_block(b"outlives the first")).key
    await clients[0].close()
    swarm[0].kill()
    rest, others = swarm[1:], clients[1:]
    for client in others:
        assert await client.get_block(key) == b"outlives the first"
    assert await all_found(others, rest, of=rest)
    late = NodeProcess(tmp_path / "late", bootstrap=rest[0].address)
    swarm.append(late)
    (client,) = await clients_of([late])
    await has_formed([*others, client], [*rest, late], FORMS_WITHIN_S)
    await close_all([*others, client])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_routing_table_lost_at_restart(
    number: int, tmp_path: Path, swarm: list[NodeProcess]
) -> None:
    """A node restarted with no address comes back by its saved table; the first one is gone."""
    start(swarm, tmp_path, 4)
    clients = await clients_of(swarm)
    await has_formed(clients, swarm, FORMS_WITHIN_S)
    gone, first = swarm[-1], swarm[0]
    if number == signal.SIGKILL:  # saved within moments of joining, and now and then
        for _ in Deadline(30.0):
            if await saved_all(clients[-1]):
                break
            await asyncio.sleep(0.5)
    await clients[-1].close()
    await clients[0].close()
    gone.signal(number)
    gone.ended()
    gone.kill()
    first.kill()
    back = NodeProcess(gone.home)
    swarm.append(back)
    rest = swarm[1:3]
    assert back.id == gone.id
    assert back.address != gone.address
    (client,) = await clients_of([back])
    alive = [*rest, back]
    await has_formed([*clients[1:3], client], alive, 2 * FORMS_WITHIN_S)
    old, new = swarm[3], await client.whereis(id_of_process(back))
    assert str_addresses(new) == [back.address]
    assert new.addresses != (Address("127.0.0.1", int(old.address.rpartition(":")[2])),)
    await close_all([*clients[1:3], client])


async def saved_all(client: ControlClient) -> bool:
    """Return whether the node has had the time to save what it knows."""
    peers = await client.peers()
    return bool(peers) and min(peer.open_s for peer in peers) > 22.0
