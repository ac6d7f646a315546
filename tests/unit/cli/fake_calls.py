"""A node that does not exist, for the tests of what is typed."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from xorbit.errors import NotStoredError, StoppedError, WorldError
from xorbit.files.cid import Cid, Codec
from xorbit.ids import Id
from xorbit.items import Address, Contact, block_key
from xorbit.keys import UserKey
from xorbit.pins import Root
from xorbit.run.calls import Calls

NEAR, FAR = Id(b"\xaa" * 32), Id(b"\xbb" * 32)
HERE, THERE, INBOUND = (Address("127.0.0.1", port) for port in (4001, 4002, 5001))
LEAF = Cid(Codec.RAW, block_key(b"leaf"))
FILE = Cid(Codec.DAG_PB, block_key(b"file"))


class FakeCalls:
    """Answers what is asked, and remembers it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.cancelled: list[str] = []
        self.published: list[tuple[str, bytes, bytes, int | None]] = []
        self.got: list[tuple[Cid, Path]] = []
        self.gone = False
        self.full = False
        self.holder = FAR
        self.let_go: list[str] = []
        self.not_kept = ""
        self.home = Path()

    @property
    def calls(self) -> Calls:
        """The same, as what it stands for."""
        return cast("Calls", self)

    async def console(self, line: str) -> AsyncGenerator[str]:
        self.lines.append(line)
        if line == "gone" or self.gone:
            raise StoppedError("the node stopped")
        if line == "fail":
            raise WorldError("it failed")
        yield f"did {line}"
        yield ""
        try:
            if line == "wait":
                await asyncio.Event().wait()
        finally:
            self.cancelled.append(line)

    def type_line(self, line: str) -> None:
        self.lines.append(line)

    async def put_file(self, source: Path) -> Any:
        if self.full:
            raise NotStoredError("all are full")
        if source.name == "endless":
            await asyncio.Event().wait()
        return SimpleNamespace(
            cid=FILE, bytes=5, blocks=1, fewest=(self.holder,), not_kept=self.not_kept
        )

    async def get_file_to(self, cid: Cid, to: Path) -> int:
        self.got.append((cid, to))
        return 5

    async def publish(self, key: UserKey, value: bytes, *, salt: bytes, cas: int | None) -> Any:
        self.published.append((key.name, value, salt, cas))
        return SimpleNamespace(seq=7, holders=(NEAR, FAR), not_kept=self.not_kept)

    async def pins(self) -> tuple[Any, ...]:
        return (SimpleNamespace(root=Root(LEAF.key, size=4)),)

    async def pin(self, name: str) -> Root:
        return Root(LEAF.key, size=4)

    async def unpin(self, name: str) -> int:
        self.let_go.append(name)
        return 1

    async def gc(self) -> int:
        return 2

    async def status(self) -> Any:
        return SimpleNamespace(id=NEAR, network="test")

    async def peers(self) -> tuple[Any, ...]:
        if self.gone:
            raise StoppedError("the node stopped")
        return (SimpleNamespace(id=NEAR, address=INBOUND),)

    async def contacts(self) -> tuple[Contact, ...]:
        return (Contact(FAR, (THERE,)), Contact(NEAR, (HERE,)))
