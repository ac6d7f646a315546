"""The local socket: what is asked is answered, bounded, and cancelled when nobody waits."""

import asyncio
import os
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from tests.edge.control_help import (
    NETWORK,
    OTHER,
    OWN,
    QUICK,
    FakeCalls,
    client_of,
    contact,
    finger,
    peer,
    serving,
    soon,
    status,
)
from xorbit import errors
from xorbit.config import DEFAULT_LIMITS, WINDOW_BLOCKS, WINDOW_BLOCKS_FIRST
from xorbit.items import Address, Kind, block_key, key_of
from xorbit.keys import UserKey
from xorbit.run import control_wire as wire
from xorbit.run.control_client import ControlClient
from xorbit.run.loop import run
from xorbit.wire.frame import frame

KEY = UserKey(SigningKey(bytes(range(32))))

# --- The calls ----------------------------------------------------------------------------------


async def test_every_call_comes_back_as_the_node_answered_it(tmp_path: Path) -> None:
    """Blocks of every size, pings, status and peers arrive unchanged on the other side."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        for data in (b"", b"x", bytes(65_536)):
            for kind in (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256):
                receipt = await soon(client.put_block(data, kind))
                assert receipt.key == block_key(data, kind)
                assert receipt.holders == (OWN,)
                assert await soon(client.get_block(receipt.cid)) == data
        assert (await soon(client.ping(OTHER))).id == OTHER
        assert served.calls.pinged == OTHER
        await soon(client.ping("127.0.0.1:9"))
        assert served.calls.pinged == Address("127.0.0.1", 9)
        assert await soon(client.status()) == status()
        assert await soon(client.peers()) == ()
        assert (client.network, client.authority_key) == (NETWORK.name, NETWORK.authority_key)


async def test_files_go_through_it(tmp_path: Path) -> None:
    """A file of many blocks goes in and comes out, many blocks in flight."""
    data = os.urandom(3 * 2**20 + 1)
    calls = FakeCalls()
    calls.gate.clear()
    calls.opens_at = WINDOW_BLOCKS_FIRST
    async with serving(tmp_path, calls), client_of(tmp_path) as client:
        summary = await soon(client.put_file(data))
        assert (summary.blocks, summary.bytes) == (50, len(data))
        assert WINDOW_BLOCKS_FIRST <= calls.running_most <= WINDOW_BLOCKS
        assert await soon(client.get_file(summary.cid)) == data


async def test_more_peers_than_a_frame_holds(tmp_path: Path) -> None:
    """A list that is longer than any frame arrives whole."""
    async with serving(tmp_path, FakeCalls(peers=1_000)), client_of(tmp_path) as client:
        assert await soon(client.peers()) == tuple(map(peer, range(1_000)))


async def test_more_contacts_than_a_frame_holds(tmp_path: Path) -> None:
    """Also of the largest contacts that there are, each list arrives whole."""
    async with serving(tmp_path, FakeCalls(peers=300)), client_of(tmp_path) as client:
        assert await soon(client.fingers()) == tuple(map(finger, range(300)))
        for ask in (client.contacts(), client.lookup(OTHER)):
            assert await soon(ask) == tuple(map(contact, range(300)))
    async with serving(tmp_path), client_of(tmp_path) as client:
        assert await soon(client.contacts()) == await soon(client.fingers()) == ()


async def test_records_are_signed_on_this_side_and_arrive_unchanged(tmp_path: Path) -> None:
    """The largest value and salt; the outcome of a store comes back with the newer record."""
    record = KEY.sign(7, bytes(60_000), b"s" * 64)
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        done = await soon(client.put_record(record, 6))
        assert (done.newer, done.won) == (record, True)
        assert served.calls.signed == {key_of(record): record}
        assert await soon(client.resolve(KEY.public_key, b"s" * 64)) == record
        served.calls.error = errors.NotFoundError("nobody has it")
        with pytest.raises(errors.NotFoundError):
            await soon(client.resolve(KEY.public_key, b"s" * 64))
        with pytest.raises(errors.NotFoundError):
            await soon(client.whereis(OTHER))


async def test_a_record_is_followed_over_it_until_the_follower_leaves(tmp_path: Path) -> None:
    """Each version comes as it does at the node; whoever leaves is followed for no longer."""
    calls = FakeCalls()
    calls.followed = [KEY.sign(seq, b"x" * 60_000) for seq in (1, 2, 3)]
    calls.gate.clear()
    async with serving(tmp_path, calls), client_of(tmp_path) as client:
        versions = client.follow(KEY.public_key)
        assert [await soon(anext(versions)) for _ in range(3)] == calls.followed
        await versions.aclose()
        await soon(calls.ended.wait())
        assert calls.cancelled == 1


async def test_a_follow_that_the_node_ends_is_an_error(tmp_path: Path) -> None:
    """Its own, where it raised one; a follower never ends as if there were no more to come."""
    calls = FakeCalls()
    async with serving(tmp_path, calls), client_of(tmp_path) as client:
        with pytest.raises(errors.StoppedError, match="stopped following"):
            await soon(anext(client.follow(KEY.public_key)))
        calls.error = errors.WorldError("too many works")
        with pytest.raises(errors.WorldError, match="too many works"):
            await soon(anext(client.follow(KEY.public_key)))
        with pytest.raises(errors.MisuseError, match="expected a public key"):
            await soon(anext(client.follow(b"short")))


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFoundError("nobody has it"),
        errors.NoPeersError("127.0.0.1:1: refused"),
        errors.NotStoredError("full"),
        errors.MisuseError("wrong"),
        errors.FormatError("no file"),
        errors.StoppedError("stopping"),
    ],
)
async def test_errors_come_out_as_the_node_raised_them(tmp_path: Path, error: Exception) -> None:
    """The class and the message of an error cross the socket; the next call is not harmed."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        served.calls.error = error
        with pytest.raises(type(error), match=str(error)) as raised:
            await soon(client.put_block(b"x"))
        assert type(raised.value) is type(error)
        served.calls.error = None
        await soon(client.put_block(b"x"))


async def test_a_bug_ends_its_call_and_not_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is told as an error, logged where it happened, and that is all."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        served.calls.error = ZeroDivisionError("oh")
        with pytest.raises(errors.XorbitError, match="ZeroDivisionError"):
            await soon(client.status())
        assert "ZeroDivisionError" in caplog.text
        served.calls.error = None
        await soon(client.status())


async def test_an_error_longer_than_a_frame_is_cut(tmp_path: Path) -> None:
    """However long a message is, its beginning arrives."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        served.calls.error = errors.WorldError("x" * 200_000)
        with pytest.raises(errors.WorldError, match=r"^x+$"):
            await soon(client.status())


async def test_what_a_client_has_in_flight_is_bounded(tmp_path: Path) -> None:
    """Calls beyond the limit wait unread in the socket, and are answered in their turn."""
    calls = FakeCalls()
    calls.gate.clear()
    limits = DEFAULT_LIMITS.replace(control_calls_max=4)
    async with serving(tmp_path, calls, limits), client_of(tmp_path) as client:
        waiting = [asyncio.create_task(client.put_block(bytes([n]) * 9)) for n in range(40)]
        await soon(calls.started.wait())
        calls.gate.set()
        receipts = await soon(asyncio.gather(*waiting))
        assert len({receipt.key for receipt in receipts}) == 40
        assert calls.running_most == 4


async def test_each_client_has_a_line_of_its_own(tmp_path: Path) -> None:
    """Two clients never share a line, and the node is told when one is not used any more."""
    async with serving(tmp_path) as served:
        async with client_of(tmp_path), client_of(tmp_path):
            assert len(set(served.lines)) == 2
            assert served.gone == []
        while len(served.gone) < 2:
            await soon(served.a_line_is_gone.wait())
            served.a_line_is_gone.clear()
        assert sorted(served.gone) == sorted(served.lines)


# --- Calls that nobody waits for ------------------------------------------------------------------


async def test_a_cancelled_call_is_cancelled_at_the_node(tmp_path: Path) -> None:
    """Who no longer waits costs the node nothing more; other calls of that client go on."""
    calls = FakeCalls()
    async with serving(tmp_path, calls), client_of(tmp_path) as client:
        calls.gate.clear()
        waiting = asyncio.create_task(client.status())
        await soon(calls.started.wait())
        waiting.cancel()
        await soon(calls.ended.wait())
        assert calls.cancelled == 1
        calls.gate.set()
        await soon(client.status())


async def test_a_client_that_is_gone_has_its_calls_cancelled(tmp_path: Path) -> None:
    """A connection that ends takes all its calls with it."""
    calls = FakeCalls()
    calls.gate.clear()
    async with serving(tmp_path, calls):
        async with client_of(tmp_path) as client:
            waiting = asyncio.create_task(client.status())
            await soon(calls.started.wait())
        await soon(calls.ended.wait())
        assert (calls.cancelled, calls.running) == (1, 0)
        for call in (waiting, client.status()):
            with pytest.raises(errors.StoppedError, match="this client was closed: connect again"):
                await soon(call)


async def test_a_node_that_stops_lets_its_clients_know(tmp_path: Path) -> None:
    """Calls in flight at the end fail with a StoppedError instead of hanging."""
    calls = FakeCalls()
    calls.gate.clear()
    async with serving(tmp_path, calls) as served, client_of(tmp_path) as client:
        waiting = asyncio.create_task(client.status())
        await soon(calls.started.wait())
        await soon(served.server.stop())
        with pytest.raises(errors.StoppedError, match="the node stopped before"):
            await soon(waiting)
        assert calls.cancelled == 1


async def test_a_retired_server_answers_those_that_are_here(tmp_path: Path) -> None:
    """After `retire` nobody new gets in, but what is asked already is answered."""
    calls = FakeCalls()
    calls.gate.clear()
    async with serving(tmp_path, calls) as served, client_of(tmp_path) as client:
        waiting = asyncio.create_task(client.status())
        await soon(calls.started.wait())
        served.server.retire()
        with pytest.raises(errors.NotRunningError):
            await soon(ControlClient.connect(tmp_path))
        calls.gate.set()
        assert await soon(waiting) == status()


async def test_a_client_that_does_not_read_does_not_keep_the_node_from_stopping(
    tmp_path: Path,
) -> None:
    """Answers that nobody takes are given up after the limit for stopping."""
    calls = FakeCalls()
    key = (await calls.put_block(bytes(65_536))).key
    async with serving(tmp_path, calls, QUICK) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.said().port)
        await wire.write_message(writer, wire.Hello(wire.proof(served.said().token, "client")))
        await soon(wire.read_payload(reader))
        reader._transport.pause_reading()
        for number in range(200):
            writer.write(frame(wire.encode(wire.GetBlock(number, key))))
        await soon(calls.started.wait())
        await soon(served.server.stop())
        writer.close()


def test_writing_to_a_client_that_is_gone_is_a_lost_connection() -> None:
    """In uvloop that is a RuntimeError, which once ended in the node's log as a traceback."""

    async def write_late() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            with pytest.raises(OSError, match="closed"):
                await wire.write_message(writer, wire.HasFailed(1, "XorbitError", "late"))
            await writer.wait_closed()

    run(write_late())
