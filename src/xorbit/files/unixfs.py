"""A file as a tree of blocks: raw leaves of 64 KiB under UnixFS nodes of at most 1,024 children.

Pure; only bytes and names, no disk and no network. The layout is the balanced one: every leaf is
equally deep, a file of one leaf is that leaf itself. These numbers are part of the format: with any
other a file would get another name.

Spec: https://specs.ipfs.tech/unixfs/. Files are built so that `ipfs-unixfs-importer` with the same
settings gives the same names.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from xorbit.errors import FormatError
from xorbit.files.cid import Cid, Codec
from xorbit.files.dag_pb import Link, Node, decode_node, encode_node
from xorbit.files.names import shown
from xorbit.files.sealed import Making, content_bytes_max, make_block
from xorbit.files.unixfs_data import Type, UnixFsData, decode_data, encode_data
from xorbit.items import BLOCK_BYTES_MAX, Kind

CHUNK_BYTES = 65_536
CHILDREN_MAX = 1_024
DEPTH_MAX = 8
"""Nodes on the way from the root to a leaf. Four hold 2**56 bytes; a longer way is an attack."""


class Child(Struct, frozen=True):
    """A part of a file: its name and how many bytes of the file it holds, as its parent says."""

    cid: Cid
    size: int


class FileNode(Struct, frozen=True):
    """An inner node of a file: its parts in order, and how many bytes they are together."""

    children: tuple[Child, ...]
    size: int


class _Subtree(Struct, frozen=True):
    cid: Cid
    size: int
    dag_size: int


# --- Building -----------------------------------------------------------------------------------


def build_file(
    pieces: Iterable[bytes],
    kind: Making = Kind.BLOCK_BLAKE3_256,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    children_max: int = CHILDREN_MAX,
) -> Iterator[tuple[Cid, bytes]]:
    """Yield the blocks of a file with their names, children before parents and the root last.

    The pieces may be cut anywhere. Memory holds one chunk and at most `children_max` links for each
    level of the tree. `chunk_bytes` and `children_max` are there for tests: they change names.

    Raises:
        MisuseError: `kind` is no hash of blocks.
    """
    tree = _Tree(kind, children_max)
    for chunk in _cut(pieces, min(chunk_bytes, content_bytes_max(kind))):
        cid, block = make_block(chunk, Codec.RAW, kind)
        yield cid, block
        yield from tree.add(_Subtree(cid, len(chunk), len(chunk)))
    yield from tree.finish()


def _cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    rest = bytearray()
    is_empty = True
    for piece in pieces:
        rest += piece
        while len(rest) >= size:
            yield bytes(rest[:size])
            del rest[:size]
            is_empty = False
    if rest or is_empty:
        yield bytes(rest)


class _Tree:
    """What is not yet under a parent, by level, leaves first."""

    def __init__(self, kind: Making, children_max: int) -> None:
        self._kind = kind
        self._children_max = children_max
        self._levels: list[list[_Subtree]] = [[]]

    def add(self, leaf: _Subtree) -> Iterator[tuple[Cid, bytes]]:
        self._levels[0].append(leaf)
        level = 0
        while len(self._levels[level]) == self._children_max:
            yield self._join(level)
            level += 1

    def finish(self) -> Iterator[tuple[Cid, bytes]]:
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            if self._levels[level]:
                yield self._join(level)
            level += 1

    def _join(self, level: int) -> tuple[Cid, bytes]:
        children = self._levels[level]
        data = _encode_file_node(children)
        cid, block = make_block(data, Codec.DAG_PB, self._kind)
        size = sum(child.size for child in children)
        dag_size = len(data) + sum(child.dag_size for child in children)
        if level + 1 == len(self._levels):
            self._levels.append([])
        self._levels[level + 1].append(_Subtree(cid, size, dag_size))
        self._levels[level] = []
        return cid, block


def _encode_file_node(children: Sequence[_Subtree]) -> bytes:
    sizes = tuple(child.size for child in children)
    data = encode_data(UnixFsData(Type.FILE, size=sum(sizes), sizes=sizes))
    links = tuple(Link(child.cid, "", child.dag_size) for child in children)
    return encode_node(Node(links, data))


# --- Reading ------------------------------------------------------------------------------------


def parse_file_node(data: bytes) -> FileNode:
    """Return the parts of a file that an inner node lists.

    What it says is consistent in itself: sizes are positive and add up, and a raw child is no
    larger than a block. That each child is as large as said is for the reader to check.

    Raises:
        FormatError: not the canonical encoding of a UnixFS file node, or not consistent.
    """
    if len(data) > BLOCK_BYTES_MAX:
        raise FormatError(f"a node has at most {BLOCK_BYTES_MAX:,} bytes, got {len(data):,}")
    node = decode_node(data)
    return file_node(node.links, decode_data(node.data))


def file_node(links: Sequence[Link], data: UnixFsData) -> FileNode:
    """Return the parts of a file from what its node links to and says, as `parse_file_node` does.

    Raises:
        FormatError: as there.
    """
    size, sizes = _checked_sizes(data)
    if len(links) != len(sizes):
        raise FormatError(f"{len(links)} links but {len(sizes)} sizes of children")
    if not 1 <= len(sizes) <= CHILDREN_MAX:
        raise FormatError(f"a file node has 1 to {CHILDREN_MAX:,} children, got {len(sizes):,}")
    if sum(sizes) != size:
        raise FormatError(f"a file of {size} bytes whose parts are {sum(sizes)} bytes together")
    children = tuple(map(_parse_child, links, sizes))
    return FileNode(children, size)


def _checked_sizes(data: UnixFsData) -> tuple[int, tuple[int, ...]]:
    if data.type is not Type.FILE:
        raise FormatError(f"expected UnixFS type 2 (file), got {data.type} ({data.type.words})")
    if data.data is not None:
        raise FormatError("a file node holds bytes itself; only raw leaves may")
    if data.hash_type is not None or data.fanout is not None:
        raise FormatError("a file node has the hashType or fanout of a directory")
    if data.size is None:
        raise FormatError("a file node does not say its filesize")
    return data.size, data.sizes


def _parse_child(link: Link, size: int) -> Child:
    if link.name:
        raise FormatError(
            f"a part of a file has the name {shown(link.name)}; only directories have names"
        )
    # Without a part of zero bytes every block that is fetched brings the file forward.
    if size == 0:
        raise FormatError(f"a part of a file is empty: {link.cid}")
    if link.cid.codec is Codec.RAW and size > BLOCK_BYTES_MAX:
        raise FormatError(f"a leaf has at most {BLOCK_BYTES_MAX:,} bytes, got {size:,}: {link.cid}")
    return Child(link.cid, size)
