"""Files, for any bytes: what goes in comes out, and no bytes of a peer do more than be refused."""

import asyncio
import contextlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.files.fakes import FakeBlocks
from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import Cid, Codec, cid_of_block, decode_cid, parse_cid
from xorbit.files.dag_pb import Link, Node, decode_node, encode_node
from xorbit.files.transfer import get_file
from xorbit.files.unixfs import build_file, parse_file_node
from xorbit.items import Kind

KINDS = st.sampled_from([Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256])
CIDS = st.builds(cid_of_block, st.binary(max_size=8), st.sampled_from(Codec), KINDS)
LINKS = st.builds(
    Link, CIDS, st.none() | st.text(max_size=8), st.none() | st.integers(0, 2**64 - 1)
)
NODES = st.builds(Node, st.lists(LINKS, max_size=5).map(tuple), st.none() | st.binary(max_size=32))
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
SIZES = st.integers(0, 300)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes with some of them flipped, cut off or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = draw(st.binary(max_size=4))
    return bytes(data)


@given(CIDS)
def test_names(cid: Cid) -> None:
    """Every name comes back from its text and from its bytes."""
    assert parse_cid(str(cid)) == cid
    assert decode_cid(bytes(cid)) == cid


@given(
    st.text(max_size=70) | st.text("abcdefghijklmnopqrstuvwxyz234567", max_size=58).map("b".__add__)
)
def test_any_text(text: str) -> None:
    """Any text is either the one text form of a name or refused as the user's mistake."""
    with contextlib.suppress(MisuseError):
        assert text in (str(parse_cid(text)), f"ipfs://{parse_cid(text)}")


@given(CIDS, st.data())
def test_mistyped_name(cid: Cid, data: st.DataObject) -> None:
    """One wrong character never leads to the name that was meant."""
    good = str(cid)
    at = data.draw(st.integers(0, len(good) - 1))
    wrong = data.draw(st.sampled_from("abz27=A 0"))
    text = good[:at] + wrong + good[at + 1 :]
    with contextlib.suppress(MisuseError):
        assert (parse_cid(text) == cid) is (text == good)


@given(st.binary(max_size=40) | damaged(CIDS.map(bytes)))
def test_any_bytes_as_a_name(data: bytes) -> None:
    """Any bytes are either the one binary form of a name or refused."""
    with contextlib.suppress(FormatError):
        assert bytes(decode_cid(data)) == data


@given(NODES)
def test_nodes(node: Node) -> None:
    """Every node comes back from its bytes, its links sorted by name."""
    decoded = decode_node(encode_node(node))
    assert decoded.data == node.data
    assert list(decoded.links) == sorted(node.links, key=lambda link: (link.name or "").encode())


@given(st.binary(max_size=200) | damaged(NODES.map(encode_node)))
def test_any_bytes_as_a_node(data: bytes) -> None:
    """Any bytes are either the one encoding of a node or refused, with no other error."""
    with contextlib.suppress(FormatError):
        assert encode_node(decode_node(data)) == data


def root_of(size: int) -> bytes:
    *_, (_, root) = build_file([bytes(size)], chunk_bytes=4, children_max=8)
    return root


@given(st.binary(max_size=200) | damaged(st.integers(5, 300).map(root_of)))
def test_any_bytes_as_a_part_of_a_file(data: bytes) -> None:
    """Any bytes are refused, or they are a node whose parts add up."""
    with contextlib.suppress(FormatError):
        node = parse_file_node(data)
        assert sum(child.size for child in node.children) == node.size > 0


@given(st.binary(max_size=100), st.integers(1, 9), st.integers(2, 4), st.lists(SIZES, max_size=5))
def test_cuts(content: bytes, chunk_bytes: int, children_max: int, cuts: list[int]) -> None:
    """The blocks of a file do not depend on how its bytes were handed over."""
    borders = [0, *sorted(cuts), len(content)]
    pieces = [content[a:b] for a, b in pairwise(borders)]
    made = list(build_file(pieces, chunk_bytes=chunk_bytes, children_max=children_max))
    assert made == list(build_file([content], chunk_bytes=chunk_bytes, children_max=children_max))


@given(SIZES, st.integers(1, 5), st.integers(3, 9), st.integers(1, 40))
def test_round_trip(size: int, chunk_bytes: int, children_max: int, window: int) -> None:
    """A file of any size and shape comes back whole and in order, through any window."""
    content = bytes(i * 7 % 251 for i in range(size))

    async def get() -> bytes:
        blocks = FakeBlocks()
        cid = blocks.add_file(content, chunk_bytes, children_max)
        parts: list[bytes] = []
        assert await get_file(blocks, cid, parts.append, window=window) == size
        return b"".join(parts)

    assert asyncio.run(get()) == content
