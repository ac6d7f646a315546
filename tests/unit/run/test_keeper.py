"""What is let go of while something is pinned of which a part is missing still."""

import asyncio

import pytest

from tests.unit.store.samples import QUOTA_BYTES
from xorbit import errors
from xorbit.files.unixfs import CHUNK_BYTES, build_file
from xorbit.items import Item, ItemKey, make_block
from xorbit.pins import AddRoot, LetGo, Order, ScanPins, ScanRoots, Told
from xorbit.run.keeper import Keeper
from xorbit.run.pinning import RootName, pin, root_from
from xorbit.store.base import Write
from xorbit.store.memory import MemoryStore

*LEAVES, (TOP, NODE) = build_file([bytes(CHUNK_BYTES), bytes([1]) * CHUNK_BYTES])
LEAF = LEAVES[0][0]
ALL = {cid.key for cid, _ in (*LEAVES, (TOP, NODE))}


class Home:
    """A home that gets the topmost node of a file when pins are about to be let go of.

    Then all of the file is pinned, and noted as such behind the letting go, or before it.
    """

    def __init__(self, *, noted_first: bool) -> None:
        self.store = MemoryStore(QUOTA_BYTES)
        self.found: dict[ItemKey, bytes] = {cid.key: data for cid, data in LEAVES}
        self.is_begun, self.node_comes = asyncio.Event(), asyncio.Event()
        self.is_pinned, self.is_first = asyncio.Event(), asyncio.Event()
        self.first, self.second = (AddRoot, LetGo) if noted_first else (LetGo, AddRoot)

    async def tend(self, order: Order) -> Told:
        if isinstance(order, LetGo):
            self.node_comes.set()
            await self.is_pinned.wait()
        ends = isinstance(order, LetGo) or (isinstance(order, AddRoot) and order.number is not None)
        if ends and isinstance(order, self.second):
            await self.is_first.wait()
        [told] = self.store.tend([order])
        if ends and isinstance(order, self.first):
            self.is_first.set()
        return told

    async def get_block(self, key: ItemKey) -> bytes:
        if key not in self.found:
            raise errors.NotFoundError("nobody has it")
        return self.found[key]

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        if key == TOP.key:
            self.is_begun.set()
            await self.node_comes.wait()
            self.found[key] = NODE
        block = item or make_block(self.found[key])
        self.store.write([Write(key, block, pin=True)])
        if self.pinned() == ALL:
            self.is_pinned.set()
        return block

    async def unpin(self, name: RootName, salt: bytes = b"") -> int:
        raise NotImplementedError

    def pinned(self) -> set[ItemKey]:
        [told] = self.store.tend([ScanPins(99)])
        return set(told.keys)

    def stages(self) -> dict[ItemKey, str]:
        [told] = self.store.tend([ScanRoots(99)])
        return {kept.root.key: kept.root.stage for kept in told.roots}


@pytest.mark.parametrize(("noted_first", "count"), [(False, 1), (True, 0)])
async def test_what_comes_while_pins_are_let_go_of_is_pinned_whole(
    noted_first: bool, count: int
) -> None:
    """What it may need is let go of and then pinned once more, or is not let go of at all."""
    home = Home(noted_first=noted_first)
    await home.keep(LEAF.key)
    await home.tend(AddRoot(root_from(LEAF)))
    pinning = asyncio.create_task(pin(home, root_from(TOP)))
    async with asyncio.timeout(10):
        await home.is_begun.wait()
        assert await Keeper(home).unpin(root_from(LEAF)) == count
        assert (await pinning).size == 2 * CHUNK_BYTES
    assert home.stages() == {TOP.key: "kept"}
    assert home.pinned() == ALL
