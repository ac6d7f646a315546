"""Watches every step of a world: the trace hash, the invariants, the messages of single works.

Changes nothing that happens. What it finds wrong it keeps as a sentence, with the time and the node
(`faults`); a handler that raises ends the run by itself.
"""

from collections.abc import Sequence
from struct import Struct

from blake3 import blake3

from xorbit.core import effect as fx
from xorbit.core.check import check
from xorbit.core.job import Job
from xorbit.ids import Guid
from xorbit.sim.node import SimNode
from xorbit.sim.world import World

FAULTS_MAX = 100
_STEP = Struct("<dIBI")
_FLUSH_BYTES = 65_536


class Observer:
    """One watcher for all that is to be known of a run."""

    def __init__(self, world: World, check_every: int = 1) -> None:
        """Watch a world from now on.

        Args:
            world: what to watch.
            check_every: the invariants are held after every so manieth step; 0: never.
        """
        self.steps = 0
        self.faults: list[str] = []
        self.jobs: dict[str, int] = {}
        """How many jobs of each kind have been stepped."""
        self.messages: dict[Guid, int] = {}
        """How many messages were sent for each work that is counted (see `count`)."""
        self._world = world
        self._check_every = check_every
        self._hash = blake3()
        self._unhashed = bytearray()
        self._kinds: dict[type[Job], int] = {}
        world.watchers.append(self._saw)

    def count(self, work: Guid) -> None:
        """Count the messages that are sent for a work, wherever."""
        self.messages[work] = 0

    def fault(self, text: str) -> None:
        """Keep what was found wrong."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(f"at {self._world.clock.now:.3f} s: {text}")

    @property
    def trace_hash(self) -> str:
        """A hash of every step so far: when, which node, which job, how many effects."""
        self._flush()
        return self._hash.hexdigest(length=16)

    def _saw(self, node: SimNode, job: Job, effects: Sequence[fx.Effect]) -> None:
        self.steps += 1
        kind = self._kinds.setdefault(type(job), len(self._kinds))
        now = self._world.clock.now
        self._unhashed += _STEP.pack(now, node.number, kind, len(effects))
        guid = getattr(job, "guid", None)
        if guid is not None:
            self._unhashed += guid
        if len(self._unhashed) > _FLUSH_BYTES:
            self._flush()
        if self.messages:
            for effect in effects:
                if type(effect) is fx.Send and effect.envelope.work in self.messages:
                    self.messages[effect.envelope.work] += 1
        if self._check_every and self.steps % self._check_every == 0:
            self._check(node)

    def _check(self, node: SimNode) -> None:
        try:
            check(node.machine.state)
        except AssertionError as error:
            self.fault(f"node {node.number} broke its promise: {error}")

    def _flush(self) -> None:
        self._hash.update(self._unhashed)
        self._unhashed.clear()
