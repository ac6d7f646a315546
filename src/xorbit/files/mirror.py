"""What a mirror does to its folder: which files are as a version names them, which are whose.

Reads and writes the disk; all of it blocks, so it is called on a worker thread. No network and no
asyncio here: what is missing is fetched by run/mirroring.py in between.

What the mirror made is what the versions that it had in place name, as long as it is still as they
name it. Everything else in the folder is its user's and is neither changed nor removed: where a
version wants the place of such a thing, what it has there is left out and told of.
"""

import os
import stat
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal

from msgspec import Struct

from xorbit.config import (
    AHEAD_BLOCKS_MAX,
    MIRROR_ENTRIES_MAX,
    MIRROR_LEAVES_MAX,
    MIRROR_LEAVES_PER_STEP,
    SYNCED_FILES_MAX,
)
from xorbit.errors import FormatError
from xorbit.files.cid import Cid, Codec, cid_of_block, decode_cid
from xorbit.files.directory import Directory, SymbolicLink
from xorbit.files.hamt import Shard
from xorbit.files.held_folder import (
    Look,
    TreePath,
    keep_permissions,
    look_of,
    writing,
)
from xorbit.files.mirror_folder import STATE_FOLDER, MirrorFolder, Nodes, Seen
from xorbit.files.names import check_file_name, check_target, shown
from xorbit.files.nodes import naming
from xorbit.files.tree import Entry, Want
from xorbit.files.unixfs import DEPTH_MAX, Child, FileNode, parse_file_node
from xorbit.files.visits import SeenBlocks
from xorbit.items import BLOCK_BYTES_MAX

_DIGEST_BYTES = 16


class Made(Struct, frozen=True, gc=False):
    """What a version has at a path; `size` is in bytes, of a file of several leaves."""

    cid: Cid
    kind: Literal["file", "directory", "symlink"]
    size: int = 0
    target: str = ""


class Listing:
    """All that a version names but the top, folders before what is in them; names are checked."""

    def __init__(self, most: int = MIRROR_ENTRIES_MAX) -> None:
        """List nothing yet, and never more than so many."""
        self._most = most
        self.made: dict[TreePath, Made] = {}

    def add(self, entry: Entry) -> bool:
        """Take an entry in, unless it stands where the mirror's own folder is; return whether.

        Raises:
            FormatError: a name or a link that may not be written, or too many entries.
        """
        if entry.path[0] == STATE_FOLDER:
            return False
        if len(self.made) >= self._most:
            raise FormatError(f"a tree to mirror has at most {self._most:,} entries")
        try:
            check_file_name(entry.path[-1])
            self.made[entry.path] = _made(entry)
        except FormatError as error:
            where = shown("/".join(entry.path))
            raise FormatError(f"at {where} in the tree: {error}") from error
        return True

    def add_seen(self, seen: Mapping[str, Seen]) -> None:
        """Take in files as they were seen last: what is left of a version without its nodes."""
        for name, file in seen.items():
            path = tuple(name.split("/"))
            with suppress(FormatError):  # the note is damaged
                for part in path:
                    check_file_name(part)
                self.made[path] = Made(decode_cid(file.cid), "file", file.look[2])


def _made(entry: Entry) -> Made:
    cid = entry.found.cid
    match entry.found.node:
        case Directory() | Shard():
            return Made(cid, "directory")
        case SymbolicLink(target):
            return Made(cid, "symlink", target=check_target(target, len(entry.path) - 1))
        case FileNode(size=size):
            return Made(cid, "file", size)
        case None:
            return Made(cid, "file")


def inner_nodes(node: FileNode, seen: SeenBlocks, depth: int = 1) -> Generator[Want, bytes, None]:
    """Want the nodes below one of a file, each once.

    Raises:
        FormatError: one of them is no node of a file; or too deep, or too many.
    """
    inner = [child.cid for child in node.children if child.cid.codec is not Codec.RAW]
    new = [cid for cid in dict.fromkeys(inner) if seen.add(cid)]
    for at, cid in enumerate(new):
        data = yield Want(cid, tuple(new[at + 1 : at + 1 + AHEAD_BLOCKS_MAX]))
        with naming(cid):
            if depth >= DEPTH_MAX:
                raise FormatError(f"deeper than {DEPTH_MAX} levels of a file")
            below = parse_file_node(data)
        yield from inner_nodes(below, seen, depth + 1)


# --- What is on the disk ------------------------------------------------------------------------

Leaf = tuple[Cid, int, int]
"""A leaf of a file, or a node: its name, at which byte it begins, how many bytes it has (-1: all).
"""


def leaves_of(cid: Cid, nodes: Nodes) -> Iterator[Leaf]:
    """Yield the leaves of a file; ends early as `parts_of` does."""
    return (part for part in parts_of(cid, nodes) if part[0].codec is Codec.RAW)


def parts_of(cid: Cid, nodes: Nodes, passed: Container[Cid] = ()) -> Iterator[Leaf]:
    """Yield a file, its inner nodes and its leaves, each node before what is below it.

    Ends early where a node is not here, is none, or not as large as its parent says, or is deeper
    than files are. What is below a node that is in `passed` when it comes is passed over.
    """
    levels = [iter((Child(cid, -1),))]
    at = 0
    while levels:
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            continue
        ends = child.cid.codec is Codec.RAW or child.cid in passed
        yield child.cid, at, child.size
        if ends:
            at += child.size
            continue
        node = _file_node(child.cid, nodes)
        if node is None or child.size not in (-1, node.size) or len(levels) > DEPTH_MAX:
            return
        levels.append(iter(node.children))


def _file_node(cid: Cid, nodes: Nodes) -> FileNode | None:
    data = nodes.read(cid)
    try:
        return None if data is None else parse_file_node(data)
    except FormatError:
        return None


def read_leaf(file: BinaryIO, leaf: Leaf) -> bytes | None:
    """Return a leaf from where it should stand in a file; None where it does not."""
    cid, at, size = leaf
    try:
        data = os.pread(file.fileno(), BLOCK_BYTES_MAX + 1 if size < 0 else size, at)
    except OSError:
        return None
    return data if cid_of_block(data, cid.codec, cid.key.kind) == cid else None


def holds(file: BinaryIO, made: Made, nodes: Nodes) -> Generator[None, None, bool]:
    """Return whether an open file is as a version names it; yields now and then."""
    end = 0
    for count, leaf in enumerate(leaves_of(made.cid, nodes)):
        data = read_leaf(file, leaf)
        if data is None:
            return False
        end = leaf[1] + len(data)
        if count % MIRROR_LEAVES_PER_STEP == 0:
            yield
    whole = made.cid.codec is Codec.RAW or end == made.size
    return whole and os.fstat(file.fileno()).st_size == end


class LocalLeaves:
    """Leaves that are in files of this disk, and where; each is proved when it is read."""

    def __init__(self, most: int = MIRROR_LEAVES_MAX) -> None:
        """Know of none yet, and never look at more than so many, nor at more nodes."""
        self._most = most
        self._looked = 0
        self._files: list[Callable[[], BinaryIO | None]] = []
        self._at: dict[bytes, tuple[int, int, int]] = {}
        self._passed: set[Cid] = set()  # only ever asked whether something is in it
        self._lock = Lock()
        self._open: tuple[int, BinaryIO | None] = (-1, None)

    def add(
        self, opens: Callable[[], BinaryIO | None], cid: Cid, nodes: Nodes
    ) -> Generator[None, None, None]:
        """Note the leaves of a file that `opens` gives open; yields now and then.

        A few nodes may say that they are a file without an end: what is below one of them is looked
        at once, in whatever file, and all that is looked at is counted.
        """
        if self._looked >= self._most:
            return
        self._files.append(opens)
        number = len(self._files) - 1
        for part, at, size in parts_of(cid, nodes, self._passed):
            if self._looked >= self._most:
                return
            self._looked += 1
            if part.codec is Codec.RAW:
                self._at.setdefault(part.key.id[:_DIGEST_BYTES], (number, at, size))
            else:
                self._passed.add(part)
            if self._looked % MIRROR_LEAVES_PER_STEP == 0:
                yield

    def __contains__(self, cid: Cid) -> bool:
        """Whether a file may have it."""
        return cid.key.id[:_DIGEST_BYTES] in self._at

    def read(self, cid: Cid) -> bytes | None:
        """Return a leaf, or None where none of these files has it (any more)."""
        place = self._at.get(cid.key.id[:_DIGEST_BYTES])
        if place is None:
            return None
        number, at, size = place
        with self._lock:
            file = self._file(number)
            return None if file is None else read_leaf(file, (cid, at, size))

    def close(self) -> None:
        """Close what was opened for reading."""
        if self._open[1] is not None:
            self._open[1].close()
        self._open = (-1, None)

    def _file(self, number: int) -> BinaryIO | None:
        if self._open[0] != number:
            self.close()
            self._open = (number, self._files[number]())
        return self._open[1]


# --- A version ----------------------------------------------------------------------------------


class Change:
    """From what is in the folder to a version: what is missing, then all of it put in place.

    `compare`, then every file of `missing` into the stage of the folder, then `apply`.
    """

    def __init__(self, mirror: MirrorFolder, new: Listing, before: Iterable[Listing]) -> None:
        """Go to `new`; all that the mirror made is in `before`, the latest version first."""
        self._mirror = mirror
        self._folder = mirror.folder
        self._new = new.made
        self._before = [listing.made for listing in before]
        self._seen = mirror.read_seen()
        self._ours: dict[TreePath, Look] = {}
        """What may be replaced or removed, as it looked when it was found to be the mirror's."""
        self._as_named: dict[TreePath, tuple[Cid, Look]] = {}
        self._closed: set[TreePath] = set()  # only ever asked whether something is in it
        self._touched: dict[TreePath, None] = {}
        self.to_place: list[TreePath] = []
        """Files that are not as the version names them."""
        self.missing: list[TreePath] = []
        """Those of them that are not in the stage yet."""
        self.owning: set[int] = set()  # only ever asked whether something is in it
        """Of which of `before` there is something that is not as the version names it."""
        self.left_out: list[TreePath] = []
        """Where something of the user's is in the way, or of the version what would be there."""
        self._to_make = self._vanishing = 0
        gone = {path: None for listing in self._before for path in listing if path not in self._new}
        self._vanished = sorted(gone, reverse=True)
        """What was made and is in the version no more; what is in folders before them."""
        self.written = self.removed = 0

    @property
    def stays(self) -> bool:
        """Whether there is nothing to do; good once `compare` is through."""
        return not (self.to_place or self._to_make or self._vanishing)

    # --- Compare ------------------------------------------------------------------------------

    def compare(self) -> Iterator[None]:
        """Find out what is missing and what is whose; yields now and then, for who may stop it."""
        self._folder.forget()
        for path, made in self._new.items():
            yield from self._compare(path, made)
        for path in self._vanished:
            status = self._folder.status(path)
            if status is not None and (yield from self._is_ours(path, status)):
                self._ours[path] = look_of(status)
                self._vanishing += 1

    def _compare(self, path: TreePath, made: Made) -> Generator[None, None, None]:
        if path[:-1] in self._closed:
            self._closed.add(path)
            return
        status = self._folder.status(path)
        if status is not None:
            if (yield from self._is(path, status, made)):
                self._as_named[path] = made.cid, look_of(status)
                return
            if not (yield from self._is_ours(path, status)):
                self._leave_out(path)
                return
            self._ours[path] = look_of(status)
        if made.kind != "file":
            self._to_make += 1
            return
        self.to_place.append(path)
        if not (yield from self._is_staged(path, made)):
            self.missing.append(path)

    def _is_staged(self, path: TreePath, made: Made) -> Generator[None, None, bool]:
        try:
            file = self._staged(path).open("rb")
        except OSError:
            return False
        with file:
            return (yield from holds(file, made, self._mirror.nodes))

    def _is_ours(self, path: TreePath, status: os.stat_result) -> Generator[None, None, bool]:
        for number, listing in enumerate(self._before):
            made = listing.get(path)
            if made is not None and (yield from self._is(path, status, made)):
                self.owning.add(number)
                return True
        return False

    def _is(
        self, path: TreePath, status: os.stat_result, made: Made
    ) -> Generator[None, None, bool]:
        mode = status.st_mode
        if made.kind == "directory":
            # A file system that takes A for a could have the mirror's own folder go by this name.
            return stat.S_ISDIR(mode) and status.st_ino != self._mirror.own_inode
        if made.kind == "symlink":
            return stat.S_ISLNK(mode) and self._target(path) == made.target
        return stat.S_ISREG(mode) and (yield from self._is_file(path, status, made))

    def _target(self, path: TreePath) -> str | None:
        try:
            return self._folder.target(path)
        except OSError:
            return None

    def _is_file(
        self, path: TreePath, status: os.stat_result, made: Made
    ) -> Generator[None, None, bool]:
        seen = self._seen.get("/".join(path))
        if seen is not None and seen.look == look_of(status):
            return seen.cid == bytes(made.cid)
        if made.cid.codec is not Codec.RAW and status.st_size != made.size:
            return False
        file = self._folder.open_file(path)
        if file is None:
            return False
        with file:
            return (yield from holds(file, made, self._mirror.nodes))

    def _leave_out(self, path: TreePath) -> None:
        self._closed.add(path)
        self.left_out.append(path)

    # --- What is there already ----------------------------------------------------------------

    def note_leaves(self, leaves: LocalLeaves) -> Iterator[None]:
        """Note what need not be fetched, because it stands in files of this disk; may be stopped.

        Also what is in files that the user changed: each leaf is proved when it is read.
        """
        nodes = self._mirror.nodes
        for path, cid in self._mirror.stage.leftovers():
            yield from leaves.add(partial(_open, path), cid, nodes)
        for wanted in (True, False):  # first those that have another version now
            for listing in self._before:
                for path, made in listing.items():
                    if made.kind == "file" and (path in self._as_named) is not wanted:
                        opens = partial(self._folder.open_file, path)
                        yield from leaves.add(opens, made.cid, nodes)

    @property
    def staged(self) -> list[Path]:
        """The files that are to be put in place, in the stage."""
        return [self._staged(path) for path in self.to_place]

    def made(self, path: TreePath) -> Made:
        """Return what the version has at a path."""
        return self._new[path]

    # --- Apply --------------------------------------------------------------------------------

    def apply(self) -> None:
        """Put the version in place: new files over old ones, one by one; then remove what is gone.

        Raises:
            WorldError: the disk is full or failed; each file is of this version or of one before.
        """
        self._folder.forget()
        vanished = [path for path in self._vanished if path in self._ours]
        for path in vanished:
            if self._makes_room(path):
                self._remove(path)
        to_place = set(self.to_place)
        for path, made in self._new.items():
            if path[:-1] in self._closed:
                self._closed.add(path)
            elif path not in self._closed and (path in to_place or path not in self._as_named):
                self._put(path, made)
        for path in vanished:
            self._remove(path)
        self._sync()

    def note_seen(self) -> None:
        """Write down how what is as named looks; raises WorldError."""
        files = {path: it for path, it in self._as_named.items() if self._is_listed_file(path)}
        self._mirror.write_seen(files)

    def _is_listed_file(self, path: TreePath) -> bool:
        return self._new[path].kind == "file"

    def _makes_room(self, path: TreePath) -> bool:
        """Whether what vanished is below a path at which something else is to be."""
        above = (self._new.get(path[:at]) for at in range(1, len(path)))
        return any(made is not None and made.kind != "directory" for made in above)

    def _put(self, path: TreePath, made: Made) -> None:
        with writing(self._mirror.path, path):
            try:
                if self._is_free(path, made) and self._make(path, made):
                    self._made_it(path, made)
                    return
            except FileExistsError:
                pass  # it came this very moment, and is not ours
        self._leave_out(path)

    def _is_free(self, path: TreePath, made: Made) -> bool:
        """Whether what is there may be replaced; a folder or what a folder replaces is removed."""
        status = self._folder.status(path)
        if status is None:
            self._ours.pop(path, None)
            return True
        if stat.S_ISDIR(status.st_mode):
            if path not in self._ours or not self._remove_folder(path):
                return False
            del self._ours[path]
            return True
        if self._ours.get(path) != look_of(status):
            return False
        if made.kind == "directory":
            self._folder.remove(path)
            del self._ours[path]
        return True

    def _make(self, path: TreePath, made: Made) -> bool:
        replaced = self._ours.get(path)
        match made.kind:
            case "directory":
                self._folder.make_folder(path)
            case "symlink" if replaced is None:
                self._folder.make_link(path, made.target)
            case "symlink":
                self._folder.replace(self._mirror.stage.make_link(made.target), path)
            case "file":
                self._place(self._staged(path), path, replaced)
        return True

    def _staged(self, path: TreePath) -> Path:
        return self._mirror.stage.path_of(path, self._new[path].cid)

    def _place(self, source: Path, path: TreePath, replaced: Look | None) -> None:
        if replaced is None:
            self._folder.place(source, path)
        else:
            if stat.S_ISREG(replaced[0]):
                keep_permissions(source, replaced)
            self._folder.replace(source, path)

    def _made_it(self, path: TreePath, made: Made) -> None:
        status = self._folder.status(path)
        if status is not None:
            self._as_named[path] = made.cid, look_of(status)
        self._touched[path[:-1]] = None
        self.written += made.kind != "directory"

    def _remove(self, path: TreePath) -> None:
        look = self._ours.pop(path, None)
        status = self._folder.status(path)
        if look is None or status is None:
            return
        with writing(self._mirror.path, path):
            if stat.S_ISDIR(status.st_mode):
                self._remove_folder(path)
            elif look_of(status) == look:
                self._folder.remove(path)
                self._touched[path[:-1]] = None
                self.removed += 1

    def _remove_folder(self, path: TreePath) -> bool:
        self._folder.forget()  # it may be held open
        if not self._folder.remove_folder(path):
            return False
        self._touched.pop(path, None)
        self._touched[path[:-1]] = None
        return True

    def _sync(self) -> None:
        with writing(self._mirror.path):
            if len(self._touched) > SYNCED_FILES_MAX:
                os.sync()
                return
            self._folder.forget()
            self._folder.sync(self._touched)


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def shown_path(path: TreePath) -> str:
    """Return a path as it may stand in a message."""
    return shown("/".join(path))
