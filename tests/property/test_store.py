"""Both stores tell the same story, whatever is asked of them and in whichever order."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.store.samples import ALICE, BOB, block, connection, record, rot, write
from xorbit.ids import Id
from xorbit.items import Block, Item, ItemKey, Kind, key_of
from xorbit.store.base import DAMAGED, Eviction, Write
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

# Few keys and many versions, so that a run meets each key again and again.
EMPTY = block(0, 0)  # no byte of it can rot
ITEMS: list[Item] = [
    EMPTY,
    *(block(n, size) for n, size in enumerate((1, 100, 300, 5_000), 1)),
    block(2, 100, Kind.BLOCK_SHA2_256),
    *(record(seq, value) for seq in range(4) for value in (b"", b"a", b"b" * 200)),
    *(record(seq, salt=b"salt", key=BOB) for seq in range(4)),
    *(connection(seq, port, key) for seq in (0, 1) for port in (1, 2) for key in (ALICE, BOB)),
]
KEYS = list(dict.fromkeys(map(key_of, ITEMS)))

items = st.sampled_from(ITEMS)
keys = st.lists(st.sampled_from(KEYS), max_size=6)
writes = st.builds(write, items, st.one_of(st.none(), st.integers(0, 3)))
points = st.one_of(
    st.sampled_from(KEYS).map(lambda key: key.id), st.binary(min_size=32, max_size=32).map(Id)
)


class BothStores(RuleBasedStateMachine):
    """The store in memory is the model, and a dict of what was acknowledged is held against it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 1_000_000.0

    @initialize(quota_bytes=st.sampled_from([0, 700, 1_500, 6_000, 2**20]))
    def open(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.model = MemoryStore(quota_bytes, None, lambda: self.now)
        self.store = self.opened()
        self.acknowledged: dict[object, Item] = {}

    def opened(self) -> LmdbStore:
        return LmdbStore(Path(self.directory.name), self.quota_bytes, None, lambda: self.now)

    @rule(seconds=st.sampled_from([0.4, 1.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(batch=st.lists(writes, max_size=5))
    def write(self, batch) -> None:
        results = self.store.write(batch)
        assert results == self.model.write(batch)
        for each, result in zip(batch, results, strict=True):
            if result.code == "stored":
                self.acknowledged[each.key] = each.item

    @rule(item=items)
    def let_rot(self, item: Item) -> None:
        [held] = self.store.read([key_of(item)])
        if held == item and item != EMPTY:
            rot(self.model, item)
            rot(self.store, item)
            del self.acknowledged[key_of(item)]

    @rule(wanted=keys)
    def drop_damaged(self, wanted) -> None:
        assert self.store.drop_damaged(wanted) == self.model.drop_damaged(wanted)

    @rule(wanted=keys, aged_s=st.sampled_from([0.0, 1.0, 5.0, 20.0]))
    def drop_the_old(self, wanted, aged_s: float) -> None:
        ages = {held.key: held for held in self.store.scan(Id(bytes(32)), 99)}
        dropped = self.store.drop(wanted, aged_s)
        assert dropped == self.model.drop(wanted, aged_s)
        assert all(ages[key].age_s >= aged_s and not ages[key].pinned for key in dropped)
        for key in dropped:
            self.acknowledged.pop(key, None)

    @rule(wanted=keys, pins=st.booleans())
    def touch(self, wanted, pins: bool) -> None:
        assert self.store.touch(wanted, pins=pins) == self.model.touch(wanted, pins=pins)

    @rule(wanted=keys)
    def pin(self, wanted) -> None:
        assert self.store.pin(wanted) == self.model.pin(wanted)

    @rule(wanted=keys)
    def unpin(self, wanted) -> None:
        assert self.store.unpin(wanted) == self.model.unpin(wanted)

    @rule(wanted=keys)
    def have(self, wanted) -> None:
        assert self.store.have(wanted) == self.model.have(wanted)

    @rule(start=points, count=st.integers(0, 8))
    def keys_from(self, start: Id, count: int) -> None:
        assert self.store.keys_from(start, count) == self.model.keys_from(start, count)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = self.opened()

    @invariant()
    def agree(self) -> None:
        held = self.store.read(KEYS)
        assert held == self.model.read(KEYS)
        assert self.store.usage() == self.model.usage()
        start = Id(bytes(32))
        assert self.store.scan(start, 99) == self.model.scan(start, 99)
        intact = {k: v for k, v in zip(KEYS, held, strict=True) if v not in (None, DAMAGED)}
        assert intact == self.acknowledged

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(max_examples=40, stateful_step_count=30)


BLOCKS = [block(seed, size) for seed, size in enumerate((100, 100, 300, 300) * 5, 10)]
BLOCK_KEYS = [key_of(item) for item in BLOCKS]
block_keys = st.lists(st.sampled_from(BLOCK_KEYS), max_size=4)
aged_writes = st.builds(
    lambda item, pin, age_s: Write(key_of(item), item, pin=pin, age_s=age_s),
    st.sampled_from(BLOCKS),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([0.0, 50.0, 700.0]),
)


class BothFull(RuleBasedStateMachine):
    """Small quotas: both let go of the same, by age, by place and by who was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 1_000_000.0

    @initialize(quota_bytes=st.sampled_from([700, 1_500, 3_000]), own=st.sampled_from(BLOCK_KEYS))
    def open(self, quota_bytes: int, own: ItemKey) -> None:
        eviction = Eviction(own.id, 600.0)
        self.model = MemoryStore(quota_bytes, eviction, lambda: self.now)
        path = Path(self.directory.name)
        self.store = LmdbStore(path, quota_bytes, eviction, lambda: self.now)

    @rule(batch=st.lists(aged_writes, max_size=5))
    def write(self, batch) -> None:
        assert self.store.write(batch) == self.model.write(batch)

    @rule(wanted=block_keys)
    def ask(self, wanted) -> None:
        assert self.store.read(wanted) == self.model.read(wanted)

    @rule(wanted=block_keys)
    def touch(self, wanted) -> None:
        assert self.store.touch(wanted) == self.model.touch(wanted)

    @rule(item=st.sampled_from(BLOCKS))
    def let_rot_and_drop(self, item: Block) -> None:
        for each in (self.store, self.model):
            if each.have([key_of(item)]) == [True]:
                rot(each, item)
                assert each.drop_damaged([key_of(item)]) == 1

    @rule(seconds=st.sampled_from([1.0, 70.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def agree(self) -> None:
        every = Id(bytes(32)), 100
        assert self.store.scan(*every) == self.model.scan(*every)
        assert self.store.usage() == self.model.usage()

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestBothFull = BothFull.TestCase
TestBothFull.settings = settings(max_examples=60, stateful_step_count=40)
