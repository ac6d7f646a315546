"""A file of the network that is open for reading: any part of it, and what is likely read next.

What is fetched is what is read, leaf by leaf, and while reads follow each other, more and more of
the leaves behind them. Memory holds at most 32 leaves ahead, one behind, and 64 inner nodes.
"""

import asyncio
import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

from msgspec import Struct

from xorbit.config import AHEAD_BLOCKS_MAX, READER_NODES_MAX
from xorbit.errors import FormatError, MisuseError, NotFoundError
from xorbit.files.cid import Codec
from xorbit.files.flow import BlocksToGet, Fetcher, in_thread, naming
from xorbit.files.tree import Found
from xorbit.files.unixfs import DEPTH_MAX, Child, FileNode, parse_file_node


class _Leaf(Struct, frozen=True):
    """Where in the file a leaf begins, and what it is."""

    start: int
    child: Child


class _Node:
    """An inner node, and where its children begin."""

    def __init__(self, node: FileNode, start: int) -> None:
        self.children: Sequence[Child] = node.children
        sizes = (child.size for child in node.children)
        self.starts = list(accumulate(sizes, initial=start))[:-1]


async def open_reader(blocks: BlocksToGet, found: Found) -> "FileReader":
    """Open a file; of one that is a single leaf, that leaf is fetched, as its size is not known.

    Raises:
        NotFoundError: it is no file.
        XorbitError: whatever `get_block` raised.
    """
    fetcher = Fetcher(blocks, found.cid)
    match found.node:
        case FileNode() as node:
            return FileReader(fetcher, node)
        case None:
            data = await fetcher.fetch(found.cid)
            child = Child(found.cid, len(data))
            node = FileNode((child,) if data else (), len(data))
            return FileReader(fetcher, node, data)
        case _:
            raise NotFoundError(f"{found.cid} is no file")


class FileReader:
    """An open file. Made by `open`; not to be read by two tasks at once."""

    def __init__(self, fetcher: Fetcher, root: FileNode, first: bytes | None = None) -> None:
        self.size = root.size
        """In bytes."""
        self._fetcher = fetcher
        self._root = _Node(root, 0)
        self._nodes: dict[int, _Node] = {}
        """Inner nodes by where they begin and how deep they are, those used last at the end."""
        self._leaves: dict[int, asyncio.Task[bytes]] = {}
        """What is here or coming, by where it begins."""
        self._first = first
        self._position = 0
        self._expected = 0
        """Where the next read begins, if it follows the last."""
        self._ahead = 0
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def tell(self) -> int:
        """Return at which byte the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the start (0), from here (1) or from the end (2); return it.

        Raises:
            MisuseError: it would be before the start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise MisuseError(f"expected a place in the file, got {offset} from {whence}")
        self._position = base + offset
        return self._position

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`, fewer only at the end; without, all that is left.

        Raises:
            FormatError: a block is no part of a file, or not what its parent says; names the block.
            XorbitError: whatever `get_block` raised.
        """
        end = self.size if size < 0 else min(self._position + size, self.size)
        data = await self.read_at(self._position, end)
        self._position += len(data)
        return data

    async def read_at(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, as far as there are; raises as `read`."""
        if self._is_closed:
            raise MisuseError("this file was closed")
        end = min(end, self.size)
        if start >= end:
            return b""
        self._ahead = self._next_ahead(start)
        self._expected = end
        parts: list[bytes] = []
        while start < end:
            leaf, data = await self._leaf_with(start, end)
            piece = data[start - leaf.start : end - leaf.start]
            parts.append(piece)
            start += len(piece)
        return b"".join(parts)

    async def close(self) -> None:
        """Let go of what is here or coming. May be called again."""
        self._is_closed = True
        tasks = list(self._leaves.values())
        self._leaves.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- Leaves -----------------------------------------------------------------------------------

    def _next_ahead(self, start: int) -> int:
        """Return how many leaves to fetch ahead: none after a jump, more the longer it goes on."""
        if start != self._expected or start == 0:
            return 0
        return min(max(2 * self._ahead, 1), AHEAD_BLOCKS_MAX)

    async def _leaf_with(self, at: int, end: int) -> tuple[_Leaf, bytes]:
        """Return the leaf that has a byte; begin to fetch what follows it."""
        leaf = await self._find(at)
        task = self._begin(leaf)
        await self._begin_following(leaf, end)
        self._drop_others(leaf)
        try:
            return leaf, await asyncio.shield(task)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._leaves.pop(leaf.start, None)  # the next read tries again
            raise

    async def _begin_following(self, leaf: _Leaf, end: int) -> None:
        at = leaf.start + leaf.child.size
        for count in range(AHEAD_BLOCKS_MAX):
            is_wanted = at < end or count < self._ahead
            if at >= self.size or not is_wanted:
                return
            following = await self._find(at)
            self._begin(following)
            at += following.child.size

    def _begin(self, leaf: _Leaf) -> asyncio.Task[bytes]:
        task = self._leaves.get(leaf.start)
        if task is None:
            task = self._leaves[leaf.start] = asyncio.create_task(self._fetch(leaf.child))
            task.add_done_callback(_heed)
        return task

    def _drop_others(self, leaf: _Leaf) -> None:
        """Let go of what is behind, but for what was read last, and of what a jump left ahead."""
        first = leaf.start - leaf.child.size
        last = leaf.start + (AHEAD_BLOCKS_MAX + 1) * max(leaf.child.size, 1)
        for start in [start for start in self._leaves if not first <= start <= last]:
            self._leaves.pop(start).cancel()

    async def _fetch(self, child: Child) -> bytes:
        if self._first is not None:
            return self._first
        data = await self._fetcher.fetch(child.cid)
        if len(data) != child.size:
            raise FormatError(
                f"block {child.cid}: its parent says {child.size} bytes, it holds {len(data)}"
            )
        return data

    # --- Nodes ------------------------------------------------------------------------------------

    async def _find(self, at: int) -> _Leaf:
        node, depth = self._root, 1
        while True:
            index = bisect_right(node.starts, at) - 1
            child, start = node.children[index], node.starts[index]
            if child.cid.codec is Codec.RAW:
                return _Leaf(start, child)
            depth += 1
            node = await self._inner(child, start, depth)

    async def _inner(self, child: Child, start: int, depth: int) -> _Node:
        name = start * DEPTH_MAX + depth
        known = self._nodes.pop(name, None)
        if known is None:
            known = _Node(await self._parsed(child, depth), start)
        self._nodes[name] = known
        if len(self._nodes) > READER_NODES_MAX:
            del self._nodes[next(iter(self._nodes))]
        return known

    async def _parsed(self, child: Child, depth: int) -> FileNode:
        with naming(f"block {child.cid}"):
            if depth > DEPTH_MAX:
                raise FormatError(f"deeper than {DEPTH_MAX} levels of a file")
            data = await self._fetcher.fetch(child.cid)
            node = await in_thread(lambda: parse_file_node(data))
            if node.size != child.size:
                raise FormatError(f"its parent says {child.size} bytes, it holds {node.size}")
        return node


def _heed(task: asyncio.Task[bytes]) -> None:
    """Take the error of a leaf that nobody read in the end; asyncio would log it."""
    if not task.cancelled():
        task.exception()
