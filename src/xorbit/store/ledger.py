"""How a store does the orders of `pins.py`: roots and pins in two tables, one logic for each home.

A table is a sorted map of bytes within one transaction; who opens and commits that, and what a full
disk means, is the store's affair.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final, Protocol, assert_never

import lmdb
import msgspec
from msgspec import Struct

from xorbit.config import LEDGER_ROWS_MAX, PUT_S_MAX
from xorbit.ids import ID_BYTES
from xorbit.items import BLOCK_KINDS, ItemKey, Record
from xorbit.pins import (
    AddMembers,
    AddRoot,
    EndRoot,
    Kept,
    LeaveRoot,
    LetGo,
    Order,
    Root,
    ScanMembers,
    ScanPins,
    ScanRoots,
    Told,
    root_name,
)
from xorbit.store.base import key_from_bytes, key_to_bytes

_COUNTS: Final = b"\xff" * 35
"""Stands behind every root, whose names have 34 bytes; behind it stand the members of roots."""
_MEMBER_BYTES: Final = ID_BYTES + 1


class Table(Protocol):
    """A sorted map of bytes."""

    def get(self, name: bytes) -> bytes | None:
        """Return what stands there."""
        ...

    def put(self, name: bytes, value: bytes) -> None:
        """Write it, over what stands there."""
        ...

    def delete(self, name: bytes) -> bool:
        """Remove it; return whether there was something."""
        ...

    def behind(
        self, name: bytes, count: int, before: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `count` entries in the order of their names, behind one, before another."""
        ...


class MemoryTable:
    """A table in memory."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._order: list[bytes] = []

    def get(self, name: bytes) -> bytes | None:
        """Return what stands there."""
        return self._rows.get(name)

    def put(self, name: bytes, value: bytes) -> None:
        """Write it, over what stands there."""
        if name not in self._rows:
            insort(self._order, name)
        self._rows[name] = value

    def delete(self, name: bytes) -> bool:
        """Remove it; return whether there was something."""
        found = self._rows.pop(name, None) is not None
        if found:
            self._order.remove(name)
        return found

    def behind(
        self, name: bytes, count: int, before: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `count` entries in the order of their names, behind this one."""
        first = bisect_right(self._order, name)
        last = len(self._order) if before is None else bisect_left(self._order, before)
        return [(it, self._rows[it]) for it in self._order[first : min(first + count, last)]]


class MemoryPins:
    """The pins of a store in memory, as a table."""

    def __init__(self, pins: dict[ItemKey, float]) -> None:
        self._pins = pins

    def get(self, name: bytes) -> bytes | None:
        """Return when that item was last refreshed."""
        key = key_from_bytes(name)
        when = None if key is None else self._pins.get(key)
        return None if when is None else int(when).to_bytes(8, "big")

    def put(self, name: bytes, value: bytes) -> None:
        """Pin an item."""
        key = key_from_bytes(name)
        assert key is not None, "what is pinned has a key"
        self._pins[key] = float(int.from_bytes(value, "big"))

    def delete(self, name: bytes) -> bool:
        """Let go of a pin; return whether there was one."""
        key = key_from_bytes(name)
        return key is not None and self._pins.pop(key, None) is not None

    def behind(
        self, name: bytes, count: int, before: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `count` pins in keyspace order, behind this one."""
        found = (key_to_bytes(key) for key in self._pins)
        names = sorted(it for it in found if it > name and (before is None or it < before))
        return [(found, self.get(found) or b"") for found in names[:count]]


class LmdbTable:
    """A database of LMDB within one transaction."""

    def __init__(self, txn: "lmdb.Transaction[bytes]", database: "lmdb._Database") -> None:
        self._txn = txn
        self._database = database

    def get(self, name: bytes) -> bytes | None:
        """Return what stands there."""
        return self._txn.get(name, db=self._database)

    def put(self, name: bytes, value: bytes) -> None:
        """Write it, over what stands there."""
        self._txn.put(name, value, db=self._database)

    def delete(self, name: bytes) -> bool:
        """Remove it; return whether there was something."""
        return self._txn.delete(name, db=self._database)

    def behind(
        self, name: bytes, count: int, before: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `count` entries in the order of their names, behind this one."""
        found: list[tuple[bytes, bytes]] = []
        with self._txn.cursor(self._database) as cursor:
            more = cursor.set_range(name + b"\0")
            while more and len(found) < count and (before is None or cursor.key() < before):
                found.append(cursor.item())
                more = cursor.next()
        return found


class _Row(Struct, frozen=True, array_like=True):
    """A root on disk. Wall time is read as an age only."""

    root: Root
    put_at: int
    number: int


class _Counts(Struct, frozen=True, array_like=True):
    added: int = 0
    unpins: int = 0


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_row: Final = msgspec.msgpack.Decoder(_Row).decode
_decode_record: Final = msgspec.msgpack.Decoder(Record).decode
_decode_counts: Final = msgspec.msgpack.Decoder(_Counts).decode


def tend(order: Order, roots: Table, pins: Table, now: float) -> Told:
    """Do an order within a transaction.

    Args:
        order: what to do.
        roots: the table of roots, and of the counts.
        pins: when each pinned item was last refreshed, by key.
        now: the wall clock.
    """
    counts = _counts(roots)
    match order:
        case AddRoot():
            return _add(roots, pins, order, now)
        case LeaveRoot():
            return _leave(roots, order)
        case EndRoot():
            return _end(roots, order)
        case ScanRoots(count, after):
            return _told(counts, roots=_roots(roots, pins, count, after, now))
        case ScanPins(count, after):
            found = pins.behind(b"" if after is None else key_to_bytes(after), count)
            return _told(counts, keys=tuple(_keys(found)))
        case LetGo():
            return _let_go(roots, pins, order)
        case AddMembers():
            return _add_members(roots, order)
        case ScanMembers(key, row):
            return _told(counts, keys=_members(roots, key, row))
        case _ as never:
            assert_never(never)


def adopt(roots: Table, pins: Table, items: Table, now: float) -> None:
    """Give each pin of a home from before there were roots a root of its own: none is lost."""
    name = b""
    while found := pins.behind(name, LEDGER_ROWS_MAX):
        name = found[-1][0]
        for key in _keys(found):
            root = _root_of(key, items.get(key_to_bytes(key)) or b"")
            _write(roots, root, max(int(now), 0), _next_number(roots))


def _root_of(key: ItemKey, raw: bytes) -> Root:
    if key.kind in BLOCK_KINDS:
        return Root(key, size=len(raw))
    try:
        record = _decode_record(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Root(key)
    return Root(key, size=len(record.value), public_key=record.public_key, salt=record.salt)


def _keys(found: Iterable[tuple[bytes, bytes]]) -> Iterable[ItemKey]:
    keys = (key_from_bytes(name) for name, _ in found)
    return (key for key in keys if key is not None)


# --- Each order ---------------------------------------------------------------------------------


def _add(roots: Table, pins: Table, order: AddRoot, now: float) -> Told:
    root, counts = order.root, _counts(roots)
    row = _row(roots, root_name(root.key, tree=root.tree))
    if row is not None and row.root.stage == "leaving":
        row = None
    pinned = root.stage == "joining" or pins.get(key_to_bytes(root.key)) is not None
    same = order.number is None or (row is not None and row.number == order.number)
    if not pinned or not same or order.unpins_seen not in (None, counts.unpins):
        there = () if row is None else (_kept(pins, row, now),)
        return _told(counts, done=False, roots=there)
    if row is None:
        _forget_members(roots, root.key)  # of one that was leaving
    root = root if row is None else _merged(row.root, root)
    number = _next_number(roots) if row is None or _completes(row.root, root) else row.number
    row = _write(roots, root, max(int(now), 0), number)
    return _told(_counts(roots), roots=(_kept(pins, row, now),))


def _completes(was: Root, root: Root) -> bool:
    """Whether only now all of it is pinned and noted: who looked before has to look again."""
    return root.stage == "kept" and was.stage == "joining"


def _merged(was: Root, root: Root) -> Root:
    if was.sealed != root.sealed:
        return was if was.sealed else root
    return was if was.stage == "kept" and root.stage == "joining" else root


def _leave(roots: Table, order: LeaveRoot) -> Told:
    row = _row(roots, root_name(order.key, tree=order.tree))
    if row is None or (order.joining_only and row.root.stage == "kept"):
        return _told(_counts(roots), done=False)
    _write(roots, msgspec.structs.replace(row.root, stage="leaving"), row.put_at, row.number)
    return _told(_counts(roots))


def _end(roots: Table, order: EndRoot) -> Told:
    name = root_name(order.key, tree=order.tree)
    row = _row(roots, name)
    done = row is not None and row.root.stage == "leaving" and order.number in (None, row.number)
    if done:
        roots.delete(name)
        if not order.tree:  # sealed roots are named by what is no node
            _forget_members(roots, order.key)
    return _told(_counts(roots), done=done)


def _roots(roots: Table, pins: Table, count: int, after: bytes, now: float) -> tuple[Kept, ...]:
    found = roots.behind(after, count, _COUNTS)
    return tuple(_kept(pins, _decode_row(raw), now) for _, raw in found)


def _kept(pins: Table, row: _Row, now: float) -> Kept:
    refreshed_at = int.from_bytes(pins.get(key_to_bytes(row.root.key)) or b"", "big")
    # What is due at once has the time of a refresh long ago, which never was.
    is_true = refreshed_at >= row.put_at - PUT_S_MAX
    refreshed_age_s = max(now - refreshed_at, 0.0) if is_true else None
    return Kept(row.root, max(now - row.put_at, 0.0), refreshed_age_s, row.number)


def _let_go(roots: Table, pins: Table, order: LetGo) -> Told:
    counts = _counts(roots)
    if order.added_seen not in (None, counts.added):
        return _told(counts, done=False)
    gone = tuple(key for key in order.keys if pins.delete(key_to_bytes(key)))
    if gone:
        roots.put(_COUNTS, _encode(_Counts(counts.added, counts.unpins + 1)))
        for name in order.unseen:
            row = _row(roots, name)
            if row is not None and row.root.stage == "joining":
                _write(roots, row.root, row.put_at, _next_number(roots))
    return _told(_counts(roots), keys=gone)


def _add_members(roots: Table, order: AddMembers) -> Told:
    row = _row(roots, root_name(order.key, tree=False))
    done = row is not None and row.root.sealed and row.root.stage == "joining"
    if done:
        roots.put(_members_name(order.key, order.row), b"".join(map(key_to_bytes, order.keys)))
    return _told(_counts(roots), done=done)


def _members(roots: Table, key: ItemKey, row: int) -> tuple[ItemKey, ...]:
    raw = roots.get(_members_name(key, row)) or b""
    starts = range(0, len(raw), _MEMBER_BYTES)
    keys = (key_from_bytes(raw[start : start + _MEMBER_BYTES]) for start in starts)
    return tuple(key for key in keys if key is not None)


def _forget_members(roots: Table, key: ItemKey) -> None:
    row = 0
    while roots.delete(_members_name(key, row)):
        row += 1


def _members_name(key: ItemKey, row: int) -> bytes:
    return _COUNTS + key_to_bytes(key) + row.to_bytes(4, "big")


# --- Rows ---------------------------------------------------------------------------------------


def _row(roots: Table, name: bytes) -> _Row | None:
    raw = roots.get(name)
    return None if raw is None else _decode_row(raw)


def _write(roots: Table, root: Root, put_at: int, number: int) -> _Row:
    row = _Row(root, put_at, number)
    roots.put(root_name(root.key, tree=root.tree), _encode(row))
    return row


def _next_number(roots: Table) -> int:
    counts = _counts(roots)
    roots.put(_COUNTS, _encode(_Counts(counts.added + 1, counts.unpins)))
    return counts.added + 1


def _counts(roots: Table) -> _Counts:
    raw = roots.get(_COUNTS)
    return _Counts() if raw is None else _decode_counts(raw)


def _told(
    counts: _Counts,
    *,
    done: bool = True,
    roots: tuple[Kept, ...] = (),
    keys: tuple[ItemKey, ...] = (),
) -> Told:
    return Told(done, counts.added, counts.unpins, roots, keys)
