"""The API: a node within a program, and the way to a node that runs already.

    async with xorbit.Node(bootstrap=["host:port"]) as node:
        receipt = await node.put_block(b"hello")

What a node does is decided in the core and done in `run`; here they are put together with a home
(key, store, local socket, local discovery) and taken apart again. Nothing of the command line may
enter.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xorbit import homes
from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core import job as jobs
from xorbit.core.effect import Failed, PutDone, Report
from xorbit.core.status import FingerStatus, PeerStatus
from xorbit.core.trace import Event
from xorbit.errors import MisuseError, NotRunningError, StoreError, WorldError, XorbitError
from xorbit.homes import DEFAULT_NETWORK, STORE_DIRECTORY, default_home
from xorbit.identity import Network, NodeKey, load_network, nobodys_network
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, Item, ItemKey, Kind, Record, parse_address
from xorbit.paths import StrPath, path_from
from xorbit.pins import Order, Told
from xorbit.run import revoked
from xorbit.run.calls import (
    Calls,
    Key,
    Name,
    NodeStatus,
    PingAnswer,
    PutReceipt,
    Target,
    documented,
)
from xorbit.run.control import ControlServer
from xorbit.run.control_client import ControlClient
from xorbit.run.driver import OWN_LINE, Driver
from xorbit.run.keeper import Keeper
from xorbit.run.local_calls import LocalCalls, describe
from xorbit.run.mdns import LocalDiscovery, is_useful
from xorbit.store.base import Eviction
from xorbit.store.lmdb import LmdbStore

KEEPER_LINE = "keeper"
NOT_JOINED = "this node was told not to look for others"
NO_ADDRESS = "no address of another node is known: name one with --bootstrap HOST:PORT"

log = logging.getLogger("xorbit")


# --- A node -------------------------------------------------------------------------------------


@documented
class Node(Calls):
    """One node of the network, as an async context manager: it starts, does its work, and leaves.

    Without `listen` it is a client: it holds nothing for others, and nobody dials it.
    """

    def __init__(
        self,
        home: StrPath | None = None,
        *,
        listen: Sequence[str] | str = (),
        bootstrap: Sequence[str] | str = (),
        network: str | None = None,
        secret: bytes | None = None,
        limits: Limits = DEFAULT_LIMITS,
        control: bool = True,
        join: bool = True,
        mdns: bool = True,
        job_log: StrPath | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        """Describe a node; nothing happens yet.

        Args:
            home: the directory of its key, its store and its memory of peers; made if missing.
                By default `XORBIT_HOME`, else the user's data directory.
            listen: "host:port", one or several; port 0 lets the system choose.
            bootstrap: "host:port" of nodes to join through, besides those remembered.
            network: the network's public name; by default that of the home, else "xorbit".
            secret: what only the members of that network know, at least 16 bytes.
            limits: every limit and interval.
            control: whether other programs of this user may use this node, over a local socket.
            join: whether to look for other nodes; without, only what is on this disk is there.
            mdns: whether a node that listens finds others of its local network by multicast DNS.
            job_log: a file to write every job to, for `xorbit replay`.
            show: takes the answers to what is typed at the node's console.

        Raises:
            MisuseError: a path or an address that is none.
        """
        self.home = _home_from(home)
        self._listen = [_listen_address(text) for text in _several(listen)]
        self._bootstrap = [parse_address(text) for text in _several(bootstrap)]
        self._network_name = network
        self._secret = secret
        self._limits = limits
        self._has_control = control
        self._joins = join
        self._mdns = mdns
        self._job_log = None if job_log is None else path_from(job_log)
        self._show = show or _ignore
        self._alone_because = ""
        self._parts: _Parts | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def alone_because(self) -> str:
        """Why nobody could be reached: what happened at each address. "" where that is no fault."""
        return self._alone_because

    # --- Beginning and end ----------------------------------------------------------------------

    async def start(self) -> None:
        """Open the home, listen, and try once to join.

        That nobody could be reached is no error here: `alone_because` says it, and so does what is
        asked of a client later. The node goes on trying.

        Raises:
            MisuseError: started already, or the home belongs to another network.
            StoreError: the home is in use by another process, or the disk failed.
            WorldError: an address cannot be listened at.
        """
        if self._parts is not None:
            raise MisuseError("this node has been started already")
        async with AsyncExitStack() as stack:
            parts = await self._open(stack)
            self._refuse_revoked(parts)
            await parts.driver.start(self._listen)
            await _tidy(parts.keeper.give_up_joining)
            if self._has_control:
                await parts.control.start()
            await self._join(parts)
            parts.upkeep += self._local_discovery(parts)
            parts.upkeep.append(asyncio.create_task(_keep_tidy(parts.keeper)))
            if parts.network.kind == "managed":
                parts.upkeep.append(asyncio.create_task(self._watch_revoked(parts)))
            parts.ends = stack.pop_all()
        self._parts = parts

    async def stop(self) -> None:
        """Finish what is in flight within a limit, and close everything. May be called again."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        for task in parts.upkeep:
            task.cancel()
        if parts.upkeep:
            await asyncio.wait(parts.upkeep)
        await parts.ends.aclose()

    async def ended(self) -> None:
        """Wait until the node ends by itself: told to at its console, or by a fault.

        Raises:
            Exception: the fault.
        """
        await self._started.driver.ended()

    async def _open(self, stack: AsyncExitStack) -> "_Parts":
        """Put the parts together, and onto the stack what takes them apart, last first."""
        network = None if self._note_may_lapse else await asyncio.to_thread(self._load_network)
        key = NodeKey.load_or_create(self.home)
        store = await _open_store(self.home, self._limits, key.id)
        stack.callback(store.close)
        if network is None:
            has_secret = self._secret is not None
            homes.settle(self.home, unused=store.is_unused(), has_secret=has_secret)
            network = await asyncio.to_thread(self._load_network)
        if not self._meets_nobody:
            # Before anything is kept or sent. Who listens is a node of that network by intent.
            homes.bind(self.home, network.belonging, for_good=bool(self._listen))
        driver = self._make_driver(key, network, store)

        def why_alone() -> str:
            return self._alone_because

        keeper = Keeper(LocalCalls(driver, network.name, KEEPER_LINE, why_alone))

        def calls(line: str) -> LocalCalls:
            return LocalCalls(driver, network.name, line, why_alone, keeper)

        def gone(line: str) -> None:
            driver.forget_line(line)
            keeper.gone(line)

        control = ControlServer(self.home, network, calls, gone, self._limits)
        stack.push_async_callback(control.stop)
        stack.push_async_callback(driver.stop)  # what clients still wait for is answered here
        stack.callback(control.retire)
        return _Parts(driver, network, control, calls("local"), keeper)

    @property
    def _meets_nobody(self) -> bool:
        """Whether it works on its disk alone: then the secret of the home's network may be away."""
        named = self._network_name is not None or self._secret is not None
        return not (named or self._joins or self._listen)

    @property
    def _note_may_lapse(self) -> bool:
        return not self._meets_nobody and homes.may_lapse(self.home)

    def _load_network(self) -> Network:
        if self._meets_nobody:
            own = homes.belonging(self.home)
            return nobodys_network(DEFAULT_NETWORK if own is None else own.network)
        return load_network(self.home, self._network_name, self._secret)

    def _make_driver(self, key: NodeKey, network: Network, store: LmdbStore) -> Driver:
        try:
            return Driver(
                key=key,
                network=network,
                store=store,
                limits=self._limits,
                report=_log_report,
                show=self._show,
                job_log=self._job_log,
            )
        except OSError as error:
            raise WorldError(f"cannot write {self._job_log}: {error.strerror}") from error

    async def _join(self, parts: "_Parts") -> None:
        if not self._joins:
            self._alone_because = NOT_JOINED
            return
        addresses = tuple(dict.fromkeys(self._bootstrap))
        if not addresses and not parts.driver.restored:
            self._alone_because = "" if self._listen else NO_ADDRESS
            return
        outcome = await parts.driver.call(jobs.Bootstrap(parts.driver.new_guid(), addresses))
        self._alone_because = describe(outcome) if isinstance(outcome, Failed) else ""

    def _refuse_revoked(self, parts: "_Parts") -> None:
        """Before anybody connects: whom the network's operator had revoked when last heard of."""
        if parts.network.kind == "managed":
            known = revoked.load(self.home, parts.network.authority_key)
            if known is not None:
                parts.driver.post(revoked.job_of(known), OWN_LINE)

    async def _watch_revoked(self, parts: "_Parts") -> None:
        def post(job: jobs.Revoked) -> None:
            parts.driver.post(job, OWN_LINE)

        key, retry_s = parts.network.authority_key, self._limits.revoked_retry_s
        await revoked.watch(parts.calls, post, self.home, key, retry_s)

    def _local_discovery(self, parts: "_Parts") -> list[asyncio.Task[None]]:
        """Find and be found on the local network, where that is wanted and others could dial us."""
        driver = parts.driver
        listening = driver.machine.state.listening
        if not self._mdns or not is_useful(listening):
            return []

        def found(peer: Id, addresses: tuple[Address, ...]) -> None:
            driver.post(jobs.Connect(driver.new_guid(), addresses, peer), "mdns")

        key = parts.network.authority_key
        local = LocalDiscovery(driver.machine.state.own, key, listening, found, _log_report)
        return [asyncio.create_task(local.run())]

    # --- Calls ----------------------------------------------------------------------------------

    @property
    def _started(self) -> "_Parts":
        if self._parts is None:
            raise MisuseError("this node is not running: start it first, as in `async with`")
        return self._parts

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block as a part of something; see `Calls`."""
        return await self._started.calls.store_block(data, kind)

    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block, proved by its hash; see `Calls`."""
        return await self._started.calls.get_block(key)

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept here; see `Calls`."""
        return await self._started.calls.tend(order)

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it; see `Calls`."""
        return await self._started.calls.keep(key, item)

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of what was put, published or pinned; see `Calls`."""
        return await self._started.calls.unpin(name, salt)

    async def gc(self) -> int:
        """Let go of every pin that nothing kept here needs; see `Calls`."""
        return await self._started.calls.gc()

    async def ping(self, target: Target) -> PingAnswer:
        """Ask a node, by its id or at an address, whether it is there; see `Calls`."""
        return await self._started.calls.ping(target)

    async def status(self) -> NodeStatus:
        """Return the state of the node."""
        return await self._started.calls.status()

    async def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connections of the node, in the order of their ids."""
        return await self._started.calls.peers()

    async def fingers(self) -> tuple[FingerStatus, ...]:
        """Return the node's fingers; see `Calls`."""
        return await self._started.calls.fingers()

    async def contacts(self) -> tuple[Contact, ...]:
        """Return the contacts of the node's routing table; see `Calls`."""
        return await self._started.calls.contacts()

    async def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        """Ask ever closer nodes for those closest to an id; see `Calls`."""
        return await self._started.calls.lookup(id)

    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item; see `Calls`."""
        return await self._started.calls.get_signed(key)

    async def put_record(self, record: Record, cas: int) -> PutDone:
        """Store a record that is signed already; see `Calls`."""
        return await self._started.calls.put_record(record, cas)

    async def follow(self, public_key: Key, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one as it comes; see `Calls`."""
        async with aclosing(self._started.calls.follow(public_key, salt)) as versions:
            async for version in versions:
                yield version

    async def trace(self, work: Guid | str) -> tuple[Event, ...]:
        """Return what this node remembers of one operation, oldest first; see `Calls`."""
        return await self._started.calls.trace(work)

    async def console(self, line: str) -> AsyncGenerator[str]:
        """Do what a line typed at the node's console says, and yield its answers; see `Calls`."""
        async with aclosing(self._started.calls.console(line)) as answers:
            async for answer in answers:
                yield answer

    def type_line(self, line: str) -> None:
        """Do what a line typed at the node's console says; the answer goes to `show`."""
        self._started.driver.consoles.post(line, "console")


class _Parts:
    """What a running node is made of."""

    def __init__(
        self,
        driver: Driver,
        network: Network,
        control: ControlServer,
        calls: LocalCalls,
        keeper: Keeper,
    ) -> None:
        self.driver = driver
        self.network = network
        self.control = control
        self.calls = calls
        self.keeper = keeper
        self.upkeep: list[asyncio.Task[None]] = []
        self.ends = AsyncExitStack()


async def _keep_tidy(keeper: Keeper) -> None:
    """Let go of what an earlier life left undone, and of what callers do that go."""
    while True:
        await _tidy(keeper.let_go_of_leaving)
        await keeper.next_gone()


async def _tidy(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Do what is left undone about pins; what fails waits for the next time."""
    try:
        await work()
    except XorbitError as error:
        log.warning("pins that nothing may need stay: %s", error)


async def _open_store(home: Path, limits: Limits, own: Id) -> LmdbStore:
    eviction = Eviction(own, limits.item_lifetime_s)
    opening = asyncio.create_task(
        asyncio.to_thread(LmdbStore, home / STORE_DIRECTORY, limits.store_quota_bytes, eviction)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(StoreError):
            (await opening).close()  # or it would hold its lock for as long as this process lives
        raise


def _home_from(home: StrPath | None) -> Path:
    return default_home() if home is None else path_from(home)


def _several(given: Sequence[str] | str) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _listen_address(text: str) -> Address:
    """Return the address to listen at: unlike one to dial, its port may be 0."""
    host, zero, rest = text.rpartition(":0")
    if zero and not rest:
        return Address(parse_address(f"{host}:1").host, 0)
    try:
        return parse_address(text)
    except MisuseError as error:
        raise MisuseError(f"{error} (to listen at, 0 too: the system chooses)") from None


def _log_report(report: Report) -> None:
    level = logging.getLevelNamesMapping()[report.level.upper()]
    log.log(level, "%s%s", report.event, f": {report.detail}" if report.detail else "")


def _ignore(_: str) -> None:
    pass


# --- Somebody's node ----------------------------------------------------------------------------


@asynccontextmanager
async def open_calls(
    home: StrPath | None = None,
    *,
    bootstrap: Sequence[str] | str = (),
    network: str | None = None,
    secret: bytes | None = None,
    limits: Limits = DEFAULT_LIMITS,
    join: bool = True,
    control: bool = False,
) -> AsyncGenerator[Calls]:
    """Use the node that runs on a home; with none running, be a client for as long as it takes.

    Without `join` that client looks for nobody: what it does concerns the home alone, and there
    must be one. With `control` other programs may use it meanwhile.

    Raises:
        MisuseError: the home, or the node that runs on it, belongs to another network than the one
            named; or, without `join`, there is no home.
        XorbitError: no client could be started, as `Node.start`.
    """
    place = _home_from(home)
    try:
        client = await ControlClient.connect(place, limits)
    except NotRunningError:
        if not join and not (place / STORE_DIRECTORY).exists():
            raise MisuseError(f"there is no home at {place}: nothing is kept there") from None
        node = Node(
            place,
            bootstrap=bootstrap,
            network=network,
            secret=secret,
            limits=limits,
            control=control,
            join=join,
        )
        async with node:
            yield node
        return
    try:
        if network is not None or secret is not None:
            wanted = await asyncio.to_thread(load_network, place, network, secret)
            _check_same_network(client, wanted, place)
        yield client
    finally:
        await client.close()


def _check_same_network(client: ControlClient, wanted: Network, home: Path) -> None:
    """The home may be of the network wanted and its node not: one that has run since before."""
    if client.authority_key == wanted.authority_key:
        return
    if homes.belonging(home) == wanted.belonging:
        raise MisuseError(
            f"the node that runs on {home} is still in another network, named {client.network!r}, "
            f"than its home: restart the node on {home}"
        )
    which = (
        f"network {client.network!r}, which has another secret, or none"
        if client.network == wanted.name
        else f"another network, named {client.network!r}, than {wanted.name!r}"
    )
    raise MisuseError(f"the node that runs on {home} belongs to {which}: use another --home")


async def settle_network(home: Path) -> None:
    """Let a home that no network answered, and that keeps nothing, go to another one.

    Raises:
        StoreError: the home is in use by another process, or the disk failed.
        XorbitError: as `homes.settle`.
    """
    if not homes.may_lapse(home):
        return
    key = NodeKey.load_or_create(home)
    store = await _open_store(home, DEFAULT_LIMITS, key.id)
    try:
        homes.settle(home, unused=store.is_unused(), has_secret=True)
    finally:
        store.close()


async def connect(home: StrPath | None = None, limits: Limits = DEFAULT_LIMITS) -> ControlClient:
    """Reach the node that runs on a home; `close` it at the end.

    Raises:
        NotRunningError: none does.
    """
    return await ControlClient.connect(_home_from(home), limits)
