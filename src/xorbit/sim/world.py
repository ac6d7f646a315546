"""The simulated world: virtual time, the nodes in it, and the way between them.

    world = World(seed=7)
    nodes = world.grow(100)
    world.clock.run(60.0)

One seed decides everything. `watchers` see every step (the checker and the trace hash are
watchers). Knows the network, the disks and the bodies of nodes; what is done to a world, and
what is counted there, is the business of others.
"""

from collections.abc import Callable, Sequence
from random import Random

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.ids import Guid, Id
from xorbit.items import Address, Record
from xorbit.sim.clock import Clock
from xorbit.sim.network import JITTER, Faults, one_way_s, place
from xorbit.sim.node import NETWORK, ROUND_TRIPS_PER_DIAL, End, SimNode
from xorbit.wire.message import Envelope

Watcher = Callable[[SimNode, Job, Sequence[fx.Effect]], None]


class World:
    """Virtual time and the nodes in it."""

    def __init__(self, seed: int | str, limits: Limits = DEFAULT_LIMITS) -> None:
        """Make an empty world.

        Args:
            seed: decides everything that is left to chance.
            limits: those of every node, unless it is given others.
        """
        self.seed = seed
        self.limits = limits
        self.clock = Clock()
        self.rng = Random(f"{seed} world")
        self.faults = Faults()
        self.nodes: list[SimNode] = []
        self.by_address: dict[Address, SimNode] = {}
        self.by_id: dict[Id, SimNode] = {}
        self.watchers: list[Watcher] = []
        self.following: dict[Guid, Callable[[Record], None]] = {}
        """Who hears the versions of a record that some node follows."""
        self.messages_lost = 0

    # --- Nodes ------------------------------------------------------------------------------------

    def add(self, limits: Limits | None = None, own: Id | None = None) -> SimNode:
        """Add a node that is not yet born; `own` is an id for it that no key gives."""
        node = SimNode(self, len(self.nodes), limits or self.limits, place(self.rng), own)
        self.nodes.append(node)
        self.by_address[node.address] = node
        self.by_id[node.id] = node
        return node

    def grow(self, count: int, within_s: float = 0.0) -> list[SimNode]:
        """Add so many nodes; each is born at a time of its own and joins through one alive."""
        nodes = [self.add() for _ in range(count)]
        for node in nodes:
            self.clock.after(within_s * self.rng.random(), self.join, node)
        return nodes

    def join(self, node: SimNode, by: SimNode | None = None) -> None:
        """Let a node be born and join through another, or through any two that live."""
        if node.alive:
            return
        others = [by] if by is not None else self._ways_in(node)
        node.start(listen=node.keeps)
        addresses = tuple(other.address for other in others)
        node.call(lambda guid: jobs.Bootstrap(guid, addresses))

    def revive(self, node: SimNode) -> None:
        """Let a node come back with its disk; without saved contacts it is shown a way."""
        node.start(listen=node.keeps)
        if not node.disk.store.load_contacts(NETWORK):
            others = tuple(other.address for other in self._ways_in(node))
            node.call(lambda guid: jobs.Bootstrap(guid, others))

    def _ways_in(self, newcomer: SimNode) -> list[SimNode]:
        """Return any two that live, one of them honest: who meets liars only is beyond help."""
        found = self.some_alive(2, but=newcomer)
        if found and all(node.liar for node in found):
            able = (node for node in self.nodes if node.alive and not node.natted)
            honest = [node for node in able if node.liar is None and node is not newcomer]
            found[:1] = [self.rng.choice(honest)] if honest else found[:1]
        return found

    def alive(self) -> list[SimNode]:
        """Return the nodes that live."""
        return [node for node in self.nodes if node.alive]

    def some_alive(self, count: int, but: SimNode | None = None) -> list[SimNode]:
        """Return a few living nodes that can be dialled, by chance; fewer where there are fewer."""
        found: dict[int, SimNode] = {}
        for _ in range(16 * count):
            node = self.rng.choice(self.nodes)
            if node.alive and not node.natted and node is not but:
                found[node.number] = node
            if len(found) == count:
                break
        else:
            able = (n for n in self.nodes if n.alive and not n.natted and n is not but)
            found.update({node.number: node for node, _ in zip(able, range(count), strict=False)})
        return list(found.values())[:count]

    # --- The way between them ---------------------------------------------------------------------

    def arrival(self, sender: SimNode, receiver: SimNode, not_before: float) -> float | None:
        """Return when something sent now arrives, or None where nothing passes."""
        if self.faults.parted(sender.number, receiver.number):
            return None
        delay_s = one_way_s(sender.place, receiver.place) * (1 + JITTER * self.rng.random())
        return max(self.clock.now + delay_s, not_before)

    def carry(self, sender: SimNode, end: End, envelope: Envelope, size: int) -> None:
        """Let a frame travel, with all that may happen to it on the way."""
        receiver, clock, faults = end.other, self.clock, self.faults
        delay_s = end.delay_s * (1 + JITTER * self.rng.random())
        leaves = sender.leaves_at(size) + sender.lag_s
        arrives = end.arrives_at = max(leaves + delay_s, end.arrives_at)
        if not faults.any:
            clock.at(arrives, receiver.receive, receiver.life, end.there, envelope, size)
            return
        if faults.parted(sender.number, receiver.number) or self.rng.random() < faults.loss:
            self.messages_lost += 1
            return
        if self.rng.random() < faults.overtake:
            arrives += faults.late_s * self.rng.random()
        clock.at(arrives, receiver.receive, receiver.life, end.there, envelope, size)
        if self.rng.random() < faults.repeat:
            again = arrives + delay_s * self.rng.random()
            clock.at(again, receiver.receive, receiver.life, end.there, envelope, size)

    def knock(self, node: SimNode, address: Address, dial: fx.Dial) -> tuple[float, str]:
        """Return how long it takes to dial an address, and why it fails ("" where it does not)."""
        other = self.by_address.get(address)
        timeout_s = node.limits.dial_timeout_s
        if other is node:
            return 0.001, "it is ourselves"
        if other is None or other.natted or self.faults.parted(node.number, other.number):
            return timeout_s, "timed out"
        if self.faults.parted(other.number, node.number):
            return timeout_s, "timed out"
        round_trip_s = 2 * one_way_s(node.place, other.place)
        if not other.listening:
            return round_trip_s, "connection refused"
        if dial.expected not in (None, other.id):
            why = f"another id answered: {other.id.hex()}"
            return ROUND_TRIPS_PER_DIAL * round_trip_s, why
        return ROUND_TRIPS_PER_DIAL * round_trip_s, ""

    # --- What happens there -----------------------------------------------------------------------

    def saw(self, node: SimNode, job: Job, effects: Sequence[fx.Effect]) -> None:
        """Show a step to all who watch."""
        for watch in self.watchers:
            watch(node, job, effects)

    def pushed(self, node: SimNode, guid: Guid, record: Record) -> None:
        """Hand a newer version to whoever follows that record on that node."""
        del node
        if guid in self.following:
            self.following[guid](record)
