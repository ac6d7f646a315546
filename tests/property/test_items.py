"""Items, for any content: they prove themselves, changed ones do not, and holders agree."""

from functools import reduce

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace
from nacl.signing import SigningKey

from tests.unit.wire.strategies import addresses, block_kinds, sequences
from xorbit.errors import ItemError, MisuseError
from xorbit.items import (
    CONNECTION_ITEM_DOMAIN,
    SEQUENCE_MAX,
    Address,
    ConnectionItem,
    Item,
    Kind,
    Record,
    check,
    check_is,
    connection_string,
    key_of,
    make_block,
    make_connection_item,
    make_record,
    parse_address,
    record_key,
    signed_string,
    version,
)

signing_keys = st.binary(min_size=32, max_size=32).map(SigningKey)
address_lists = st.lists(addresses, max_size=16)
values = st.binary(max_size=100)
salts = st.binary(max_size=64)
records = st.builds(make_record, signing_keys, sequences, values, salts)
whereabouts = st.builds(make_connection_item, signing_keys, sequences, address_lists)
items = st.one_of(st.builds(make_block, values, block_kinds), records, whereabouts)
KEY = SigningKey(b"\x01" * 32)


@given(items)
def test_what_is_made_proves_itself(item: Item) -> None:
    assert check(item) == key_of(item)


@given(items, items)
def test_no_item_passes_for_another(one: Item, other: Item) -> None:
    """Only an item of the same key passes for the one asked for."""
    try:
        check_is(other, key_of(one))
    except ItemError:
        assert key_of(one) != key_of(other)
    else:
        assert key_of(one) == key_of(other)


@given(st.binary(min_size=1, max_size=100), block_kinds, st.data())
def test_block_with_a_flipped_bit(data: bytes, kind: Kind, draw: st.DataObject) -> None:
    """Whichever bit of a block changes, it is no longer what its name says."""
    flipped = bytearray(data)
    flipped[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        check_is(make_block(bytes(flipped), kind), key_of(make_block(data, kind)))
    except ItemError:
        return
    raise AssertionError("a changed block passed for the one asked for")


@given(st.one_of(records, whereabouts), st.one_of(records, whereabouts), st.data())
def test_no_field_of_another_item_fits(
    one: Record | ConnectionItem, other: Record | ConnectionItem, data: st.DataObject
) -> None:
    """A signed item with any one field taken from another signed item is refused."""
    assume(type(one) is type(other))
    field = data.draw(st.sampled_from(one.__struct_fields__))
    assume(getattr(one, field) != getattr(other, field))
    try:
        check(replace(one, **{field: getattr(other, field)}))
    except ItemError:
        return
    raise AssertionError(f"{field} was changed and nobody noticed")


def read_connection_string(raw: bytes) -> tuple[int, list[Address]]:
    """Return what a connection item's string says, read back by its documentation alone."""
    assert raw.startswith(CONNECTION_ITEM_DOMAIN)
    raw = raw[len(CONNECTION_ITEM_DOMAIN) :]
    seq, count, raw = int.from_bytes(raw[:8], "big"), raw[8], raw[9:]
    found: list[Address] = []
    for _ in range(count):
        size = raw[0]
        host, port, raw = raw[1 : 1 + size], raw[1 + size : 3 + size], raw[3 + size :]
        found.append(Address(host.decode(), int.from_bytes(port, "big")))
    assert not raw
    return seq, found


@given(sequences, address_lists)
def test_connection_strings_say_one_thing_only(seq: int, listed: list[Address]) -> None:
    """The encoding can be read back, so no two different items are signed by the same bytes."""
    assert read_connection_string(connection_string(seq, listed)) == (seq, listed)


@given(sequences, address_lists, sequences, values, salts)
def test_records_and_connection_items_never_sign_the_same(
    seq: int, listed: list[Address], other_seq: int, value: bytes, salt: bytes
) -> None:
    """No byte string is both a record's and a connection item's: their first bytes differ."""
    signed = connection_string(seq, listed)
    record = signed_string(other_seq, value, salt)
    assert signed[:6] == b"xorbit"
    assert record[:6] in (b"3:seqi", b"4:salt")


def read_signed_string(raw: bytes) -> tuple[int, bytes, bytes]:
    """Return seq, value and salt of a record's string, read back as bencoding."""
    salt = b""
    if raw.startswith(b"4:salt"):
        size, raw = raw[6:].split(b":", 1)
        salt, raw = raw[: int(size)], raw[int(size) :]
        assert salt
    assert raw.startswith(b"3:seqi")
    seq, raw = raw[6:].split(b"e1:v", 1)
    size, value = raw.split(b":", 1)
    assert len(value) == int(size)
    return int(seq), value, salt


@given(sequences, values, salts)
def test_signed_strings_say_one_thing_only(seq: int, value: bytes, salt: bytes) -> None:
    """The string of BEP 44 can be read back, so no two records share a signature."""
    assert read_signed_string(signed_string(seq, value, salt)) == (seq, value, salt)


@given(salts, salts)
def test_each_salt_has_a_place_of_its_own(one: bytes, other: bytes) -> None:
    public_key = bytes(KEY.verify_key)
    assert (record_key(public_key, one) == record_key(public_key, other)) == (one == other)


def newer(held: Item, came: Item) -> Item:
    return came if version(came) > version(held) else held


few = st.integers(0, 2)
versions_of_one_record = st.builds(make_record, st.just(KEY), few, st.binary(max_size=2))
versions_of_one_node = st.builds(
    make_connection_item,
    st.just(KEY),
    few,
    st.lists(st.builds(Address, st.sampled_from(["a", "b"]), few.map(lambda n: n + 1)), max_size=2),
)


@given(
    st.one_of(
        st.lists(versions_of_one_record, min_size=1, max_size=6),
        st.lists(versions_of_one_node, min_size=1, max_size=6),
    ),
    st.randoms(use_true_random=False),
)
def test_all_holders_end_with_the_same_version(history: list[Item], rng) -> None:
    """In whatever order the versions of one item come, the same one stays."""
    shuffled = history.copy()
    rng.shuffle(shuffled)
    assert reduce(newer, history) == reduce(newer, shuffled)
    for one in history:
        for other in history:
            assert (version(one) == version(other)) == (one == other)


@given(st.integers(), st.integers(0, 20), st.integers(0, 3))
def test_made_items_are_never_out_of_bounds(seq: int, count: int, size: int) -> None:
    """Making an item either refuses or gives one that proves itself, for any arguments."""
    allowed = 0 <= seq <= SEQUENCE_MAX and count <= 16 and (size > 0 or count == 0)
    try:
        item = make_connection_item(KEY, seq, [Address("h" * size, 1)] * count)
    except MisuseError:
        assert not allowed
    else:
        assert allowed
        check(item)


@given(st.text(st.characters(), max_size=9), st.text("0123456789:x", max_size=6))
def test_any_text_is_an_address_or_a_misuse(host: str, port: str) -> None:
    """Whatever a user types gives an address that can be signed and sent, or a MisuseError."""
    try:
        address = parse_address(f"{host}:{port}")
    except MisuseError:
        return
    check(make_connection_item(KEY, 0, [address]))


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_literals_are_read_back_as_they_are_shown(host, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address
