"""What is typed on the command line becomes values."""

from pathlib import Path

import pytest
import typer

from xorbit.cli.options import HashName, parse_size
from xorbit.cli.places import place_named, public_key_named
from xorbit.errors import MisuseError
from xorbit.files.cid import Codec, Place, cid_of_block
from xorbit.items import Kind
from xorbit.run.file_calls import cid_from, place_from
from xorbit.run.pinning import root_and_key


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500", 500),
        ("64KiB", 65_536),
        ("64kib", 65_536),
        ("1.5G", 1_500_000_000),
        ("10 GB", 10_000_000_000),
        ("2TiB", 2 * 2**40),
        (" 3MB ", 3_000_000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    """A size is a number with or without a unit: decimal units by 1,000, binary ones by 1,024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.1", "-1", "1X", "GiB", "1,000", "1 G B", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A size that is not at least a byte, or cannot be read, is wrong usage."""
    with pytest.raises(typer.BadParameter, match="expected a size"):
        parse_size(text)


def test_hash_names_stand_for_kinds() -> None:
    """Each name of a hash stands for the kind of block that it makes."""
    assert {name.value: name.kind for name in HashName} == {
        "blake3-256": Kind.BLOCK_BLAKE3_256,
        "sha2-256": Kind.BLOCK_SHA2_256,
    }


def test_a_name_may_be_pasted_with_its_quotes(tmp_path: Path) -> None:
    """Wherever a name is taken, quotes around it mean nothing."""
    cid, key = cid_of_block(b"x", Codec.RAW), "ab" * 32
    typed = f"\u201c{cid}\u201d"
    assert place_named(tmp_path, typed, "") == place_from(typed) == Place(cid)
    assert place_named(tmp_path, f"'{cid}/a'", "") == Place(cid, ("a",))
    assert cid_from(typed) == cid
    assert root_and_key(typed)[0].key == cid.key
    assert public_key_named(tmp_path, f'"{key}"') == bytes.fromhex(key)


@pytest.mark.parametrize(
    ("typed", "is_maybe_key"),
    [("me/a.txt", True), ("ab" * 31, True), ("bafkr4i", False), (f"{'a' * 59}/../x", True)],
)
def test_what_names_nothing_may_have_been_meant_for_a_key(
    tmp_path: Path, typed: str, is_maybe_key: bool
) -> None:
    """Who mistypes the name of a key, or loses one of its digits, reads of keys."""
    with pytest.raises(MisuseError) as refused:
        place_named(tmp_path, typed, "")
    assert ("nor is it the name of a key here" in str(refused.value)) is is_maybe_key
