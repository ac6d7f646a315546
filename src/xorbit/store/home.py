"""The directory of a store on disk: one process at a time, checked when opened, grown when full.

Holds the LMDB environment and knows nothing of items but the name of their database. What is kept
and what is refused is decided in `lmdb.py`.
"""

import fcntl
import os
import resource
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import time
from typing import Final

import lmdb
from lmdb.verify import (
    VerifyError,
    verify,  # pyright: ignore[reportUnknownVariableType]  # lmdb carries no types for it
)

from xorbit.config import (
    MAP_BYTES_MIN,
    MAP_GROWTH_MAX,
    MAP_PER_QUOTA,
    VIEWED_BYTES_MAX,
    VIEWED_PER_LOOKUP_BYTES,
)
from xorbit.errors import StoreError
from xorbit.pins import Order, Told
from xorbit.store.ledger import LmdbTable, adopt, tend

SCHEMA: Final = 3
"""Of version 1 there were the items only; opening one gives each the age of zero. Of version 2
there were no roots; opening one makes each pin its own."""
_SCHEMA_KEY: Final = b"schema"
_BYTES_KEY: Final = b"bytes"
_IN_USE: Final = "in use"
_STAMP_S_MAX: Final = 2.0**62
"""What fits a stamp, whatever clocks and peers say."""


class Home:
    """The files of one store: `data.mdb` and `lock.mdb` of LMDB, and `store.lock` of our own.

    `env` is used under `read_txn` and `write_txn` only, so that it can be replaced and grown.

    Raises:
        StoreError: the directory is held by another process, damaged, of a newer xorbit, or the
            disk failed.
    """

    def __init__(self, path: Path, quota_bytes: int, clock: Callable[[], float] = time) -> None:
        self.path = path
        self._clock = clock
        self._data = path / "data.mdb"
        self._map_bytes = MAP_BYTES_MIN + MAP_PER_QUOTA * quota_bytes
        self._map_bytes_max = self._map_bytes * MAP_GROWTH_MAX
        self._reading = Lock()  # held while pages are looked at: the map must not move then
        self._viewed_bytes = 0  # also under `_reading`: two threads count
        self._resident_before = resident_file_bytes()
        self._lock = self._take()
        self._open_now = False
        try:
            self._check()
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    # --- Transactions ---------------------------------------------------------------------------

    @contextmanager
    def read_txn(self) -> Generator["lmdb.Transaction[bytes]"]:
        """Give a read transaction over the items, for as short as it takes to copy them out.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        try:
            with self._reading, self._begin(write=False) as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreError(f"reading the store in {self.path} failed: {error}") from error

    def write_txn(self) -> "lmdb.Transaction[bytes]":
        """Give the one write transaction over the items; it commits when its `with` ends well.

        Raises:
            StoreError: the store is closed, or could not be opened again after a failure.
        """
        if not self._open_now and self._lock >= 0:
            self.reopen()
        return self._begin(write=True)

    def _begin(self, *, write: bool) -> "lmdb.Transaction[bytes]":
        if not self._open_now:
            raise StoreError(f"the store in {self.path} is closed")
        return self._env.begin(db=self._items, write=write)

    def count(self, txn: "lmdb.Transaction[bytes]") -> tuple[int, int]:
        """Return how many items and bytes there are, both as exact as the transaction."""
        held = txn.get(_BYTES_KEY, db=self._meta) or b""
        return txn.stat(self._items)["entries"], int.from_bytes(held, "big")

    def set_bytes(self, txn: "lmdb.Transaction[bytes]", held: int) -> None:
        """Note in this transaction how many bytes there are (LMDB counts the items itself)."""
        txn.put(_BYTES_KEY, max(held, 0).to_bytes(8, "big"), db=self._meta)

    def tend(self, order: Order, txn: "lmdb.Transaction[bytes]") -> Told:
        """Do an order on what is kept within a transaction."""
        return tend(order, LmdbTable(txn, self.roots), LmdbTable(txn, self.pins), self._clock())

    # --- Growing, mending, closing --------------------------------------------------------------

    def grow(self) -> bool:
        """Double the bound of the file; return False when it may not grow further."""
        wanted = self._env.info()["map_size"] * 2
        if wanted > self._map_bytes_max:
            return False
        with self._reading:
            self._lay_map(wanted)
        self._map_bytes = wanted
        return True

    def viewed(self, lookups: int) -> bool:
        """Note that so many items were looked for in the map; return whether `refresh` is due."""
        with self._reading:
            self._viewed_bytes += lookups * VIEWED_PER_LOOKUP_BYTES
            return self._viewed_bytes > VIEWED_BYTES_MAX

    def refresh(self) -> None:
        """Lay the map anew when that is due, so that what was read weighs on us no longer.

        It stays in the system's page cache. As for `grow`, no write may be under way. When the
        system refuses (no memory), reads say that the store is closed until a write opens it.
        """
        with self._reading, suppress(lmdb.Error):
            if not self._open_now or self._viewed_bytes <= VIEWED_BYTES_MAX:
                return
            if resident_file_bytes() - self._resident_before <= VIEWED_BYTES_MAX:
                self._viewed_bytes = 0  # what was looked at lay close together
            else:
                self._lay_map(self._env.info()["map_size"])

    def _lay_map(self, size: int) -> None:
        try:
            self._env.set_mapsize(size)
        except lmdb.Error:  # the old map is gone already: the next write opens it all anew
            self._open_now = False
            self._env.close()
            raise
        self._viewed_bytes = 0

    def reopen(self) -> None:
        """Open the environment anew: LMDB refuses everything once writing a root failed.

        Raises:
            StoreError: it cannot be opened now; the next write tries again.
        """
        with self._reading:
            self._open_now = False
            self._env.close()
            self._viewed_bytes = 0
            self._open()

    def free_bytes(self) -> int:
        """Return how many bytes the file system still has for us (0 if it does not say)."""
        try:
            stat = os.statvfs(self.path)
        except OSError:
            return 0
        return stat.f_bavail * stat.f_frsize

    def close(self) -> None:
        """Close the environment, note that this was done in order, and let the next one in."""
        with self._reading:
            if self._lock < 0:
                return
            self._open_now = False
            self._env.close()
            with suppress(OSError):  # without the note the next opening checks the file: no harm
                self._note(self._fingerprint())
            os.close(self._lock)
            self._lock = -1

    # --- Opening --------------------------------------------------------------------------------

    def _take(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open a store in {self.path}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StoreError(
                f"the store in {self.path} is in use by another process: stop that node first, "
                "or give this one another --home; a program reaches that node by "
                "xorbit.open_client or, with asyncio, xorbit.connect"
            ) from None
        return lock

    def _check(self) -> None:
        """Look through the file's pages unless it lies just as we left it.

        LMDB believes what its pages say, and a wrong page number there ends the interpreter. The
        check reads pages without LMDB. It takes about 0.2 s for a GiB of blocks.
        """
        note = os.pread(self._lock, 100, 0).decode(errors="replace")
        if not self._data.exists() or (note and note == self._fingerprint()):
            return
        if not note and not self._data.stat().st_size:
            return  # making it was cut short before anything was acknowledged
        try:
            problems: list[str] = verify(str(self._data))  # pyright: ignore[reportUnknownVariableType]
        except (VerifyError, OSError, struct.error) as error:
            problems = [str(error)]
        if problems:
            raise StoreError(
                f"the store's file {self._data} is damaged ({problems[0]}): "
                f"move {self.path} away and start again with an empty store"
            )

    def _open(self) -> None:
        try:
            self._open_environment()
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"cannot open the store in {self.path}: {error}") from error
        with suppress(OSError):  # a full disk; the note then says nothing, and the file is checked
            self._note(_IN_USE)

    def _open_environment(self) -> None:
        self._env = lmdb.open(
            os.fsencode(self.path), map_size=self._map_bytes, max_dbs=8, mode=0o600
        )
        try:
            with self._env.begin(write=True) as txn:
                self._meta = self._env.open_db(b"meta", txn)
                self._items = self._env.open_db(b"items", txn)
                self.contacts = self._env.open_db(b"contacts", txn)
                self.times = self._env.open_db(b"times", txn)
                self.pins = self._env.open_db(b"pins", txn)
                self.roots = self._env.open_db(b"roots", txn)
                self._check_schema(txn)
            self._sync_names()
            self._open_now = True
        finally:
            if not self._open_now:
                self._env.close()

    def _check_schema(self, txn: "lmdb.Transaction[bytes]") -> None:
        raw = txn.get(_SCHEMA_KEY, db=self._meta)
        if raw is None:
            txn.put(_SCHEMA_KEY, SCHEMA.to_bytes(8, "big"), db=self._meta)
            return
        found = int.from_bytes(raw, "big")
        if found not in (1, 2, SCHEMA):
            raise StoreError(
                f"the store in {self.path} has schema {found}, this xorbit knows {SCHEMA}: "
                "use the xorbit that wrote it, or give this one another --home"
            )
        if found == 1:
            self._add_times(txn)
        if found == 2:
            self._add_roots(txn)
        if found != SCHEMA:
            txn.put(_SCHEMA_KEY, SCHEMA.to_bytes(8, "big"), db=self._meta)

    def _add_times(self, txn: "lmdb.Transaction[bytes]") -> None:
        stamp = stamp_of(self._clock())
        with txn.cursor(self._items) as cursor:
            for raw_key in cursor.iternext(keys=True, values=False):
                txn.put(raw_key, stamp, db=self.times)

    def _add_roots(self, txn: "lmdb.Transaction[bytes]") -> None:
        roots, pins, items = (LmdbTable(txn, db) for db in (self.roots, self.pins, self._items))
        adopt(roots, pins, items, self._clock())

    def _sync_names(self) -> None:
        """Make the files' names durable, not only their bytes."""
        for directory in (self.path, self.path.parent):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _fingerprint(self) -> str:
        stat = self._data.stat()
        return f"closed {stat.st_size} {stat.st_mtime_ns}"

    def _note(self, text: str) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)


def stamp_of(when: float) -> bytes:
    """Return a time of the wall clock as it stands on disk; only ages are ever read from it."""
    return int(min(max(0.0, when), _STAMP_S_MAX)).to_bytes(8, "big")


def resident_file_bytes() -> float:
    """Return how many bytes of files are mapped into this process and in memory; inf if unknown."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read often: a Path is slow
            return int(statm.read().split()[2]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return float("inf")
