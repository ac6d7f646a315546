"""Files that are open for reading: the right bytes wherever one looks, and no more is fetched."""

import asyncio
import io
from random import Random

import pytest

from tests.unit.files.fakes import FakeBlocks
from tests.unit.files.test_transfer import file_node
from xorbit.errors import FormatError, MisuseError, NotFoundError
from xorbit.files import trees
from xorbit.files.cid import Cid, Codec, Place, cid_of_block
from xorbit.files.reader import FileReader, open_reader
from xorbit.files.unixfs import DEPTH_MAX

CONTENT = bytes(index * 7 % 251 for index in range(1_000))


async def opened(blocks: FakeBlocks, cid: Cid) -> FileReader:
    return await open_reader(blocks, await trees.find(blocks, Place(cid)))


def flat() -> tuple[FakeBlocks, Cid]:
    """Return a file of 250 leaves of 4 bytes under one node."""
    blocks = FakeBlocks()
    return blocks, blocks.add_file(CONTENT, 4, 1_024)


@pytest.mark.parametrize("children", [2, 3, 1_024])
async def test_reads_like_a_file(children: int) -> None:
    """Seeks and reads by chance give what a file in memory gives."""
    blocks = FakeBlocks()
    model = io.BytesIO(CONTENT)
    rng = Random(children)
    async with await opened(blocks, blocks.add_file(CONTENT, 8, max(children, 3))) as file:
        for _ in range(200):
            match rng.randrange(4):
                case 0:
                    where = rng.randrange(1_100)
                    assert file.seek(where) == model.seek(where)
                case 1:
                    back = rng.randrange(-1_000, 10)
                    assert file.seek(back, io.SEEK_END) == model.seek(back, io.SEEK_END)
                case _:
                    size = rng.choice([0, 1, 5, 50, 400, -1])
                    assert await file.read(size) == model.read(size)
            assert file.tell() == model.tell()
    assert blocks.in_flight == 0


@pytest.mark.parametrize("content", [b"", b"small"])
async def test_files_of_one_leaf(content: bytes) -> None:
    blocks = FakeBlocks()
    async with await opened(blocks, blocks.add(content)) as file:
        assert file.size == len(content)
        assert await file.read() == content
        assert await file.read() == b""
        assert file.seek(0) == 0
        assert await file.read(2) == content[:2]
    assert blocks.calls == 1


async def test_a_jump_fetches_what_is_read_and_nothing_else() -> None:
    blocks, cid = flat()
    async with await opened(blocks, cid) as file:
        before = blocks.calls
        for at in (400, 800, 100):
            assert await file.read_at(at, at + 8) == CONTENT[at : at + 8]
        assert blocks.calls - before == 6


async def test_reads_that_follow_each_other_fetch_ahead_and_each_leaf_once() -> None:
    """At most 32 leaves are ahead of what is read."""
    blocks, cid = flat()
    async with await opened(blocks, cid) as file:
        most = 0
        for at in range(0, 1_000, 4):
            assert await file.read(4) == CONTENT[at : at + 4]
            most = max(most, blocks.calls - at // 4 - 2)
        assert blocks.calls == 1 + 250
        assert 16 <= most <= 32
        assert blocks.in_flight_max <= 33


async def test_a_leaf_that_nobody_has_is_an_error_and_can_be_tried_again() -> None:
    blocks, cid = flat()
    bad = cid_of_block(CONTENT[8:12], Codec.RAW)
    blocks.fails.add(bad.key)
    async with await opened(blocks, cid) as file:
        assert await file.read(8) == CONTENT[:8]
        with pytest.raises(NotFoundError, match=f"block {bad} of file {cid}"):
            await file.read(8)
        blocks.fails.clear()
        assert await file.read(8) == CONTENT[8:16]


async def test_lies_are_told() -> None:
    """Leaves and nodes that are not as large as their parent says, and files without an end."""
    blocks = FakeBlocks()
    leaf = blocks.add(b"xx")
    inner = blocks.add(file_node([(leaf, 2)]), Codec.DAG_PB)
    deep = leaf
    for _ in range(DEPTH_MAX + 1):
        deep = blocks.add(file_node([(deep, 2)]), Codec.DAG_PB)
    for root, says in (
        (blocks.add(file_node([(leaf, 3)]), Codec.DAG_PB), f"block {leaf}: its parent says 3"),
        (blocks.add(file_node([(inner, 3)]), Codec.DAG_PB), f"block {inner}: its parent says 3"),
        (deep, "deeper than 8 levels"),
    ):
        async with await opened(blocks, root) as file:
            with pytest.raises(FormatError, match=says):
                await file.read()


async def test_what_cannot_be_is_told() -> None:
    blocks, cid = flat()
    file = await opened(blocks, cid)
    for offset, whence in ((-1, 0), (0, 9), (-1_001, 2)):
        with pytest.raises(MisuseError, match="expected a place in the file"):
            file.seek(offset, whence)
    await file.close()
    await file.close()
    with pytest.raises(MisuseError, match="was closed"):
        await file.read()


async def test_closing_cancels_what_is_coming() -> None:
    blocks, cid = flat()
    file = await opened(blocks, cid)
    blocks.hangs.add(cid_of_block(CONTENT[:4], Codec.RAW).key)
    reading = asyncio.create_task(file.read(100))
    await blocks.hanging.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await file.close()
    assert blocks.in_flight == 0


async def test_few_nodes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xorbit.files.reader.READER_NODES_MAX", 2)
    blocks = FakeBlocks()
    async with await opened(blocks, blocks.add_file(CONTENT[:100], 4, 3)) as file:
        assert await file.read() == CONTENT[:100]
        assert len(file._nodes) <= 2
