"""The bodies of simulated nodes: what becomes of a dial, and of a connection to who is gone."""

import pytest

from xorbit.core import job as jobs
from xorbit.sim.clock import START_S
from xorbit.sim.network import one_way_s
from xorbit.sim.node import SimNode
from xorbit.sim.world import World


class Two:
    """Two nodes, of which one dials the other, and what each hears of it."""

    def __init__(self) -> None:
        self.world = World("bodies")
        self._heard: dict[int, list[type[jobs.Job]]] = {0: [], 1: []}
        self.world.watchers.append(self._saw)
        self.one, self.other = self.world.add(), self.world.add()
        self.way_s = one_way_s(self.one.place, self.other.place)
        self.one.start()
        self.other.start()

    def _saw(self, node: SimNode, job: jobs.Job, _: object) -> None:
        if isinstance(job, jobs.ConnectionOpened | jobs.ConnectionLost | jobs.DialFailed):
            self._heard[node.number].append(type(job))

    def dial(self) -> None:
        self.one.call(lambda guid: jobs.Connect(guid, (self.other.address,), None))

    def run(self, ways: float) -> None:
        """Let as much time pass as so many messages take one after the other."""
        self.world.run(ways * self.way_s)

    @property
    def heard(self) -> tuple[list[type[jobs.Job]], list[type[jobs.Job]]]:
        return self._heard[0], self._heard[1]


def test_a_dial_takes_two_round_trips_and_the_other_end_knows_half_a_one_later() -> None:
    two = Two()
    two.dial()
    two.run(3.9)
    assert two.heard == ([], [])
    two.run(0.2)
    assert two.heard == ([jobs.ConnectionOpened], [])
    two.run(1.2)
    assert two.heard == ([jobs.ConnectionOpened], [jobs.ConnectionOpened])


@pytest.mark.parametrize("ways", [0.0, 1.5, 2.9])
def test_who_is_not_there_or_dies_in_the_handshake_refuses(ways: float) -> None:
    two = Two()
    two.dial()
    two.run(ways)
    two.other.kill()
    two.run(5.0)
    assert two.heard[0] == [jobs.DialFailed]


@pytest.mark.parametrize("silently", [False, True])
def test_who_dies_when_the_handshake_is_nearly_done_hangs_up_unless_it_vanishes(
    silently: bool,
) -> None:
    two = Two()
    two.dial()
    two.run(4.5)
    two.other.kill(silently=silently)
    two.run(3.0)
    lost = [] if silently else [jobs.ConnectionLost]
    assert two.heard[0] == [jobs.ConnectionOpened, *lost]


@pytest.mark.parametrize("ways", [0.0, 1.5, 2.9])
def test_who_has_vanished_without_a_word_lets_a_dial_time_out(ways: float) -> None:
    two = Two()
    two.dial()
    two.run(ways)
    two.other.kill(silently=True)
    two.world.run(two.one.limits.dial_timeout_s - two.world.clock.now + START_S - 0.1)
    assert two.heard[0] == []
    two.world.run(0.2)
    assert two.heard[0] == [jobs.DialFailed]


def test_an_address_where_nobody_can_be_dialled_times_out() -> None:
    two = Two()
    two.other.natted = True
    two.dial()
    two.world.run(two.one.limits.dial_timeout_s - 0.1)
    assert two.heard[0] == []
    two.world.run(0.2)
    assert two.heard[0] == [jobs.DialFailed]


def test_the_way_in_of_a_newcomer_is_never_one_that_nobody_can_dial() -> None:
    world = World("ways in")
    host, client, natted, dead = (world.add() for _ in range(4))
    client.keeps = False
    natted.natted = True
    for node in (host, client, natted):
        node.start(listen=node.keeps)
    assert not dead.can_be_dialled
    assert world.some_alive(2) == [host]
    assert world.some_alive(2, but=host) == []
