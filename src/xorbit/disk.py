"""What the machine's disk effects do to a store, and the jobs that they come back as.

Shared by the two performers of effects, `run` and `sim`: a node under simulation meets the same
store in the same way. Nothing here decides when a batch is done; no clock, no thread, no file.
"""

from collections.abc import Sequence
from typing import assert_never

from xorbit.core.effect import (
    CheckStore,
    DropDamaged,
    DropItems,
    OrderPins,
    ReadStore,
    SaveContacts,
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
from xorbit.pins import Told, only_reads
from xorbit.store.base import DAMAGED, ReadResult, Store, Write, WriteResult

DiskEffect = (
    ReadStore
    | WriteStore
    | CheckStore
    | ScanStore
    | DropItems
    | OrderPins
    | DropDamaged
    | SaveContacts
)


def is_write(effect: DiskEffect) -> bool:
    """Return whether an effect changes what is on disk, and so needs a commit."""
    if isinstance(effect, OrderPins):
        return not only_reads(effect.order)
    touches = isinstance(effect, CheckStore) and effect.touch
    return touches or not isinstance(effect, ReadStore | CheckStore | ScanStore)


def read(store: Store, batch: Sequence[DiskEffect]) -> list[Job]:
    """Do effects that only read; what could not be read counts as missing."""
    reads = [effect for effect in batch if isinstance(effect, ReadStore)]
    checks = [effect for effect in batch if isinstance(effect, CheckStore)]
    scans = [effect for effect in batch if isinstance(effect, ScanStore)]
    try:
        found = store.read([effect.key for effect in reads]) if reads else []
        jobs = [_read_job(effect, item) for effect, item in zip(reads, found, strict=True)]
        jobs += [_check(store, effect) for effect in checks]
        jobs += [_scan(store, effect) for effect in scans]
    except StoreError as error:
        fault = str(error)
        failed: list[Job] = [StoreRead(effect.guid, None, fault) for effect in reads]
        failed += [StoreChecked(effect.guid, effect.keys) for effect in checks]
        jobs = [*failed, *(StoreScanned(effect.guid, ()) for effect in scans)]
    return [*jobs, *_tend(store, batch)]


def write(store: Store, batch: Sequence[DiskEffect]) -> list[Job]:
    """Do effects that change the store, durably. Drops first: what is written with them stays."""
    dropped = [_drop(store, effect) for effect in batch if isinstance(effect, DropItems)]
    written = _write_and_tend(store, batch)
    touches = [effect for effect in batch if isinstance(effect, CheckStore)]
    touched = _touch(store, touches) if touches else []
    return [*dropped, *written, *touched]


def give_up(effect: DiskEffect, fault: str) -> list[Job]:
    """Return what comes of an effect that the store could not do at all: by a bug, not the disk."""
    match effect:
        case ReadStore(guid):
            return [StoreRead(guid, None, fault)]
        case WriteStore(guid):
            return [StoreWritten(guid, "failed", fault)]
        case CheckStore(guid, keys):
            return [StoreChecked(guid, keys)]
        case ScanStore(guid):
            return [StoreScanned(guid, ())]
        case DropItems(guid):
            return [StoreDropped(guid, ())]
        case OrderPins(guid):
            return [PinsTended(guid, Told(done=False, fault=fault))]
        case DropDamaged() | SaveContacts():
            return []
        case _ as never:
            assert_never(never)


def _read_job(effect: ReadStore, result: ReadResult) -> Job:
    if result is DAMAGED:
        return StoreRead(effect.guid, None, "damaged")
    return StoreRead(effect.guid, result)


def _check(store: Store, effect: CheckStore) -> Job:
    held = store.have(effect.keys)
    pairs = zip(effect.keys, held, strict=True)
    return StoreChecked(effect.guid, tuple(key for key, here in pairs if not here))


def _scan(store: Store, effect: ScanStore) -> Job:
    return StoreScanned(effect.guid, tuple(store.scan(effect.start, effect.count)))


def _drop(store: Store, effect: DropItems) -> Job:
    try:
        return StoreDropped(effect.guid, tuple(store.drop(effect.keys, effect.aged_s)))
    except StoreError:  # they stay; the next sweep comes by
        return StoreDropped(effect.guid, ())


def _touch(store: Store, touches: list[CheckStore]) -> list[Job]:
    """One commit for our owner's, one for others'. What could not be noted counts as missing."""
    ours = [effect for effect in touches if effect.pins]
    others = [effect for effect in touches if not effect.pins]
    return [*_touch_all(store, ours, pins=True), *_touch_all(store, others, pins=False)]


def _touch_all(store: Store, touches: list[CheckStore], *, pins: bool) -> list[Job]:
    keys = [key for effect in touches for key in effect.keys]
    try:
        held = iter(store.touch(keys, pins=pins) if keys else [])
    except StoreError:
        return [StoreChecked(effect.guid, effect.keys) for effect in touches]
    return [
        StoreChecked(effect.guid, tuple(key for key in effect.keys if not next(held)))
        for effect in touches
    ]


def _tend(store: Store, batch: Sequence[DiskEffect]) -> list[Job]:
    """In the order of their coming, all in one commit."""
    effects = [effect for effect in batch if isinstance(effect, OrderPins)]
    if not effects:
        return []
    try:
        told = store.tend([effect.order for effect in effects])
    except StoreError as error:
        told = [Told(done=False, fault=str(error))] * len(effects)
    return [PinsTended(effect.guid, each) for effect, each in zip(effects, told, strict=True)]


def _write_and_tend(store: Store, batch: Sequence[DiskEffect]) -> list[Job]:
    """In one commit where that can be, since each waits for the disk; else one after the other."""
    tends = [effect for effect in batch if isinstance(effect, OrderPins)]
    writes = [effect for effect in batch if isinstance(effect, WriteStore)]
    drops = any(isinstance(effect, DropDamaged) for effect in batch)
    if tends and writes and not drops:
        orders = [effect.order for effect in tends]
        if both := store.write_and_tend([*map(_order, writes)], orders):
            results, told = both
            tended = [PinsTended(e.guid, each) for e, each in zip(tends, told, strict=True)]
            return [*_written(writes, results), *tended]
    return [*_write_items(store, batch), *_tend(store, batch)]


def _order(effect: WriteStore) -> Write:
    return Write(effect.key, effect.item, effect.cas, effect.pin, effect.age_s)


def _written(writes: Sequence[WriteStore], results: Sequence[WriteResult]) -> list[Job]:
    return [
        StoreWritten(effect.guid, result.code, result.reason, result.newer)
        for effect, result in zip(writes, results, strict=True)
    ]


def _write_items(store: Store, batch: Sequence[DiskEffect]) -> list[Job]:
    writes = [effect for effect in batch if isinstance(effect, WriteStore)]
    drops = [effect.key for effect in batch if isinstance(effect, DropDamaged)]
    try:
        if drops:
            store.drop_damaged(drops)
        results = store.write([*map(_order, writes)]) if writes else []
    except StoreError as error:
        return [StoreWritten(effect.guid, "failed", str(error)) for effect in writes]
    return _written(writes, results)
