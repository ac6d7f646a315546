"""The addresses that a home remembers."""

import json
import stat
from pathlib import Path

import pytest

from xorbit.errors import StoreError
from xorbit.items import Address
from xorbit.run.saved import (
    ADDRESSES_MAX,
    NETWORKS_MAX,
    SAVED_FILE,
    load_addresses,
    save_addresses,
)

OURS, THEIRS = b"o" * 32, b"t" * 32
ADDRESSES = [Address("127.0.0.1", 4000), Address("::1", 4001), Address("example.org", 4002)]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Addresses of every kind come back in their order."""
    save_addresses(tmp_path, OURS, ADDRESSES)
    assert load_addresses(tmp_path, OURS) == ADDRESSES


def test_addresses_belong_to_one_network(tmp_path: Path) -> None:
    """Another network never sees them, and saving its own leaves ours alone."""
    save_addresses(tmp_path, OURS, ADDRESSES)
    assert load_addresses(tmp_path, THEIRS) == []
    save_addresses(tmp_path, THEIRS, ADDRESSES[:1])
    assert load_addresses(tmp_path, OURS) == ADDRESSES
    assert load_addresses(tmp_path, THEIRS) == ADDRESSES[:1]


def test_the_file_is_the_owners_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Whom we know is nobody else's business; a replaced file leaves no remains."""
    for _ in range(2):
        save_addresses(tmp_path, OURS, ADDRESSES)
    assert [path.name for path in tmp_path.iterdir()] == [SAVED_FILE]
    assert stat.S_IMODE((tmp_path / SAVED_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"6f": [1]}', b"\xff", b'{"x": "y"}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """A damaged file costs the memory of peers, never the start; the next save mends it."""
    (tmp_path / SAVED_FILE).write_bytes(content)
    assert load_addresses(tmp_path, OURS) == []
    save_addresses(tmp_path, OURS, ADDRESSES)
    assert load_addresses(tmp_path, OURS) == ADDRESSES


def test_an_address_that_is_none_is_left_out(tmp_path: Path) -> None:
    """One wrong line does not cost the others."""
    content = {OURS.hex(): ["nonsense", "127.0.0.1:4000", "1.2.3.4:0"]}
    (tmp_path / SAVED_FILE).write_text(json.dumps(content))
    assert load_addresses(tmp_path, OURS) == ADDRESSES[:1]


def test_the_file_cannot_grow_without_end(tmp_path: Path) -> None:
    """So many addresses of so many networks are kept, those of the last used networks."""
    many = [Address("127.0.0.1", port) for port in range(1, 200)]
    for number in range(NETWORKS_MAX + 2):
        save_addresses(tmp_path, bytes([number]) * 32, many)
    assert load_addresses(tmp_path, bytes(32)) == []
    assert load_addresses(tmp_path, bytes([2]) * 32) == many[:ADDRESSES_MAX]


def test_a_home_that_is_gone(tmp_path: Path) -> None:
    """A home that does not exist any more is an error that names the file."""
    with pytest.raises(StoreError, match=SAVED_FILE):
        save_addresses(tmp_path / "gone", OURS, ADDRESSES)
