"""Whole trees from a network of blocks: find, list, get, keep, and to CARs; in bounded memory.

What a tree is stands in tree.py; here its generators are answered from a network, with what they
will want next fetched ahead.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from xorbit.config import WINDOW_BLOCKS
from xorbit.errors import FormatError, MisuseError
from xorbit.files.car import CarReader, encode_header, encode_section
from xorbit.files.cid import Cid, Codec, Place
from xorbit.files.directory import Directory, SymbolicLink
from xorbit.files.flow import (
    Blocks,
    BlocksToGet,
    Fetcher,
    Flow,
    Nodes,
    Progress,
    Sink,
    all_of,
    drive,
    finish,
    hand_in,
    in_thread,
    owned_tasks,
    silent,
)
from xorbit.files.listing import EntryInfo, Listing, describe, list_entries
from xorbit.files.local import NewFile, Source, open_source
from xorbit.files.new_tree import TreeWriter, Written, lone_link
from xorbit.files.partial import Partial
from xorbit.files.resume import OldLeaves, resuming
from xorbit.files.transfer import FileParts, PutSummary, put_blocks, write_to_path
from xorbit.files.tree import Entry, Found, all_blocks, is_file, resolve, walk
from xorbit.files.unixfs import FileNode

TREE = "tree"


@asynccontextmanager
async def _fetching(
    blocks: BlocksToGet, root: Cid, window: int = WINDOW_BLOCKS, nodes: Nodes | None = None
) -> AsyncGenerator[Fetcher]:
    fetcher = Fetcher(blocks, root, TREE, window, nodes)
    try:
        yield fetcher
    finally:
        await fetcher.close()


# --- One place ----------------------------------------------------------------------------------


async def find(blocks: BlocksToGet, place: Place) -> Found:
    """Return what is at a place; only the nodes on the way are fetched.

    Raises:
        NotFoundError: nothing is there.
        FormatError: a block on the way is not what it must be; names the block.
        XorbitError: whatever `get_block` raised.
    """
    async with _fetching(blocks, place.cid) as fetcher:
        return await finish(resolve(place.cid, place.path), fetcher)


async def stat(blocks: BlocksToGet, place: Place) -> EntryInfo:
    """Say what is at a place; raises as `find`."""
    found = await find(blocks, place)
    async with _fetching(blocks, found.cid) as fetcher:
        return await finish(describe(found, _name_of(place)), fetcher)


async def list_place(blocks: BlocksToGet, place: Place) -> tuple[EntryInfo, ...]:
    """Return what is in a directory, in the order of the names' bytes; of a file, itself.

    Raises:
        FormatError: also: more than 1,048,576 entries.
        XorbitError: as `find`.
    """
    found = await find(blocks, place)
    if not found.is_directory:
        return (await stat(blocks, place),)
    listing = Listing(found.cid)
    async with (
        _fetching(blocks, found.cid) as fetcher,
        aclosing(drive(list_entries(found), fetcher)) as entries,
    ):
        async for entry in entries:
            listing.add(entry)
    return listing.entries()


def _name_of(place: Place) -> str:
    return place.path[-1] if place.path else str(place.cid)


# --- Get ----------------------------------------------------------------------------------------


async def get_tree(
    blocks: BlocksToGet,
    root: Found,
    path: Path,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
    skip_links: bool = False,
) -> Written:
    """Fetch a directory or a file to a path, which shows all of it or what was there before.

    With `skip_links` symbolic links that lead out of the directory are left out.

    At most `window` leaves are in flight or waiting for their turn, and as many nodes. Where this
    is interrupted, what has come stays beside the path, or in the empty folder there, for a week,
    and the same call goes on from there (`partial.py`); the error says so.

    Raises:
        MisuseError: a path that cannot be written to: for a directory, one at which something is
            that is no empty folder.
        FormatError: a tree that lies, is without bounds, or has a name or a link that may not be
            written; names the block, or the path in the tree.
        WorldError: the disk is full (also: the files say that they are larger than what is free) or
            failed.
        XorbitError: whatever `get_block` raised.
    """
    if isinstance(root.node, SymbolicLink):
        raise lone_link(root)
    if is_file(root):
        return await write_to_path(blocks, root, path, window=window, progress=progress)
    async with resuming(path, str(root.cid), blocks) as kept:
        there_bytes = await in_thread(kept.bytes_there) if kept.is_resumed else 0
        writer = TreeWriter(path, kept.whole, there_bytes, skip_links=skip_links)
        try:
            await in_thread(writer.open)
            async with _fetching(blocks, root.cid, window, kept.nodes) as fetcher:
                get = _Get(fetcher, writer, window, progress or silent, kept)
                await get.run(root)
            await in_thread(writer.commit)
        finally:
            await in_thread(writer.keep)
        return writer.written


class _Get:
    def __init__(
        self,
        fetcher: Fetcher,
        writer: TreeWriter,
        window: int,
        progress: Progress,
        kept: Partial,
    ) -> None:
        self._kept = kept
        self._fetcher = fetcher
        self._writer = writer
        self._window = window
        self._progress = progress
        self._total: int | None = None
        self._done = 0

    async def run(self, root: Found) -> None:
        if isinstance(root.node, Directory):  # for who waits; its maker may be wrong
            self._total = sum(entry.dag_size for entry in root.node.entries)
        self._tell(0)
        async with owned_tasks() as tasks:
            flow = Flow(tasks, self._window, self._tell)
            tasks.create_task(flow.deliver())
            async with aclosing(drive(walk(root), self._fetcher)) as entries:
                async for entry in entries:
                    if entry.path:
                        await self._pour(flow, entry)
            await flow.end()

    async def _pour(self, flow: Flow, entry: Entry) -> None:
        await flow.then(partial(self._writer.add, entry))
        found = entry.found
        if not is_file(found):
            return
        if isinstance(found.node, FileNode):
            old = OldLeaves(self._kept, entry.path, self._writer.skip)
            parts = FileParts(
                self._fetcher,
                flow,
                found.cid,
                self._writer.write,
                old if self._kept.is_resumed else None,
            )
            await parts.pour(found.node, 0, found.node.size)
        elif not await self._is_there(flow, entry):
            await flow.block(partial(self._fetcher.fetch, found.cid), self._writer.write)
        await flow.then(self._writer.end_file)

    async def _is_there(self, flow: Flow, entry: Entry) -> bool:
        """Pass over a file of one leaf that an interrupted get has written."""
        if not self._kept.is_resumed:
            return False
        seen = await in_thread(lambda: self._kept.look_whole(entry.path, entry.found.cid))
        if seen is None:
            return False
        identity, size = seen
        await flow.then(partial(self._writer.skip, size, identity), size)
        return True

    def _tell(self, count: int) -> None:
        self._done += count
        total = None if self._total is None else max(self._total, self._done)
        self._progress(self._done, total)


# --- All blocks ---------------------------------------------------------------------------------


async def fetch_all(
    blocks: BlocksToGet,
    root: Cid,
    take: Callable[[Cid, bytes], object] | None = None,
    *,
    progress: Progress | None = None,
    total: int | None = None,
) -> int:
    """Fetch every block of a tree of any kind, each once; return the bytes of its raw blocks.

    Args:
        blocks: Where from.
        root: What the tree is named.
        take: Called on a worker thread with each block, parents before children.
        progress: Told of the bytes of raw blocks.
        total: How many these are with repetitions, where it is known.

    Raises:
        FormatError: a block is no node of a tree, or there are too many; names the block.
        XorbitError: whatever `get_block` raised.
    """
    done = 0
    tell = progress or silent
    tell(0, total)
    async with (
        _fetching(blocks, root) as fetcher,
        aclosing(all_of(all_blocks(root), fetcher)) as found,
    ):
        async for cid, data in found:
            if take is not None:
                await in_thread(partial(take, cid, data))
            if cid.codec is Codec.RAW:
                done += len(data)
                tell(done, total)
    return done


async def all_names(blocks: BlocksToGet, root: Cid) -> AsyncGenerator[Cid]:
    """Give the name of every block of a tree of any kind, each once; leaves are not fetched.

    Raises:
        XorbitError: as `fetch_all`.
    """
    steps = all_blocks(root)
    async with _fetching(blocks, root) as fetcher:
        want = next(steps, None)
        while want is not None:
            yield want.cid
            is_leaf = want.cid.codec is Codec.RAW
            want = await hand_in(steps, want.cid, b"" if is_leaf else await fetcher.fetch(want.cid))


# --- CARs ---------------------------------------------------------------------------------------


async def export_car(
    blocks: BlocksToGet, root: Cid, to: Path | Sink, *, progress: Progress | None = None
) -> int:
    """Write a tree as a CAR to a path, whole or not at all, or to a function; return its size.

    Raises:
        MisuseError: a path that cannot be written to.
        FormatError: a block is no node of a tree; names the block.
        WorldError: the disk is full or failed.
        XorbitError: whatever `get_block` raised.
    """
    if not isinstance(to, Path):
        return await _export(blocks, root, to, progress)
    file = NewFile(to)
    try:
        await in_thread(file.open)
        size = await _export(blocks, root, file.write, progress)
        await in_thread(file.commit)
        return size
    finally:
        file.discard()


async def _export(blocks: BlocksToGet, root: Cid, sink: Sink, progress: Progress | None) -> int:
    size = 0

    def write(data: bytes) -> None:
        nonlocal size
        sink(data)
        size += len(data)

    await in_thread(lambda: write(encode_header([root])))
    await fetch_all(
        blocks, root, lambda cid, data: write(encode_section(cid, data)), progress=progress
    )
    return size


async def import_car(
    blocks: Blocks, source: Source, *, progress: Progress | None = None
) -> tuple[tuple[Cid, ...], PutSummary]:
    """Store all blocks of a CAR, each proved by its hash; return its roots and what was stored.

    What was stored is told as of the last block of the CAR. That the trees of the roots are whole
    is for the caller to see.

    Raises:
        MisuseError: no such file, no CARv1, or a CAR without a root.
        FormatError: a block of it is damaged; names the block and where it begins. The blocks
            before that are stored, and pinned under no name.
        XorbitError: whatever `store_block` raised.
    """
    with open_source(source) as file:
        try:
            reader = await in_thread(lambda: CarReader(file))
        except FormatError as error:  # nobody sent it: our caller named another file
            raise MisuseError(str(error)) from error
        if not reader.roots:
            raise MisuseError("expected a CAR with a root, got one that names none")
        made = await in_thread(lambda: _begun(reader))
        what = str(source) if isinstance(source, Path) else "the CAR"
        return reader.roots, await put_blocks(blocks, made, what, progress=progress)


def _begun(reader: CarReader) -> Iterator[tuple[Cid, bytes]]:
    made = iter(reader)
    first = next(made, None)
    if first is None:
        raise FormatError("expected a CAR with blocks, got one without")
    return chain([first], made)
