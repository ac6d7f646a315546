"""Records among real nodes: published on one, read and followed on others, raced for."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TypeVar

import pytest
from nacl.signing import SigningKey

from tests.edge.cli_nodes import Deadline, NodeProcess
from xorbit import errors
from xorbit.api import Node, connect, open_calls
from xorbit.blocking import open_node
from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.ids import Id
from xorbit.keys import UserKey
from xorbit.run.publish import PublishReceipt

T = TypeVar("T")
WITHIN_S = 30.0
LOOPBACK = "127.0.0.1:0"
NETWORK = "record tests"
KEY = UserKey(SigningKey(bytes(range(32))), "me")


async def soon(what: Awaitable[T], within_s: float = WITHIN_S) -> T:
    async with asyncio.timeout(within_s):
        return await what


async def address_of(node: Node) -> str:
    return str((await node.status()).node.addresses[0])


class Nodes:
    """Some nodes on one machine, all joined through the first."""

    def __init__(self, place: Path, stack: AsyncExitStack) -> None:
        self._place = place
        self._stack = stack
        self.nodes: list[Node] = []

    async def add(self, count: int, limits: Limits = DEFAULT_LIMITS) -> list[Node]:
        for _ in range(count):
            known = [await address_of(self.nodes[0])] if self.nodes else []
            home = self._place / str(len(self.nodes))
            node = Node(home, listen=LOOPBACK, bootstrap=known, network=NETWORK, limits=limits)
            self.nodes.append(await self._stack.enter_async_context(node))
        return self.nodes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncGenerator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(tmp_path, stack)


# --- Publish and resolve --------------------------------------------------------------------------


async def test_what_is_published_on_one_node_is_resolved_on_another(nodes: Nodes) -> None:
    """Versions count up by themselves; each salt is a record of its own; receipts name holders."""
    first, second, third = await nodes.add(3)
    receipt = await soon(first.publish(KEY, b"one"))
    assert receipt.seq == 1
    assert len(receipt.holders) == 3
    assert (await soon(second.publish(KEY, b"two"))).seq == 2
    await soon(third.publish(KEY, b"other", salt=b"salt"))
    found = await soon(third.resolve(KEY.public_key))
    assert (found.seq, found.value) == (2, b"two")
    by_hex = await soon(first.resolve(KEY.public_key.hex(), b"salt"))
    assert (by_hex.seq, by_hex.value, by_hex.salt) == (1, b"other", b"salt")
    with pytest.raises(errors.NotFoundError):
        await soon(first.resolve(KEY.public_key, b"nothing"))


async def test_of_two_machines_that_race_with_one_key_exactly_one_wins(nodes: Nodes) -> None:
    """The other is told the newer record."""
    machines = await nodes.add(4)
    await soon(machines[0].publish(KEY, b"begin"))
    for seen in range(1, 6):
        tries = [node.publish(KEY, f"{at}".encode(), cas=seen) for at, node in enumerate(machines)]
        ended = await soon(asyncio.gather(*tries, return_exceptions=True))
        won = [receipt for receipt in ended if isinstance(receipt, PublishReceipt)]
        lost = [error for error in ended if isinstance(error, errors.StaleError)]
        assert (len(won), len(lost)) == (1, 3), ended
        assert won[0].seq == seen + 1
        newest = await soon(machines[1].resolve(KEY.public_key))
        assert {error.newer for error in lost} == {newest}
        assert newest.value == str(ended.index(won[0])).encode()


async def test_without_cas_all_that_race_are_published_one_after_the_other(nodes: Nodes) -> None:
    machines = await nodes.add(3)
    tries = [node.publish(KEY, f"{at}".encode()) for at, node in enumerate(machines[:2])]
    receipts = await soon(asyncio.gather(*tries))
    assert sorted(receipt.seq for receipt in receipts) == [1, 2]


async def test_a_client_of_the_local_socket_signs_for_itself(nodes: Nodes, tmp_path: Path) -> None:
    """Every call on signed items gives the same over the socket as in the process."""
    here, other, _ = await nodes.add(3)
    async with open_calls(here.home) as calls:
        assert calls is not here
        assert (await soon(calls.publish(KEY, bytes(60_000), salt=b"s" * 64))).seq == 1
        found = await soon(calls.resolve(KEY.public_key, b"s" * 64))
        assert found == await soon(other.resolve(KEY.public_key, b"s" * 64))
        with pytest.raises(errors.StaleError) as stale:
            await soon(calls.publish(KEY, b"late", salt=b"s" * 64, cas=0))
        assert stale.value.newer == found
        with pytest.raises(errors.NotFoundError):
            await soon(calls.resolve(KEY.public_key))
        assert await calls.fingers() == await here.fingers()
        assert {contact.id for contact in await calls.contacts()} == {
            contact.id for contact in await here.contacts()
        }
        who = (await other.status()).id
        assert (await soon(calls.lookup(who)))[0].id == who


async def test_a_blocking_node_publishes_resolves_and_follows(tmp_path: Path) -> None:
    def use() -> None:
        with open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
            node.publish(KEY, b"one")
            versions = node.follow(KEY.public_key)
            assert next(versions).value == b"one"
            node.publish(KEY, b"two")
            assert next(versions).value == b"two"
            versions.close()
            assert node.resolve(KEY.public_key).seq == 2

    await soon(asyncio.to_thread(use))


async def test_a_value_that_is_too_large_is_the_callers_mistake(nodes: Nodes) -> None:
    (node,) = await nodes.add(1)
    for wrong in (
        node.publish(KEY, bytes(60_001)),
        node.publish(KEY, b"", salt=bytes(65)),
        node.publish(KEY, b"", cas=-1),
        node.resolve("no key"),
    ):
        with pytest.raises(errors.MisuseError):
            await soon(wrong)


# --- Follow ---------------------------------------------------------------------------------------


async def test_a_follower_is_pushed_each_update(nodes: Nodes) -> None:
    """In the process and over the local socket; polling would come too late for this test."""
    machines = await nodes.add(6, DEFAULT_LIMITS.replace(follow_poll_s=1e6, follow_retry_s=1e6))
    await soon(machines[0].publish(KEY, b"1"))
    client = await connect(machines[5].home)
    try:
        async with (
            aclosing(machines[4].follow(KEY.public_key)) as near,
            aclosing(client.follow(KEY.public_key)) as far,
        ):
            assert [(await soon(anext(way))).seq for way in (near, far)] == [1, 1]
            for seq in (2, 3, 4):
                await soon(machines[1].publish(KEY, f"{seq}".encode()))
                for way in (near, far):
                    assert (await soon(anext(way))).seq == seq
    finally:
        await client.close()


async def test_a_record_is_followed_before_it_exists(nodes: Nodes) -> None:
    first, second = await nodes.add(2)
    async with aclosing(second.follow(KEY.public_key)) as versions:
        waiting = asyncio.ensure_future(anext(versions))
        await asyncio.sleep(0)
        await soon(first.publish(KEY, b"1"))
        assert (await soon(waiting)).value == b"1"


async def test_a_slow_follower_gets_the_latest(nodes: Nodes) -> None:
    """What came and went while nobody took it may be passed over, the newest never."""
    (node,) = await nodes.add(1)
    await soon(node.publish(KEY, b"1"))
    async with aclosing(node.follow(KEY.public_key)) as versions:
        assert (await soon(anext(versions))).seq == 1
        for _ in range(40):
            await soon(node.publish(KEY, os.urandom(8)))
        seen = [(await soon(anext(versions))).seq]
        while seen[-1] != 41:
            seen.append((await soon(anext(versions))).seq)
        assert seen == sorted(set(seen))


async def test_a_follower_is_told_when_its_node_stops(tmp_path: Path) -> None:
    async with Node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
        client = await connect(tmp_path)
        ways = [node.follow(KEY.public_key), client.follow(KEY.public_key)]
        waiting = [asyncio.ensure_future(anext(way)) for way in ways]
        await node.status()
        await client.status()
    for follower in waiting:
        with pytest.raises(errors.StoppedError):
            await soon(follower)
    await client.close()


def pushing_to(node: Node) -> list[Id]:
    """Return who pushes newer versions to a node."""
    state = node._started.driver.machine.state
    pushers = [pusher for each in state.pushers.values() for pusher in each.values()]
    return [state.links[pusher.connection].peer for pusher in pushers]


async def test_a_follower_goes_on_when_the_holder_that_served_it_is_killed(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Two push to it, of whom one at least is a process that dies; then again."""
    first, second = await nodes.add(2)
    where = await address_of(first)
    async with AsyncExitStack() as stack:
        others: dict[str, NodeProcess] = {}
        for at in range(4):
            home = tmp_path / f"process{at}"
            process = await asyncio.to_thread(NodeProcess, home, bootstrap=where, network=NETWORK)
            others[stack.enter_context(process).id] = process
        await soon(first.publish(KEY, b"1"))
        async with aclosing(second.follow(KEY.public_key)) as versions:
            assert (await soon(anext(versions))).seq == 1
            for seq in (2, 3):
                served = [peer for peer in await pushers(second) if peer.hex() in others]
                others.pop(served[0].hex()).kill()
                await soon(first.publish(KEY, f"{seq}".encode()))
                assert (await soon(anext(versions))).seq == seq


async def pushers(node: Node) -> list[Id]:
    """Wait until as many push to a node as it wants; return who they are."""
    for _ in Deadline(WITHIN_S):
        if len(found := pushing_to(node)) == DEFAULT_LIMITS.follow_holders:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("unreachable")
