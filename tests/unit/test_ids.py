"""The keyspace: XOR distance, buckets and finger points."""

from random import Random

import pytest

from xorbit.ids import (
    GUID_BYTES,
    ID_BITS,
    ID_BYTES,
    Id,
    as_id,
    as_number,
    bucket_index,
    distance,
    finger_point,
    id_of,
    new_guid,
)

ZERO = Id(bytes(ID_BYTES))
ONES = Id(b"\xff" * ID_BYTES)


def test_id_of_is_blake3_256() -> None:
    """The empty input gives the digest that BLAKE3's own test vectors name."""
    expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert id_of(b"").hex() == expected


def test_numbers_are_big_endian() -> None:
    assert as_number(Id(b"\x01" + bytes(31))) == 2**248
    assert as_id(1) == bytes(31) + b"\x01"


@pytest.mark.parametrize("number", [-1, 2**ID_BITS])
def test_only_256_bit_numbers_are_ids(number: int) -> None:
    with pytest.raises(OverflowError):
        as_id(number)


def test_distance_is_the_xor_as_a_number() -> None:
    assert distance(ZERO, ONES) == 2**256 - 1
    assert distance(Id(b"\x0c" * 32), Id(b"\x0a" * 32)) == int.from_bytes(b"\x06" * 32, "big")


def test_bucket_of_oneself_is_none() -> None:
    assert bucket_index(ONES, ONES) == -1


@pytest.mark.parametrize("index", [0, 1, 7, 8, 100, 255])
def test_finger_point_is_the_nearest_id_of_its_bucket(index: int) -> None:
    """It lies in the bucket, at the least distance that any id of the bucket can have."""
    own = id_of(b"own")
    point = finger_point(own, index)
    assert bucket_index(own, point) == index
    assert distance(own, point) == 2**index


def test_guids_come_from_the_given_chance() -> None:
    """The same source gives the same guids, one after the other different ones."""
    rng = Random(1)
    first, second = new_guid(rng), new_guid(rng)
    assert len(first) == len(second) == GUID_BYTES
    assert first != second
    assert new_guid(Random(1)) == first
