"""What stands at a place of a tree, and in a directory, in the words that people are shown.

Pure: generators as those of tree.py, which these stand on.
"""

from collections.abc import Generator
from typing import Literal, assert_never

from msgspec import Struct

from xorbit.config import AHEAD_BLOCKS_MAX, TREE_ENTRIES_HELD_MAX
from xorbit.errors import FormatError
from xorbit.files.cid import Cid, Codec
from xorbit.files.directory import Directory, DirectoryEntry, SymbolicLink
from xorbit.files.hamt import Shard
from xorbit.files.tree import Found, Steps, Want, list_directory, open_block
from xorbit.files.unixfs import FileNode

EntryKind = Literal["file", "directory", "symlink"]


class EntryInfo(Struct, frozen=True):
    """What is at a place in a tree."""

    name: str
    """In its directory; of a root, its CID."""
    cid: Cid
    kind: EntryKind
    size: int
    """In bytes. Of a file what it holds; of a directory what all its blocks weigh together, its own
    and those below, as who made it says: more than its files hold, and what is in it twice counts
    twice. Of a symbolic link the length of its target."""
    entries: int | None = None
    """How many entries a directory has, where they were counted (`stat`)."""
    target: str = ""
    """Of a symbolic link."""

    @property
    def is_directory(self) -> bool:
        """Whether it has entries."""
        return self.kind == "directory"


def list_entries(found: Found) -> Steps[EntryInfo, None]:
    """Yield what is in a directory, in the order in which its nodes have it.

    Of each entry that is no raw block the root is asked for. Of raw ones the size is as the
    directory says.

    Raises:
        NotFoundError: it is no directory.
        FormatError: a block is not what it must be; names the block.
    """
    pages = list_directory(found)
    page = next(pages, None)
    while page is not None:
        if isinstance(page, Want):
            page = pages.send((yield page))
            continue
        for at, entry in enumerate(page):
            following = page[at + 1 : at + 1 + AHEAD_BLOCKS_MAX]
            ahead = tuple(other.cid for other in following if other.cid.codec is not Codec.RAW)
            yield _described(entry, (yield from open_block(entry.cid, ahead)))
        page = next(pages, None)


def _described(entry: DirectoryEntry, found: Found) -> EntryInfo:
    match found.node:
        case None:
            return EntryInfo(entry.name, entry.cid, "file", entry.dag_size)
        case FileNode(size=size):
            return EntryInfo(entry.name, entry.cid, "file", size)
        case SymbolicLink(target):
            size = len(target.encode())
            return EntryInfo(entry.name, entry.cid, "symlink", size, target=target)
        case Directory() | Shard():
            return EntryInfo(entry.name, entry.cid, "directory", entry.dag_size)
        case _ as never:
            assert_never(never)


def describe(found: Found, name: str) -> Generator[Want, bytes, EntryInfo]:
    """Return what is at a place; of a directory all nodes are asked for, to count its entries.

    Raises:
        FormatError: a block is not what it must be, or a directory without bounds; names the block.
    """
    if found.node is None:
        size = len((yield Want(found.cid)))
        return EntryInfo(name, found.cid, "file", size)
    if not found.is_directory:
        return _described(DirectoryEntry(name, found.cid, 0), found)
    count, size = 0, found.block_bytes
    pages = list_directory(found)
    page = next(pages, None)
    while page is not None:
        if isinstance(page, Want):
            shard = yield page
            size += len(shard)
            page = pages.send(shard)
            continue
        count += len(page)
        size += sum(entry.dag_size for entry in page)
        page = next(pages, None)
    return EntryInfo(name, found.cid, "directory", size, entries=count)


class Listing:
    """Collects entries and sorts them; there is a bound to how many."""

    def __init__(self, root: Cid, most: int = TREE_ENTRIES_HELD_MAX) -> None:
        """Collect those of the directory `root`."""
        self._root = root
        self._most = most
        self._found: list[EntryInfo] = []

    def add(self, entry: EntryInfo) -> None:
        """Take an entry.

        Raises:
            FormatError: there are too many.
        """
        if len(self._found) >= self._most:
            raise FormatError(f"directory {self._root} has more than {self._most:,} entries")
        self._found.append(entry)

    def entries(self) -> tuple[EntryInfo, ...]:
        """Return them in the order of their names' bytes."""
        return tuple(sorted(self._found, key=lambda entry: entry.name.encode()))
