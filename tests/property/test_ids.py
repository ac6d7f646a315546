"""The XOR metric holds for all ids."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.strategies import ids
from xorbit.ids import ID_BITS, Id, as_id, as_number, bucket_index, distance, finger_point


@given(ids)
def test_numbers_and_ids_are_one_to_one(point: Id) -> None:
    assert as_id(as_number(point)) == point


@given(ids, ids, ids)
def test_distance_is_a_metric(a: Id, b: Id, c: Id) -> None:
    """Zero only to itself, the same both ways, and no shorter by a detour."""
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


@given(ids, st.integers(0, 2**ID_BITS - 1))
def test_one_id_at_each_distance(a: Id, far: int) -> None:
    """From any id exactly one other lies at a given distance, so that nothing ties."""
    other = as_id(as_number(a) ^ far)
    assert distance(a, other) == far


@given(ids, ids)
def test_bucket_is_where_the_ids_first_differ(a: Id, b: Id) -> None:
    """Both share exactly the bits above the bucket's own."""
    index = bucket_index(a, b)
    if a == b:
        assert index == -1
        return
    bits_a, bits_b = (f"{as_number(point):0256b}" for point in (a, b))
    at = next(at for at in range(ID_BITS) if bits_a[at] != bits_b[at])
    assert index == ID_BITS - 1 - at


@given(ids, ids)
def test_no_id_of_a_bucket_is_nearer_than_its_finger_point(own: Id, other: Id) -> None:
    if own != other:
        point = finger_point(own, bucket_index(own, other))
        assert distance(own, point) <= distance(own, other)
