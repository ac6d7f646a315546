"""The simulated world: virtual time, the nodes in it, and the way between them.

    world = World(seed=7)
    for _ in range(100):
        world.join(world.add())
    world.run(60.0)

One seed decides everything, however many processes share the world (shards.py): all of them know
all nodes and what the story does to each, and each moves those that are `here`. What the story
needs to know of a node's inside goes round as news, at the end of each window of time.

`watchers` see every step (the checker and the trace hash are watchers); `loggers` see each job
before it is stepped, whatever comes of it. Knows the network, the
disks and the bodies of nodes; what is done to a world, and what is counted there, is the business
of others.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from math import inf
from random import Random

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, Record
from xorbit.sim.clock import Clock
from xorbit.sim.network import JITTER, LOOKAHEAD_S, Faults, place
from xorbit.sim.node import NETWORK, End, SimNode
from xorbit.sim.shards import ALONE, Shards
from xorbit.wire.message import Closest, Envelope

Watcher = Callable[[SimNode, Job, Sequence[fx.Effect]], None]
Logger = Callable[[SimNode, Job], None]
_Going = tuple[float, int, str, tuple[object, ...]]
"""When something happens to which node of another shard, what, and with what."""
_News = tuple[float, int, str, tuple[object, ...]]
"""When something became so of which node, what that is about, and what it is."""


class World:
    """Virtual time and the nodes in it."""

    def __init__(
        self, seed: int | str, limits: Limits = DEFAULT_LIMITS, shards: Shards = ALONE
    ) -> None:
        """Make an empty world.

        Args:
            seed: decides everything that is left to chance.
            limits: those of every node.
            shards: the processes that share it.
        """
        self.seed = seed
        self.limits = limits
        self.shards = shards
        self.clock = Clock()
        self.rng = Random(f"{seed} world")
        """The story's: drawn from by all shards alike."""
        self.faults = Faults()
        self.nodes: list[SimNode] = []
        self.by_address: dict[Address, SimNode] = {}
        self.by_id: dict[Id, SimNode] = {}
        self.watchers: list[Watcher] = []
        self.loggers: list[Logger] = []
        self.following: dict[Guid, Callable[[Record], None]] = {}
        """Who hears the versions of a record that some node follows."""
        self.messages_lost = 0
        """Of those that nodes of this shard sent."""
        self.hearers: dict[str, Callable[..., None]] = {"joined": _note_joined}
        """Who takes in news, by what they are about."""
        self._going: list[_Going] = []
        self._news: list[_News] = []
        self._named: dict[Contact, Contact] = {}
        """The contacts that nodes of other shards have named."""
        self._bounds: list[Id] = []
        """Where in the keyspace the next shard begins."""

    # --- Time -------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(self.clock.now + seconds)

    def run_until(self, until: float) -> None:
        """Let everything happen that is planned up to a time; then it is that time."""
        while (begin := self._meet()) <= until:
            self.clock.run_until(min(begin + LOOKAHEAD_S, until))
        self.clock.run_until(until)

    def _meet(self) -> float:
        """Exchange with the other shards what goes there; return when the next thing happens."""
        mine = self._going, self._news, self.clock.next_at()
        self._going, self._news = [], []
        earliest = inf
        all_news: list[_News] = []
        for going, news, next_at in self.shards.gather(mine):
            earliest = min(earliest, next_at)
            all_news += news
            for when, number, what, args in going:
                assert when >= self.clock.now, "it takes longer than a window"
                earliest = min(earliest, when)
                if self.nodes[number].here:
                    self.clock.at(when, getattr(self.nodes[number], what), *args)
        all_news.sort(key=lambda one: one[:2])
        for _, number, what, args in all_news:
            self.hearers[what](self.nodes[number], *args)
        return earliest

    def tell(self, node: SimNode, what: str, *args: object) -> None:
        """Let all shards know something of a node, at the end of this window."""
        self._news.append((self.clock.now, node.number, what, args))

    def post(self, when: float, node: SimNode, what: str, *args: object) -> None:
        """Let something happen to a node, no sooner than a message's way from now."""
        if node.here:
            self.clock.at(when, getattr(node, what), *args)
        else:
            self._going.append((when, node.number, what, args))

    # --- Nodes ------------------------------------------------------------------------------------

    def is_here(self, point: Id) -> bool:
        """Return whether a node with this id is of this shard.

        Those with close ids have most to say to each other, and so are of one.
        """
        return bisect(self._bounds, point) == self.shards.number

    def share_out(self) -> None:
        """Give each shard as many of the nodes; none of them may have lived yet."""
        ids, count = sorted(self.by_id), self.shards.count
        if ids:
            self._bounds = [ids[number * len(ids) // count] for number in range(1, count)]
        for node in self.nodes:
            node.here = self.is_here(node.id)

    def add(self, own: Id | None = None) -> SimNode:
        """Add a node that is not yet born; `own` is an id for it that no key gives."""
        node = SimNode(self, len(self.nodes), self.limits, place(self.rng), own)
        self.nodes.append(node)
        self.by_address[node.address] = node
        self.by_id[node.id] = node
        return node

    def join(self, node: SimNode) -> None:
        """Let a node be born and join through any two that live."""
        if node.alive:
            return
        addresses = tuple(other.address for other in self._ways_in(node))
        node.start(listen=node.keeps)
        node.call(lambda guid: jobs.Bootstrap(guid, addresses))

    def revive(self, node: SimNode) -> None:
        """Let a node come back with its disk; without saved contacts it is shown a way."""
        node.start(listen=node.keeps)
        others = tuple(other.address for other in self._ways_in(node))
        if not node.disk.store.load_contacts(NETWORK):
            node.call(lambda guid: jobs.Bootstrap(guid, others))

    def _ways_in(self, newcomer: SimNode) -> list[SimNode]:
        """Return any two that live, one of them honest: who meets liars only is beyond help."""
        found = self.some_alive(2, but=newcomer)
        if found and all(node.liar for node in found):
            able = (node for node in self.nodes if node.can_be_dialled)
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
            if node.can_be_dialled and node is not but:
                found[node.number] = node
            if len(found) == count:
                break
        else:
            able = (n for n in self.nodes if n.can_be_dialled and n is not but)
            found.update({node.number: node for node, _ in zip(able, range(count), strict=False)})
        return list(found.values())[:count]

    # --- The way between them ---------------------------------------------------------------------

    def arrival(self, sender: SimNode, end: End) -> float | None:
        """Return when something sent now arrives, or None where nothing passes."""
        if self.faults.parted(sender.number, end.other.number):
            return None
        delay_s = end.delay_s * (1 + JITTER * sender.rng.random())
        return max(self.clock.now + delay_s, end.arrives_at)

    def carry(self, sender: SimNode, end: End, envelope: Envelope, data: bytes, size: int) -> None:
        """Let a frame travel, with all that may happen to it on the way."""
        faults, chance = self.faults, sender.rng.random
        delay_s = end.delay_s * (1 + JITTER * chance())
        leaves = sender.leaves_at(size) + sender.lag_s
        arrives = end.arrives_at = max(leaves + delay_s, end.arrives_at)
        if not faults.any:
            self._deliver(arrives, end, envelope, data, size)
            return
        if faults.parted(sender.number, end.other.number) or chance() < faults.loss:
            self.messages_lost += 1
            return
        if chance() < faults.overtake:
            arrives += faults.late_s * chance()
        self._deliver(arrives, end, envelope, data, size)
        if chance() < faults.repeat:
            self._deliver(arrives + delay_s * chance(), end, envelope, data, size)

    def _deliver(self, when: float, end: End, envelope: Envelope, data: bytes, size: int) -> None:
        receiver = end.other
        if receiver.here:
            self.clock.at(when, receiver.receive, end.there, envelope, size)
        else:
            self._going.append((when, receiver.number, "receive_bytes", (end.there, data)))

    def as_here(self, envelope: Envelope) -> Envelope:
        """Let a message from another shard name contacts by objects that all nodes here share.

        What a node has heard of is most of what it remembers; each with its own takes half as much
        memory again.
        """
        match envelope.body:
            case Closest(contacts):
                shared = Closest(tuple(map(self._named.setdefault, contacts, contacts)))
                return Envelope(envelope.guid, envelope.work, shared)
            case _:
                return envelope

    # --- What happens there -----------------------------------------------------------------------

    def will_step(self, node: SimNode, job: Job) -> None:
        """Show a job to all who write down what nodes are about to do."""
        for log in self.loggers:
            log(node, job)

    def saw(self, node: SimNode, job: Job, effects: Sequence[fx.Effect]) -> None:
        """Show a step to all who watch."""
        for watch in self.watchers:
            watch(node, job, effects)

    def pushed(self, node: SimNode, guid: Guid, record: Record) -> None:
        """Hand a newer version to whoever follows that record on that node."""
        del node
        if guid in self.following:
            self.following[guid](record)


def _note_joined(node: SimNode, life: int, joined: bool) -> None:
    if life == node.life:
        node.joined = joined
