"""Messages: bounds of every field, neighbours of other versions, the largest in a frame."""

import math
from typing import Any

import msgspec
import pytest

from xorbit.config import CONTACTS_MAX, FRAME_BYTES_MAX, Limits
from xorbit.core.routing import ADDRESSES_KEPT
from xorbit.errors import WireError
from xorbit.ids import Guid, Id
from xorbit.items import (
    ADDRESSES_MAX,
    BLOCK_BYTES_MAX,
    SALT_BYTES_MAX,
    SEQUENCE_MAX,
    VALUE_BYTES_MAX,
    Address,
    Block,
    ConnectionItem,
    Contact,
    ItemKey,
    Kind,
    Record,
)
from xorbit.wire import message as m
from xorbit.wire.frame import frame

GUID, WORK = Guid(b"g" * 16), Guid(b"w" * 16)
ID = Id(b"i" * 32)
ADDRESS = Address("192.0.2.1", 4_000)
CONTACT = Contact(ID, (ADDRESS,))
KEY = ItemKey(Kind.BLOCK_BLAKE3_256, ID)
BLOCK = Block(Kind.BLOCK_BLAKE3_256, b"data")
RECORD = Record(b"p" * 32, 7, b"value", b"s" * 64, b"salt")
WHEREABOUTS = ConnectionItem(b"p" * 32, 7, (ADDRESS,), b"s" * 64)

REQUESTS: list[m.Request] = [
    m.Ping((ADDRESS,), 3),
    m.FindNext(ID, 2, True),
    m.FindClosest(ID),
    m.Get(KEY),
    m.Store(BLOCK, 4, (CONTACT,)),
    m.Have((KEY,)),
    m.Follow(ID),
]
RESPONSES: list[m.Response] = [
    m.Pong(ADDRESS, (ADDRESS,)),
    m.Next(CONTACT, 2),
    m.Closest((CONTACT,)),
    m.Found(RECORD),
    m.Stored((m.Receipt(ID, "refused", "full"),)),
    m.Refused("stale", "older", RECORD),
    m.Missing((KEY,)),
    m.Following(60.0),
    m.Updated(RECORD),
]
MESSAGES = [*REQUESTS, *RESPONSES]

every_message = pytest.mark.parametrize("body", MESSAGES, ids=lambda body: type(body).__name__)


def plain(message: object) -> Any:
    """Return a message as the lists, numbers and bytes that it is on the wire."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))


def decode_body(body: Any, *more: Any) -> Any:
    """Return what a neighbour makes of these lists in an envelope."""
    return m.decode(msgspec.msgpack.encode([GUID, WORK, body, *more])).body


def size_in_frame(body: m.Request | m.Response) -> int:
    return len(frame(m.encode(m.Envelope(GUID, WORK, body))))


@every_message
def test_round_trip(body: Any) -> None:
    """Every kind of message comes back as it was sent, of its own type."""
    envelope = m.Envelope(GUID, WORK, body)
    assert m.decode(m.encode(envelope)) == envelope
    assert type(m.decode(m.encode(envelope)).body) is type(body)


def test_samples_are_all_kinds() -> None:
    """These tests leave no kind of message out."""
    assert {type(body) for body in REQUESTS} == set(m.Request.__args__)
    assert {type(body) for body in RESPONSES} == set(m.Response.__args__)


def test_no_message_both_asks_and_answers() -> None:
    """What tells a request from a response holds for every kind."""
    assert [isinstance(body, m.Request) for body in MESSAGES] == [True] * 7 + [False] * 9


@pytest.mark.parametrize(
    ("body", "tag"), list(zip(MESSAGES, [*range(1, 8), *range(33, 42)], strict=True))
)
def test_tags_never_change(body: Any, tag: int) -> None:
    """A message's number is the protocol: a change of it would need another version."""
    assert plain(body)[0] == tag


def test_decode_takes_a_memoryview() -> None:
    data = m.encode(m.Envelope(GUID, WORK, m.Found(BLOCK)))
    assert m.decode(memoryview(data)) == m.decode(data)


# --- Neighbours of other versions ----------------------------------------------------------------


@every_message
def test_newer_neighbour(body: Any) -> None:
    """Fields that a newer version put last are passed over, in the message and in its envelope."""
    assert decode_body([*plain(body), "new", {"of": [1, 2]}, None]) == body
    assert decode_body(plain(body), "new", 5) == body


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (m.Closest((CONTACT,)), (1, 0)),
        (m.Closest((CONTACT,)), (1, 0, 1, 0)),
        (m.Get(KEY), (1,)),
        (m.Found(BLOCK), (1,)),
        (m.Found(RECORD), (1,)),
        (m.Found(WHEREABOUTS), (1,)),
        (m.Stored((m.Receipt(ID, "stored", "ok"),)), (1, 0)),
    ],
    ids=["contact", "address", "key", "block", "record", "connection item", "receipt"],
)
def test_newer_neighbour_inside(body: Any, path: tuple[int, ...]) -> None:
    """The same holds for everything that a message carries."""
    lists = plain(body)
    inner = lists
    for index in path:
        inner = inner[index]
    inner.append("new")
    assert decode_body(lists) == body


@every_message
def test_older_neighbour(body: Any) -> None:
    """Without its last fields a message has their defaults; without a required one it is none."""
    fields = msgspec.structs.fields(body)
    required = sum(field.required for field in fields)
    for count in range(len(fields)):
        cut = plain(body)[: 1 + count]
        if count < required:
            with pytest.raises(WireError):
                decode_body(cut)
            continue
        names = [field.name for field in fields[:count]]
        assert decode_body(cut) == type(body)(**{name: getattr(body, name) for name in names})


# --- Out of bounds -------------------------------------------------------------------------------

CONTACT_LIST = plain(CONTACT)
KEY_LIST = plain(KEY)
RECORD_LIST = plain(RECORD)
BLAKE3 = Kind.BLOCK_BLAKE3_256.value


def record_with(index: int, value: object) -> list[object]:
    return [*RECORD_LIST[:index], value, *RECORD_LIST[index + 1 :]]


BAD_BODIES: dict[str, Any] = {
    "no tag": [],
    "unknown tag": [8, ID],
    "negative tag": [-1, ID],
    "tag of another type": ["Ping"],
    "a map": {"type": 1},
    "nothing": None,
    "short id": [3, bytes(31)],
    "long id": [3, bytes(33)],
    "id as text": [3, "i" * 32],
    "short id in a key": [4, [BLAKE3, bytes(31)]],
    "unknown kind": [4, [0x55, bytes(32)]],
    "addresses over the limit": [1, [["h", 1]] * (ADDRESSES_MAX + 1)],
    "empty host": [1, [["", 1]]],
    "host over the limit": [1, [["h" * 254, 1]]],
    "host that is no text": b"\xff",
    "port 0": [1, [["h", 0]]],
    "port 65536": [1, [["h", 65_536]]],
    "negative port": [1, [["h", -1]]],
    "negative sequence number": [1, [], -1],
    "sequence number over the limit": [1, [], SEQUENCE_MAX + 1],
    "sequence number over 64 bits as float": [1, [], 2.0**70],
    "negative hops": [2, ID, -1],
    "hops over the limit": [2, ID, 256],
    "not_equal as a number": [2, ID, 0, 1],
    "keys over the limit": [6, [KEY_LIST] * (m.KEYS_MAX + 1)],
    "contacts over the limit": [35, [CONTACT_LIST] * (CONTACTS_MAX + 1)],
    "addresses of a contact over the limit": [34, [ID, [["h", 1]] * (ADDRESSES_MAX + 1)]],
    "also over the limit": [5, plain(BLOCK), None, [CONTACT_LIST] * (m.ALSO_MAX + 1)],
    "negative cas": [5, plain(RECORD), -1],
    "receipts over the limit": [37, [[ID, "stored"]] * (m.ALSO_MAX + 1)],
    "unknown outcome": [37, [[ID, "perhaps"]]],
    "unknown code of refusal": [38, "never"],
    "reason over the limit": [38, "full", "x" * (m.REASON_CHARACTERS_MAX + 1)],
    "block as the newer record": [38, "stale", "", plain(BLOCK)],
    "unknown kind of item": [36, [4, b""]],
    "block over the limit": [36, [1, BLAKE3, bytes(BLOCK_BYTES_MAX + 1)]],
    "value over the limit": [36, record_with(3, bytes(VALUE_BYTES_MAX + 1))],
    "short public key": [36, record_with(1, bytes(31))],
    "negative sequence number of a record": [36, record_with(2, -1)],
    "long signature": [36, record_with(4, bytes(65))],
    "salt over the limit": [36, record_with(5, bytes(SALT_BYTES_MAX + 1))],
    "lease of 0": [40, 0.0],
    "negative lease": [40, -1.0],
    "lease without end": [40, float("inf")],
    "lease that is no number": [40, float("nan")],
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_out_of_bounds(body: Any) -> None:
    """One field out of its bounds makes the whole envelope a WireError that says what was wrong."""
    with pytest.raises(WireError, match=r"expected one envelope of [\d]+ bytes: \w"):
        decode_body(body)


@pytest.mark.parametrize("guids", [(bytes(15), WORK), (GUID, bytes(17)), ("g" * 16, WORK)])
def test_guids_are_16_bytes(guids: tuple[Any, Any]) -> None:
    with pytest.raises(WireError):
        m.decode(msgspec.msgpack.encode([*guids, [1]]))


def test_host_that_is_not_utf8() -> None:
    """Text that is no text is a WireError, not an error of Python's."""
    data = m.encode(m.Envelope(GUID, WORK, m.Ping((Address("@@", 1),))))
    with pytest.raises(WireError, match="utf-8"):
        m.decode(data.replace(b"@@", b"\xff\xfe"))


def test_deep_nesting() -> None:
    """A field that nests without end is refused before it costs the stack."""
    data = m.encode(m.Envelope(GUID, WORK, m.Ping()))
    assert data[0] == 0x93
    with pytest.raises(WireError, match="recursion"):
        m.decode(b"\x94" + data[1:] + b"\x91" * 60_000 + b"\xc0")


def test_what_a_peer_sent_cannot_forge_lines_of_a_log_or_move_a_cursor() -> None:
    """The error quotes it, in one line of bounded length without control characters."""
    data = msgspec.msgpack.encode([GUID, WORK, [38, "x\n\x1b[31m" * 1_000]])
    with pytest.raises(WireError) as caught:
        m.decode(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_more_than_one_envelope() -> None:
    data = m.encode(m.Envelope(GUID, WORK, m.Ping()))
    with pytest.raises(WireError):
        m.decode(data + data)


# --- The largest fit a frame ---------------------------------------------------------------------

HOST = "2001:db8:1111:2222:3333:4444:5555:6666"
LARGEST_BLOCK = Block(Kind.BLOCK_SHA2_256, bytes(BLOCK_BYTES_MAX))
FULL_CONTACT = Contact(ID, tuple(Address(HOST, 65_535 - n) for n in range(ADDRESSES_KEPT)))
LARGEST_RECORD = Record(
    b"p" * 32, SEQUENCE_MAX, bytes(VALUE_BYTES_MAX), b"s" * 64, bytes(SALT_BYTES_MAX)
)
LONGEST_REASON = "\U0001f600" * m.REASON_CHARACTERS_MAX
LARGE: dict[str, m.Request | m.Response] = {
    "block": m.Found(LARGEST_BLOCK),
    "store with also": m.Store(LARGEST_BLOCK, SEQUENCE_MAX, (FULL_CONTACT,) * m.ALSO_MAX),
    "record": m.Updated(LARGEST_RECORD),
    "refused with the newer record": m.Refused("unsupported", LONGEST_REASON, LARGEST_RECORD),
    "receipts": m.Stored((m.Receipt(ID, "refused", LONGEST_REASON),) * m.ALSO_MAX),
    "keys": m.Have((KEY,) * m.KEYS_MAX),
    "contacts": m.Closest((FULL_CONTACT,) * CONTACTS_MAX),
    "contacts with the longest names": m.Closest(
        (Contact(ID, (Address("h" * 253, 65_535),) * ADDRESSES_KEPT),) * Limits().closest_count
    ),
    "own addresses": m.Ping((Address("h" * 253, 65_535),) * ADDRESSES_MAX, SEQUENCE_MAX),
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE.keys())
def test_largest_messages_fit_a_frame(body: Any) -> None:
    """What a node may have to say always fits: framing it raises nothing, and it decodes."""
    assert size_in_frame(body) <= FRAME_BYTES_MAX
    assert decode_body(plain(body)) == body


# --- Questions and answers -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize(
    "body", [lambda age: m.Store(BLOCK, age_s=age), m.Following], ids=["age", "lease"]
)
def test_no_time_on_the_wire_is_infinite_or_no_number(body: Any, number: float) -> None:
    """What a peer says of time can be added, rounded and waited for."""
    with pytest.raises(WireError):
        m.decode(m.encode(m.Envelope(GUID, WORK, body(number))))


def test_each_request_has_its_own_answers_and_may_be_refused() -> None:
    answers = {
        type(request): [type(said) for said in RESPONSES if m.answers(request, said)]
        for request in REQUESTS
    }
    assert answers == {
        m.Ping: [m.Pong, m.Refused],
        m.FindNext: [m.Next, m.Refused],
        m.FindClosest: [m.Closest, m.Refused],
        m.Get: [m.Closest, m.Found, m.Refused],
        m.Store: [m.Stored, m.Refused],
        m.Have: [m.Refused, m.Missing],
        m.Follow: [m.Refused, m.Following],
    }
