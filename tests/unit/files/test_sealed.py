"""Private content: what is put sealed comes back with its key, and says nothing without it."""

import base64
import io
from binascii import crc_hqx
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import rich.pretty
from cryptography.exceptions import InvalidTag

from tests.unit.files.fakes import FakeBlocks, names
from tests.unit.files.trees import on_disk
from xorbit.errors import FormatError, MisuseError, NotFoundError, WorldError
from xorbit.files import transfer, trees
from xorbit.files.cid import Cid, Codec, Place, cid_of_block, parse_cid, parse_place
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.directory import DirectoryBuilder, build_symbolic_link
from xorbit.files.local_tree import build_source
from xorbit.files.opened import Opening, inner, inner_place, opened, outer, private_name
from xorbit.files.reader import open_reader
from xorbit.files.seal_key import (
    SealKey,
    holds_key,
    keys_hidden,
    may_hold_key,
    parse_key,
    without_key,
)
from xorbit.files.sealed import SEAL_BYTES, Seal, Sealer, content_bytes_max, make_block
from xorbit.files.transfer import PutSummary
from xorbit.files.tree import Found
from xorbit.files.unixfs import CHILDREN_MAX, CHUNK_BYTES, build_file
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data
from xorbit.items import BLOCK_BYTES_MAX, ItemKey, Kind

CID = cid_of_block(b"sealed", Codec.RAW)
NODE_KEY, LEAF_KEY = SealKey(bytes(range(32)), True), SealKey(bytes(range(32)), False)
WORDS = b"words that no holder may ever read. "


class Reader:
    """Gets what was put sealed, by its name, as `FileCalls` does."""

    def __init__(self, blocks: FakeBlocks, name: str) -> None:
        place = parse_place(name)
        self.blocks = opened(blocks, place.seal)
        self.place = inner_place(place)

    async def found(self) -> Found:
        return await trees.find(self.blocks, self.place)

    async def bytes(self, **part: Any) -> bytes:
        parts: list[bytes] = []
        await transfer.get_file(self.blocks, await self.found(), parts.append, **part)
        return b"".join(parts)

    async def tree(self, out: Path) -> None:
        await trees.get_tree(self.blocks, await self.found(), out)


async def put(blocks: FakeBlocks, content: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutSummary:
    return await transfer.put_file(blocks, content, kind=Sealer(kind))


def make_tree(top: Path) -> Path:
    """Make a folder with everything that a tree may hold: also one that is sharded."""
    (top / "folder-of-secrets" / "empty").mkdir(parents=True)
    (top / "folder-of-secrets" / "letter.txt").write_bytes(WORDS * 10)
    (top / "folder-of-secrets" / "twin").write_bytes(WORDS * 10)
    (top / "large").write_bytes(WORDS * 9_000)
    (top / "nothing").touch()
    (top / "link").symlink_to("folder-of-secrets/letter.txt")
    (top / "many").mkdir()
    for number in range(700):
        (top / "many" / f"a-file-that-has-a-long-name-{number}").write_bytes(b"%d" % number)
    return top


# --- Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [NODE_KEY, LEAF_KEY])
@pytest.mark.parametrize("before", ["", "xorbit://", "ipfs://"])
def test_a_name_carries_its_key_and_a_path_may_follow(key: SealKey, before: str) -> None:
    text = f"{before}{CID}#{key.text}"
    assert parse_place(text) == Place(CID, (), key)
    assert parse_place(f"{text}/") == Place(CID, (), key)
    assert parse_place(f"{text}/a#b/c d") == Place(CID, ("a#b", "c d"), key)
    assert private_name(CID, key) == f"xorbit://{CID}#{key.text}"
    assert (private_name(CID, None), opened(FakeBlocks(), None).__class__) == (str(CID), FakeBlocks)


def test_a_key_has_one_text_form() -> None:
    """56 characters that copy as one word: the code of the root's codec, 32 bytes, a CRC."""
    assert NODE_KEY.text == "oaaacaqdaqcqmbyibefawdanbyhraeiscmkbkfqxdamrugy4dupb6vfg"
    assert len(LEAF_KEY.text) == 56
    for key in (NODE_KEY, LEAF_KEY):
        assert parse_key(key.text) == key
    raw = base64.b32decode(NODE_KEY.text.upper())
    assert raw[:33] == b"\x70" + bytes(range(32))


def test_a_slip_in_a_key_is_told_at_once_and_without_the_key() -> None:
    """Each character that is wrong, missing or too many, and each two that changed places."""
    key = NODE_KEY.text
    wrong = [key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :] for at in range(56)]
    wrong += [
        key[:at] + key[at + 1] + key[at] + key[at + 2 :]
        for at in range(55)
        if key[at] != key[at + 1]
    ]
    for text in (*wrong, key[:-1], key + "a", key.upper(), "", "8" * 56):
        with pytest.raises(MisuseError) as caught:
            parse_place(f"{CID}#{text}")
        assert "#" in str(caught.value)
        assert key[3:20] not in str(caught.value)
        assert key[30:50] not in str(caught.value)


def test_a_key_of_another_kind_of_root_is_refused() -> None:
    raw = bytes((0x71,)) + bytes(32)
    crc = crc_hqx(raw, 0).to_bytes(2, "big")
    with pytest.raises(MisuseError, match="copied wrongly"):
        parse_key(base64.b32encode(raw + crc).decode().lower())


def test_no_message_and_no_text_but_the_name_has_the_key() -> None:
    """A place and a found thing can be printed, logged and raised about."""
    place = Place(CID, ("a",), NODE_KEY)
    shown = [str(place), repr(place), repr(Found(CID, None, NODE_KEY)), repr(NODE_KEY)]
    shown += [rich.pretty.pretty_repr(place), rich.pretty.pretty_repr([NODE_KEY])]
    summary = PutSummary(CID, 1, 1, (), 0, seal=NODE_KEY)
    shown += [repr(summary), rich.pretty.pretty_repr(summary)]
    for text in (
        f"{CID}x#{NODE_KEY.text}",
        f"http://{CID}#{NODE_KEY.text}",
        f"{CID}#{NODE_KEY.text}/../x",
        f"{CID}/a/b#{NODE_KEY.text}",
        f"{CID}/#{NODE_KEY.text}",
        f"{str(CID).upper()}#{NODE_KEY.text}",
    ):
        with pytest.raises(MisuseError) as caught:
            parse_place(text)
        shown.append(str(caught.value))
        with pytest.raises(MisuseError) as caught:
            parse_cid(text)
        shown.append(str(caught.value))
    with pytest.raises(MisuseError, match="not understood here") as caught:
        parse_cid(f"{CID}#{NODE_KEY.text}")
    for text in (*shown, str(caught.value)):
        assert NODE_KEY.text[4:20] not in text
        assert NODE_KEY.secret.hex()[:16] not in text
        assert repr(NODE_KEY.secret)[2:-1] not in text
    with pytest.raises(MisuseError, match="write NAME#KEY/path"):
        parse_place(f"{CID}/a#{NODE_KEY.text}")
    assert without_key(f"{CID}#{NODE_KEY.text}/a") == f"{CID}#..."
    assert without_key("hello") == "hello"
    assert keys_hidden(f"no {CID}#{NODE_KEY.text}/a here") == f"no {CID}#.../a here"
    assert holds_key(f"get {CID}#{NODE_KEY.text}/a -o b")
    assert not holds_key(f"get {CID} -o {NODE_KEY.text}")


KEY = NODE_KEY.text
MISTYPED = [
    f"{CID}#{KEY[:-1]}",
    f"{CID}#{KEY[:-20]}",
    f"{CID}#{KEY}a",
    f"{CID}#{KEY.upper()}",
    f"{CID}#{KEY[:10]}0{KEY[11:]}",
    f"{CID}#{KEY[:10]}\u200b{KEY[10:]}",
    f"{CID}#{KEY[:30]}\n{KEY[30:]}",
    f"{CID}#{KEY}.",
    f"{str(CID)[:-1]}#{KEY}",
    f"{CID}# {KEY}",
    f"{CID}/#{KEY}",
    f"{CID}%23{KEY}",
    f"{CID}%2523{KEY}/a",
    f"xorbit://{CID}?{KEY}",
    f"{CID}{KEY}",
    f"{CID} {KEY}",
    KEY,
]
"""A name and its key, wrong in each of the ways in which it gets so."""


@pytest.mark.parametrize("text", MISTYPED)
def test_a_key_that_was_mistyped_is_hidden_too(text: str) -> None:
    """Whatever is wrong with it; as it was typed, and where a message quotes it."""
    for shown in (text, repr(text), f"expected a name, got {text!r}: it has 80 characters"):
        assert may_hold_key(shown)
        assert not parts_of_key(keys_hidden(shown))
    for parse in (parse_place, parse_cid):
        with pytest.raises(MisuseError) as caught:
            parse(text)
        assert not parts_of_key(str(caught.value))


def parts_of_key(text: str) -> list[str]:
    """Return which quarters of the key stand in a text."""
    parts = [KEY[at : at + 14] for at in range(0, 56, 14)]
    return [part for part in parts if part in text.lower()]


@pytest.mark.parametrize(
    "text",
    [
        "# a comment about something, as people write them",
        f"get {CID} -o 'C# notes of the year.txt'",
        f"get xorbit://{CID}/summer#2024/a%23b.jpg",
        "https://example.org/search?name=value&other=something#the-second-section",
        f"resolve {bytes(range(32)).hex()}",
        f"{CID}# is a name",
    ],
)
def test_what_is_no_key_is_left_as_it_is(text: str) -> None:
    assert keys_hidden(text) == text
    assert not may_hold_key(text)


# --- Round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256])
@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 24, CHUNK_BYTES - 23, 300_000])
async def test_a_file_comes_back_by_its_name_only(size: int, kind: Kind) -> None:
    """Every block fits 64 KiB, the sizes that are told are those of the content."""
    content = (WORDS * (size // len(WORDS) + 1))[:size]
    blocks = FakeBlocks()
    told: list[tuple[int, int | None]] = []
    done = await transfer.put_file(
        blocks, content, kind=Sealer(kind), progress=lambda *it: told.append(it)
    )
    assert (done.bytes, told[-1]) == (size, (size, size))
    assert done.cid == outer(done.cid, done.seal)
    assert done.cid.key.kind is kind
    assert max(map(len, blocks.held.values())) <= BLOCK_BYTES_MAX
    assert await Reader(blocks, done.name).bytes() == content
    assert WORDS not in b"".join(blocks.held.values())
    plain = await transfer.put_file(FakeBlocks(), content, kind=kind)
    assert (plain.seal, plain.name) == (None, str(plain.cid))


async def test_a_tree_comes_back_and_its_blocks_say_nothing(tmp_path: Path) -> None:
    """Listed, described, read in parts and as a whole; no name and no word of it in any block."""
    top, blocks = make_tree(tmp_path / "top"), FakeBlocks()
    told: list[int] = []
    done = await transfer.put_tree(
        blocks, top, kind=Sealer(), progress=lambda now, _: told.append(now)
    )
    reader = Reader(blocks, done.name)
    await reader.tree(tmp_path / "out")
    assert on_disk(tmp_path / "out") == on_disk(top)
    contents = [content for content in on_disk(top).values() if isinstance(content, bytes)]
    assert told[-1] == done.bytes == sum(map(len, contents))
    listed = {it.name: it.size for it in await trees.list_place(reader.blocks, reader.place)}
    assert listed["large"] == len(WORDS) * 9_000
    letter = Place(reader.place.cid, ("folder-of-secrets", "letter.txt"))
    [entry] = await trees.list_place(reader.blocks, letter)
    assert (entry.name, entry.size) == ("letter.txt", len(WORDS) * 10)
    large = await trees.find(reader.blocks, Place(reader.place.cid, ("large",)))
    async with await open_reader(reader.blocks, large) as file:
        file.seek(-10, io.SEEK_END)
        assert await file.read() == WORDS[-10:]
    parts: list[bytes] = []
    await transfer.get_file(reader.blocks, large, parts.append, part=(65_500, 65_600))
    assert b"".join(parts) == (WORDS * 9_000)[65_500:65_600]
    everything = b"".join(blocks.held.values())
    for word in (WORDS, b"secrets", b"letter", b"a-file-that-has", b"large"):
        assert word not in everything


async def test_the_same_content_put_twice_shares_no_block(tmp_path: Path) -> None:
    """Not with another put, and not with itself: twins in one tree look different too."""
    top = make_tree(tmp_path / "top")
    first, second, plain = FakeBlocks(), FakeBlocks(), FakeBlocks()
    one = await transfer.put_tree(first, top, kind=Sealer())
    two = await transfer.put_tree(second, top, kind=Sealer())
    await transfer.put_tree(plain, top)
    assert one.seal != two.seal
    assert one.name != two.name
    assert not first.held.keys() & second.held.keys()
    assert not first.held.keys() & plain.held.keys()
    assert len(first.held) == one.blocks == two.blocks
    twice = await put(FakeBlocks(), WORDS * 10 + b"\0" * 400_000)
    assert twice.blocks == 8


def test_no_nonce_comes_twice_and_none_is_seen() -> None:
    """Positions count up from 0; what stands before the ciphertext is different for every block."""
    sealer = Sealer()
    blocks = [sealer.seal(b"the same") for _ in range(1_000)]
    assert len({block[:8] for block in blocks}) == len(blocks)
    assert len({block[8:16] for block in blocks}) == len(blocks)
    seal = Seal(sealer.key_of(CID).secret)
    assert [seal.close(at, b"the same") for at in range(1_000)] == blocks
    firsts = {Sealer().seal(b"the same")[:8] for _ in range(100)}
    assert len(firsts) == 100
    assert bytes(8) not in firsts


def test_the_largest_nodes_fit() -> None:
    """A node of 1,024 children of terabytes each, sealed; a link and a shard know their room."""
    sizes = (2**45,) * CHILDREN_MAX
    data = encode_data(UnixFsData(Type.FILE, size=sum(sizes), sizes=sizes))
    node = encode_node(Node(tuple(Link(CID, "", 2**45) for _ in sizes), data))
    assert len(node) <= content_bytes_max(Sealer()) == BLOCK_BYTES_MAX - SEAL_BYTES
    room = content_bytes_max(Sealer()) - 10
    cid, block = build_symbolic_link("x" * room, Sealer())
    assert (len(block), cid.codec) == (BLOCK_BYTES_MAX, Codec.DAG_PB)
    with pytest.raises(MisuseError, match="larger than a block"):
        build_symbolic_link("x" * (room + 1), Sealer())
    assert len(build_symbolic_link("x" * (room + 1))[1]) == BLOCK_BYTES_MAX - SEAL_BYTES + 1
    builder = DirectoryBuilder(Sealer())
    for number in range(70_000):
        builder.add(f"{number:0200}", CID, 1)
    assert max(len(block) for _, block in builder.finish()) <= BLOCK_BYTES_MAX


# --- What is wrong ------------------------------------------------------------------------------


class Flipped(FakeBlocks):
    """A network that gives out a changed block as if its hash were right."""

    def __init__(self, good: FakeBlocks, key: ItemKey, changed: bytes) -> None:
        super().__init__()
        self.held = {**good.held, key: changed}


async def test_a_flipped_bit_in_any_block_is_an_error_that_names_it(tmp_path: Path) -> None:
    """In what masks the position, in the ciphertext, in the tag; nothing of it is written."""
    (tmp_path / "top" / "in").mkdir(parents=True)
    (tmp_path / "top" / "in" / "file").write_bytes(WORDS * 4_000)
    blocks = FakeBlocks()
    done = await transfer.put_tree(blocks, tmp_path / "top", kind=Sealer())
    for key, block in blocks.held.items():
        for at in (0, 7, 8, len(block) // 2, len(block) - 17, len(block) - 16, len(block) - 1):
            changed = block[:at] + bytes((block[at] ^ 1 << at % 8,)) + block[at + 1 :]
            with pytest.raises(FormatError, match=f"block {Cid(Codec.RAW, key)} does not open"):
                await Reader(Flipped(blocks, key, changed), done.name).tree(tmp_path / "out")
        for changed in (b"", block[:23], block[:24], block[:-1], block + b"\0"):
            with pytest.raises(FormatError, match=f"block {Cid(Codec.RAW, key)} does not open"):
                await Reader(Flipped(blocks, key, changed), done.name).tree(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_bit_of_a_block_is_held_by_its_seal() -> None:
    sealer = Sealer()
    seal, block = Seal(sealer.key_of(CID).secret), sealer.seal(b"word")
    assert seal.open(block) == b"word"
    for bit in range(8 * len(block)):
        changed = bytearray(block)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidTag):
            seal.open(bytes(changed))


async def test_a_wrong_key_opens_nothing(tmp_path: Path) -> None:
    blocks = FakeBlocks()
    one = await put(blocks, WORDS * 4_000)
    two = await put(blocks, WORDS)
    assert one.seal is not None
    assert two.seal is not None
    for cid, key in ((one.cid, two.seal), (two.cid, one.seal)):
        with pytest.raises(FormatError, match=f"block {cid} does not open: it was sealed under"):
            await Reader(blocks, private_name(cid, key)).bytes()
    plain = blocks.add(WORDS)
    with pytest.raises(FormatError, match=f"block {plain} does not open.*or is not private"):
        await Reader(blocks, private_name(plain, two.seal)).bytes()
    with pytest.raises(NotFoundError, match="nobody has it"):
        await Reader(blocks, private_name(CID, two.seal)).bytes()


async def test_blocks_of_another_put_cannot_stand_in_for_those_of_this(tmp_path: Path) -> None:
    """A tree made under another key below an honest node, and two blocks that changed places."""
    blocks, mine, other = FakeBlocks(), Sealer(), Sealer()
    strange = held(blocks, build_file([WORDS], other))
    builder = DirectoryBuilder(mine)
    builder.add("file", strange, 1)
    root = held(blocks, builder.finish())
    name = private_name(outer(root, mine.key_of(root)), mine.key_of(root))
    with pytest.raises(FormatError, match=f"block {outer(strange, mine.key_of(root))} does not"):
        await Reader(blocks, name).tree(tmp_path / "out")
    done = await put(blocks, WORDS * 10_000)
    leaves = [key for key in blocks.held if len(blocks.held[key]) == BLOCK_BYTES_MAX]
    first, second = leaves[:2]
    swapped = FakeBlocks()
    swapped.held = {**blocks.held, first: blocks.held[second], second: blocks.held[first]}
    opens = Opening(swapped, SealKey(done.seal.secret, True)) if done.seal else None
    assert opens is not None
    # Each opens by itself; that they are not where they belong is for the hash to say, which the
    # network holds every block against before it is opened.
    assert await opens.get_block(first) != await opens.get_block(second)


async def test_what_the_key_says_of_the_root_is_held_against_the_root() -> None:
    """A leaf that is called a node is refused; a node that is called a leaf is no file of ours."""
    blocks = FakeBlocks()
    done = await put(blocks, WORDS)
    assert done.seal is not None
    lie = SealKey(done.seal.secret, is_node=True)
    assert inner(done.cid, lie).codec is Codec.DAG_PB
    with pytest.raises(FormatError, match="block"):
        await Reader(blocks, private_name(done.cid, lie)).bytes()


def held(blocks: FakeBlocks, made: Iterable[tuple[Cid, bytes]]) -> Cid:
    """Hold the blocks that are made and return the last one's name."""
    listed = list(made)
    blocks.held |= {cid.key: data for cid, data in listed}
    return listed[-1][0]


def sealed_node(blocks: FakeBlocks, sealer: Sealer, links: list[Link], data: UnixFsData) -> Cid:
    node = encode_node(Node(tuple(links), encode_data(data)))
    return held(blocks, [make_block(node, Codec.DAG_PB, sealer)])


async def test_hostile_sealed_trees_are_refused_as_plain_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes a name has its key, and may have made anything: escapes, bombs, lies, depths."""
    monkeypatch.setattr("xorbit.files.visits.Visits.__init__.__defaults__", (1_000, 1_000, 2))
    blocks, sealer = FakeBlocks(), Sealer()
    directory = UnixFsData(Type.DIRECTORY)
    leaf = held(blocks, [make_block(WORDS, Codec.RAW, sealer)])

    escape = sealed_node(blocks, sealer, [Link(leaf, "..", 1)], directory)
    absolute = held(blocks, [build_symbolic_link("/etc", sealer)])
    link = sealed_node(blocks, sealer, [Link(absolute, "link", 1)], directory)
    bomb = leaf
    for _ in range(12):
        bomb = sealed_node(
            blocks, sealer, [Link(bomb, f"{number}", 1) for number in range(12)], directory
        )
    deep = sealed_node(blocks, sealer, [], directory)
    for _ in range(200):
        deep = sealed_node(blocks, sealer, [Link(deep, "a", 1)], directory)
    data = UnixFsData(Type.FILE, size=2**50, sizes=(2**50,))
    liar = sealed_node(blocks, sealer, [Link(deep, "", 1)], data)
    wrong = held(blocks, [make_block(b"no node", Codec.DAG_PB, sealer)])
    said = {
        escape: "it means a folder itself",
        link: "this is absolute",
        bomb: "entries that repeat others",
        deep: "deeper than 128",
        liar: "expected UnixFS type 2|more than are free",
        wrong: "block",
    }
    for number, (root, problem) in enumerate(said.items()):
        key = sealer.key_of(root)
        reader = Reader(blocks, private_name(outer(root, key), key))
        with pytest.raises((FormatError, WorldError), match=problem):
            await reader.tree(tmp_path / f"{number}")
    assert names(tmp_path) == []


def test_what_is_no_hash_of_blocks_names_none(tmp_path: Path) -> None:
    with pytest.raises(MisuseError):
        list(build_source(make_tree(tmp_path / "top"), Sealer(Kind.RECORD)))
