"""The calls of one caller in the node's own process: how outcomes become results or errors.

No sockets, no files and no state of its own here; the driver does the work.
"""

from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing

from xorbit.config import LOOK_FIRST_BYTES_MIN
from xorbit.core import job as jobs
from xorbit.core.console.line import parse_guid
from xorbit.core.effect import (
    Answered,
    Connected,
    Failed,
    Got,
    LookedUp,
    NotFound,
    Outcome,
    PutDone,
    Tended,
)
from xorbit.core.status import FingerStatus, PeerStatus
from xorbit.core.trace import Event
from xorbit.errors import (
    NoPeersError,
    NotFoundError,
    NotStoredError,
    PeerError,
    StoppedError,
    StoreError,
    WorldError,
    XorbitError,
)
from xorbit.ids import Guid, Id
from xorbit.items import (
    Address,
    Block,
    Contact,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    is_literal,
    key_of,
    make_block,
    record_key,
)
from xorbit.pins import Order, Told
from xorbit.run import tracing
from xorbit.run.calls import (
    Calls,
    Key,
    Name,
    NodeStatus,
    PingAnswer,
    PutReceipt,
    Target,
    cid_from,
    id_from,
    public_key_bytes,
    target_from,
)
from xorbit.run.driver import Driver
from xorbit.run.keeper import Keeper
from xorbit.run.pinning import root_from
from xorbit.wire.message import Ping, Pong, Receipt


class LocalCalls(Calls):
    """The calls of one local caller, who has a line of its own in the node's queue.

    `why_alone` says why the node has nobody to ask, in one sentence, or "" when being alone is no
    fault: a node that listens may well be the first of its network.
    """

    def __init__(
        self,
        driver: Driver,
        network: str,
        line: Hashable,
        why_alone: Callable[[], str],
        keeper: Keeper | None = None,
    ) -> None:
        """Ask `driver`; callers of one node share one keeper."""
        self._driver = driver
        self._network = network
        self._line = line
        self._why_alone = why_alone
        self._keeper = keeper or Keeper(self)

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block as a part of something, and say who holds it."""
        block, key = make_block(data, kind), block_key(data, kind)
        look_first = len(data) >= LOOK_FIRST_BYTES_MIN
        job = jobs.Store(self._driver.new_guid(), key, block, look_first=look_first)
        outcome = await self._call(job)
        match outcome:
            case PutDone(receipts, not_kept=not_kept, held_before=held_before):
                own = self._driver.machine.state.own
                receipt = PutReceipt(key, receipts, not_kept, held_before, own)
                if not receipt.holders:
                    raise self._not_stored(receipts)
                return receipt
            case _:
                raise self._failure(outcome)

    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block, proved by its hash."""
        outcome = await self._call(jobs.Get(self._driver.new_guid(), cid_from(key).key))
        match outcome:
            case Got(Block(data=data)):
                return data
            case NotFound(asked, failed):
                raise self._not_found(asked, failed)
            case _:
                raise self._failure(outcome)

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept here."""
        joins = self._keeper.joins
        joins.asked(self._line, order)
        match outcome := await self._call(jobs.TendPins(self._driver.new_guid(), order)):
            case Tended(told):
                joins.answered(self._line, order, told)
                return told
            case _:
                raise self._failure(outcome)

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it."""
        match outcome := await self._call(jobs.Pin(self._driver.new_guid(), key, item)):
            case Got(found):
                return found
            case NotFound(asked, failed):
                raise self._not_found(asked, failed)
            case _:
                raise self._failure(outcome)

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of what was put, published or pinned."""
        return await self._keeper.unpin(root_from(name, salt))

    async def gc(self) -> int:
        """Let go of every pin that nothing kept here needs."""
        return await self._keeper.gc()

    async def ping(self, target: Target) -> PingAnswer:
        """Ask a node, by its id or at an address, whether it is there."""
        meant = target_from(target)
        peer = await self._connect(meant) if isinstance(meant, Address) else meant
        ask = Ping(self._driver.status().addresses)
        job = jobs.SendRequest(self._driver.new_guid(), Contact(peer), ask)
        match outcome := await self._call(job):
            case Answered(peer=who, response=Pong(observed, addresses), round_trip_s=round_trip_s):
                # It may say anything, and the user's terminal shows it.
                seen_at = observed if observed and is_literal(observed) else None
                listens_at = tuple(filter(is_literal, addresses))
                return PingAnswer(who, round_trip_s, seen_at, listens_at)
            case Answered(response=response):
                raise PeerError(f"asked {peer.hex()} for a pong, got {type(response).__name__}")
            case _:
                error = self._failure(outcome)
                raise type(error)(
                    f"cannot reach {meant if meant is not peer else peer.hex()}: {error}"
                )

    async def status(self) -> NodeStatus:
        """Return the state of the node."""
        driver = self._driver
        listening = driver.machine.state.listening
        return NodeStatus(self._network, driver.status(), driver.usage(), listening)

    async def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connections of the node."""
        return tuple(self._driver.peers())

    async def fingers(self) -> tuple[FingerStatus, ...]:
        """Return the node's fingers."""
        return tuple(self._driver.fingers())

    async def contacts(self) -> tuple[Contact, ...]:
        """Return the contacts of the node's routing table."""
        return tuple(self._driver.contacts())

    async def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        """Ask ever closer nodes for those closest to an id."""
        outcome = await self._call(jobs.LookUp(self._driver.new_guid(), id_from(id)))
        match outcome:
            case LookedUp(contacts):
                if not contacts and (alone := self._alone()):
                    raise alone
                return contacts
            case _:
                raise self._failure(outcome)

    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item."""
        outcome = await self._call(jobs.Get(self._driver.new_guid(), key))
        match outcome:
            case Got(item):
                return item
            case NotFound(asked, failed):
                raise self._not_found(asked, failed)
            case _:
                raise self._failure(outcome)

    async def put_record(self, record: Record, cas: int) -> PutDone:
        """Store a record that is signed already."""
        job = jobs.Store(self._driver.new_guid(), key_of(record), record, cas)
        match outcome := await self._call(job):
            case PutDone(receipts, newer):
                if newer is None and not any(said.outcome == "stored" for said in receipts):
                    raise self._not_stored(receipts)
                return outcome
            case _:
                raise self._failure(outcome)

    async def follow(self, public_key: Key, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one as it comes."""
        key = record_key(public_key_bytes(public_key), salt)
        async with aclosing(self._driver.follow(key, self._line)) as versions:
            async for version in versions:
                if not isinstance(version, Record):
                    raise self._failure(version)
                yield version

    async def _connect(self, address: Address) -> Id:
        match outcome := await self._call(jobs.Connect(self._driver.new_guid(), (address,))):
            case Connected(peer):
                return peer
            case _:
                raise self._failure(outcome)

    async def trace(self, work: Guid | str) -> tuple[Event, ...]:
        """Return what this node remembers of one operation, oldest first."""
        return self._driver.machine.state.trace_of(self._guid(work))

    def console(self, line: str) -> AsyncGenerator[str]:
        """Do what a line typed at the node's console says, and yield its answers."""
        return self._driver.consoles.typed(line, self._line)

    def _guid(self, work: Guid | str) -> Guid:
        if isinstance(work, str):
            return parse_guid(self._driver.machine.state, work)
        return work

    async def _call(self, job: jobs.Job) -> Outcome:
        tracing.note(getattr(job, "guid"))  # noqa: B009 - as in Driver.call
        return await self._driver.call(job, self._line)

    def _alone(self) -> NoPeersError | None:
        why = "" if self._driver.peers() else self._why_alone()
        return NoPeersError(why) if why else None

    def _not_found(self, asked: int, failed: int) -> XorbitError:
        if not asked and (alone := self._alone()):
            return alone
        silent = f", {failed} did not answer" if failed else ""
        nodes = "node" if asked == 1 else "nodes"
        return NotFoundError(f"nobody has it: {asked} {nodes} asked{silent}")

    def _not_stored(self, receipts: tuple[Receipt, ...]) -> XorbitError:
        if not receipts:
            return self._alone() or NotStoredError("no node could be asked to store it")
        return NotStoredError(f"no node stored it: {'; '.join(map(_said, receipts))}")

    def _failure(self, outcome: Outcome) -> XorbitError:
        assert isinstance(outcome, Failed), f"no outcome of this call: {outcome!r}"
        if outcome.code == "unreachable" and not outcome.tried and (alone := self._alone()):
            return alone
        kinds = {"unreachable": NoPeersError, "stopping": StoppedError, "disk": StoreError}
        return kinds.get(outcome.code, WorldError)(describe(outcome))


def describe(failed: Failed) -> str:
    """Return why a call failed, in one line, with every address tried and what happened there."""
    tried = "; ".join(f"{address}: {answer}" for address, answer in failed.tried)
    return failed.reason if tried in failed.reason else f"{failed.reason}: {tried}"


def _said(receipt: Receipt) -> str:
    reason = f" ({receipt.reason})" if receipt.reason else ""
    return f"{receipt.node.hex()[:16]} {receipt.outcome}{reason}"
