"""Private content, for any bytes, sizes and shapes: what goes in comes out, changed it does not."""

import asyncio
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_trees import NAMES, TREES, Tree
from tests.unit.files.fakes import FakeBlocks
from tests.unit.files.trees import on_disk
from xorbit.errors import MisuseError
from xorbit.files import transfer, trees
from xorbit.files.cid import Codec, Place, cid_of_block, parse_place
from xorbit.files.opened import inner_place, opened, private_name
from xorbit.files.seal_key import SealKey, parse_key
from xorbit.files.sealed import SEAL_BYTES, Seal, Sealer
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.items import BLOCK_BYTES_MAX, Kind

ROOM = CHUNK_BYTES - SEAL_BYTES
SIZES = st.builds(
    lambda chunks, more: max(chunks * ROOM + more, 0),
    st.integers(0, 4),
    st.integers(-2 * SEAL_BYTES, 2 * SEAL_BYTES),
)
KEYS = st.builds(SealKey, st.binary(min_size=32, max_size=32), st.booleans())
SHORT_NAMES = NAMES.filter(lambda name: len(name.encode()) <= 100)
CID = cid_of_block(b"any", Codec.RAW)


async def put_and_get(source: Path, out: Path, kind: Kind) -> None:
    blocks = FakeBlocks()
    done = await transfer.put_tree(blocks, source, kind=Sealer(kind))
    assert max(map(len, blocks.held.values())) <= BLOCK_BYTES_MAX
    assert len(blocks.held) == done.blocks
    place = parse_place(done.name)
    reading = opened(blocks, place.seal)
    await trees.get_tree(reading, await trees.find(reading, inner_place(place)), out)


@given(SIZES, st.sampled_from([Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256]))
@settings(max_examples=40, deadline=None)
def test_files_of_all_sizes_near_the_limits_of_chunks_come_back(size: int, kind: Kind) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        source.write_bytes(content[:size])
        asyncio.run(put_and_get(source, out, kind))
        assert out.read_bytes() == content[:size]


def write(tree: Tree, path: Path) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, below in tree.items():
        write(below, path / name)


@given(st.dictionaries(SHORT_NAMES, TREES, max_size=4))
@settings(max_examples=40, deadline=None)
def test_trees_of_all_shapes_come_back(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        write(tree, source)
        asyncio.run(put_and_get(source, out, Kind.BLOCK_BLAKE3_256))
        assert on_disk(out) == on_disk(source)


@given(KEYS, st.lists(NAMES, max_size=3))
def test_names_come_back_from_their_text(key: SealKey, path: list[str]) -> None:
    name = "/".join((private_name(CID, key), *path))
    assert parse_place(name) == Place(CID, tuple(path), key)
    assert parse_key(key.text) == key
    assert key.text not in repr(parse_place(name)) + str(parse_place(name))


@given(st.text(max_size=70) | st.text(st.sampled_from("abc234567#/"), max_size=120))
def test_no_text_does_more_than_raise(text: str) -> None:
    """What stands behind # is a key or misuse."""
    try:
        place = parse_place(f"{CID}#{text}")
    except MisuseError:
        return
    assert place.seal is not None
    assert text.startswith(place.seal.text)


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1))
def test_a_block_opens_under_its_key_only(data: bytes, secret: bytes, position: int) -> None:
    block = Seal(secret).close(position, data)
    assert len(block) == len(data) + SEAL_BYTES
    assert Seal(secret).open(block) == data
    assert _opens(Seal(bytes(32)), block) == (secret == bytes(32))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=120))
def test_strange_bytes_do_not_open(secret: bytes, block: bytes) -> None:
    assert not _opens(Seal(secret), block)


def _opens(seal: Seal, block: bytes) -> bool:
    try:
        seal.open(block)
    except InvalidTag:
        return False
    return True
