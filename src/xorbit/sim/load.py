"""The users of a simulated network: they put and get, publish and resolve, and look nodes up.

Everything is asked of the production machines as a program would ask it, at times by chance; what
came of it goes into the history. All shards ask alike; only the one that moves the node is
answered, and what is acknowledged there goes round as news.
"""

from collections.abc import Callable, Iterator
from random import Random

from nacl.signing import SigningKey

from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.nearest import by_distance
from xorbit.ids import Guid, Id, as_id, as_number, new_guid
from xorbit.items import (
    Block,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    key_of,
    make_block,
    make_record,
)
from xorbit.sim.history import Followed, History, Looked, holds
from xorbit.sim.node import SimNode
from xorbit.sim.observer import Observer
from xorbit.sim.world import World

WRITERS_MAX = 16


class Load:
    """All users of one world."""

    def __init__(self, world: World, observer: Observer, history: History) -> None:
        """Do nothing yet."""
        self.world = world
        self.history = history
        self._observer = observer
        self._rng = Random(f"{world.seed} load")
        self._writers: list[tuple[SigningKey, int]] = []
        """The users who publish, each with the sequence number of the last version."""
        self._ids: list[int] = []
        self._stored: dict[Guid, tuple[ItemKey, Block | Record]] = {}
        """What is being stored, by the call; where its node dies it stays."""
        world.hearers["stored"] = self._note_stored
        self.block_bytes = 0
        """How large the blocks are that are put now; 0: 64 to 1,023 bytes, by chance."""
        self.judged = True
        """Whether what succeeds and fails now counts for the shares of the result."""

    @property
    def _counts_for_all(self) -> bool:
        """Whether what fails with nobody to ask counts, and is to be counted by this shard."""
        return self.judged and self.world.shards.number == 0

    # --- Many, spread over a time ---------------------------------------------------------------

    def spread(self, count: int, over_s: float, do: Callable[[], None]) -> None:
        """Let something happen so often, at times by chance."""
        for _ in range(count):
            self.world.clock.after(over_s * self._rng.random(), do)

    def somebody(self) -> SimNode | None:
        """Return an honest node that lives, by chance."""
        for _ in range(64):
            node = self._rng.choice(self.world.nodes)
            if node.alive and node.liar is None and node.joined:
                return node
        return None

    # --- Items ------------------------------------------------------------------------------------

    def put(self) -> None:
        """Put a block from some node."""
        node = self.somebody()
        if node is None:
            self.history.puts_failed += self._counts_for_all
            return
        size = self.block_bytes or self._rng.randrange(64, 1_024)
        block = make_block(self._rng.randbytes(size))
        self._store(node, block_key(block.data), block)

    def publish(self) -> None:
        """Publish the next version of some writer's record, from some node."""
        node = self.somebody()
        if node is None:
            self.history.puts_failed += self._counts_for_all
            return
        if len(self._writers) < WRITERS_MAX:
            self._writers.append((SigningKey(self._rng.randbytes(32)), 0))
        number = self._rng.randrange(len(self._writers))
        key, before = self._writers[number]
        self._writers[number] = key, before + 1
        record = make_record(key, before + 1, self._rng.randbytes(64))
        self._store(node, key_of(record), record)

    def _store(self, node: SimNode, key: ItemKey, item: Block | Record) -> None:
        judged, guid = self.judged, new_guid(self._rng)
        self._stored[guid] = key, item

        def done(outcome: fx.Outcome) -> None:
            said = outcome.receipts if isinstance(outcome, fx.PutDone) else ()
            takers = [receipt.node for receipt in said if receipt.outcome == "stored"]
            if judged:
                self.history.puts_ok += bool(takers)
                self.history.puts_failed += not takers
            self.world.tell(node, "stored", guid, len(takers))
            if node.id in takers and not holds(node, key, item):
                self._observer.fault(f"node {node.number} counts itself, and its disk has nothing")

        node.call(lambda guid: jobs.Store(guid, key, item), done, guid)

    def _note_stored(self, _: SimNode, guid: Guid, copies: int) -> None:
        key, item = self._stored.pop(guid)
        if copies:
            self.history.note_acknowledged(key, item, copies)

    def get(self) -> None:
        """Get some acknowledged item at some node."""
        node = self.somebody()
        if node is None:
            self.history.gets_failed += self._counts_for_all
        elif self.history.acknowledged:
            self.get_at(node, self._rng.choice(list(self.history.acknowledged)))

    def get_at(
        self, node: SimNode, key: ItemKey, done: Callable[[Item | None], None] | None = None
    ) -> None:
        """Get an item at a node; `done` hears what was found."""
        began, judged = self.world.clock.now, self.judged

        def ended(outcome: fx.Outcome) -> None:
            item = outcome.item if isinstance(outcome, fx.Got) else None
            if item is not None:
                self.history.note_got(node, key, item)
            if judged:
                self.history.gets_ok += item is not None
                self.history.gets_failed += item is None
                if item is not None:
                    self.history.get_s.append(self.world.clock.now - began)
            if done is not None:
                done(item)

        node.call(lambda guid: jobs.Get(guid, key), ended)

    def follow(self) -> None:
        """Follow some acknowledged record at some node, until that node dies."""
        node = self.somebody()
        records = [key for key in self.history.acknowledged if key.kind is Kind.RECORD]
        if node is None or not records:
            return
        followed = Followed(node, node.life, self._rng.choice(records))
        self.history.followed.append(followed)
        if node.here:
            guid = node.call(lambda guid: jobs.Follow(guid, followed.key))
            self.world.following[guid] = lambda record: self.history.note_pushed(followed, record)

    # --- Nodes ------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Look up a point by chance from some node, and count what that costs."""
        node = self.somebody()
        if node is None:
            nobody = Looked(0, 0.0, 0, right=False)
            self.history.lookups += [nobody] if self._counts_for_all else []
        else:
            self.look_up_at(node, Id(self._rng.randbytes(32)))

    def look_up_at(
        self, node: SimNode, target: Id, done: Callable[[bool], None] | None = None
    ) -> None:
        """Look up a point from a node; `done` hears whether the truly closest node was found."""
        if not node.here:
            return
        began, judged = self.world.clock.now, self.judged

        def ended(outcome: fx.Outcome) -> None:
            messages = self._observer.messages.pop(work, 0)
            right = self._is_closest(self._found(outcome), target, node)
            hops = outcome.hops if isinstance(outcome, fx.LookedUp) else 0
            took_s = self.world.clock.now - began
            if judged:
                self.history.lookups.append(Looked(hops, took_s, messages, right))
            if done is not None:
                done(right)

        work = new_guid(node.rng)
        self._observer.count(work)  # before: a node that is alone answers at once
        node.call(lambda _: jobs.LookUp(work, target), ended, work)

    def _found(self, outcome: fx.Outcome) -> Id | None:
        """Return the closest that a lookup found, but for liars and for clients."""
        contacts = outcome.contacts if isinstance(outcome, fx.LookedUp) else ()
        nodes = (self.world.by_id.get(contact.id) for contact in contacts)
        for node in nodes:
            if node and node.liar is None and node.keeps and not node.natted:
                return node.id
        return None

    def _is_closest(self, found: Id | None, target: Id, asker: SimNode) -> bool:
        """Return whether nobody is closer, of all honest nodes in the network that can be dialled.

        Whoever has just come back may be found before it counts as in the network itself.
        """
        for node in self.closest(target):
            if node.id == found:
                return True
            if node is not asker and node.liar is None and node.joined:
                return False
        return found is None

    def closest(self, target: Id) -> Iterator[SimNode]:
        """Give all nodes that live and keep items for others, closest to a point first."""
        if len(self._ids) != len(self.world.nodes):
            self._ids = sorted(as_number(node.id) for node in self.world.nodes)
        for number in by_distance(self._ids, as_number(target)):
            node = self.world.by_id[as_id(number)]
            if node.can_be_dialled:
                yield node
