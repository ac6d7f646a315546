"""Nodes without a machine for tests of TLS and transport: real sockets, events kept in queues."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.identity import (
    Network,
    NodeKey,
    admit_node,
    create_network,
    install_membership,
    open_network,
)
from xorbit.ids import Guid, Id, new_guid
from xorbit.items import Address
from xorbit.run.transport import Connection, Transport

T = TypeVar("T")
DEADLINE_S = 20
LOOPBACK = Address("127.0.0.1", 0)
OPEN = open_network("edge tests")


async def soon(awaitable: Awaitable[T]) -> T:
    """Return what was awaited, or fail at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        return await awaitable


def run_on(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return what runs a scenario on such a loop and fails if it left anything behind."""

    def run(scenario: Coroutine[Any, Any, None]) -> None:
        faults: list[dict[str, Any]] = []

        async def watched() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: faults.append(context))
            await scenario
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(watched())
        assert faults == []

    return run


class Peer:
    """A transport and what it told: the driver's place, without a machine."""

    def __init__(
        self,
        network: Network = OPEN,
        key: NodeKey | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.key = key or NodeKey.generate()
        self.rng = Random(self.key.id)
        self.opened_ones: asyncio.Queue[tuple[Connection, Id, Address, Guid | None]] = (
            asyncio.Queue()
        )
        self.failed: asyncio.Queue[tuple[Guid, tuple[tuple[Address, str], ...], bool]] = (
            asyncio.Queue()
        )
        self.lost_ones: asyncio.Queue[tuple[Connection, str]] = asyncio.Queue()
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.drained_ones: asyncio.Queue[Connection] = asyncio.Queue()
        self.on_opened: Callable[[Connection], None] = lambda _: None
        self.on_readable: Callable[[Connection], None] = self.pull
        self.transport = Transport(
            key=key or self.key, network=network, limits=limits, rng=self.rng, events=self
        )

    # Events

    def opened(self, connection: Connection, peer: Id, address: Address, dial: Guid | None) -> None:
        self.opened_ones.put_nowait((connection, peer, address, dial))
        self.on_opened(connection)

    def dial_failed(
        self,
        dial: Guid,
        tried: tuple[tuple[Address, str], ...],
        impostor: bool,
        ours: tuple[Address, ...] = (),
    ) -> None:
        self.failed.put_nowait((dial, tried, impostor))

    def readable(self, connection: Connection) -> None:
        self.on_readable(connection)

    def drained(self, connection: Connection) -> None:
        self.drained_ones.put_nowait(connection)

    def lost(self, connection: Connection, reason: str) -> None:
        self.lost_ones.put_nowait((connection, reason))

    # Acts

    def pull(self, connection: Connection) -> None:
        while (payload := connection.next_frame()) is not None:
            self.frames.put_nowait(payload)

    async def listen(self, address: Address = LOOPBACK) -> Address:
        (bound,) = await self.transport.listen(address)
        return bound

    def dial(self, *addresses: Address, expected: Id | None = None) -> Guid:
        guid = new_guid(self.rng)
        self.transport.dial(guid, addresses, expected)
        return guid

    async def connect(self, other: "Peer") -> tuple[Connection, Connection]:
        """Return both ends of a new connection, ours first."""
        self.dial(await other.listen(), expected=other.key.id)
        ours, *_ = await soon(self.opened_ones.get())
        theirs, *_ = await soon(other.opened_ones.get())
        return ours, theirs

    async def fault(self) -> str:
        """Return what happened at the only address of the dial that failed."""
        _, ((_, fault),), _ = await soon(self.failed.get())
        return fault

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await soon(self.transport.close())


class Refusals(logging.Handler):
    """Why inbound handshakes were refused, as the transport logs it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self._log = logging.getLogger("xorbit.run.transport")
        self._level = self._log.level

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put_nowait(record.getMessage())

    def __enter__(self) -> Self:
        self._log.addHandler(self)
        self._log.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)


def managed(directory: Path, name: str, homes: int) -> list[tuple[Network, NodeKey]]:
    """Return a managed network as each of its admitted nodes sees it."""
    create_network(directory / "operator", name)
    nodes: list[tuple[Network, NodeKey]] = []
    for number in range(homes):
        home = directory / str(number)
        key = NodeKey.load_or_create(home)
        content = admit_node(directory / "operator", key.public_key)
        nodes.append((install_membership(home, content), key))
    return nodes


class Plain:
    """A TCP connection by hand, for what no honest node does."""

    def __init__(self, to: Address, source: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((source, 0))
        self._to = to

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await soon(loop.sock_connect(self.socket, (self._to.host, self._to.port)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def send(self, data: bytes) -> None:
        await soon(asyncio.get_running_loop().sock_sendall(self.socket, data))

    async def receive(self) -> bytes:
        return await soon(asyncio.get_running_loop().sock_recv(self.socket, 65_536))

    async def gone(self) -> bool:
        """Wait until the other end has closed; whatever comes before is dropped."""
        try:
            while await self.receive():
                pass
        except ConnectionError:
            pass
        return True
