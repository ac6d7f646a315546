"""Regions: who is closest to a point, told from what is known only where that is everybody."""

from random import Random

import pytest

from tests.world import World
from xorbit.config import Limits
from xorbit.core.regions import EVERYWHERE, around, around_us
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
