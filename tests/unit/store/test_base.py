"""The rules that both stores share."""

import pytest

from tests.unit.store.samples import block, connection, record, write
from xorbit.items import Kind, key_of
from xorbit.store.base import (
    KEY_BYTES,
    STORED,
    Usage,
    decide,
    key_from_bytes,
    key_to_bytes,
    refuse_over_quota,
)


@pytest.mark.parametrize("item", [block(1), block(1, kind=Kind.BLOCK_SHA2_256), record(1)])
def test_a_key_survives_its_bytes(item):
    assert len(key_to_bytes(key_of(item))) == KEY_BYTES
    assert key_from_bytes(key_to_bytes(key_of(item))) == key_of(item)


@pytest.mark.parametrize("raw", [b"", bytes(32), bytes(33), b"\x01" * 34])
def test_bytes_that_are_no_key_are_none(raw):
    assert key_from_bytes(raw) is None


def test_an_equal_version_is_stored_whatever_cas_says():
    assert decide(record(3), write(record(3), cas=9)) == STORED


def test_a_newer_connection_item_may_replace_an_older_one():
    assert decide(connection(1), write(connection(2))) is None


@pytest.mark.parametrize(
    ("held", "wanted", "freed", "fits"),
    [(90, 10, 0, True), (90, 11, 0, False), (90, 20, 10, True), (200, 10, 10, True)],
)
def test_only_what_makes_a_full_store_fuller_is_refused(held, wanted, freed, fits):
    assert (refuse_over_quota(Usage(1, held, 100), wanted, freed) is None) == fits
