"""How connections and transports end, and what happens when a peer does not read."""

import asyncio
import gc
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.edge.tls_help import OPEN, Peer, Plain, run_on, soon
from xorbit.config import DEFAULT_LIMITS
from xorbit.identity import NodeKey
from xorbit.items import Address
from xorbit.run.connection import FLUSH_BYTES, RECEIVE_BYTES, Connection
from xorbit.run.tls import Session, client_context
from xorbit.run.transport import STOPPING
from xorbit.wire.frame import frame

Run = Callable[[Coroutine[Any, Any, None]], None]
BLOCK = bytes(range(256)) * 256


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_on(request.param)


# --- A peer that does not read ------------------------------------------------------------------


def send_until_choked(connection: Connection) -> int:
    count = 0
    while not connection.choked:
        connection.send(BLOCK)
        connection.flush()
        count += 1
    return count


async def pass_turns(a: Peer) -> None:
    """Let sockets be read many times over: somebody else dials in and talks meanwhile."""
    async with Peer() as other:
        connection, _ = await other.connect(a)
        for number in range(20):
            connection.send(b"%d" % number)
            assert await soon(a.frames.get()) == b"%d" % number


def test_a_peer_that_does_not_read_chokes_the_connection(run: Run) -> None:
    """Unsent bytes stop a little over the limit; `drained` tells when the peer has read on."""
    limits = DEFAULT_LIMITS.replace(write_buffer_bytes_max=2**20)

    async def scenario() -> None:
        async with Peer(limits=limits) as a, Peer() as b:
            ours, theirs = await a.connect(b)
            theirs.pause()
            count = send_until_choked(ours)
            assert 2**20 < ours._socket.get_write_buffer_size() <= 2**20 + 2 * FLUSH_BYTES
            theirs.send(b"still heard")
            assert await soon(a.frames.get()) == b"still heard"
            await pass_turns(a)
            assert a.drained_ones.empty()
            assert b.frames.empty()
            theirs.resume()
            assert await soon(a.drained_ones.get()) is ours
            assert not ours.choked
            for _ in range(count):
                assert await soon(b.frames.get()) == BLOCK

    run(scenario())


def test_a_paused_connection_holds_a_bounded_number_of_bytes(run: Run) -> None:
    """What comes for a driver that has paused stays in the kernel and at the sender."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            paused: asyncio.Queue[None] = asyncio.Queue()

            def pause(connection: Connection) -> None:
                connection.pause()
                paused.put_nowait(None)

            b.on_readable = pause
            send_until_choked(ours)
            await soon(paused.get())
            await pass_turns(a)
            assert ours.choked
            assert 0 < theirs._reader.pending_bytes <= 2 * RECEIVE_BYTES
            assert b.frames.empty()

    run(scenario())


def test_resume_reminds_of_frames_that_were_left(run: Run) -> None:
    """A driver that stops pulling and pauses is told again once it resumes."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, _ = await a.connect(b)
            paused: asyncio.Queue[Connection] = asyncio.Queue()

            def pause(connection: Connection) -> None:
                connection.pause()
                connection.pause()
                paused.put_nowait(connection)

            b.on_readable = pause
            ours.send(b"one")
            connection = await soon(paused.get())
            b.on_readable = b.pull
            connection.resume()
            connection.resume()
            assert await soon(b.frames.get()) == b"one"

    run(scenario())


# --- Closing ------------------------------------------------------------------------------------


def test_close_delivers_what_was_sent(run: Run) -> None:
    """All frames sent before close arrive, however many, and both ends learn of the end once."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            for _ in range(100):
                ours.send(BLOCK)
            ours.close("enough")
            ours.close("twice")
            ours.send(b"too late")
            assert await soon(a.lost_ones.get()) == (ours, "enough")
            assert await soon(b.lost_ones.get()) == (theirs, "the peer closed the connection")
            assert [b.frames.get_nowait() for _ in range(100)] == [BLOCK] * 100
            assert b.frames.empty()
            for peer, connection in ((a, ours), (b, theirs)):
                connection.close("after the end")
                connection.send(b"to nobody")
                connection.resume()
                assert peer.lost_ones.empty()

    run(scenario())


def test_close_delivers_even_while_the_peer_sends(run: Run) -> None:
    """What the peer was sending meanwhile neither resets the connection nor arrives."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            ours.pause()  # so that the peer's bytes lie unread
            send_until_choked(theirs)
            for _ in range(100):
                ours.send(BLOCK)
            ours.close("enough")
            assert await soon(b.lost_ones.get()) == (theirs, "the peer closed the connection")
            assert [b.frames.get_nowait() for _ in range(100)] == [BLOCK] * 100
            assert await soon(a.lost_ones.get()) == (ours, "enough")
            assert a.frames.empty()

    run(scenario())


def test_close_waits_for_a_driver_that_has_paused(run: Run) -> None:
    """The end of a connection does not overtake frames that its driver has not pulled yet."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            paused: asyncio.Queue[Connection] = asyncio.Queue()

            def pull_one(connection: Connection) -> None:
                b.frames.put_nowait(connection.next_frame() or b"")
                connection.pause()
                paused.put_nowait(connection)

            b.on_readable = pull_one
            for text in (b"one", b"two", b"three"):
                ours.send(text)
            ours.close("done")
            for text in (b"one", b"two", b"three"):
                assert await soon(paused.get()) is theirs
                assert b.frames.get_nowait() == text
                assert b.lost_ones.empty()
                theirs.resume()
            await soon(b.lost_ones.get())

    run(scenario())


def test_close_is_bounded_when_the_peer_never_reads(run: Run) -> None:
    """A peer that takes nothing is cut off at the limit."""
    limits = DEFAULT_LIMITS.replace(shutdown_s_max=0.05)

    async def scenario() -> None:
        async with Peer(limits=limits) as a, Peer() as b:
            ours, theirs = await a.connect(b)
            theirs.pause()
            send_until_choked(ours)
            ours.close("no more")
            assert await soon(a.lost_ones.get()) == (ours, "no more")
            theirs.resume()
            await soon(b.lost_ones.get())

    run(scenario())


def test_close_from_within_readable_and_opened(run: Run) -> None:
    """A driver may close in the very event that tells it of the connection or of its bytes."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            a.on_opened = lambda connection: connection.close("not wanted")
            address = await b.listen()
            a.dial(address)
            assert (await soon(a.lost_ones.get()))[1] == "not wanted"
            await soon(b.lost_ones.get())
            a.on_opened = lambda connection: connection.send(b"x")
            b.on_readable = lambda connection: connection.close("not that")
            a.dial(address)
            assert (await soon(b.lost_ones.get()))[1] == "not that"
            await soon(a.lost_ones.get())

    run(scenario())


def test_a_reset_is_told_with_its_reason(run: Run) -> None:
    """A peer that vanishes is lost once, and closing what it left is harmless."""

    async def scenario() -> None:
        async with Peer() as a, Plain(await a.listen()) as plain:
            session = Session(client_context(NodeKey.generate(), OPEN), OPEN, server_side=False)
            session.shake()
            await plain.send(session.outgoing())
            while session.shake() is None:
                session.receive(memoryview(await plain.receive()))
            await plain.send(session.encrypt(frame(b"hello")))
            connection, *_ = await soon(a.opened_ones.get())
            assert await soon(a.frames.get()) == b"hello"
            plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.socket.close()
            connection.close("we had enough too")
            lost, _ = await soon(a.lost_ones.get())
            assert lost is connection
            assert a.lost_ones.empty()

    run(scenario())


def test_half_a_connection_is_closed(run: Run) -> None:
    """A peer that ends the TCP stream without TLS's farewell is lost like any other."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            ours.send(b"last words")
            ours.flush()
            ours._socket.write_eof()
            assert await soon(b.lost_ones.get()) == (theirs, "the peer closed the connection")
            assert b.frames.get_nowait() == b"last words"
            await soon(a.lost_ones.get())

    run(scenario())


# --- Stopping -----------------------------------------------------------------------------------


def test_a_stopped_transport_leaves_nothing(run: Run) -> None:
    """Open connections are lost, dials fail, handshakes end: each told once, all tasks gone."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with Peer() as b:
                a = Peer()
                async with Plain(await a.listen()) as plain:
                    ours, theirs = await a.connect(b)
                    nowhere = Address(*silent.getsockname())
                    guid = a.dial(nowhere, nowhere)
                    ours.send(b"bye")
                    await soon(a.transport.close())
                    assert a.lost_ones.get_nowait() == (ours, STOPPING)
                    stopped = (nowhere, STOPPING)
                    assert a.failed.get_nowait() == (guid, (stopped, stopped), False)
                    await soon(plain.gone())
                assert (await soon(b.lost_ones.get()))[0] is theirs
                assert b.frames.get_nowait() == b"bye"
                late = a.dial(nowhere)
                assert await soon(a.failed.get()) == (late, ((nowhere, STOPPING),), False)
                assert a.lost_ones.empty()
                assert a.failed.empty()
                await soon(a.transport.close())
        gc.collect()

    run(scenario())


def test_a_transport_may_stop_in_the_middle_of_a_handshake(run: Run) -> None:
    """Stopping right after the other end has opened, before ours has, ends both."""

    async def scenario() -> None:
        for _ in range(20):
            async with Peer() as a, Peer() as b:
                a.dial(await b.listen(), expected=b.key.id)
                await soon(a.opened_ones.get())
                await soon(b.transport.close())
                await soon(a.lost_ones.get())
                assert b.opened_ones.qsize() == b.lost_ones.qsize()
        gc.collect()

    run(scenario())


def test_sockets_that_come_and_go_at_once_leave_nothing(run: Run) -> None:
    """Connecting and closing without a word, again and again, holds nothing and harms nobody."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            address = await a.listen()
            for _ in range(50):
                async with Plain(address):
                    pass
            await b.connect(a)
            assert len(a.transport._shared.connections) <= 51
        assert not a.transport._tasks
        assert not a.transport._shared.connections
        gc.collect()

    run(scenario())
