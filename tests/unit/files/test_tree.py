"""Trees as they are read: paths, lists, walks, and every kind of tree that lies."""

import tracemalloc
from collections import deque
from pathlib import Path

import pytest

from tests.unit.files.trees import Shelf, on_disk
from xorbit.errors import FormatError, MisuseError, NotFoundError
from xorbit.files.cid import Cid, Codec
from xorbit.files.dag_pb import Node, encode_node
from xorbit.files.directory import SymbolicLink
from xorbit.files.hamt import hash_name
from xorbit.files.tree import (
    Entry,
    Want,
    all_blocks,
    children,
    drive,
    finish,
    list_directory,
    open_block,
    read_file,
    resolve,
    walk,
)
from xorbit.files.unixfs import FileNode, build_file
from xorbit.files.unixfs_data import Type, UnixFsData
from xorbit.files.visits import SeenBlocks, Visits


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree with everything in it that there is."""
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "file").write_bytes(b"deep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").mkdir()
    for number in range(1_000):
        (tmp_path / "large" / f"name {number}").write_bytes(b"%d" % number)
    (tmp_path / "large" / "name 7").unlink()
    (tmp_path / "large" / "name 7").mkdir()
    (tmp_path / "large" / "name 7" / "inside").write_bytes(b"shards")
    (tmp_path / "link").symlink_to("sub/deep")
    (tmp_path / "two leaves").write_bytes(bytes(70_000))
    return tmp_path


# --- Honest trees -------------------------------------------------------------------------------


def test_walk(shelf: Shelf, tree: Path) -> None:
    """A walk comes by everything that was in the tree, folders before what is in them."""
    seen: dict[str, bytes | str | None] = {}
    folders = {()}
    root, *entries = shelf.walk(shelf.tree(tree))
    assert root.path == ()
    for entry in entries:
        assert entry.path[:-1] in folders
        name = "/".join(entry.path)
        if entry.found.is_directory:
            folders.add(entry.path)
            seen[name] = None
        elif isinstance(entry.found.node, SymbolicLink):
            seen[name] = entry.found.node.target
        else:
            seen[name] = b"".join(drive(read_file(entry.found), shelf.get))
    assert seen == on_disk(tree)


def test_walk_asks_for_no_leaves(shelf: Shelf, tree: Path) -> None:
    """A walk fetches nodes only, each once."""
    list(shelf.walk(shelf.tree(tree)))
    assert all(cid.codec is Codec.DAG_PB for cid in shelf.asked)
    assert len(set(shelf.asked)) == len(shelf.asked)


def test_walk_over_a_file(shelf: Shelf) -> None:
    """A tree may be one file, or one leaf."""
    for content in (b"x", b"0123456789"):
        [entry] = shelf.walk(shelf.file(content))
        assert entry.path == ()
        assert b"".join(drive(read_file(entry.found), shelf.get)) == content


@pytest.mark.parametrize("path", ["", "sub", "sub/deep", "sub/deep/file", "large", "large/name 7",
    "large/name 7/inside", "large/name 999", "two leaves", "empty", "link"])  # fmt: skip
def test_resolve(shelf: Shelf, tree: Path, path: str) -> None:
    """Every path of a tree leads to what has the name that it has by itself."""
    root = shelf.tree(tree)
    names = [name for name in path.split("/") if name]
    found = finish(resolve(root, names), shelf.get)
    if path == "link":
        assert found.node == SymbolicLink("sub/deep")
    else:
        assert found.cid == shelf.tree(tree / path)
    assert len(shelf.asked) <= 2 + 2 * len(names)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nothing", "has no entry 'nothing'"),
        ("sub/nothing", "/sub has no entry 'nothing'"),
        ("large/nothing", "/large has no entry 'nothing'"),
        ("sub/\udcff", r"/sub has no entry '\\udcff'"),
        ("large/\udcff", r"/large has no entry '\\udcff'"),
        ("two leaves/x", "/two leaves is a file and has no entry 'x'"),
        ("sub/deep/file/x", "/sub/deep/file is a file and has no entry 'x'"),
        ("link/file", "/link is a symbolic link to 'sub/deep', which is not followed to 'file'"),
    ],
)
def test_nothing_at_a_path(shelf: Shelf, tree: Path, path: str, why: str) -> None:
    """A path to nothing says how far it leads, and why no further."""
    with pytest.raises(NotFoundError, match=why):
        finish(resolve(shelf.tree(tree), path.split("/")), shelf.get)


def test_path_without_end(shelf: Shelf) -> None:
    """A path of more names than directories may be inside one another is refused unasked."""
    with pytest.raises(MisuseError, match="at most 128 names"):
        finish(resolve(shelf.file(b"x"), ["a"] * 129), shelf.get)


@pytest.mark.parametrize("count", [0, 3, 885, 5_000])
def test_list(shelf: Shelf, count: int) -> None:
    """A directory lists each of its entries once, sharded or not."""
    leaf = shelf.file(b"x")
    root = shelf.directory({f"name {number}": leaf for number in range(count)})
    pages = list(drive(list_directory(shelf.found(root)), shelf.get))
    names = [entry.name for page in pages for entry in page]
    assert sorted(names) == sorted(f"name {number}" for number in range(count))
    assert (len(pages) == 1) is (count <= 885 and len(shelf.held) <= 2)


def test_no_list(shelf: Shelf) -> None:
    """A file has no entries, and a directory no bytes."""
    with pytest.raises(NotFoundError, match="no directory"):
        list(drive(list_directory(shelf.found(shelf.file(b"x"))), shelf.get))
    with pytest.raises(NotFoundError, match="no file"):
        list(drive(read_file(shelf.found(shelf.directory({}))), shelf.get))


def test_what_comes_next(shelf: Shelf) -> None:
    """Beside each block that is wanted stand those that follow, so that they can be fetched too."""
    files = {f"file {number}": shelf.file(b"%5d" % number) for number in range(100)}
    root = shelf.directory(files)
    steps = walk(shelf.found(root))
    next(steps)
    wanted: list[Want] = []
    step = next(steps)
    for _ in range(150):
        if isinstance(step, Want):
            wanted.append(step)
            step = steps.send(shelf.held[step.cid])
        else:
            step = next(steps)
    order = [files[name] for name in sorted(files)]
    assert wanted[0] == Want(order[0], tuple(order[1:33]))
    assert [want.cid for want in wanted] == order[: len(wanted)]


def test_file_names_what_comes_next(shelf: Shelf) -> None:
    """The leaves after the one that is wanted are named in order, a bounded number."""
    root = shelf.file(bytes(range(200)), 1, 256)
    node = shelf.found(root).node
    assert isinstance(node, FileNode)
    steps = read_file(shelf.found(root))
    first = next(steps)
    assert isinstance(first, Want)
    assert first.ahead == tuple(part.cid for part in node.children[1:33])


def test_all_blocks(shelf: Shelf, tree: Path) -> None:
    """Every block of a tree is wanted, and each once."""
    root = shelf.tree(tree)
    finish(all_blocks(root), shelf.get)
    assert shelf.asked[0] == root
    assert len(shelf.asked) == len(shelf.held)
    assert set(shelf.asked) == set(shelf.held)


def test_a_leaf_that_is_a_node_elsewhere(shelf: Shelf) -> None:
    """A block that a file holds as bytes, and a directory as a node, is gone into."""
    inner = shelf.raw_directory([("x", shelf.add(b"below", Codec.RAW))])
    leaf = shelf.add(shelf.held[inner], Codec.RAW)
    root = shelf.raw_directory([("a", leaf), ("b", inner)])
    finish(all_blocks(root), shelf.get)
    assert set(shelf.asked) == set(shelf.held)


def test_children_of_a_leaf() -> None:
    """A raw block has no links, whatever its bytes look like."""
    assert children(Shelf().add(b"", Codec.RAW), b"\xff") == ()


# --- Trees that lie -----------------------------------------------------------------------------


def read_all(shelf: Shelf, root: Cid) -> int:
    """Go through a tree as a get does and return how many bytes its files have."""
    size = 0
    for entry in shelf.walk(root):
        if not entry.found.is_directory and not isinstance(entry.found.node, SymbolicLink):
            size += sum(map(len, drive(read_file(entry.found), shelf.get)))
    return size


def test_one_child_a_million_times(shelf: Shelf) -> None:
    """Two blocks that make a tree of a million files are refused after a bounded number of them."""
    leaf = shelf.add(b"x", Codec.RAW)
    inner = shelf.raw_directory((f"{number:03}", leaf) for number in range(1_000))
    root = shelf.raw_directory((f"{number:03}", inner) for number in range(1_000))
    seen: list[Entry] = []
    with pytest.raises(FormatError, match=f"block {inner}: .* more than 100,000 entries"):
        seen.extend(shelf.walk(root))
    assert len(seen) < 103_000


def test_a_tree_without_end(shelf: Shelf) -> None:
    """Forty blocks that make a tree of 2**40 directories are refused in bounded time and memory."""
    node = shelf.directory({})
    for _ in range(40):
        node = shelf.raw_directory([("a", node), ("b", node)])
    walked = drive(walk(shelf.found(node), Visits(1_000, 5_000)), shelf.get)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="entries that repeat others"):
            deque(walked, maxlen=0)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    shelf.asked.clear()
    finish(all_blocks(node), shelf.get)
    assert len(shelf.asked) == 41


def test_honest_repeats(shelf: Shelf) -> None:
    """The same file, and the same directory, may be in a tree many times."""
    leaf = shelf.add(b"x", Codec.RAW)
    inner = shelf.directory({str(number): leaf for number in range(90)})
    root = shelf.directory({str(number): inner for number in range(1_000)})
    assert sum(1 for _ in shelf.walk(root)) == 1 + 1_000 * 91


def test_memory_for_directories_is_bounded(shelf: Shelf) -> None:
    """Beyond as many directories as are remembered, all count as repeated."""
    leaf = shelf.add(b"x", Codec.RAW)
    inner = [shelf.directory({str(number): leaf}) for number in range(9)]
    root = shelf.directory({str(number): cid for number, cid in enumerate(inner)})
    walked = drive(walk(shelf.found(root), Visits(4, 5, 0)), shelf.get)
    with pytest.raises(FormatError, match="more than 5 entries that repeat"):
        list(walked)
    for visits in (Visits(4, 6, 0), Visits(4, 0, 1)):
        assert sum(1 for _ in drive(walk(shelf.found(root), visits), shelf.get)) == 19


def test_large_trees_may_repeat_more(shelf: Shelf) -> None:
    """As many times as often as what is new so far; what comes later does not count before."""
    leaf = shelf.add(b"x", Codec.RAW)
    inner = shelf.directory({str(number): leaf for number in range(20)})
    copies = shelf.directory({f"{number:02}": inner for number in range(10)})
    other = shelf.directory({f"a{number}": leaf for number in range(100)})
    last, first = (
        shelf.directory({"copies": copies, name: other}) for name in ("z last", "a first")
    )
    entries = 1 + 2 + 10 + 10 * 20 + 100
    assert sum(1 for _ in drive(walk(shelf.found(first), Visits(9, 9, 2)), shelf.get)) == entries
    with pytest.raises(FormatError, match=r"more than 5\d entries that repeat"):
        list(drive(walk(shelf.found(last), Visits(9, 9, 2)), shelf.get))
    assert sum(1 for _ in drive(walk(shelf.found(last), Visits(9, 9, 7)), shelf.get)) == entries


def test_memory_for_blocks_is_bounded(shelf: Shelf) -> None:
    """A pass over all blocks forgets old leaves, and refuses too many nodes."""
    leaves = [shelf.add(bytes([number]), Codec.RAW) for number in range(4)]
    names = "abcdefgh"
    root = shelf.raw_directory(zip(names, [*leaves, *leaves], strict=True))
    finish(all_blocks(root, SeenBlocks(9, 3)), shelf.get)
    assert len(shelf.asked) == 9
    shelf.asked.clear()
    finish(all_blocks(root, SeenBlocks(9, 4)), shelf.get)
    assert len(shelf.asked) == 5
    deeper = shelf.raw_directory([("a", root)])
    with pytest.raises(FormatError, match="more than 1 nodes"):
        finish(all_blocks(deeper, SeenBlocks(1, 9)), shelf.get)


@pytest.mark.parametrize(("depth", "is_refused"), [(128, False), (129, True), (5_000, True)])
def test_deep_nesting(shelf: Shelf, depth: int, is_refused: bool) -> None:
    """Directories inside one another are gone into to a depth, and refused beyond it."""
    node = shelf.add(b"x", Codec.RAW)
    for _ in range(depth):
        node = shelf.raw_directory([("d", node)])
    if is_refused:
        with pytest.raises(FormatError, match="deeper than 128 directories"):
            list(shelf.walk(node))
        assert len(shelf.asked) == 129
    else:
        assert len(list(shelf.walk(node))) == 129


def test_deep_nesting_of_blocks(shelf: Shelf) -> None:
    """A pass over all blocks ends at a depth too, whatever the blocks are."""
    node = shelf.add(b"x", Codec.RAW)
    for _ in range(300):
        node = shelf.raw_directory([("d", node)])
    with pytest.raises(FormatError, match="deeper than 256 blocks"):
        finish(all_blocks(node), shelf.get)


def test_deep_file(shelf: Shelf) -> None:
    """A file whose nodes are too deep below one another is refused."""
    node = shelf.add(b"x", Codec.RAW)
    for _ in range(9):
        node = shelf.file_node([(node, 1)])
    with pytest.raises(FormatError, match="deeper than 8 levels"):
        read_all(shelf, node)


def test_huge_claimed_size(shelf: Shelf) -> None:
    """A file that claims to be enormous is refused at the first block that is not what it says."""
    leaf = shelf.add(b"x", Codec.RAW)
    inner = shelf.file_node([(leaf, 1)])
    root = shelf.file_node([(inner, 2**62)])
    with pytest.raises(FormatError, match=f"block {inner}: its parent says {2**62} bytes"):
        read_all(shelf, root)
    root = shelf.file_node([(leaf, 65_536)])
    with pytest.raises(FormatError, match=f"block {leaf}: its parent says 65536 bytes, it holds 1"):
        read_all(shelf, root)


def test_an_honest_enormous_file(shelf: Shelf) -> None:
    """A file that is one leaf over and over says its size first, and comes in bounded memory."""
    node, size = shelf.add(bytes(65_536), Codec.RAW), 65_536
    for _ in range(3):
        node, size = shelf.file_node([(node, size)] * 1_024), size * 1_024
    found = shelf.found(node)
    assert isinstance(found.node, FileNode)
    assert found.node.size == 2**46
    tracemalloc.start()
    try:
        pieces = drive(read_file(found), shelf.get)
        assert sum(len(next(pieces)) for _ in range(2_000)) == 2_000 * 65_536
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_wrong_codecs(shelf: Shelf) -> None:
    """A dag-pb name of bytes that are no node is refused, with the name."""
    for data in (b"hello", b"\x0a\x02\x08\x09", encode_node(Node())):
        wrong = shelf.add(data)
        root = shelf.raw_directory([("a", wrong)])
        with pytest.raises(FormatError, match=f"block {wrong}: "):
            read_all(shelf, root)
        with pytest.raises(FormatError, match=f"block {wrong}: "):
            finish(all_blocks(root), shelf.get)


def test_directory_as_a_part_of_a_file(shelf: Shelf) -> None:
    """A part of a file that is a directory is refused."""
    wrong = shelf.directory({})
    root = shelf.file_node([(wrong, 5)])
    with pytest.raises(FormatError, match=f"block {wrong}: expected UnixFS type 2"):
        read_all(shelf, root)


@pytest.mark.parametrize("name", ["..", ".", "/etc/passwd", "../x", "a/b", "a\0", ""])
def test_names_that_escape(shelf: Shelf, name: str) -> None:
    """A name that means another folder is refused wherever it stands, also in shards."""
    leaf = shelf.add(b"x", Codec.RAW)
    prefix = f"{hash_name(name)[0]:02X}"
    shards = [shelf.shard({prefix + name: leaf})] if name else []
    for root in [shelf.raw_directory([(name, leaf)]), *shards]:
        with pytest.raises(FormatError, match=f"block {root}: a directory names an entry"):
            read_all(shelf, root)


def test_one_shard_in_every_slot(shelf: Shelf) -> None:
    """A shard that stands in 256 slots is refused at the second: its names hash to one of them."""
    leaf = shelf.add(b"x", Codec.RAW)
    first, second = hash_name("a")[:2]
    below = shelf.shard({f"{second:02X}a": leaf})
    root = shelf.shard({f"{index:02X}": below for index in range(256)})
    with pytest.raises(FormatError, match=f"block {below}: the name 'a' is not where its hash"):
        read_all(shelf, root)
    assert len(shelf.asked) <= 3
    good = shelf.shard({f"{first:02X}": below})
    assert read_all(shelf, good) == 1


def test_empty_shards_in_every_slot(shelf: Shelf) -> None:
    """Shards without any name below them are refused: no way leads to 256**8 of them."""
    node = shelf.shard({})
    with pytest.raises(FormatError, match=f"block {node}: a shard is empty"):
        read_all(shelf, shelf.shard({f"{index:02X}": node for index in range(256)}))
    for _ in range(8):
        node = shelf.shard({f"{index:02X}": node for index in range(256)})
    with pytest.raises(FormatError, match="deeper than 8 levels"):
        read_all(shelf, node)
    assert len(shelf.asked) < 20


def test_a_path_through_wrong_shards(shelf: Shelf) -> None:
    """A path through shards is held against the hash of its names as well."""
    leaf = shelf.add(b"x", Codec.RAW)
    first = hash_name("a")[0]
    below = shelf.shard({"00b": leaf})
    root = shelf.shard({f"{first:02X}": below})
    with pytest.raises(FormatError, match=f"block {below}: the name 'b' is not"):
        finish(resolve(root, ["a"]), shelf.get)


@pytest.mark.parametrize("kind", ["directory", "file", "symbolic link"])
def test_what_is_no_shard(shelf: Shelf, kind: str) -> None:
    """Where a shard should be, nothing else may stand."""
    other = {
        "directory": shelf.directory({}),
        "file": shelf.file(b"0123456789"),
        "symbolic link": shelf.link("x"),
    }[kind]
    root = shelf.shard({f"{hash_name('a')[0]:02X}": other})
    with pytest.raises(FormatError, match=f"block {other}: expected a shard"):
        finish(resolve(root, ["a"]), shelf.get)
    with pytest.raises(FormatError, match=f"block {other}: expected a shard"):
        list(shelf.walk(root))


def test_wrong_fan_out_or_hash(shelf: Shelf) -> None:
    """A shard of another fan-out or hash is refused, with the block's name."""
    for hash_type, fanout in ((0x22, 16), (0x12, 256), (None, 256), (0x22, None)):
        data = UnixFsData(Type.SHARDED_DIRECTORY, b"", hash_type=hash_type, fanout=fanout)
        root = shelf.node([], data)
        with pytest.raises(FormatError, match=f"block {root}: expected"):
            list(shelf.walk(root))


def test_block_that_nobody_has(shelf: Shelf) -> None:
    """An error of whoever fetches blocks comes out as it is."""
    root = shelf.directory({"a": shelf.file(b"0123456789")})
    del shelf.held[shelf.file(b"0123456789")]
    with pytest.raises(NotFoundError, match="nobody has"):
        list(shelf.walk(root))


def test_open_raw() -> None:
    """A raw block is not asked for to know what it is."""
    shelf = Shelf()
    cid = next(iter(build_file([b"x"])))[0]
    assert finish(open_block(cid), shelf.get).node is None
    assert shelf.asked == []
