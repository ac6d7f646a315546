"""Whole trees through a network of blocks: found, listed, got, kept, moved; and lies are told."""

import asyncio
from io import BytesIO
from pathlib import Path

import pytest

from tests.unit.files.fakes import FakeBlocks, names
from tests.unit.files.trees import Shelf, on_disk
from xorbit.errors import FormatError, MisuseError, NotFoundError, NotStoredError, WorldError
from xorbit.files import trees
from xorbit.files.car import encode_header, encode_section
from xorbit.files.cid import Cid, Codec, Place, cid_of_block
from xorbit.files.listing import Listing
from xorbit.files.local_tree import build_source, cid_of
from xorbit.files.transfer import put_tree

CONTENT = bytes(range(200))


def shelved(shelf: Shelf) -> FakeBlocks:
    """Return a network that holds what is on a shelf."""
    blocks = FakeBlocks()
    blocks.held = {cid.key: data for cid, data in shelf.held.items()}
    return blocks


def sample(shelf: Shelf) -> Cid:
    """Return a tree with a little of everything, its files of leaves of 4 bytes."""
    deep = shelf.directory({"file": shelf.file(CONTENT), "link": shelf.link("../one")})
    empty = shelf.directory({})
    return shelf.directory(
        {"one": shelf.file(b"one"), "deep": deep, "empty": empty, "none": shelf.file(b"")}
    )


async def get(
    blocks: FakeBlocks, root: Cid, out: Path, window: int = 4, progress: object = None
) -> trees.Written:
    found = await trees.find(blocks, Place(root))
    return await trees.get_tree(blocks, found, out, window=window, progress=progress)


# --- Put and get --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 32])
async def test_a_tree_comes_back_from_disk_to_disk(tmp_path: Path, window: int) -> None:
    """Whatever the window, what comes back is what was put, and it has the name of `cid_of`."""
    source, blocks = tmp_path / "source", FakeBlocks()
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "large").write_bytes(CONTENT * 1_000)
    (source / "a" / "b" / "link").symlink_to("../large")
    for number in range(50):
        (source / f"{number}").write_bytes(b"%d" % number)
    told: list[tuple[int, int | None]] = []
    done = await put_tree(
        blocks, source, window=window, progress=lambda *told_of: told.append(told_of)
    )
    size = 200_000 + 10 + 2 * 40
    assert done.cid == cid_of(source)
    assert (done.bytes, told[0], told[-1]) == (size, (0, size), (size, size))
    assert blocks.in_flight_max <= window
    got: list[tuple[int, int | None]] = []
    written = await get(
        blocks, done.cid, tmp_path / "out", window, lambda *told_of: got.append(told_of)
    )
    assert on_disk(tmp_path / "out") == on_disk(source)
    assert written == trees.Written(files=51, folders=3, links=1, bytes=size)
    assert got[-1][0] == size
    assert blocks.in_flight_max <= 2 * window + 1


async def test_a_file_may_stand_where_a_tree_is_asked_for(tmp_path: Path) -> None:
    shelf = Shelf()
    for content in (b"", b"one", CONTENT):
        out = tmp_path / f"{len(content)}"
        root = shelf.file(content)
        written = await get(shelved(shelf), root, out)
        assert (out.read_bytes(), written.files, written.bytes) == (content, 1, len(content))
    (tmp_path / "file").write_bytes(b"file")
    done = await put_tree(FakeBlocks(), tmp_path / "file")
    assert done.cid == cid_of(b"file")


async def test_what_is_no_tree_to_put_is_told(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="there is none at"):
        await put_tree(FakeBlocks(), tmp_path / "missing", progress=lambda *_: None)


@pytest.mark.parametrize("bad", ["leaf", "node"])
async def test_a_get_that_fails_leaves_nothing_at_the_path(tmp_path: Path, bad: str) -> None:
    """A block that nobody has ends the get, is named, and what came is kept beside the path."""
    shelf = Shelf()
    root = sample(shelf)
    blocks = shelved(shelf)
    missing = shelf.file(CONTENT) if bad == "node" else cid_of_block(CONTENT[100:104], Codec.RAW)
    blocks.fails.add(missing.key)
    with pytest.raises(NotFoundError, match=f"block {missing} of tree {root}"):
        await get(blocks, root, tmp_path / "out")
    assert [name[:8] for name in names(tmp_path)] == [".xorbit-"]
    assert blocks.in_flight == 0


async def test_a_get_that_is_cancelled_leaves_nothing_at_the_path(tmp_path: Path) -> None:
    shelf = Shelf()
    root = sample(shelf)
    blocks = shelved(shelf)
    blocks.hangs.add(cid_of_block(CONTENT[100:104], Codec.RAW).key)
    task = asyncio.create_task(get(blocks, root, tmp_path / "out"))
    await blocks.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [name[:8] for name in names(tmp_path)] == [".xorbit-"]
    assert blocks.in_flight == 0


async def test_hostile_trees_write_nothing(tmp_path: Path) -> None:
    """Links that lead outside, leaves that lie about their size, files larger than the disk."""
    shelf = Shelf()
    leaf = shelf.add(b"xx", Codec.RAW)
    lying = shelf.directory({"a": shelf.file(b"a"), "b": shelf.file_node([(leaf, 3)])})
    huge = shelf.directory({"a": shelf.file_node([(shelf.file(CONTENT), 2**62)])})
    outside = shelf.directory({"link": shelf.link("../../etc")})
    alone = shelf.link("x")
    for root, error, says in (
        (lying, FormatError, f"block {leaf} .*its parent says 3 bytes, it holds 2"),
        (huge, WorldError, "more than are free"),
        (outside, FormatError, "leads outside"),
        (alone, FormatError, "outside of any tree"),
    ):
        with pytest.raises(error, match=says):
            await get(shelved(shelf), root, tmp_path / "out")
        assert names(tmp_path) == []


# --- Places -------------------------------------------------------------------------------------


async def test_places_are_found_with_the_blocks_on_the_way_only() -> None:
    shelf = Shelf()
    root = sample(shelf)
    blocks = shelved(shelf)
    assert (await trees.stat(blocks, Place(root, ("deep", "link")))).target == "../one"
    assert blocks.calls == 3
    said = await trees.stat(blocks, Place(root, ("none",)))
    assert (said.name, said.kind, said.size) == ("none", "file", 0)
    said = await trees.stat(blocks, Place(root))
    assert (said.name, said.kind, said.entries) == (str(root), "directory", 4)
    with pytest.raises(NotFoundError, match="has no entry"):
        await trees.find(blocks, Place(root, ("nowhere",)))


@pytest.mark.parametrize("count", [0, 3, 2_000])
async def test_directories_are_listed_by_name_in_one_node_or_many(count: int) -> None:
    shelf = Shelf()
    leaf, link = shelf.file(b"x"), shelf.link("target")
    entries = {f"name {number}": (leaf, link)[number % 2] for number in range(count)}
    root = shelf.directory(entries)
    found = await trees.list_place(shelved(shelf), Place(root))
    assert [entry.name for entry in found] == sorted(entries)
    assert {entry.name: entry.cid for entry in found} == entries
    assert {entry.kind for entry in found} == set(["file", "symlink"][: min(2, count)])
    said = await trees.stat(shelved(shelf), Place(root))
    assert (said.entries, said.is_directory) == (count, True)


@pytest.mark.parametrize("count", [0, 3, 800])
async def test_a_directory_weighs_the_same_in_a_listing_and_by_itself(
    count: int, tmp_path: Path
) -> None:
    """All its blocks: its own, be it one or shards, and those below."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for number in range(count):
        (inside / f"{number} {'x' * 60}").write_bytes(str(number).encode())
    shelf = Shelf()
    root = shelf.tree(tmp_path)
    [listed] = await trees.list_place(shelved(shelf), Place(root))
    said = await trees.stat(shelved(shelf), Place(root, ("inside",)))
    assert said.size == listed.size == sum(len(data) for _, data in build_source(inside))
    assert said.entries == count


async def test_listing_has_a_bound() -> None:
    shelf = Shelf()
    root = shelf.directory({"a": shelf.file(b"a"), "b": shelf.file(b"b")})
    found = await trees.list_place(shelved(shelf), Place(root))
    listing = Listing(root, most=1)
    listing.add(found[0])
    with pytest.raises(FormatError, match=f"directory {root} has more than 1 entries"):
        listing.add(found[1])


# --- All blocks, CARs ---------------------------------------------------------------------------


async def test_every_block_is_fetched_once() -> None:
    shelf = Shelf()
    root = sample(shelf)
    blocks = shelved(shelf)
    taken: list[Cid] = []
    size = await trees.fetch_all(blocks, root, lambda cid, _: taken.append(cid))
    assert taken[0] == root
    assert sorted(map(bytes, taken)) == sorted(map(bytes, shelf.held))
    assert size == sum(len(data) for cid, data in shelf.held.items() if cid.codec is Codec.RAW)
    assert blocks.calls == len(taken)


async def test_a_car_goes_out_and_comes_in(tmp_path: Path) -> None:
    shelf = Shelf()
    root = sample(shelf)
    path = tmp_path / "x.car"
    size = await trees.export_car(shelved(shelf), root, path)
    parts: list[bytes] = []
    assert await trees.export_car(shelved(shelf), root, parts.append) == size
    assert b"".join(parts) == path.read_bytes()
    blocks = FakeBlocks()
    roots, done = await trees.import_car(blocks, path)
    assert (roots, done.blocks) == ((root,), len(shelf.held))
    assert blocks.held == {cid.key: data for cid, data in shelf.held.items()}


async def test_a_car_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf()
    root = sample(shelf)
    blocks = shelved(shelf)
    blocks.fails.add(shelf.file(b"one").key)
    with pytest.raises(NotFoundError):
        await trees.export_car(blocks, root, tmp_path / "x.car")
    assert names(tmp_path) == []


async def test_cars_of_nothing_are_told() -> None:
    cid = cid_of_block(b"x", Codec.RAW)
    with pytest.raises(MisuseError, match="with a root"):
        await trees.import_car(FakeBlocks(), encode_header([]))
    with pytest.raises(FormatError, match="with blocks"):
        await trees.import_car(FakeBlocks(), encode_header([cid]))
    damaged = encode_header([cid]) + encode_section(cid, b"y")
    with pytest.raises(FormatError, match=f"{cid}: its 1 bytes are not those of its name"):
        await trees.import_car(FakeBlocks(), BytesIO(damaged))
    blocks = FakeBlocks()
    blocks.fails.add(cid.key)
    with pytest.raises(NotStoredError, match="cannot store the CAR"):
        await trees.import_car(blocks, encode_header([cid]) + encode_section(cid, b"x"))


@pytest.mark.parametrize("most", [2, 3])
async def test_a_tree_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Few files are synced one by one; of many, all at once."""
    monkeypatch.setattr("xorbit.files.new_tree.SYNCED_FILES_MAX", most)
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: synced.append("one"))
    monkeypatch.setattr("os.sync", lambda: synced.append("all"))
    shelf = Shelf()
    root = sample(shelf)
    await get(shelved(shelf), root, tmp_path / "out")
    assert synced == ["one"] * most + ["all"] * (most < 3)
