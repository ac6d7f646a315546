"""Publishing: the next version of a record, signed by the caller and stored by compare-and-swap.

Works over whatever stores and reads records for a caller; the private key stays in this process. No
sockets and no state here.
"""

from asyncio import sleep
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
WAIT_S = DEFAULT_LIMITS.publish_wait_s


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
            raise MisuseError(
                "cas is the sequence number of the version that you have seen, "
                f"0..{SEQUENCE_MAX - 1} (0: none yet), got {cas}"
            )
        try:
            return await store_surely(calls, key, key.sign(cas + 1, value, salt), cas)
        except NotStoredError:
            await _hold_against(calls, key, salt, cas)
            raise
    stale = None
    for _ in range(TRIES_MAX):
        newest = stale.newer if stale else await newest_of(calls, key.public_key, salt)
        seen = newest.seq if newest else 0
        try:
            return await store_surely(calls, key, key.sign(seen + 1, value, salt), seen)
        except StaleError as error:
            stale = error
    assert stale is not None
    raise stale


async def store_surely(calls: Records, key: UserKey, record: Record, cas: int) -> PublishReceipt:
    """Store until it is certain who has won; the same record may be stored any number of times.

    Who was first at all but one of the r closest has won. Readers though end with the greatest
    bytes of one number: where a loser's are greater and are held anywhere, whoever knows of it puts
    the winner's value above them, under the next number. Where nobody can have so many, the
    greatest bytes win.

    Where it is for silent nodes alone that it is not certain, the next try waits a little: others
    are still told of those who have just gone.

    Raises:
        XorbitError: as `Calls.publish`.
    """
    done, sent, rival = None, False, None
    for turn in range(TRIES_MAX):
        if done is not None and rival is None:
            await sleep(WAIT_S * 2 ** (turn - 1))
        done = await calls.put_record(record, cas)
        if done.won:
            return _receipt(record, done)
        sent |= any(said.outcome != "refused" for said in done.receipts)
        rival = done.newer if done.newer and done.newer.seq == record.seq else None
        if rival and done.votes == "ours":
            above = key.sign(record.seq + 1, record.value, record.salt)
            return await store_surely(calls, key, above, record.seq)
        if rival and done.votes == "theirs" and sent:
            raise _stale(cas, await _put_above(calls, key, rival))
        # Reading brings those up to date that had missed what is held elsewhere.
        read = await newest_of(calls, record.public_key, record.salt)
        newest = max(filter(None, (done.newer, read)), key=version, default=record)
        if version(newest) > version(record) or (rival and not sent):
            raise _stale(cas, newest)
    assert done is not None
    held = sum(said.outcome == "stored" for said in done.receipts)
    told = f"only {held} of {len(done.receipts)} nodes took it, too few to be sure that no other"
    if held == len(done.receipts):
        told = f"{held} nodes took it, but more than one did not answer: it may be that another"
    raise NotStoredError(f"{told} writer has won; publish the same value again with cas {cas}")


async def _hold_against(calls: Records, key: UserKey, salt: bytes, cas: int) -> None:
    """Where nobody took a version: raise StaleError if that is because none is numbered `cas`."""
    newest = await newest_of(calls, key.public_key, salt)
    seq = newest.seq if newest else 0
    if newest is not None and seq > cas:
        raise _stale(cas, newest)
    if seq < cas:
        held = f"the newest is {seq}" if newest else "there is none yet (0)"
        raise StaleError(
            f"you have seen a version that nobody holds: expected sequence {cas}, {held}; "
            "read it, then publish again",
            newest,
        )


def _receipt(record: Record, done: PutDone) -> PublishReceipt:
    at = (record.public_key, record.salt, record.seq)
    return PublishReceipt(*at, done.receipts, record, done.not_kept)


async def _put_above(calls: Records, key: UserKey, winner: Record) -> Record:
    """Put the value that has won above our own, which some hold; return what stands in the end."""
    above = key.sign(winner.seq + 1, winner.value, winner.salt)
    done = await calls.put_record(above, winner.seq)
    return max(filter(None, (above if done.won else winner, done.newer)), key=version)


def _stale(cas: int, newest: Record) -> StaleError:
    return StaleError(
        f"somebody else was faster: expected sequence {cas}, version {newest.seq} is held "
        "already; read it, then publish again",
        newest,
    )


async def newest_of(calls: Records, public_key: bytes, salt: bytes) -> Record | None:
    """Return the newest version of a record, or None if nobody has it."""
    try:
        return await calls.resolve(public_key, salt)
    except NotFoundError:
        return None
