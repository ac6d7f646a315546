"""The store on disk: items in an embedded LMDB, a batch to a commit, proved again when read.

Holds what is kept and what is refused; the files themselves (locking, checking, growing) are
`home.py`'s. No asyncio here: whoever drives the store gives it a thread for writes and one for
reads. A page that the disk cannot read back at all (EIO under a memory map) still ends the process.
"""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import lmdb
import msgspec

from xorbit.errors import ItemError, StoreError
from xorbit.ids import Id
from xorbit.items import (
    ITEM_OVERHEAD_BYTES,
    Block,
    ConnectionItem,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    check_is,
    size_of,
)
from xorbit.store.base import (
    DAMAGED,
    STORED,
    ReadResult,
    Usage,
    Write,
    WriteResult,
    decide,
    key_from_bytes,
    key_to_bytes,
    refuse_over_quota,
)
from xorbit.store.home import Home

_BLOCKS: Final = (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256)
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COMMIT_SLACK_BYTES: Final = 256 * 1024
"""What a commit of one item may need besides its bytes: copies of the pages above it."""

_Result = TypeVar("_Result")

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_record: Final = msgspec.msgpack.Decoder(Record).decode
_decode_connection: Final = msgspec.msgpack.Decoder(ConnectionItem).decode


class LmdbStore:
    """A `Store` in a directory, with a quota in bytes (`items.size_of`).

    Writes and drops may come from one thread while reads come from others.

    Raises:
        StoreError: the directory is held by another process, damaged, of a newer xorbit, or the
            disk failed.
    """

    def __init__(self, path: Path, quota_bytes: int) -> None:
        self._home = Home(path, quota_bytes)
        self._quota_bytes = quota_bytes
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
        return [
            None if raw is None else _prove(key, raw) for key, raw in zip(keys, found, strict=True)
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
        with self._writing:
            try:
                dropped = self._transact(lambda commit: sum(map(commit.drop_if_damaged, keys)))
            except lmdb.Error as error:
                raise StoreError(f"the store in {self._home.path} failed: {error}") from error
            self._home.refresh()
            return dropped

    def keys_from(self, start: Id, count: int) -> list[ItemKey]:
        """Return up to `count` keys in keyspace order, from `start` on (no wrap-around).

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        keys: list[ItemKey] = []
        with self._home.read_txn() as txn, txn.cursor() as cursor:
            more = cursor.set_range(start)
            while more and len(keys) < count:
                if (key := key_from_bytes(cursor.key())) is not None:
                    keys.append(key)
                more = cursor.next()
        self._viewed(len(keys))
        return keys

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
            commit = _Commit(self._home, txn, self._quota_bytes)
            result = work(commit)
            commit.finish()
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

    def __init__(self, home: Home, txn: "lmdb.Transaction[bytes]", quota_bytes: int) -> None:
        self._home = home
        self._txn = txn
        self._quota_bytes = quota_bytes
        self._items, self._bytes = self._before = home.count(txn)
        self._recount = False
        self.lookups = 0

    def usage(self) -> Usage:
        return Usage(self._items, self._bytes, self._quota_bytes)

    def write(self, write: Write) -> WriteResult:
        self.lookups += 1
        if isinstance(write.item, Block):
            return self._write_block(key_to_bytes(write.key), write.item.data)
        return self._write_versioned(key_to_bytes(write.key), write)

    def drop_if_damaged(self, key: ItemKey) -> bool:
        self.lookups += 1
        raw_key = key_to_bytes(key)
        raw = self._txn.get(raw_key)
        if raw is None or _prove(key, raw) is not DAMAGED:
            return False
        self._txn.delete(raw_key)
        self._items -= 1
        self._forget(key, raw)
        return True

    def finish(self) -> None:
        if self._recount:
            self._bytes = _count_bytes(self._txn)
            self.lookups += self._items
        if self._bytes != self._before[1]:
            self._home.set_bytes(self._txn, self._bytes)

    def _write_block(self, raw_key: bytes, data: bytes) -> WriteResult:
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
        if refusal := refuse_over_quota(self.usage(), wanted, freed):
            return refusal
        self._txn.put(raw_key, data)
        self._bytes += wanted - freed
        return STORED

    def _write_versioned(self, raw_key: bytes, write: Write) -> WriteResult:
        raw = self._txn.get(raw_key)
        held = None if raw is None else _prove(write.key, raw)
        intact = None if held is DAMAGED else held
        if answer := decide(intact, write):
            return answer
        wanted, freed = size_of(write.item), 0 if raw is None else _weigh(write.key, raw)
        if refusal := refuse_over_quota(self.usage(), wanted, freed):
            return refusal
        self._txn.put(raw_key, _encode(write.item))
        self._items += raw is None
        self._bytes += wanted - freed
        self._recount |= held is DAMAGED
        return STORED

    def _forget(self, key: ItemKey, raw: bytes) -> None:
        self._bytes -= _weigh(key, raw)
        self._recount |= key.kind not in _BLOCKS


def _prove(key: ItemKey, raw: bytes) -> ReadResult:
    if key.kind in _BLOCKS:
        return Block(key.kind, raw) if block_key(raw, key.kind).id == key.id else DAMAGED
    try:
        item = _decode(key.kind, raw)
        check_is(item, key)
    except (msgspec.DecodeError, UnicodeDecodeError, ItemError):
        return DAMAGED
    return item


def _decode(kind: Kind, raw: bytes) -> Item:
    return _decode_record(raw) if kind is Kind.RECORD else _decode_connection(raw)


def _weigh(key: ItemKey, raw: bytes) -> int:
    """Return the `size_of` what is held; of bytes that are no item any more, their number."""
    if key.kind in _BLOCKS:
        return ITEM_OVERHEAD_BYTES + len(raw)
    try:
        return size_of(_decode(key.kind, raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ITEM_OVERHEAD_BYTES + len(raw)


def _count_bytes(txn: "lmdb.Transaction[bytes]") -> int:
    """Weigh everything anew: nobody knows what a damaged record weighed when it was counted."""
    total = 0
    with txn.cursor() as cursor:
        for raw_key, raw in cursor:
            key = key_from_bytes(raw_key)
            total += ITEM_OVERHEAD_BYTES + len(raw) if key is None else _weigh(key, raw)
    return total
