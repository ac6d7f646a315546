"""The file system that fsspec finds under `xorbit://`.

Here is only what fsspec asks for, and in its words; what is done is in reading.py, in which thread
in line.py. fsspec has no types: what is unknown ends here and in file.py.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportIncompatibleMethodOverride=false

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NoReturn

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import isfilelike
from msgspec import Struct

from xorbit.api import open_calls
from xorbit.config import FS_VERSION_S
from xorbit.errors import MisuseError
from xorbit.filesystem.blocks import Opening
from xorbit.filesystem.file import AsyncXorbitFile, LeafCache, XorbitFile
from xorbit.filesystem.line import Line, line_of
from xorbit.filesystem.problems import is_read_only
from xorbit.filesystem.reading import Bound, Info, OpenedFile, Reading
from xorbit.run.calls import Calls

OWN_OPTIONS = ("home", "bootstrap", "network", "network_secret", "listings_expiry_time")
COMMON_OPTIONS = (
    "add_aliases",
    "add_docs",
    "asynchronous",
    "batch_size",
    "loop",
    "max_paths",
    "skip_instance_cache",
    "use_listings_cache",
)
"""What fsspec, or who uses it, gives to every file system."""


class Options(Struct, frozen=True):
    """What a file system is made with: instances of the same options share a node."""

    home: str | None
    bootstrap: tuple[str, ...]
    network: str | None
    network_secret: str | None
    version_s: float

    def open(self) -> AbstractAsyncContextManager[Calls]:
        """Use the node of the home, or be one for as long as somebody reads."""
        return open_calls(
            None if self.home is None else Path(self.home).expanduser(),
            bootstrap=self.bootstrap,
            network=self.network,
            secret=self._secret(),
            control=True,
        )

    def _secret(self) -> bytes | None:
        if self.network_secret is None:
            return None
        try:
            return Path(self.network_secret).expanduser().read_bytes()
        except OSError as error:  # none of the paths that are asked for
            raise MisuseError(f"cannot read the network's secret: {error}") from error


class XorbitFileSystem(AsyncFileSystem):
    """What the network holds, read by names: `xorbit://CID/PATH`, or `xorbit://PUBLICKEY/PATH`.

    It uses the node that runs on the home, as the commands do. With none running it joins as a
    client for as long as the instance lives, and other processes of this machine use that client
    meanwhile. It is made, pickled and sent to workers by its options alone; it may be used from
    several threads and event loops, and after a fork.
    """

    protocol = "xorbit"

    def __init__(
        self,
        home: str | PathLike[str] | None = None,
        bootstrap: str | Sequence[str] = (),
        network: str | None = None,
        network_secret: str | PathLike[str] | None = None,
        listings_expiry_time: float | None = None,
        **storage_options: Any,
    ) -> None:
        """Describe it; a node is looked for when something is first read.

        Args:
            home: The directory of the node; by default `XORBIT_HOME`, else your data directory.
            bootstrap: "HOST:PORT" of nodes to join through, one or several, besides those
                remembered; only where no node runs on the home.
            network: The network's public name.
            network_secret: A file with the secret that its members share. The path is what is
                pickled, never the secret.
            listings_expiry_time: For how many seconds the newest version of a key's tree counts as
                that, 30 by default. What a CID names never changes.
            **storage_options: Those of every fsspec file system: `asynchronous`, `batch_size`,
                `skip_instance_cache`.

        Raises:
            TypeError: an option that there is not: with a name misspelt it might join another
                network than was meant.
        """
        _check_options(storage_options)
        super().__init__(**storage_options)
        several = (bootstrap,) if isinstance(bootstrap, str) else tuple(bootstrap)
        self._options = Options(
            home=None if home is None else fspath(home),
            bootstrap=several,
            network=network,
            network_secret=None if network_secret is None else fspath(network_secret),
            version_s=FS_VERSION_S if listings_expiry_time is None else listings_expiry_time,
        )
        self._own_line: Line | None = None

    # --- Where it is done -------------------------------------------------------------------------

    @property
    def line(self) -> Line:
        """The thread that reads from the home, in this process."""
        line = self._own_line
        if line is None or not line.is_usable:
            line = self._own_line = line_of(self._options, partial(_reading, self._options))
        return line

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of that thread, in which fsspec does what is not awaited."""
        return self.line.loop

    def _bare(self, path: str) -> str:
        """Return a path without its scheme."""
        return str(self._strip_protocol(path))

    # --- What is there ----------------------------------------------------------------------------

    async def _info(self, path: str, **_: Any) -> Info:
        name = self._bare(path)
        return await self.line.do(lambda reading: reading.info(name))

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        name = self._bare(path)
        if options.get("refresh"):
            await self.line.do(lambda reading: reading.forget_versions())
        found = await self.line.do(lambda reading: reading.entries(name))
        return found if detail else [info["name"] for info in found]

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look anew for the newest versions of what public keys point to; a CID has but one."""
        if self._own_line is not None:
            self._own_line.begin(self._own_line.reading.forget_versions)
        super().invalidate_cache(path)

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any
    ) -> Any:
        """Return what is below a path, without symbolic links.

        They are not followed, so `get` and whatever else takes all that is found would end in an
        error, with half of a copy made. `ls`, `walk` and `info` show them.
        """
        detail = options.pop("detail", False)
        found: Any = await super()._find(path, maxdepth, withdirs, detail=True, **options)
        kept = {name: info for name, info in found.items() if info.get("type") != "link"}
        return kept if detail else list(kept)

    async def _walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: Any = None,
        **options: Any,
    ) -> AsyncGenerator[Any]:
        """Raise, unless told otherwise, where a folder is there and cannot be had.

        fsspec would pass it over, and what is copied or counted would lack it without a word.
        """
        told: Any = on_error or _raise_if_there
        async for step in super()._walk(path, maxdepth, topdown, told, **options):
            yield step

    # --- What is in it ----------------------------------------------------------------------------

    async def _cat_file(self, path: str, start: Bound = None, end: Bound = None, **_: Any) -> bytes:
        [data] = await self._cat_ranges([path], [start], [end], on_error="raise")
        return data

    async def _cat_ranges(
        self,
        paths: Any,
        starts: Bound | Iterable[Bound],
        ends: Bound | Iterable[Bound],
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return ranges of files, at once; `max_gap` and `batch_size` are for others.

        What is near enough to be fetched together is what is in the same blocks, and each of those
        is fetched once.
        """
        if not isinstance(paths, list):
            raise TypeError(f"expected a list of paths, got {type(paths).__name__}")
        names = [self._bare(path) for path in paths]
        count = len(names)
        first, last = _each(starts, count), _each(ends, count)
        if len(first) != count or len(last) != count:
            raise ValueError(f"{count} paths, but {len(first)} starts and {len(last)} ends")
        found = await self.line.do(lambda reading: reading.ranges(names, first, last))
        if on_error != "return":
            for one in found:
                if isinstance(one, BaseException):
                    raise one
        return found

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        name = self._bare(rpath)
        to = lpath.write if isfilelike(lpath) else Path(lpath)
        if isinstance(to, Path) and (await self._info(name))["type"] == "directory":
            to.mkdir(parents=True, exist_ok=True)
            return
        tell = partial(_tell, callback)
        await self.line.do(lambda reading: reading.fetch_to(name, to, tell))

    # --- Open files -------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = LeafCache.name,
        **_: Any,
    ) -> XorbitFile:
        _check_mode(path, mode)
        name = self._bare(path)
        return XorbitFile(self, name, self.opened(name), block_size, cache_type, cache_options)

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> AsyncXorbitFile:
        """Open a file whose `read` and `close` are awaited."""
        _check_mode(path, mode)
        name = self._bare(path)
        file = await self.line.do(lambda reading: reading.open(name))
        return AsyncXorbitFile(self, name, file)

    def opened(self, path: str) -> OpenedFile:
        """Open a file in the thread that reads; `XorbitFile` stands on it."""
        return self._now(lambda reading: reading.open(path))

    def read_opened(self, file: OpenedFile, start: int, end: int) -> bytes:
        """Return a part of an open file; `XorbitFile` stands on it."""
        return self._now(lambda _: file.read(start, end))

    async def read_opened_async(self, file: OpenedFile, start: int, end: int) -> bytes:
        """Return a part of an open file; `AsyncXorbitFile` stands on it."""
        return await self.line.do(lambda _: file.read(start, end))

    def _now(self, work: Callable[[Reading], Any]) -> Any:
        return sync(self.loop, self.line.do, work)

    # --- What is refused --------------------------------------------------------------------------

    async def _pipe_file(self, path: str, value: bytes, **_: Any) -> NoReturn:
        raise is_read_only(path)

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> NoReturn:
        raise is_read_only(rpath)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> NoReturn:
        raise is_read_only(path2)

    async def _rm_file(self, path: str, **_: Any) -> NoReturn:
        raise is_read_only(path)

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> NoReturn:
        raise is_read_only(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> NoReturn:
        raise is_read_only(path)

    def rmdir(self, path: str) -> NoReturn:
        """Refuse."""
        raise is_read_only(path)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> NoReturn:
        """Refuse."""
        raise is_read_only(path)


def _reading(options: Options) -> Reading:
    opening: Opening = options.open
    return Reading(opening, options.version_s)


def _check_options(given: Iterable[str]) -> None:
    unknown = [repr(name) for name in given if name not in COMMON_OPTIONS]
    if unknown:
        raise TypeError(
            f"no such storage option of xorbit: {', '.join(unknown)}; expected some of "
            f"{', '.join(OWN_OPTIONS)}"
        )


def _raise_if_there(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _check_mode(path: str, mode: str) -> None:
    if set(mode) != set("rb"):
        raise is_read_only(path)


def _each(bounds: Bound | Iterable[Bound], count: int) -> list[Bound]:
    return list(bounds) if isinstance(bounds, Iterable) else [bounds] * count


def _tell(callback: Callback, done: int, total: int | None) -> None:
    if total is not None:
        callback.set_size(total)
    callback.absolute_update(done)
