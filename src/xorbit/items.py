"""The three items that a network holds: Block, Record and ConnectionItem; make, check, compare.

Pure: hashing and signatures are computed here, nothing is read from the world. What a caller builds
wrongly raises `MisuseError`; what a peer sent and does not prove itself raises `ItemError`.

Blocks are named by multihash (https://github.com/multiformats/multihash), records are signed as BEP
44 mutable items (https://www.bittorrent.org/beps/bep_0044.html), signatures are Ed25519 (RFC 8032).
"""

from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, assert_never

from blake3 import blake3
from msgspec import Meta, Struct
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from xorbit.config import HOSTS_REMEMBERED, SIGNATURES_REMEMBERED
from xorbit.errors import ItemError, MisuseError
from xorbit.ids import ID_BYTES, Id, id_of

_QUOTES = ("''", '""', "\u2018\u2019", "\u201c\u201d")

BLOCK_BYTES_MAX = 65_536
VALUE_BYTES_MAX = 60_000
SALT_BYTES_MAX = 64
SEQUENCE_MAX = 2**63 - 1
ADDRESSES_MAX = 16
HOST_BYTES_MAX = 253
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
ITEM_OVERHEAD_BYTES = 64
"""What the key and the bookkeeping of an item take on disk, about; so that empty ones cost too."""
CONNECTION_ITEM_DOMAIN = b"xorbit connection item v1\0"

IdField = Annotated[Id, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
PublicKey = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Sequence63 = Annotated[int, Meta(ge=0, le=SEQUENCE_MAX)]


class Kind(IntEnum):
    """What an id names. For a block this is the multihash code of the hash that names it."""

    RECORD = 0x01
    CONNECTION = 0x02
    BLOCK_SHA2_256 = 0x12
    BLOCK_BLAKE3_256 = 0x1E


BLOCK_KINDS = (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256)
"""The kinds that name a block, by the hash that proves it."""


class ItemKey(Struct, frozen=True, array_like=True, gc=False):
    """The full name of an item: its place in the keyspace and what stands there.

    For a block, `kind` and `id` together are its multihash.
    """

    kind: Kind
    id: IdField


class Address(Struct, frozen=True, array_like=True, order=True, gc=False):
    """A socket address: `host` an IPv4 or IPv6 literal (or a DNS name when a user gave one)."""

    host: Annotated[str, Meta(min_length=1, max_length=HOST_BYTES_MAX)]
    port: Annotated[int, Meta(ge=1, le=65_535)]

    def __post_init__(self) -> None:
        """Hold a host that is not plain ASCII against the limit, which counts bytes.

        Decoding counts characters, so that a peer could else name an address which nobody can sign.

        Raises:
            MisuseError: more bytes than a host may have, or no text at all.
        """
        if not self.host.isascii() and (problem := _host_problem(self.host)):
            raise MisuseError(problem)

    def __str__(self) -> str:
        """Return `host:port`, IPv6 in brackets (RFC 3986)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Contact(Struct, frozen=True, array_like=True, gc=False):
    """A node's id and the addresses at which it may be dialled."""

    id: IdField
    addresses: Annotated[tuple[Address, ...], Meta(max_length=ADDRESSES_MAX)] = ()


class Block(Struct, frozen=True, array_like=True, gc=False, tag=1):
    """At most 65,536 bytes, named by their hash. `hash` is one of the two block kinds."""

    hash: Kind
    data: Annotated[bytes, Meta(max_length=BLOCK_BYTES_MAX)]


class Record(Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A value under a public key and a salt, signed as BEP 44 says; the higher `seq` wins."""

    public_key: PublicKey
    seq: Sequence63
    value: Annotated[bytes, Meta(max_length=VALUE_BYTES_MAX)]
    signature: Signature
    salt: Annotated[bytes, Meta(max_length=SALT_BYTES_MAX)] = b""


class ConnectionItem(Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Where a node is now, signed by that node; the higher `seq` wins."""

    public_key: PublicKey
    seq: Sequence63
    addresses: Annotated[tuple[Address, ...], Meta(max_length=ADDRESSES_MAX)]
    signature: Signature


Item = Block | Record | ConnectionItem


class Held(Struct, frozen=True, gc=False):
    """What a store tells of an item besides its content."""

    key: ItemKey
    age_s: float
    """How long ago it was last stored or refreshed here."""
    pinned_age_s: float | None = None
    """How long ago our owner's pin was last refreshed in the network; None where it has none."""
    lost: bool = False
    """Only the pin is left: the bytes rotted, and are to be fetched again."""

    @property
    def pinned(self) -> bool:
        """Return whether the owner of this node keeps it."""
        return self.pinned_age_s is not None


def parse_address(text: str) -> Address:
    """Return the address of `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        MisuseError: there is no port, it is not in 1..65535, or the host is too long.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or len(port) > 5:
        raise MisuseError(f"expected HOST:PORT with a port in 1..65535, got {text!r}")
    with suppress(ValueError):
        host = str(ip_address(host))
    if ":" in host and not is_literal(Address(host, 1)):
        raise MisuseError(f"expected HOST:PORT, got {text!r}: a host has no colon but in IPv6")
    if problem := _address_problem(host, int(port)):
        raise MisuseError(f"expected HOST:PORT, got {text!r}: {problem}")
    return Address(host, int(port))


def _address_problem(host: str, port: int) -> str | None:
    if problem := _host_problem(host):
        return problem
    return None if 1 <= port <= 65_535 else f"a port is in 1..65535, got {port}"


def _host_problem(host: str) -> str | None:
    # Bytes of a command line that are no text arrive as surrogates, which no message can carry.
    if not 0 < len(host.encode(errors="surrogatepass")) <= HOST_BYTES_MAX:
        return f"a host is 1..{HOST_BYTES_MAX} bytes, got {host!r}"
    if any("\ud800" <= char <= "\udfff" for char in host):
        return f"a host is text, got {host!r}"
    return None


def is_literal(address: Address) -> bool:
    """Return whether an address needs no look-up; nothing else is dialled on another's word."""
    return _is_literal(address.host)


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return host.isprintable()  # an IPv6 zone ("fe80::1%...") may be any text


# --- Blocks -------------------------------------------------------------------------------------


def pasted(text: str) -> str:
    """Return a name without what came with it when it was copied: blanks, and quotes around it.

    A path behind it is exact: names of files may begin and end with blanks.
    """
    bare = text.strip()
    if len(bare) > 1 and bare[0] + bare[-1] in _QUOTES:
        text = bare[1:-1]
    name, separator, rest = text.partition("://")
    has_path = "/" in (name + rest if separator else text)
    return text.lstrip() if has_path else text.strip()


def block_key(data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> ItemKey:
    """Return the key of a block's bytes under the given hash."""
    if kind is Kind.BLOCK_BLAKE3_256:
        return ItemKey(kind, Id(blake3(data).digest()))
    if kind is Kind.BLOCK_SHA2_256:
        return ItemKey(kind, Id(sha256(data).digest()))
    raise MisuseError(f"expected a hash of blocks (BLAKE3-256 or SHA2-256), got {kind.name}")


def make_block(data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> Block:
    """Return the block of some bytes.

    Raises:
        MisuseError: more than 65,536 bytes, or a kind that is no hash of blocks.
    """
    if len(data) > BLOCK_BYTES_MAX:
        raise MisuseError(f"a block holds at most {BLOCK_BYTES_MAX:,} bytes, got {len(data):,}")
    if kind not in (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256):
        raise MisuseError(f"expected a hash of blocks (BLAKE3-256 or SHA2-256), got {kind.name}")
    return Block(kind, data)


# --- Records ------------------------------------------------------------------------------------


def record_key(public_key: bytes, salt: bytes = b"") -> ItemKey:
    """Return the key of a record: BLAKE3-256(public key || salt)."""
    return ItemKey(Kind.RECORD, id_of(public_key + salt))


def signed_string(seq: int, value: bytes, salt: bytes = b"") -> bytes:
    """Return the exact bytes that a record's signature covers (BEP 44, "Mutable items")."""
    head = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return head + b"3:seqi%de1:v%d:%b" % (seq, len(value), value)


def make_record(key: SigningKey, seq: int, value: bytes, salt: bytes = b"") -> Record:
    """Return a signed record.

    Raises:
        MisuseError: `seq` not in 0..2**63-1, value over 60,000 bytes or salt over 64 bytes.
    """
    if problem := _record_problem(seq, value, salt):
        raise MisuseError(problem)
    signature = key.sign(signed_string(seq, value, salt)).signature
    return Record(bytes(key.verify_key), seq, value, signature, salt)


def _record_problem(seq: int, value: bytes, salt: bytes) -> str | None:
    if not 0 <= seq <= SEQUENCE_MAX:
        return f"a sequence number is in 0..2**63-1, got {seq}"
    if len(value) > VALUE_BYTES_MAX:
        return f"a record's value holds at most {VALUE_BYTES_MAX:,} bytes, got {len(value):,}"
    if len(salt) > SALT_BYTES_MAX:
        return f"a salt holds at most {SALT_BYTES_MAX} bytes, got {len(salt)}"
    return None


# --- Connection items ---------------------------------------------------------------------------


def connection_key(node: Id) -> ItemKey:
    """Return the key under which a node's connection item stands: the node id itself."""
    return ItemKey(Kind.CONNECTION, node)


def connection_string(seq: int, addresses: Sequence[Address]) -> bytes:
    """Return the bytes that a connection item's signature covers.

    A domain string, the sequence number (8 bytes), the number of addresses (1 byte), then for each
    address the length of its host (1 byte), the host in UTF-8 and the port (2 bytes); big-endian.
    """
    parts = [CONNECTION_ITEM_DOMAIN, seq.to_bytes(8, "big"), bytes([len(addresses)])]
    for address in addresses:
        host = address.host.encode()
        parts += [bytes([len(host)]), host, address.port.to_bytes(2, "big")]
    return b"".join(parts)


def make_connection_item(key: SigningKey, seq: int, addresses: Sequence[Address]) -> ConnectionItem:
    """Return a node's signed statement of where it is.

    Raises:
        MisuseError: `seq` out of bounds, more than 16 addresses, or a host that is too long.
    """
    if problem := _connection_problem(seq, addresses):
        raise MisuseError(problem)
    signature = key.sign(connection_string(seq, addresses)).signature
    return ConnectionItem(bytes(key.verify_key), seq, tuple(addresses), signature)


def _connection_problem(seq: int, addresses: Sequence[Address]) -> str | None:
    if not 0 <= seq <= SEQUENCE_MAX:
        return f"a sequence number is in 0..2**63-1, got {seq}"
    if len(addresses) > ADDRESSES_MAX:
        return f"a connection item lists at most {ADDRESSES_MAX} addresses, got {len(addresses)}"
    problems = (_address_problem(address.host, address.port) for address in addresses)
    return next(filter(None, problems), None)


# --- All kinds ----------------------------------------------------------------------------------


def key_of(item: Item) -> ItemKey:
    """Return the key of an item (for a block this hashes it). Nothing is verified."""
    match item:
        case Block():
            return block_key(item.data, item.hash)
        case Record():
            return record_key(item.public_key, item.salt)
        case ConnectionItem():
            return connection_key(id_of(item.public_key))
        case _ as never:
            assert_never(never)


def check(item: Item) -> ItemKey:
    """Return the key that an item proves to belong to.

    Raises:
        ItemError: it is out of bounds or its signature is not its owner's.
    """
    match item:
        case Block():
            if item.hash not in (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256):
                raise ItemError(f"expected a hash of blocks, got {item.hash.name}")
            if len(item.data) > BLOCK_BYTES_MAX:
                raise ItemError(f"a block holds at most {BLOCK_BYTES_MAX:,} bytes")
        case Record():
            if problem := _record_problem(item.seq, item.value, item.salt):
                raise ItemError(problem)
            message = signed_string(item.seq, item.value, item.salt)
            _verify(item.public_key, message, item.signature)
        case ConnectionItem():
            if problem := _connection_problem(item.seq, item.addresses):
                raise ItemError(problem)
            message = connection_string(item.seq, item.addresses)
            _verify_again(item.public_key, message, item.signature)
        case _ as never:
            assert_never(never)
    return key_of(item)


def check_is(item: Item, key: ItemKey) -> None:
    """Hold an item against the key it was asked for by.

    Raises:
        ItemError: it does not prove itself, or it is another item than the one asked for.
    """
    found = check(item)
    if found != key:
        raise ItemError(
            f"asked for {key.kind.name} {key.id.hex()}, got {found.kind.name} {found.id.hex()}"
        )


def _verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError) as error:
        raise ItemError(f"the signature is not that of key {public_key.hex()}") from error


_verify_again = lru_cache(maxsize=SIGNATURES_REMEMBERED)(_verify)
"""For what is small and comes again and again, from each of its holders."""


def version(item: Item) -> tuple[int, bytes]:
    """Return what orders two items of one key: the greater one is the newer.

    Records compare by sequence number, then by value as bytes, so that all holders end with the
    same record; connection items likewise by the bytes they sign. All blocks of one key are equal.
    """
    match item:
        case Block():
            return (0, b"")
        case Record():
            return (item.seq, item.value)
        case ConnectionItem():
            return (item.seq, connection_string(item.seq, item.addresses))
        case _ as never:
            assert_never(never)


def size_of(item: Item) -> int:
    """Return how many bytes an item weighs against a quota: content and what naming it costs."""
    match item:
        case Block():
            return ITEM_OVERHEAD_BYTES + len(item.data)
        case Record():
            fixed = PUBLIC_KEY_BYTES + SIGNATURE_BYTES + 8
            return ITEM_OVERHEAD_BYTES + fixed + len(item.value) + len(item.salt)
        case ConnectionItem():
            fixed = PUBLIC_KEY_BYTES + SIGNATURE_BYTES
            signed = len(connection_string(item.seq, item.addresses))
            return ITEM_OVERHEAD_BYTES + fixed + signed
        case _ as never:
            assert_never(never)
