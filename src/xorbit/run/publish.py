"""Publishing: the next version of a record, signed by the caller and stored by compare-and-swap.

Works over whatever stores and reads records for a caller; the private key stays in this process. No
sockets and no state here.
"""

from typing import Protocol

from msgspec import Struct

from xorbit.config import DEFAULT_LIMITS
from xorbit.core.effect import PutDone
from xorbit.errors import MisuseError, NotFoundError, NotStoredError, StaleError
from xorbit.ids import Id
from xorbit.items import SEQUENCE_MAX, ItemKey, Record, record_key, version
from xorbit.keys import UserKey
from xorbit.wire.message import Receipt

TRIES_MAX = DEFAULT_LIMITS.publish_tries_max


class PublishReceipt(Struct, frozen=True):
    """What became of a publish: the version that it made, and what every node asked said to it."""

    public_key: bytes
    salt: bytes
    seq: int
    receipts: tuple[Receipt, ...]
    record: Record
    not_kept: str = ""
    """Why it is not kept and refreshed from here; "" where it is."""

    @property
    def key(self) -> ItemKey:
        """The place of the record."""
        return record_key(self.public_key, self.salt)

    @property
    def holders(self) -> tuple[Id, ...]:
        """The nodes that have it on disk."""
        return tuple(said.node for said in self.receipts if said.outcome == "stored")


class Records(Protocol):
    """What stores and reads signed records for a caller (`calls.Calls`)."""

    async def put_record(self, record: Record, cas: int) -> PutDone:
        """Store a record, by compare-and-swap, at the nodes closest to it."""
        ...

    async def resolve(self, public_key: bytes, salt: bytes = b"") -> Record:
        """Return the newest version of a record."""
        ...


async def publish(
    calls: Records, key: UserKey, value: bytes, *, salt: bytes, cas: int | None
) -> PublishReceipt:
    """Store the next version of a record; see `Calls.publish`."""
    if cas is not None:
        if not 0 <= cas < SEQUENCE_MAX:
            raise MisuseError(f"cas is the sequence number that you have seen, got {cas}")
        return await store_surely(calls, key.sign(cas + 1, value, salt), cas)
    stale = None
    for _ in range(TRIES_MAX):
        newest = stale.newer if stale else await newest_of(calls, key.public_key, salt)
        seen = newest.seq if newest else 0
        try:
            return await store_surely(calls, key.sign(seen + 1, value, salt), seen)
        except StaleError as error:
            stale = error
    assert stale is not None
    raise stale


async def store_surely(calls: Records, record: Record, cas: int) -> PublishReceipt:
    """Store until it is certain who has won; the same record may be stored any number of times.

    Raises:
        XorbitError: as `Calls.publish`.
    """
    done = None
    for _ in range(TRIES_MAX):
        done = await calls.put_record(record, cas)
        if done.won:
            return PublishReceipt(record.public_key, record.salt, record.seq, done.receipts, record)
        # Reading brings those up to date that had missed what is held elsewhere.
        newest = done.newer or await newest_of(calls, record.public_key, record.salt)
        if newest and newest.seq >= record.seq and version(newest) != version(record):
            raise StaleError(
                f"somebody else was faster: expected sequence {cas}, version {newest.seq} is held "
                "already; read it, then publish again",
                newest,
            )
    assert done is not None
    held = sum(said.outcome == "stored" for said in done.receipts)
    raise NotStoredError(
        f"only {held} of {len(done.receipts)} nodes took it, too few to be sure that no other "
        f"writer has won: publish the same value again with cas {cas}"
    )


async def newest_of(calls: Records, public_key: bytes, salt: bytes) -> Record | None:
    """Return the newest version of a record, or None if nobody has it."""
    try:
        return await calls.resolve(public_key, salt)
    except NotFoundError:
        return None
