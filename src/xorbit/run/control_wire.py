"""What goes over the local socket, and the file that says where it is.

The messages, their frames over a stream, `control.json` and the proofs that either end shows. Used
by both ends (control.py, control_client.py); what a call does stands in neither, but in calls.py.
"""

import asyncio
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from blake3 import blake3
from msgspec import Meta, Struct

from xorbit.core.effect import PutDone
from xorbit.core.status import FingerStatus, PeerStatus
from xorbit.core.trace import Event
from xorbit.errors import StoreError, WireError
from xorbit.items import (
    Address,
    Contact,
    IdField,
    Item,
    ItemKey,
    Kind,
    PublicKey,
    Record,
    Sequence63,
)
from xorbit.pins import Order, Told
from xorbit.run.calls import NodeStatus, PingAnswer, PutReceipt
from xorbit.wire.frame import FRAME_BYTES_MAX, HEADER_BYTES, frame
from xorbit.wire.message import GuidField

CONTROL_FILE = "control.json"
HOST = "127.0.0.1"
TOKEN_BYTES = 32

T = TypeVar("T")

Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]


class ControlFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What `control.json` says: where the node listens for its user, and what proves the user."""

    port: Annotated[int, Meta(ge=1, le=65_535)]
    token: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    pid: int


# --- Messages -----------------------------------------------------------------------------------


class Message(Struct, frozen=True, array_like=True):
    """The root of what goes over the local socket: MessagePack arrays, an integer tag first.

    `call` is the number that a client gave to a call; its answer carries the same.
    """


class Hello(Message, frozen=True, tag=1):
    """The first frame of a client: what only somebody with the token can say."""

    proof: Token


class Welcome(Message, frozen=True, tag=2):
    """The first frame of the node: what only the node can say, and its network's authority."""

    proof: Token
    network: str
    authority: PublicKey


class PutBlock(Message, frozen=True, tag=3):
    """`Calls.store_block`."""

    call: int
    kind: Kind
    data: bytes


class GetBlock(Message, frozen=True, tag=4):
    """`Calls.get_block`."""

    call: int
    key: ItemKey


class AskPing(Message, frozen=True, tag=5):
    """`Calls.ping`; one of the two is given."""

    call: int
    id: IdField | None
    address: Address | None


class AskStatus(Message, frozen=True, tag=6):
    """`Calls.status`."""

    call: int


class AskPeers(Message, frozen=True, tag=7):
    """`Calls.peers`."""

    call: int


class GetSigned(Message, frozen=True, tag=9):
    """`Calls.get_signed`."""

    call: int
    key: ItemKey


class PutRecord(Message, frozen=True, tag=10):
    """`Calls.put_record`: signed already, no private key goes this way."""

    call: int
    record: Record
    cas: Sequence63


class AskFollow(Message, frozen=True, tag=11):
    """`Calls.follow`: answered by IsVersion again and again, until CancelCall or HasFailed."""

    call: int
    public_key: PublicKey
    salt: bytes


class AskFingers(Message, frozen=True, tag=12):
    """`Calls.fingers`."""

    call: int


class AskContacts(Message, frozen=True, tag=13):
    """`Calls.contacts`."""

    call: int


class AskLookUp(Message, frozen=True, tag=14):
    """`Calls.lookup`."""

    call: int
    id: IdField


class TendPins(Message, frozen=True, tag=15):
    """`Calls.tend`."""

    call: int
    order: Order


class KeepItem(Message, frozen=True, tag=16):
    """`Calls.keep`."""

    call: int
    key: ItemKey
    item: Item | None


class LetGoOf(Message, frozen=True, tag=17):
    """`Calls.unpin`; the name as text."""

    call: int
    name: str
    salt: bytes


class CollectPins(Message, frozen=True, tag=18):
    """`Calls.gc`."""

    call: int


class AskTrace(Message, frozen=True, tag=24):
    """`Calls.trace`; the guid in hex, or the beginning of it."""

    call: int
    work: str


class TypeLine(Message, frozen=True, tag=25):
    """`Calls.console`: answered by IsText until `last`."""

    call: int
    line: str


class WatchWorks(Message, frozen=True, tag=26):
    """From now on tell which works each call begins, before its answer; see tracing.py."""

    call: int = 0


class CancelCall(Message, frozen=True, tag=8):
    """Nobody waits for this call any more; it has no answer."""

    call: int


class IsPut(Message, frozen=True, tag=33):
    """The answer to PutBlock."""

    call: int
    receipt: PutReceipt


class IsBlock(Message, frozen=True, tag=34):
    """The answer to GetBlock."""

    call: int
    data: bytes


class IsPinged(Message, frozen=True, tag=35):
    """The answer to AskPing."""

    call: int
    answer: PingAnswer


class IsStatus(Message, frozen=True, tag=36):
    """The answer to AskStatus."""

    call: int
    status: NodeStatus


class IsPeers(Message, frozen=True, tag=37):
    """The answer to AskPeers, or a part of it: more follow until `last`."""

    call: int
    peers: tuple[PeerStatus, ...]
    last: bool


class IsTrace(Message, frozen=True, tag=56):
    """The answer to AskTrace, or a part of it: more follow until `last`."""

    call: int
    events: tuple[Event, ...]
    last: bool


class IsText(Message, frozen=True, tag=57):
    """An answer to TypeLine; more come until `last`."""

    call: int
    text: str
    last: bool


class HasBegun(Message, frozen=True, tag=58):
    """The works that a call has begun, for who watches works; its answer follows."""

    call: int
    works: tuple[GuidField, ...]


class HasFailed(Message, frozen=True, tag=38):
    """The answer to any call: the name of the error's class, and its message."""

    call: int
    error: str
    text: str


class IsItem(Message, frozen=True, tag=39):
    """The answer to GetSigned."""

    call: int
    item: Item


class IsRecordPut(Message, frozen=True, tag=40):
    """The answer to PutRecord."""

    call: int
    done: PutDone


class IsVersion(Message, frozen=True, tag=41):
    """An answer to AskFollow; more come."""

    call: int
    record: Record


class IsTold(Message, frozen=True, tag=44):
    """The answer to TendPins."""

    call: int
    told: Told


class HasLetGo(Message, frozen=True, tag=45):
    """The answer to LetGoOf or CollectPins: how many pins."""

    call: int
    count: int


class IsFingers(Message, frozen=True, tag=42):
    """The answer to AskFingers, or a part of it: more follow until `last`."""

    call: int
    fingers: tuple[FingerStatus, ...]
    last: bool


class IsContacts(Message, frozen=True, tag=43):
    """The answer to AskContacts or AskLookUp, or a part of it: more follow until `last`."""

    call: int
    contacts: tuple[Contact, ...]
    last: bool


Ask = (
    PutBlock
    | GetBlock
    | GetSigned
    | PutRecord
    | AskFollow
    | AskPing
    | AskStatus
    | AskPeers
    | AskFingers
    | AskContacts
    | AskLookUp
    | TendPins
    | KeepItem
    | LetGoOf
    | CollectPins
    | AskTrace
    | TypeLine
)
Answer = (
    IsPut
    | IsBlock
    | IsItem
    | IsRecordPut
    | IsVersion
    | IsPinged
    | IsStatus
    | IsPeers
    | IsFingers
    | IsContacts
    | IsTold
    | HasLetGo
    | IsTrace
    | IsText
    | HasBegun
    | HasFailed
)

encode = msgspec.msgpack.Encoder().encode
"""Return a message's MessagePack bytes."""


hellos = msgspec.msgpack.Decoder(Hello)
welcomes = msgspec.msgpack.Decoder(Welcome)
asks = msgspec.msgpack.Decoder(Ask | CancelCall | WatchWorks)
answers = msgspec.msgpack.Decoder(Answer)


def decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """Return the message in these bytes.

    Raises:
        WireError: it is none of those that the decoder takes.
    """
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"expected a control message of {len(data)} bytes: {error}") from error


# --- The file -----------------------------------------------------------------------------------


def write_control_file(home: Path, said: ControlFile) -> None:
    """Say where the node listens, in a file that only its owner can ever read, and always whole.

    Raises:
        StoreError: the file cannot be written.
    """
    temporary = home / f".{CONTROL_FILE}.{secrets.token_hex(8)}"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(said))
        temporary.replace(home / CONTROL_FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {home / CONTROL_FILE}: {error.strerror}") from error


def read_control_file(home: Path) -> ControlFile | None:
    """Return what the file says, or None if there is none that says anything."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((home / CONTROL_FILE).read_bytes(), type=ControlFile)
    return None


def proof(token: str, end: Literal["client", "node"]) -> bytes:
    """Return what only somebody with the token can show; each end shows another proof."""
    return blake3(bytes.fromhex(token), derive_key_context=f"xorbit control v1 {end}").digest()


# --- Frames over a stream -----------------------------------------------------------------------


async def read_payload(reader: asyncio.StreamReader, limit: int = FRAME_BYTES_MAX) -> bytes | None:
    """Return the next frame's payload, or None when the other end is gone.

    Raises:
        WireError: the frame announces more bytes than the limit, or none.
    """
    try:
        length = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
        if not 0 < length <= limit:
            raise WireError(f"a frame holds 1..{limit:,} bytes here, got a length of {length:,}")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def write_message(writer: asyncio.StreamWriter, message: Message) -> None:
    """Send a message, and wait while the other end is slow to read.

    Raises:
        OSError: the connection is gone.
    """
    if writer.is_closing():  # uvloop raises a RuntimeError where asyncio only warns
        raise ConnectionResetError("the local connection is closed")
    writer.write(frame(encode(message)))
    await writer.drain()


async def close_stream(writer: asyncio.StreamWriter, within_s: float) -> None:
    """Close after what was written has left, or without it if the other end does not read."""
    writer.close()
    try:
        async with asyncio.timeout(within_s):
            await writer.wait_closed()
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()  # nothing, where it is closed
