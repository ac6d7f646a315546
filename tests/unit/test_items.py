"""Items: what is made proves itself, what is changed anywhere does not, and all holders agree."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace
from nacl.signing import SigningKey

from xorbit.errors import ItemError, MisuseError
from xorbit.ids import Id, id_of
from xorbit.items import (
    ADDRESSES_MAX,
    BLOCK_BYTES_MAX,
    CONNECTION_ITEM_DOMAIN,
    HOST_BYTES_MAX,
    SALT_BYTES_MAX,
    SEQUENCE_MAX,
    VALUE_BYTES_MAX,
    Address,
    Block,
    ConnectionItem,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    check,
    check_is,
    connection_key,
    connection_string,
    key_of,
    make_block,
    make_connection_item,
    make_record,
    parse_address,
    pasted,
    record_key,
    signed_string,
    size_of,
    version,
)

REPOSITORY = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("XORBIT_VECTORS", REPOSITORY.parent / "shared" / "vectors"))

KEY = SigningKey(b"\x01" * 32)
PUBLIC_KEY = bytes(KEY.verify_key)
ADDRESSES = (Address("192.0.2.1", 4_000), Address("2001:db8::1", 4_001))
BLOCK = make_block(b"data")
RECORD = make_record(KEY, 7, b"value", b"salt")
WHEREABOUTS = make_connection_item(KEY, 7, ADDRESSES)


def flips(data: bytes) -> list[bytes]:
    """Return the data with each single bit flipped in turn."""
    number = int.from_bytes(data, "big")
    return [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def doubted(item: Item, changed: list[Item]) -> None:
    """Hold that the item proves itself, and that none of the changed ones proves to be it."""
    key = check(item)
    check_is(item, key)
    for other in changed:
        with pytest.raises(ItemError):
            check_is(other, key)


# --- BEP 44 --------------------------------------------------------------------------------------


def bep44() -> tuple[dict[str, Any], list[Record]]:
    path = VECTORS / "bep44.json"
    if not path.exists():
        pytest.skip(f"no vectors at {path}; set XORBIT_VECTORS to the folder that holds them")
    vectors = json.loads(path.read_text())
    records = [
        Record(
            bytes.fromhex(vectors["public_key"]),
            vector["seq"],
            vectors["value"].encode(),
            bytes.fromhex(vector["signature"]),
            vector["salt"].encode(),
        )
        for vector in vectors["vectors"]
    ]
    return vectors, records


def test_bep44_vectors() -> None:
    """Both mutable items of BEP 44, with and without a salt, are records as they stand."""
    vectors, records = bep44()
    assert len(records) == 2
    for vector, record in zip(vectors["vectors"], records, strict=True):
        signed = signed_string(record.seq, record.value, record.salt)
        assert signed == vector["signed_string"].encode()
        assert check(record) == record_key(record.public_key, record.salt)


def test_bep44_with_any_bit_flipped() -> None:
    """One bit changed in any field of a vector, and it is nobody's record."""
    _, records = bep44()
    for record in records:
        seqs = [record.seq ^ 1 << bit for bit in range(63)]
        changed = [
            *(replace(record, public_key=flipped) for flipped in flips(record.public_key)),
            *(replace(record, signature=flipped) for flipped in flips(record.signature)),
            *(replace(record, value=flipped) for flipped in flips(record.value)),
            *(replace(record, salt=flipped) for flipped in flips(record.salt)),
            *(replace(record, seq=seq) for seq in seqs),
        ]
        for other in changed:
            with pytest.raises(ItemError, match="the signature is not that of key"):
                check(other)


def test_bep44_vectors_are_not_each_other() -> None:
    """The signature with a salt does not hold without it, nor the other way round."""
    _, (plain, salted) = bep44()
    doubted(plain, [replace(plain, salt=salted.salt), salted])
    doubted(salted, [replace(salted, salt=b""), plain])


# --- Blocks --------------------------------------------------------------------------------------


def test_block_keys_are_multihashes() -> None:
    """The key's kind is the multihash code, its id the digest of that hash."""
    assert block_key(b"data") == ItemKey(Kind(0x1E), Id(blake3(b"data").digest()))
    by_sha2 = block_key(b"data", Kind.BLOCK_SHA2_256)
    assert by_sha2 == ItemKey(Kind(0x12), Id(sha256(b"data").digest()))


@pytest.mark.parametrize("kind", [Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256])
@pytest.mark.parametrize("data", [b"", b"data"])
def test_block_proves_itself_under_both_hashes(data: bytes, kind: Kind) -> None:
    block = make_block(data, kind)
    assert check(block) == key_of(block) == block_key(data, kind)
    doubted(block, [replace(block, data=other) for other in [*flips(data), data + b"\0"]])


def test_block_by_one_hash_is_not_the_block_by_the_other() -> None:
    """Equal bytes under another hash are another item."""
    other = make_block(BLOCK.data, Kind.BLOCK_SHA2_256)
    with pytest.raises(ItemError, match=r"asked for BLOCK_BLAKE3_256 .*, got BLOCK_SHA2_256"):
        check_is(other, key_of(BLOCK))


def test_block_bounds() -> None:
    assert check(make_block(bytes(BLOCK_BYTES_MAX)))
    with pytest.raises(MisuseError, match="at most 65,536 bytes, got 65,537"):
        make_block(bytes(BLOCK_BYTES_MAX + 1))
    with pytest.raises(ItemError, match="at most 65,536 bytes"):
        check(Block(Kind.BLOCK_BLAKE3_256, bytes(BLOCK_BYTES_MAX + 1)))


@pytest.mark.parametrize("kind", [Kind.RECORD, Kind.CONNECTION])
def test_block_of_a_wrong_kind(kind: Kind) -> None:
    """Nothing but a hash of blocks names a block: ours is a misuse, a peer's a bad item."""
    with pytest.raises(MisuseError, match=f"expected a hash of blocks .*, got {kind.name}"):
        make_block(b"data", kind)
    with pytest.raises(MisuseError, match=f"expected a hash of blocks .*, got {kind.name}"):
        block_key(b"data", kind)
    with pytest.raises(ItemError, match=f"expected a hash of blocks, got {kind.name}"):
        check(Block(kind, b"data"))


# --- Records -------------------------------------------------------------------------------------


def test_record_key_is_the_hash_of_key_and_salt() -> None:
    assert record_key(PUBLIC_KEY) == ItemKey(Kind.RECORD, id_of(PUBLIC_KEY))
    assert record_key(PUBLIC_KEY, b"salt").id == id_of(PUBLIC_KEY + b"salt")


@pytest.mark.parametrize(
    ("seq", "value", "salt"),
    [(0, b"", b""), (SEQUENCE_MAX, bytes(VALUE_BYTES_MAX), bytes(SALT_BYTES_MAX))],
    ids=["least", "greatest"],
)
def test_records_up_to_their_bounds(seq: int, value: bytes, salt: bytes) -> None:
    record = make_record(KEY, seq, value, salt)
    assert check(record) == record_key(PUBLIC_KEY, salt)


@pytest.mark.parametrize(
    ("seq", "value", "salt", "problem"),
    [
        (-1, b"", b"", r"in 0\.\.2\*\*63-1, got -1"),
        (SEQUENCE_MAX + 1, b"", b"", r"in 0\.\.2\*\*63-1, got 9223372036854775808"),
        (0, bytes(VALUE_BYTES_MAX + 1), b"", "at most 60,000 bytes, got 60,001"),
        (0, b"", bytes(SALT_BYTES_MAX + 1), "at most 64 bytes, got 65"),
    ],
    ids=["negative", "seq", "value", "salt"],
)
def test_records_beyond_their_bounds(seq: int, value: bytes, salt: bytes, problem: str) -> None:
    """Making one is a misuse; one that a peer signed all the same is a bad item."""
    with pytest.raises(MisuseError, match=problem):
        make_record(KEY, seq, value, salt)
    signature = KEY.sign(signed_string(seq, value, salt)).signature
    with pytest.raises(ItemError, match=problem):
        check(Record(PUBLIC_KEY, seq, value, signature, salt))


def test_record_of_another_key() -> None:
    """A right signature by the wrong key is a record, but not the one asked for."""
    other = make_record(SigningKey(b"\x02" * 32), 7, b"value", b"salt")
    doubted(RECORD, [other, replace(other, public_key=PUBLIC_KEY)])


@pytest.mark.parametrize("size", [0, 31, 33])
def test_public_key_of_a_wrong_length(size: int) -> None:
    with pytest.raises(ItemError, match="the signature is not that of key"):
        check(replace(RECORD, public_key=bytes(size)))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_signature_of_a_wrong_length(size: int) -> None:
    with pytest.raises(ItemError, match="the signature is not that of key"):
        check(replace(RECORD, signature=RECORD.signature.ljust(size, b"\0")[:size]))


# --- Connection items ----------------------------------------------------------------------------


def test_connection_string_is_the_documented_encoding() -> None:
    expected = (
        b"xorbit connection item v1\0"
        b"\0\0\0\0\0\0\x01\x02"
        b"\x02" + (b"\x09192.0.2.1" + b"\x0f\xa0") + (b"\x0b2001:db8::1" + b"\x0f\xa1")
    )
    assert connection_string(0x102, ADDRESSES) == expected


def test_connection_item_stands_at_the_node_id() -> None:
    assert check(WHEREABOUTS) == connection_key(id_of(PUBLIC_KEY))


def test_connection_item_with_anything_changed() -> None:
    first, second = ADDRESSES
    doubted(
        WHEREABOUTS,
        [
            *(replace(WHEREABOUTS, signature=other) for other in flips(WHEREABOUTS.signature)),
            *(replace(WHEREABOUTS, public_key=other) for other in flips(PUBLIC_KEY)),
            replace(WHEREABOUTS, seq=8),
            replace(WHEREABOUTS, addresses=(second, first)),
            replace(WHEREABOUTS, addresses=(first,)),
            replace(WHEREABOUTS, addresses=(*ADDRESSES, first)),
            replace(WHEREABOUTS, addresses=(Address("192.0.2.1", 4_002), second)),
        ],
    )


def test_no_signature_serves_for_two_kinds() -> None:
    """Even a record whose value is a connection item's string does not sign that item."""
    string = connection_string(7, ADDRESSES)
    record = make_record(KEY, 7, string, string[:SALT_BYTES_MAX])
    assert string.startswith(CONNECTION_ITEM_DOMAIN)
    doubted(WHEREABOUTS, [replace(WHEREABOUTS, signature=record.signature), record])
    doubted(RECORD, [replace(RECORD, signature=WHEREABOUTS.signature), WHEREABOUTS])


def test_connection_items_up_to_their_bounds() -> None:
    longest = Address("h" * HOST_BYTES_MAX, 65_535)
    for item in (
        make_connection_item(KEY, 0, []),
        make_connection_item(KEY, SEQUENCE_MAX, [longest] * ADDRESSES_MAX),
    ):
        assert check(item) == connection_key(id_of(PUBLIC_KEY))


@pytest.mark.parametrize(
    ("seq", "addresses", "problem"),
    [
        (-1, (), r"in 0\.\.2\*\*63-1, got -1"),
        (SEQUENCE_MAX + 1, (), r"in 0\.\.2\*\*63-1"),
        (0, ADDRESSES[:1] * (ADDRESSES_MAX + 1), "at most 16 addresses, got 17"),
        (0, (Address("", 1),), "a host is 1..253 bytes, got ''"),
        (0, (*ADDRESSES, Address("h" * 254, 1)), "a host is 1..253 bytes"),
        (0, (Address("h", 0),), "a port is in 1..65535, got 0"),
        (0, (Address("h", 65_536),), "a port is in 1..65535, got 65536"),
    ],
    ids=["negative", "seq", "many", "empty", "long", "0", "65536"],
)
def test_connection_items_beyond_their_bounds(
    seq: int, addresses: tuple[Address, ...], problem: str
) -> None:
    """Making one is a misuse; one that a peer sends is a bad item."""
    with pytest.raises(MisuseError, match=problem):
        make_connection_item(KEY, seq, addresses)
    with pytest.raises(ItemError, match=problem):
        check(ConnectionItem(PUBLIC_KEY, seq, addresses, bytes(64)))


@pytest.mark.parametrize(
    ("host", "problem"),
    [("\u00e9" * 127, "a host is 1..253 bytes"), ("\udc80", "a host is text")],
    ids=["long", "surrogate"],
)
def test_no_address_has_a_host_that_could_not_be_signed(host: str, problem: str) -> None:
    """A limit in characters, which is all that decoding counts, would let four times as many by."""
    with pytest.raises(MisuseError, match=problem):
        Address(host, 1)
    assert Address("\u00e9" * 126, 1).host.encode()


# --- All kinds -----------------------------------------------------------------------------------


def test_three_kinds_of_one_id_are_three_items() -> None:
    """A record without salt and the connection item of its key share the id, not the name."""
    record = make_record(KEY, 7, b"value")
    assert key_of(record).id == key_of(WHEREABOUTS).id
    with pytest.raises(ItemError, match=r"asked for CONNECTION .*, got RECORD"):
        check_is(record, key_of(WHEREABOUTS))


def test_key_of_verifies_nothing() -> None:
    """It names what an item claims to be, also where `check` would refuse."""
    for item in (RECORD, WHEREABOUTS):
        assert key_of(replace(item, signature=bytes(64))) == key_of(item)


def test_check_is_names_both_items() -> None:
    wanted = block_key(b"other")
    with pytest.raises(ItemError) as caught:
        check_is(BLOCK, wanted)
    assert wanted.id.hex() in str(caught.value)
    assert key_of(BLOCK).id.hex() in str(caught.value)


def test_all_versions_of_a_block_are_equal() -> None:
    assert version(BLOCK) == version(make_block(BLOCK.data))


def test_newer_records_are_greater() -> None:
    """The higher sequence number wins, at equal numbers the value that is greater as bytes."""
    rising = [(0, b"z"), (1, b""), (1, b"a"), (1, b"a\0"), (1, b"b"), (2, b""), (SEQUENCE_MAX, b"")]
    versions = [version(make_record(KEY, seq, value)) for seq, value in rising]
    assert versions == sorted(set(versions))


def test_newer_connection_items_are_greater() -> None:
    """The higher sequence number wins; at equal ones different addresses never tie."""
    older = [version(make_connection_item(KEY, 7, addresses)) for addresses in ((), ADDRESSES[:1])]
    assert older[0] != older[1]
    assert max(older) < version(make_connection_item(KEY, 8, ()))


@pytest.mark.parametrize(
    ("small", "large", "more"),
    [
        (BLOCK, make_block(BLOCK.data + b"12345"), 5),
        (RECORD, make_record(KEY, 7, b"value12345", b"salt"), 5),
        (RECORD, make_record(KEY, 7, b"value", b"salt12345"), 5),
        (WHEREABOUTS, make_connection_item(KEY, 7, (*ADDRESSES, Address("12", 1))), 5),
    ],
    ids=["block", "value", "salt", "addresses"],
)
def test_items_weigh_what_they_carry(small: Item, large: Item, more: int) -> None:
    """Every byte of content counts, and nothing weighs less than its content and signature."""
    assert size_of(large) == size_of(small) + more
    signature = b"" if isinstance(small, Block) else small.signature
    assert size_of(small) > len(signature)


# --- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:4000", Address("192.0.2.1", 4_000)),
        ("[2001:db8::1]:1", Address("2001:db8::1", 1)),
        ("[2001:DB8:0:0::1]:65535", Address("2001:db8::1", 65_535)),
        ("node.example:4000", Address("node.example", 4_000)),
    ],
)
def test_parse_address(text: str, address: Address) -> None:
    """Literals come out in their one canonical form, names as they are."""
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4000",
        ":4000",
        "[]:4000",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:0",
        "host:65536",
        "host:" + "1" * 5_000,
        "h" * 254 + ":1",
        "127.0.0.1:80:90",
        "\udcff:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MisuseError, match="expected HOST:PORT"):
        parse_address(text)


def test_address_is_shown_with_ipv6_in_brackets() -> None:
    assert str(Address("2001:db8::1", 1)) == "[2001:db8::1]:1"
    assert str(Address("192.0.2.1", 1)) == "192.0.2.1:1"


@pytest.mark.parametrize(
    "text",
    ["name", " name\n", "'name'", '"name"', "\u2018name\u2019", "\u201cname\u201d", ' " name " '],
)
def test_a_name_is_taken_as_it_was_meant(text: str) -> None:
    """Blanks and quotes around a name came with it when it was copied."""
    assert pasted(text) == "name"


@pytest.mark.parametrize("text", ["", "'", "'name", "it's", "name/\u201ca\u201d", "'name\""])
def test_quotes_within_a_name_stay(text: str) -> None:
    """What is not around the whole name, and on both sides, is part of it."""
    assert pasted(text) == text


@pytest.mark.parametrize("before", ["", "xorbit://", "ipfs://"])
@pytest.mark.parametrize("path", ["a ", " a", "a\n", " ", "a/ b\t", "a\u3000", "a'"])
def test_a_path_behind_a_name_is_exact(before: str, path: str) -> None:
    """Names of files may begin and end with blanks: without them they are other files."""
    place = f"{before}name/{path}"
    assert pasted(place) == pasted(f" \n{place}") == place
    assert pasted(f"'{place}'") == pasted(f' "{place}" \n') == place


@pytest.mark.parametrize("text", ["xorbit://name ", "ipfs://name\n", "\u201cxorbit://name \u201d"])
def test_the_slashes_of_a_scheme_begin_no_path(text: str) -> None:
    assert pasted(text) in ("xorbit://name", "ipfs://name")
