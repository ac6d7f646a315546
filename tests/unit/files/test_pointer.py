"""Records that point to trees, and names that go by way of one."""

import pytest

from xorbit.errors import MisuseError, NotFoundError
from xorbit.files.cid import Place, parse_cid
from xorbit.files.pointer import (
    RecordPlace,
    TreeVersion,
    parse_name,
    pointer_to,
    tree_version,
)
from xorbit.items import Record

CID = "bafkr4ifpcne3t6putuzui3ur5jiqy2h3bkyzmfhejh6cfcswwgtoonzr6i"
KEY = bytes(range(32))


def record(value: bytes) -> Record:
    return Record(KEY, 7, value, bytes(64), b"salt")


def test_what_is_pointed_to_is_read_back() -> None:
    """The value is the documented text, and says the root again."""
    value = pointer_to(parse_cid(CID))
    assert value == b"xorbit-tree:" + CID.encode()
    assert tree_version(record(value)) == TreeVersion(KEY, b"salt", 7, parse_cid(CID))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "does not begin with 'xorbit-tree:'"),
        (b"release 1.4", "does not begin with"),
        (CID.encode(), "does not begin with"),
        (f"xorbit://{CID}".encode(), "does not begin with"),
        (b"XORBIT-TREE:" + CID.encode(), "does not begin with"),
        (b"xorbit-tree:", "a name starts with b"),
        (b"xorbit-tree: " + CID.encode(), "a name starts with b"),
        (b"xorbit-tree:" + CID.encode() + b"\n", "only a-z and 2-7"),
        (b"xorbit-tree:" + CID.encode() + b"/sub", "more than the name"),
        (b"xorbit-tree:ipfs://" + CID.encode(), "more than the name"),
        (b"xorbit-tree:" + CID.encode()[:-1], "it has 58 characters"),
        (b"xorbit-tree:\xff\xfe", "a name starts with b"),
        (b"xorbit-tree:b\xff", "only a-z and 2-7"),
    ],
)
def test_a_record_of_anything_else_is_no_tree(value: bytes, says: str) -> None:
    """It is said which version of whose record, and what is wrong with it."""
    with pytest.raises(NotFoundError, match=r"version 7 of the record of 0001.*no tree") as told:
        tree_version(record(value))
    assert says in str(told.value)


@pytest.mark.parametrize("scheme", ["", "xorbit://"])
@pytest.mark.parametrize("path", ["", "/", "/sub", "/sub/a file", "/sub/"])
def test_public_keys_are_names(scheme: str, path: str) -> None:
    """A path may follow, as behind a CID; digits may be capitals."""
    parts = tuple(part for part in path.split("/") if part)
    text = KEY.hex().upper()
    assert parse_name(f"{scheme}{text}{path}") == RecordPlace(KEY, b"", parts)
    assert parse_name(f"{scheme}{text}{path}", b"s") == RecordPlace(KEY, b"s", parts)
    assert str(RecordPlace(KEY, b"s", parts)) == "/".join((KEY.hex(), *parts))


def test_cids_stay_names() -> None:
    place = Place(parse_cid(CID), ("sub",))
    assert parse_name(f"ipfs://{CID}/sub") == place == parse_name(f"{CID}/sub")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"ipfs://{KEY.hex()}", "a name starts with b"),
        (KEY.hex()[1:], "it has 63 hexadecimal digits, a public key has 64: copy it again"),
        ("b" + KEY.hex()[2:], "it has 63 hexadecimal digits"),
        (f"{KEY.hex()}0/a", "it has 65 hexadecimal digits"),
        (f"{KEY.hex()}/../x", "the one above it"),
        (f"http://{KEY.hex()}", "only ipfs or xorbit"),
        ("", "a name starts with b"),
    ],
)
def test_other_names_are_refused(text: str, says: str) -> None:
    with pytest.raises(MisuseError, match=says):
        parse_name(text)


def test_only_records_have_salts() -> None:
    with pytest.raises(MisuseError, match="only a public key's record has a salt"):
        parse_name(CID, b"salt")
