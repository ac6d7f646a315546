"""Open files in the form that fsspec's users expect, for programs with and without an event loop.

What is fetched, and what ahead, xorbit's own reader decides (`files/reader.py`). Here is only what
keeps small reads from crossing to its thread each time. fsspec has no types: what is unknown ends
here and in system.py.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from fsspec.asyn import AbstractAsyncStreamedFile
from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile

from xorbit.config import FS_LINE_BYTES
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.filesystem.problems import shown
from xorbit.filesystem.reading import OpenedFile

if TYPE_CHECKING:
    from xorbit.filesystem.system import XorbitFileSystem


class LeafCache(BaseCache):
    """Keeps the rest of the leaf that was read last, so that small reads ask once for a leaf.

    A read never makes a leaf be fetched that it has no byte of: only the reader's own read-ahead
    does, and that only while reads follow each other.
    """

    name: ClassVar[str] = "xorbit"

    def __init__(
        self,
        blocksize: int,
        fetcher: Callable[[int, int], bytes],
        size: int,
        leaf_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Ask `fetcher` for the bytes from one place to before another."""
        super().__init__(blocksize, fetcher, size)
        self._leaf_bytes = leaf_bytes
        self._at = 0
        self._held = b""
        self._last = (0, 0)

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = start or 0
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        # Who looks for the end of a line steps back behind it: that still follows.
        follows = self._last[0] <= start <= self._last[1]
        self._last = start, stop
        end = self._at + len(self._held)
        if self._at <= start and stop <= end:
            return self._held[start - self._at : stop - self._at]
        is_held = follows and self._at <= start < end
        head = self._held[start - self._at :] if is_held else b""
        missing = start + len(head)
        data = head + self.fetcher(missing, self._up_to(missing, stop))
        self._at, self._held = start, data if len(data) <= 2 * self._leaf_bytes else b""
        return data[: stop - start]

    def _up_to(self, start: int, stop: int) -> int:
        """Return where to stop: for a small read where the last leaf that it touches ends."""
        if stop - start >= self._leaf_bytes:
            return stop
        return min(-(-stop // self._leaf_bytes) * self._leaf_bytes, self.size)


register_cache(LeafCache, clobber=True)


class XorbitFile(AbstractBufferedFile):
    """A file of the network: seekable, read-only, picklable. Made by `XorbitFileSystem.open`."""

    def __init__(
        self,
        fs: "XorbitFileSystem",
        path: str,
        file: OpenedFile,
        block_size: int | None = None,
        cache_type: str = LeafCache.name,
        cache_options: dict[str, Any] | None = None,
    ) -> None:
        """Read an open file; another `cache_type` of fsspec may be put before it."""
        self._file = file
        self._line = fs.line
        if cache_type == LeafCache.name:
            cache_options = {"leaf_bytes": file.leaf_bytes}
        super().__init__(
            fs,
            path,
            "rb",
            "default" if block_size is None else block_size,  # pyright: ignore[reportArgumentType]
            cache_type=cache_type,
            cache_options=cache_options,
            size=file.size,
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        if not self._line.is_usable:  # this process was forked off since
            self._line, self._file = self.fs.line, self.fs.opened(self.path)
        return self.fs.read_opened(self._file, start, end)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.path)}>"

    __str__ = __repr__  # what fsspec logs

    def readuntil(self, char: bytes = b"\n", blocks: int | None = None) -> bytes:
        """Return the bytes up to and with a mark, or to the end of the file."""
        return super().readuntil(char, blocks or FS_LINE_BYTES)

    def close(self) -> None:
        """Let go of what was read ahead, without waiting. May be called again."""
        if not self.closed:
            super().close()
            self._line.begin(self._file.close)


class AsyncXorbitFile(AbstractAsyncStreamedFile):
    """The same where reads are awaited. Made by `XorbitFileSystem.open_async`."""

    def __init__(self, fs: "XorbitFileSystem", path: str, file: OpenedFile) -> None:
        """Read an open file."""
        self._file = file
        self._line = fs.line
        super().__init__(fs, path, "rb", cache_type="none", size=file.size)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        return await self.fs.read_opened_async(self._file, start, end)

    async def close(self) -> None:
        """Let go of what was read ahead. May be called again."""
        self._let_go()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.path)}>"

    __str__ = __repr__

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if not self.closed:
            self.closed = True
            self._line.begin(self._file.close)
