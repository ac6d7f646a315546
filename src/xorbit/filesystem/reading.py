"""What is read from one home by paths: what is there, listings, ranges of files, open files.

A path is `NAME/PATH`, as after `xorbit://`. Under a CID nothing ever changes, so what was found is
kept; the newest version of a key's tree counts as such for a while. On one event loop; the words
are those of fsspec, but nothing of its code may enter.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from xorbit.config import (
    FS_ENTRIES_HELD_MAX,
    FS_FOUND_HELD_MAX,
    FS_RANGES_AT_ONCE_MAX,
    FS_VERSION_S,
    FS_VERSIONS_HELD_MAX,
)
from xorbit.errors import MisuseError
from xorbit.files.cid import Cid, Place
from xorbit.files.directory import SymbolicLink
from xorbit.files.flow import Progress, owned_tasks
from xorbit.files.listing import EntryInfo
from xorbit.files.pointer import RecordPlace
from xorbit.files.reader import FileReader
from xorbit.files.sealed import SEAL_BYTES
from xorbit.files.tree import Found
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.filesystem.blocks import Latest, Opening, SharedCalls
from xorbit.filesystem.problems import as_os_errors, is_a_directory, is_a_link, no_such_name
from xorbit.run.file_calls import place_from

Info = dict[str, Any]
"""What is at a path, in the words of fsspec: name, size, type, and cid."""
Bound = int | None
"""Where a range begins or ends; below zero it counts from the end of the file, as in a slice."""


class OpenedFile:
    """A file that is open; several may read it, one after the other."""

    def __init__(self, reader: FileReader, path: str, leaf_bytes: int) -> None:
        """Read by a reader of one's own."""
        self.size = reader.size
        self.leaf_bytes = leaf_bytes
        """At which multiples its leaves begin, if its maker cut it as xorbit does."""
        self._reader = reader
        self._path = path
        self._turn = asyncio.Lock()

    async def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, as far as there are.

        Raises:
            OSError: a block could not be had, or is none of this file.
        """
        async with self._turn:
            with as_os_errors(self._path, is_there=True):
                return await self._reader.read_at(start, end)

    async def close(self) -> None:
        """Let go of what was read ahead."""
        await self._reader.close()


class _Range(Struct, frozen=True):
    """A part of a file that is wanted, and the place of its bytes among the answers."""

    start: int
    end: int
    at: int


class Reading:
    """Reads from the home whose calls are opened when they are first needed.

    Everything raises OSError: `FileNotFoundError` of what is not there, other kinds of what could
    not be had.
    """

    def __init__(self, opening: Opening, version_s: float = FS_VERSION_S) -> None:
        """Take the version of a key's tree for the newest for `version_s`."""
        self._calls = SharedCalls(opening)
        self._version_s = version_s
        self._versions: Latest[RecordPlace, tuple[float, Place]] = Latest(FS_VERSIONS_HELD_MAX)
        self._entries: Latest[Place, EntryInfo] = Latest(FS_ENTRIES_HELD_MAX)
        self._found: Latest[Place, Found] = Latest(FS_FOUND_HELD_MAX)
        self._slots = asyncio.Semaphore(FS_RANGES_AT_ONCE_MAX)

    async def close(self) -> None:
        """Leave the home."""
        await self._calls.close()

    async def forget_versions(self) -> None:
        """Ask again which version of a key's tree is the newest."""
        self._versions.clear()

    # --- What is there ----------------------------------------------------------------------------

    async def info(self, path: str) -> Info:
        """Say what is at a path."""
        with as_os_errors(path):
            return _info(path, await self._entry(await self._place(path)))

    async def entries(self, path: str) -> list[Info]:
        """Return what is in a directory, in the order of the names; of a file, itself."""
        with as_os_errors(path):
            place = await self._place(path)
            own = await self._entry(place)
            if not own.is_directory:
                return [_info(path, own)]
            with as_os_errors(path, is_there=True):
                entries = await self._calls.ls(place)
            for entry in entries:
                self._entries.put(replace(place, path=(*place.path, entry.name)), entry)
            return [_info(f"{path}/{entry.name}", entry) for entry in entries]

    async def _place(self, path: str) -> Place:
        try:
            named = place_from(path)
        except MisuseError as error:
            raise no_such_name(error, path) from error
        if isinstance(named, Place):
            return named
        return replace(await self._newest(replace(named, path=())), path=named.path)

    async def _newest(self, key: RecordPlace) -> Place:
        now = asyncio.get_running_loop().time()
        expires, place = self._versions.get(key) or (now, None)
        if place is None or expires <= now:
            place = await self._calls.place(key)
            self._versions.put(key, (now + self._version_s, place))
        return place

    async def _entry(self, place: Place) -> EntryInfo:
        known = self._entries.get(place)
        return known or self._entries.put(place, await self._described(place))

    async def _described(self, place: Place) -> EntryInfo:
        found = await self._find(place)
        if found.is_directory:  # `stat` would fetch all of it, to count what is in it
            return EntryInfo("", _cid_of(found), "directory", 0)
        return await self._calls.stat(place)

    async def _find(self, place: Place) -> Found:
        known = self._found.get(place)
        return known or self._found.put(place, await self._calls.find(place))

    async def _file(self, path: str) -> Found:
        found = await self._find(await self._place(path))
        if found.is_directory:
            raise is_a_directory(path)
        if isinstance(found.node, SymbolicLink):
            raise is_a_link(path, found.node.target)
        return found

    # --- What is in it ----------------------------------------------------------------------------

    async def open(self, path: str) -> OpenedFile:
        """Open a file; `close` it at the end."""
        with as_os_errors(path):
            found = await self._file(path)
            return OpenedFile(await self._calls.open(found), path, _leaf_bytes(found))

    async def fetch_to(
        self, path: str, to: Path | Callable[[bytes], object], progress: Progress
    ) -> None:
        """Fetch a file to a path of this machine, whole or not at all, or to a function."""
        written_to = str(to) if isinstance(to, Path) else ""
        with as_os_errors(path, written_to):
            found = await self._file(path)
            with as_os_errors(path, written_to, is_there=found.node is not None):
                await self._calls.get_file_to(found, to, progress=progress)

    async def ranges(
        self, paths: Sequence[str], starts: Sequence[Bound], ends: Sequence[Bound]
    ) -> list[bytes | BaseException]:
        """Return ranges of files, or what went wrong; at once, and no block is fetched twice."""
        by_path: dict[str, list[int]] = {}
        for at, path in enumerate(paths):
            by_path.setdefault(path, []).append(at)
        answers: list[bytes | BaseException] = [b""] * len(paths)

        async def fill(path: str, which: list[int]) -> None:
            try:
                found, wanted = await self._wanted(path, which, starts, ends)
            except OSError as error:
                for at in which:
                    answers[at] = error
                return
            for group in _grouped(wanted, _leaf_bytes(found)):
                tasks.create_task(self._group(path, found, group, answers))

        async with owned_tasks() as tasks:
            for path, which in by_path.items():
                tasks.create_task(fill(path, which))
        return answers

    async def _wanted(
        self, path: str, which: list[int], starts: Sequence[Bound], ends: Sequence[Bound]
    ) -> tuple[Found, list[_Range]]:
        with as_os_errors(path):
            async with self._slots:
                found = await self._file(path)
                async with await self._calls.open(found) as file:
                    size = file.size
        slices = [(*slice(starts[at], ends[at]).indices(size)[:2], at) for at in which]
        return found, [_Range(start, end, at) for start, end, at in slices if start < end]

    async def _group(
        self, path: str, found: Found, group: list[_Range], answers: list[bytes | BaseException]
    ) -> None:
        start, end = group[0].start, max(one.end for one in group)
        try:
            async with self._slots:
                with as_os_errors(path, is_there=True):
                    async with await self._calls.open(found) as file:
                        data = await file.read_at(start, end)
        except OSError as error:
            for one in group:
                answers[one.at] = error
            return
        for one in group:
            answers[one.at] = data[one.start - start : one.end - start]


def _cid_of(found: Found) -> Cid:
    place = place_from(found)
    assert isinstance(place, Place), "what was found has a CID"
    return place.cid


def _leaf_bytes(found: Found) -> int:
    return CHUNK_BYTES if found.seal is None else CHUNK_BYTES - SEAL_BYTES


def _grouped(wanted: list[_Range], leaf_bytes: int) -> list[list[_Range]]:
    """Put together what overlaps or is in the same leaf, so that each leaf is read once.

    Where a file's leaves are of other sizes, two groups may share one; then it comes from what is
    held.
    """
    groups: list[list[_Range]] = []
    end = 0
    for one in sorted(wanted, key=lambda one: one.start):
        if groups and one.start // leaf_bytes <= (end - 1) // leaf_bytes:
            groups[-1].append(one)
            end = max(end, one.end)
        else:
            groups.append([one])
            end = one.end
    return groups


def _info(path: str, entry: EntryInfo) -> Info:
    info: Info = {"name": path, "size": entry.size, "type": entry.kind, "cid": str(entry.cid)}
    match entry.kind:
        case "directory":
            info["size"] = 0  # what is in it weighs what its maker says; nobody counted
        case "symlink":
            info |= {"type": "link", "islink": True, "destination": entry.target}
        case "file":
            pass
    return info
