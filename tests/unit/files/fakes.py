"""Fakes that the tests of files share: a network of blocks in a dict, and the vectors' content."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from xorbit.config import LOOK_FIRST_BYTES_MIN
from xorbit.errors import NotFoundError, NotStoredError
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.unixfs import build_file
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind, block_key

REPOSITORY = Path(__file__).parents[3]
OWN = Id(bytes(32))
"""The node that puts, as the fake network knows it: the first holder of everything."""
VECTORS = Path(os.environ.get("XORBIT_VECTORS", REPOSITORY.parent / "shared" / "vectors"))


def vectors(what: str) -> list[dict[str, Any]]:
    """Return a list of unixfs.json; skip where the vectors are not beside the checkout."""
    path = VECTORS / "unixfs.json"
    if not path.exists():
        pytest.skip(f"no vectors at {path}; set XORBIT_VECTORS to the folder that holds them")
    listed: list[dict[str, Any]] = json.loads(path.read_text())[what]
    return listed


def file_vectors() -> list[dict[str, Any]]:
    """Return the files of unixfs.json."""
    return vectors("files")


def vector_content(size: int, a: int, b: int) -> Iterator[bytes]:
    """Yield the bytes that unixfs.json's note describes, 64 KiB at a time.

    Modulo 256, `i*a` and `(i>>8)*31` repeat every 65,536 bytes, and `(i>>16)*17` adds 17 with each
    repetition.
    """
    first = bytes((i * a + b + (i >> 8) * 31) % 256 for i in range(65_536))
    for repetition, start in enumerate(range(0, size, 65_536)):
        shift = bytes((byte + repetition * 17) % 256 for byte in range(256))
        yield first.translate(shift)[: size - start]


def names(folder: Path) -> list[str]:
    """Return the names of what is in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir())


class SlowPipe(FileIO):
    """The end of a pipe that does not block; each part comes once there was nothing to read."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)
        reading, self._writing = os.pipe()
        os.set_blocking(reading, False)
        super().__init__(reading)

    read = RawIOBase.read  # by readinto, as a buffer does

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        if count is None and self._parts:
            os.write(self._writing, self._parts.pop(0))
        elif count is None:
            os.close(self._writing)
        return count


class Receipt(Struct, frozen=True):
    holders: tuple[Id, ...]
    not_kept: str = ""
    held_before: bool = False

    @property
    def others(self) -> tuple[Id, ...]:
        return tuple(holder for holder in self.holders if holder != OWN)


class FakeBlocks:
    """A network in a dict. Answers come newest request first, so never in the order of asking."""

    def __init__(self, holders: Callable[[bytes], int] = lambda data: 3) -> None:
        self.held: dict[ItemKey, bytes] = {}
        self.calls = 0
        self.in_flight = 0
        self.in_flight_max = 0
        self.before_answer: Callable[[], None] = lambda: None
        self.fails: set[ItemKey] = set()
        self.hangs: set[ItemKey] = set()
        self.hanging = asyncio.Event()
        self._holders = holders
        self._waiting: list[asyncio.Future[None]] = []

    async def store_block(self, data: bytes, kind: Kind) -> Receipt:
        key = block_key(data, kind)
        await self._turn(key)
        if key in self.fails:
            raise NotStoredError("nobody took it")
        before = key in self.held and len(data) >= LOOK_FIRST_BYTES_MIN  # smaller: nobody asks
        self.held[key] = data
        holders = tuple(Id(bytes([n]) * 32) for n in range(self._holders(data)))
        return Receipt(holders, held_before=before)

    async def get_block(self, key: ItemKey) -> bytes:
        await self._turn(key)
        if key in self.fails or key not in self.held:
            raise NotFoundError("nobody has it")
        return self.held[key]

    async def _turn(self, key: ItemKey) -> None:
        self.calls += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        try:
            self.before_answer()
            if key in self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
            loop = asyncio.get_running_loop()
            mine: asyncio.Future[None] = loop.create_future()
            self._waiting.append(mine)
            loop.call_soon(self._answer_newest)
            await mine
        finally:
            self.in_flight -= 1

    def _answer_newest(self) -> None:
        newest = self._waiting.pop()
        if not newest.done():
            newest.set_result(None)

    def add(self, data: bytes, codec: Codec = Codec.RAW) -> Cid:
        """Hold a block that proves itself."""
        cid = cid_of_block(data, codec)
        self.held[cid.key] = data
        return cid

    def add_file(self, content: bytes, chunk_bytes: int, children_max: int) -> Cid:
        """Hold a file of small blocks and return its root."""
        made = build_file([content], chunk_bytes=chunk_bytes, children_max=children_max)
        for cid, data in made:
            self.held[cid.key] = data
        return cid
