"""A simulated disk under a store in memory: slow, full, and torn by a crash.

What waits is committed together, as by the driver (group commit), and only then answered. A crash
loses what was not committed; what was committed but not yet answered stays, as after a power cut
between the commit and the acknowledgement.
"""

from collections.abc import Callable, Sequence
from random import Random

from xorbit import disk
from xorbit.core.job import Job
from xorbit.disk import DiskEffect
from xorbit.sim.clock import Clock
from xorbit.store.memory import MemoryStore

READ_S = 0.0002
COMMIT_S = 0.003
COMMITTED_SHARE = 0.5
"""How often a commit that a crash interrupts was on disk already, though nobody was told."""


NO_ROOM = "no space left on device"
_SCRATCH_BYTES = 2**30


class Disk:
    """One node's disk."""

    __slots__ = (
        "_busy",
        "_clock",
        "_done",
        "_life",
        "_reads",
        "_rng",
        "_writes",
        "forgets",
        "full",
        "slow",
        "store",
    )

    def __init__(
        self, clock: Clock, rng: Random, store: MemoryStore, done: Callable[[Job], None]
    ) -> None:
        """Keep things in `store`, and hand the jobs of finished effects to `done`."""
        self._clock = clock
        self._rng = rng
        self.store = store
        self._done = done
        self.slow = 1.0
        """How many times slower than usual it is."""
        self.forgets = False
        """Whether it says that it wrote, and keeps nothing: a liar's."""
        self.full = False
        """Whether its file system has no room left."""
        self._reads: list[DiskEffect] = []
        self._writes: list[DiskEffect] = []
        self._busy = False
        self._life = 0

    def perform(self, effect: DiskEffect) -> None:
        """Start an effect; its job comes later."""
        if disk.is_write(effect):
            self._writes.append(effect)
            if not self._busy:
                self._busy = True
                self._clock.after(COMMIT_S * self.slow, self._commit, self._life)
        else:
            self._reads.append(effect)
            if len(self._reads) == 1:
                self._clock.after(READ_S * self.slow, self._read, self._life)

    def crash(self) -> None:
        """Lose what is not committed; by chance, the commit in progress still made it."""
        if self._writes and not self.full and self._rng.random() < COMMITTED_SHARE:
            disk.write(self.store, self._writes)
        self._life += 1
        self._reads, self._writes, self._busy = [], [], False

    def _read(self, life: int) -> None:
        if life != self._life:
            return
        batch, self._reads = self._reads, []
        for job in disk.read(self.store, batch):
            self._done(job)

    def _commit(self, life: int) -> None:
        if life != self._life:
            return
        batch, self._writes = self._writes, []
        self._busy = False
        for job in self._write(batch):
            self._done(job)

    def _write(self, batch: Sequence[DiskEffect]) -> Sequence[Job]:
        if self.full:
            return [job for effect in batch for job in disk.give_up(effect, NO_ROOM)]
        return disk.write(MemoryStore(_SCRATCH_BYTES) if self.forgets else self.store, batch)
