"""One world in several processes is the same world, step by step; a shard that fails ends all."""

from concurrent.futures import ThreadPoolExecutor
from operator import is_
from threading import Barrier
from typing import TypeVar

import pytest
from msgspec.structs import replace

from tests.sim.stories import EVERYDAY, FORGERS, PARTED, WEATHER
from xorbit.core import serve
from xorbit.core.state import State
from xorbit.ids import Guid
from xorbit.sim import observer, scenario
from xorbit.sim.run import Result, Simulation
from xorbit.sim.scenario import Scenario, parse
from xorbit.sim.shards import Left
from xorbit.sim.world import World
from xorbit.wire.message import Closest, Envelope, decode, encode

T = TypeVar("T")
WITHIN_S = 300.0


class Table:
    """What threads that are shards put down for each other."""

    def __init__(self, count: int) -> None:
        self.parts: list[tuple[object, bool]] = [(None, False)] * count
        self.all_have_put = Barrier(count)
        self.all_have_read = Barrier(count)


class Seat:
    """One shard at the table: a thread in the place of a process."""

    def __init__(self, table: Table, number: int) -> None:
        self.number = number
        self.count = len(table.parts)
        self._table = table

    def gather(self, mine: T) -> list[T]:
        parts = self._put(mine, left=False)
        if any(left for _, left in parts):
            raise Left
        return [part for part, _ in parts]  # type: ignore[misc]

    def leave(self) -> None:
        self._put(None, left=True)

    def _put(self, mine: object, *, left: bool) -> list[tuple[object, bool]]:
        self._table.parts[self.number] = mine, left
        self._table.all_have_put.wait(WITHIN_S)
        parts = list(self._table.parts)
        self._table.all_have_read.wait(WITHIN_S)
        return parts


def in_shards(story: Scenario, count: int) -> list[Result]:
    """Run a story in so many shards, and return what each says of the whole."""
    table = Table(count)

    def run(number: int) -> Result:
        return Simulation(story, "7", check_every=2, shards=Seat(table, number)).run()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


EVERYTHING = """
about = "Whatever a story can do to nodes."
nodes = 16
[[phases]]
name = "joining"
seconds = 30
join = 0.8
natted = 0.2
clients = 0.2
[[phases]]
name = "using"
seconds = 20
puts = 20
publishes = 20
follows = 20
bytes_per_s = 50000
[[phases]]
name = "trouble"
seconds = 20
join = 0.2
besiege = 3
slow_disks = 0.2
full_disks = 0.2
one_way = 3
part = 0.2
publishes = 20
gets = 20
rush = 30
[[phases]]
name = "restarts"
seconds = 20
restart = 0.6
at_once = true
lookups = 20
"""


def a_day_of_churn() -> Scenario:
    churn = scenario.load("churn").of_nodes(12)
    return replace(
        churn, phases=tuple(replace(one, seconds=one.seconds / 4) for one in churn.phases)
    )


STORIES = {
    "people use it, some nodes die and come back": parse(EVERYDAY.encode()),
    "messages are lost, late and twice": parse(WEATHER.encode()),
    "some lie": parse(FORGERS.encode()),
    "two parts": parse(PARTED.encode()),
    "nodes come and go": a_day_of_churn(),
    "everything": parse(EVERYTHING.encode()),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_world_is_the_same_in_one_shard_and_in_three(story: Scenario) -> None:
    """Every node takes the same steps at the same times, and what came of all is the same."""
    (alone,) = in_shards(story, 1)
    assert in_shards(story, 3) == [alone, alone, alone]
    assert alone.steps > 5_000


def test_what_is_wrong_is_found_alike_in_one_shard_and_in_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which steps are looked at, and how much is told, does not depend on the number of shards."""

    def broken(state: State) -> None:
        if len(state.table) > 8:
            raise AssertionError("on purpose")

    monkeypatch.setattr(observer, "check", broken)
    (alone,) = in_shards(parse(EVERYDAY.encode()), 1)
    assert len(alone.faults) == observer.FAULTS_MAX
    assert in_shards(parse(EVERYDAY.encode()), 3) == [alone, alone, alone]


def test_each_shard_moves_its_own_nodes_only_and_about_as_many() -> None:
    table = Table(2)
    halves = [
        Simulation(parse(EVERYDAY.encode()), "7", shards=Seat(table, number)).world
        for number in range(2)
    ]
    here = [[node.id for node in world.nodes if node.here] for world in halves]
    assert sorted(here[0] + here[1]) == sorted(halves[0].by_id)
    assert len(here[0]) == len(here[1]) == 8
    assert max(here[0]) < min(here[1]), "those that are close together are of one"


def test_what_other_shards_name_is_remembered_once_however_many_nodes_hear_of_it() -> None:
    world = World(seed=0)
    named = Closest(tuple(world.add().contact for _ in range(3)))
    answer = encode(Envelope(Guid(bytes(16)), Guid(bytes(16)), named))
    first, again = (world.as_here(decode(answer)).body for _ in range(2))
    assert isinstance(first, Closest)
    assert isinstance(again, Closest)
    assert first == again == named
    assert all(map(is_, first.contacts, again.contacts))


def test_a_handler_that_raises_in_one_shard_is_a_fault_of_the_run_and_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = serve.handle_request
    count = iter(range(1_000_000))

    def broken(*arguments: object) -> object:
        if next(count) == 500:
            raise ZeroDivisionError("on purpose")
        return handle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(serve, "handle_request", broken)
    for result in in_shards(parse(EVERYDAY.encode()), 2):
        assert not result.ok
        assert any("ZeroDivisionError: on purpose" in fault for fault in result.faults)
