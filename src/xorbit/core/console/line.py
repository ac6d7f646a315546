"""A typed line, its words, and what they mean: ids, guids, names, addresses.

Ids may be typed by their beginning, as far as this node knows only one that begins so. Everything
that is typed wrongly raises MisuseError with what was expected.
"""

import shlex
from base64 import b32decode, b32encode
from binascii import Error as NotBase32
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from xorbit.core.job import HandleStdinLine, Job, QueueFigures
from xorbit.core.state import State
from xorbit.errors import MisuseError
from xorbit.ids import GUID_BYTES, ID_BYTES, Guid, Id
from xorbit.items import BLOCK_KINDS, ItemKey, Kind
from xorbit.pins import Root

GUID_DIGITS_MIN = 4
SHOWN_DIGITS = 8
"""How many digits of an id are shown where it must stay short; a prompt takes them too."""
CID_CHARACTERS = 59
DAG_PB = 0x70
RAW = 0x55


@dataclass(slots=True)
class Line:
    """A line in its words; the first is the command, in lower case."""

    words: tuple[str, ...]
    rest: str
    """Everything after the command, as it was typed."""
    queue: QueueFigures
    also: Job | None = None
    """What is to happen besides the answer."""

    @classmethod
    def of(cls, job: HandleStdinLine) -> Self:
        """Take a line apart."""
        first, *others = job.line.split() or [""]
        rest = job.line.strip()[len(first) :].strip()
        return cls((first.lower(), *others) if first else (), rest, job.queue)


@dataclass(frozen=True, slots=True)
class Started:
    """A line that takes time: what is said at once, and the job whose outcome is the answer."""

    text: str
    job: Callable[[Guid], Job]
    stepwise: bool = False
    """Show each exchange as it happens."""
    root: Root | None = None
    """What is kept for our owner once it is stored."""


def unquoted(text: str) -> str:
    """Return a text without the quotes that stand around all of it, as a shell takes them off.

    Raises:
        MisuseError: it begins with a quote that is not closed.
    """
    if not text.startswith(("'", '"')):
        return text
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise MisuseError(f"a quote is opened and not closed: {text[:80]}") from error
    return words[0] if len(words) == 1 else text


def parse_id(state: State, text: str) -> Id:
    """Return the id that was typed, whole or by a beginning that only one known node has."""
    digits = text.lower()
    if len(digits) < 2 * ID_BYTES and set(digits) <= set("0123456789abcdef"):
        fitting = _known_by(state, digits)
        if len(fitting) == 1:
            return fitting[0]
        known = " and ".join(map(short, fitting)) or "no node that is known here"
        begin = "begin" if fitting else "begins"
        raise MisuseError(f"expected an id, or the beginning of just one: {known} {begin} so")
    try:
        id = bytes.fromhex(digits)
    except ValueError:
        id = b""
    if len(id) != ID_BYTES:
        raise MisuseError(f"expected an id of {2 * ID_BYTES} hexadecimal digits, got {text!r}")
    return Id(id)


def _known_by(state: State, digits: str) -> list[Id]:
    """Return the nodes that are known and whose ids begin so, at most two."""
    # By XOR distance the nearest to a prefix followed by zeros are those that share the prefix.
    point = Id(bytes.fromhex(digits.ljust(2 * ID_BYTES, "0")))
    known = [contact.id for contact in state.table.closest(point, 2, failing=True)]
    ids = dict.fromkeys((*known, *state.link_of, *state.possibles, state.own))
    return [id for id in ids if id.hex().startswith(digits)][:2]


def parse_guid(state: State, text: str) -> Guid:
    """Return the guid that was typed: whole, by its beginning, or as the number of a line."""
    if text.isdecimal() and len(text) < GUID_DIGITS_MIN:
        for guid, typed in state.typed.items():
            if typed.number == int(text):
                return guid
    digits = text.lower()
    fitting = dict.fromkeys(
        event.origin for event in state.trace if event.origin.hex().startswith(digits)
    )
    if len(digits) >= GUID_DIGITS_MIN and len(fitting) == 1:
        return next(iter(fitting))
    try:
        guid = bytes.fromhex(digits)
    except ValueError:
        guid = b""
    if len(guid) != GUID_BYTES:
        raise MisuseError(
            f"expected a guid of {2 * GUID_BYTES} hexadecimal digits, or the beginning of just one "
            f"that is remembered ({GUID_DIGITS_MIN} digits or more), got {text!r}"
        )
    return Guid(guid)


def parse_public_key(text: str) -> bytes:
    """Return the Ed25519 public key that was typed, 32 bytes in hex."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != ID_BYTES:
        raise MisuseError(
            f"expected a public key of {2 * ID_BYTES} hexadecimal digits, got {text!r}"
        )
    return key


def name_of(key: ItemKey) -> str:
    """Return the CID of a raw block."""
    # files/cid.py has all that names of files need, and stands above the core; this is one line.
    data = bytes((1, RAW, key.kind, ID_BYTES)) + key.id
    return "b" + b32encode(data).decode().rstrip("=").lower()


def parse_name(text: str) -> tuple[ItemKey, bool]:
    """Return the key of the block that a CID names, and whether it is an inner node of a file."""
    bare = text.rpartition("://")[2]
    try:
        if len(bare) != CID_CHARACTERS or not bare.startswith("b"):
            raise NotBase32
        version, codec, code, size, *digest = b32decode(bare[1:].upper() + "======")
        kind = Kind(code)
    except ValueError:  # as a wrong character is, and NotBase32
        raise MisuseError(f"expected a name such as bafkr4i..., got {text!r}") from None
    known = (version, size) == (1, ID_BYTES) and kind in BLOCK_KINDS and codec in (RAW, DAG_PB)
    if not known:
        raise MisuseError(f"expected the CIDv1 of a block with a hash that xorbit has: {text!r}")
    return ItemKey(kind, Id(bytes(digest))), codec == DAG_PB


def short(point: bytes) -> str:
    """Return the beginning of an id or a guid."""
    return point.hex()[:SHOWN_DIGITS]
