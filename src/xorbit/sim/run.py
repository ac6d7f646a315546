"""Runs a scenario, and says what came of it.

    result = simulate(load("churn"), seed=7)

What begins with each phase is done to the world here; what users do, by load.py. After the last
phase nothing goes wrong any more, the network gets the time that it needs to heal, everything that
was acknowledged is read once more, and the promises are held against what was seen (judge.py).
Nothing here knows how long it really took.
"""

import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from random import Random

from blake3 import blake3
from msgspec import Struct

from xorbit.ids import Id, as_number
from xorbit.items import Item, ItemKey
from xorbit.sim.churn import Churn
from xorbit.sim.clock import START_S
from xorbit.sim.history import History, Looked, mean, percentile
from xorbit.sim.judge import HEAL_S, Judge
from xorbit.sim.liars import LATE_S, Friends, Liar, Lie
from xorbit.sim.load import Load
from xorbit.sim.node import SimNode
from xorbit.sim.observer import FAULTS_MAX, Observer
from xorbit.sim.scenario import Phase, Scenario
from xorbit.sim.shards import ALONE, Died, Left, Shards
from xorbit.sim.world import World

SLOW_DISK = 100.0
SLICES = 10
"""In so many pieces a phase is run, so that somebody can be told how far it has come."""
READINGS = 2
"""How often what is still missing is read in the end."""
ENDS_WITHIN_S = 30.0
"""How long all may take to come to its end after each reading; twice as much is what any work may
take (`work_timeout_s`)."""
LOOKS_AT_THE_END = 30
"""How often it is seen whether it has, before that time is over."""
BESIEGERS_AT_BITS = 240
"""Besiegers differ from what they besiege only in bits below this one."""

Tell = Callable[[str, float], None]
"""Hears the name of the phase, and which share of the whole story is over."""


def _tell_nobody(name: str, share: float) -> None:
    del name, share


class Result(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    nodes: int
    seed: str
    virtual_s: float
    steps: int
    trace_hash: str
    lookups: int
    lookups_ok: float
    lookup_hops_mean: float
    lookup_hops_p50: float
    lookup_hops_p99: float
    lookup_s_p50: float
    lookup_s_p99: float
    messages_per_lookup: float
    puts: int
    puts_ok: float
    gets: int
    gets_ok: float
    get_s_p50: float
    get_s_p99: float
    items: int
    items_lost: int
    items_excused: int
    """Unreadable, and everybody who held it was dead or lied."""
    contacts_mean: float
    connections_mean: float
    messages_per_node_per_s: float | None
    bytes_per_node_per_s: float | None
    """While nobody asked for anything, in the last quiet phase; None without one."""
    messages_lost: int
    deaths: int
    faults: tuple[str, ...]
    """Every promise that was broken, in words."""
    ok: bool
    """Nothing was broken, and what the scenario expects is so."""


class _Part(Struct, frozen=True, kw_only=True):
    """What one shard knows of a run."""

    history: History
    faults: list[tuple[float, str]]
    steps: int
    traces: dict[int, bytes]
    contacts: int
    connections: int
    messages_lost: int


class Simulation:
    """One run of one scenario."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int | str,
        *,
        check_every: int = 1,
        shards: Shards = ALONE,
    ) -> None:
        """Make the world of a scenario, with nobody born.

        Args:
            scenario: what is going to happen.
            seed: decides everything that is left to chance.
            check_every: see `Observer`.
            shards: the processes that share the world; each makes a simulation of its own.
        """
        self.scenario = scenario
        self.seed = seed
        self.shards = shards
        self.world = World(seed, scenario.node_limits(), shards)
        self.observer = Observer(self.world, check_every)
        self.history = History()
        self.load = Load(self.world, self.observer, self.history)
        self.judge = Judge(self.world, self.load, self.observer)
        self._rng = Random(f"{seed} story")
        self._disturbed_at = -inf
        """When something went wrong for the last time."""
        self._churns: list[Churn] = []
        """All that there ever were; the last may be on."""
        self._deaths = 0
        """How many died otherwise than by churn."""
        self._traffic: tuple[float, float] | None = None
        """How many messages and bytes each node sent in each second of the last quiet phase."""
        self._unborn = [self.world.add() for _ in range(scenario.nodes)]
        self.world.share_out()

    def run(self, tell: Tell = _tell_nobody) -> Result:
        """Let it all happen. A handler that raises is a fault, and the end.

        Raises:
            Died: the process of another shard has ended.
        """
        lost = excused = 0
        try:
            self._live(tell)
            lost, excused = self._read_all()
        except Died:
            raise
        except Left:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it must name its seed
            self.observer.fault(_raised(error))
            with suppress(Died):
                self.shards.leave()
        return self._result(lost, excused)

    def _live(self, tell: Tell) -> None:
        reading_s = READINGS * (self.scenario.read_s + ENDS_WITHIN_S)
        whole = sum(phase.seconds for phase in self.scenario.phases) + reading_s
        for phase in self.scenario.phases:
            self._begin(phase)
            before = self._sent()
            for _ in range(SLICES):
                tell(phase.name, (self.world.clock.now - START_S) / whole)
                self.world.run(phase.seconds / SLICES)
            if _is_quiet(phase):
                self._measure_traffic(before, phase.seconds)
            self._end(phase)
        tell("healing and reading everything", 1 - reading_s / whole)
        self._heal()

    def _heal(self) -> None:
        """Let the network have what is left of its time to heal, then see whether it has."""
        for churn in self._churns:
            churn.stop()
            churn.over = True
        self.load.judged = False
        self.world.run_until(max(self.world.clock.now, self._disturbed_at + HEAL_S))
        self._note(self.judge.healed())

    def _note(self, faults: Iterable[str]) -> None:
        """Keep what all shards found together."""
        for fault in faults if self.shards.number == 0 else ():
            self.observer.fault(fault)

    # --- Phases ---------------------------------------------------------------------------------

    def _begin(self, phase: Phase) -> None:
        self._let_join(phase)
        self._let_die(phase)
        self._let_restart(phase)
        self._disturb(phase)
        self.load.judged = phase.calm
        self.load.block_bytes = phase.block_bytes
        for count, do in (
            (phase.puts, self.load.put),
            (phase.publishes, self.load.publish),
            (phase.follows, self.load.follow),
            (phase.gets, self.load.get),
            (phase.lookups, self.load.look_up),
        ):
            self.load.spread(count, phase.seconds * 0.8, do)
        if phase.rush and self.history.acknowledged:
            key = next(iter(self.history.acknowledged))

            def rush() -> None:
                if (node := self.load.somebody()) is not None:
                    self.load.get_at(node, key)

            self.load.spread(phase.rush, phase.seconds / 4, rush)

    def _measure_traffic(self, before: tuple[int, int], seconds: float) -> None:
        """Note what the nodes sent for themselves since `before`."""
        count = max(len(self.world.alive()), 1)
        messages, size = (b - a for a, b in zip(before, self._sent(), strict=True))
        self._traffic = messages / count / seconds, size / count / seconds

    def _end(self, phase: Phase) -> None:
        faults = self.world.faults
        faults.loss = faults.repeat = faults.overtake = 0.0
        faults.sides.clear()
        faults.cuts.clear()
        for node in self.world.nodes:
            node.disk.slow, node.disk.full = 1.0, False
        if _disturbs(phase):
            self._disturbed_at = self.world.clock.now

    def _let_join(self, phase: Phase) -> None:
        count = min(round(phase.join * self.scenario.nodes), len(self._unborn))
        born, self._unborn = self._unborn[:count], self._unborn[count:]
        for node in self._some(born[1:], phase.natted):  # the first has nobody to dial
            node.natted = True
        for node in self._some(born[1:], phase.clients):
            node.keeps = False
        self._make_liars(self._some(born[1:], phase.liars), phase.lie)
        if phase.besiege:
            born += self._besiegers(phase.besiege)
        for number, node in enumerate(born):
            # As in life, a network grows by what it has: the times of birth grow exponentially.
            when = phase.seconds * 0.6 * (number / max(len(born), 1)) ** 0.5
            self.world.clock.after(when, self.world.join, node)

    def _make_liars(self, nodes: list[SimNode], lie: Lie) -> None:
        friends = Friends([node.contact for node in nodes])
        for node in nodes:
            node.liar = Liar(lie, node.rng, friends)
            node.disk.forgets = lie is Lie.FORGETFUL
            node.lag_s = LATE_S if lie is Lie.LATE else 0.0

    def _besiegers(self, count: int) -> list[SimNode]:
        """Return colluding liars with ids right around the first node's and the first item's."""
        points = [as_number(self.world.nodes[0].id)]
        points += [as_number(key.id) for key in list(self.history.acknowledged)[:1]]
        liars: list[SimNode] = []
        for number in range(count):
            near = points[number % len(points)] ^ self._rng.randrange(1, 1 << BESIEGERS_AT_BITS)
            liars.append(self.world.add(own=Id(near.to_bytes(32, "big"))))
        self._make_liars(liars, Lie.COLLUDING)
        return liars

    def _let_die(self, phase: Phase) -> None:
        if phase.kill:
            for node in self._some(self.world.alive(), phase.kill):
                node.kill(silently=phase.silently)
                self._deaths += 1
        if phase.revive:
            for node in self.world.nodes:
                if node.life and not node.alive:
                    self.world.revive(node)
        going = self._churns[-1] if self._churns else None
        law = (phase.churn_s, phase.churn_law) if phase.churn_s else None
        if going is not None and going.law != law:
            going.stop()
        if law is not None and (going is None or not going.on):
            chance = Random(f"{self.seed} churn {len(self._churns) or ''}".rstrip())
            self._churns.append(Churn(self.world, *law, chance))

    def _let_restart(self, phase: Phase) -> None:
        chosen = self._some(self.world.alive(), phase.restart)
        for number, node in enumerate(chosen):
            when = 0.0 if phase.at_once else phase.seconds * 0.8 * number / len(chosen)
            self.world.clock.after(when, self._restart, node, phase.at_once)

    def _restart(self, node: SimNode, at_once: bool) -> None:
        if node.alive:
            node.kill()
            pause_s = 2.0 * self._rng.random() if at_once else 1.0
            self.world.clock.after(pause_s, self.world.revive, node)

    def _disturb(self, phase: Phase) -> None:
        faults, alive = self.world.faults, self.world.alive()
        faults.loss, faults.repeat, faults.overtake = phase.loss, phase.repeat, phase.overtake
        faults.sides = {node.number: 1 for node in self._some(alive, phase.part)}
        for _ in range(phase.one_way if len(alive) > 1 else 0):
            deaf, mute = self._rng.sample(alive, 2)
            faults.cuts[mute.number, deaf.number] = None
        for node in self._some(alive, phase.slow_disks):
            node.disk.slow = SLOW_DISK
        for node in self._some(alive, phase.full_disks):
            node.disk.full = True
        if phase.bytes_per_s:
            for node in self.world.nodes:
                node.bandwidth = phase.bytes_per_s

    def _some(self, nodes: list[SimNode], share: float) -> list[SimNode]:
        return self._rng.sample(nodes, round(share * len(nodes)))

    def _sent(self) -> tuple[int, int]:
        nodes = self.world.nodes
        mine = sum(n.messages_sent for n in nodes), sum(n.bytes_sent for n in nodes)
        messages, size = zip(*self.shards.gather(mine), strict=True)
        return sum(messages), sum(size)

    # --- The end --------------------------------------------------------------------------------

    def _read_all(self) -> tuple[int, int]:
        """Read everything that was acknowledged once more; return how much is lost and excused."""
        missing = dict.fromkeys(self.history.acknowledged)
        faults: list[str] = []

        def read(key: ItemKey) -> None:
            def done(item: Item | None) -> None:
                if self.judge.is_current(key, item):
                    missing.pop(key, None)

            node = self.load.somebody()
            if node is not None:
                self.load.get_at(node, key, done)

        spread_s = self.scenario.read_s
        for reading in range(READINGS):  # one reader may be unlucky: what it misses another reads
            for key in list(missing):
                self.world.clock.after(spread_s * self._rng.random(), read, key)
            self.judge.ask_for_the_closest(spread_s)
            self.world.run(spread_s)
            if not reading:  # what is still under way at the end never ends
                self.judge.note_under_way()
            faults = self._wait_for_the_end(missing)
            if not (missing or faults):
                break
        self._note(faults)
        excused = self.judge.excused([*missing])
        return len(missing) - excused, excused

    def _wait_for_the_end(self, missing: dict[ItemKey, None]) -> list[str]:
        """Let the readers come to an end; return what is wrong when their time is over."""
        faults: list[str] = []
        for _ in range(LOOKS_AT_THE_END):
            self.world.run(ENDS_WITHIN_S / LOOKS_AT_THE_END)
            self._agree_on(missing)
            faults = self.judge.ended()
            if not (missing or faults):
                break
        return faults

    def _agree_on(self, missing: dict[ItemKey, None]) -> None:
        """Take out what some shard has read."""
        parts = [dict.fromkeys(part) for part in self.shards.gather([*missing])]
        for key in list(missing):
            if any(key not in part for part in parts):
                del missing[key]

    def _parts(self) -> list[_Part]:
        """Return what each shard knows, also where one broke off after all had last met."""
        try:
            return self.shards.gather(self._part())
        except Left:
            return self.shards.gather(self._part())

    def _part(self) -> _Part:
        """Return what only this shard knows."""
        states = [node.machine.state for node in self.world.alive() if node.here]
        return _Part(
            history=History(
                lookups=self.history.lookups,
                puts_ok=self.history.puts_ok,
                puts_failed=self.history.puts_failed,
                gets_ok=self.history.gets_ok,
                gets_failed=self.history.gets_failed,
                get_s=self.history.get_s,
                faults=[*self.history.faults, *_errors(self.world.nodes)],
            ),
            faults=self.observer.faults,
            steps=self.observer.steps,
            traces=self.observer.traces(),
            contacts=sum(len(state.table) for state in states),
            connections=sum(len(state.links) for state in states),
            messages_lost=self.world.messages_lost,
        )

    def _result(self, lost: int, excused: int) -> Result:
        parts = self._parts()
        self.history.take(part.history for part in parts)
        history, alive = self.history, max(len(self.world.alive()), 1)
        lookups, expected = history.lookups, self.scenario.expected
        gets, puts = history.gets_ok + history.gets_failed, history.puts_ok + history.puts_failed
        lookups_ok = _share(sum(one.right for one in lookups), len(lookups))
        gets_ok = _share(history.gets_ok, gets)
        seen = sorted(one for part in parts for one in part.faults)[:FAULTS_MAX]
        faults = (*(text for _, text in seen), *sorted(history.faults))
        as_expected = (
            lookups_ok >= expected.lookups_ok
            and _share(history.puts_ok, puts) >= expected.puts_ok
            and gets_ok >= expected.gets_ok
            and lost <= expected.items_lost
        )
        hops = [float(one.hops) for one in lookups]
        took_s = [one.took_s for one in lookups]
        traffic = self._traffic
        return Result(
            nodes=len(self.world.nodes),
            seed=str(self.seed),
            virtual_s=round(self.world.clock.now - START_S, 3),
            steps=sum(part.steps for part in parts),
            trace_hash=_trace_hash(part.traces for part in parts),
            lookups=len(lookups),
            lookups_ok=lookups_ok,
            lookup_hops_mean=round(mean(hops), 4),
            lookup_hops_p50=percentile(hops, 0.5),
            lookup_hops_p99=percentile(hops, 0.99),
            lookup_s_p50=round(percentile(took_s, 0.5), 4),
            lookup_s_p99=round(percentile(took_s, 0.99), 4),
            messages_per_lookup=round(mean(_messages(lookups)), 2),
            puts=puts,
            puts_ok=_share(history.puts_ok, puts),
            gets=gets,
            gets_ok=gets_ok,
            get_s_p50=round(percentile(history.get_s, 0.5), 4),
            get_s_p99=round(percentile(history.get_s, 0.99), 4),
            items=len(history.acknowledged),
            items_lost=lost,
            items_excused=excused,
            contacts_mean=round(sum(part.contacts for part in parts) / alive, 1),
            connections_mean=round(sum(part.connections for part in parts) / alive, 1),
            messages_per_node_per_s=None if traffic is None else round(traffic[0], 3),
            bytes_per_node_per_s=None if traffic is None else round(traffic[1], 1),
            messages_lost=sum(part.messages_lost for part in parts),
            deaths=self._deaths + sum(churn.deaths for churn in self._churns),
            faults=faults,
            ok=not faults and as_expected,
        )


def simulate(
    scenario: Scenario,
    seed: int | str,
    *,
    check_every: int = 1,
    tell: Tell = _tell_nobody,
) -> Result:
    """Run a scenario from a seed; the same seed gives the same result, trace hash included."""
    return Simulation(scenario, seed, check_every=check_every).run(tell)


def _trace_hash(traces: Iterable[dict[int, bytes]]) -> str:
    """Return the hash of everything that all nodes did."""
    whole = blake3()
    for number, digest in sorted(one for part in traces for one in part.items()):
        whole.update(number.to_bytes(4, "big") + digest)
    return whole.hexdigest(length=16)


def _is_quiet(phase: Phase) -> bool:
    asked = phase.puts + phase.publishes + phase.follows + phase.gets + phase.lookups + phase.rush
    return not (asked or phase.join or phase.restart)


def _disturbs(phase: Phase) -> bool:
    """Return whether the network has something to recover from after this phase."""
    changes = phase.kill or phase.revive or phase.restart or phase.churn_s
    on_the_way = phase.loss or phase.repeat or phase.overtake or phase.part or phase.one_way
    return bool(changes or on_the_way or phase.slow_disks or phase.full_disks or phase.besiege)


def _raised(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    line = f"{where.filename.rpartition('/')[2]}, line {where.lineno}"
    place = ", ".join([line, *getattr(error, "__notes__", [])[:1]])
    return f"a handler raised {type(error).__name__}: {error} ({place})"


def _messages(lookups: list[Looked]) -> list[float]:
    return [float(one.messages) for one in lookups]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 5) if whole else 1.0


def _errors(nodes: list[SimNode]) -> Iterable[str]:
    """Give what nodes themselves reported as errors."""
    for node in nodes:
        for report in node.reports:
            if report.level == "error":
                yield f"node {node.number} reported: {report.event}: {report.detail}"
