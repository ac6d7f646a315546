"""Directories that are too large for one block: a trie of shards by the hash of each name (HAMT).

Pure; made from names and CIDs, no disk and no network. Each level of the trie goes by one byte of
the hash, so a shard has up to 256 slots; a slot holds an entry (two hexadecimal digits and its
name) or a further shard (the two digits alone). The bitfield says which slots are taken.

Spec: https://specs.ipfs.tech/unixfs/ (HAMT sharding). The hash is murmur3-x64-64 by `mmh3`, its
bytes from the most significant on, as go-unixfs and hamt-sharding have it.
"""

from collections.abc import Generator, Iterator, Sequence
from itertools import groupby

from mmh3 import hash64
from msgspec import Struct

from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import CID_BYTES, Cid, Codec, decode_cid
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.names import check_name, shown
from xorbit.files.sealed import Making, content_bytes_max, make_block
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data

FANOUT = 256
HASH_BYTES = 8
"""How many levels there are at most; names that agree in so many bytes of hash fit no HAMT."""
MURMUR3_X64_64 = 0x22
PREFIX_CHARACTERS = 2

_HEX = frozenset("0123456789ABCDEF")
_BITFIELD_BYTES_MAX = FANOUT // 8
_SIZE_BYTES = 8
_CID_END = HASH_BYTES + CID_BYTES
_SIZE_END = _CID_END + _SIZE_BYTES


class Slot(Struct, frozen=True, gc=False):
    """A taken slot of a shard: an entry, or where `name` is None a further shard."""

    index: int
    name: str | None
    cid: Cid
    dag_size: int


class Shard(Struct, frozen=True):
    """A node of the trie: its taken slots by index, 0..255."""

    slots: tuple[Slot, ...]


def hash_name(name: str) -> bytes:
    """Return the 8 bytes that place a name in the trie.

    Raises:
        MisuseError: a name with lone surrogates, which has no UTF-8.
    """
    try:
        return hash64(name.encode(), signed=False)[0].to_bytes(HASH_BYTES, "big")
    except UnicodeEncodeError:
        raise MisuseError(f"the name {shown(name)} is not UTF-8; rename it") from None


# --- Building -----------------------------------------------------------------------------------


def pack_entry(name: str, cid: Cid, dag_size: int) -> bytes:
    """Return an entry in the form in which many are kept: it is small, and sorts as the trie does.

    Raises:
        MisuseError: as `hash_name`.
    """
    size = dag_size.to_bytes(_SIZE_BYTES, "big")
    return hash_name(name) + bytes(cid) + size + name.encode()


def unpack_entry(packed: bytes) -> Link:
    """Return the link to a packed entry, under its name."""
    size = int.from_bytes(packed[_CID_END:_SIZE_END], "big")
    return Link(decode_cid(packed[HASH_BYTES:_CID_END]), packed[_SIZE_END:].decode(), size)


def build_shards(entries: Sequence[bytes], kind: Making) -> Iterator[tuple[Cid, bytes]]:
    """Yield the blocks of a sharded directory with their names, the root last.

    Args:
        entries: At least one, packed, sorted, each name once.
        kind: The hash that names the blocks, or what seals them.

    Raises:
        MisuseError: two names have the same hash, or the names of a shard are too long for a block.
    """
    yield from _build(entries, 0, kind)


def _build(
    entries: Sequence[bytes], depth: int, kind: Making
) -> Generator[tuple[Cid, bytes], None, tuple[Cid, int]]:
    links: list[Link] = []
    bits = 0
    for index, group in groupby(entries, lambda entry: entry[depth]):
        links.append((yield from _build_slot(f"{index:02X}", list(group), depth, kind)))
        bits |= 1 << index
    data = encode_node(Node(tuple(links), _shard_data(bits)))
    most = content_bytes_max(kind)
    if len(data) > most:
        raise MisuseError(
            f"the names in a directory are too long: a part of its index has {len(data):,} bytes, "
            f"a block at most {most:,}; shorten names, or put files into subdirectories"
        )
    cid, block = make_block(data, Codec.DAG_PB, kind)
    yield cid, block
    return cid, len(data) + sum(link.tsize or 0 for link in links)


def _build_slot(
    prefix: str, group: Sequence[bytes], depth: int, kind: Making
) -> Generator[tuple[Cid, bytes], None, Link]:
    first = unpack_entry(group[0])
    if len(group) == 1:
        return Link(first.cid, f"{prefix}{first.name}", first.tsize)
    if depth + 1 == HASH_BYTES:
        second = unpack_entry(group[1])
        raise MisuseError(
            f"the names {shown(first.name or '')} and {shown(second.name or '')} have the same "
            "hash and cannot be in one large directory; rename one of them"
        )
    cid, dag_size = yield from _build(group, depth + 1, kind)
    return Link(cid, prefix, dag_size)


def _shard_data(bits: int) -> bytes:
    bitfield = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    kind = Type.SHARDED_DIRECTORY
    return encode_data(UnixFsData(kind, bitfield, hash_type=MURMUR3_X64_64, fanout=FANOUT))


# --- Reading ------------------------------------------------------------------------------------


def shard(links: Sequence[Link], data: UnixFsData) -> Shard:
    """Return the slots of a shard from what its node links to and says.

    That its names belong where it stands is for `check_place` to say.

    Raises:
        FormatError: another fan-out or hash than ours, or links that the bitfield does not say.
    """
    if data.fanout != FANOUT:
        raise FormatError(f"expected a sharded directory of fan-out {FANOUT}, got {data.fanout}")
    if data.hash_type != MURMUR3_X64_64:
        raise FormatError(f"expected names hashed by murmur3-x64-64 (34), got {data.hash_type}")
    if data.size is not None or data.sizes:
        raise FormatError("a sharded directory has the sizes of a file")
    slots = tuple(_slot(link) for link in links)
    if _set_bits(data.data or b"") != [slot.index for slot in slots]:
        raise FormatError("the links of a shard are not those that its bitfield says")
    return Shard(slots)


def _set_bits(bitfield: bytes) -> list[int]:
    if len(bitfield) > _BITFIELD_BYTES_MAX:
        most = _BITFIELD_BYTES_MAX
        raise FormatError(f"a bitfield has at most {most} bytes, got {len(bitfield)}")
    bits = int.from_bytes(bitfield, "big")
    return [index for index in range(FANOUT) if bits >> index & 1]


def _slot(link: Link) -> Slot:
    label = link.name or ""
    prefix, name = label[:PREFIX_CHARACTERS], label[PREFIX_CHARACTERS:]
    if len(prefix) < PREFIX_CHARACTERS or not _HEX.issuperset(prefix):
        raise FormatError(f"a link of a shard begins with 00 to FF, got {shown(label)}")
    if name:
        check_name(name)
    elif link.cid.codec is not Codec.DAG_PB:
        raise FormatError(f"slot {prefix} of a shard is a raw block and has no name")
    return Slot(int(prefix, 16), name or None, link.cid, link.tsize or 0)


def check_place(found: Shard, prefix: bytes) -> None:
    """Hold a shard against its place in the trie: `prefix` is the slots on the way to it.

    So a shard cannot stand in two places, nor a name, and going through a trie ends.

    Raises:
        FormatError: a name whose hash leads elsewhere, an empty shard below the root, or a way that
            is longer than the hash.
    """
    if prefix and not found.slots:
        raise FormatError("a shard is empty")
    for slot in found.slots:
        if slot.name is None:
            if len(prefix) + 1 >= HASH_BYTES:
                raise FormatError(f"shards deeper than {HASH_BYTES} levels")
        elif not hash_name(slot.name).startswith(prefix + bytes((slot.index,))):
            raise FormatError(f"the name {shown(slot.name)} is not where its hash leads")


def slot_for(found: Shard, name: str, depth: int) -> Slot | None:
    """Return the slot of a shard at `depth` that has a name, or leads to it; None for neither."""
    try:
        index = hash_name(name)[depth]
    except MisuseError:
        return None  # a name that has no UTF-8 is in no directory
    for slot in found.slots:
        if slot.index == index:
            return slot if slot.name in (None, name) else None
    return None
