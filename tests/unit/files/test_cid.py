"""Names: one text form, one binary form, and help for whoever typed another."""

import re

import pytest

from xorbit.errors import FormatError, MisuseError
from xorbit.files.cid import (
    CID_BYTES,
    CID_CHARACTERS,
    Codec,
    Place,
    cid_of_block,
    decode_cid,
    parse_cid,
    parse_place,
)
from xorbit.items import Kind

# The names of no bytes at all: as `ipfs` gives them for SHA2-256, raw and dag-pb.
EMPTY_RAW = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
EMPTY_NODE = "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize(("codec", "text"), [(Codec.RAW, EMPTY_RAW), (Codec.DAG_PB, EMPTY_NODE)])
def test_known_names(codec: Codec, text: str) -> None:
    """A block's name is the one that other tools give it, in both directions."""
    cid = cid_of_block(b"", codec, Kind.BLOCK_SHA2_256)
    assert str(cid) == text
    assert parse_cid(text) == cid


@pytest.mark.parametrize("kind", [Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256])
@pytest.mark.parametrize("codec", list(Codec))
def test_forms(codec: Codec, kind: Kind) -> None:
    """Both forms of every kind of name have their one length and lead back to the name."""
    cid = cid_of_block(b"some bytes", codec, kind)
    assert len(bytes(cid)) == CID_BYTES
    assert len(str(cid)) == CID_CHARACTERS
    assert decode_cid(bytes(cid)) == cid
    assert parse_cid(str(cid)) == cid


@pytest.mark.parametrize("scheme", ["ipfs", "xorbit"])
def test_schemes(scheme: str) -> None:
    """A name may be written as the address of a link."""
    assert str(parse_cid(f"{scheme}://{EMPTY_RAW}")) == EMPTY_RAW


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "starts with b"),
        ("hello", "starts with b"),
        (f"http://{EMPTY_RAW}", "only ipfs or xorbit"),
        (f"://{EMPTY_RAW}", "only ipfs or xorbit"),
        (f"ipfs://ipfs://{EMPTY_RAW}", "a path after the name"),
        (f"a/ipfs://{EMPTY_RAW}", "a path after the name"),
        ("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n", "CIDv0"),
        ("zb2rhe5P4gXftAwvA4eXQ5HJwsER2owDyS9sKaQRRVQPn93bA", "base58"),
        (EMPTY_RAW.upper(), "lower case"),
        (f"{EMPTY_RAW}/readme.txt", "a path after the name"),
        (f" {EMPTY_RAW}", "starts with b"),
        (f"{EMPTY_RAW}\n", "a-z and 2-7"),
        (f"{EMPTY_RAW}==", "a-z and 2-7"),
        (f"{EMPTY_RAW[:-1]}ü", "a-z and 2-7"),
        (EMPTY_RAW[:-1], "it has 58 characters"),
        ("b" * 1_000, "it has 1000 characters"),
        (f"{EMPTY_RAW[:-1]}v", "bits that must be zero"),
        ("c" + EMPTY_RAW[1:], "starts with b"),
        ("bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "got 0x71"),
        ("ba" + "a" * 57, "expected a CIDv1"),
    ],
)
def test_bad_text(text: str, advice: str) -> None:
    """Whoever mistypes a name learns what came, and what to do about it."""
    with pytest.raises(MisuseError, match=re.escape(advice)) as caught:
        parse_cid(text)
    assert repr(text[:80])[:-1] in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("scheme", ["", "ipfs://", "xorbit://"])
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ()),
        ("/", ()),
        ("/a", ("a",)),
        ("/a/", ("a",)),
        ("/sub dir/ä/x%20y?z#1", ("sub dir", "ä", "x%20y?z#1")),
        ("/...", ("...",)),
        ("/a:", ("a:",)),
    ],
)
def test_places(scheme: str, path: str, names: tuple[str, ...]) -> None:
    """A name may have a path after it, taken as it is, in every form of the name."""
    place = parse_place(f"{scheme}{EMPTY_RAW}{path}")
    assert place == Place(parse_cid(EMPTY_RAW), names)
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (f"{EMPTY_RAW}/..", "the one above"),
        (f"{EMPTY_RAW}/a/../b", "the one above"),
        (f"{EMPTY_RAW}/./a", "a folder itself"),
        (f"{EMPTY_RAW}//a", "no name"),
        (f"{EMPTY_RAW}/a//b", "no name"),
        (f"{EMPTY_RAW}/a//", "no name"),
        (f"{EMPTY_RAW}//", "no name"),
        (f"{EMPTY_RAW}/a\0", "zero byte"),
        (f"http://{EMPTY_RAW}/a", "only ipfs or xorbit"),
        (f"ipfs://ipfs://{EMPTY_RAW}", "no name"),
        (f"/ipfs/{EMPTY_RAW}", "starts with b"),
        ("/a", "starts with b"),
        ("", "starts with b"),
        (f"{EMPTY_RAW[:-1]}/a", "it has 58 characters"),
        (f"{EMPTY_RAW}?x", "a-z and 2-7"),
        ("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n/a", "CIDv0"),
    ],
)
def test_bad_places(text: str, advice: str) -> None:
    """Whoever mistypes a path learns which part of it is wrong."""
    with pytest.raises(MisuseError, match=re.escape(advice)):
        parse_place(text)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda good: b"", "got 0"),
        (lambda good: good[:-1], "got 35"),
        (lambda good: good + b"\0", "got 37"),
        (lambda good: b"\x00" + good[1:], "CIDv1"),
        (lambda good: good[:1] + b"\x71" + good[2:], "codec"),
        (lambda good: good[:2] + b"\x13" + good[3:], "hash"),
        (lambda good: good[:2] + b"\x01" + good[3:], "hash"),
        (lambda good: good[:3] + b"\x1f" + good[4:], "CIDv1"),
        (lambda good: good[2:], "got 34"),
        (lambda good: b"\x12" + good[3:], "got a CIDv0"),
        (lambda good: b"\x81\x00" + good[1:], "got 37"),
    ],
    ids=[
        "empty", "cut", "longer", "version", "codec", "hash", "no hash of blocks", "length",
        "no version", "CIDv0", "long varint",
    ],
)  # fmt: skip
def test_bad_bytes(change, problem: str) -> None:
    """A peer's bytes that are no name of ours, or not in their one encoding, are its fault."""
    good = bytes(cid_of_block(b"", Codec.RAW))
    with pytest.raises(FormatError, match=problem):
        decode_cid(change(good))


def test_kind_of_a_record() -> None:
    """Only blocks have such names."""
    with pytest.raises(MisuseError, match="hash of blocks"):
        cid_of_block(b"", Codec.RAW, Kind.RECORD)
