"""The users of a simulated network: they put and get, publish and resolve, and look nodes up.

Everything is asked of the production machines as a program would ask it, at times by chance; what
came of it goes into the history.
"""

from collections.abc import Callable
from random import Random

from nacl.signing import SigningKey

from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.nearest import by_distance
from xorbit.ids import Id, as_id, as_number, new_guid
from xorbit.items import Block, ItemKey, Record, block_key, key_of, make_block, make_record
from xorbit.sim.history import History, Looked
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
        self.judged = True
        """Whether what succeeds and fails now counts for the shares of the result."""

    # --- Many, spread over a time ---------------------------------------------------------------

    def spread(self, count: int, over_s: float, do: Callable[[], None]) -> None:
        """Let something happen so often, at times by chance."""
        for _ in range(count):
            self.world.clock.after(over_s * self._rng.random(), do)

    def somebody(self) -> SimNode | None:
        """Return an honest node that lives, by chance."""
        for _ in range(64):
            node = self._rng.choice(self.world.nodes)
            if node.alive and node.liar is None and node.machine.state.joined:
                return node
        return None

    # --- Items ------------------------------------------------------------------------------------

    def put(self) -> None:
        """Put a block from some node."""
        node = self.somebody()
        if node is None:
            return
        block = make_block(self._rng.randbytes(self._rng.randrange(64, 1_024)))
        self._store(node, block_key(block.data), block)

    def publish(self) -> None:
        """Publish the next version of some writer's record, from some node."""
        node = self.somebody()
        if node is None:
            return
        if len(self._writers) < WRITERS_MAX:
            self._writers.append((SigningKey(self._rng.randbytes(32)), 0))
        number = self._rng.randrange(len(self._writers))
        key, before = self._writers[number]
        self._writers[number] = key, before + 1
        record = make_record(key, before + 1, self._rng.randbytes(64))
        self._store(node, key_of(record), record)

    def _store(self, node: SimNode, key: ItemKey, item: Block | Record) -> None:
        def done(outcome: fx.Outcome) -> None:
            stored = isinstance(outcome, fx.PutDone) and any(
                said.outcome == "stored" for said in outcome.receipts
            )
            if stored:
                self.history.puts_ok += 1
                self.history.note_acknowledged(key, item)
            else:
                self.history.puts_failed += 1

        node.call(lambda guid: jobs.Store(guid, key, item), done)

    def get(self) -> None:
        """Get some acknowledged item at some node."""
        node = self.somebody()
        if node is not None and self.history.acknowledged:
            self.get_at(node, self._rng.choice(list(self.history.acknowledged)))

    def get_at(
        self, node: SimNode, key: ItemKey, done: Callable[[bool], None] | None = None
    ) -> None:
        """Get an item at a node; `done` hears whether it was found."""
        began, judged = self.world.clock.now, self.judged

        def ended(outcome: fx.Outcome) -> None:
            found = isinstance(outcome, fx.Got)
            if isinstance(outcome, fx.Got) and isinstance(outcome.item, Record):
                self.history.note_read(node, key, outcome.item)
            if judged:
                self.history.gets_ok += found
                self.history.gets_failed += not found
                if found:
                    self.history.get_s.append(self.world.clock.now - began)
            if done is not None:
                done(found)

        node.call(lambda guid: jobs.Get(guid, key), ended)

    # --- Nodes ------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Look up a point by chance from some node, and count what that costs."""
        node = self.somebody()
        if node is None:
            return
        target = Id(self._rng.randbytes(32))
        began, judged = self.world.clock.now, self.judged

        def done(outcome: fx.Outcome) -> None:
            messages = self._observer.messages.pop(work, 0)
            if not judged:
                return
            right = self._found(outcome) == self._truly_closest(target, node)
            hops = outcome.hops if isinstance(outcome, fx.LookedUp) else 0
            took_s = self.world.clock.now - began
            self.history.lookups.append(Looked(hops, took_s, messages, right))

        work = new_guid(node.rng)
        self._observer.count(work)  # before: a node that is alone answers at once
        node.call(lambda _: jobs.LookUp(work, target), done, work)

    def _found(self, outcome: fx.Outcome) -> Id | None:
        """Return the closest that a lookup found, but for liars and for clients."""
        contacts = outcome.contacts if isinstance(outcome, fx.LookedUp) else ()
        nodes = (self.world.by_id.get(contact.id) for contact in contacts)
        honest = (node.id for node in nodes if node and node.liar is None and not node.natted)
        return next(honest, None)

    def _truly_closest(self, target: Id, asker: SimNode) -> Id | None:
        """Return who is closest to a point of all honest nodes that live and can be dialled."""
        if len(self._ids) != len(self.world.nodes):
            self._ids = sorted(as_number(node.id) for node in self.world.nodes)
        for number in by_distance(self._ids, as_number(target)):
            node = self.world.by_id[as_id(number)]
            honest = node.alive and node.liar is None and not node.natted and node.keeps
            if honest and node is not asker and node.machine.state.joined:
                return node.id
        return None
