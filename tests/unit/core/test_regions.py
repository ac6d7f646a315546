"""Regions: who is closest to a point, told from what is known only where that is everybody."""

from random import Random

import pytest

from tests.world import World
from xorbit.config import Limits
from xorbit.core.regions import EVERYWHERE, apart, around, around_us, near
from xorbit.core.state import State
from xorbit.ids import Id, distance
from xorbit.items import Address, Contact

COUNT = 3


def contacts(rng: Random, count: int) -> list[Contact]:
    return [Contact(Id(rng.randbytes(32))) for _ in range(count)]


def nearest(everybody: list[Contact], point: Id, count: int) -> list[Contact]:
    return sorted(everybody, key=lambda contact: distance(contact.id, point))[:count]


@pytest.mark.parametrize("seed", range(20))
def test_what_a_region_says_to_know_is_what_asking_everybody_would_say(seed: int) -> None:
    rng = Random(seed)
    everybody = contacts(rng, 200)
    centre = Id(rng.randbytes(32))
    region = around(centre, nearest(everybody, centre, 20))
    known = 0
    for _ in range(500):
        shift = rng.randrange(240, 256)
        point = Id((int.from_bytes(centre) ^ rng.getrandbits(shift)).to_bytes(32))
        if region.holds(point, COUNT):
            known += 1
            assert region.closest(point, COUNT) == nearest(everybody, point, COUNT)
    assert known > 50, "one lookup serves the points around"


def test_who_was_asked_for_is_known_even_where_nobody_answered() -> None:
    point, other = Id(bytes(32)), Id(b"\1" * 32)
    region = around(point, [])
    assert region.holds(point, COUNT)
    assert region.closest(point, COUNT) == []
    assert not region.holds(other, COUNT)


def test_a_node_that_knows_fewer_than_one_answer_holds_knows_everybody() -> None:
    state = World().node(limits=Limits(closest_count=8)).machine.state
    rng = Random(1)
    for number in range(8):
        region = around_us(state)
        assert region.reach == EVERYWHERE
        assert region.holds(Id(rng.randbytes(32)), COUNT)
        state.table.proved(Id(rng.randbytes(32)), Address(f"10.0.0.{number}", 1), 1.0)
    region = around_us(state)
    assert region.reach < EVERYWHERE
    assert region.holds(state.own, COUNT)
    far = Id(bytes(255 - byte for byte in state.own))
    assert not region.holds(far, COUNT)


@pytest.mark.parametrize("seed", range(5))
def test_all_points_for_which_a_node_may_keep_a_copy_are_near_it(seed: int) -> None:
    rng = Random(seed)
    state = World().node().machine.state
    for number in range(60):
        address = Address(f"10.0.{number}.1", 1)
        state.table.proved(Id(rng.randbytes(32)), address, 1.0)
    count = state.limits.replicas + state.limits.surplus_holders_max
    for contact in state.table.contacts():
        first, last = near(state, contact.id)
        assert first <= contact.id <= last
        for _ in range(50):
            point = Id(rng.randbytes(32))
            if contact in state.table.closest(point, count):
                assert first <= point <= last
    away = [last != Id(b"\xff" * 32) or first != Id(bytes(32)) for first, last in parts_of(state)]
    assert sum(away) > 30, "and most of the keyspace is not"


def parts_of(state: State) -> list[tuple[Id, Id]]:
    return [near(state, contact.id) for contact in state.table.contacts()]


def test_parts_that_lie_in_others_are_not_walked_twice() -> None:
    one, two, three, four = (Id(bytes([number]) * 32) for number in (1, 2, 3, 4))
    assert apart([(three, four), (one, two), (one, one), (three, four)]) == [
        (one, two),
        (three, four),
    ]


@pytest.mark.parametrize("known", [3, 20])
def test_nobody_is_known_to_be_missing_only_as_far_as_the_first_who_was_only_heard_of(
    known: int,
) -> None:
    """Where the items of a node belong must not follow from a table with holes."""
    state = World().node(limits=Limits(closest_count=8)).machine.state
    rng = Random(1)
    for number in range(known):
        state.table.proved(Id(rng.randbytes(32)), Address(f"10.0.0.{number}", 1), 1.0)
    far = Id(bytes(255 - byte for byte in state.own))
    before = around_us(state).reach
    state.heard.note([Contact(far)])
    assert around_us(state).reach == min(before, distance(state.own, far) - 1)
    near = Id(bytes([*state.own[:31], state.own[31] ^ 4]))
    state.heard.note([Contact(near)])
    region = around_us(state)
    assert region.reach == 3
    assert not region.holds(near, COUNT)
