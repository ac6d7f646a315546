"""Whole simulated worlds: stories end well from any seed; the same seed is the same world."""

import json
import os
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from xorbit.sim import scenario
from xorbit.sim.run import Result, simulate
from xorbit.sim.trial import Trial

NODES = 16


def told(name: str, seed: int | str, nodes: int = NODES) -> Result:
    return simulate(scenario.load(name).of_nodes(nodes), seed)


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
    trial = Trial(scenario=name, nodes=NODES, seed=secrets.token_hex(4))
    result = simulate(trial.story(), trial.seed)
    assert result.ok, f"to repeat it: {shlex.join(trial.words())}\n{result}"


@pytest.mark.timeout(600)
def test_the_same_seed_gives_the_same_trace_whatever_the_order_of_hashes() -> None:
    hashes = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            command("--nodes", "16", "--seed", "5", "--json"),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=500,
        )
        hashes.add(json.loads(done.stdout)["trace_hash"])
    assert len(hashes) == 1
    assert told("plain", "5", 16).trace_hash in hashes
    assert told("plain", "6", 16).trace_hash not in hashes


@pytest.mark.timeout(600)
def test_the_jobs_of_one_simulated_node_can_be_replayed(tmp_path: Path) -> None:
    log = tmp_path / "jobs"
    wanted = ("--scenario", "rush", "--nodes", "6", "--log-jobs", "2", str(log), "--json")
    subprocess.run(command(*wanted), capture_output=True, check=True, timeout=500)
    replay = [sys.executable, "-m", "xorbit", "replay", "--json", str(log)]
    done = subprocess.run(replay, capture_output=True, check=True, timeout=60)
    assert b"Bootstrap" in done.stdout
    assert b"Joined" in done.stdout


@pytest.mark.timeout(600)
def test_a_failing_run_says_how_to_repeat_it(tmp_path: Path) -> None:
    story = tmp_path / "hopeless.toml"
    story.write_text(
        'about = "All are gone for good."\nnodes = 6\n'
        '[[phases]]\nname = "joining"\nseconds = 20\njoin = 1.0\n'
        '[[phases]]\nname = "asking the dead"\nseconds = 20\ncalm = true\nkill = 0.5\n'
        "silently = true\nlookups = 20\n[expected]\nlookups_ok = 1.0\ngets_ok = 1.0\n"
    )
    wanted = command("--scenario", str(story), "--seed", "9", "--loss", "0.9")
    done = subprocess.run(wanted, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 1
    assert f"xorbit sim --scenario {story} --seed 9 --loss 0.9" in done.stderr
