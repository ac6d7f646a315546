"""Whole simulated worlds: stories end well from any seed; the same seed is the same world."""

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from xorbit.core import serve
from xorbit.core.job import HandleRequest, Job
from xorbit.sim import scenario
from xorbit.sim.liars import Lie
from xorbit.sim.run import Result, Simulation, simulate
from xorbit.sim.trial import Trial
from xorbit.wire.message import Store

NODES = 16
MANY = {"eclipse": 60, "liars": 60}
"""How many nodes these stories need: among fewer no liar stands in anybody's way."""
COMING_AND_GOING = """
about = "A few nodes come and go."
nodes = 12
[[phases]]
name = "joining"
seconds = 30
join = 1.0
[[phases]]
name = "churning"
seconds = 300
churn_s = 120
"""
STAYING = """
[[phases]]
name = "staying"
seconds = 600
"""
GOING_AGAIN = """
[[phases]]
name = "churning again"
seconds = 300
churn_s = 60
"""
HALF_DIES = """
about = "Two hold each item; half of the nodes vanishes for good."
nodes = 40
limits = { replicas = 2 }
[[phases]]
name = "joining"
seconds = 30
join = 1.0
[[phases]]
name = "storing"
seconds = 10
calm = true
puts = 60
[[phases]]
name = "half vanishes"
seconds = 10
kill = 0.5
silently = true
"""


def told(name: str, seed: int | str) -> Result:
    return simulate(scenario.load(name).of_nodes(MANY.get(name, NODES)), seed)


def lived(story: str) -> Result:
    return simulate(scenario.parse(story.encode()), 1)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xorbit", "sim", *arguments]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", scenario.names())
def test_each_story_ends_as_expected(name: str) -> None:
    """Nothing acknowledged is lost, nobody reads backwards, every invariant holds at every step."""
    result = told(name, 1)
    assert result.faults == ()
    assert result.ok, result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", scenario.names())
def test_each_story_ends_as_expected_from_a_fresh_seed_too(name: str) -> None:
    trial = Trial(scenario=name, nodes=MANY.get(name, NODES), seed=secrets.token_hex(4))
    result = simulate(trial.story(), trial.seed)
    assert result.ok, f"to repeat it: {shlex.join(trial.words())}\n{result}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", ["1", secrets.token_hex(4)], ids=["fixed seed", "fresh seed"])
def test_a_thousand_nodes_join_and_find_everything(seed: str) -> None:
    wanted = command("--nodes", "1000", "--seed", seed, "--json")
    done = subprocess.run(wanted, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, f"to repeat it: {shlex.join(wanted)}\n{done.stdout}{done.stderr}"
    result = json.loads(done.stdout)
    assert (result["nodes"], result["lookups"], result["gets"]) == (1_000, 1_000, 1_000)
    assert result["items_lost"] == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lie", Lie)
def test_a_fifth_of_liars_does_no_harm_however_they_lie(lie: Lie) -> None:
    story = scenario.load("liars").of_nodes(40)
    phases = tuple(msgspec.structs.replace(phase, lie=lie) for phase in story.phases)
    result = simulate(msgspec.structs.replace(story, phases=phases), 1)
    assert result.ok, result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["plain", "churn", "liars"])
def test_the_same_seed_gives_the_same_trace_whatever_the_order_of_hashes(name: str) -> None:
    hashes = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            command("--scenario", name, "--nodes", "16", "--seed", "5", "--json"),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=500,
        )
        hashes.add(json.loads(done.stdout)["trace_hash"])
    story = scenario.load(name).of_nodes(16)
    assert hashes == {simulate(story, "5").trace_hash}
    assert simulate(story, "6").trace_hash not in hashes


@pytest.mark.timeout(600)
def test_the_jobs_of_one_simulated_node_can_be_replayed(tmp_path: Path) -> None:
    log = tmp_path / "jobs"
    wanted = ("--scenario", "rush", "--nodes", "6", "--log-jobs", "2", str(log), "--json")
    subprocess.run(command(*wanted), capture_output=True, check=True, timeout=500)
    replay = [sys.executable, "-m", "xorbit", "replay", "--json", str(log)]
    done = subprocess.run(replay, capture_output=True, check=True, timeout=60)
    assert b"Bootstrap" in done.stdout
    assert b"Joined" in done.stdout


def raise_on_purpose(*_: object) -> None:
    raise ZeroDivisionError("on purpose")


@pytest.mark.timeout(600)
def test_a_handler_that_raises_names_its_node_whose_log_ends_with_that_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_store", raise_on_purpose)
    simulation = Simulation(scenario.load("plain").of_nodes(6), 1)
    logged: dict[int, list[Job]] = {}
    simulation.world.loggers.append(
        lambda node, job: logged.setdefault(node.number, []).append(job)
    )
    (fault,) = simulation.run().faults
    said = (
        r"a handler raised ZeroDivisionError: on purpose \(.*, node (\d+), stepping HandleRequest"
    )
    match = re.search(said, fault)
    assert match, fault
    last = logged[int(match[1])][-1]
    assert isinstance(last, HandleRequest)
    assert isinstance(last.request, Store)


@pytest.mark.timeout(600)
def test_nobody_goes_in_a_phase_without_churn_and_they_go_again_in_one_with_it() -> None:
    once = lived(COMING_AND_GOING).deaths
    assert once
    assert lived(COMING_AND_GOING + STAYING).deaths == once
    assert lived(COMING_AND_GOING + STAYING + GOING_AGAIN).deaths > once


@pytest.mark.timeout(600)
def test_what_died_with_all_who_held_it_is_excused() -> None:
    result = lived(HALF_DIES)
    assert result.items_excused
    assert (result.items_lost, result.faults, result.ok) == (0, (), True)


@pytest.mark.timeout(600)
def test_a_failing_run_says_how_to_repeat_it(tmp_path: Path) -> None:
    story = tmp_path / "hopeless.toml"
    story.write_text(
        'about = "All are gone for good."\nnodes = 6\n'
        '[[phases]]\nname = "joining"\nseconds = 20\njoin = 1.0\n'
        '[[phases]]\nname = "asking the dead"\nseconds = 20\ncalm = true\nkill = 0.5\n'
        "silently = true\nloss = 0.9\nlookups = 20\n[expected]\nlookups_ok = 1.0\ngets_ok = 1.0\n"
    )
    wanted = command("--scenario", str(story), "--seed", "9")
    done = subprocess.run(wanted, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 1
    assert f"xorbit sim --scenario {story} --seed 9" in done.stderr
