"""Names of blocks and files: CIDv1, as text and as bytes, one encoding for each and no other.

A path may follow a name, as in `bafy.../sub/file`; each of its parts is a name in a directory.
Between them the key of private content may stand (seal_key.py), as in `bafkr4i...#key/sub/file`.

Pure. A name that a user typed wrongly raises `MisuseError`; one that a peer sent, `FormatError`.

CIDv1 (https://github.com/multiformats/cid): version, codec, multihash; as text in multibase
base32, lower case, no padding (RFC 4648, prefix "b"). Every number in it is below 128, so a binary
CID is always 36 bytes: 0x01, codec, hash, 0x20, digest.
"""

from base64 import b32decode, b32encode
from enum import IntEnum

from msgspec import Struct

from xorbit.errors import FormatError, MisuseError
from xorbit.files.names import name_problem, shown
from xorbit.files.seal_key import KEY_MARK, SealKey, holds_key, parse_key, without_key
from xorbit.ids import ID_BYTES, Id
from xorbit.items import ItemKey, Kind, block_key

CID_VERSION = 1
CID_BYTES = 4 + ID_BYTES
CID_CHARACTERS = 59
CID_START = "baf"
"""How every one begins: version and codec."""
SCHEMES = ("ipfs", "xorbit")

_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_CID_0_START = bytes((Kind.BLOCK_SHA2_256, ID_BYTES))  # a bare multihash
_HEX = frozenset("0123456789abcdefABCDEF")
_PUBLIC_KEY_DIGITS = 64
_SHOWN_CHARACTERS = 80
_HINTS = (
    ("Qm", "that is a CIDv0: convert it with `ipfs cid base32`"),
    ("z", "that is base58: convert it with `ipfs cid base32`"),
    ("B", "that is in capitals: write it in lower case"),
)


class Codec(IntEnum):
    """What the bytes of a named block are (https://github.com/multiformats/multicodec)."""

    RAW = 0x55
    DAG_PB = 0x70


class Cid(Struct, frozen=True):
    """The name of a block: what its bytes are, and its multihash (`key.kind` and `key.id`).

    `str(cid)` and `bytes(cid)` are its two encodings.
    """

    codec: Codec
    key: ItemKey

    def __bytes__(self) -> bytes:
        """Return the 36 bytes of the binary form."""
        return bytes((CID_VERSION, self.codec, self.key.kind, ID_BYTES)) + self.key.id

    def __str__(self) -> str:
        """Return the 59 characters of the text form."""
        return "b" + b32encode(bytes(self)).decode().rstrip("=").lower()


class Place(Struct, frozen=True):
    """A name and the path below it, to a file or directory inside a directory.

    `str(place)` is its text form without a scheme, and without the key: for messages and traces.
    """

    cid: Cid
    path: tuple[str, ...] = ()
    seal: SealKey | None = None
    """Of private content: what opens it."""

    def __str__(self) -> str:
        """Return `CID/path`."""
        return "/".join((str(self.cid), *self.path))


def cid_of_block(data: bytes, codec: Codec, kind: Kind = Kind.BLOCK_BLAKE3_256) -> Cid:
    """Return the name of a block's bytes.

    Raises:
        MisuseError: `kind` is no hash of blocks.
    """
    return Cid(codec, block_key(data, kind))


def decode_cid(data: bytes) -> Cid:
    """Return the name that a binary CID says.

    Raises:
        FormatError: not CIDv1, or a codec or hash that xorbit does not use.
    """
    if len(data) != CID_BYTES or data[0] != CID_VERSION or data[3] != ID_BYTES:
        what = "a CIDv0" if data.startswith(_CID_0_START) else f"{len(data)}: {data[:4].hex()}..."
        raise FormatError(f"expected a CIDv1 of {CID_BYTES} bytes, got {what}")
    return Cid(_codec(data[1]), ItemKey(_hash(data[2]), Id(data[4:])))


def _codec(code: int) -> Codec:
    try:
        return Codec(code)
    except ValueError:
        raise FormatError(f"expected codec raw (0x55) or dag-pb (0x70), got {code:#x}") from None


def _hash(code: int) -> Kind:
    if code not in (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256):
        raise FormatError(f"expected hash BLAKE3-256 (0x1e) or SHA2-256 (0x12), got {code:#x}")
    return Kind(code)


def parse_cid(text: str) -> Cid:
    """Return the name that a user wrote, alone or after `ipfs://` or `xorbit://`.

    Raises:
        MisuseError: not a name, or not in its one text form, or a path follows; the message says
            what to do.
    """
    bare = _bare(text)
    if "/" in bare:
        raise _misuse(text, "a path after the name is not understood here")
    if KEY_MARK in bare:
        raise _misuse(text, "the key of private content is not understood here")
    return _parse(text, bare)


def parse_place(text: str) -> Place:
    """Return the name that a user wrote, as `parse_cid` does, and the path after it.

    The names of a path are taken as they are: `%20` stays what it is. One / at the end is nothing.
    Of private content a # and the key follow the CID.

    Raises:
        MisuseError: as `parse_cid`, or a part of the path is no name of an entry, or a key that is
            none, or not where it belongs. No message has a part of the key.
    """
    name, path = split_name(text)
    name, mark, key = name.partition(KEY_MARK)
    if any(map(holds_key, path)):
        raise MisuseError("the key stands directly behind the CID: write NAME#KEY/path")
    return Place(_parse(text, name), path, parse_key(key) if mark else None)


def split_name(text: str) -> tuple[str, tuple[str, ...]]:
    """Return what stands before the path, without a scheme, and the names of the path, checked.

    Raises:
        MisuseError: another scheme, or a part of the path is no name of an entry.
    """
    name, _, rest = _bare(text).partition("/")
    path = rest.removesuffix("/").split("/") if rest else []
    for part in path:
        if problem := name_problem(part):
            raise _misuse(text, f"in its path stands {shown(part)}: {problem}")
    return name, tuple(path)


def _bare(text: str) -> str:
    # What stands before :// has no / in it; a path may have :// in it.
    scheme, separator, bare = text.partition("://")
    if not separator or "/" in scheme:
        return text
    if scheme not in SCHEMES:
        raise _misuse(text, "before :// only ipfs or xorbit may stand")
    return bare


def _parse(text: str, bare: str) -> Cid:
    if problem := _problem(bare):
        raise _misuse(text, problem)
    padded = bare[1:].upper() + "=" * (-(CID_CHARACTERS - 1) % 8)
    try:
        cid = decode_cid(b32decode(padded))
    except FormatError as error:
        raise _misuse(text, str(error)) from error
    if str(cid) != bare:
        raise _misuse(text, "its last character has bits that must be zero; copy it again")
    return cid


def _misuse(text: str, problem: str) -> MisuseError:
    text = without_key(text)
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return MisuseError(
        f"expected a name such as bafkr4i... or bafyb4i..., got {shown!r}: {problem}"
    )


def _problem(bare: str) -> str | None:
    digits = len(bare)
    near = _PUBLIC_KEY_DIGITS // 2 < digits < 2 * _PUBLIC_KEY_DIGITS
    if near and digits not in (CID_CHARACTERS, _PUBLIC_KEY_DIGITS) and _HEX.issuperset(bare):
        return (
            f"it has {digits} hexadecimal digits, a public key has {_PUBLIC_KEY_DIGITS}: "
            "copy it again"
        )
    for start, hint in _HINTS:
        if bare.startswith(start):
            return hint
    if not bare.startswith("b"):
        return "a name starts with b (CIDv1 in base32)"
    if not _ALPHABET.issuperset(bare):
        return "after the b come only a-z and 2-7"
    if len(bare) != CID_CHARACTERS:
        return f"it has {len(bare)} characters, not {CID_CHARACTERS}; was it cut when copied?"
    return None
