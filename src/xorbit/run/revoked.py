"""The revoked nodes of a managed network: a record of its authority that every node follows.

The record's value is the list of revoked nodes: 32 bytes each, sorted, no two alike. A node keeps
the last record that it has seen in its home, so that it goes on refusing them without a network,
and an older record changes nothing.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from xorbit.config import DEFAULT_LIMITS, REVOKED_MAX
from xorbit.core.job import Revoked
from xorbit.errors import (
    FormatError,
    ItemError,
    MisuseError,
    NotStoredError,
    StaleError,
    StoppedError,
    WorldError,
    XorbitError,
)
from xorbit.ids import ID_BYTES, Id, id_of
from xorbit.items import Record, check_is, record_key, version
from xorbit.keys import UserKey
from xorbit.run.calls import Calls
from xorbit.run.publish import TRIES_MAX, PublishReceipt, newest_of, store_surely

SALT = b"xorbit revoked"
REVOKED_FILE = "revoked.record"
ADMITTED_FILE = "admitted.ids"

log = logging.getLogger("xorbit")


# --- The list -----------------------------------------------------------------------------------


def encode_ids(ids: Iterable[Id]) -> bytes:
    """Return the record's value for these nodes.

    Raises:
        MisuseError: more than 1,800.
    """
    listed = sorted(set(ids))
    if len(listed) > REVOKED_MAX:
        raise MisuseError(
            f"at most {REVOKED_MAX:,} nodes can be revoked, this would be {len(listed):,}: "
            "make a new network and admit those who are welcome"
        )
    return b"".join(listed)


def decode_ids(value: bytes) -> tuple[Id, ...]:
    """Return the nodes in a record's value.

    Raises:
        FormatError: it is no such list.
    """
    ids = tuple(Id(value[at : at + ID_BYTES]) for at in range(0, len(value), ID_BYTES))
    if len(value) % ID_BYTES or list(ids) != sorted(set(ids)) or len(ids) > REVOKED_MAX:
        raise FormatError(f"a list of revoked nodes is damaged: {len(value)} bytes")
    return ids


def job_of(record: Record) -> Revoked:
    """Return what a record says, for the machine.

    An operator may have written a node's id or its public key, which nobody can tell apart; so each
    counts as both. The other one is nobody's id.

    Raises:
        FormatError: the record has no such list.
    """
    ids = decode_ids(record.value)
    return Revoked((*ids, *map(id_of, ids)))


# --- What a home remembers ------------------------------------------------------------------------


def load(home: Path, authority_key: bytes) -> Record | None:
    """Return the last list seen of this network; None where there is none that proves itself."""
    try:
        record = msgspec.msgpack.decode((home / REVOKED_FILE).read_bytes(), type=Record)
        check_is(record, record_key(authority_key, SALT))
        decode_ids(record.value)
    except (OSError, msgspec.MsgspecError, ItemError, FormatError):
        return None
    return record


def is_listed(home: Path, authority_key: bytes, node: bytes) -> bool:
    """Return whether a home's list has a node, by its id or by its public key."""
    record = load(home, authority_key)
    return record is not None and not {node, id_of(node)}.isdisjoint(job_of(record).ids)


def note_admitted(home: Path, public_key: bytes) -> None:
    """Write down that a node has been admitted from this home.

    Raises:
        WorldError: the home cannot be written.
    """
    try:
        with (home / ADMITTED_FILE).open("a") as file:
            file.write(f"{id_of(public_key).hex()}\n")
    except OSError as error:
        raise WorldError(f"cannot write {home / ADMITTED_FILE}: {error.strerror}") from error


def was_admitted(home: Path, node: bytes) -> bool:
    """Return whether a node, by id or public key, has been admitted from here, as far as known."""
    try:
        lines = (home / ADMITTED_FILE).read_text().split()
    except (OSError, UnicodeDecodeError):
        return False
    return not {node.hex(), id_of(node).hex()}.isdisjoint(lines)


def save(home: Path, record: Record) -> None:
    """Keep a list for the next start; a disk that fails is told to the log."""
    path = home / REVOKED_FILE
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=home, prefix=f".{REVOKED_FILE}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(record))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        log.warning("the list of revoked nodes is not saved: %s", error)
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


# --- Every node ---------------------------------------------------------------------------------


async def watch(
    calls: Calls,
    post: Callable[[Revoked], None],
    home: Path,
    authority_key: bytes,
    retry_s: float,
) -> None:
    """Follow the list, and post each newer one, until cancelled or the node stops.

    Where that fails it is tried again `retry_s` later.
    """
    held = load(home, authority_key)
    while True:
        try:
            async with aclosing(calls.follow(authority_key, SALT)) as versions:
                async for record in versions:
                    if held is None or version(record) > version(held):
                        post(job_of(record))
                        held = record
                        await asyncio.to_thread(save, home, record)
        except StoppedError:
            return
        except XorbitError as error:
            log.warning("the list of revoked nodes is not followed: %s", error)
        await asyncio.sleep(retry_s)


# --- The operator -------------------------------------------------------------------------------


async def revoke(calls: Calls, authority: UserKey, gone: Id, home: Path) -> PublishReceipt | None:
    """Put a node onto the list; return None where it is on it already.

    Raises:
        MisuseError: the list is full.
        XorbitError: as `Calls.publish`.
    """
    stale = None
    for _ in range(TRIES_MAX):
        found = await newest_of(calls, authority.public_key, SALT)
        # The network may have lost the list: what the operator's home has counts as well.
        known = [record for record in (found, load(home, authority.public_key)) if record]
        last = max(known, key=version, default=None)
        ids = decode_ids(last.value) if last else ()
        if gone in ids and last == found:
            return None
        record = authority.sign((last.seq if last else 0) + 1, encode_ids((*ids, gone)), SALT)
        try:
            receipt = await _store(calls, authority, record, found.seq if found else 0)
        except StaleError as error:
            stale = error
            continue
        await asyncio.to_thread(save, home, receipt.record)
        return receipt
    raise StaleError(
        "the list of revoked nodes is being changed from somewhere else too: run this again",
        stale.newer if stale else None,
    )


async def _store(calls: Calls, authority: UserKey, record: Record, cas: int) -> PublishReceipt:
    """Store a list until it is sure that it stays.

    The node that it turns out is mostly among those asked to hold it, and its connections end while
    it is asked. Whoever stores hears of the list as all others do, soon after the first holder has
    it, and then neither asks nor counts that node.
    """
    for _ in range(DEFAULT_LIMITS.revoke_tries_max):
        with suppress(NotStoredError):
            return await store_surely(calls, authority, record, cas)
        await asyncio.sleep(DEFAULT_LIMITS.revoke_wait_s)
    raise NotStoredError(
        "the list of revoked nodes did not reach enough nodes to be sure that it stays: run this "
        "again, it does no harm; --bootstrap HOST:PORT names another way in"
    )
