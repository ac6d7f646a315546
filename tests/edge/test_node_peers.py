"""Peers that lie, break the protocol, say nothing or are not who they should be.

Each has a clear outcome, and the node serves others at that very moment.
"""

import asyncio
import socket
from contextlib import AsyncExitStack
from itertools import islice
from random import Random

import msgspec
import pytest
from nacl.signing import SigningKey

from tests.edge.nodes import (
    NETWORK,
    PATIENT,
    QUICK,
    House,
    Node,
    Peer,
    Process,
    key_near,
    polite,
    sample,
    serves,
    silent,
    within,
)
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.identity import NodeKey, open_network, secret_network
from xorbit.ids import Guid
from xorbit.items import BLOCK_BYTES_MAX, Contact, Kind, Record, key_of, make_record
from xorbit.run.tls import CLOSED_BY_PEER
from xorbit.run.transport import Connection
from xorbit.wire import message
from xorbit.wire.frame import FRAME_BYTES_MAX, frame
from xorbit.wire.message import Envelope, Found, Get, Ping, Pong

BLOCK = sample(1)
KEY = key_of(BLOCK)

# --- Liars --------------------------------------------------------------------------------------

FORGED = Record(bytes(32), 1, b"x", bytes(64))


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (Found(sample(2)), f"asked for BLOCK_BLAKE3_256 {KEY.id.hex()}, got BLOCK_BLAKE3_256"),
        (Found(make_record(SigningKey(bytes(32)), 1, b"x")), "got RECORD"),
        (Found(FORGED), "the signature is not that of key"),
    ],
    ids=["other bytes", "another kind", "forged signature"],
)
async def test_wrong_bytes_are_got_right_from_another_holder_and_the_liar_is_distrusted(lie, why):
    async with House() as house:
        holder = await house.node()
        await holder.put(BLOCK)
        liar = await house.peer(
            key=key_near(KEY.id, holder.id),  # so that it is asked first
            answer=lambda ask: lie if isinstance(ask.body, Get) else polite(ask),
        )
        client = await house.client(await liar.listen(), holder)
        assert await client.get(KEY) == fx.Got(BLOCK, holder.id)
        await client.reported("peer distrusted", f"{liar.key.id.hex()}: ")
        lost = await client.lost(why)
        assert lost.connection not in client.driver.machine.state.links
        assert liar.key.id not in client.driver.machine.state.table
        await serves(holder, client, BLOCK)


async def test_an_answer_to_another_question_counts_as_none_and_another_holder_is_asked():
    async with House() as house:
        holder = await house.node()
        await holder.put(BLOCK)
        confused = await house.peer(key=key_near(KEY.id, holder.id), answer=lambda _: Pong())
        client = await house.client(await confused.listen(), holder)
        assert await client.get(KEY) == fx.Got(BLOCK, holder.id)


async def test_a_put_says_that_a_node_answered_to_another_question_and_stores_elsewhere():
    async with House() as house:
        holder = await house.node()
        confused = await house.peer(
            answer=lambda ask: Pong() if isinstance(ask.body, message.Store) else polite(ask)
        )
        client = await house.client(await confused.listen(), holder)
        receipts = {said.node: said for said in (await client.put(BLOCK)).receipts}
        assert receipts[holder.id].outcome == "stored"
        assert receipts[confused.key.id].outcome == "timeout"
        assert receipts[confused.key.id].reason == "an answer to another question"
        assert confused.key.id not in client.driver.machine.state.table


# --- Not who they should be ---------------------------------------------------------------------


async def test_who_shows_another_id_than_the_dialled_one_is_closed_and_forgotten():
    async with House() as house:
        node, wrong = await house.node(), await house.node()
        client = await house.client(node)
        expected = NodeKey.generate().id
        client.driver.machine.state.table.proved(expected, wrong.address, 0.0)
        outcome = await client.connect(wrong.address, expected)
        assert isinstance(outcome, fx.Failed)
        assert outcome.tried == ((wrong.address, f"node {wrong.id.hex()} answered there"),)
        failed = await client.jobs.until(jobs.DialFailed)
        assert failed.impostor
        assert expected not in client.driver.machine.state.table
        assert not any(link.peer == wrong.id for link in client.driver.machine.state.links.values())
        await node.put(BLOCK)
        await serves(node, client, BLOCK)


SECRET = secret_network(NETWORK.name, b"the secret of these tests")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NETWORK, open_network("another network")),
        (SECRET, NETWORK),
        (SECRET, secret_network(NETWORK.name, b"a guess of that secret")),
    ],
    ids=["another network", "without the secret", "a wrong secret"],
)
async def test_nobody_of_another_network_gets_in_or_is_let_in_and_both_ends_hear_why(ours, theirs):
    async with House() as house:
        node = await house.node(network=ours)
        await node.put(BLOCK)
        client = await house.client(node, network=ours)
        stranger = await house.node(network=theirs)

        outward = await client.connect(stranger.address)
        assert isinstance(outward, fx.Failed)
        inward = await stranger.join(node.address)
        assert isinstance(inward, fx.Failed)
        for ((_, why),) in (outward.tried, inward.tried):
            assert "another network" in why
        await stranger.reported("no way into the network", str(node.address))
        assert not stranger.driver.machine.state.links
        assert len(node.driver.machine.state.links) == 1
        await serves(node, client, BLOCK)


# --- Bytes that are no protocol -----------------------------------------------------------------


def random_frames(peer: Peer, connection: Connection) -> None:
    rng = Random(6)
    for _ in range(20):
        connection.send(rng.randbytes(rng.randint(1, 2_000)))


def random_bytes(peer: Peer, connection: Connection) -> None:
    peer.send_bytes(connection, Random(7).randbytes(10_000))


def oversized_frame(peer: Peer, connection: Connection) -> None:
    peer.send_bytes(connection, (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x")


def empty_frame(peer: Peer, connection: Connection) -> None:
    peer.send_bytes(connection, bytes(4))


def undecodable_envelope(peer: Peer, connection: Connection) -> None:
    good = message.encode(Envelope(bytes(16), bytes(16), Ping()))
    connection.send(good[:-1])


def unknown_message(peer: Peer, connection: Connection) -> None:
    connection.send(msgspec.msgpack.encode([bytes(16), bytes(16), [99]]))


def block_too_large(peer: Peer, connection: Connection) -> None:
    block = [1, int(Kind.BLOCK_BLAKE3_256), bytes(BLOCK_BYTES_MAX + 1)]
    connection.send(msgspec.msgpack.encode([bytes(16), bytes(16), [5, block]]))


def deeply_nested(peer: Peer, connection: Connection) -> None:
    connection.send(b"\x91" * 60_000)


@pytest.mark.parametrize(
    ("misbehave", "why"),
    [
        (random_frames, "expected one envelope"),
        (random_bytes, "a frame holds 1..73,728 bytes, got a length of "),
        (oversized_frame, "a frame holds 1..73,728 bytes, got a length of 73,729"),
        (empty_frame, "a frame holds 1..73,728 bytes, got a length of 0"),
        (undecodable_envelope, "expected one envelope"),
        (unknown_message, "expected one envelope"),
        (block_too_large, "expected one envelope"),
        (deeply_nested, "expected one envelope"),
    ],
)
async def test_bytes_that_are_no_message_close_the_connection_with_the_reason(misbehave, why):
    async with House() as house:
        node = await house.node()
        await node.put(BLOCK)
        client, peer = await house.client(node), await house.peer()
        connection = await peer.dial(node.address)
        assert isinstance(await peer.ask(connection, Ping()), Pong)
        misbehave(peer, connection)
        await serves(node, client, BLOCK)
        await node.reported("bad bytes from a peer", why)
        await node.lost(why)
        await peer.until_lost(connection)
        await serves(node, client, BLOCK)
        assert client.driver.machine.state.link_of


async def test_what_was_asked_before_the_bad_bytes_is_still_answered():
    async with House() as house:
        node, peer = await house.node(), await house.peer()
        connection = await peer.dial(node.address)
        asked = [peer.send(connection, Ping()) for _ in range(10)]
        connection.send(b"\xc1")
        await peer.until_lost(connection)
        lost = await node.lost("expected one envelope")
        served = [job.guid for job in node.jobs.all(jobs.HandleRequest)]
        assert [guid for guid in served if guid in asked] == asked[: len(served)]
        assert lost.connection not in node.driver.machine.state.links


async def test_tls_that_breaks_behind_more_requests_than_a_line_takes_ends_that_peer_only():
    """The node does not read on while the line is full, but has answers for a broken session."""
    async with House() as house:
        node = await house.node()
        client, peer = await house.client(node), await house.peer()
        await client.put(BLOCK)
        connection = await peer.dial(node.address)
        guids = [Guid(bytes([n % 256, n // 256]) * 8) for n in range(PATIENT.line_jobs_max * 2)]
        asks = b"".join(frame(message.encode(Envelope(guid, guid, Get(KEY)))) for guid in guids)
        no_record = b"\x17\x03\x03\x00\x40" + bytes(64)
        connection._socket.write(connection._session.encrypt(asks) + no_record)
        await node.lost("TLS failed")
        await serves(node, client, BLOCK)


async def test_a_truncated_frame_is_waited_for_by_nobody_else_and_ends_with_its_connection():
    async with House() as house:
        node = await house.node()
        await node.put(BLOCK)
        client, peer = await house.client(node), await house.peer()
        connection = await peer.dial(node.address)
        whole = frame(message.encode(Envelope(bytes(16), bytes(16), message.Store(sample(3)))))
        peer.send_bytes(connection, whole[:-1])
        await serves(node, client, BLOCK)
        await peer.transport.close()
        await node.lost(CLOSED_BY_PEER)
        assert bytes(16) not in [job.guid for job in node.jobs.all(jobs.HandleRequest)]
        await serves(node, client, BLOCK)
        assert await client.response(node.contact, Get(key_of(sample(3)))) == message.Closest(())


# --- Silence ------------------------------------------------------------------------------------


async def test_many_connections_that_never_shake_hands_are_dropped_and_hinder_nobody():
    limits = PATIENT.replace(handshakes_max=24, handshakes_per_host_max=12, handshake_timeout_s=2.0)
    async with House(limits) as house, AsyncExitStack() as opened:
        node = await house.node()
        await node.put(BLOCK)
        client = await house.client(node)
        host, port = node.address.host, node.address.port
        mute = []
        for _ in range(60):
            reader, writer = await asyncio.open_connection(host, port)
            opened.callback(writer.close)
            mute.append(reader)
        await serves(node, client, BLOCK)
        newcomer = await house.client(node)
        await serves(node, newcomer, BLOCK)
        async with within():
            ends = [await reader.read() for reader in mute]  # all of them come to their end
        assert ends == [b""] * 60
        assert len(node.driver.machine.state.links) == 2


async def test_many_connections_that_say_nothing_after_the_handshake_make_room_for_others():
    async with House(PATIENT.replace(connections_max=10)) as house:
        node = await house.node()
        await node.put(BLOCK)
        client = await house.client(node)
        silents = []
        for _ in range(30):
            peer = await house.peer(answer=silent)
            silents.append((peer, await peer.dial(node.address)))
            await serves(node, client, BLOCK)
        # Which of them go first depends on whom the node itself is asking something just then.
        lost = [asyncio.ensure_future(peer.until_lost(end)) for peer, end in silents]
        for done in islice(asyncio.as_completed(lost), 20):
            await done
        for rest in lost:
            rest.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        await node.lost("too many connections")
        assert len(node.driver.machine.state.links) <= 10
        assert len(client.jobs.all(jobs.ConnectionLost)) == 0
        await serves(node, await house.client(node), BLOCK)


async def test_one_peer_has_only_so_many_connections():
    async with House() as house:
        node = await house.node()
        await node.put(BLOCK)
        client, peer = await house.client(node), await house.peer(answer=silent)
        connections = [await peer.dial(node.address) for _ in range(12)]
        await node.lost("too many connections to one peer")
        async with within():
            await asyncio.wait(
                [asyncio.ensure_future(peer.until_lost(each)) for each in connections],
                return_when=asyncio.FIRST_COMPLETED,
            )
        await serves(node, client, BLOCK)
        # one that the node may use stays open
        assert peer.key.id in node.driver.machine.state.link_of


async def test_requests_to_a_peer_that_answers_nothing_time_out_and_others_serve():
    async with House(QUICK) as house:
        holder = await house.node()
        await holder.put(BLOCK)
        mute = await house.peer(key=key_near(KEY.id, holder.id), answer=silent)
        client = await house.client(await mute.listen(), holder)
        assert await client.get(KEY) == fx.Got(BLOCK, holder.id)

        receipts = {said.node: said for said in (await client.put(sample(4))).receipts}
        assert receipts[holder.id].outcome == "stored"
        asked = await client.ask(Contact(mute.key.id), Ping())
        assert asked in (
            fx.Failed("unreachable", "no answer in time"),
            fx.Failed("unreachable", "connection lost: it has not answered several times in a row"),
            fx.Failed("unreachable", "no connection and no address"),
        )
        assert client.driver.status().requests_timed_out > 0
        await serves(holder, client, BLOCK)


# --- Not reading --------------------------------------------------------------------------------

ASKED = 3_000  # of 64 KiB each: 190 MiB of answers
SPARED_BYTES = 24 * 2**20


async def test_a_peer_that_asks_for_blocks_and_never_reads_costs_bounded_memory(tmp_path):
    with Process(tmp_path / "node") as process:
        async with House() as house:
            client = await house.client(process.address)
            await client.put(BLOCK)
            peer = await house.peer(answer=silent)
            connection = await peer.dial(process.address)
            for _ in range(300):
                assert await client.response(process.contact, Get(KEY)) == Found(BLOCK)
            before = process.memory_bytes_max()

            connection.pause()
            asked = [peer.send(connection, Get(KEY)) for _ in range(ASKED)]
            connection.flush()
            for _ in range(1_000):
                assert await client.response(process.contact, Get(KEY)) == Found(BLOCK)
            assert process.memory_bytes_max() - before < SPARED_BYTES

            connection.resume()  # and once it reads, it is served
            left = set(asked)
            await peer.inbox.until(Envelope, lambda got: left.discard(got.guid) or not left)
            assert process.memory_bytes_max() - before < SPARED_BYTES


async def test_two_nodes_that_send_each_other_more_than_the_sockets_hold_both_get_through():
    """If each stopped reading while its own sending is stuck, both would be stuck for good."""
    async with House(PATIENT.replace(write_buffer_bytes_max=65_536)) as house:
        left = await house.node()
        right = await house.node(boot=[left])
        for node in (left, right):
            for connection in node.driver._connections.values():
                raw = connection._socket.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)

        async def push(source: Node, to: Node, numbers: range) -> list[message.Response]:
            stores = [message.Store(sample(number)) for number in numbers]
            return await asyncio.gather(*(source.response(to.contact, store) for store in stores))

        answers = await asyncio.gather(
            push(left, right, range(1_000, 1_200)), push(right, left, range(2_000, 2_200))
        )
        assert answers == [[message.Stored()] * 200] * 2
        assert left.driver.status().requests_timed_out == 0
        assert right.driver.status().requests_timed_out == 0


async def test_a_node_that_resets_its_connection_is_lost_with_the_reason():
    async with House() as house:
        node = await house.node()
        await node.put(BLOCK)
        client, peer = await house.client(node), await house.peer()
        connection = await peer.dial(node.address)
        assert isinstance(await peer.ask(connection, Ping()), Pong)
        raw = connection._socket.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        connection._socket.abort()
        await node.jobs.until(jobs.ConnectionLost)
        await serves(node, client, BLOCK)


async def test_connections_that_end_as_soon_as_they_are_open_leave_nothing_behind():
    async with House() as house:
        node = await house.node()
        await node.put(BLOCK)
        client = await house.client(node)
        for _ in range(30):
            peer = await house.peer()
            connection = await peer.dial(node.address)
            peer.send(connection, Ping())
            connection.close("no reason")
            await peer.until_lost(connection)
            await serves(node, client, BLOCK)
        opened = [job.connection for job in node.jobs.all(jobs.ConnectionOpened)]
        kept = node.driver.machine.state.link_of[client.id]
        for guid in opened:
            if guid != kept:
                await node.jobs.until(
                    jobs.ConnectionLost, lambda lost, guid=guid: lost.connection == guid
                )
        assert len(node.driver.machine.state.links) == len(node.driver._connections) == 1
        assert set(node.driver._holds) == set(node.driver._connections)
