"""Random faults in a small network: what was acknowledged stays readable, the invariants hold.

Ten nodes, one seed each. Nodes are killed and come back with their disk, fall mute, lag, lose
connections, and lose blocks to rot, while blocks are put and got at random. Then the faults stop.
A failing seed is in the test's name; `pytest "tests/sim/test_chaos.py::...[SEED]"` replays it.
"""

from random import Random

import pytest

from tests.world import Node, World, check_acknowledgements, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid, Id
from xorbit.items import ItemKey, make_block

NODES = 10
STEPS = 60
LIMITS = Limits(work_timeout_s=20.0, ping_interval_s=5.0, bootstrap_retry_s_max=4.0)


class Chaos:
    """One run: what happens, and what must be remembered of it."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.world = World(seed)
        self.nodes = self.world.network(NODES, LIMITS)
        self.puts: dict[Guid, tuple[Node, ItemKey, bytes]] = {}
        self.gets: list[tuple[Node, Guid, ItemKey]] = []
        self.data: dict[ItemKey, bytes] = {}
        self.rotten: dict[tuple[Id, ItemKey], None] = {}
        """Copies that were damaged after they were acknowledged."""
        self.logs = [(node.id, node.log) for node in self.nodes]

    def run(self) -> None:
        for _ in range(STEPS):
            faults = (self.kill, self.mute, self.rot, self.cut, self.lag)
            self.rng.choice((self.put, self.put, self.put, self.get, self.get, *faults))()
            if self.rng.random() < 0.5:
                self.heal_one()
            self.world.run(self.rng.choice((0.0, 0.003, 0.02, 0.3, 2.0)))

    def settle(self) -> None:
        for node in self.nodes:
            node.mute = False
            node.lag_s = 0.0
            if not node.alive:
                self.restart(node)
        self.world.run(90.0)

    def put(self) -> None:
        node = self.rng.choice([node for node in self.nodes if node.alive])
        data = self.rng.randbytes(self.rng.choice((1, 20, 3000)))
        guid, key = node.put(data)
        self.data[key] = data
        self.puts[guid] = (node, key, data)

    def get(self) -> None:
        if self.data:
            node = self.rng.choice([node for node in self.nodes if node.alive])
            key = self.rng.choice(list(self.data))
            self.gets.append((node, node.get(key), key))

    def kill(self) -> None:
        alive = [node for node in self.nodes if node.alive]
        if len(alive) > NODES - 3:
            self.rng.choice(alive).kill()

    def restart(self, node: Node) -> None:
        node.restart()
        self.logs.append((node.id, node.log))
        others = [other.address for other in self.nodes if other is not node and other.address]
        node.bootstrap(*self.rng.sample(others, 3))

    def mute(self) -> None:
        if sum(node.mute for node in self.nodes) < 2:
            self.rng.choice(self.nodes).mute = True

    def rot(self) -> None:
        node = self.rng.choice(self.nodes)
        held = node.store.keys_from(Id(bytes(32)), 1000)
        if held:
            key = self.rng.choice(held)
            node.damage(key)
            self.rotten[node.id, key] = None

    def cut(self) -> None:
        """Break one connection, as a router does that forgets it."""
        node = self.rng.choice(self.nodes)
        if node.ends:
            node.cut(self.rng.choice(list(node.ends)), "reset by chaos")

    def lag(self) -> None:
        """Let a node's frames take longer from now on, by nothing up to seconds."""
        self.rng.choice(self.nodes).lag_s = self.rng.choice((0.0, 0.0, 0.1, 0.5, 3.0))

    def heal_one(self) -> None:
        down = [node for node in self.nodes if node.mute or not node.alive]
        if down:
            node = self.rng.choice(down)
            node.mute = False
            if not node.alive:
                self.restart(node)


@pytest.mark.parametrize("seed", range(12))
def test_after_any_faults_what_was_acknowledged_is_readable(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.run()
    chaos.settle()
    world, nodes = chaos.world, chaos.nodes
    for own, log in chaos.logs:
        check_acknowledgements(own, log)
    for node, guid, key in chaos.gets:
        outcome = node.outcomes.get(guid)
        if isinstance(outcome, fx.Got):
            assert outcome.item == make_block(chaos.data[key]), f"seed {seed}"
    acknowledged = 0
    for guid, (putter, key, data) in chaos.puts.items():
        outcome = putter.outcomes.get(guid)
        holders = stored_at(outcome) if outcome is not None else []
        sound = [peer for peer in holders if (peer, key) not in chaos.rotten]
        if sound:
            acknowledged += 1
            # Any node must find it, though it was not there when it was put.
            reader = chaos.rng.choice(nodes)
            found = world.outcome(reader, reader.get(key))
            assert isinstance(found, fx.Got), f"seed {seed}: {key.id.hex()} is lost"
            assert found.item == make_block(data)
    assert acknowledged > 5, f"seed {seed}: nothing was shown"


@pytest.mark.parametrize("seed", range(4))
def test_after_any_faults_all_nodes_know_each_other_again_and_nothing_is_left_hanging(
    seed: int,
) -> None:
    chaos = Chaos(1000 + seed)
    chaos.run()
    chaos.settle()
    for node in chaos.nodes:
        state = node.machine.state
        assert len(state.table) == NODES - 1, f"seed {seed}"
        assert len(state.links) == NODES - 1, f"seed {seed}"
    chaos.world.run(20.0)
    for node in chaos.nodes:
        state = node.machine.state
        chaos.world.until(lambda state=state: not state.works and not state.disk_of, 5.0)
        assert not state.dials
        assert not any(link.waiting for link in state.links.values())


@pytest.mark.parametrize("seed", range(3))
def test_all_nodes_can_be_stopped_in_the_middle_of_anything(seed: int) -> None:
    chaos = Chaos(2000 + seed)
    chaos.run()
    alive = [node for node in chaos.nodes if node.alive]
    for node in alive:
        node.push(jobs.Shutdown())
    chaos.world.run(LIMITS.shutdown_s_max)
    assert all(node.stopped for node in alive), f"seed {seed}"
