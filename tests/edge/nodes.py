"""Real nodes for edge tests: drivers in this process, peers that misbehave, nodes as processes.

Everything waits for events, with a deadline; after every step of a driver the core's invariants are
asserted. Nothing here sleeps.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self, TypeVar

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.check import check
from xorbit.core.effect import Effect, Outcome, Report
from xorbit.core.job import Job
from xorbit.identity import Network, NodeKey, open_network
from xorbit.ids import Guid, Id, distance, new_guid
from xorbit.items import Address, Block, Contact, Item, ItemKey, key_of, make_block
from xorbit.run.driver import Driver
from xorbit.run.transport import Connection, Transport
from xorbit.store.base import Store
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore
from xorbit.wire import message
from xorbit.wire.message import Closest, Envelope, FindClosest, Ping, Pong, Request, Response

DEADLINE_S = 30.0
"""How long anything may take before its test fails; nothing is expected to come near it."""
ANY_PORT = ("127.0.0.1", 0)
NETWORK = open_network("xorbit edge tests")
PATIENT = DEFAULT_LIMITS.replace(
    request_timeout_s_min=20.0,
    request_timeout_s_first=20.0,
    request_timeout_s_max=20.0,
    handshake_timeout_s=20.0,
    dial_timeout_s=20.0,
)
"""Limits under which no honest peer ever counts as silent, however busy this machine is."""
QUICK = DEFAULT_LIMITS.replace(
    request_timeout_s_first=1.0,
    request_timeout_s_min=1.0,
    request_timeout_s_max=2.0,
    shutdown_s_max=1.0,
)
"""Limits under which silence is noticed soon."""

T = TypeVar("T")


def within(seconds: float = DEADLINE_S) -> asyncio.Timeout:
    return asyncio.timeout(seconds)


def any_port() -> Address:
    return Address(*ANY_PORT)


def sample(number: int, size: int = 65_536) -> Block:
    return make_block(Random(number).randbytes(size))


def key_near(target: Id, *others: Id) -> NodeKey:
    """Return the key of a node that is nearer to the target than all the others."""
    nearest = min(distance(target, other) for other in others)
    while True:
        key = NodeKey.generate()
        if distance(target, key.id) < nearest:
            return key


class Watched:
    """What happened, in order; past and future entries can be waited for."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self._waiting: list[tuple[Callable[[object], bool], asyncio.Future[object]]] = []

    def add(self, entry: object) -> None:
        self.seen.append(entry)
        for matches, waiter in self._waiting:
            if not waiter.done() and matches(entry):
                waiter.set_result(entry)

    def all(self, kind: type[T]) -> list[T]:
        return [entry for entry in self.seen if isinstance(entry, kind)]

    async def until(self, kind: type[T], matches: Callable[[T], bool] = lambda _: True) -> T:
        """Return the first entry of this kind that matches, once there is one."""

        def wanted(entry: object) -> bool:
            return isinstance(entry, kind) and matches(entry)

        for entry in self.seen:
            if wanted(entry):
                return entry  # type: ignore[return-value]
        waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, waiter))
        async with within():
            return await waiter  # type: ignore[return-value]


# --- A node -------------------------------------------------------------------------------------


class Node:
    """A real driver, with everything that happens to it and everything that it reports."""

    def __init__(self, driver: Driver, reports: Watched) -> None:
        self.driver = driver
        self.reports = reports
        self.jobs = Watched()
        self.log: list[tuple[float, Job, list[Effect]]] = []
        self.id = driver.machine.state.own
        self._step = driver.machine.step
        driver.machine.step = self._watched_step  # type: ignore[method-assign]

    def _watched_step(self, now: float, job: Job) -> list[Effect]:
        effects = self._step(now, job)
        check(self.driver.machine.state)
        self.log.append((now, job, effects))
        self.jobs.add(job)
        return effects

    @property
    def address(self) -> Address:
        return self.driver.machine.state.listening[0]

    @property
    def contact(self) -> Contact:
        return Contact(self.id, (self.address,))

    async def call(self, make: Callable[[Guid], Job]) -> Outcome:
        async with within():
            return await self.driver.call(make(self.driver.new_guid()))

    async def join(self, *addresses: Address) -> Outcome:
        return await self.call(lambda guid: jobs.Bootstrap(guid, addresses))

    async def put(self, item: Item) -> fx.PutDone:
        outcome = await self.call(lambda guid: jobs.Store(guid, key_of(item), item))
        assert isinstance(outcome, fx.PutDone), outcome
        return outcome

    async def get(self, key: ItemKey) -> Outcome:
        return await self.call(lambda guid: jobs.Get(guid, key))

    async def ask(self, contact: Contact, request: Request) -> Outcome:
        return await self.call(lambda guid: jobs.SendRequest(guid, contact, request))

    async def connect(self, address: Address, expected: Id | None = None) -> Outcome:
        return await self.call(lambda guid: jobs.Connect(guid, (address,), expected))

    async def response(self, contact: Contact, request: Request) -> Response:
        outcome = await self.ask(contact, request)
        assert isinstance(outcome, fx.Answered), outcome
        return outcome.response

    async def reported(self, event: str, detail: str = "") -> Report:
        return await self.reports.until(Report, lambda r: r.event == event and detail in r.detail)

    async def lost(self, reason: str) -> jobs.ConnectionLost:
        return await self.jobs.until(jobs.ConnectionLost, lambda job: reason in job.reason)


async def serves(node: Node, client: Node, item: Item) -> None:
    """Assert that the node answers the client at this very moment: a Ping and a Get."""
    assert isinstance(await client.response(node.contact, Ping()), Pong)
    found = await client.response(node.contact, message.Get(key_of(item)))
    assert found == message.Found(item)


class House:
    """Brings nodes and peers up, and takes all of them down at the end of a test."""

    def __init__(self, limits: Limits = PATIENT) -> None:
        self.limits = limits
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with within():
            await self._stack.aclose()

    def make(
        self,
        store: Store | Path | None = None,
        *,
        key: NodeKey | None = None,
        network: Network = NETWORK,
        limits: Limits | None = None,
        job_log: Path | None = None,
        show: Callable[[str], None] = lambda _: None,
    ) -> Node:
        """Return a node that is not started yet; `store` may be a directory, else it is memory."""
        limits = limits or self.limits
        if isinstance(store, Path):
            store = LmdbStore(store, limits.store_quota_bytes)
        reports = Watched()
        driver = Driver(
            key=key or NodeKey.generate(),
            network=network,
            store=store or MemoryStore(limits.store_quota_bytes),
            limits=limits,
            report=reports.add,
            show=show,
            job_log=job_log,
        )
        self._stack.push_async_callback(driver.stop)
        return Node(driver, reports)

    async def node(
        self, store: Store | Path | None = None, *, boot: Sequence[Node] = (), **how: object
    ) -> Node:
        """Return a node that listens, joined through `boot`."""
        node = self.make(store, **how)  # type: ignore[arg-type]
        await node.driver.start([any_port()])
        await node.jobs.until(jobs.Listening)
        if boot:
            joined = await node.join(*(other.address for other in boot))
            assert isinstance(joined, fx.Joined), joined
        return node

    async def client(self, *boot: Node | Address, **how: object) -> Node:
        """Return a node that does not listen, joined through `boot`."""
        node = self.make(**how)  # type: ignore[arg-type]
        await node.driver.start()
        for other in boot:
            address = other if isinstance(other, Address) else other.address
            joined = await node.connect(address)
            assert isinstance(joined, fx.Connected), joined
        return node

    async def peer(self, **how: object) -> "Peer":
        peer = Peer(**how)  # type: ignore[arg-type]
        self._stack.push_async_callback(peer.transport.close)
        return peer


# --- A peer that does what the test says ----------------------------------------------------------


def polite(envelope: Envelope) -> Response | None:
    """Answer as a node that knows nobody and holds nothing."""
    match envelope.body:
        case Ping():
            return Pong()
        case FindClosest() | message.Get():
            return Closest(())
        case _:
            return message.Refused("unsupported", "a peer of a test")


def silent(_: Envelope) -> None:
    """Answer nothing."""


def only_pings(envelope: Envelope) -> Response | None:
    """Be there, and answer nothing else."""
    return Pong() if isinstance(envelope.body, Ping) else None


class Lost:
    """The end of a peer's connection."""

    def __init__(self, connection: Connection, reason: str) -> None:
        self.connection = connection
        self.reason = reason


class Peer:
    """The real transport and the real protocol, with a test in the place of the machine."""

    def __init__(
        self,
        *,
        key: NodeKey | None = None,
        network: Network = NETWORK,
        limits: Limits = PATIENT,
        answer: Callable[[Envelope], Response | None] = polite,
    ) -> None:
        self.key = key or NodeKey.generate()
        self.answer = answer
        self.seen = Watched()
        self.inbox = Watched()
        self.pulls = True
        """Whether it takes the frames that come."""
        self._rng = Random(self.key.public_key)
        self.transport = Transport(
            key=self.key, network=network, limits=limits, rng=self._rng, events=self
        )

    async def listen(self) -> Address:
        (address,) = await self.transport.listen(any_port())
        return address

    async def dial(self, address: Address, expected: Id | None = None) -> Connection:
        """Return an open connection; a dial that failed fails the test with what happened."""
        ended = await self.dialled(address, expected)
        assert isinstance(ended, Connection), ended
        return ended

    async def dialled(self, address: Address, expected: Id | None = None) -> object:
        """Dial; return the connection, or what was tried."""
        guid = new_guid(self._rng)
        self.transport.dial(guid, (address,), expected)
        _, ended = await self.seen.until(tuple, lambda entry: entry[0] == guid)
        return ended

    def send(
        self, connection: Connection, body: Request | Response, guid: Guid | None = None
    ) -> Guid:
        guid = guid or new_guid(self._rng)
        connection.send(message.encode(Envelope(guid, guid, body)))
        return guid

    def send_bytes(self, connection: Connection, data: bytes) -> None:
        """Send bytes as they are, in place of a frame."""
        connection.flush()
        connection._write(connection._session.encrypt(data))

    async def ask(self, connection: Connection, request: Request) -> Response:
        guid = self.send(connection, request)
        return (await self.inbox.until(Envelope, lambda envelope: envelope.guid == guid)).body

    async def until_lost(self, connection: Connection) -> str:
        lost = await self.seen.until(Lost, lambda lost: lost.connection is connection)
        return lost.reason

    # What the transport tells (Events).

    def opened(self, connection: Connection, peer: Id, address: Address, dial: Guid | None) -> None:
        self.seen.add((dial, connection))

    def dial_failed(
        self,
        dial: Guid,
        tried: tuple[tuple[Address, str], ...],
        impostor: bool,
        ours: tuple[Address, ...] = (),
    ) -> None:
        self.seen.add((dial, tried))

    def readable(self, connection: Connection) -> None:
        while self.pulls and (payload := connection.next_frame()) is not None:
            envelope = message.decode(payload)
            self.inbox.add(envelope)
            if isinstance(envelope.body, Request):
                response = self.answer(envelope)
                if response is not None:
                    self.send(connection, response, envelope.guid)

    def drained(self, connection: Connection) -> None:
        pass

    def lost(self, connection: Connection, reason: str) -> None:
        self.seen.add(Lost(connection, reason))


# --- A node that is a process -------------------------------------------------------------------

# Leaner than `xorbit node`, since it is started a hundred times.
# Says where it listens; ends in order on SIGTERM.
PROGRAM = """
import asyncio, signal, sys
from pathlib import Path
import uvloop
from xorbit.config import DEFAULT_LIMITS
from xorbit.core.job import Bootstrap
from xorbit.identity import NodeKey, open_network
from xorbit.items import Address
from xorbit.run.driver import Driver
from xorbit.store.lmdb import LmdbStore

home, network, quota_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def complain(report):
    if report.level != "info":  # that it has joined comes with its upkeep, at a time by chance
        print(report, file=sys.stderr, flush=True)

async def main():
    driver = Driver(
        key=NodeKey.load_or_create(home),
        network=open_network(network),
        store=LmdbStore(home / "store", quota_bytes),
        limits=DEFAULT_LIMITS,
        report=complain,
    )
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await driver.start([Address("127.0.0.1", 0)])
    await driver.call(Bootstrap(driver.new_guid()))
    status = driver.status()
    print(status.id.hex(), status.addresses[0].port, flush=True)
    await told.wait()
    await driver.stop()

uvloop.run(main())
"""


class Process:
    """A node in a process of its own, on this home."""

    def __init__(
        self, home: Path, *, quota_bytes: int = 2**30, command: Sequence[str] = ()
    ) -> None:
        arguments = [sys.executable, "-c", PROGRAM, str(home), NETWORK.name, str(quota_bytes)]
        self._errors = home.parent / f"{home.name}.errors"
        with self._errors.open("w") as errors:
            self.popen = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.popen.stdout is not None
        words = self.popen.stdout.readline().split()
        if len(words) != 2:
            self.kill()
            raise AssertionError(f"the node did not start: {self.errors()}")
        self.id = Id(bytes.fromhex(words[0]))
        self.address = Address("127.0.0.1", int(words[1]))
        self.contact = Contact(self.id, (self.address,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def errors(self) -> str:
        return self._errors.read_text()

    def kill(self) -> None:
        """End it at once; also where it has ended already."""
        self.popen.kill()
        self.wait()

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return self.popen.wait(DEADLINE_S)

    def memory_bytes_max(self) -> int:
        """Return the most memory that it has had resident so far."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
