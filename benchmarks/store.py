"""Durable puts of full blocks against LMDB's own group commits, on the same disk.

The ceiling commits the blocks in batches of as many as are in flight at the node: a larger commit
cannot come about there.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.ceilings import BareLmdb
from benchmarks.measure import IN_FLIGHT, Row, compare, interleave, rate
from benchmarks.node import address_of, put, random_blocks, running_node
from xorbit.items import Block, ItemKey, key_of
from xorbit.run.driver import Driver
from xorbit.store.base import key_to_bytes

ROUNDS = 7
PUTS = 512
MAP_BYTES = 4 * 2**30


@asynccontextmanager
async def _bare(path: Path) -> AsyncIterator[BareLmdb]:
    bare = BareLmdb(path, MAP_BYTES)
    try:
        yield bare
    finally:
        bare.close()


def _fresh() -> list[tuple[Block, ItemKey]]:
    return [(block, key_of(block)) for block in random_blocks(PUTS)]


async def _puts(name: str, driver: Driver, path: Path) -> Row:
    async def ours() -> float:
        items = _fresh()
        return await rate(lambda item=item: put(driver, *item) for item in items)

    async def theirs() -> float:
        items = [(key_to_bytes(key), block.data) for block, key in _fresh()]
        return await asyncio.to_thread(bare.rate, items, IN_FLIGHT)

    async with _bare(path) as bare:
        pairs = await interleave(ROUNDS, ours, theirs)
    note = f"{IN_FLIGHT} in flight against {IN_FLIGHT} to a commit"
    return compare(name, "1/s", pairs, aim=0.5, note=note)


async def rows(disk: Path) -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=disk) as directory:
        home = Path(directory)
        async with running_node(home / "alone") as alone:
            local = await _puts("durable puts at a node alone", alone, home / "bare-1")
        async with (
            running_node(home / "server") as server,
            running_node(home / "client", address_of(server), listen=False) as client,
        ):
            wire = await _puts("durable puts from a client to a node", client, home / "bare-2")
        return [local, wire]
