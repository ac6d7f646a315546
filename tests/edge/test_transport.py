"""The transport on real sockets: who gets in, what is delivered, and what is left behind.

Each scenario runs on plain asyncio and on uvloop; how connections end is in test_transport_end.py.
"""

import asyncio
import gc
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.edge.tls_help import OPEN, Peer, Plain, Refusals, managed, run_on, soon
from xorbit.config import DEFAULT_LIMITS, FRAME_BYTES_MAX
from xorbit.errors import WireError, WorldError
from xorbit.identity import Network, NodeKey, open_network, secret_network
from xorbit.items import Address
from xorbit.run import transport as transport_module
from xorbit.run.tls import Session, client_context
from xorbit.run.transport import _host
from xorbit.wire.frame import frame

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_on(request.param)


# --- Who is who ---------------------------------------------------------------------------------


def test_both_ends_learn_the_others_id(run: Run) -> None:
    """After one dial each end knows the other's proved id, and who dialled."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            address = await b.listen()
            guid = a.dial(address, expected=b.key.id)
            ours, peer, where, dial = await soon(a.opened_ones.get())
            assert (peer, where, dial) == (b.key.id, address, guid)
            assert (ours.peer, ours.address) == (b.key.id, address)
            theirs, peer, where, dial = await soon(b.opened_ones.get())
            assert (peer, where.host, dial) == (a.key.id, "127.0.0.1", None)
            assert ours.guid != theirs.guid

    run(scenario())


def test_frames_go_both_ways_in_order(run: Run) -> None:
    """Whatever is sent arrives whole and in order, from one byte to the largest frame."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            payloads = [bytes([n % 256]) * size for n, size in enumerate((1, 40, 16_380, 65_536))]
            payloads = [*payloads * 20, bytes(FRAME_BYTES_MAX)]
            for payload in payloads:
                ours.send(payload)
                theirs.send(payload)
            for payload in payloads:
                assert await soon(b.frames.get()) == payload
                assert await soon(a.frames.get()) == payload

    run(scenario())


def test_sockets_do_not_wait_to_fill_packets(run: Run) -> None:
    """TCP_NODELAY is on at both ends: a small request leaves at once."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            for end in await a.connect(b):
                plain = end._socket.get_extra_info("socket")
                assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(scenario())


def test_another_id_than_expected_is_an_impostor(run: Run) -> None:
    """A dial that reaches another id fails, names that id, and closes the connection."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            guid = a.dial(await b.listen(), expected=NodeKey.generate().id)
            dial, ((_, fault),), impostor = await soon(a.failed.get())
            assert (dial, impostor) == (guid, True)
            assert b.key.id.hex() in fault
            await soon(b.lost_ones.get())
            assert a.opened_ones.empty()

    run(scenario())


@pytest.mark.parametrize("expect_another", [False, True])
def test_our_own_id_answering_is_a_failure(run: Run, expect_another: bool) -> None:
    """A node that dials itself is told so, and an address that should be another's is false."""

    async def scenario() -> None:
        async with Peer() as a:
            expected = NodeKey.generate().id if expect_another else None
            a.dial(await a.listen(), expected=expected)
            _, ((_, fault),), impostor = await soon(a.failed.get())
            assert (fault, impostor) == ("it is ourselves", expect_another)
            assert a.opened_ones.empty()

    run(scenario())


# --- Which network ------------------------------------------------------------------------------

NETWORKS: list[tuple[str, Network, Network]] = [
    ("another-name", OPEN, open_network("another")),
    ("secret-unknown", secret_network("x", b"0123456789abcdef"), open_network("x")),
    (
        "secret-wrong",
        secret_network("x", b"0123456789abcdef"),
        secret_network("x", b"0123456789abcdeg"),
    ),
]


@pytest.mark.parametrize(
    ("inside", "outside"), [pair for _, *pair in NETWORKS], ids=[name for name, *_ in NETWORKS]
)
def test_another_network_cannot_connect(run: Run, inside: Network, outside: Network) -> None:
    """Nodes of two networks do not connect, whoever dials, and the dialler is told why."""

    async def scenario() -> None:
        async with Peer(inside) as a, Peer(outside) as b:
            for dialler, listener in ((a, b), (b, a)):
                dialler.dial(await listener.listen(), expected=listener.key.id)
                assert "belongs to another network" in await dialler.fault()
            assert a.opened_ones.empty()
            assert b.opened_ones.empty()

    run(scenario())


def test_a_managed_network_lets_in_whom_its_operator_admitted(run: Run, tmp_path: Path) -> None:
    """Admitted nodes connect; a node of an open network of the same name does not."""
    (first, first_key), (second, second_key) = managed(tmp_path, "club", 2)

    async def scenario() -> None:
        async with (
            Peer(first, first_key) as a,
            Peer(second, second_key) as b,
            Peer(open_network("club")) as outsider,
        ):
            ours, theirs = await a.connect(b)
            assert (ours.peer, theirs.peer) == (b.key.id, a.key.id)
            outsider.dial(await a.listen())
            assert "belongs to another network" in await outsider.fault()

    run(scenario())


def test_two_managed_networks_of_one_name_stay_apart(run: Run, tmp_path: Path) -> None:
    """What makes a network is its authority, not its name."""
    ((first, first_key),) = managed(tmp_path / "1", "club", 1)
    ((second, second_key),) = managed(tmp_path / "2", "club", 1)

    async def scenario() -> None:
        async with Peer(first, first_key) as a, Peer(second, second_key) as b:
            a.dial(await b.listen())
            assert "belongs to another network" in await a.fault()

    run(scenario())


def test_whoever_trusts_us_but_is_not_admitted_is_told_so(run: Run, tmp_path: Path) -> None:
    """A node that only knows the public part of a managed network is refused by an alert."""
    ((network, key),) = managed(tmp_path, "club", 1)

    async def scenario() -> None:
        with Refusals() as refusals:
            async with Peer(network, key) as a, Peer() as b:
                b.transport._client.load_verify_locations(cadata=network.ca_certificate)
                b.transport._client.set_alpn_protocols([network.alpn])
                b.transport._network = network
                b.dial(await a.listen())
                _, reason = await soon(b.lost_ones.get())
                assert reason.startswith("it refused our certificate")
                assert "belongs to another network" in await soon(refusals.texts.get())
                assert a.opened_ones.empty()

    run(scenario())


def tls_client(*, certificate: bool = True) -> ssl.SSLContext:
    if certificate:
        return client_context(NodeKey.generate(), OPEN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=OPEN.ca_certificate)
    context.set_alpn_protocols([OPEN.alpn])
    return context


def of_version_1_2() -> ssl.SSLContext:
    context = tls_client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def of_other_protocol() -> ssl.SSLContext:
    context = tls_client()
    context.set_alpn_protocols(["xorbit/999/00"])
    return context


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (lambda: tls_client(certificate=False), "it showed no certificate"),
        (of_version_1_2, "it does not speak TLS 1.3"),
        (of_other_protocol, "it speaks another protocol"),
    ],
    ids=["no-certificate", "tls-1.2", "other-protocol"],
)
def test_a_client_that_proves_nothing_is_refused(
    run: Run, context: Callable[[], ssl.SSLContext], why: str
) -> None:
    """Without certificate, TLS 1.3 and our protocol there is no connection."""

    async def scenario() -> None:
        with Refusals() as refusals:
            async with Peer() as a, Plain(await a.listen()) as plain:
                session = Session(context(), OPEN, server_side=False)
                await shake(session, plain)
                await soon(plain.gone())
                assert why in await soon(refusals.texts.get())
                assert a.opened_ones.empty()

    run(scenario())


async def shake(session: Session, plain: Plain) -> None:
    """Take a handshake as far as it goes."""
    try:
        while True:
            try:
                session._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await plain.send(session.outgoing())
                data = await plain.receive()
                if not data:
                    return
                session.receive(memoryview(data))
            except ssl.SSLError:
                return
    finally:
        await plain.send(session.outgoing())


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4_096, b"\x16\x03\x01\xff\xff" + b"x" * 70_000]
)
def test_garbage_instead_of_tls_is_refused(run: Run, garbage: bytes) -> None:
    """What is not TLS is hung up on, and the next honest node is served."""

    async def scenario() -> None:
        with Refusals() as refusals:
            async with Peer() as a, Peer() as b:
                address = await a.listen()
                async with Plain(address) as plain:
                    await plain.send(garbage)
                    await soon(refusals.texts.get())
                    await soon(plain.gone())
                await b.connect(a)
                assert a.opened_ones.empty()

    run(scenario())


# --- Floods and limits --------------------------------------------------------------------------


def test_a_flood_of_silent_sockets_locks_nobody_out(run: Run) -> None:
    """Beyond the limit the oldest silent socket gives way, and an honest node gets in."""
    limits = DEFAULT_LIMITS.replace(handshakes_max=8, handshakes_per_host_max=8)

    async def scenario() -> None:
        async with Peer(limits=limits) as a, Peer() as b, AsyncExitStack() as stack:
            address = await a.listen()
            silent = [await stack.enter_async_context(Plain(address)) for _ in range(50)]
            await soon(silent[0].gone())
            b.dial(address, expected=a.key.id)
            await soon(b.opened_ones.get())
            await soon(silent[41].gone())
            assert len(a.transport._pending) <= 8

    run(scenario())


def test_one_host_cannot_displace_the_handshakes_of_others(run: Run) -> None:
    """The limit per host makes a flooding host displace its own handshakes only."""
    limits = DEFAULT_LIMITS.replace(handshakes_max=8, handshakes_per_host_max=4)

    async def scenario() -> None:
        async with Peer(limits=limits) as a, AsyncExitStack() as stack:
            address = await a.listen()
            await stack.enter_async_context(Plain(address, source="127.0.0.2"))
            flood = [await stack.enter_async_context(Plain(address)) for _ in range(20)]
            await soon(flood[15].gone())
            assert sorted(a.transport._pending.values()) == ["127.0.0.1"] * 4 + ["127.0.0.2"]

    run(scenario())


async def hung_up(plain: socket.socket) -> bool:
    try:
        return not await asyncio.get_running_loop().sock_recv(plain, 1)
    except ConnectionError:
        return True


def test_a_burst_beyond_the_limit_leaves_no_socket_behind(run: Run) -> None:
    """Sockets accepted and displaced in one and the same turn are closed, not forgotten."""
    limits = DEFAULT_LIMITS.replace(handshakes_max=8, handshakes_per_host_max=2)

    async def scenario() -> None:
        async with Peer(limits=limits) as a:
            address = await a.listen()
            burst = [socket.create_connection((address.host, address.port)) for _ in range(8)]
            for each in burst[:6]:
                each.setblocking(False)
                assert await soon(hung_up(each))
            assert len(a.transport._pending) == 2
            for each in burst:
                each.close()
        gc.collect()

    run(scenario())


def test_an_ipv6_network_counts_as_one_host() -> None:
    """Addresses of one /64 share a limit; IPv4 addresses have one each."""
    assert _host(Address("2001:db8::1", 1)) == _host(Address("2001:db8::ffff:1", 2))
    assert _host(Address("2001:db8::1", 1)) != _host(Address("2001:db8:0:1::1", 1))
    assert _host(Address("fe80::1%eth0", 1)) == _host(Address("fe80::2", 1))
    assert _host(Address("192.0.2.1", 1)) != _host(Address("192.0.2.2", 1))


def test_a_silent_socket_is_hung_up_on_in_time(run: Run) -> None:
    """Whoever does not shake hands within the limit is closed."""
    limits = DEFAULT_LIMITS.replace(handshake_timeout_s=0.05)

    async def scenario() -> None:
        async with Peer(limits=limits) as a, Plain(await a.listen()) as plain:
            assert await soon(plain.gone())

    run(scenario())


def test_running_out_of_descriptors_does_not_stop_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When accepting fails for want of descriptors it is tried again, not given up."""
    monkeypatch.setattr(transport_module, "ACCEPT_PAUSE_S", 0.05)

    async def scenario() -> None:
        with Refusals() as said:
            async with Peer() as a, Peer() as b:
                address = await a.listen()
                plain = Plain(address)
                with no_descriptors_left():
                    await plain.__aenter__()
                    assert "cannot accept connections" in await soon(said.texts.get())
                async with plain:
                    b.dial(address, expected=a.key.id)
                    await soon(b.opened_ones.get())

    run(scenario())


class no_descriptors_left:  # noqa: N801 -- reads as a statement
    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as probe:
            lowest = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, self._limits[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


# --- Dialling and listening ---------------------------------------------------------------------


def unused_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Address(*server.getsockname())


def test_addresses_are_tried_in_order(run: Run) -> None:
    """A dial goes on to the next address, and reports only if none leads to the peer."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b, Peer() as c:
            someone, right = await c.listen(), await b.listen()
            nobody = unused_address()  # last, or one of the two might be given that port
            a.dial(nobody, someone, right, expected=b.key.id)
            _, peer, where, _ = await soon(a.opened_ones.get())
            assert (peer, where) == (b.key.id, right)
            a.dial(nobody, someone, expected=b.key.id)
            _, tried, impostor = await soon(a.failed.get())
            refused = f"node {c.key.id.hex()} answered there"
            assert tried == ((nobody, "Connection refused"), (someone, refused))
            assert impostor

    run(scenario())


def test_a_silent_address_fails_in_time(run: Run) -> None:
    """Whoever accepts and then says nothing costs no more than the limit."""
    limits = DEFAULT_LIMITS.replace(dial_timeout_s=0.05)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with Peer(limits=limits) as a:
                a.dial(Address(*silent.getsockname()))
                assert await a.fault() == "no answer within 0.05 s"

    run(scenario())


def test_what_is_no_node_fails_with_a_reason(run: Run) -> None:
    """A server that speaks something else is named as such."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with server, Peer() as a:
            a.dial(Address(*server.sockets[0].getsockname()))
            assert await a.fault() == "it does not speak TLS 1.3"

    run(scenario())


def test_a_name_stands_for_its_addresses(run: Run) -> None:
    """A DNS name is resolved, and each of its addresses tried."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            address = await b.listen()
            a.dial(Address("localhost", address.port), expected=b.key.id)
            _, peer, where, _ = await soon(a.opened_ones.get())
            assert (peer, where) == (b.key.id, address)
            a.dial(Address("localhost", unused_address().port))
            assert "127.0.0.1: Connection refused" in await a.fault()
            a.dial(Address("x" * 64 + ".invalid", 1))
            assert (await a.fault()).startswith("the name cannot be resolved")

    run(scenario())


def test_ipv6_works_as_ipv4_does(run: Run) -> None:
    """A node listens at and dials IPv6 addresses."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6 loopback")

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            address = await b.listen(Address("::1", 0))
            a.dial(address, expected=b.key.id)
            _, _, where, _ = await soon(a.opened_ones.get())
            assert where == address

    run(scenario())


def test_listening_where_one_cannot_says_why(run: Run) -> None:
    """A port in use, an address of another host and a bad name are each named."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            taken = await a.listen()
            with pytest.raises(WorldError, match=rf"{taken.port}: Address already in use"):
                await b.listen(taken)
            with pytest.raises(WorldError, match="Cannot assign requested address"):
                await b.listen(Address("192.0.2.1", 0))
            with pytest.raises(WorldError, match="cannot listen at x"):
                await b.listen(Address("x" * 64, 0))

    run(scenario())


def test_a_node_that_stopped_listening_keeps_its_connections(run: Run) -> None:
    """stop_listening refuses newcomers and leaves the others alone."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b, Peer() as c:
            ours, _ = await a.connect(b)
            b.transport.stop_listening()
            c.dial(ours.address)
            assert await c.fault() == "Connection refused"
            ours.send(b"still here")
            assert await soon(b.frames.get()) == b"still here"

    run(scenario())


# --- What arrives -------------------------------------------------------------------------------


def test_frames_sent_with_the_last_flight_are_not_lost(run: Run) -> None:
    """Bytes in the very packet that ends the handshake are delivered after `opened`."""

    async def scenario() -> None:
        async with Peer() as a, Plain(await a.listen()) as plain:
            session = Session(tls_client(), OPEN, server_side=False)
            assert session.shake() is None
            await plain.send(session.outgoing())
            while session.shake() is None:
                session.receive(memoryview(await plain.receive()))
            await plain.send(session.encrypt(frame(b"early") + frame(b"bird")))
            await soon(a.opened_ones.get())
            assert await soon(a.frames.get()) == b"early"
            assert await soon(a.frames.get()) == b"bird"

    run(scenario())


def test_what_is_sent_from_within_opened_arrives(run: Run) -> None:
    """Both ends may speak in the moment in which they learn of the connection."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            a.on_opened = lambda connection: connection.send(b"from a")
            b.on_opened = lambda connection: connection.send(b"from b")
            address = await b.listen()
            for _ in range(20):
                a.dial(address)
                assert await soon(a.frames.get()) == b"from b"
                assert await soon(b.frames.get()) == b"from a"

    run(scenario())


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_an_impossible_frame_can_be_closed_with_its_reason(run: Run, length: int) -> None:
    """The WireError of a bad length leaves the connection closable with that text."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)

            def pull(connection: Any) -> None:
                try:
                    b.pull(connection)
                except WireError as error:
                    connection.close(str(error))

            b.on_readable = pull
            ours._outbox += [frame(b"good"), length.to_bytes(4, "big"), b"rest"]
            ours.flush()
            connection, reason = await soon(b.lost_ones.get())
            assert connection is theirs
            assert f"got a length of {length:,}" in reason
            assert await soon(b.frames.get()) == b"good"
            await soon(a.lost_ones.get())

    run(scenario())


def test_a_truncated_frame_is_never_delivered(run: Run) -> None:
    """A peer that goes away in the middle of a frame is lost, its half frame with it."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            ours._outbox += [frame(b"whole"), frame(bytes(1_000))[:500]]
            ours.close("half a frame is enough")
            assert await soon(b.lost_ones.get()) == (theirs, "the peer closed the connection")
            assert b.frames.get_nowait() == b"whole"
            assert b.frames.empty()
            assert theirs.next_frame() is None

    run(scenario())


def test_random_bytes_after_the_handshake_end_the_connection(run: Run) -> None:
    """Bytes that TLS cannot decrypt end the connection with a reason, and nothing else."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, theirs = await a.connect(b)
            ours._socket.write(b"\x17\x03\x03\x00\x40" + b.rng.randbytes(64))
            connection, reason = await soon(b.lost_ones.get())
            assert connection is theirs
            assert reason.startswith("TLS failed")
            assert b.frames.empty()

    run(scenario())


def test_what_may_not_be_sent_is_refused(run: Run) -> None:
    """An empty and an oversized payload are refused at the sender."""

    async def scenario() -> None:
        async with Peer() as a, Peer() as b:
            ours, _ = await a.connect(b)
            for payload in (b"", bytes(FRAME_BYTES_MAX + 1)):
                with pytest.raises(WireError, match="a frame holds"):
                    ours.send(payload)
            ours.send(b"fine")
            assert await soon(b.frames.get()) == b"fine"

    run(scenario())
