"""Trees of blocks as they are read: find a path, list a directory, go through all of it.

Pure, and of no one kind of caller: each of these is a generator that yields a `Want` where it needs
a block, is sent the bytes of that block, and yields what it has found in between. `drive` answers
them from a function; an asyncio program does the same with an await. What is sent must be proved by
its hash (whoever fetches blocks does); what it says is a stranger's, and held against its parent.

Going through a tree takes memory for the nodes on the way from the root to where it is: at most 128
directories deep, 64 KiB each and what is made of them.
"""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from msgspec import Struct

from xorbit.config import AHEAD_BLOCKS_MAX, TREE_BLOCKS_DEPTH_MAX, TREE_DEPTH_MAX
from xorbit.errors import FormatError, MisuseError, NotFoundError
from xorbit.files.cid import Cid, Codec
from xorbit.files.directory import Directory, DirectoryEntry, SymbolicLink
from xorbit.files.hamt import Shard, check_place, slot_for
from xorbit.files.names import shown
from xorbit.files.nodes import TreeNode, naming, parse_node
from xorbit.files.seal_key import SealKey
from xorbit.files.unixfs import DEPTH_MAX, Child, FileNode, parse_file_node
from xorbit.files.visits import SeenBlocks, Visits

T = TypeVar("T")
R = TypeVar("R")


class Want(Struct, frozen=True):
    """The next block that is needed, and some of those that will be needed after it, in order."""

    cid: Cid
    ahead: tuple[Cid, ...] = ()


class Found(Struct, frozen=True):
    """What is at a place in a tree. `node` is None for a raw block: a file of one leaf."""

    cid: Cid
    node: TreeNode | None
    seal: SealKey | None = None
    """Of private content, for those who are to read on: what opens the blocks below."""
    block_bytes: int = 0
    """The size of its topmost block; of a raw one, which is not asked for, 0."""

    @property
    def is_directory(self) -> bool:
        """Whether it has entries, in one node or in shards."""
        return isinstance(self.node, (Directory, Shard))


def is_file(found: Found) -> bool:
    """Return whether it is a file, of one leaf or of several."""
    return found.node is None or isinstance(found.node, FileNode)


class Entry(Struct, frozen=True):
    """A place in a tree, as a walk comes by it; the root has no names in its path."""

    path: tuple[str, ...]
    found: Found


Steps = Generator[Want | T, bytes, R]
"""Yields wants and results; is sent the block after a want, anything after a result."""


def drive(steps: Steps[T, R], get: Callable[[Cid], bytes]) -> Generator[T, None, R]:
    """Answer every `Want` of a generator of this room; yield its results and return its end."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Want):
                step = steps.send(get(step.cid))
            else:
                yield step
                step = next(steps)
    except StopIteration as end:
        return end.value


def finish(steps: Generator[Want, bytes, R], get: Callable[[Cid], bytes]) -> R:
    """Answer every `Want` of a generator that yields nothing else; return its end."""
    try:
        want = next(steps)
        while True:
            want = steps.send(get(want.cid))
    except StopIteration as end:
        return end.value


# --- One place ----------------------------------------------------------------------------------


def open_block(cid: Cid, ahead: tuple[Cid, ...] = ()) -> Generator[Want, bytes, Found]:
    """Return what a name names; a raw block is not asked for.

    Raises:
        FormatError: the block is no node of a tree; names the block.
    """
    if cid.codec is Codec.RAW:
        return Found(cid, None)
    data = yield Want(cid, ahead)
    with naming(cid):
        return Found(cid, parse_node(data), block_bytes=len(data))


def resolve(root: Cid, path: Sequence[str]) -> Generator[Want, bytes, Found]:
    """Return what is at a path below a root; asks for the nodes on the way only.

    Raises:
        NotFoundError: nothing is there, or on the way is what has no entries.
        MisuseError: more names than directories may be inside one another.
        FormatError: a block on the way is not what it must be; names the block.
    """
    if len(path) > TREE_DEPTH_MAX:
        raise MisuseError(f"expected a path of at most {TREE_DEPTH_MAX} names, got {len(path)}")
    found = yield from open_block(root)
    for at, name in enumerate(path):
        child = yield from _look_up(found, name)
        if child is None:
            where = "/".join((str(root), *path[:at]))
            raise NotFoundError(f"{where} {_what(found)} {shown(name)}")
        found = yield from open_block(child)
    return found


def _what(found: Found) -> str:
    match found.node:
        case Directory() | Shard():
            return "has no entry"
        case SymbolicLink(target):
            return f"is a symbolic link to {shown(target)}, which is not followed to"
        case FileNode() | None:
            return "is a file and has no entry"


def _look_up(found: Found, name: str) -> Generator[Want, bytes, Cid | None]:
    match found.node:
        case Directory(entries):
            return next((entry.cid for entry in entries if entry.name == name), None)
        case Shard():
            return (yield from _look_up_sharded(found.cid, found.node, name))
        case _:
            return None


def _look_up_sharded(cid: Cid, shard: Shard, name: str) -> Generator[Want, bytes, Cid | None]:
    prefix = b""
    while True:
        with naming(cid):
            check_place(shard, prefix)
        slot = slot_for(shard, name, len(prefix))
        if slot is None or slot.name is not None:
            return None if slot is None else slot.cid
        prefix += bytes((slot.index,))
        cid = slot.cid
        shard = yield from _open_shard(cid)


def _open_shard(cid: Cid, ahead: tuple[Cid, ...] = ()) -> Generator[Want, bytes, Shard]:
    found = yield from open_block(cid, ahead)
    if not isinstance(found.node, Shard):
        raise FormatError(f"block {cid}: expected a shard of a directory, got something else")
    return found.node


# --- Directories --------------------------------------------------------------------------------

Page = tuple[DirectoryEntry, ...]


def list_directory(found: Found) -> Steps[Page, None]:
    """Yield the entries of a directory, those of a node together, each name once.

    In one node they are in the order of their names. In shards they come as the trie has them, and
    a page may be empty.

    Raises:
        NotFoundError: it is no directory.
        FormatError: a shard is not what it must be; names the block.
    """
    match found.node:
        case Directory(entries):
            yield entries
        case Shard():
            yield from _list_shard(found.cid, found.node, b"")
        case _:
            raise NotFoundError(f"{found.cid} is no directory and has no entries")


def _list_shard(cid: Cid, shard: Shard, prefix: bytes) -> Steps[Page, None]:
    # Eight levels at most: check_place sees to that.
    with naming(cid):
        check_place(shard, prefix)
    yield tuple(
        DirectoryEntry(slot.name, slot.cid, slot.dag_size)
        for slot in shard.slots
        if slot.name is not None
    )
    further = [slot for slot in shard.slots if slot.name is None]
    for at, slot in enumerate(further):
        ahead = tuple(other.cid for other in further[at + 1 : at + 1 + AHEAD_BLOCKS_MAX])
        below = yield from _open_shard(slot.cid, ahead)
        yield from _list_shard(slot.cid, below, prefix + bytes((slot.index,)))


# --- All of a tree ------------------------------------------------------------------------------


def walk(root: Found, visits: Visits | None = None) -> Steps[Entry, None]:
    """Yield everything in a tree, directories before what is in them, the root first.

    Of each file the root is asked for, unless it is raw, and no more. Symbolic links are not
    followed.

    Raises:
        FormatError: a block is not what it must be, directories are too deep inside one another, or
            the same ones come too often (`Visits`); names the block.
    """
    visits = visits or Visits()
    yield Entry((), root)
    levels = [_Level((), root, visits)] if root.is_directory else []
    while levels:
        entry = yield from levels[-1].next()
        if entry is None:
            levels.pop()
            continue
        yield entry
        if entry.found.is_directory:
            if len(levels) >= TREE_DEPTH_MAX:
                raise FormatError(
                    f"block {entry.found.cid}: deeper than {TREE_DEPTH_MAX} directories"
                )
            levels.append(_Level(entry.path, entry.found, visits))


class _Level:
    """A directory that a walk is in."""

    def __init__(self, path: tuple[str, ...], found: Found, visits: Visits) -> None:
        self._path = path
        self._cid = found.cid
        self._visits = visits
        self._is_repeated = visits.is_repeated(found.cid)
        self._pages = list_directory(found)
        self._page: Page = ()
        self._at = 0

    def next(self) -> Generator[Want, bytes, Entry | None]:
        while self._at >= len(self._page):
            page = yield from self._next_page()
            if page is None:
                return None
            self._page, self._at = page, 0
        named = self._page[self._at]
        self._at += 1
        self._visits.count(self._cid, is_repeated=self._is_repeated)
        found = yield from open_block(named.cid, self._ahead())
        return Entry((*self._path, named.name), found)

    def _next_page(self) -> Generator[Want, bytes, Page | None]:
        step = next(self._pages, None)
        while isinstance(step, Want):
            step = self._pages.send((yield step))  # after a block there is always a page
        return step

    def _ahead(self) -> tuple[Cid, ...]:
        following = self._page[self._at : self._at + AHEAD_BLOCKS_MAX]
        return tuple(entry.cid for entry in following if entry.cid.codec is not Codec.RAW)


def read_file(found: Found) -> Steps[bytes, None]:
    """Yield the bytes of a file, leaf by leaf, each held against the size that its parent says.

    Raises:
        NotFoundError: it is no file.
        FormatError: a block is no part of a file, or not what its parent says; names the block.
    """
    match found.node:
        case None:
            yield (yield Want(found.cid))
        case FileNode(children):
            yield from _read_parts(children, 1)
        case _:
            raise NotFoundError(f"{found.cid} is no file")


def _read_parts(children: tuple[Child, ...], depth: int) -> Steps[bytes, None]:
    for at, child in enumerate(children):
        ahead = children[at + 1 : at + 1 + AHEAD_BLOCKS_MAX]
        data = yield Want(child.cid, tuple(other.cid for other in ahead))
        if child.cid.codec is Codec.RAW:
            _check_size(child, len(data))
            yield data
        else:
            node = _inner_node(child, data, depth + 1)
            yield from _read_parts(node.children, depth + 1)


def _inner_node(child: Child, data: bytes, depth: int) -> FileNode:
    with naming(child.cid):
        if depth > DEPTH_MAX:
            raise FormatError(f"deeper than {DEPTH_MAX} levels of a file")
        node = parse_file_node(data)
    _check_size(child, node.size)
    return node


def _check_size(child: Child, size: int) -> None:
    if size != child.size:
        raise FormatError(f"block {child.cid}: its parent says {child.size} bytes, it holds {size}")


def all_blocks(root: Cid, seen: SeenBlocks | None = None) -> Generator[Want, bytes, None]:
    """Want every block of a tree of any kind, parents before children, each node once.

    A leaf that comes again is wanted once too, unless very many others came in between.

    Raises:
        FormatError: a block is no node of a tree, or there are too many, or too deep; names the
            block.
    """
    seen = seen or SeenBlocks()
    levels = [_Row((root,))]
    while levels:
        cid = levels[-1].next()
        if cid is None:
            levels.pop()
        elif seen.add(cid):
            data = yield Want(cid, levels[-1].ahead())
            if cid.codec is not Codec.RAW:
                if len(levels) > TREE_BLOCKS_DEPTH_MAX:
                    raise FormatError(f"block {cid}: deeper than {TREE_BLOCKS_DEPTH_MAX} blocks")
                levels.append(_Row(children(cid, data)))


class _Row:
    """The children of one node, one after the other."""

    def __init__(self, cids: tuple[Cid, ...]) -> None:
        self._cids = cids
        self._at = 0

    def next(self) -> Cid | None:
        self._at += 1
        return self._cids[self._at - 1] if self._at <= len(self._cids) else None

    def ahead(self) -> tuple[Cid, ...]:
        return self._cids[self._at : self._at + AHEAD_BLOCKS_MAX]


def children(cid: Cid, data: bytes) -> tuple[Cid, ...]:
    """Return what a block links to, in order; nothing for a raw one.

    Raises:
        FormatError: it is no node of a tree; names the block.
    """
    if cid.codec is Codec.RAW:
        return ()
    with naming(cid):
        node = parse_node(data)
    match node:
        case FileNode(parts):
            return tuple(part.cid for part in parts)
        case Directory(entries):
            return tuple(entry.cid for entry in entries)
        case Shard(slots):
            return tuple(slot.cid for slot in slots)
        case SymbolicLink():
            return ()
