"""The store on disk: items in an embedded LMDB, a batch to a commit, proved again when read.

Holds what is kept and what is refused; the files themselves (locking, checking, growing) are
`home.py`'s. No asyncio here: whoever drives the store gives it a thread for writes and one for
reads. A page that the disk cannot read back at all (EIO under a memory map) still ends the process.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from time import time
from typing import Final, TypeVar

import lmdb
import msgspec

from xorbit.config import EXPIRED_LOOK_INTERVAL_S
from xorbit.errors import StoreError
from xorbit.ids import Id
from xorbit.items import (
    BLOCK_KINDS,
    ITEM_OVERHEAD_BYTES,
    Block,
    Contact,
    Held,
    ItemKey,
    size_of,
)
from xorbit.pins import Order, ScanRoots, Told, only_reads
from xorbit.store.asked import Asked
from xorbit.store.base import (
    DAMAGED,
    STORED,
    Eviction,
    ReadResult,
    Usage,
    Write,
    WriteResult,
    decide,
    key_from_bytes,
    key_to_bytes,
    refuse_over_quota,
)
from xorbit.store.encoded import encode_item, prove, weigh
from xorbit.store.evict import choose
from xorbit.store.home import Home, stamp_of

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COMMIT_SLACK_BYTES: Final = 256 * 1024
"""What a commit of one item may need besides its bytes: copies of the pages above it."""

_KEYS_PER_VIEW: Final = 16
"""How many neighbouring keys, at the least, lie in what the system maps around one of them."""

_Result = TypeVar("_Result")

_encode_contacts: Final = msgspec.msgpack.Encoder().encode
_NO_CONTACTS: Final = _encode_contacts(())
_decode_contacts: Final = msgspec.msgpack.Decoder(tuple[Contact, ...]).decode


class LmdbStore:
    """A `Store` in a directory, with a quota in bytes (`items.size_of`).

    Writes and drops may come from one thread while reads come from others.

    Raises:
        StoreError: the directory is held by another process, damaged, of a newer xorbit, or the
            disk failed.
    """

    def __init__(
        self,
        path: Path,
        quota_bytes: int,
        eviction: Eviction | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self._home = Home(path, quota_bytes, clock)
        self._quota_bytes = quota_bytes
        self._eviction = eviction
        self._clock = clock
        self._asked = Asked()
        self._expired_looked_at = 0.0
        self._writing = Lock()  # a drop may come from another thread than a write
        with self._home.read_txn() as txn:
            self._usage = Usage(*self._home.count(txn), quota_bytes)

    def read(self, keys: Sequence[ItemKey]) -> list[ReadResult]:
        """Return what is held under each key, every item proved again on the way out.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        with self._home.read_txn() as txn:
            found = [txn.get(key_to_bytes(key)) for key in keys]
        self._viewed(len(keys))
        self._asked.note(key for key, raw in zip(keys, found, strict=True) if raw is not None)
        return [
            None if raw is None else prove(key, raw) for key, raw in zip(keys, found, strict=True)
        ]

    def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """Keep a batch in one commit; return, once it is durable, what became of each write.

        When the commit does not fit on the disk, each write is tried in a commit of its own.
        """
        with self._writing:
            results = self._write(batch)
            self._home.refresh()
            return results

    def have(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Return which keys are held (by index alone, nothing is read or proved).

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        with self._home.read_txn() as txn, txn.cursor() as cursor:
            held = [cursor.set_key(key_to_bytes(key)) for key in keys]
        self._viewed(len(keys))
        return held

    def drop_damaged(self, keys: Sequence[ItemKey]) -> int:
        """Remove those of the keys whose bytes are damaged; return how many were.

        Raises:
            StoreError: the disk failed, or the store is closed; nothing was removed.
        """
        return self._change(lambda commit: sum(map(commit.drop_if_damaged, keys)))

    def drop(self, keys: Sequence[ItemKey], aged_s: float = 0.0) -> list[ItemKey]:
        """Remove those of the keys that are held, not pinned and, in that very commit, so old.

        Raises:
            StoreError: the disk failed, or the store is closed; nothing was removed.
        """
        return self._change(lambda commit: [key for key in keys if commit.drop(key, aged_s)])

    def pin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Pin those of the keys that are held, refreshed as of now; return which are held.

        Raises:
            StoreError: the disk failed, or the store is closed; nothing was pinned.
        """
        return self._change(lambda commit: [commit.pin(key) for key in keys])

    def unpin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Let go of pins; return which of the keys had one.

        Raises:
            StoreError: the disk failed, or the store is closed; every pin stands.
        """
        return self._change(lambda commit: [commit.unpin(key) for key in keys])

    def tend(self, orders: Sequence[Order]) -> list[Told]:
        """Do these orders of an owner, in one commit; return what became of each.

        Raises:
            StoreError: the disk failed, or the store is closed; nothing was changed.
        """
        if all(map(only_reads, orders)):
            with self._home.read_txn() as txn:
                return [self._home.tend(order, txn) for order in orders]
        return self._change(lambda commit: [commit.tend(order) for order in orders])

    def write_and_tend(
        self, batch: Sequence[Write], orders: Sequence[Order]
    ) -> tuple[list[WriteResult], list[Told]] | None:
        """Do both in one commit, or nothing (None): then one is to be done after the other."""
        try:
            return self._change(
                lambda commit: (
                    [commit.write(write) for write in batch],
                    [commit.tend(order) for order in orders],
                )
            )
        except StoreError:
            return None

    def touch(self, keys: Sequence[ItemKey], *, pins: bool = False) -> list[bool]:
        """Note that an owner (ours, with `pins`) has refreshed these; return which are held.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        return self._change(lambda commit: [commit.touch(key, pins=pins) for key in keys])

    def scan(self, start: Id, count: int) -> list[Held]:
        """Return up to `count` items in keyspace order, from `start` on, each with its age and pin.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        now = self._clock()
        with (
            self._home.read_txn() as txn,
            txn.cursor() as cursor,
            txn.cursor(self._home.pins) as pins,
        ):
            items = dict.fromkeys(_keys(cursor, start, count))
            every = {**items, **dict.fromkeys(_keys(pins, start, count))}
            keys = sorted(every, key=key_to_bytes)[:count]
            times = [self._times(txn, key, now) for key in keys]
        self._viewed(1 + len(keys) // _KEYS_PER_VIEW)  # neighbours lie on few pages
        return [
            Held(key, age_s or 0.0, pinned_age_s, key not in items)
            for key, (age_s, pinned_age_s) in zip(keys, times, strict=True)
        ]

    def _times(
        self, txn: "lmdb.Transaction[bytes]", key: ItemKey, now: float
    ) -> tuple[float | None, float | None]:
        raw_key = key_to_bytes(key)
        return (
            _age(txn.get(raw_key, db=self._home.times), now),
            _age(txn.get(raw_key, db=self._home.pins), now),
        )

    def keys_from(self, start: Id, count: int) -> list[ItemKey]:
        """Return up to `count` keys in keyspace order, from `start` on (no wrap-around).

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        with self._home.read_txn() as txn, txn.cursor() as cursor:
            keys = _keys(cursor, start, count)
        self._viewed(len(keys))
        return keys

    def save_contacts(self, network: bytes, contacts: Sequence[Contact]) -> None:
        """Keep these contacts for a network, in place of those kept before.

        Raises:
            StoreError: the disk failed, or the store is closed; those kept before remain.
        """
        with self._writing:
            try:
                with self._home.write_txn() as txn:
                    txn.put(network, _encode_contacts(tuple(contacts)), db=self._home.contacts)
            except lmdb.Error as error:
                raise StoreError(f"the store in {self._home.path} failed: {error}") from error

    def load_contacts(self, network: bytes) -> tuple[Contact, ...]:
        """Return the contacts kept for a network; none where they are missing or damaged.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        with self._home.read_txn() as txn:
            raw = txn.get(network, db=self._home.contacts)
        try:
            return () if raw is None else _decode_contacts(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ()

    def is_unused(self) -> bool:
        """Return whether nothing is held: no item, pin or root, and no contact of any network.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        home = self._home
        with home.read_txn() as txn, txn.cursor(home.contacts) as contacts:
            pins = txn.stat(home.pins)["entries"]
            held = self._usage.items or pins or home.tend(ScanRoots(1), txn).roots
            return not held and all(raw == _NO_CONTACTS for _, raw in contacts)

    def usage(self) -> Usage:
        """Return how many items and bytes are held, and the quota."""
        return self._usage

    def close(self) -> None:
        """Let go of the files; everything acknowledged is on disk already."""
        with self._writing:
            self._home.close()

    def _viewed(self, lookups: int) -> None:
        """Keep what is mapped small; while a write is under way, that waits for its end."""
        if self._home.viewed(lookups) and self._writing.acquire(blocking=False):
            try:
                self._home.refresh()
            finally:
                self._writing.release()

    def _change(self, work: "Callable[[_Commit], _Result]") -> "_Result":
        with self._writing:
            try:
                result = self._transact(work)
            except lmdb.Error as error:
                raise StoreError(f"the store in {self._home.path} failed: {error}") from error
            self._home.refresh()
            return result

    # --- Writing --------------------------------------------------------------------------------

    def _write(self, batch: Sequence[Write]) -> list[WriteResult]:
        try:
            return self._transact(lambda commit: [commit.write(write) for write in batch])
        except StoreError as error:
            return [WriteResult("failed", str(error))] * len(batch)
        except lmdb.Error as error:
            if len(batch) == 1:
                return [self._failure(batch[0], error)]
        return [self._write([write])[0] for write in batch]

    def _transact(self, work: "Callable[[_Commit], _Result]") -> "_Result":
        """Do the work in one commit. What can be mended is, and then the work is done again."""
        try:
            return self._transact_once(work)
        except lmdb.MapFullError:
            if not self._home.grow():
                raise
            return self._transact(work)
        except lmdb.PanicError:  # an earlier commit could not write its root
            self._home.reopen()
            return self._transact_once(work)

    def _transact_once(self, work: "Callable[[_Commit], _Result]") -> "_Result":
        with self._home.write_txn() as txn:
            commit = _Commit(self._home, txn, self._quota_bytes, self._clock(), self._eviction)
            commit.asked = self._asked
            commit.may_expire = commit.now - self._expired_looked_at >= EXPIRED_LOOK_INTERVAL_S
            result = work(commit)
            commit.finish()
        if commit.expired:
            self._expired_looked_at = commit.now
        self._usage = commit.usage()
        self._home.viewed(commit.lookups)
        return result

    def _failure(self, write: Write, error: lmdb.Error) -> WriteResult:
        """Say which it was. A write that the disk cut short comes as EIO: look at what is left."""
        wanted = size_of(write.item)
        if isinstance(error, lmdb.MapFullError):
            return WriteResult("full", f"the store's file is at its largest, {wanted:,} wanted")
        free = self._home.free_bytes()
        cut_short = error.code == errno.EIO and free < wanted + _COMMIT_SLACK_BYTES
        if error.code in _DISK_FULL or cut_short:
            return WriteResult("full", f"the disk is full: {free:,} bytes free, {wanted:,} wanted")
        return WriteResult("failed", f"the disk failed: {error}")


class _Commit:
    """One write transaction with the count of bytes that it will leave, and of its lookups."""

    def __init__(
        self,
        home: Home,
        txn: "lmdb.Transaction[bytes]",
        quota_bytes: int,
        now: float,
        eviction: Eviction | None,
    ) -> None:
        self._home = home
        self._txn = txn
        self._quota_bytes = quota_bytes
        self._eviction = eviction
        self.now = now
        self.may_expire = False
        self.expired = False
        self.asked = Asked()
        self._items, self._bytes = self._before = home.count(txn)
        self._recount = False
        self.lookups = 0

    def usage(self) -> Usage:
        return Usage(self._items, self._bytes, self._quota_bytes)

    def write(self, write: Write) -> WriteResult:
        self.lookups += 1
        raw_key = key_to_bytes(write.key)
        if isinstance(write.item, Block):
            result = self._write_block(raw_key, write, write.item.data)
        else:
            result = self._write_versioned(raw_key, write)
        if result.code == "stored":
            self._stamp(raw_key, self.now - write.age_s)
            if write.pin:
                self._txn.put(raw_key, stamp_of(self.now - write.age_s), db=self._home.pins)
        return result

    def drop(self, key: ItemKey, aged_s: float = 0.0) -> bool:
        raw_key = key_to_bytes(key)
        if self._txn.get(raw_key, db=self._home.pins) is not None:
            return False
        age_s = _age(self._txn.get(raw_key, db=self._home.times), self.now) or 0.0
        return age_s >= aged_s and self._remove(key, raw_key)

    def pin(self, key: ItemKey) -> bool:
        raw_key = key_to_bytes(key)
        held = self._holds(raw_key)
        if held:
            self._txn.put(raw_key, stamp_of(self.now), db=self._home.pins)
        return held

    def tend(self, order: Order) -> Told:
        return self._home.tend(order, self._txn)

    def unpin(self, key: ItemKey) -> bool:
        return self._txn.delete(key_to_bytes(key), db=self._home.pins)

    def touch(self, key: ItemKey, *, pins: bool) -> bool:
        raw_key = key_to_bytes(key)
        held = self._holds(raw_key)
        if held:
            self._stamp(raw_key, self.now)
            if pins and self._txn.get(raw_key, db=self._home.pins) is not None:
                self._txn.put(raw_key, stamp_of(self.now), db=self._home.pins)
        return held

    def drop_if_damaged(self, key: ItemKey) -> bool:
        self.lookups += 1
        raw_key = key_to_bytes(key)
        raw = self._txn.get(raw_key)
        if raw is None or prove(key, raw) is not DAMAGED:
            return False
        self._remove(key, raw_key)
        self._recount |= key.kind not in BLOCK_KINDS
        return True

    def finish(self) -> None:
        if self._recount:
            self._bytes = _count_bytes(self._txn)
            self.lookups += self._items
        if self._bytes != self._before[1]:
            self._home.set_bytes(self._txn, self._bytes)

    def _write_block(self, raw_key: bytes, write: Write, data: bytes) -> WriteResult:
        wanted = ITEM_OVERHEAD_BYTES + len(data)
        fits = refuse_over_quota(self.usage(), wanted) is None
        if fits and self._txn.put(raw_key, data, overwrite=False):
            self._items += 1
            self._bytes += wanted
            return STORED
        held = self._txn.get(raw_key)
        if held == data:
            return STORED
        freed = ITEM_OVERHEAD_BYTES + len(held) if held is not None else 0
        if refusal := self._refuse(write, wanted, freed):
            return refusal
        self._txn.put(raw_key, data)
        self._items += held is None
        self._bytes += wanted - freed
        return STORED

    def _write_versioned(self, raw_key: bytes, write: Write) -> WriteResult:
        raw = self._txn.get(raw_key)
        held = None if raw is None else prove(write.key, raw)
        intact = None if held is DAMAGED else held
        if answer := decide(intact, write):
            return answer
        wanted, freed = size_of(write.item), 0 if raw is None else weigh(write.key, raw)
        if refusal := self._refuse(write, wanted, freed):
            return refusal
        self._txn.put(raw_key, encode_item(write.item))
        self._items += raw is None
        self._bytes += wanted - freed
        self._recount |= held is DAMAGED
        return STORED

    # --- Ages, and room for more ----------------------------------------------------------------

    def _stamp(self, raw_key: bytes, when: float) -> None:
        """Note when the item was refreshed, unless that is known to be later."""
        stamp, held = stamp_of(when), self._txn.get(raw_key, db=self._home.times)
        if held is None or held < stamp:
            self._txn.put(raw_key, stamp, db=self._home.times)

    def _holds(self, raw_key: bytes) -> bool:
        self.lookups += 1
        with self._txn.cursor() as cursor:
            return cursor.set_key(raw_key)

    def _remove(self, key: ItemKey, raw_key: bytes) -> bool:
        self.lookups += 1
        raw = self._txn.pop(raw_key)
        if raw is None:
            return False
        self._txn.delete(raw_key, db=self._home.times)
        self._items -= 1
        self._bytes -= weigh(key, raw)
        return True

    def _refuse(self, write: Write, wanted: int, freed: int) -> WriteResult | None:
        """Return why a write does not fit, once what may make room for it has done so."""
        refusal = refuse_over_quota(self.usage(), wanted, freed)
        if refusal is None or self._eviction is None:
            return refusal
        if self.may_expire:
            self.may_expire, self.expired = False, True
            for key in list(self._expired(self._eviction.lifetime_s)):
                if key != write.key:
                    self.drop(key)
        lacking = self._bytes + wanted - freed - self._quota_bytes
        if 0 < lacking <= self._quota_bytes:
            own, asked = self._eviction.own, self.asked.when
            for key in choose(own, write, lacking, self._keys_from, self._frees, asked):
                self.drop(key)
        return refuse_over_quota(self.usage(), wanted, freed)

    def _expired(self, lifetime_s: float) -> Iterator[ItemKey]:
        before = stamp_of(self.now - lifetime_s)
        with self._txn.cursor(self._home.times) as cursor:
            for raw_key, stamp in cursor:
                if stamp < before and (key := key_from_bytes(raw_key)) is not None:
                    yield key

    def _keys_from(self, start: Id, count: int) -> list[ItemKey]:
        self.lookups += 1
        with self._txn.cursor() as cursor:
            return _keys(cursor, start, count)

    def _frees(self, key: ItemKey) -> int | None:
        raw_key = key_to_bytes(key)
        raw = self._txn.get(raw_key)
        pinned = self._txn.get(raw_key, db=self._home.pins) is not None
        return None if pinned or raw is None else weigh(key, raw)


def _keys(cursor: "lmdb.Cursor[bytes]", start: Id, count: int) -> list[ItemKey]:
    keys: list[ItemKey] = []
    more = cursor.set_range(start)
    while more and len(keys) < count:
        if (key := key_from_bytes(cursor.key())) is not None:
            keys.append(key)
        more = cursor.next()
    return keys


def _age(stamp: bytes | None, now: float) -> float | None:
    """Return how long ago a stamp was made; a clock that was put back makes nothing younger."""
    return None if stamp is None else max(now - int.from_bytes(stamp, "big"), 0.0)


def _count_bytes(txn: "lmdb.Transaction[bytes]") -> int:
    """Weigh everything anew: nobody knows what a damaged record weighed when it was counted."""
    total = 0
    with txn.cursor() as cursor:
        for raw_key, raw in cursor:
            key = key_from_bytes(raw_key)
            total += ITEM_OVERHEAD_BYTES + len(raw) if key is None else weigh(key, raw)
    return total
