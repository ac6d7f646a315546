"""Files to and from a network of blocks: put, get, streamed, in bounded memory.

The only file of this room that knows asyncio; it knows no sockets, blocks go through `Blocks`. What
holds up a loop (hashing, the disk, the caller's sink) runs on a worker thread.

A name says what the root is, but a stranger may have made the tree below it: every node is held
against what its parent says, and what is wrong raises `FormatError` and names the block.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from xorbit.config import BATCH_BLOCKS_MAX, WINDOW_BLOCKS
from xorbit.errors import FormatError, MisuseError, NoPeersError, XorbitError
from xorbit.files.cid import Cid, Codec
from xorbit.files.local import NewFile, Source, open_source, read_pieces, size_left
from xorbit.files.unixfs import DEPTH_MAX, Child, FileNode, build_file, parse_file_node
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind

T = TypeVar("T")

Progress = Callable[[int, int | None], object]
"""Called on the loop with the bytes done so far, and the bytes in all where they are known."""

Sink = Callable[[bytes], object]
"""Called on a worker thread, never twice at once, with the bytes of the file in order."""


class PutReceipt(Protocol):
    """What `store_block` answers; more than this is not looked at."""

    @property
    def holders(self) -> tuple[Id, ...]:
        """The nodes that hold the block."""
        ...

    @property
    def not_kept(self) -> str:
        """Why it is not pinned here; "" where it is."""
        ...


class BlocksToGet(Protocol):
    """Where blocks come from: a node, or a fake."""

    async def get_block(self, key: ItemKey) -> bytes:
        """Return the bytes of a block, proved by its hash, at most 65,536.

        Raises:
            XorbitError: it could not be had.
        """
        ...


class Blocks(BlocksToGet, Protocol):
    """Where blocks go to as well."""

    async def store_block(self, data: bytes, kind: Kind) -> PutReceipt:
        """Store a block and say who holds it.

        Raises:
            XorbitError: nobody does.
        """
        ...


class PutSummary(Struct, frozen=True):
    """What became of a file that was put."""

    cid: Cid
    bytes: int
    """The size of the file."""
    blocks: int
    """How many blocks were put; one that occurs twice in the file counts twice."""
    holders: tuple[Id, ...]
    """The nodes that hold the root."""
    holders_min: int
    """How many nodes hold the block that the fewest hold; `fewest` says which."""
    not_kept: str = ""
    """Why the file is not kept and refreshed from here; "" where it is."""
    fewest: tuple[Id, ...] = ()
    """The nodes that hold the block that the fewest hold."""


# --- Put ----------------------------------------------------------------------------------------


async def put_file(
    blocks: Blocks,
    source: Source,
    *,
    kind: Kind = Kind.BLOCK_BLAKE3_256,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> PutSummary:
    """Cut a source into blocks, store them all and return its name and who holds it.

    At most `window` blocks are in flight, and as many again (32 at most) read ahead. The first
    block that cannot be stored cancels the others and its error is raised, with the name of the
    source, and its own unless nobody at all could be reached.

    Raises:
        MisuseError: no such file, or a directory, a window below 1, a `kind` that is no hash.
        WorldError: the source cannot be read.
        XorbitError: whatever `store_block` raised.
    """
    _check_window(window)
    with ExitStack() as stack:
        file = await _in_thread(lambda: stack.enter_context(open_source(source)))
        total = await _in_thread(lambda: size_left(file))
        what = str(source) if isinstance(source, Path) else "what was given"
        put = _Put(blocks, kind, window, progress or _silent, total, what)
        return await put.run(build_file(read_pieces(file), kind))


class _Put:
    def __init__(
        self,
        blocks: Blocks,
        kind: Kind,
        window: int,
        progress: Progress,
        total: int | None,
        what: str,
    ) -> None:
        self._blocks = blocks
        self._what = what
        self._kind = kind
        self._slots = asyncio.Semaphore(window)
        self._ahead = min(window, BATCH_BLOCKS_MAX)
        self._progress = progress
        self._total = total
        self._done = 0
        self._count = 0
        self._fewest: tuple[Id, ...] = ()
        self._not_kept = ""

    async def run(self, made: Iterator[tuple[Cid, bytes]]) -> PutSummary:
        last: tuple[Cid, asyncio.Task[tuple[Id, ...]]] | None = None
        self._progress(0, self._total)
        async with _owned_tasks() as tasks:
            while batch := await _in_thread(lambda: list(islice(made, self._ahead))):
                for cid, data in batch:
                    await self._slots.acquire()
                    last = cid, tasks.create_task(self._put(cid, data))
        assert last is not None, "every file has a root"
        root, stored = last
        holders = stored.result()
        fewest, not_kept = self._fewest, self._not_kept
        least = len(fewest)
        return PutSummary(root, self._done, self._count, holders, least, not_kept, fewest)

    async def _put(self, cid: Cid, data: bytes) -> tuple[Id, ...]:
        try:
            with _naming(f"cannot store {self._what}"):
                receipt = await self._store(cid, data)
        finally:
            self._slots.release()
        held = receipt.holders
        self._fewest = min(held, self._fewest, key=len) if self._count else held
        self._not_kept = self._not_kept or receipt.not_kept
        self._count += 1
        if cid.codec is Codec.RAW:
            self._done += len(data)
            self._progress(self._done, self._total)
        return held

    async def _store(self, cid: Cid, data: bytes) -> PutReceipt:
        try:
            return await self._blocks.store_block(data, self._kind)
        except NoPeersError:
            raise  # of no one block
        except XorbitError as error:
            raise type(error)(f"block {cid}: {error}") from error


# --- Get ----------------------------------------------------------------------------------------


async def get_file(
    blocks: BlocksToGet,
    cid: Cid,
    sink: Sink,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> int:
    """Fetch a file, hand its bytes to `sink` in order and return how many they were.

    At most `window` leaves are in flight or waiting for their turn; besides them memory holds only
    the nodes on the way from the root to the leaf that is asked for next. When this call is over,
    `sink` is not called any more.

    A few blocks may honestly describe an enormous file: `progress` is told the size before the
    first byte is written, and may raise to stop.

    Raises:
        MisuseError: a window below 1.
        FormatError: a block is no part of a file, or not what its parent says; names the block.
        XorbitError: whatever `get_block` raised, with the name of the block.
    """
    _check_window(window)
    return await _Get(blocks, cid, sink, window, progress or _silent).run()


async def get_to_path(
    blocks: BlocksToGet,
    cid: Cid,
    path: Path,
    *,
    window: int = WINDOW_BLOCKS,
    progress: Progress | None = None,
) -> int:
    """Fetch a file to a path and return its size; the path shows the whole file or what was there.

    The bytes go to a temporary file in the same folder, which is removed if anything fails.

    Raises:
        MisuseError: the folder does not exist, or at the path is neither a regular file nor a
            device to write to.
        WorldError: the disk is full or failed.
        XorbitError: as `get_file`.
    """
    file = NewFile(path)
    try:
        await _in_thread(file.open)
        size = await get_file(blocks, cid, file.write, window=window, progress=progress)
        await _in_thread(file.commit)
        return size
    finally:
        file.discard()


class _Get:
    def __init__(
        self, blocks: BlocksToGet, root: Cid, sink: Sink, window: int, progress: Progress
    ) -> None:
        self._blocks = blocks
        self._root = root
        self._sink = sink
        self._progress = progress
        self._slots = asyncio.Semaphore(window)
        self._leaves: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._done = 0
        self._total = 0

    async def run(self) -> int:
        if self._root.codec is Codec.RAW:
            data = await self._fetch(self._root)
            self._started(len(data))
            await self._write([data])
            return self._done
        node = await self._node(self._root)
        self._started(node.size)
        async with _owned_tasks() as tasks:
            tasks.create_task(self._deliver())
            await self._walk(tasks, node, depth=1)
            self._leaves.put_nowait(None)
        return self._done

    def _started(self, total: int) -> None:
        self._total = total
        self._progress(0, total)

    async def _walk(self, tasks: asyncio.TaskGroup, node: FileNode, depth: int) -> None:
        # Runs ahead of the delivery by as many leaves as there are slots.
        for child in node.children:
            if child.cid.codec is Codec.RAW:
                await self._slots.acquire()
                self._leaves.put_nowait(tasks.create_task(self._leaf(child)))
            else:
                await self._walk(tasks, await self._inner(child, depth + 1), depth + 1)

    async def _leaf(self, child: Child) -> bytes:
        data = await self._fetch(child.cid)
        if len(data) != child.size:
            raise self._lie(child, len(data))
        return data

    async def _inner(self, child: Child, depth: int) -> FileNode:
        if depth > DEPTH_MAX:  # also what ends a circle
            raise FormatError(
                f"block {child.cid} of file {self._root}: deeper than {DEPTH_MAX} levels"
            )
        node = await self._node(child.cid)
        if node.size != child.size:
            raise self._lie(child, node.size)
        return node

    def _lie(self, child: Child, size: int) -> FormatError:
        return FormatError(
            f"block {child.cid} of file {self._root}: "
            f"its parent says {child.size} bytes, it holds {size}"
        )

    async def _node(self, cid: Cid) -> FileNode:
        data = await self._fetch(cid)
        with _naming(f"block {cid} of file {self._root}"):
            return await _in_thread(lambda: parse_file_node(data))

    async def _fetch(self, cid: Cid) -> bytes:
        part = "" if cid == self._root else f"block {cid} of file "
        with _naming(f"cannot get {part}{self._root}"):
            return await self._blocks.get_block(cid.key)

    async def _deliver(self) -> None:
        # Leaves that came together are written together; it never waits with any in hand.
        batch: list[bytes] = []
        while leaf := await self._leaves.get():
            if not leaf.done():
                await self._flush(batch)
            batch.append(await leaf)
            if self._leaves.empty():
                await self._flush(batch)
        await self._flush(batch)

    async def _flush(self, batch: list[bytes]) -> None:
        await self._write(batch)
        for _ in batch:
            self._slots.release()
        batch.clear()

    async def _write(self, batch: list[bytes]) -> None:
        if batch:
            await _in_thread(lambda: _write_all(self._sink, batch))
            self._done += sum(map(len, batch))
            self._progress(self._done, self._total)


def _write_all(sink: Sink, batch: list[bytes]) -> None:
    for data in batch:
        sink(data)


# --- Both ---------------------------------------------------------------------------------------


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def _check_window(window: int) -> None:
    if window < 1:
        raise MisuseError(f"expected a window of at least 1 block, got {window}")


@contextmanager
def _naming(what: str) -> Generator[None]:
    """Put what was being done before an error's message; its kind, and so its blame, stays."""
    try:
        yield
    except XorbitError as error:
        raise type(error)(f"{what}: {error}") from error


@asynccontextmanager
async def _owned_tasks() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group whose first failure comes out as itself instead of in an ExceptionGroup."""
    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    if first is not None:  # raised out here, or it would have itself in its context
        raise first


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work on a worker thread. When cancelled, wait for it first: it has our files."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
