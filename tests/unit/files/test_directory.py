"""Directories as blocks: the names that IPFS gives, shards, and nodes that lie."""

import random
from collections.abc import Callable

import pytest

from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.dag_pb import Link, Node, decode_node, encode_node
from xorbit.files.directory import (
    Directory,
    DirectoryBuilder,
    DirectoryEntry,
    Held,
    SymbolicLink,
    build_symbolic_link,
)
from xorbit.files.hamt import HASH_BYTES, Shard, Slot, check_place, hash_name, slot_for
from xorbit.files.nodes import parse_node
from xorbit.files.unixfs import FileNode, build_file
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data
from xorbit.items import BLOCK_BYTES_MAX, Kind

LEAF = cid_of_block(b"leaf", Codec.RAW)
INNER = cid_of_block(b"inner", Codec.DAG_PB)


def build(names: list[str]) -> list[tuple[Cid, bytes]]:
    builder = DirectoryBuilder()
    for name in names:
        builder.add(name, LEAF, 4)
    return list(builder.finish())


def listed(root: Cid, blocks: dict[Cid, bytes], prefix: bytes = b"") -> list[str]:
    """Return the names below a directory, in its order, every shard held against its place."""
    node = parse_node(blocks[root])
    if isinstance(node, Directory):
        return [entry.name for entry in node.entries]
    assert isinstance(node, Shard)
    check_place(node, prefix)
    names: list[str] = []
    for slot in node.slots:
        below = prefix + bytes((slot.index,))
        names += listed(slot.cid, blocks, below) if slot.name is None else [slot.name]
    return names


# --- Building -----------------------------------------------------------------------------------


def test_empty_directory() -> None:
    """The directory of nothing has the name that it has everywhere."""
    builder = DirectoryBuilder(Kind.BLOCK_SHA2_256)
    [(cid, data)] = builder.finish()
    assert str(cid) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert parse_node(data) == Directory(())


def test_links_are_sorted_by_their_bytes() -> None:
    """A directory lists its entries by the bytes of their names, however they were added."""
    [(_, data)] = build(["ä", "z", "a", "A", "ab", "\U0001f600", "\uffff"])
    node = parse_node(data)
    assert isinstance(node, Directory)
    names = [entry.name for entry in node.entries]
    assert names == ["A", "a", "ab", "z", "ä", "\uffff", "\U0001f600"]
    assert node.entries[0] == DirectoryEntry("A", LEAF, 4)


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        (lambda n: chr(0x4E00 + n), 32_768 // (36 + 3)),  # one character of three bytes
        (lambda n: f"{n:012}", 32_768 // (36 + 12)),
        (lambda n: f"{n:0255}", 32_768 // (36 + 255)),
    ],
    ids=["short", "usual", "long"],
)
def test_when_it_is_sharded(name: Callable[[int], str], largest: int) -> None:
    """A directory is one node as long as its names and CIDs are at most 32,768 bytes together."""
    names = [name(number) for number in range(largest + 1)]
    [(_, data)] = build(names[:largest])
    assert len(data) <= BLOCK_BYTES_MAX
    assert isinstance(parse_node(build(names)[-1][1]), Shard)


def test_subdirectories_count() -> None:
    """A directory of thousands of subdirectories is sharded as one of files is."""
    builder = DirectoryBuilder()
    for number in range(2_000):
        builder.add(str(number), INNER, 5)
    blocks = list(builder.finish())
    assert isinstance(parse_node(blocks[-1][1]), Shard)
    assert max(len(data) for _, data in blocks) <= BLOCK_BYTES_MAX


@pytest.mark.parametrize("count", [900, 5_000, 70_000])
def test_sharded(count: int) -> None:
    """Of a sharded directory every name is found where its hash leads, and none comes twice."""
    names = [f"name {number}" for number in range(count)]
    made = build(names)
    found = listed(made[-1][0], dict(made))
    assert sorted(found) == sorted(names)
    assert found == sorted(names, key=hash_name)


def test_order_of_adding_does_not_matter() -> None:
    """The name of a directory goes by what is in it, not by the order in which it was read."""
    names = [f"name {number}" for number in range(2_000)]
    mixed = names[:]
    random.Random(1).shuffle(mixed)
    assert build(names) == build(mixed)


def test_weight_of_shards() -> None:
    """Each link to a shard says what all blocks below it weigh, files included."""
    made = build([f"name {number}" for number in range(2_000)])
    weight = sum(len(data) for _, data in made) + 2_000 * 4
    root = decode_node(made[-1][1])
    assert len(made[-1][1]) + sum(link.tsize or 0 for link in root.links) == weight


def test_hash_of_names() -> None:
    """Names are hashed as the JavaScript and Go implementations do (from `hamt-sharding`)."""
    assert hash_name("file-1.txt").hex() == "c853837405db7a88"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0"])
def test_no_name(name: str) -> None:
    """What can be no name is refused before anything is made of it."""
    with pytest.raises(MisuseError, match="expected a name"):
        DirectoryBuilder().add(name, LEAF, 4)


def test_name_that_is_no_text() -> None:
    """A name of a disk that is not UTF-8 says what to do."""
    with pytest.raises(MisuseError, match=r"not UTF-8; rename it"):
        DirectoryBuilder().add("\udcff", LEAF, 4)
    with pytest.raises(MisuseError, match="not UTF-8"):
        build_symbolic_link("\udcff")


@pytest.mark.parametrize("count", [0, 2_000])
def test_name_twice(count: int) -> None:
    """One name cannot stand for two things."""
    with pytest.raises(MisuseError, match="'same' is in one directory twice"):
        build(["same", *map(str, range(count)), "same"])


def test_names_of_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that agree in all 8 bytes of hash are refused, not nested without end."""
    monkeypatch.setattr("xorbit.files.hamt.hash_name", lambda name: bytes(HASH_BYTES))
    with pytest.raises(MisuseError, match="have the same hash"):
        build([f"{n:0255}" for n in range(200)])


def test_names_too_long_for_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that were chosen to fill one shard beyond a block are refused, not stored too large."""
    monkeypatch.setattr("xorbit.files.hamt.hash_name", lambda name: bytes([int(name[:3])]) * 8)
    with pytest.raises(MisuseError, match="too long"):
        build([f"{n:03}" + "x" * 252 for n in range(256)])


def test_memory_is_bounded() -> None:
    """More entries than memory has room for, over all directories being built, are refused."""
    held = Held(3)
    outer, inner = DirectoryBuilder(held=held), DirectoryBuilder(held=held)
    outer.add("a", LEAF, 4)
    inner.add("b", LEAF, 4)
    inner.add("c", LEAF, 4)
    with pytest.raises(MisuseError, match="more than 3 entries"):
        inner.add("d", LEAF, 4)


def test_memory_is_let_go_of() -> None:
    """A directory that is finished makes room for the next one."""
    held = Held(2)
    for _ in range(3):
        builder = DirectoryBuilder(held=held)
        builder.add("a", LEAF, 4)
        list(builder.finish())
        assert builder is not None


# --- Symbolic links -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["a", "../../x", "/etc/passwd", "ä", "x" * 4_000])
def test_symbolic_links(target: str) -> None:
    """A symbolic link keeps what it says, to the letter."""
    cid, data = build_symbolic_link(target)
    assert cid == cid_of_block(data, Codec.DAG_PB)
    assert parse_node(data) == SymbolicLink(target)


def test_symbolic_link_of_go() -> None:
    """A symbolic link has the bytes that kubo gives it: type 4 and the target, no size."""
    assert build_symbolic_link("b")[1] == b"\x0a\x05\x08\x04\x12\x01b"


def test_symbolic_link_with_a_size() -> None:
    """A symbolic link that says how long its target is, as some tools write it, is one too."""
    assert parse_node(b"\x0a\x07\x08\x04\x12\x01b\x18\x01") == SymbolicLink("b")


def test_symbolic_link_larger_than_a_block() -> None:
    """A target that no block has room for is refused."""
    with pytest.raises(MisuseError, match="larger than a block"):
        build_symbolic_link("x" * BLOCK_BYTES_MAX)


# --- Nodes of others ----------------------------------------------------------------------------


def node(links: list[Link], data: UnixFsData) -> bytes:
    return encode_node(Node(tuple(links), encode_data(data)))


def shard_node(links: list[Link], bits: bytes, hash_type: int = 0x22, fanout: int = 256) -> bytes:
    data = UnixFsData(Type.SHARDED_DIRECTORY, bits, hash_type=hash_type, fanout=fanout)
    return node(links, data)


DIRECTORY = UnixFsData(Type.DIRECTORY)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (node([Link(LEAF, "..")], DIRECTORY), "the one above"),
        (node([Link(LEAF, ".")], DIRECTORY), "a folder itself"),
        (node([Link(LEAF, "/x")], DIRECTORY), "a / in it"),
        (node([Link(LEAF, "a\0")], DIRECTORY), "a zero byte"),
        (node([Link(LEAF, "")], DIRECTORY), "no name"),
        (node([Link(LEAF)], DIRECTORY), "no name"),
        (node([Link(LEAF, "a"), Link(INNER, "a")], DIRECTORY), "'a' twice"),
        (node([], UnixFsData(Type.DIRECTORY, b"x")), "data of a file"),
        (node([], UnixFsData(Type.DIRECTORY, size=0)), "data of a file"),
        (node([], UnixFsData(Type.DIRECTORY, fanout=256)), "data of a file"),
        (node([], UnixFsData(Type.SYMBOLIC_LINK)), "no target"),
        (node([], UnixFsData(Type.SYMBOLIC_LINK, b"")), "no target"),
        (node([Link(LEAF)], UnixFsData(Type.SYMBOLIC_LINK, b"x")), "links to blocks"),
        (node([], UnixFsData(Type.SYMBOLIC_LINK, b"x", 2)), "data of a file"),
        (node([], UnixFsData(Type.SYMBOLIC_LINK, b"\xff")), "not UTF-8"),
        (node([], UnixFsData(Type.RAW, b"x")), "got UnixFS type 0 .raw"),
        (node([], UnixFsData(Type.METADATA)), "got UnixFS type 3 .metadata"),
        (encode_node(Node()), "without data"),
        (b"\0" * (BLOCK_BYTES_MAX + 1), "at most 65,536"),
        (shard_node([], b"", fanout=255), "fan-out 256, got 255"),
        (shard_node([], b"", fanout=2**63), "fan-out 256, got 92"),
        (shard_node([], b"", hash_type=0x12), "murmur3-x64-64 .34., got 18"),
        (node([], UnixFsData(Type.SHARDED_DIRECTORY, b"", hash_type=34)), "got None"),
        (node([], UnixFsData(Type.SHARDED_DIRECTORY, b"", fanout=256)), "got None"),
        (
            node([], UnixFsData(Type.SHARDED_DIRECTORY, b"", 1, (), 34, 256)),
            "the sizes of a file",
        ),
        (shard_node([], b"\1" * 33), "at most 32 bytes, got 33"),
        (shard_node([], b"\1"), "that its bitfield says"),
        (shard_node([Link(INNER, "00")], b"\2"), "that its bitfield says"),
        (shard_node([Link(LEAF, "00a"), Link(LEAF, "00b")], b"\1"), "that its bitfield says"),
        (shard_node([Link(LEAF, "a")], b"\1"), "00 to FF, got 'a'"),
        (shard_node([Link(LEAF, "0aname")], b"\1"), "00 to FF"),
        (shard_node([Link(LEAF, " 1name")], b"\1"), "00 to FF"),
        (shard_node([Link(LEAF)], b"\1"), "00 to FF, got ''"),
        (shard_node([Link(LEAF, "00..")], b"\1"), "the one above"),
        (shard_node([Link(LEAF, "00a/b")], b"\1"), "a / in it"),
        (shard_node([Link(LEAF, "00")], b"\1"), "raw block and has no name"),
    ],
)
def test_refused(data: bytes, problem: str) -> None:
    """A node that is no directory's, shard's or link's, or contradicts itself, is refused."""
    with pytest.raises(FormatError, match=problem):
        parse_node(data)


def test_bitfield_with_zeros_before_it() -> None:
    """A bitfield may be longer than it must be."""
    assert parse_node(shard_node([Link(LEAF, "00a", 4)], bytes(31) + b"\1")) == Shard(
        (Slot(0, "a", LEAF, 4),)
    )


def test_file_node() -> None:
    """A node of a file is read as before."""
    *_, (_, data) = build_file([b"12345"], chunk_bytes=2)
    parsed = parse_node(data)
    assert isinstance(parsed, FileNode)
    assert parsed.size == 5


def place(name: str, depth: int = 0, wrong: int = 0) -> Shard:
    return Shard((Slot(hash_name(name)[depth] ^ wrong, name, LEAF, 4),))


@pytest.mark.parametrize(
    ("found", "prefix", "problem"),
    [
        (lambda: place("a", wrong=1), b"", "not where its hash leads"),
        (lambda: place("a"), b"\0", "not where its hash leads"),
        (lambda: place("a", depth=1), bytes([hash_name("a")[0] ^ 1]), "not where its hash leads"),
        (lambda: Shard(()), b"\0", "a shard is empty"),
        (lambda: Shard((Slot(0, None, INNER, 4),)), bytes(7), "deeper than 8"),
        (lambda: place("a", depth=7), bytes(9), "not where its hash leads"),
    ],
)
def test_wrong_places(found: Callable[[], Shard], prefix: bytes, problem: str) -> None:
    """A shard or a name that is not where its hash leads is refused, so none can come twice."""
    with pytest.raises(FormatError, match=problem):
        check_place(found(), prefix)


def test_right_places() -> None:
    """A name may stand at any depth on the way of its hash, and the root may be empty."""
    check_place(Shard(()), b"")
    for depth in range(HASH_BYTES):
        check_place(place("a", depth), hash_name("a")[:depth])


def test_slot_for() -> None:
    """A name is looked for in its slot only: an entry of that name, or the shard that goes on."""
    found = place("a")
    assert slot_for(found, "a", 0) == found.slots[0]
    assert slot_for(found, "b", 0) is None
    other = Shard((Slot(hash_name("b")[0], "a", LEAF, 4), Slot(hash_name("c")[0], None, INNER, 4)))
    assert slot_for(other, "b", 0) is None
    below = slot_for(other, "c", 0)
    assert below is not None
    assert below.name is None
