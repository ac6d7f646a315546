"""What every store promises, held against each of its two homes."""

import math

import pytest

from tests.unit.store.samples import (
    BOB,
    QUOTA_BYTES,
    block,
    connection,
    record,
    rot,
    write,
)
from xorbit.ids import Id, id_of
from xorbit.items import (
    ITEM_OVERHEAD_BYTES,
    Address,
    Block,
    Contact,
    Held,
    Item,
    ItemKey,
    Kind,
    key_of,
    make_block,
    size_of,
)
from xorbit.store.base import DAMAGED, STORED, Eviction, Store, Usage, Write, WriteResult
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

EVERY_KIND = pytest.mark.parametrize(
    "item",
    [block(1), block(1, kind=Kind.BLOCK_SHA2_256), record(1), connection(1)],
    ids=["blake3", "sha2", "record", "connection"],
)


@pytest.fixture(params=["memory", "lmdb"])
def make_store(request, tmp_path):
    made: list[Store] = []

    def make(quota_bytes: int = QUOTA_BYTES) -> LmdbStore | MemoryStore:
        lmdb = request.param == "lmdb"
        made.append(LmdbStore(tmp_path, quota_bytes) if lmdb else MemoryStore(quota_bytes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def store(make_store):
    return make_store()


def put(store: Store, *items: Item) -> None:
    assert store.write([write(item) for item in items]) == [STORED] * len(items)


def read_one(store: Store, item: Item):
    return store.read([key_of(item)])[0]


@EVERY_KIND
def test_what_is_stored_is_read_back_equal(store, item):
    put(store, item)
    assert store.read([key_of(item)]) == [item]


@EVERY_KIND
def test_what_is_not_held_reads_as_none_and_is_not_had(store, item):
    assert (store.read([key_of(item)]), store.have([key_of(item)])) == ([None], [False])


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_a_block_of_any_allowed_size_is_kept(store, size):
    item = block(7, size)
    put(store, item)
    assert read_one(store, item) == item


def test_empty_batches_are_answered_with_empty_lists(store):
    assert (store.read([]), store.write([]), store.have([]), store.drop_damaged([])) == (
        [],
        [],
        [],
        0,
    )


def test_answers_come_in_the_order_of_the_keys_with_gaps_in_their_place(store):
    a, b, absent = block(1), record(1), block(2)
    put(store, a, b)
    keys = [key_of(item) for item in (b, absent, a, b)]
    assert store.read(keys) == [b, None, a, b]
    assert store.have(keys) == [True, False, True, True]


def test_the_two_hashes_of_the_same_bytes_are_two_items(store):
    blake3, sha2 = block(1), block(1, kind=Kind.BLOCK_SHA2_256)
    put(store, blake3)
    assert store.read([key_of(sha2)]) == [None]


def test_kinds_at_one_id_do_not_meet(store):
    """A node's connection item and its record without salt stand at the same id."""
    where, what = connection(1), record(1)
    assert key_of(where).id == key_of(what).id
    put(store, where, what)
    assert store.read([key_of(where), key_of(what)]) == [where, what]


@EVERY_KIND
def test_storing_the_same_again_counts_as_stored_and_weighs_once(store, item):
    put(store, item, item)
    put(store, item)
    assert store.usage() == Usage(1, size_of(item), QUOTA_BYTES)


# --- Versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (record(1), record(2)),
        (record(2, b"a"), record(2, b"b")),
        (record(2, b"a longer value"), record(3, b"short")),
        (connection(1), connection(2)),
        (connection(2, port=1), connection(2, port=2)),
    ],
)
def test_the_newer_version_wins_in_whichever_order_they_come(store, older, newer):
    put(store, older, newer)
    [late] = store.write([write(older)])
    assert late.code == "stale"
    assert late.newer == (newer if key_of(newer).kind is Kind.RECORD else None)
    assert store.read([key_of(newer)]) == [newer]
    assert store.usage() == Usage(1, size_of(newer), QUOTA_BYTES)


@pytest.mark.parametrize(("held", "cas", "code"), [(4, 4, "stored"), (4, 3, "stale")])
def test_cas_stores_only_over_the_sequence_number_it_names(store, held, cas, code):
    put(store, record(held))
    [result] = store.write([write(record(9), cas)])
    assert result.code == code
    assert read_one(store, record(9)) == record(9 if code == "stored" else held)
    assert result.newer == (None if code == "stored" else record(held))


@pytest.mark.parametrize(("cas", "code"), [(0, "stored"), (1, "stale")])
def test_cas_over_nothing_is_cas_zero(store, cas, code):
    assert store.write([write(record(9), cas)])[0].code == code


def test_writes_of_one_batch_see_those_before_them(store):
    batch = [write(record(1)), write(record(2), cas=1), write(record(3), cas=1)]
    assert [result.code for result in store.write(batch)] == ["stored", "stored", "stale"]
    assert read_one(store, record(1)) == record(2)


# --- Quota --------------------------------------------------------------------------------------


@EVERY_KIND
def test_an_item_may_fill_the_quota_to_the_last_byte_and_not_beyond(make_store, item):
    put(make_store(size_of(item)), item)


@EVERY_KIND
def test_what_exceeds_the_quota_is_refused_with_the_figures(make_store, item):
    quota = size_of(item) - 1
    store = make_store(quota)
    reason = f"quota of {quota:,} bytes: 0 held, {quota + 1:,} wanted"
    assert store.write([write(item)]) == [WriteResult("full", reason)]
    assert store.read([key_of(item)]) == [None]
    assert store.usage() == Usage(0, 0, quota)


def test_the_rest_of_a_batch_goes_on_after_one_that_does_not_fit(make_store):
    batch = [block(1, 1_000), block(2, 1_000), block(3, 500)]
    quota = size_of(batch[0]) + size_of(batch[2])
    store = make_store(quota)
    codes = [result.code for result in store.write([write(item) for item in batch])]
    assert codes == ["stored", "full", "stored"]
    assert store.read([key_of(item) for item in batch]) == [batch[0], None, batch[2]]
    assert store.usage() == Usage(2, quota, quota)


def test_items_without_content_use_up_the_quota_too(make_store):
    store = make_store(ITEM_OVERHEAD_BYTES)
    put(store, block(1, 0))
    [result] = store.write([write(block(1, 0, Kind.BLOCK_SHA2_256))])
    assert result.code == "full"
    assert store.usage() == Usage(1, ITEM_OVERHEAD_BYTES, ITEM_OVERHEAD_BYTES)


def test_a_full_store_still_counts_what_it_holds_as_stored(make_store):
    store = make_store(size_of(block(1, 1_000)))
    put(store, block(1, 1_000))
    put(store, block(1, 1_000))


def test_a_newer_version_that_does_not_fit_leaves_the_older_one_held(make_store):
    small, large = record(1, b"."), record(2, b"." * 100)
    store = make_store(size_of(small) + 50)
    put(store, small)
    [result] = store.write([write(large)])
    assert result.code == "full"
    assert f"{size_of(small)} held, 99 wanted" in result.reason
    assert read_one(store, small) == small


def test_a_newer_version_is_weighed_against_the_one_it_replaces(make_store):
    large, small = record(1, b"." * 100), record(2, b".")
    store = make_store(size_of(large))
    put(store, large, small)
    assert store.usage() == Usage(1, size_of(small), size_of(large))


# --- Damage -------------------------------------------------------------------------------------


@EVERY_KIND
def test_damage_is_said_and_never_given_out(store, item):
    put(store, item, block(99))
    rot(store, item)
    assert store.read([key_of(item), key_of(block(99))]) == [DAMAGED, block(99)]
    assert store.have([key_of(item)]) == [True]


@EVERY_KIND
def test_dropping_removes_what_is_damaged_and_nothing_else(store, item):
    intact, absent = block(99), block(98)
    put(store, item, intact)
    rot(store, item)
    keys = [key_of(each) for each in (item, intact, absent, item)]
    assert store.drop_damaged(keys) == 1
    assert store.read(keys) == [None, intact, None, None]
    assert store.usage() == Usage(1, size_of(intact), QUOTA_BYTES)
    assert store.keys_from(Id(bytes(32)), 9) == [key_of(intact)]


@EVERY_KIND
def test_writing_over_damage_heals_it_even_when_the_quota_is_used_up(make_store, item):
    store = make_store(size_of(item))
    put(store, item)
    rot(store, item)
    put(store, item)
    assert store.read([key_of(item)]) == [item]
    assert store.usage() == Usage(1, size_of(item), size_of(item))
    assert store.drop_damaged([key_of(item)]) == 0


def test_a_damaged_record_stands_in_nobodys_way(store):
    """Its sequence number is as little to be believed as its value."""
    put(store, record(9))
    rot(store, record(9))
    assert store.write([write(record(1), cas=0)]) == [STORED]
    assert read_one(store, record(1)) == record(1)


# --- The keyspace -------------------------------------------------------------------------------


def place(key: ItemKey) -> tuple[bytes, int]:
    return key.id, key.kind


def test_keys_come_in_keyspace_order_from_the_start_given(store):
    items: list[Item] = [block(n, 50) for n in range(40)]
    items += [record(1), connection(1), record(1, key=BOB), record(1, salt=b"s")]
    put(store, *items)
    keys = sorted(map(key_of, items), key=place)
    assert store.keys_from(Id(bytes(32)), 1_000) == keys
    assert store.keys_from(keys[10].id, 3) == [k for k in keys if k.id >= keys[10].id][:3]
    assert store.keys_from(Id(b"\xff" * 32), 5) == []
    assert store.keys_from(Id(bytes(32)), 0) == []


def test_walking_the_keyspace_page_by_page_meets_every_key_once(store):
    items = [block(n, 50) for n in range(25)]
    put(store, *items)
    met: list[ItemKey] = []
    start = Id(bytes(32))
    while page := store.keys_from(start, 4):
        met += page
        start = Id((int.from_bytes(page[-1].id, "big") + 1).to_bytes(32, "big"))
    assert met == sorted(map(key_of, items), key=place)


def test_a_block_at_the_very_end_of_the_keyspace_is_found(store):
    """No pre-image is known, so it is a key without its bytes: the index does not ask."""
    last = ItemKey(Kind.BLOCK_BLAKE3_256, Id(b"\xff" * 32))
    store.write([write(make_block(b""))])
    store.write([type(write(block(1)))(last, Block(last.kind, b"x"))])
    assert store.keys_from(last.id, 2) == [last]


# --- Ages, pins, and room for more ----------------------------------------------------------------

FIRST_ID = Id(bytes(32))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "lmdb"])
def timed(request, tmp_path, clock):
    """A store of 10 kB at the lowest id, where items live for an hour; it opens anew by a call."""
    made: list[Store] = []

    def open_it(quota_bytes: int = 10_000) -> LmdbStore | MemoryStore:
        eviction = Eviction(FIRST_ID, 3_600.0)
        if request.param == "memory":
            made.append(MemoryStore(quota_bytes, eviction, clock))
        else:
            made.append(LmdbStore(tmp_path, quota_bytes, eviction, clock))
        return made[-1]

    yield open_it
    for each in made:
        each.close()


def by_place(count: int) -> list[Item]:
    """Blocks of 1,000 bytes, nearest to the lowest id first."""
    return sorted((block(seed) for seed in range(count)), key=lambda item: key_of(item).id)


def ages(store: Store) -> dict[ItemKey, float]:
    return {held.key: held.age_s for held in store.scan(FIRST_ID, 100)}


def test_a_scan_tells_age_and_pin_in_keyspace_order(timed, clock):
    store, items = timed(), by_place(4)
    put(store, *items[:2])
    clock.now += 7
    store.write([Write(key_of(item), item, pin=True, age_s=0.0) for item in items[2:]])
    clock.now += 5
    assert store.scan(FIRST_ID, 100) == [
        Held(key_of(items[0]), 12.0),
        Held(key_of(items[1]), 12.0),
        Held(key_of(items[2]), 5.0, 5.0),
        Held(key_of(items[3]), 5.0, 5.0),
    ]
    assert [held.key for held in store.scan(key_of(items[1]).id, 2)] == [
        key_of(items[1]),
        key_of(items[2]),
    ]


def test_a_copy_that_is_handed_on_grows_no_younger_and_a_touch_makes_it_so(timed, clock):
    store, item, other = timed(), block(1), block(2)
    store.write([Write(key_of(item), item, age_s=100.0)])
    assert ages(store) == {key_of(item): 100.0}
    store.write([Write(key_of(item), item, age_s=500.0)])
    assert ages(store) == {key_of(item): 100.0}
    assert store.touch([key_of(item), key_of(other)]) == [True, False]
    assert ages(store) == {key_of(item): 0.0}


def test_a_clock_that_was_put_back_makes_no_age_negative(timed, clock):
    store = timed()
    store.write([Write(key_of(block(1)), block(1), pin=True)])
    clock.now -= 1_000
    assert store.scan(FIRST_ID, 9) == [Held(key_of(block(1)), 0.0, 0.0)]


def test_a_refresh_of_a_pinned_item_is_noted_at_the_pin(timed, clock):
    store = timed()
    store.write([Write(key_of(block(1)), block(1), pin=True)])
    clock.now += 50
    store.touch([key_of(block(1))])
    assert store.scan(FIRST_ID, 9) == [Held(key_of(block(1)), 0.0, 50.0)], "a stranger's"
    store.touch([key_of(block(1))], pins=True)
    assert store.scan(FIRST_ID, 9) == [Held(key_of(block(1)), 0.0, 0.0)], "our owner's"


def test_what_was_stored_or_refreshed_since_somebody_looked_is_not_dropped(timed, clock):
    store, old, again, touched = timed(), block(1), block(2), block(3)
    keys = [key_of(item) for item in (old, again, touched)]
    put(store, old, again, touched)
    clock.now += 100
    put(store, again)
    store.touch(keys[2:])
    assert store.drop(keys, 100.0) == keys[:1]
    assert store.have(keys) == [False, True, True]


def test_only_what_is_held_is_pinned_and_only_what_is_pinned_stays(timed):
    store, item, other = timed(), block(1), block(2)
    put(store, item)
    assert store.pin([key_of(item), key_of(other)]) == [True, False]
    assert store.drop([key_of(item), key_of(other)]) == []
    assert store.unpin([key_of(item), key_of(other)]) == [True, False]
    assert store.drop([key_of(item), key_of(item), key_of(other)]) == [key_of(item)]
    assert store.usage() == Usage(0, 0, 10_000)
    assert store.scan(FIRST_ID, 9) == []


def test_a_full_store_lets_go_of_what_is_farthest_from_it(timed):
    store, items = timed(), by_place(12)
    put(store, *items[1:10])
    put(store, items[0])
    assert [held.key for held in store.scan(FIRST_ID, 100)] == [key_of(i) for i in items[:9]]


def test_a_full_store_refuses_what_is_farther_than_all_it_holds_and_says_the_numbers(timed):
    store, items = timed(), by_place(12)
    put(store, *items[:9])
    [result] = store.write([write(items[11])])
    assert (result.code, result.reason) == (
        "full",
        "quota of 10,000 bytes: 9,576 held, 1,064 wanted",
    )
    assert store.usage().items == 9


def test_a_full_store_lets_go_of_what_has_expired_before_anything_else(timed, clock):
    store, items = timed(), by_place(12)
    put(store, items[0])
    clock.now += 3_700
    put(store, *items[1:9])
    put(store, items[11])
    assert key_of(items[0]) not in ages(store)
    assert store.usage().items == 9


def test_what_the_owner_pinned_is_never_let_go_of(timed, clock):
    store, items = timed(), by_place(12)
    assert store.write([Write(key_of(i), i, pin=True) for i in items[3:12]]) == [STORED] * 9
    clock.now += 10_000
    assert store.write([write(items[0])])[0].code == "full"
    assert store.usage().items == 9


def test_what_the_owner_puts_pushes_out_even_what_is_nearer(timed):
    store, items = timed(), by_place(12)
    put(store, *items[:9])
    assert store.write([Write(key_of(items[11]), items[11], pin=True)]) == [STORED]
    assert key_of(items[8]) not in ages(store)


def test_what_can_never_fit_pushes_nothing_out(timed):
    store, items = timed(), by_place(9)
    put(store, *items)
    assert store.write([write(block(99, 20_000))])[0].code == "full"
    assert store.usage().items == 9


def test_of_one_id_each_kind_can_be_let_go_of(timed):
    store = timed(600)
    twins = [record(1, key=BOB), connection(1, key=BOB)]
    put(store, *twins)
    item = min((block(seed, 400) for seed in range(50)), key=lambda it: key_of(it).id)
    put(store, item)
    assert [held.key for held in store.scan(FIRST_ID, 9)] == [key_of(item)]


# --- Contacts ------------------------------------------------------------------------------------


def test_contacts_are_kept_for_each_network_and_replaced_as_a_whole(store):
    one = (Contact(id_of(b"a"), (Address("10.0.0.1", 1), Address("::1", 2))),)
    other = (Contact(id_of(b"b")), Contact(id_of(b"c"), (Address("10.0.0.2", 3),)))
    assert store.load_contacts(b"n" * 32) == ()
    store.save_contacts(b"n" * 32, one)
    store.save_contacts(b"m" * 32, other)
    assert store.load_contacts(b"n" * 32) == one
    store.save_contacts(b"n" * 32, other[:1])
    assert store.load_contacts(b"n" * 32) == other[:1]
    assert store.load_contacts(b"m" * 32) == other
    assert store.usage().items == 0


@pytest.mark.parametrize("age_s", [math.inf, math.nan, 1e300])
def test_no_age_that_anybody_names_fails_a_write(timed, age_s):
    store, item = timed(), block(1)
    (done,) = store.write([Write(key_of(item), item, None, True, age_s)])
    assert done == STORED
    assert 0 <= ages(store)[key_of(item)] < math.inf
