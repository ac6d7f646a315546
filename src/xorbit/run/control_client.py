"""The other end of the local socket: the calls of a node that runs on a home.

Any number of calls may be in flight; the node answers each under its number. Nothing is decided
here: errors come out as the node raised them.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from xorbit import errors
from xorbit.config import CONTROL_READ_BYTES, DEFAULT_LIMITS, Limits
from xorbit.core.effect import Print, PutDone
from xorbit.core.status import FingerStatus, PeerStatus
from xorbit.core.trace import Event
from xorbit.errors import NotRunningError, StoppedError, WireError, WorldError, XorbitError
from xorbit.files.seal_key import KEY_MARK
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, Item, ItemKey, Kind, Record
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
    documented,
    id_from,
    public_key_bytes,
    target_from,
)
from xorbit.run.control_wire import (
    CONTROL_FILE,
    HOST,
    Answer,
    Ask,
    AskContacts,
    AskFingers,
    AskFollow,
    AskLookUp,
    AskPeers,
    AskPing,
    AskStatus,
    AskTrace,
    CancelCall,
    CollectPins,
    ControlFile,
    GetBlock,
    GetSigned,
    HasBegun,
    HasFailed,
    HasLetGo,
    Hello,
    IsBlock,
    IsContacts,
    IsFingers,
    IsItem,
    IsPeers,
    IsPinged,
    IsPut,
    IsRecordPut,
    IsStatus,
    IsText,
    IsTold,
    IsTrace,
    IsVersion,
    KeepItem,
    LetGoOf,
    PutBlock,
    PutRecord,
    TendPins,
    TypeLine,
    WatchWorks,
    Welcome,
    answers,
    close_stream,
    decode,
    encode,
    proof,
    read_control_file,
    read_payload,
    welcomes,
    write_message,
)
from xorbit.run.following import Follower
from xorbit.run.pinning import name_of, root_from
from xorbit.run.typed import Answers, as_text
from xorbit.wire.frame import frame

P = TypeVar("P", IsPeers, IsFingers, IsContacts, IsTrace)
Parted = IsPeers | IsFingers | IsContacts | IsTrace
"""Answers that come in parts."""

log = logging.getLogger("xorbit")


# --- The client's end ---------------------------------------------------------------------------


@documented
class ControlClient(Calls):
    """The calls of a node that runs on a home, asked over its local socket. Made by `connect`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome
    ) -> None:
        self.network = welcome.network
        self.authority_key = welcome.authority
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._parts: dict[int, list[Parted]] = {}
        self._followers: dict[int, Follower] = {}
        self._texts: dict[int, Answers] = {}
        self._works: dict[int, list[Guid]] = {}
        self._watches = False
        """Whether the node has been asked to tell which works our calls begin."""
        self._last_call = 0
        self._gone = False
        self._closed = False
        """Whether it was we who ended it."""
        self._reading = asyncio.create_task(self._read_answers())

    @classmethod
    async def connect(cls, home: Path, limits: Limits = DEFAULT_LIMITS) -> "ControlClient":
        """Reach the node that runs on this home.

        Raises:
            NotRunningError: none does; a file that a dead node left behind changes nothing.
        """
        said = read_control_file(home)
        if said is None:
            raise _nobody_there(home)
        writer = None
        try:
            async with asyncio.timeout(limits.handshake_timeout_s):
                reader, writer = await asyncio.open_connection(
                    HOST, said.port, limit=CONTROL_READ_BYTES
                )
                welcome = await _shake_hands(reader, writer, said.token)
        except BaseException as error:
            if writer is not None:
                writer.transport.abort()
            raise _no_node(home, said, error) from error
        return cls(reader, writer, welcome)

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block as a part of something; see `Calls`."""
        match await self._ask(PutBlock(self._next(), kind, data)):
            case IsPut(receipt=receipt):
                return receipt
            case answer:
                raise _unexpected(answer)

    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block; see `Calls`."""
        match await self._ask(GetBlock(self._next(), cid_from(key).key)):
            case IsBlock(data=data):
                return data
            case answer:
                raise _unexpected(answer)

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept at the node; see `Calls`."""
        match await self._ask(TendPins(self._next(), order)):
            case IsTold(told=told):
                return told
            case answer:
                raise _unexpected(answer)

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Let the node find an item and pin it; see `Calls`."""
        match await self._ask(KeepItem(self._next(), key, item)):
            case IsItem(item=found):
                return found
            case answer:
                raise _unexpected(answer)

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let the node let go of what it keeps; see `Calls`."""
        if isinstance(name, str) and KEY_MARK not in name:
            text = name
        else:  # the key of private content stays in this process
            text = name_of(root_from(name, salt))
        return await self._ask_count(LetGoOf(self._next(), text, salt))

    async def gc(self) -> int:
        """Let the node let go of what nothing needs; see `Calls`."""
        return await self._ask_count(CollectPins(self._next()))

    async def _ask_count(self, ask: Ask) -> int:
        match await self._ask(ask):
            case HasLetGo(count=count):
                return count
            case answer:
                raise _unexpected(answer)

    async def ping(self, target: Target) -> PingAnswer:
        """Let the node ask another whether it is there; see `Calls`."""
        meant = target_from(target)
        is_address = isinstance(meant, Address)
        ask = (
            AskPing(self._next(), None, meant) if is_address else AskPing(self._next(), meant, None)
        )
        match await self._ask(ask):
            case IsPinged(answer=answer):
                return answer
            case answer:
                raise _unexpected(answer)

    async def status(self) -> NodeStatus:
        """Return the state of the node."""
        match await self._ask(AskStatus(self._next())):
            case IsStatus(status=status):
                return status
            case answer:
                raise _unexpected(answer)

    async def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connections of the node."""
        parts = await self._ask_parts(AskPeers(self._next()), IsPeers)
        return tuple(peer for part in parts for peer in part.peers)

    async def fingers(self) -> tuple[FingerStatus, ...]:
        """Return the node's fingers."""
        parts = await self._ask_parts(AskFingers(self._next()), IsFingers)
        return tuple(finger for part in parts for finger in part.fingers)

    async def contacts(self) -> tuple[Contact, ...]:
        """Return the contacts of the node's routing table."""
        parts = await self._ask_parts(AskContacts(self._next()), IsContacts)
        return tuple(contact for part in parts for contact in part.contacts)

    async def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        """Let the node find those closest to an id; see `Calls`."""
        parts = await self._ask_parts(AskLookUp(self._next(), id_from(id)), IsContacts)
        return tuple(contact for part in parts for contact in part.contacts)

    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item; see `Calls`."""
        match await self._ask(GetSigned(self._next(), key)):
            case IsItem(item=item):
                return item
            case answer:
                raise _unexpected(answer)

    async def put_record(self, record: Record, cas: int) -> PutDone:
        """Store a record that is signed already; see `Calls`."""
        match await self._ask(PutRecord(self._next(), record, cas)):
            case IsRecordPut(done=done):
                return done
            case answer:
                raise _unexpected(answer)

    async def follow(self, public_key: Key, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one; see `Calls`."""
        ask = AskFollow(self._next(), public_key_bytes(public_key), salt)
        follower = self._followers[ask.call] = Follower(DEFAULT_LIMITS.follow_versions_max)
        try:
            async with aclosing(follower.until(self._ask(ask))) as versions:
                async for version in versions:
                    if not isinstance(version, Record):
                        raise _unexpected(version)
                    yield version
        finally:
            del self._followers[ask.call]

    async def trace(self, work: Guid | str) -> tuple[Event, ...]:
        """Return what the node remembers of one operation; see `Calls`."""
        text = as_text(work) if isinstance(work, str) else work.hex()
        parts = await self._ask_parts(AskTrace(self._next(), text), IsTrace)
        return tuple(event for part in parts for event in part.events)

    async def console(self, line: str) -> AsyncGenerator[str]:
        """Let the node do what a line says, and yield its answers; see `Calls`."""
        ask = TypeLine(self._next(), as_text(line))
        answers = self._texts[ask.call] = Answers(DEFAULT_LIMITS.console_texts_max)
        asking = asyncio.create_task(self._ask(ask))
        asking.add_done_callback(lambda _: answers.take(None))
        try:
            while (answer := await answers.next_or_end()) is not None:
                yield answer.text
            await asking  # raises what went wrong
        finally:
            del self._texts[ask.call]
            asking.cancel()
            await asyncio.wait([asking])

    async def close(self) -> None:
        """Leave; calls that still wait get a StoppedError."""
        self._closed = True
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await close_stream(self._writer, DEFAULT_LIMITS.shutdown_s_max)

    def _stopped(self) -> StoppedError:
        if self._closed:
            return StoppedError("this client was closed: connect again")
        return StoppedError("the node stopped before it had answered: start it again and retry")

    def _next(self) -> int:
        self._last_call += 1
        return self._last_call

    async def _ask(self, ask: Ask) -> Answer:
        if self._gone:
            raise self._stopped()
        future = self._waiting[ask.call] = asyncio.get_running_loop().create_future()
        try:
            await self._watch_works(ask)
            await write_message(self._writer, ask)
            answer = await future
        except OSError as error:
            raise self._stopped() from error
        except asyncio.CancelledError:
            if not self._gone and not self._writer.is_closing():
                self._writer.write(frame(encode(CancelCall(ask.call))))
            raise
        finally:
            self._waiting.pop(ask.call, None)
            self._parts.pop(ask.call, None)
            self._works.pop(ask.call, None)
        if isinstance(answer, HasFailed):
            raise _error(answer)
        return answer

    async def _ask_parts(self, ask: Ask, kind: type[P]) -> list[P]:
        """Ask what is answered in parts; return them all."""
        parts = self._parts[ask.call] = []
        last = await self._ask(ask)
        if not all(isinstance(part, kind) for part in (*parts, last)):
            raise _unexpected(last)
        return [part for part in (*parts, last) if isinstance(part, kind)]

    async def _watch_works(self, ask: Ask) -> None:
        """Where the caller traces what it does, have the node tell the works of its calls."""
        works = tracing.begun()
        if works is not None:
            self._works[ask.call] = works
            if not self._watches:
                self._watches = True
                await write_message(self._writer, WatchWorks())

    async def _read_answers(self) -> None:
        try:
            while data := await read_payload(self._reader):
                self._take(decode(answers, data))
        except WireError as error:
            log.warning("the node sent what is no answer: %s", error)
        finally:
            self._gone = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(self._stopped())

    def _take(self, answer: Answer) -> None:
        future = self._waiting.get(answer.call)
        if future is None or future.done():
            return  # its caller was cancelled
        if isinstance(answer, HasBegun):
            self._works.get(answer.call, []).extend(answer.works)
        elif isinstance(answer, IsText) and not answer.last and answer.call in self._texts:
            self._texts[answer.call].take(Print(answer.text))
        elif isinstance(answer, IsVersion) and answer.call in self._followers:
            self._followers[answer.call].push(answer.record)
        elif isinstance(answer, Parted) and not answer.last and answer.call in self._parts:
            self._parts[answer.call].append(answer)
        else:
            future.set_result(answer)


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str
) -> Welcome:
    await write_message(writer, Hello(proof(token, "client")))
    first = await read_payload(reader)
    if first is None:
        raise WireError("the connection was closed instead of an answer")
    welcome = decode(welcomes, first)
    if not hmac.compare_digest(welcome.proof, proof(token, "node")):
        raise WireError("what answered does not know the token")
    return welcome


def _nobody_there(home: Path) -> NotRunningError:
    if not home.is_dir():
        return NotRunningError(f"there is no home at {home}: start a node with 'xorbit node'")
    return NotRunningError(f"no node runs on {home}: start one with 'xorbit node'")


def _no_node(home: Path, said: ControlFile, error: BaseException) -> BaseException:
    """Say what it means that the node named in the file did not welcome us."""
    match error:
        case TimeoutError():
            return WorldError(
                f"the node on {home} (process {said.pid}) does not answer: stop that process, "
                f"or remove {home / CONTROL_FILE} if it is no xorbit"
            )
        case OSError():
            return NotRunningError(f"no node runs on {home} any more: start one with 'xorbit node'")
        case WireError():
            return NotRunningError(
                f"no node runs on {home} any more (another program has its port): "
                "start one with 'xorbit node'"
            )
        case _:
            return error


def _error(said: HasFailed) -> XorbitError:
    kind = getattr(errors, said.error, None)
    if isinstance(kind, type) and issubclass(kind, XorbitError):
        return kind(said.text)
    return XorbitError(f"{said.error}: {said.text}")


def _unexpected(answer: Answer) -> WireError:
    return WireError(f"the node answered with another message: {type(answer).__name__}")
