"""What the tests of the local socket share: a server over a fake node, and clients of it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core.effect import PutDone
from xorbit.core.status import FingerStatus, PeerStatus, Status
from xorbit.core.trace import Event
from xorbit.identity import open_network
from xorbit.ids import Guid, Id
from xorbit.items import (
    Address,
    Contact,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    key_of,
    make_block,
)
from xorbit.pins import Order, Told
from xorbit.run import control_wire as wire
from xorbit.run.calls import (
    Calls,
    Key,
    Name,
    NodeStatus,
    PingAnswer,
    PutReceipt,
    Target,
    cid_from,
)
from xorbit.run.control import ControlServer
from xorbit.run.control_client import ControlClient
from xorbit.store.base import Usage
from xorbit.store.ledger import MemoryPins, MemoryTable, tend
from xorbit.wire.message import Receipt

T = TypeVar("T")
WITHIN_S = 20.0
NETWORK = open_network("control tests")
QUICK = DEFAULT_LIMITS.replace(handshake_timeout_s=0.2, shutdown_s_max=1.0)
OWN, OTHER = Id(b"o" * 32), Id(b"p" * 32)


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(WITHIN_S):
        return await what


def peer(number: int) -> PeerStatus:
    return PeerStatus(
        id=Id(number.to_bytes(32, "big")),
        connection=Guid(number.to_bytes(16, "big")),
        address=Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65_535),
        dialled=True,
        round_trip_s=0.123456789,
        waiting_for=1_000,
        answering=1_000,
        open_s=123_456.789,
    )


def contact(number: int) -> Contact:
    """Return the largest that there is."""
    where = (Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65_535 - at) for at in range(16))
    return Contact(Id(number.to_bytes(32, "big")), tuple(where))


def finger(number: int) -> FingerStatus:
    return FingerStatus(index=number, point=OWN, contact=contact(number), connected=True)


def status() -> NodeStatus:
    fields: dict[str, Any] = dict.fromkeys(Status.__struct_fields__, 0)
    fields |= {"id": OWN, "addresses": (Address("::1", 1),), "joined": True, "stopping": False}
    return NodeStatus("ours", Status(**fields), Usage(1, 2, 3))


class FakeCalls(Calls):
    """A node that holds blocks in a dict, and waits or fails where a test wants it to."""

    def __init__(self, peers: int = 0) -> None:
        self.held: dict[Name, bytes] = {}
        self.roots = MemoryTable()
        self.pinned: dict[ItemKey, float] = {}
        self.unpinned: list[tuple[Name, bytes]] = []
        self.running = 0
        self.running_most = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.opens_at = 0
        """At how many calls in flight the gate opens by itself."""
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self.pinged: Target | None = None
        self.signed: dict[ItemKey, Item] = {}
        self.followed: list[Record] = []
        self._peers = peers

    async def _pass(self) -> None:
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        if self.running == self.opens_at:
            self.gate.set()
        self.started.set()
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
            self.ended.set()

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        await self._pass()
        key = block_key(data, kind)
        self.held[key] = data
        self.pinned[key] = 0.0
        return PutReceipt(key, (Receipt(OWN, "stored"), Receipt(OTHER, "refused", "full")))

    async def get_block(self, key: Name) -> bytes:
        await self._pass()
        return self.held[cid_from(key).key]

    async def tend(self, order: Order) -> Told:
        """As the store of a node does, at once."""
        return tend(order, self.roots, MemoryPins(self.pinned), 0.0)

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        await self._pass()
        self.pinned[key] = 0.0
        return item or make_block(self.held[key], key.kind)

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        await self._pass()
        self.unpinned.append((name, salt))
        return 3

    async def gc(self) -> int:
        await self._pass()
        return 4

    async def ping(self, target: Target) -> PingAnswer:
        await self._pass()
        self.pinged = target
        return PingAnswer(OTHER, 0.25, Address("::1", 1), ())

    async def status(self) -> NodeStatus:
        await self._pass()
        return status()

    async def peers(self) -> tuple[PeerStatus, ...]:
        await self._pass()
        return tuple(map(peer, range(self._peers)))

    async def fingers(self) -> tuple[FingerStatus, ...]:
        await self._pass()
        return tuple(map(finger, range(self._peers)))

    async def contacts(self) -> tuple[Contact, ...]:
        await self._pass()
        return tuple(map(contact, range(self._peers)))

    async def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        await self._pass()
        return tuple(map(contact, range(self._peers)))

    async def get_signed(self, key: ItemKey) -> Item:
        await self._pass()
        return self.signed[key]

    async def put_record(self, record: Record, cas: int) -> PutDone:
        await self._pass()
        self.signed[key_of(record)] = record
        self.pinned[key_of(record)] = 0.0
        self.followed.append(record)
        return PutDone((Receipt(OWN, "stored"),), record, won=True)

    async def follow(self, public_key: Key, salt: bytes = b"") -> AsyncGenerator[Record]:
        for record in self.followed:
            yield record
        await self._pass()

    async def trace(self, work: Guid | str) -> tuple[Event, ...]:
        await self._pass()
        return ()

    async def console(self, line: str) -> AsyncGenerator[str]:
        await self._pass()
        yield line


class Served:
    """A server over a home, with what it was told."""

    def __init__(self, home: Path, calls: FakeCalls, limits: Limits) -> None:
        self.home = home
        self.calls = calls
        self.lines: list[str] = []
        self.gone: list[str] = []
        self.a_line_is_gone = asyncio.Event()
        self.server = ControlServer(home, NETWORK, self._calls, self._gone, limits)

    def _calls(self, line: str) -> Calls:
        self.lines.append(line)
        return self.calls

    def _gone(self, line: str) -> None:
        self.gone.append(line)
        self.a_line_is_gone.set()

    def said(self) -> wire.ControlFile:
        found = wire.read_control_file(self.home)
        assert found is not None
        return found


@asynccontextmanager
async def serving(
    home: Path, calls: FakeCalls | None = None, limits: Limits = DEFAULT_LIMITS
) -> AsyncGenerator[Served]:
    served = Served(home, calls or FakeCalls(), limits)
    await served.server.start()
    try:
        yield served
    finally:
        await soon(served.server.stop())


@asynccontextmanager
async def client_of(home: Path) -> AsyncGenerator[ControlClient]:
    client = await soon(ControlClient.connect(home))
    try:
        yield client
    finally:
        await soon(client.close())
