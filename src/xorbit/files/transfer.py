"""Files and whole directories to a network of blocks, and files from it; streamed, bounded memory.

A name says what the root is, but a stranger may have made the tree below it: every node is held
against what its parent says, and what is wrong raises `FormatError` and names the block.
Directories are read in trees.py.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from msgspec import Struct

from xorbit.config import (
    BATCH_BLOCKS_MAX,
    LOOK_FIRST_BYTES_MIN,
    PUT_BLOCKS_SEEN_MAX,
    WINDOW_BLOCKS,
)
from xorbit.errors import FormatError, MisuseError, NoPeersError, NotFoundError, XorbitError
from xorbit.files.cid import Cid, Codec
from xorbit.files.flow import (
    Blocks,
    BlocksToGet,
    Fetcher,
    Flow,
    Progress,
    PutReceipt,
    Sink,
    Window,
    check_window,
    in_thread,
    naming,
    owned_tasks,
    silent,
)
from xorbit.files.local import Identity, NewFile, Source, open_source, read_pieces, size_left
from xorbit.files.local_tree import build_source, tree_bytes
from xorbit.files.new_tree import Room, Written
from xorbit.files.opened import outer, private_name
from xorbit.files.partial import Partial
from xorbit.files.resume import OldLeaves, real_path, resuming
from xorbit.files.seal_key import SealKey
from xorbit.files.sealed import Making, Sealer, content_bytes
from xorbit.files.tree import Found
from xorbit.files.unixfs import DEPTH_MAX, Child, FileNode, build_file, parse_file_node
from xorbit.ids import Id
from xorbit.items import Kind


class PutSummary(Struct, frozen=True):
    """What became of a file or a directory that was put."""

    cid: Cid
    bytes: int
    """The size of the file, or of all files of the directory together."""
    blocks: int
    """How many different blocks were put; one that comes again after 65,536 others counts again."""
    holders: tuple[Id, ...]
    """The nodes that hold the root: of those closest to it, so maybe the node that put it too. What
    is kept at home besides does not count."""
    holders_min: int
    """How many nodes hold the block that the fewest hold; `fewest` says which."""
    not_kept: str = ""
    """Why the file is not kept and refreshed from here; "" where it is."""
    fewest: tuple[Id, ...] = ()
    """The nodes that hold the block that the fewest others hold."""
    seal: SealKey | None = None
    """Of private content: what opens it."""
    held_before: int = 0
    """How many of the blocks, among those of 1 KiB and more, the network had already."""
    unasked: int = 0
    """How many are smaller than that: they are sent without asking who has them already."""
    others_min: int = 0
    """How many nodes besides the one that put it hold the block that the fewest others hold."""

    @property
    def name(self) -> str:
        """What gets it back: its CID, or `xorbit://CID#KEY`, which is as secret as the content."""
        return private_name(self.cid, self.seal)


# --- Put ----------------------------------------------------------------------------------------


async def put_file(
    blocks: Blocks,
    source: Source,
    *,
    kind: Making = Kind.BLOCK_BLAKE3_256,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> PutSummary:
    """Cut a source into blocks, store them all and return its name and who holds it.

    As many blocks are in flight as the measured throughput asks for, at most `window`, and as many
    as the lesser of `window` and 32 are read ahead. The first block that cannot be stored cancels
    the others and its error is raised, with the name of the source, and its own unless nobody at
    all could be reached.

    Raises:
        MisuseError: no such file, or a directory, a window below 1, a `kind` that is no hash.
        WorldError: the source cannot be read.
        XorbitError: whatever `store_block` raised.
    """
    check_window(window)
    with ExitStack() as stack:
        file = await in_thread(lambda: stack.enter_context(open_source(source)))
        total = await in_thread(lambda: size_left(file))
        what = str(source) if isinstance(source, Path) else "what was given"
        put = _Put(blocks, window, progress or silent, total, what, kind)
        return await put.run(build_file(read_pieces(file), kind))


async def put_tree(
    blocks: Blocks,
    path: Path,
    *,
    kind: Making = Kind.BLOCK_BLAKE3_256,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> PutSummary:
    """Store a directory with everything in it, or a file, as `put_file` does; the root comes last.

    Raises:
        MisuseError: nothing is there; or as `build_source`.
        WorldError: a part of it cannot be read.
        XorbitError: whatever `store_block` raised.
    """
    check_window(window)
    total = None if progress is None else await in_thread(lambda: tree_bytes(path))
    put = _Put(blocks, window, progress or silent, total, str(path), kind)
    return await put.run(build_source(path, kind))


async def put_blocks(
    blocks: Blocks,
    made: Iterator[tuple[Cid, bytes]],
    what: str,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> PutSummary:
    """Store blocks that are made already, at least one; the last one counts as the root.

    Args:
        blocks: Where to.
        made: The blocks with their names; asked on a worker thread.
        what: What they are of, as errors name it.
        window: How many are in flight.
        progress: Told of the bytes of raw blocks.

    Raises:
        XorbitError: whatever `store_block` or `made` raised.
    """
    return await _Put(blocks, window, progress or silent, None, what).run(made)


class _Put:
    def __init__(
        self,
        blocks: Blocks,
        window: int,
        progress: Progress,
        total: int | None,
        what: str,
        making: Making = Kind.BLOCK_BLAKE3_256,
    ) -> None:
        self._blocks = blocks
        self._what = what
        self._making = making
        self._window = Window(window)
        self._ahead = min(window, BATCH_BLOCKS_MAX)
        self._progress = progress
        self._total = total
        self._done = 0
        self._count = 0
        self._fewest: tuple[Id, ...] = ()
        self._others_min = 0
        self._not_kept = ""
        self._held_before = 0
        self._unasked = 0
        self._seen: dict[Cid, bool] = {}
        """Of the latest blocks that this put has stored, whether the network had them before."""

    async def run(self, made: Iterator[tuple[Cid, bytes]]) -> PutSummary:
        last: tuple[Cid, asyncio.Task[tuple[Id, ...]]] | None = None
        self._progress(0, self._total)
        async with owned_tasks() as tasks:
            while batch := await in_thread(lambda: list(islice(made, self._ahead))):
                for cid, data in batch:
                    await self._window.acquire()
                    last = cid, tasks.create_task(self._put(cid, data))
        assert last is not None, "everything has a root"
        root, stored = last
        seal = self._making.key_of(root) if isinstance(self._making, Sealer) else None
        cid = outer(root, seal)
        return PutSummary(
            cid=cid,
            bytes=self._done,
            blocks=self._count,
            holders=stored.result(),
            holders_min=len(self._fewest),
            not_kept=self._not_kept,
            fewest=self._fewest,
            seal=seal,
            held_before=self._held_before,
            unasked=self._unasked,
            others_min=self._others_min,
        )

    async def _put(self, cid: Cid, data: bytes) -> tuple[Id, ...]:
        try:
            with naming(f"cannot store {self._what}"):
                receipt = await self._store(cid, data)
        finally:
            self._window.release(len(data))
        self._note_holders(receipt)
        self._not_kept = self._not_kept or receipt.not_kept
        self._note_held_before(cid, len(data), said=receipt.held_before)
        if cid.codec is Codec.RAW:
            self._done += content_bytes(len(data), self._making)
            self._progress(self._done, self._total)
        return receipt.holders

    def _note_holders(self, receipt: PutReceipt) -> None:
        """Keep who holds the block that the fewest others hold, which the fewest hold at all."""
        held = len(receipt.others), len(receipt.holders)
        if self._count == 0 or held < (self._others_min, len(self._fewest)):
            self._others_min, self._fewest = len(receipt.others), receipt.holders

    def _note_held_before(self, cid: Cid, size: int, *, said: bool) -> None:
        """Count a block, and whether the network had it; one that comes twice may just be sent."""
        had = self._seen.pop(cid, None)
        self._seen[cid] = said and had is not False
        self._held_before += self._seen[cid] - bool(had)
        if had is None:
            self._count += 1
            self._unasked += size < LOOK_FIRST_BYTES_MIN
        if len(self._seen) > PUT_BLOCKS_SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    async def _store(self, cid: Cid, data: bytes) -> PutReceipt:
        try:
            return await self._blocks.store_block(data, cid.key.kind)
        except NoPeersError:
            raise  # of no one block
        except XorbitError as error:
            raise type(error)(f"block {cid}: {error}") from error


# --- Get ----------------------------------------------------------------------------------------

WHOLE = (0, None)
Range = tuple[int, int | None]
"""From which byte on, and before which; None is the end of the file."""


async def get_file(
    blocks: BlocksToGet,
    file: Cid | Found,
    sink: Sink,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
    part: Range = WHOLE,
) -> int:
    """Fetch a file, or a part, hand the bytes to `sink` in order and return how many they were.

    At most `window` leaves are in flight or waiting for their turn, fewer where more would carry no
    more; besides them memory holds only the nodes on the way from the root to the leaf that is
    asked for next. Leaves outside of the part are not fetched. When this call is over, `sink` is
    not called any more.

    A few blocks may honestly describe an enormous file: `progress` is told the size before the
    first byte is written, and may raise to stop.

    Raises:
        MisuseError: a window below 1, or a part that begins behind the file's end.
        FormatError: a block is no part of a file, or not what its parent says; names the block.
        XorbitError: whatever `get_block` raised, with the name of the block.
    """
    check_window(window)
    cid = file.cid if isinstance(file, Found) else file
    fetcher = Fetcher(blocks, cid, window=window)
    return await _Get(fetcher, file, sink, window, progress or silent, part).run()


async def get_to_path(
    blocks: BlocksToGet,
    cid: Cid | Found,
    path: Path,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
    part: Range = WHOLE,
) -> int:
    """Fetch a file to a path and return its size, as `write_to_path` does."""
    written = await write_to_path(blocks, cid, path, window=window, progress=progress, part=part)
    return written.bytes


async def write_to_path(
    blocks: BlocksToGet,
    cid: Cid | Found,
    path: Path,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
    part: Range = WHOLE,
) -> Written:
    """Fetch a file to a path, which shows the whole file or what was there.

    The bytes go to a temporary file beside it. Where this is interrupted it stays for a week, and
    the same call goes on from there (`partial.py`); the error says so.

    Raises:
        MisuseError: the folder does not exist, or at the path is neither a regular file nor a
            device to write to.
        WorldError: the disk is full (also: the file says that it is larger than what is free) or
            failed.
        XorbitError: as `get_file`.
    """
    name = cid.cid if isinstance(cid, Found) else cid
    if name.codec is Codec.RAW or await in_thread(path.is_char_device):
        size = await _get_at_once(blocks, cid, path, window, progress, part)
        return Written(files=1, bytes=size)
    path = await in_thread(lambda: real_path(path))
    async with resuming(path, f"{name} {part}", blocks) as kept:
        file = NewFile(path, kept.whole)
        resumed = 0

        def skip(size: int, seen: Identity) -> None:
            nonlocal resumed
            file.skip(size, seen)
            resumed += size

        try:
            await in_thread(file.open)
            room = await in_thread(lambda: _room(path, kept))
            fetcher = Fetcher(blocks, name, window=window, nodes=kept.nodes)
            old = OldLeaves(kept, (), skip) if kept.is_resumed else None
            get = _Get(fetcher, cid, file.write, window, progress or silent, part, old, room)
            size = await get.run()
            await in_thread(file.commit)
            return Written(files=1, bytes=size, resumed_bytes=resumed)
        finally:
            await in_thread(file.keep)


def _room(path: Path, kept: Partial) -> Room:
    return Room(path, kept.bytes_there() if kept.is_resumed else 0)


async def _get_at_once(
    blocks: BlocksToGet,
    cid: Cid | Found,
    path: Path,
    window: int,
    progress: Progress | None,
    part: Range,
) -> int:
    """Get what is not worth resuming: a file of one leaf, or one to a device."""
    file = NewFile(path)
    try:
        await in_thread(file.open)
        size = await get_file(blocks, cid, file.write, window=window, progress=progress, part=part)
        await in_thread(file.commit)
        return size
    finally:
        file.discard()


class _Get:
    def __init__(
        self,
        fetcher: Fetcher,
        file: Cid | Found,
        sink: Sink,
        window: int,
        progress: Progress,
        part: Range,
        old: OldLeaves | None = None,
        room: Room | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._file = file
        self._sink = sink
        self._window = window
        self._progress = progress
        self._start, self._end = part
        self._old = old
        self._room = room
        self._done = 0
        self._total = 0

    async def run(self) -> int:
        cid = self._file if isinstance(self._file, Cid) else self._file.cid
        if cid.codec is Codec.RAW:
            data = await self._fetcher.fetch(cid)
            start, end = self._started(cid, len(data))
            if piece := data[start:end]:
                await in_thread(lambda: self._sink(piece))
                self._tell(len(piece))
            return self._done
        root = await self._root(cid)
        start, end = self._started(cid, root.size)
        async with owned_tasks() as tasks:
            flow = Flow(tasks, self._window, self._tell)
            tasks.create_task(flow.deliver())
            parts = FileParts(self._fetcher, flow, cid, self._sink, self._old)
            await parts.pour(root, start, end)
            await flow.end()
        return self._done

    async def _root(self, cid: Cid) -> FileNode:
        if isinstance(self._file, Cid):
            return await file_root(self._fetcher, cid)
        if not isinstance(self._file.node, FileNode):
            raise NotFoundError(f"{cid} is no file")
        return self._file.node

    def _started(self, cid: Cid, size: int) -> tuple[int, int]:
        end = size if self._end is None else min(self._end, size)
        if self._start > size:
            raise MisuseError(f"expected a part of a file of {size:,} bytes, got {self._start:,}-")
        self._total = max(end - self._start, 0)
        if self._room is not None:
            self._room.take(cid, self._total)
        self._progress(0, self._total)
        return self._start, end

    def _tell(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


async def file_root(fetcher: Fetcher, cid: Cid) -> FileNode:
    """Return the root node of a file of several leaves.

    Raises:
        FormatError: it is none; names the block.
        XorbitError: whatever `get_block` raised.
    """
    data = await fetcher.fetch(cid)
    with naming(f"block {cid} of file {cid}"):
        return await in_thread(lambda: parse_file_node(data))


class FileParts:
    """The leaves of one file, poured into a flow; each is held against what its parent says."""

    def __init__(
        self,
        fetcher: Fetcher,
        flow: Flow,
        root: Cid,
        sink: Sink,
        old: OldLeaves | None = None,
    ) -> None:
        """Pour the leaves of the file `root`; `sink` gets those that are not there already."""
        self._old = old
        self._at = 0
        """How many bytes were poured."""
        self._fetcher = fetcher
        self._flow = flow
        self._root = root
        self._sink = sink

    async def pour(self, node: FileNode, start: int, end: int, depth: int = 1) -> None:
        """Pour the bytes from `start` to before `end` of a node, and fetch nothing else."""
        at = 0
        for number, child in enumerate(node.children):
            if at + child.size > start and at < end:
                first, last = max(start - at, 0), min(end - at, child.size)
                if child.cid.codec is not Codec.RAW:
                    below = await self._inner(child, depth + 1)
                    await self.pour(below, first, last, depth + 1)
                elif not await self._is_there(node.children, number, last - first):
                    await self._pour_leaf(child, first, last)
            at += child.size

    async def _pour_leaf(self, child: Child, start: int, end: int) -> None:
        self._at += end - start
        await self._flow.block(lambda: self._leaf(child, start, end), self._sink)

    async def _is_there(self, children: Sequence[Child], number: int, wanted: int) -> bool:
        """Pass over a leaf that an interrupted get has written, if all of it is wanted."""
        old, size = self._old, children[number].size
        if old is None or wanted < size:
            return False
        seen = await old.find(children, number, self._at)
        if seen is None:
            return False
        self._at += size
        await self._flow.then(lambda: old.skip(size, seen), size)
        return True

    async def _leaf(self, child: Child, start: int, end: int) -> bytes:
        data = await self._fetcher.fetch(child.cid)
        if len(data) != child.size:
            raise self._lie(child, len(data))
        return data if end - start == child.size else data[start:end]

    async def _inner(self, child: Child, depth: int) -> FileNode:
        what = f"block {child.cid} of file {self._root}"
        if depth > DEPTH_MAX:  # also what ends a circle
            raise FormatError(f"{what}: deeper than {DEPTH_MAX} levels")
        data = await self._fetcher.fetch(child.cid)
        with naming(what):
            node = await in_thread(lambda: parse_file_node(data))
        if node.size != child.size:
            raise self._lie(child, node.size)
        return node

    def _lie(self, child: Child, size: int) -> FormatError:
        return FormatError(
            f"block {child.cid} of file {self._root}: "
            f"its parent says {child.size} bytes, it holds {size}"
        )
