"""A home in a dict for the tests of the file system: it counts the blocks that are asked for."""

import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from tests.unit.files.trees import Shelf
from xorbit.errors import NotFoundError, StoppedError, XorbitError
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.flow import PutReceipt
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.filesystem import XorbitFileSystem
from xorbit.filesystem.line import Line, line_of
from xorbit.filesystem.reading import Reading
from xorbit.items import Item, ItemKey, Kind, Record, key_of
from xorbit.pins import Order, Told
from xorbit.run.file_calls import FileCalls, Name, cid_from

LARGE = Random(1).randbytes(20 * CHUNK_BYTES + 1_000)
SMALL = b"a small file\n"
NOBODY = "bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


class FakeCalls(FileCalls):
    """What a node says that holds what is on a shelf; for reading."""

    def __init__(self, home: "FakeHome") -> None:
        self._home = home
        self.is_gone = False

    async def get_block(self, key: Name) -> bytes:
        wanted = cid_from(key).key
        self._home.asked[wanted] += 1
        await self._home.before_answer()
        if self.is_gone:
            raise StoppedError("the node stopped")
        found = self._home.blocks().get(wanted)
        if found is None:
            raise NotFoundError("nobody has it")
        return found

    async def get_signed(self, key: ItemKey) -> Item:
        self._home.asked[key] += 1
        if key not in self._home.records:
            raise NotFoundError("nobody has the record")
        return self._home.records[key]

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        raise NotImplementedError

    async def tend(self, order: Order) -> Told:
        raise NotImplementedError

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        raise NotImplementedError

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        raise NotImplementedError


class FakeHome(Shelf):
    """A shelf with a node on it, which may stop, start again, or fail to start."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[ItemKey] = Counter()
        self.records: dict[ItemKey, Item] = {}
        self.fails_to_open: list[XorbitError] = []
        self.opened: list[FakeCalls] = []
        self.left = 0
        self.all_left = threading.Event()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[FileCalls]:
        if self.fails_to_open:
            raise self.fails_to_open.pop()
        calls = FakeCalls(self)
        self.opened.append(calls)
        try:
            yield calls
        finally:
            self.left += 1
            self.all_left.set()

    async def before_answer(self) -> None:
        """Let a test hold up an answer."""

    def stop(self) -> None:
        """Stop the node; another starts when somebody next looks for one."""
        self.opened[-1].is_gone = True

    def blocks(self) -> dict[ItemKey, bytes]:
        return {cid.key: data for cid, data in self.held.items()}

    def publish(self, record: Record) -> None:
        self.records[key_of(record)] = record

    def lose(self, cid: Cid) -> None:
        del self.held[cid]

    def system(self, **options: Any) -> "FakeSystem":
        return FakeSystem(self, skip_instance_cache=True, **options)


class FakeSystem(XorbitFileSystem):
    """The file system as it is, on such a home."""

    def __init__(self, home: FakeHome, **options: Any) -> None:
        super().__init__(**options)
        self.fake = home

    @property
    def line(self) -> Line:
        home, version_s = self.fake, self._options.version_s
        if self._own_line is None:
            self._own_line = line_of(id(home), lambda: Reading(home.open, version_s))
        return self._own_line


def leaf(start: int) -> Cid:
    """The name of the block of the large file in which a byte is."""
    start -= start % CHUNK_BYTES
    return cid_of_block(LARGE[start : start + CHUNK_BYTES], Codec.RAW)


def leaves_asked(home: FakeHome) -> dict[int, int]:
    """How often each leaf of the large file was asked for."""
    counted = {at: home.asked[leaf(at).key] for at in range(0, len(LARGE), CHUNK_BYTES)}
    return {at // CHUNK_BYTES: count for at, count in counted.items() if count}
