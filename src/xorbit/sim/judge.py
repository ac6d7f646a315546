"""Judges the end of a run: faults have stopped, so all has to be well again, and soon.

What was under way has ended; every honest node that lives is in the network and finds whoever is
truly closest; the closest nodes to each record hold one version of it, the newest; each item has
its r holders again; followers have heard the newest; no honest node took another for a liar. Each
rule is a generator of sentences, one for each fault. Reads disks and states, changes nothing. Each
shard judges its own nodes, and hears what the others found; what concerns many nodes at once all
judge alike, once they have told each other what the disks hold.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import inf
from random import Random
from typing import NamedTuple

from xorbit.core.state import State
from xorbit.ids import Guid, Id
from xorbit.items import Item, ItemKey, Kind, version
from xorbit.sim.history import holds
from xorbit.sim.load import Load
from xorbit.sim.node import SimNode
from xorbit.sim.observer import Observer
from xorbit.sim.world import World

HEAL_S = 120.0
"""How long after the last fault all must be well again."""
SAMPLE = 32
"""How many nodes are asked whether they find who is truly closest."""
NAMED = 8
"""Hexadecimal digits of an id that a sentence gives."""
DISTRUSTED = "peer distrusted"

Rule = Callable[[], Iterator[str]]
_Seen = tuple[list[tuple[int, bool]], float]
"""Of an item: which nodes of a shard ever had it, and whether they have it now; when an honest one
of them last dropped it."""


class _Fate(NamedTuple):
    """What became of those who had an item."""

    was_hit: bool
    """Whether r of them, or as many as ever said that they had it, lie or died so soon one after
    the other that it could not be made good, and the last to let it go did so by dying."""
    is_left: bool
    """Whether an honest one lives and has it."""


_Versions = dict[tuple[int, int], tuple[int, bytes]]
"""Which version of an item a node holds, by the item's place among all and the node's number."""


class Judge:
    """What holds in the end of one world."""

    def __init__(self, world: World, load: Load, observer: Observer) -> None:
        """Judge this world, what its users did, and what was seen of it."""
        self._world = world
        self._load = load
        self._history = load.history
        self._observer = observer
        self._replicas = world.limits.replicas
        self._under_way: list[tuple[SimNode, int, str, Guid]] = []
        self._has_asked = False
        """Whether a sample has been asked who is closest."""
        self._blind: dict[tuple[int, Id], None] = {}
        """Which nodes of this shard were wrong about which points."""

    @property
    def is_known_to_be_honest(self) -> bool:
        """Whether nobody lies in this world."""
        return not any(node.liar for node in self._world.nodes)

    # --- Before the end ---------------------------------------------------------------------------

    def note_under_way(self) -> None:
        """Remember everything that is under way now: in a minute it must have ended."""
        for node in self._own_honest():
            for what, guid in _under_way(node):
                self._under_way.append((node, node.life, what, guid))

    def ask_for_the_closest(self, over_s: float) -> None:
        """Let a sample of nodes look points up; the next time only those who were wrong, once more.

        Among liars the scenario says how often lookups may go wrong, and nobody is asked.
        """
        if not self.is_known_to_be_honest:
            return
        rng = Random(f"{self._world.seed} judge")
        nodes = self._honest()
        questions = [
            (node, Id(rng.randbytes(32))) for node in rng.sample(nodes, min(SAMPLE, len(nodes)))
        ]
        blind = sorted(one for part in self._world.shards.gather([*self._blind]) for one in part)
        if self._has_asked:
            questions = [(self._world.nodes[number], at) for number, at in blind]
        self._has_asked = True
        for node, target in questions:
            self._world.clock.after(over_s * rng.random(), self._ask, node, target)

    def _ask(self, node: SimNode, target: Id) -> None:
        def answered(right: bool) -> None:
            if right:
                self._blind.pop((node.number, target), None)
            else:
                self._blind[node.number, target] = None

        if node.alive:
            self._load.look_up_at(node, target, answered)

    # --- What must be so when the network has had its time to heal --------------------------------

    def healed(self) -> list[str]:
        """Return what has not healed by itself."""
        return [*self._found_by_all(self._outside), *self._few()]

    def _outside(self) -> Iterator[str]:
        """Give honest nodes that live and are not in the network."""
        is_alone = len(self._honest()) == 1
        for node in self._own_honest():
            state = node.machine.state
            if not (is_alone or (state.joined and state.link_of)):
                yield f"node {node.number} is not in the network again"

    def _few(self) -> Iterator[str]:
        """Give items that fewer hold than there should be, and that had to be more.

        A copy counts where a reader comes by: at one of the k closest, past a crowd of liars. A
        liar among the r closest counts as one, since nobody can know whether it keeps what it took.
        """
        closest_count = self._world.limits.closest_count
        keepers = sum(n.can_be_dialled for n in self._world.nodes)
        held = self._versions(2 * closest_count)
        few: dict[ItemKey, int] = {}
        for place, key in enumerate(self._history.acknowledged):
            near = list(islice(self._load.closest(key.id), 2 * closest_count))
            honest = [node for node in near if node.liar is None][:closest_count]
            count = sum((place, node.number) in held for node in honest)
            count += sum(1 for node in near[: self._replicas] if node.liar)
            if count < min(self._replicas, keepers):
                few[key] = count
        for (key, count), fate in zip(few.items(), self._fates([*few]), strict=True):
            if not fate.was_hit:
                yield f"item {_name(key)} is held by {count} nodes"

    # --- What must be so in the end ---------------------------------------------------------------

    def ended(self) -> list[str]:
        """Return what else is wrong, some time after `note_under_way`."""
        own = self._found_by_all(
            self._endless,
            self._overdue,
            self._unserved,
            self._lost_ways,
            self._untold,
            self._wronged,
        )
        return [*own, *self._different()]

    def _endless(self) -> Iterator[str]:
        """Give what was under way a minute ago and still is."""
        for node, life, what, guid in self._under_way:
            if node.life == life and (what, guid) in _under_way(node):
                yield f"node {node.number}: {what} never ended"

    def _overdue(self) -> Iterator[str]:
        """Give works that go on behind their deadline."""
        for node in self._own_honest():
            for work in node.machine.state.works.values():
                if work.deadline + node.limits.request_timeout_s_max < self._world.clock.now:
                    yield f"node {node.number}: {type(work).__name__} has outlived its deadline"

    def _unserved(self) -> Iterator[str]:
        """Give nodes with jobs that nobody steps."""
        for node in self._own_honest():
            if len(node.queue):
                yield f"node {node.number} leaves {len(node.queue)} jobs in its queue"

    def _lost_ways(self) -> Iterator[str]:
        """Give nodes that twice did not find who is truly closest to a point."""
        for number, target in self._blind:
            yield f"node {number} does not find who is closest to {target.hex()[:NAMED]}"

    def _untold(self) -> Iterator[str]:
        """Give followers that have not heard of the newest version."""
        for followed in self._history.followed:
            newest = version(self._history.acknowledged[followed.key])
            lives = followed.node.here and followed.node.life == followed.life
            if lives and (followed.heard is None or followed.heard < newest):
                name = f"version {newest[0]} of {_name(followed.key)}"
                yield f"node {followed.node.number} follows, and has not heard of {name}"

    def _different(self) -> Iterator[str]:
        """Give records of which the honest among the closest do not all hold the newest version.

        After the last reading: whoever reads a record hands it to those of them who are behind.
        Without readers that takes sweeps, and so hours.
        """
        held = self._versions(self._replicas)
        for place, (key, item) in enumerate(self._history.acknowledged.items()):
            if key.kind is not Kind.RECORD:
                continue
            near = [n for n in islice(self._load.closest(key.id), self._replicas) if not n.liar]
            spots = [(place, node.number) for node in near]
            versions = [held[spot] for spot in spots if spot in held]
            if versions and min(versions) < max((*versions, version(item))):
                seen = sorted({number for number, _ in versions})
                last = f"the last is {version(item)[0]}"
                yield f"record {_name(key)} is there in versions {seen}, {last}"

    def _wronged(self) -> Iterator[str]:
        """Give honest nodes that other honest nodes took for liars."""
        honest = {node.id.hex() for node in self._world.nodes if node.liar is None}
        for node in self._own():
            for report in node.reports:
                peer = report.detail.partition(":")[0]
                if report.event == DISTRUSTED and peer in honest and node.liar is None:
                    yield f"node {node.number} took an honest one for a liar: {report.detail}"

    # --- What is gone -----------------------------------------------------------------------------

    def is_current(self, key: ItemKey, item: Item | None) -> bool:
        """Return whether a reader was given what it should: for a record the newest, or newer."""
        return item is not None and version(item) >= version(self._history.acknowledged[key])

    def excused(self, keys: Sequence[ItemKey]) -> int:
        """Return how many of these items may be unreadable.

        Too many of those that had such an item lie, or died with it, before others could make it
        good; no honest node that lives has it, and none has dropped it since.
        """
        return sum(fate.was_hit and not fate.is_left for fate in self._fates(keys))

    def _fates(self, keys: Sequence[ItemKey]) -> list[_Fate]:
        parts = self._world.shards.gather([self._seen(key) for key in keys])
        seen = zip(keys, zip(*parts, strict=True), strict=True)
        return [self._fate(key, of_key) for key, of_key in seen]

    def _seen(self, key: ItemKey) -> _Seen:
        item, nodes = self._history.acknowledged[key], self._world.nodes
        written = self._observer.written.get(key, ())
        had = [(number, holds(nodes[number], key, item)) for number in written]
        return had, self._observer.dropped_at.get(key, -inf)

    def _fate(self, key: ItemKey, seen: Sequence[_Seen]) -> _Fate:
        numbers = [one for writers, _ in seen for one in writers]
        had = [(self._world.nodes[number], has_it) for number, has_it in numbers]
        honest = [node for node, has_it in had if has_it and node.liar is None]
        deaths = sorted(node.died_at for node in honest if not node.alive)
        needed = min(self._replicas, self._history.copies[key])
        needed -= sum(node.liar is not None for node, _ in had)
        is_left = any(node.alive for node in honest)
        if needed <= 0:
            return _Fate(True, is_left)
        spans = zip(deaths, deaths[needed - 1 :], strict=False)
        too_many = any(last - first <= HEAL_S for first, last in spans)
        return _Fate(too_many and deaths[-1] > max(when for _, when in seen), is_left)

    # --- Who, and what all know -------------------------------------------------------------------

    def _own(self) -> Iterator[SimNode]:
        return (node for node in self._world.nodes if node.here)

    def _honest(self) -> list[SimNode]:
        return [node for node in self._world.nodes if node.alive and node.liar is None]

    def _own_honest(self) -> Iterator[SimNode]:
        return (node for node in self._honest() if node.here)

    def _found_by_all(self, *rules: Rule) -> list[str]:
        """Return what is wrong with the nodes of all shards."""
        mine = [fault for rule in rules for fault in rule()]
        return [fault for part in self._world.shards.gather(mine) for fault in part]

    def _versions(self, count: int) -> _Versions:
        """Return which version of each item the nodes closest to it hold, so many of them."""
        mine: _Versions = {}
        for place, key in enumerate(self._history.acknowledged):
            for node in islice(self._load.closest(key.id), count):
                held = node.disk.store.peek(key) if node.here else None
                if held is not None:
                    mine[place, node.number] = version(held)
        return dict(one for part in self._world.shards.gather(mine) for one in part.items())


def _under_way(node: SimNode) -> set[tuple[str, Guid]]:
    """Return everything of a node that has to end by itself, in a minute at the latest."""
    state: State = node.machine.state
    links = state.links.values()
    return {
        *(("a call", guid) for guid in node.calls),
        *(("a dial", guid) for guid in state.dials),
        *(("a disk operation", guid) for guid in state.disk_of),
        *(("a request", guid) for link in links for guid in link.out_workers),
        *(("an answer", guid) for link in links for guid in link.in_workers),
    }


def _name(key: ItemKey) -> str:
    return key.id.hex()[:NAMED]
