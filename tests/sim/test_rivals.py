"""Rival versions of one record: all holders end with the same, though nobody reads or refreshes it.

With connections that break, nodes that are killed and come back, and nodes that fall mute.
"""

from random import Random

import pytest
from nacl.signing import SigningKey

from tests.world import World
from xorbit.config import Limits
from xorbit.ids import distance
from xorbit.items import make_record, record_key
from xorbit.store.base import Write

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))
LIMITS = Limits(sweep_interval_s=20.0, sweep_settle_s=2.0)


@pytest.mark.parametrize("seed", range(6))
def test_after_losses_and_restarts_all_holders_have_the_version_that_wins(seed: int) -> None:
    rng, world = Random(seed), World(seed)
    nodes = world.network(8, LIMITS)
    world.run(10.0)
    holders = sorted(nodes, key=lambda node: distance(node.id, NAME.id))[: LIMITS.replicas]
    for node in holders:
        version = rng.choice([(4, b"old"), (5, b"a"), (5, b"b")])
        node.store.write([Write(NAME, make_record(KEY, *version))])
    newest = make_record(KEY, 5, b"z")
    rng.choice(holders).store.write([Write(NAME, newest)])
    for _ in range(20):
        node = rng.choice(nodes)
        match rng.choice(("cut", "kill", "mute")):
            case "cut" if node.ends:
                node.cut(rng.choice(list(node.ends)), "bad luck")
            case "kill" if node.alive and sum(each.alive for each in nodes) > 5:
                node.kill()
            case _:
                node.mute = not node.mute
        world.run(rng.choice([0.1, 3.0, 15.0]))
        for node in nodes:
            if not node.alive and rng.random() < 0.5:
                node.restart()
    for node in nodes:
        node.mute = False
        if not node.alive:
            node.restart()
    world.run(600.0)
    kept = {node.store.read([NAME])[0] for node in holders}
    assert kept == {newest}, f"seed {seed}"
