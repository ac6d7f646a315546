"""Watches every step of a world: the trace hash, the messages of single works, what must be so.

After a step the invariants hold and no line of the queue is overfull; "stored" is said only of what
is on disk, and a disk never goes back to an older version; a contact enters a table only by a
connection that we dialled, and only such are named to others. Changes nothing that happens. What it
finds wrong it keeps as a sentence, with the time and the node (`faults`). What can be judged only
in the end is the business of judge.py.
"""

from collections.abc import Sequence
from struct import Struct
from typing import get_args

from blake3 import blake3

from xorbit.core import effect as fx
from xorbit.core.check import check
from xorbit.core.job import ConnectionOpened, HandleRequest, HandleResponse, Job, StoreDropped
from xorbit.ids import Guid
from xorbit.items import Contact, Item, ItemKey, Kind, Record, key_of, version
from xorbit.sim.history import holds
from xorbit.sim.node import SimNode
from xorbit.sim.world import World
from xorbit.wire.message import Closest, Found, Refused, Request, Store, Stored

FAULTS_MAX = 100
LINE_SLACK_JOBS = 8
"""What a line may hold besides frames: its connection came, was lost, was dialled."""
_STEP = Struct("<dBI")
_FLUSH_BYTES = 4_096
_KINDS: dict[type[Job], int] = {kind: number for number, kind in enumerate(get_args(Job))}


class _Trace:
    """What one node did."""

    __slots__ = ("_hash", "_unhashed", "steps")

    def __init__(self, number: int) -> None:
        self.steps = number
        """How many; each node begins elsewhere, so that not all are checked at the same ones."""
        self._hash = blake3()
        self._unhashed = bytearray()

    def add(self, now: float, job: Job, effects: int) -> None:
        self.steps += 1
        self._unhashed += _STEP.pack(now, _KINDS[type(job)], effects)
        guid = getattr(job, "guid", None)
        if guid is not None:
            self._unhashed += guid
        if len(self._unhashed) > _FLUSH_BYTES:
            self.digest()

    def digest(self) -> bytes:
        self._hash.update(self._unhashed)
        self._unhashed.clear()
        return self._hash.digest()


class Observer:
    """One watcher for all that is to be known of a run."""

    def __init__(self, world: World, check_every: int = 1) -> None:
        """Watch a world from now on.

        Args:
            world: what to watch.
            check_every: the invariants are held after every so manieth step of a node; 0: never.
        """
        self.steps = 0
        self.faults: list[tuple[float, str]] = []
        """What was wrong, and when."""
        self.messages: dict[Guid, int] = {}
        """How many questions were sent, and answers came, for each work that is counted."""
        self.written: dict[ItemKey, dict[int, None]] = {}
        """Which nodes ever had a block or a record written to disk."""
        self.dropped_at: dict[ItemKey, float] = {}
        """When an honest node last dropped one of them."""
        self._stores: dict[tuple[int, Guid, Guid], Item] = {}
        """What peers have asked to be stored, by node, connection and exchange, until it is."""
        self._versions: dict[tuple[int, ItemKey], tuple[int, bytes]] = {}
        """Which version of a record each node last held."""
        self._contacts: dict[int, int] = {}
        """How many contacts each node had after its last step."""
        self._world = world
        self._check_every = check_every
        self._traces: dict[int, _Trace] = {}
        world.watchers.append(self._saw)

    def count(self, work: Guid) -> None:
        """Count the messages of a work."""
        self.messages[work] = 0

    def fault(self, text: str) -> None:
        """Keep what was found wrong."""
        if len(self.faults) < FAULTS_MAX:
            now = self._world.clock.now
            self.faults.append((now, f"at {now:.3f} s: {text}"))

    def traces(self) -> dict[int, bytes]:
        """Return a hash of every step of each node so far: when, which job, how many effects."""
        return {number: trace.digest() for number, trace in self._traces.items()}

    def _saw(self, node: SimNode, job: Job, effects: Sequence[fx.Effect]) -> None:
        self.steps += 1
        trace = self._traces.get(node.number)
        if trace is None:
            trace = self._traces[node.number] = _Trace(node.number)
        trace.add(self._world.clock.now, job, len(effects))
        if type(job) is HandleRequest:
            if type(job.request) is Store:
                self._stores[node.number, job.connection, job.guid] = job.request.item
        elif type(job) is HandleResponse and job.work in self.messages:
            self.messages[job.work] += 1
        elif type(job) is StoreDropped and node.liar is None:
            self.dropped_at.update(dict.fromkeys(job.keys, self._world.clock.now))
        for effect in effects:
            if type(effect) is fx.Send:
                self._sent(node, effect)
            elif type(effect) is fx.WriteStore and effect.key.kind is not Kind.CONNECTION:
                self.written.setdefault(effect.key, {})[node.number] = None
                self._watch_version(node, effect.key)
        self._watch_table(node, job)
        if self._check_every and trace.steps % self._check_every == 0:
            self._check(node, effects)

    def _sent(self, node: SimNode, effect: fx.Send) -> None:
        envelope = effect.envelope
        if isinstance(envelope.body, Request) and envelope.work in self.messages:
            self.messages[envelope.work] += 1
        if type(envelope.body) is Stored or type(envelope.body) is Refused:
            asked = node.number, effect.connection, envelope.guid
            item = self._stores.pop(asked, None)
            if item is None or node.disk.forgets or type(envelope.body) is Refused:
                return
            self._watch_version(node, key_of(item))
            if not holds(node, key_of(item), item):
                self.fault(f"node {node.number} said that it stored what is not on its disk")

    def _watch_version(self, node: SimNode, key: ItemKey) -> None:
        """What a disk holds under a key never gets older."""
        held = node.disk.store.peek(key)
        if not isinstance(held, Record):
            self._versions.pop((node.number, key), None)
            return
        before = self._versions.get((node.number, key), (0, b""))
        now = self._versions[node.number, key] = version(held)
        if now < before:
            self.fault(f"node {node.number} has let version {now[0]} replace version {before[0]}")

    def _watch_table(self, node: SimNode, job: Job) -> None:
        """A contact enters by proof only: a connection to it that the node itself dialled."""
        before, now = self._contacts.get(node.number, 0), len(node.machine.state.table)
        if before == now:
            return
        self._contacts[node.number] = now
        if now > before and not (type(job) is ConnectionOpened and job.dial is not None):
            self.fault(f"node {node.number} took in a contact that proved nothing")

    def _check(self, node: SimNode, effects: Sequence[fx.Effect]) -> None:
        try:
            check(node.machine.state)
        except AssertionError as error:
            self.fault(f"node {node.number} broke its promise: {error}")
        for line, count in node.queue.lengths().items():
            if type(line) is bytes and count > node.limits.line_jobs_max + LINE_SLACK_JOBS:
                self.fault(f"node {node.number} has {count:,} jobs in the line of one connection")
        for effect in effects:
            if type(effect) is fx.Send:
                self._check_named(node, effect)

    def _check_named(self, node: SimNode, effect: fx.Send) -> None:
        """Only contacts that are proved, and have not failed since, are named to others."""
        body, table = effect.envelope.body, node.machine.state.table
        named: tuple[Contact, ...] = ()
        if type(body) is Closest:
            named = body.contacts
        elif type(body) is Found:
            named = body.closer
        entries = (table.get(contact.id) for contact in named)
        if any(entry is None or entry.failures for entry in entries):
            self.fault(f"node {node.number} handed on a contact that fails or is not proved")
