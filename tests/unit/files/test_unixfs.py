"""Files as trees: the names that IPFS gives, the layout's borders, and nodes that lie."""

import pytest

from tests.unit.files.fakes import file_vectors, vector_content
from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.protobuf import varint
from xorbit.files.unixfs import CHILDREN_MAX, CHUNK_BYTES, Child, build_file, parse_file_node
from xorbit.items import BLOCK_BYTES_MAX, Kind

LEAF = cid_of_block(b"leaf", Codec.RAW)
INNER = cid_of_block(b"inner", Codec.DAG_PB)


def test_vectors() -> None:
    """Every file of the vectors gets the name and the weight that the JavaScript importer gives."""
    for vector in file_vectors():
        content = vector_content(vector["size"], vector["a"], vector["b"])
        made = [(cid, len(data)) for cid, data in build_file(content, Kind.BLOCK_SHA2_256)]
        weight = sum(size for _, size in made)
        assert (str(made[-1][0]), weight) == (vector["cid"], vector["dag_size"]), vector


def test_vectors_say_what_their_content_is() -> None:
    """The content that is built 64 KiB at a time is the one that the vectors' note defines."""
    size, a, b = 140_000, 7, 3
    slow = bytes((i * a + b + (i >> 8) * 31 + (i >> 16) * 17) % 256 for i in range(size))
    assert b"".join(vector_content(size, a, b)) == slow


def test_one_leaf() -> None:
    """A file of one leaf is that leaf, also when it is empty or just full."""
    for content in (b"", b"x", b"x" * CHUNK_BYTES):
        [(cid, data)] = build_file([content])
        assert (cid, data) == (cid_of_block(content, Codec.RAW), content)


def test_cuts_do_not_matter() -> None:
    """How a source hands out its bytes does not change the blocks."""
    whole = list(build_file([b"0123456789"], chunk_bytes=4, children_max=2))
    pieces = [b"", b"0", b"12", b"", b"345678", b"9", b""]
    assert list(build_file(pieces, chunk_bytes=4, children_max=2)) == whole


@pytest.mark.parametrize(
    ("leaves", "blocks", "depth"),
    [(1, 1, 0), (2, 3, 1), (3, 4, 1), (4, 7, 2), (9, 13, 2), (10, 17, 3), (27, 40, 3)],
)
def test_layout(leaves: int, blocks: int, depth: int) -> None:
    """The tree is balanced: all leaves are equally deep, and it has no level more than it needs."""
    content = bytes(range(leaves))
    made = dict(build_file([content], chunk_bytes=1, children_max=3))
    listed = list(build_file([content], chunk_bytes=1, children_max=3))
    assert len(listed) == blocks
    root = listed[-1][0]
    assert depths(root, made) == {depth}


def depths(cid: Cid, made: dict[Cid, bytes]) -> set[int]:
    if cid.codec is Codec.RAW:
        return {0}
    node = parse_file_node(made[cid])
    return {1 + deep for child in node.children for deep in depths(child.cid, made)}


def test_the_fullest_node_is_a_block() -> None:
    """A node with all its children still fits a block, in a file of 2**50 bytes."""
    child = Link(INNER, "", 2**50)
    sizes = [2**50] * CHILDREN_MAX
    data = encode_node(Node((child,) * CHILDREN_MAX, file_data(sizes)))
    assert len(data) <= BLOCK_BYTES_MAX
    assert parse_file_node(data).size == 2**60


def test_hash_of_a_record() -> None:
    """A file cannot be named by what is no hash."""
    with pytest.raises(MisuseError, match="hash of blocks"):
        list(build_file([b"x"], Kind.RECORD))


# --- Nodes of others ----------------------------------------------------------------------------


def file_data(sizes: list[int], total: int | None = None, kind: int = 2) -> bytes:
    total = sum(sizes) if total is None else total
    listed = b"".join(b"\x20" + varint(size) for size in sizes)
    return b"\x08" + varint(kind) + b"\x18" + varint(total) + listed


def node(links: list[Link], data: bytes | None) -> bytes:
    return encode_node(Node(tuple(links), data))


def test_parse() -> None:
    """A node says the names, the sizes and the order of its parts, named links or not."""
    parsed = parse_file_node(node([Link(LEAF, ""), Link(INNER)], file_data([65_536, 2**40])))
    assert parsed.children == (Child(LEAF, 65_536), Child(INNER, 2**40))
    assert parsed.size == 65_536 + 2**40


TWO = [Link(LEAF, ""), Link(LEAF, "")]
TYPE = b"\x08\x02"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "without data"),
        (node(TWO, None), "without data"),
        (node(TWO, b""), "none given"),
        (node(TWO, b"\x18\x02\x20\x01\x20\x01"), "none given"),
        (node(TWO, file_data([1, 1], kind=0)), "raw"),
        (node(TWO, file_data([1, 1], kind=1)), "got 1 .directory"),
        (node(TWO, file_data([1, 1], kind=4)), "symbolic link"),
        (node(TWO, file_data([1, 1], kind=5)), "sharded directory"),
        (node(TWO, file_data([1, 1], kind=99)), "99 .unknown"),
        (node(TWO, TYPE + b"\x12\x01x\x18\x02\x20\x01\x20\x01"), "holds bytes itself"),
        (node([], TYPE + b"\x12\x00\x18\x00"), "holds bytes itself"),
        (node(TWO, file_data([1, 1]) + b"\x28\x22"), "hashType or fanout"),
        (node(TWO, file_data([1, 1]) + b"\x30\x08"), "hashType or fanout"),
        (node(TWO, file_data([1, 1]) + b"\x38\x01"), "got number 7"),
        (node(TWO, TYPE + b"\x20\x01\x20\x01"), "filesize"),
        (node(TWO, TYPE + b"\x20\x01\x18\x02\x20\x01"), "out of order"),
        (node(TWO, TYPE + b"\x18\x02\x22\x02\x01\x01"), "wrong wire type"),
        (node(TWO, file_data([2])), "2 links but 1 sizes"),
        (node(TWO, file_data([1, 1, 1])), "2 links but 3 sizes"),
        (node(TWO, file_data([1, 1], total=3)), "a file of 3 bytes whose parts are 2"),
        (node(TWO, file_data([2**64 - 1, 2], total=1)), "whose parts are"),
        (node([], file_data([])), "got 0"),
        (node([Link(LEAF)] * 1_025, file_data([1] * 1_025)), "got 1,025"),
        (node(TWO, file_data([1, 0])), "empty"),
        (node(TWO, file_data([1, 65_537])), "at most 65,536 bytes"),
        (node([Link(LEAF, "a"), Link(LEAF, "b")], file_data([1, 1])), "has the name 'a'"),
        (node([Link(LEAF, "a" * 60_000)], file_data([1])), "has the name 'a"),
        (node(TWO, file_data([1, 1])) + b"\0", "number"),
        (b"\0" * 65_537, "at most 65,536"),
    ],
)
def test_refused(data: bytes, problem: str) -> None:
    """A node that is no file's, or that contradicts itself, is refused with the reason."""
    with pytest.raises(FormatError, match=problem) as caught:
        parse_file_node(data)
    assert len(str(caught.value)) < 1_000
