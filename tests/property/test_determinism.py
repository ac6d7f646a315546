"""The same jobs give the same effects, whatever the interpreter's hash seed.

Run as a program (`python -m tests.property.test_determinism SEED...`) this prints one line for each
seed: a hash of everything that a machine, fed with random jobs, and that the nodes of a small world
wanted done. The tests run it under several PYTHONHASHSEEDs and compare.
"""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec

from tests.property.test_machine import Puppeteer, random_moves
from tests.world import World
from xorbit.config import Limits
from xorbit.core.effect import Effect
from xorbit.ids import Id

ROOT = Path(__file__).parents[2]
SEEDS = [str(seed) for seed in range(12)]
MOVES = 300
SMALL = Limits(workers=3, waiting_requests_max=4, connections_max=8, dials_max=3, contacts_max=12)


def _digest(steps: list[list[Effect]]) -> str:
    digest = sha256()
    for effects in steps:
        digest.update(msgspec.msgpack.encode(effects))
    return digest.hexdigest()


def machine_trace(seed: int) -> str:
    """Return the hash of all effects of one machine that is given random jobs."""
    puppeteer = Puppeteer(Random(seed).randbytes(8), SMALL if seed % 2 else Limits())
    for move in random_moves(Random(seed), MOVES):
        puppeteer.play(move)
    return _digest(puppeteer.trace)


def world_trace(seed: int) -> str:
    """Return the hash of all effects of all nodes in a small world with a few faults."""
    world = World(seed)
    nodes = world.network(6)
    rng = Random(seed)
    for number in range(12):
        node = rng.choice([node for node in nodes if node.alive])
        _, key = node.put(b"%d" % number)
        world.run(rng.random())
        rng.choice(nodes).get(key)
        if number == 4:
            nodes[1].kill()
        if number == 6:
            nodes[2].mute = True
        held = nodes[0].store.keys_from(Id(bytes(32)), 1)
        if number == 8 and held:
            nodes[0].damage(held[0])
    world.run(30.0)
    return _digest([effects for node in nodes for _, _, effects in node.log])


def _traces(hash_seed: str) -> list[str]:
    command = [sys.executable, "-m", "tests.property.test_determinism", *SEEDS]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def test_random_jobs_and_worlds_leave_one_trace_under_every_hash_seed() -> None:
    traces = _traces("0")
    assert len(traces) == len(set(traces)) == 2 * len(SEEDS)  # each seed is another story
    assert _traces("4242") == traces


def test_the_comparison_would_notice_an_order_taken_from_a_set() -> None:
    """The hash seeds used do change the order of a set of ids; so iterating one would show."""
    code = "print([x[:2] for x in {bytes([n]) * 32 for n in range(40)}])"
    orders = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "4242")
    }
    assert len(orders) == 2


def main() -> None:
    for seed in map(int, sys.argv[1:]):
        sys.stdout.write(
            f"machine {seed} {machine_trace(seed)}\nworld {seed} {world_trace(seed)}\n"
        )


if __name__ == "__main__":
    main()
