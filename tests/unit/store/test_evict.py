"""What a full store lets go of, and what it remembers of who was asked for."""

import pytest

from tests.unit.store.samples import block, rot, write
from xorbit.config import EVICTION_SPARED_MAX
from xorbit.ids import Id
from xorbit.items import Block, Held, ItemKey, Kind, key_of, size_of
from xorbit.store.asked import NEVER, Asked
from xorbit.store.base import STORED, Eviction, Write
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

FIRST_ID = Id(bytes(32))
HELD = 30
NOW = 1_000_000.0


def by_place(count: int) -> list[Block]:
    """Blocks of 1,000 bytes, nearest to the lowest id first."""
    return sorted((block(seed) for seed in range(count)), key=lambda item: key_of(item).id)


ITEMS = by_place(2 * HELD)
NEAR, FAR = ITEMS[:HELD], ITEMS[HELD:]


@pytest.fixture(params=["memory", "lmdb"])
def full(request, tmp_path):
    """A store at the lowest id, full of the 30 items that are farthest of 60."""
    quota_bytes = HELD * size_of(ITEMS[0])
    eviction = Eviction(FIRST_ID, 3_600.0)
    if request.param == "memory":
        store = MemoryStore(quota_bytes, eviction, lambda: NOW)
    else:
        store = LmdbStore(tmp_path, quota_bytes, eviction, lambda: NOW)
    assert store.write([write(item) for item in FAR]) == [STORED] * HELD
    yield store
    store.close()


def gone(store, items: list[Block]) -> list[int]:
    """Return which of these are held no more, by their place."""
    held = store.have([key_of(item) for item in items])
    return [place for place, here in enumerate(held) if not here]


def put(store, *items: Block) -> None:
    assert store.write([write(item) for item in items]) == [STORED] * len(items)


def test_what_is_farthest_goes_first_unless_it_was_asked_for(full):
    full.read([key_of(FAR[-1]), key_of(FAR[-3])])
    put(full, NEAR[0], NEAR[1])
    assert gone(full, FAR) == [HELD - 4, HELD - 2]


def test_to_have_been_looked_for_by_index_alone_spares_nothing(full):
    full.have([key_of(FAR[-1])])
    full.scan(FIRST_ID, 100)
    put(full, NEAR[0])
    assert gone(full, FAR) == [HELD - 1]


def test_of_what_was_asked_for_the_longest_unasked_goes_first(full):
    for place in (HELD - 1, *range(HELD - 1), HELD - 2):
        full.read([key_of(FAR[place])])
    put(full, NEAR[0])
    assert gone(full, FAR) == [HELD - 1]


def test_only_so_many_far_items_are_spared_for_nearer_ones(full):
    """Or a stranger could hold far places for good by asking for what it put there."""
    spared = [key_of(item) for item in FAR[-EVICTION_SPARED_MAX - 1 :]]
    full.read(list(reversed(spared)))
    put(full, NEAR[0])
    assert gone(full, FAR) == [HELD - 1]


def test_what_was_asked_for_stands_in_nobodys_way(full):
    full.read([key_of(item) for item in FAR])
    put(full, *NEAR)
    assert len(gone(full, FAR)) == HELD


def pins(store) -> list[Held]:
    return [held for held in store.scan(FIRST_ID, 100) if held.pinned]


def test_an_age_that_comes_with_a_pin_is_the_pins_as_well(full):
    """So a put that nobody took can say that its item was not refreshed."""
    item = FAR[0]
    full.write([Write(key_of(item), item, pin=True)])
    assert pins(full) == [Held(key_of(item), 0.0, 0.0)]
    full.write([Write(key_of(item), item, pin=True, age_s=500.0)])
    assert pins(full) == [Held(key_of(item), 0.0, 500.0)]


def test_a_pin_outlives_its_bytes_and_a_scan_says_that_they_are_lost(full):
    item, other = FAR[1], FAR[0]
    for each in (item, other):
        full.write([Write(key_of(each), each, pin=True)])
    rot(full, item)
    full.drop_damaged([key_of(item)])
    assert pins(full) == [Held(key_of(other), 0.0, 0.0), Held(key_of(item), 0.0, 0.0, lost=True)]
    first = full.scan(FIRST_ID, 1)
    assert first == [Held(key_of(other), 0.0, 0.0)]
    put(full, item)
    assert pins(full) == [Held(key_of(other), 0.0, 0.0), Held(key_of(item), 0.0, 0.0)]


def test_asking_costs_no_write(tmp_path):
    store = LmdbStore(tmp_path, 10_000, Eviction(FIRST_ID, 3_600.0))
    store.write([write(FAR[0])])
    before = store._home._env.info()["last_txnid"]
    store.read([key_of(FAR[0])])
    assert store._home._env.info()["last_txnid"] == before
    store.close()


def key(number: int) -> ItemKey:
    return ItemKey(Kind.BLOCK_BLAKE3_256, Id(number.to_bytes(32)))


def test_the_later_something_was_asked_for_the_higher_its_number():
    asked = Asked()
    asked.note([key(1), key(2), key(1)])
    assert asked.when(key(1)) > asked.when(key(2)) > asked.when(key(3)) == NEVER


def test_what_is_remembered_is_bounded_and_what_is_longest_unasked_is_forgotten():
    asked = Asked(kept_max=10)
    for number in range(100):
        asked.note([key(number)])
        assert asked.when(key(number)) > NEVER
    remembered = [number for number in range(100) if asked.when(key(number)) > NEVER]
    assert remembered == list(range(100 - len(remembered), 100))
    assert 5 <= len(remembered) <= 10
