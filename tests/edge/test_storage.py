"""The desks of the disk: many effects in one commit, each back as one job, faults included."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from math import inf
from threading import Event

import pytest

from tests.edge.nodes import Watched, sample, within
from xorbit.core.effect import (
    CheckStore,
    DropDamaged,
    DropItems,
    OrderPins,
    ReadStore,
    Report,
    ScanStore,
    WriteStore,
)
from xorbit.core.job import (
    Job,
    PinsTended,
    StoreChecked,
    StoreDropped,
    StoreRead,
    StoreScanned,
    StoreWritten,
)
from xorbit.errors import StoreError
from xorbit.ids import Guid, Id
from xorbit.items import Held, ItemKey, key_of
from xorbit.pins import AddRoot, LetGo, Root, ScanPins, Told
from xorbit.run import storage
from xorbit.run.storage import BATCH_BYTES_MAX, BATCH_EFFECTS_MAX, Storage
from xorbit.store.base import STORED, ReadResult, Write, WriteResult
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

BLOCKS = [sample(number, 100) for number in range(600)]
KEYS = [key_of(block) for block in BLOCKS]


def guid(number: int) -> Guid:
    return Guid(number.to_bytes(16, "big"))


def write_of(number: int) -> WriteStore:
    return WriteStore(guid(number), KEYS[number], BLOCKS[number])


class GatedStore(MemoryStore):
    """Notes what it is asked for; writes and reads wait while its gate is shut."""

    def __init__(self) -> None:
        super().__init__(10**9)
        self.gate = Event()
        self.gate.set()
        self.batches: list[int] = []
        self.closed = False
        self.fault: Exception | None = None
        self.finds_bug = lambda write: False

    def _pass(self, count: int) -> None:
        self.batches.append(count)
        assert self.gate.wait(30)
        if self.fault:
            raise self.fault

    def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        self._pass(len(batch))
        if any(map(self.finds_bug, batch)):
            raise OSError("a bug")
        return super().write(batch)

    def read(self, keys: Sequence[ItemKey]) -> list[ReadResult]:
        self._pass(len(keys))
        return super().read(keys)

    def have(self, keys: Sequence[ItemKey]) -> list[bool]:
        self._pass(len(keys))
        return super().have(keys)

    def drop_damaged(self, keys: Sequence[ItemKey]) -> int:
        self._pass(len(keys))
        return super().drop_damaged(keys)

    def close(self) -> None:
        self.closed = True


class Desk:
    """A storage with what it said."""

    def __init__(self, store: GatedStore) -> None:
        self.store = store
        self.said = Watched()
        self.storage = Storage(store, self._done, self.said.add, self.said.add)

    def _done(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.said.add(job)

    async def all_of(self, numbers: range) -> list[Job]:
        """Return the jobs of these guids in the order in which they came, once all are there."""
        wanted = {guid(number) for number in numbers}
        for each in wanted:
            await self.said.until(Job, lambda job, each=each: job.guid == each)  # type: ignore[arg-type]
        return [job for job in self.said.seen if getattr(job, "guid", None) in wanted]


@pytest.fixture
async def desk() -> AsyncGenerator[Desk]:
    desk = Desk(GatedStore())
    yield desk
    desk.store.gate.set()
    async with within():
        await asyncio.to_thread(desk.storage.close)


@pytest.fixture
def elsewhere(desk, monkeypatch):
    """Let the disk count as cold, so that reads go to their thread."""
    faults = count()
    monkeypatch.setattr(storage, "disk_faults", lambda: next(faults))
    monkeypatch.setattr(storage, "READ_ELSEWHERE_S", 3_600.0)
    desk.storage.perform(ReadStore(guid(10_000), KEYS[0]))
    desk.store.batches.clear()
    return desk


async def test_writes_of_a_moment_are_one_commit_and_what_comes_meanwhile_is_the_next(desk):
    desk.store.gate.clear()
    for number in range(5):
        desk.storage.perform(write_of(number))
    await asyncio.sleep(0)  # the first commit begins; no time passes
    for number in range(5, 40):
        desk.storage.perform(write_of(number))
    assert not desk.said.seen  # nothing is acknowledged before its commit
    desk.store.gate.set()
    said = await desk.all_of(range(40))
    assert said == [StoreWritten(guid(number), "stored") for number in range(40)]
    assert desk.store.batches == [5, 35]


async def test_a_commit_holds_so_many_writes_and_no_more(desk):
    for number in range(BATCH_EFFECTS_MAX + 10):
        desk.storage.perform(write_of(number))
    said = await desk.all_of(range(BATCH_EFFECTS_MAX + 10))
    assert len(said) == BATCH_EFFECTS_MAX + 10
    assert desk.store.batches == [BATCH_EFFECTS_MAX, 10]


async def test_a_commit_holds_so_many_bytes_and_no_more(desk):
    block = sample(1_000)
    full = BATCH_BYTES_MAX // len(block.data) + 1
    for number in range(full):
        desk.storage.perform(WriteStore(guid(number), key_of(block), block))
    await desk.all_of(range(full))
    assert sum(desk.store.batches) == full
    assert len(desk.store.batches) == 2


async def test_reads_and_checks_come_back_with_what_is_there(desk):
    desk.store.write([Write(KEYS[1], BLOCKS[1])])
    desk.storage.perform(ReadStore(guid(1), KEYS[1]))
    desk.storage.perform(ReadStore(guid(2), KEYS[2]))
    desk.storage.perform(CheckStore(guid(3), (KEYS[1], KEYS[2])))
    assert await desk.all_of(range(1, 4)) == [
        StoreRead(guid(1), BLOCKS[1]),
        StoreRead(guid(2), None),
        StoreChecked(guid(3), (KEYS[2],)),
    ]


async def test_on_a_cold_disk_reads_go_together_to_a_thread_and_the_loop_goes_on(elsewhere):
    desk = elsewhere
    desk.store.write([Write(KEYS[1], BLOCKS[1])])
    desk.store.batches.clear()
    desk.store.gate.clear()
    desk.storage.perform(ReadStore(guid(1), KEYS[1]))
    desk.storage.perform(ReadStore(guid(2), KEYS[2]))
    desk.storage.perform(CheckStore(guid(3), (KEYS[1], KEYS[2])))
    await asyncio.sleep(0)  # the loop's turn, though the disk does not answer
    desk.store.gate.set()
    assert await desk.all_of(range(1, 4)) == [
        StoreRead(guid(1), BLOCKS[1]),
        StoreRead(guid(2), None),
        StoreChecked(guid(3), (KEYS[2],)),
    ]
    assert desk.store.batches == [2, 2]


async def test_a_damaged_item_is_said_to_be_and_can_be_dropped_in_the_same_breath_as_a_write(desk):
    desk.store.write([Write(KEYS[1], BLOCKS[1])])
    desk.store.damage(KEYS[1])
    desk.storage.perform(ReadStore(guid(1), KEYS[1]))
    assert await desk.all_of(range(1, 2)) == [StoreRead(guid(1), None, "damaged")]
    desk.storage.perform(DropDamaged(KEYS[1]))
    desk.storage.perform(write_of(2))
    await desk.all_of(range(2, 3))
    assert desk.store.have([KEYS[1], KEYS[2]]) == [False, True]


async def test_an_item_that_is_dropped_alone_brings_no_job(desk):
    desk.store.write([Write(KEYS[1], BLOCKS[1])])
    desk.store.damage(KEYS[1])
    desk.storage.perform(DropDamaged(KEYS[1]))
    desk.storage.perform(DropDamaged(KEYS[2]))
    await asyncio.sleep(0)  # the commit begins; no time passes
    await asyncio.to_thread(desk.storage.close)
    assert not desk.said.seen
    assert desk.store.usage().items == 0


async def test_a_refused_write_comes_back_with_the_reason(desk):
    small = Desk(GatedStore())
    small.store._quota_bytes = 50
    small.storage.perform(write_of(1))
    [said] = await small.all_of(range(1, 2))
    assert isinstance(said, StoreWritten)
    assert said.code == "full"
    assert said.reason
    await asyncio.to_thread(small.storage.close)


async def test_a_disk_that_fails_is_said_to_each_that_asked(desk):
    desk.store.fault = StoreError("the disk has had enough")
    desk.storage.perform(ReadStore(guid(1), KEYS[1]))
    desk.storage.perform(CheckStore(guid(2), (KEYS[1], KEYS[2])))
    desk.storage.perform(DropDamaged(KEYS[1]))
    desk.storage.perform(write_of(3))
    await desk.all_of(range(1, 4))
    assert desk.said.seen == [
        StoreRead(guid(1), None, "the disk has had enough"),
        StoreChecked(guid(2), (KEYS[1], KEYS[2])),
        StoreWritten(guid(3), "failed", "the disk has had enough"),
    ]


async def test_a_bug_that_an_item_finds_in_the_store_costs_that_item_alone(desk):
    """Who sends such an item stops no node, and spoils nobody else's write of the same commit."""
    bad = WriteStore(guid(1), KEYS[1], BLOCKS[1], age_s=inf)
    desk.store.finds_bug = lambda write: write.age_s == inf
    for effect in (write_of(0), bad, write_of(2)):
        desk.storage.perform(effect)
    written = {job.guid: job.code for job in await desk.all_of(range(3))}
    assert written == {guid(0): "stored", guid(1): "failed", guid(2): "stored"}
    said = await desk.said.until(Report)
    assert said == Report("error", "a bug in the store", "WriteStore: OSError('a bug')")


@pytest.mark.parametrize(
    ("effect", "job"),
    [
        (ReadStore(guid(1), KEYS[1]), StoreRead(guid(1), None, "OSError('a bug')")),
        (write_of(1), StoreWritten(guid(1), "failed", "OSError('a bug')")),
        (CheckStore(guid(1), (KEYS[1],)), StoreChecked(guid(1), (KEYS[1],))),
        (CheckStore(guid(1), (KEYS[1],), touch=True), StoreChecked(guid(1), (KEYS[1],))),
        (ScanStore(guid(1), Id(bytes(32)), 5), StoreScanned(guid(1), ())),
        (DropItems(guid(1), (KEYS[1],)), StoreDropped(guid(1), ())),
        (
            OrderPins(guid(1), LetGo((KEYS[1],))),
            PinsTended(guid(1), Told(done=False, fault="OSError('a bug')")),
        ),
        (DropDamaged(KEYS[1]), None),
    ],
    ids=["read", "write", "check", "touch", "scan", "drop", "order", "damaged"],
)
async def test_whatever_a_store_must_not_raise_is_reported_and_the_effect_has_its_job(
    elsewhere, monkeypatch, effect, job
):
    def buggy(*_, **__):
        raise OSError("a bug")

    for name in ("read", "write", "have", "touch", "scan", "drop", "tend", "drop_damaged"):
        monkeypatch.setattr(elsewhere.store, name, buggy)
    elsewhere.storage.perform(effect)
    said = await elsewhere.said.until(Report)
    assert said == Report(
        "error", "a bug in the store", f"{type(effect).__name__}: OSError('a bug')"
    )
    if job is not None:
        assert await elsewhere.said.until(type(job), lambda seen: seen.guid == guid(1)) == job


async def test_a_bug_in_saving_contacts_costs_the_contacts_alone(desk, monkeypatch):
    def buggy(*_):
        raise OSError("a bug")

    monkeypatch.setattr(desk.store, "save_contacts", buggy)
    desk.storage.save_contacts(b"network", ())
    said = await desk.said.until(Report)
    assert said == Report("error", "a bug in the store", "SaveContacts: OSError('a bug')")


async def test_a_desk_that_can_do_no_more_says_so(desk, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.store, "write", broken)
    desk.storage.perform(write_of(1))
    await desk.said.until(KeyboardInterrupt)


async def test_closing_finishes_the_commit_that_is_under_way_and_begins_no_other(desk):
    desk.store.gate.clear()
    desk.storage.perform(write_of(1))
    await asyncio.sleep(0)  # the commit begins
    desk.storage.perform(write_of(2))
    closing = asyncio.create_task(asyncio.to_thread(desk.storage.close))
    await asyncio.sleep(0)
    assert not desk.store.closed
    desk.store.gate.set()
    async with within():
        await closing
    assert desk.store.closed
    await desk.all_of(range(1, 2))
    assert desk.store.batches == [1]
    assert desk.said.seen == [StoreWritten(guid(1), "stored")]


async def test_what_is_acknowledged_is_in_the_file(tmp_path):
    store = LmdbStore(tmp_path, 10**7)
    desk = Desk(store)  # type: ignore[arg-type]
    for number in range(100):
        desk.storage.perform(write_of(number))
    await desk.all_of(range(100))
    await asyncio.to_thread(desk.storage.close)
    store = LmdbStore(tmp_path, 10**7)
    assert store.read(KEYS[:100]) == BLOCKS[:100]
    store.close()


async def test_what_is_pinned_stays_what_is_not_goes_and_a_scan_shows_what_is_left(desk):
    writes = [Write(key_of(b), b, pin=b is BLOCKS[0]) for b in BLOCKS[:3]]
    assert desk.store.write(writes) == [STORED] * 3
    desk.storage.perform(OrderPins(guid(0), ScanPins(9)))
    assert await desk.all_of(range(1)) == [PinsTended(guid(0), Told(keys=(KEYS[0],)))]
    desk.storage.perform(DropItems(guid(1), tuple(KEYS[:2]), 0.0))
    desk.storage.perform(CheckStore(guid(2), (KEYS[2], KEYS[3]), touch=True))
    desk.storage.perform(OrderPins(guid(3), LetGo((KEYS[2],))))
    said = await desk.all_of(range(1, 4))
    assert said == [
        StoreDropped(guid(1), (KEYS[1],)),
        PinsTended(guid(3), Told()),
        StoreChecked(guid(2), (KEYS[3],)),
    ]
    desk.storage.perform(ScanStore(guid(4), Id(bytes(32)), 10))
    left = sorted([Held(KEYS[0], 0.0, 0.0), Held(KEYS[2], 0.0)], key=lambda held: held.key.id)
    assert await desk.all_of(range(4, 5)) == [StoreScanned(guid(4), tuple(left))]


async def test_a_root_is_noted_in_the_commit_of_its_item_or_the_next_where_that_fails(
    desk, monkeypatch
):
    for number, at_once in ((0, True), (1, False)):
        if not at_once:
            monkeypatch.setattr(desk.store, "write_and_tend", lambda *_: None)
        root = Root(KEYS[number], size=1)
        pinned = WriteStore(guid(2 * number), KEYS[number], BLOCKS[number], pin=True)
        desk.storage.perform(pinned)
        desk.storage.perform(OrderPins(guid(2 * number + 1), AddRoot(root)))
        written, tended = await desk.all_of(range(2 * number, 2 * number + 2))
        assert (written.code, tended.told.done) == ("stored", True)


async def test_upkeep_of_a_store_that_failed_changes_nothing_and_says_so(tmp_path):
    store = LmdbStore(tmp_path, 10**7)
    store.close()
    said: list[Job] = []
    done = asyncio.Event()
    failing = Storage(store, lambda jobs: (said.extend(jobs), done.set()), pytest.fail, pytest.fail)
    failing.perform(ScanStore(guid(0), Id(bytes(32)), 10))
    assert said == [StoreScanned(guid(0), ())]
    done.clear()
    said.clear()
    failing.perform(DropItems(guid(1), (KEYS[0],), 0.0))
    failing.perform(CheckStore(guid(2), (KEYS[0],), touch=True))
    failing.perform(OrderPins(guid(3), LetGo((KEYS[0],))))
    async with within():
        await done.wait()
    assert said[::2] == [StoreDropped(guid(1), ()), StoreChecked(guid(2), (KEYS[0],))]
    assert isinstance(said[1], PinsTended)
    assert "is closed" in said[1].told.fault
    await asyncio.to_thread(failing.close)
