"""Performs the machine's disk effects: writes off the event loop, many in one commit.

While one commit is being written, all writes that arrive wait and form the next one (group commit);
the busier the node, the larger its commits. Reads are done on the spot as long as they come from
the page cache, where handing one to a thread and back costs more than the read. One that the system
had to fetch from the disk (a major page fault) sends those that follow to a thread of their own for
a while, so that a cold disk does not hold up the loop. Every effect comes back as exactly one job,
a write's only after its commit is durable. What a store must not raise is a bug of ours that a peer
may have found: it costs the effect that met it, never the node.
"""

import asyncio
import resource
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from xorbit import disk
from xorbit.config import BATCH_BYTES_MAX, BATCH_EFFECTS_MAX, READ_ELSEWHERE_S
from xorbit.core.effect import Report, SaveContacts, WriteStore
from xorbit.core.job import Job
from xorbit.disk import DiskEffect, is_write
from xorbit.errors import StoreError
from xorbit.items import Contact, size_of
from xorbit.store.base import Store


class _Desk:
    """A line of effects, worked off in batches by one thread, one batch at a time."""

    def __init__(
        self,
        name: str,
        perform: Callable[[list[DiskEffect]], list[Job]],
        done: Callable[[list[Job]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._perform = perform
        self._done = done
        self._failed = failed
        self._line: deque[DiskEffect] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"xorbit-{name}")
        self._busy = False
        self._closed = False

    def add(self, effect: DiskEffect) -> None:
        self._line.append(effect)
        if not self._busy:
            # What else this turn of the loop brings joins the same batch.
            self._busy = True
            asyncio.get_running_loop().call_soon(self._begin)

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True)

    def _begin(self) -> None:
        if self._closed:
            return  # what still waits was not acknowledged to anybody
        batch = self._take()
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._perform, batch).add_done_callback(self._end)

    def _take(self) -> list[DiskEffect]:
        batch: list[DiskEffect] = []
        size = 0
        while self._line and len(batch) < BATCH_EFFECTS_MAX and size < BATCH_BYTES_MAX:
            effect = self._line.popleft()
            size += size_of(effect.item) if isinstance(effect, WriteStore) else 0
            batch.append(effect)
        return batch

    def _end(self, batch: asyncio.Future[list[Job]]) -> None:
        if batch.cancelled():
            return  # the loop is being torn down
        if (error := batch.exception()) is not None:
            self._failed(error)
            return
        self._busy = bool(self._line)
        if self._busy:
            self._begin()
        self._done(batch.result())


class Storage:
    """The disk, as the driver sees it: effects in, jobs out."""

    def __init__(
        self,
        store: Store,
        done: Callable[[list[Job]], None],
        failed: Callable[[BaseException], None],
        report: Callable[[Report], None],
    ) -> None:
        """Serve effects from `store`.

        Args:
            store: closed by `close`.
            done: called on the event loop with the jobs of a batch.
            failed: called there when a desk can do no more.
            report: called there with what a store must not raise.
        """
        self._store = store
        self._reads = _Desk("read", self._read, self._settle, failed)
        self._writes = _Desk("write", self._write, self._settle, failed)
        self._done = done
        self._report = report
        self._bugs: deque[str] = deque()
        """What the desks have yet to report: they are on threads of their own."""
        self._read_elsewhere_until = 0.0
        self._contacts: deque[tuple[bytes, tuple[Contact, ...]]] = deque(maxlen=1)
        """What is to be saved, and for which network; the latest only."""

    def perform(self, effect: DiskEffect) -> None:
        """Start an effect; its job comes by `done`."""
        if is_write(effect):
            self._writes.add(effect)
        elif monotonic() < self._read_elsewhere_until:
            self._reads.add(effect)
        else:
            self._read_here(effect)

    def save_contacts(self, network: bytes, contacts: tuple[Contact, ...]) -> None:
        """Keep a node's contacts, on the thread of the writes; only the latest matter."""
        self._contacts.append((network, contacts))
        self._writes.add(SaveContacts(contacts))

    def close(self) -> None:
        """Finish what was started, save the contacts, then close the store."""
        self._reads.close()
        self._writes.close()
        self._save_contacts()
        self._store.close()

    def _save_contacts(self) -> None:
        """Write what is to be saved: a loss costs the next start some time, and no more."""
        try:
            self._store.save_contacts(*self._contacts.pop())
        except (IndexError, StoreError):
            pass
        except Exception as error:  # noqa: BLE001 - as in _attempt: they name what peers said
            self._bugs.append(f"SaveContacts: {error!r}")

    def _read_here(self, effect: DiskEffect) -> None:
        faults = disk_faults()
        done = self._read([effect])
        if disk_faults() > faults:
            self._read_elsewhere_until = monotonic() + READ_ELSEWHERE_S
        self._settle(done)

    def _read(self, batch: Sequence[DiskEffect]) -> list[Job]:
        return self._attempt(disk.read, batch)

    def _write(self, batch: Sequence[DiskEffect]) -> list[Job]:
        self._save_contacts()
        return self._attempt(disk.write, batch)

    def _attempt(
        self, do: Callable[[Store, Sequence[DiskEffect]], list[Job]], batch: Sequence[DiskEffect]
    ) -> list[Job]:
        """Do a batch; one by one where that fails by a bug, so that one effect spoils no other."""
        try:
            return do(self._store, batch)
        except Exception as error:  # noqa: BLE001 - a peer may have provoked it: the node goes on
            if len(batch) == 1:
                self._bugs.append(f"{type(batch[0]).__name__}: {error!r}")
                return disk.give_up(batch[0], repr(error))
        return [job for effect in batch for job in self._attempt(do, [effect])]

    def _settle(self, jobs: list[Job]) -> None:
        while self._bugs:
            self._report(Report("error", "a bug in the store", self._bugs.popleft()))
        self._done(jobs)


def disk_faults() -> int:
    """Return how often this thread has waited for the disk because of a page that it looked at."""
    return resource.getrusage(_THIS_THREAD).ru_majflt


# Where the system cannot tell one thread from the others, they count together.
_THIS_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
