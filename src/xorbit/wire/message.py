"""The messages: one envelope, a tagged union of requests and one of responses; one codec.

Pure data and its MessagePack form. New fields go last and have defaults, so that neighbours of
different versions understand each other; a new kind of message needs a new protocol version (ALPN).
Every failure to decode is a `WireError` that says what was wrong.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from xorbit.config import CONTACTS_MAX, LEASE_S_MAX
from xorbit.errors import WireError
from xorbit.ids import GUID_BYTES, Guid
from xorbit.items import Address, Contact, IdField, Item, ItemKey, Record, Sequence63
from xorbit.wire.frame import HEADER_BYTES

PROTOCOL_VERSION = 1
KEYS_MAX = 1_024
ALSO_MAX = 16
REASON_CHARACTERS_MAX = 256
AGE_S_MAX = 100 * 365 * 86_400
"""No copy is said to be older: a century."""

GuidField = Annotated[Guid, Meta(min_length=GUID_BYTES, max_length=GUID_BYTES)]
Addresses = Annotated[tuple[Address, ...], Meta(max_length=16)]
Contacts = Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)]
Keys = Annotated[tuple[ItemKey, ...], Meta(max_length=KEYS_MAX)]
Reason = Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)]


class Message(Struct, frozen=True, array_like=True, gc=False):
    """The root of requests and responses: MessagePack arrays, an integer tag first.

    `gc=False`, here and on all that messages are made of: they are trees, so that counting their
    references frees them, and the collector need not look at thousands of them each second.
    """


# --- Requests -----------------------------------------------------------------------------------


class Ping(Message, frozen=True, tag=1):
    """Are you there? Carries where we listen and the sequence of our connection item."""

    addresses: Addresses = ()
    seq: Sequence63 = 0


class FindNext(Message, frozen=True, tag=2):
    """Who is nearest to `target`? Passed on from node to node, each strictly nearer."""

    target: IdField
    hops: Annotated[int, Meta(ge=0, le=255)] = 0
    not_equal: bool = False
    """Ask for the nearest node whose id is not `target`: how a node finds its own neighbour."""


class FindClosest(Message, frozen=True, tag=3):
    """Which contacts do you know closest to `target`? As many as usual, or `count`."""

    target: IdField
    count: Annotated[int, Meta(ge=0, le=CONTACTS_MAX)] = 0


class Get(Message, frozen=True, tag=4):
    """Give me the item under this key."""

    key: ItemKey


class Store(Message, frozen=True, tag=5):
    """Keep this item, and (`also`) hand it to these others."""

    item: Item
    cas: Sequence63 | None = None
    """Compare and swap: store only if the record you hold has this sequence number."""
    also: Annotated[tuple[Contact, ...], Meta(max_length=ALSO_MAX)] = ()
    age_s: Annotated[float, Meta(ge=0, le=AGE_S_MAX)] = 0.0
    """How long ago its owner last refreshed it: a copy that is handed on grows no younger."""


class Have(Message, frozen=True, tag=6):
    """Which of these do you lack?"""

    keys: Keys
    refresh: bool = False
    """Whoever asks is an owner of them: let those that you have live on."""


class Follow(Message, frozen=True, tag=7):
    """Tell me of newer versions of the record with this id, until the lease ends."""

    id: IdField


# --- Responses ----------------------------------------------------------------------------------


class Pong(Message, frozen=True, tag=33):
    """The address at which we see you, and where we listen."""

    observed: Address | None = None
    addresses: Addresses = ()


class Next(Message, frozen=True, tag=34):
    """The nearest contact, and how many hops away it was found."""

    contact: Contact
    hops: Annotated[int, Meta(ge=0, le=255)] = 0


class Closest(Message, frozen=True, tag=35):
    """The contacts we know closest to what you asked for, closest first."""

    contacts: Contacts


class Found(Message, frozen=True, tag=36):
    """The item you asked for.

    For a signed one, whose newest version a reader seeks, also who else may hold it.
    """

    item: Item
    closer: Contacts = ()


RefusalCode = Literal["full", "busy", "stale", "invalid", "stopping", "unsupported", "failed"]


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """What one node said to a store: who, what, and why when it was no."""

    node: IdField
    outcome: Literal["stored", "refused", "timeout"]
    reason: Reason = ""


class Stored(Message, frozen=True, tag=37):
    """It is on disk here. `also` says what those others answered."""

    also: Annotated[tuple[Receipt, ...], Meta(max_length=ALSO_MAX)] = ()


class Refused(Message, frozen=True, tag=38):
    """No, and why; for a stale record, with the newer one."""

    code: RefusalCode
    reason: Reason = ""
    newer: Record | None = None


class Missing(Message, frozen=True, tag=39):
    """Which of the keys you named we lack."""

    keys: Keys


class Following(Message, frozen=True, tag=40):
    """We will push newer versions until the lease ends, in this many seconds."""

    lease_s: Annotated[float, Meta(gt=0, le=LEASE_S_MAX)]
    record: Record | None = None
    """The version held now, so that none is missed between reading and following."""


class Updated(Message, frozen=True, tag=41):
    """A newer version of a record that you follow."""

    record: Record


Request = Ping | FindNext | FindClosest | Get | Store | Have | Follow
Response = Pong | Next | Closest | Found | Stored | Refused | Missing | Following | Updated

_ANSWERS: dict[type[Message], tuple[type[Message], ...]] = {
    Ping: (Pong,),
    FindNext: (Next,),
    FindClosest: (Closest,),
    Get: (Found, Closest),
    Store: (Stored,),
    Have: (Missing,),
    Follow: (Following,),
}


def answers(request: Request, response: Response) -> bool:
    """Return whether this can be the answer to that; anything may be refused."""
    return isinstance(response, (Refused, *_ANSWERS[type(request)]))


class Envelope(Struct, frozen=True, array_like=True, gc=False):
    """One message with its names: the guid of the exchange, and of the work that caused it."""

    guid: GuidField
    work: GuidField
    body: Request | Response


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)

encode = _encoder.encode
"""Return an envelope's MessagePack bytes."""


def encode_frame(envelope: Envelope) -> bytearray:
    """Return an envelope as a frame (frame.py), copying what it carries only once."""
    whole = bytearray(HEADER_BYTES)
    _encoder.encode_into(envelope, whole, HEADER_BYTES)
    whole[:HEADER_BYTES] = (len(whole) - HEADER_BYTES).to_bytes(HEADER_BYTES, "big")
    return whole


def decode(data: bytes | memoryview) -> Envelope:
    """Return the envelope in these bytes.

    Raises:
        WireError: not MessagePack, no envelope, a field out of its bounds, or an unknown message.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = one_line(str(error))  # it quotes what it did not expect
        raise WireError(f"expected one envelope of {len(data)} bytes: {why}") from error


def one_line(said: str) -> str:
    """Return a text that a peer had a hand in as one short line that is safe for any terminal."""
    shown = said[:REASON_CHARACTERS_MAX]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)
