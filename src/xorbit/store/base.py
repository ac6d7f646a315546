"""The interface of a store, and the one rule by which a store takes or refuses an item.

A store is synchronous and takes batches: whoever drives it decides on which thread it runs and how
much is committed together. `write` returns only after its batch is durable (where the home is
durable at all), so that an acknowledgement may follow. Items travel in as values and come out as
values; nothing of the machine may enter here.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Literal, Protocol

from msgspec import Struct

from xorbit.ids import ID_BYTES, Id
from xorbit.items import Contact, Held, Item, ItemKey, Kind, Record, version
from xorbit.pins import Order, Told


class Damaged(Enum):
    """What a read says of bytes that no longer prove to be the item (bit rot, a torn write)."""

    DAMAGED = "damaged"


DAMAGED = Damaged.DAMAGED

ReadResult = Item | Damaged | None
"""The item, DAMAGED, or None where there is none."""


class Write(Struct, frozen=True):
    """Keep this item; for a record, only if the one held has sequence number `cas`."""

    key: ItemKey
    item: Item
    cas: int | None = None
    pin: bool = False
    """Our owner put it: pinned in the same commit, and it may push out what is not."""
    age_s: float = 0.0
    """How long ago its owner last refreshed it, as its last holder told."""


class WriteResult(Struct, frozen=True):
    """What became of a write: durable, or refused and why."""

    code: Literal["stored", "stale", "full", "failed"]
    reason: str = ""
    newer: Record | None = None
    """With "stale": the record that is held instead."""


class Usage(Struct, frozen=True):
    """How full a store is."""

    items: int
    bytes: int
    quota_bytes: int


class Eviction(Struct, frozen=True):
    """By what a full store chooses what to let go of."""

    own: Id
    """What is farthest from here goes first, and never for something farther still."""
    lifetime_s: float
    """What was not refreshed for so long goes before anything else."""


STORED = WriteResult("stored")


class Store(Protocol):
    """A place for items. All calls may come from any one thread at a time per method kind."""

    def read(self, keys: Sequence[ItemKey]) -> list[ReadResult]:
        """Return what is held under each key, every item proved again on the way out.

        Raises:
            StoreError: the disk failed.
        """
        ...

    def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """Keep a batch in one commit; return, once it is durable, what became of each write.

        Whoever writes has proved each item to belong to its key (`items.check_is`); the store
        proves what it reads, not what it is given. It raises nothing for the disk's sake: "full"
        and "failed" say what happened.
        """
        ...

    def have(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Return which keys are held (by index alone, nothing is read or proved).

        Raises:
            StoreError: the disk failed.
        """
        ...

    def drop_damaged(self, keys: Sequence[ItemKey]) -> int:
        """Remove those of the keys whose bytes are damaged; return how many were.

        Raises:
            StoreError: the disk failed; nothing was removed.
        """
        ...

    def keys_from(self, start: Id, count: int) -> list[ItemKey]:
        """Return up to `count` keys in keyspace order, from `start` on (no wrap-around).

        Raises:
            StoreError: the disk failed.
        """
        ...

    def scan(self, start: Id, count: int) -> list[Held]:
        """Return up to `count` items in keyspace order, from `start` on, each with its age and pin.

        Raises:
            StoreError: the disk failed.
        """
        ...

    def drop(self, keys: Sequence[ItemKey], aged_s: float = 0.0) -> list[ItemKey]:
        """Remove those of the keys that are held and not pinned, in one commit; return them.

        With `aged_s` only those that have such an age in that very commit: what was stored or
        refreshed since somebody looked stays.

        Raises:
            StoreError: the disk failed; nothing was removed.
        """
        ...

    def pin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Pin those of the keys that are held, refreshed as of now; return which are held.

        Raises:
            StoreError: the disk failed; nothing was pinned.
        """
        ...

    def unpin(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Let go of pins; return which of the keys had one.

        Raises:
            StoreError: the disk failed; every pin stands.
        """
        ...

    def tend(self, orders: Sequence[Order]) -> list[Told]:
        """Do these orders of an owner (pins.py), in one commit; return what became of each.

        Raises:
            StoreError: the disk failed; nothing was changed.
        """
        ...

    def write_and_tend(
        self, batch: Sequence[Write], orders: Sequence[Order]
    ) -> tuple[list[WriteResult], list[Told]] | None:
        """Do both in one commit, or nothing (None): then one is to be done after the other."""
        ...

    def touch(self, keys: Sequence[ItemKey], *, pins: bool = False) -> list[bool]:
        """Note that an owner has just refreshed these items; return which are held.

        With `pins` it was our owner, and the times of those that are pinned move as well.

        Raises:
            StoreError: the disk failed.
        """
        ...

    def save_contacts(self, network: bytes, contacts: Sequence[Contact]) -> None:
        """Keep these contacts for the network with this key, in place of those kept before.

        Raises:
            StoreError: the disk failed, or the store is closed; those kept before remain.
        """
        ...

    def load_contacts(self, network: bytes) -> tuple[Contact, ...]:
        """Return the contacts kept for a network; none where they are missing or damaged.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        ...

    def usage(self) -> Usage:
        """Return how many items and bytes are held, and the quota."""
        ...

    def close(self) -> None:
        """Let go of the files; everything acknowledged is on disk already."""
        ...


def decide(held: Item | None, write: Write) -> WriteResult | None:
    """Return why a write must not replace what is held, or None when it may.

    The newer version wins (`items.version`); an equal one counts as stored by whoever does the
    writing. With `cas`, a record is replaced only if the held one has just that sequence number
    (none held counts as a match only for `cas` 0), as BEP 44 has it.
    """
    newest = held if isinstance(held, Record) else None
    if held is not None and version(held) == version(write.item):
        return STORED
    if write.cas is not None:
        seen = newest.seq if newest else 0
        if seen != write.cas:
            return WriteResult("stale", f"expected sequence {write.cas}, held {seen}", newest)
    if held is not None and version(held) > version(write.item):
        return WriteResult("stale", "a newer version is held", newest)
    return None


def refuse_over_quota(usage: Usage, wanted: int, freed: int = 0) -> WriteResult | None:
    """Return why an item of `wanted` bytes that replaces `freed` bytes does not fit, or None.

    A store over its quota (the quota was lowered) still takes what makes it no fuller.
    """
    if wanted <= freed or usage.bytes - freed + wanted <= usage.quota_bytes:
        return None
    quota = f"quota of {usage.quota_bytes:,} bytes"
    return WriteResult("full", f"{quota}: {usage.bytes:,} held, {wanted - freed:,} wanted")


KEY_BYTES = ID_BYTES + 1
_KINDS = {int(kind): kind for kind in Kind}


def key_to_bytes(key: ItemKey) -> bytes:
    """Return id, then kind in one byte: as bytes, keys sort in keyspace order."""
    return key.id + bytes((key.kind,))


def key_from_bytes(raw: bytes) -> ItemKey | None:
    """Return the key of `key_to_bytes`, or None for bytes that are none (damage)."""
    if len(raw) != KEY_BYTES or raw[ID_BYTES] not in _KINDS:
        return None
    return ItemKey(_KINDS[raw[ID_BYTES]], Id(raw[:ID_BYTES]))
