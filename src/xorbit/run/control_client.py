"""The other end of the local socket: the calls of a node that runs on a home.

Any number of calls may be in flight; the node answers each under its number. Nothing is decided
here: errors come out as the node raised them.
"""

import asyncio
import hmac
import logging
from pathlib import Path

from xorbit import errors
from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core.status import PeerStatus
from xorbit.errors import NotRunningError, StoppedError, WireError, WorldError, XorbitError
from xorbit.items import Address, Kind
from xorbit.run.calls import (
    Calls,
    Name,
    NodeStatus,
    PingAnswer,
    PutReceipt,
    Target,
    cid_from,
    target_from,
)
from xorbit.run.control_wire import (
    CONTROL_FILE,
    HOST,
    READ_BYTES,
    Answer,
    Ask,
    AskPeers,
    AskPing,
    AskStatus,
    CancelCall,
    ControlFile,
    GetBlock,
    HasFailed,
    Hello,
    IsBlock,
    IsPeers,
    IsPinged,
    IsPut,
    IsStatus,
    PutBlock,
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
from xorbit.wire.frame import frame

log = logging.getLogger("xorbit")


# --- The client's end ---------------------------------------------------------------------------


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
        self._parts: dict[int, list[PeerStatus]] = {}
        self._last_call = 0
        self._gone = False
        self._reading = asyncio.create_task(self._read_answers())

    @classmethod
    async def connect(cls, home: Path, limits: Limits = DEFAULT_LIMITS) -> "ControlClient":
        """Reach the node that runs on this home.

        Raises:
            NotRunningError: none does; a file that a dead node left behind changes nothing.
        """
        said = read_control_file(home)
        if said is None:
            raise NotRunningError(f"no node runs on {home}: start one with 'xorbit node'")
        writer = None
        try:
            async with asyncio.timeout(limits.handshake_timeout_s):
                reader, writer = await asyncio.open_connection(HOST, said.port, limit=READ_BYTES)
                welcome = await _shake_hands(reader, writer, said.token)
        except BaseException as error:
            if writer is not None:
                writer.transport.abort()
            raise _no_node(home, said, error) from error
        return cls(reader, writer, welcome)

    async def put_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block at the nodes closest to it and say who holds it; raises as the node's."""
        match await self._ask(PutBlock(self._next(), kind, data)):
            case IsPut(receipt=receipt):
                return receipt
            case answer:
                raise _unexpected(answer)

    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block; raises as the node's."""
        match await self._ask(GetBlock(self._next(), cid_from(key).key)):
            case IsBlock(data=data):
                return data
            case answer:
                raise _unexpected(answer)

    async def ping(self, target: Target) -> PingAnswer:
        """Let the node ask another whether it is there; raises as the node's."""
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
        match await self._ask(AskPeers(self._next())):
            case IsPeers(peers=peers):
                return peers
            case answer:
                raise _unexpected(answer)

    async def close(self) -> None:
        """Leave; calls that still wait get a StoppedError."""
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await close_stream(self._writer, DEFAULT_LIMITS.shutdown_s_max)

    def _next(self) -> int:
        self._last_call += 1
        return self._last_call

    async def _ask(self, ask: Ask) -> Answer:
        if self._gone:
            raise _stopped()
        future = self._waiting[ask.call] = asyncio.get_running_loop().create_future()
        try:
            await write_message(self._writer, ask)
            answer = await future
        except OSError as error:
            raise _stopped() from error
        except asyncio.CancelledError:
            if not self._gone and not self._writer.is_closing():
                self._writer.write(frame(encode(CancelCall(ask.call))))
            raise
        finally:
            self._waiting.pop(ask.call, None)
            self._parts.pop(ask.call, None)
        if isinstance(answer, HasFailed):
            raise _error(answer)
        return answer

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
                    future.set_exception(_stopped())

    def _take(self, answer: Answer) -> None:
        future = self._waiting.get(answer.call)
        if future is None or future.done():
            return  # its caller was cancelled
        if isinstance(answer, IsPeers):
            parts = self._parts.setdefault(answer.call, [])
            parts += answer.peers
            if not answer.last:
                return
            answer = IsPeers(answer.call, tuple(parts), last=True)
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


def _stopped() -> StoppedError:
    return StoppedError("the node stopped before it had answered: start it again and retry")


def _error(said: HasFailed) -> XorbitError:
    kind = getattr(errors, said.error, None)
    if isinstance(kind, type) and issubclass(kind, XorbitError):
        return kind(said.text)
    return XorbitError(f"{said.error}: {said.text}")


def _unexpected(answer: Answer) -> WireError:
    return WireError(f"the node answered with another message: {type(answer).__name__}")
