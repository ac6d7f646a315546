"""The local socket of a running node: how a command, or any program of the same user, asks it.

Loopback TCP and a token in a file of the home that only the user can read. Whoever shows in its
first frame that it knows the token is served; the node shows in its answer that it knows the token
too, so that a stranger on the port of a dead node learns nothing. What the calls do is in calls.py;
nothing of the machine may enter here.
"""

import asyncio
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TypeVar, assert_never

from xorbit.config import (
    CONTROL_CONTACTS_PER_ANSWER,
    CONTROL_ERROR_CHARACTERS_MAX,
    CONTROL_EVENTS_PER_ANSWER,
    CONTROL_HELLO_BYTES_MAX,
    CONTROL_PEERS_PER_ANSWER,
    CONTROL_READ_BYTES,
    CONTROL_TEXT_CHARACTERS_MAX,
    DEFAULT_LIMITS,
    Limits,
)
from xorbit.errors import MisuseError, StoppedError, StoreError, WireError, XorbitError
from xorbit.identity import Network
from xorbit.items import Contact
from xorbit.run.calls import Calls
from xorbit.run.control_wire import (
    CONTROL_FILE,
    HOST,
    TOKEN_BYTES,
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
    asks,
    close_stream,
    decode,
    hellos,
    proof,
    read_control_file,
    read_payload,
    write_control_file,
    write_message,
)
from xorbit.run.tracing import tracing
from xorbit.run.typed import as_text

T = TypeVar("T")

log = logging.getLogger("xorbit")


# --- The node's end -----------------------------------------------------------------------------


class ControlServer:
    """Listens for local clients; each gets the calls of a line of its own.

    `calls` makes those of the line with this name, `gone` is told when nobody is on it any more.
    """

    def __init__(
        self,
        home: Path,
        network: Network,
        calls: Callable[[str], Calls],
        gone: Callable[[str], None],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._home = home
        self._calls = calls
        self._gone = gone
        self._limits = limits
        self._token = secrets.token_hex(TOKEN_BYTES)
        self._welcome = Welcome(proof(self._token, "node"), network.name, network.authority_key)
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], bool] = {}
        """Each client, and whether it has proved itself."""
        self._lines = 0

    async def start(self) -> None:
        """Listen, then say where in the home's `control.json`.

        Raises:
            StoreError: the file cannot be written.
        """
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=CONTROL_READ_BYTES)
        port = self._server.sockets[0].getsockname()[1]
        try:
            write_control_file(self._home, ControlFile(port, self._token, os.getpid()))
        except StoreError:
            self._server.close()
            raise

    def retire(self) -> None:
        """Take no further clients; those that are here are still answered."""
        if self._server is None:
            return
        self._server.close()
        said = read_control_file(self._home)
        if said is not None and said.token == self._token:
            (self._home / CONTROL_FILE).unlink(missing_ok=True)

    async def stop(self) -> None:
        """Take no further clients, cancel what is asked still, and let every client go."""
        self.retire()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._clients[task] = False
        try:
            if await self._knows_token(reader, writer):
                self._clients[task] = True
                await self._serve_calls(reader, writer)
        except (WireError, OSError) as error:
            log.warning("a local client was sent away: %s", error)
        except asyncio.CancelledError:
            pass  # stop() waits for us, and for nothing more than this
        finally:
            with suppress(asyncio.CancelledError):
                await close_stream(writer, self._limits.shutdown_s_max)
            del self._clients[task]

    async def _serve_calls(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._lines += 1
        line = f"control {self._lines}"
        try:
            await _Client(self._calls(line), writer, self._limits).serve(reader)
        finally:
            self._gone(line)

    async def _knows_token(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        strangers = list(self._clients.values()).count(False)
        if strangers > self._limits.handshakes_per_host_max:
            raise WireError("too many connections that have not shown the token")
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                first = await read_payload(reader, CONTROL_HELLO_BYTES_MAX)
        except TimeoutError:
            raise WireError("it did not show the token in time") from None
        if first is None:
            return False
        hello = decode(hellos, first)
        if not hmac.compare_digest(hello.proof, proof(self._token, "client")):
            raise WireError("it showed a wrong token")
        await write_message(writer, self._welcome)
        return True


class _Client:
    """The node's end of one client that has proved itself."""

    def __init__(self, calls: Calls, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._calls = calls
        self._writer = writer
        self._slots = asyncio.Semaphore(limits.control_calls_max)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._watches = False
        """Whether the client wants to know the works that its calls begin."""

    async def serve(self, reader: asyncio.StreamReader) -> None:
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._take_asks(reader, tasks)
            except WireError as error:
                log.warning("a local client was sent away: %s", error)
            for task in self._running.values():
                task.cancel()

    async def _take_asks(self, reader: asyncio.StreamReader, tasks: asyncio.TaskGroup) -> None:
        while data := await read_payload(reader):
            ask = decode(asks, data)
            if isinstance(ask, WatchWorks):
                self._watches = True
            elif not isinstance(ask, CancelCall):
                await self._slots.acquire()  # all in use: nothing more is read from this client
                self._start(ask, tasks)
            elif task := self._running.get(ask.call):
                task.cancel()

    def _start(self, ask: Ask, tasks: asyncio.TaskGroup) -> None:
        task = self._running[ask.call] = tasks.create_task(self._answer(ask))
        task.add_done_callback(lambda _: self._end(ask.call))

    def _end(self, call: int) -> None:
        self._running.pop(call, None)
        self._slots.release()

    async def _answer(self, ask: Ask) -> None:
        try:
            with tracing() as works:
                answers = await self._do(ask)
            if self._watches and works:
                await write_message(self._writer, HasBegun(ask.call, tuple(works)))
            for answer in answers:
                await write_message(self._writer, answer)
        except OSError:
            pass  # the client is gone, which its reader notices as well

    async def _do(self, ask: Ask) -> list[Answer]:
        try:
            return await self._perform(ask)
        except XorbitError as error:
            return [_failed(ask, type(error).__name__, str(error))]
        except Exception as error:
            log.exception("a local call failed")
            return [_failed(ask, "XorbitError", f"an error of xorbit itself: {error!r}")]

    async def _type(self, call: int, line: str) -> list[Answer]:
        """Send the answers to a line as they come; then nothing is left to send but the end."""
        async with aclosing(self._calls.console(line)) as answers:
            async for answer in answers:
                text = answer[:CONTROL_TEXT_CHARACTERS_MAX]
                await write_message(self._writer, IsText(call, text, last=False))
        return [IsText(call, "", last=True)]

    async def _follow(self, call: int, public_key: bytes, salt: bytes) -> list[Answer]:
        """Send version after version; a client that is slow to read is told of the latest."""
        async with aclosing(self._calls.follow(public_key, salt)) as versions:
            async for version in versions:
                await write_message(self._writer, IsVersion(call, version))
        raise StoppedError("the node stopped following")

    async def _perform(self, ask: Ask) -> list[Answer]:
        calls = self._calls
        match ask:
            case PutBlock(call, kind, data):
                return [IsPut(call, await calls.store_block(data, kind))]
            case GetBlock(call, key):
                return [IsBlock(call, await calls.get_block(key))]
            case AskPing(call, peer, address):
                target = address if peer is None else peer
                if target is None:
                    raise MisuseError("a ping needs an id or an address")
                return [IsPinged(call, await calls.ping(target))]
            case AskStatus(call):
                return [IsStatus(call, await calls.status())]
            case AskPeers(call):
                parts = _in_parts(await calls.peers(), CONTROL_PEERS_PER_ANSWER)
                return [IsPeers(call, part, last) for part, last in parts]
            case GetSigned(call, key):
                return [IsItem(call, await calls.get_signed(key))]
            case PutRecord(call, record, cas):
                return [IsRecordPut(call, await calls.put_record(record, cas))]
            case TendPins(call, order):
                return [IsTold(call, await calls.tend(order))]
            case KeepItem(call, key, item):
                return [IsItem(call, await calls.keep(key, item))]
            case LetGoOf(call, name, salt):
                return [HasLetGo(call, await calls.unpin(name, salt))]
            case CollectPins(call):
                return [HasLetGo(call, await calls.gc())]
            case AskFollow(call, public_key, salt):
                return await self._follow(call, public_key, salt)
            case AskFingers(call):
                parts = _in_parts(await calls.fingers(), CONTROL_CONTACTS_PER_ANSWER)
                return [IsFingers(call, part, last) for part, last in parts]
            case AskContacts(call):
                return _contacts(call, await calls.contacts())
            case AskTrace(call, work):
                events = _in_parts(await calls.trace(work), CONTROL_EVENTS_PER_ANSWER)
                return [IsTrace(call, part, last) for part, last in events]
            case TypeLine(call, line):
                return await self._type(call, line)
            case AskLookUp(call, id):
                return _contacts(call, await calls.lookup(id))
            case _ as never:
                assert_never(never)


def _failed(ask: Ask, error: str, text: str) -> HasFailed:
    return HasFailed(ask.call, error, as_text(text[:CONTROL_ERROR_CHARACTERS_MAX]))


def _contacts(call: int, contacts: tuple[Contact, ...]) -> list[Answer]:
    parts = _in_parts(contacts, CONTROL_CONTACTS_PER_ANSWER)
    return [IsContacts(call, part, last) for part, last in parts]


def _in_parts(whole: Sequence[T], size: int) -> list[tuple[tuple[T, ...], bool]]:
    """Return parts of at most so many, each with whether it is the last; always one at least."""
    starts = range(0, max(len(whole), 1), size)
    return [(tuple(whole[at : at + size]), at == starts[-1]) for at in starts]
