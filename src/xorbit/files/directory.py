"""Directories as blocks: one node of sorted links, or a trie of shards where it would be too large.

Pure; made from names and CIDs, no disk and no network. Symbolic links, which have no other place
than in a directory, are here too.

Spec: https://specs.ipfs.tech/unixfs/ (directories, symbolic links). When a directory is sharded is
part of its name: above 32,768 by the estimate "names and CIDs, in bytes, of all links" that the
spec calls links-bytes. `ipfs-unixfs-importer` does the same but counts no subdirectories, so that
one of thousands of subdirectories makes a block of any size there; all are counted here, as in Go.
By this estimate a directory of one node has at most 885 entries and fits a block.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from xorbit.config import TREE_ENTRIES_HELD_MAX
from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import CID_BYTES, Cid, Codec
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.hamt import HASH_BYTES, build_shards, hash_name, pack_entry, unpack_entry
from xorbit.files.names import check_name, name_problem, shown
from xorbit.files.sealed import Making, content_bytes_max, make_block
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data
from xorbit.items import Kind

SPLIT_ESTIMATE_BYTES = 32_768
"""The largest estimate of a directory of one node."""


class DirectoryEntry(Struct, frozen=True, gc=False):
    """What a directory names: `dag_size` is what all blocks below it weigh, as its maker says."""

    name: str
    cid: Cid
    dag_size: int


class Directory(Struct, frozen=True):
    """A directory of one node: its entries in the order of their names' bytes, each name once."""

    entries: tuple[DirectoryEntry, ...]


class SymbolicLink(Struct, frozen=True):
    """A symbolic link; its target is as its maker wrote it, and proves nothing."""

    target: str


# --- Building -----------------------------------------------------------------------------------


def check_new_name(name: str) -> None:
    """Hold a name that is to go into a directory against what may stand in one.

    Raises:
        MisuseError: it means another folder, or is not UTF-8.
    """
    if problem := name_problem(name):
        raise MisuseError(f"expected a name for a directory, got {shown(name)}: {problem}")
    hash_name(name)  # which says what to do about a name that has no UTF-8


class Held:
    """How many entries are in memory, over all directories that are being built."""

    def __init__(self, most: int = TREE_ENTRIES_HELD_MAX) -> None:
        self._most = most
        self._count = 0

    def take(self) -> None:
        """Count one entry more.

        Raises:
            MisuseError: that is more than memory has room for.
        """
        self._count += 1
        if self._count > self._most:
            raise MisuseError(
                f"a directory with those around it has more than {self._most:,} entries; "
                "put files into subdirectories"
            )

    def release(self, count: int) -> None:
        """Let go of some."""
        self._count -= count


class DirectoryBuilder:
    """Takes the entries of one directory in any order, then makes its blocks.

    Memory holds about 100 bytes and the name for each entry.
    """

    def __init__(self, kind: Making = Kind.BLOCK_BLAKE3_256, held: Held | None = None) -> None:
        self._kind = kind
        self._held = held or Held()
        self._entries: list[bytes] = []
        self._estimate = 0

    def add(self, name: str, cid: Cid, dag_size: int) -> None:
        """Add an entry; `dag_size` is the bytes of all blocks below it, itself included.

        Raises:
            MisuseError: no name that may stand in a directory, or too many entries.
        """
        check_new_name(name)
        self._held.take()
        self._entries.append(pack_entry(name, cid, dag_size))
        self._estimate += len(name.encode()) + CID_BYTES

    def finish(self) -> Iterator[tuple[Cid, bytes]]:
        """Yield the blocks of the directory with their names, the root last.

        Raises:
            MisuseError: a name was added twice, or the names are too long for blocks.
        """
        entries = self._entries
        entries.sort()
        _check_unique(entries)
        if self._estimate <= SPLIT_ESTIMATE_BYTES:
            node = Node(tuple(map(unpack_entry, entries)), encode_data(UnixFsData(Type.DIRECTORY)))
            data = encode_node(node)
            yield make_block(data, Codec.DAG_PB, self._kind)
        else:
            yield from build_shards(entries, self._kind)
        self._held.release(len(entries))


def _check_unique(entries: Sequence[bytes]) -> None:
    for first, second in pairwise(entries):
        if first[:HASH_BYTES] == second[:HASH_BYTES]:
            name = unpack_entry(first).name
            if name == unpack_entry(second).name:
                raise MisuseError(f"the name {shown(name or '')} is in one directory twice")


def build_symbolic_link(target: str, kind: Making = Kind.BLOCK_BLAKE3_256) -> tuple[Cid, bytes]:
    """Return the block of a symbolic link and its name.

    Raises:
        MisuseError: the target is not UTF-8, or larger than a block.
    """
    try:
        unixfs = UnixFsData(Type.SYMBOLIC_LINK, target.encode())
    except UnicodeEncodeError:
        raise MisuseError(f"a symbolic link to {shown(target)}: that is not UTF-8") from None
    data = encode_node(Node((), encode_data(unixfs)))
    if len(data) > content_bytes_max(kind):
        raise MisuseError(f"a symbolic link to {shown(target)} is larger than a block")
    return make_block(data, Codec.DAG_PB, kind)


# --- Reading ------------------------------------------------------------------------------------


def directory(links: Sequence[Link], data: UnixFsData) -> Directory:
    """Return the entries of a directory from what its node links to and says.

    Raises:
        FormatError: a name that comes twice or that may not be one, or data that belongs elsewhere.
    """
    if data != UnixFsData(Type.DIRECTORY):
        raise FormatError("a directory has data of a file or of a shard")
    entries = tuple(
        DirectoryEntry(check_name(link.name), link.cid, link.tsize or 0) for link in links
    )
    for first, second in pairwise(entries):
        if first.name == second.name:
            raise FormatError(f"a directory has the name {shown(first.name)} twice")
    return Directory(entries)


def symbolic_link(links: Sequence[Link], data: UnixFsData) -> SymbolicLink:
    """Return a symbolic link from what its node says.

    Raises:
        FormatError: it has links or no target, data that belongs elsewhere, or is not UTF-8.
    """
    target = data.data
    if links or not target:
        raise FormatError("a symbolic link has links to blocks, or no target")
    if data not in (
        UnixFsData(Type.SYMBOLIC_LINK, target),
        UnixFsData(Type.SYMBOLIC_LINK, target, len(target)),  # as some tools write it
    ):
        raise FormatError("a symbolic link has data of a file or of a shard")
    try:
        return SymbolicLink(target.decode())
    except UnicodeDecodeError:
        raise FormatError("the target of a symbolic link is not UTF-8") from None
