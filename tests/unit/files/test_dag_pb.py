"""Nodes of links and data: one encoding, and every other is refused."""

import pytest

from xorbit.errors import FormatError
from xorbit.files.cid import Codec, cid_of_block
from xorbit.files.dag_pb import Link, Node, decode_node, encode_node

LEAF = cid_of_block(b"leaf", Codec.RAW)
HASH = b"\x0a\x24" + bytes(LEAF)
LINK = b"\x12\x26" + HASH


def link(body: bytes) -> bytes:
    return b"\x12" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    ("node", "encoded"),
    [
        (Node(), b""),
        (Node(data=b""), b"\x0a\x00"),
        (Node(data=b"\x00\x01\x02\x03\x04"), b"\x0a\x05\x00\x01\x02\x03\x04"),
        (Node((Link(LEAF),)), LINK),
        (Node((Link(LEAF, "", 0),), b""), link(HASH + b"\x12\x00\x18\x00") + b"\x0a\x00"),
        (Node((Link(LEAF, "a", 300),)), link(HASH + b"\x12\x01a\x18\xac\x02")),
        (
            Node((Link(LEAF, None, 2**64 - 1), Link(LEAF, "ä"))),
            link(HASH + b"\x18" + b"\xff" * 9 + b"\x01") + link(HASH + b"\x12\x02\xc3\xa4"),
        ),
    ],
    ids=["nothing", "no bytes", "bytes", "bare link", "empty fields", "all fields", "largest size"],
)
def test_encoding(node: Node, encoded: bytes) -> None:
    """A node has the bytes that the specification gives it, and they lead back to it."""
    assert encode_node(node) == encoded
    assert decode_node(encoded) == node


def test_links_are_sorted() -> None:
    """Links go out in the order of their names' bytes, those of one name as they were given."""
    other = cid_of_block(b"other", Codec.RAW)
    links = (Link(LEAF, "ä"), Link(LEAF, "a"), Link(LEAF, "Z"), Link(other), Link(LEAF, ""))
    decoded = decode_node(encode_node(Node(links)))
    assert [entry.name for entry in decoded.links] == [None, "", "Z", "a", "ä"]
    assert decoded.links[0].cid == other


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x0a\x00" + LINK, "out of order"),
        (b"\x0a\x00\x0a\x00", "comes twice"),
        (link(b"\x12\x00" + HASH), "out of order"),
        (link(HASH + HASH), "comes twice"),
        (link(HASH + b"\x18\x01\x18\x01"), "comes twice"),
        (b"\x1a\x00", "got number 3"),
        (b"\x00\x00", "got number 0"),
        (link(HASH + b"\x20\x01"), "got number 4"),
        (b"\x08\x01", "wrong wire type"),
        (b"\x10\x01", "wrong wire type"),
        (link(HASH + b"\x1a\x00"), "wrong wire type"),
        (b"\x0d\x01\x00\x00\x00", "wire type 5"),
        (b"\x0b\x00", "wire type 3"),
        (b"\x0a\x80\x00", "longer than need be"),
        (b"\x8a\x00\x00", "longer than need be"),
        (link(HASH + b"\x18\x81\x00"), "longer than need be"),
        (link(HASH + b"\x18" + b"\xff" * 9 + b"\x02"), "above"),
        (link(HASH + b"\x18" + b"\xff" * 10 + b"\x01"), "does not end"),
        (b"\x0a", "end within a number"),
        (b"\x0a\x80", "end within a number"),
        (b"\x0a\x02\x00", "says 2 bytes, 1 follow"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "bytes, 0 follow"),
        (LINK + b"\x00", "end within a number"),
        (link(b""), "no Hash"),
        (link(b"\x12\x01a"), "no Hash"),
        (link(b"\x0a\x00"), "expected a CIDv1"),
        (link(HASH + b"\x12\x01\xff"), "not UTF-8"),
        (link(HASH + b"\x12\x01b") + link(HASH + b"\x12\x01a"), "not sorted"),
    ],
)
def test_refused(data: bytes, problem: str) -> None:
    """Whatever is not the canonical encoding of a node is refused, and the message says why."""
    with pytest.raises(FormatError, match=problem):
        decode_node(data)


def test_no_message_is_as_long_as_a_name_of_a_stranger() -> None:
    data = encode_node(Node((Link(LEAF, "a" * 60_000),))).replace(b"a", b"\xff")
    with pytest.raises(FormatError, match=r"not UTF-8: '\\udcff") as caught:
        decode_node(data)
    assert len(str(caught.value)) < 1_000
