"""`xorbit sim` as a person sees it: summaries, tables, pictures, and what a failing run says."""

import json
import multiprocessing
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Command
from xorbit.cli import sim, sim_plot, sim_run, sim_shards
from xorbit.cli.sim_show import many_bars, one_bar, span
from xorbit.sim import tables
from xorbit.sim.run import Simulation
from xorbit.sim.trial import Trial

FEWER = "replicas=4"
SHORT = """
about = "Three nodes find each other."
nodes = 3
[[phases]]
name = "joining"
seconds = 10
join = 1.0
[[phases]]
name = "using"
seconds = 10
calm = true
puts = 3
gets = 3
lookups = 3
[[phases]]
name = "resting"
seconds = 10
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.fixture
def hopeless(tmp_path: Path) -> Path:
    """A story that demands what cannot be."""
    path = tmp_path / "hopeless.toml"
    path.write_text(SHORT.replace("puts = 3", "puts = 3\nloss = 1.0"))
    return path


# --- One run --------------------------------------------------------------------------------------


def test_the_summary_says_what_came_of_lookups_gets_and_puts(xorbit: Command, short: Path) -> None:
    ran = xorbit("sim", "--scenario", short)
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^lookups +3 +100 %$", ran.out, re.MULTILINE)
    for name in ("gets", "puts", "traffic at rest", "items", "memory", "trace hash"):
        assert re.search(rf"^{name} +\S", ran.out, re.MULTILINE), name
    assert max(map(len, ran.out.splitlines()[1:])) <= 80


def test_a_story_without_rest_says_that_traffic_at_rest_was_not_measured(
    xorbit: Command, tmp_path: Path
) -> None:
    busy = tmp_path / "busy.toml"
    busy.write_text(SHORT.partition('[[phases]]\nname = "resting"')[0])
    assert "not measured" in xorbit("sim", "--scenario", busy).out


def test_json_says_the_same_from_the_same_seed(xorbit: Command, short: Path) -> None:
    words = ("sim", "--scenario", short, "--seed", "4", "--json")
    one, other = (json.loads(xorbit(*words).out) for _ in range(2))
    assert one["trace_hash"] == other["trace_hash"]
    assert {"mb_per_node", "real_s", "ok", "faults", "lookups_ok"} <= one.keys()


def test_limits_can_be_set(xorbit: Command, short: Path) -> None:
    words = ("sim", "--scenario", short, "--json")
    plain, other = json.loads(xorbit(*words).out), xorbit(*words, "--limit", "replicas=1")
    assert json.loads(other.out)["trace_hash"] != plain["trace_hash"]


@pytest.mark.parametrize(
    "words",
    [
        ("--limit", "replicas"),
        ("--limit", "replicas=many"),
        ("--limit", "no_such=1"),
        ("--scenario", "no-such"),
        ("--log-jobs", "99", "log"),
        ("--table", "no-such"),
        ("--table", "sizes", "--churn", "5"),
        ("--table", "parameters", "--plot", "pictures"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    xorbit: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = xorbit("sim", "--nodes", "3", *words)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_a_failing_run_names_its_seed_and_what_repeats_it(xorbit: Command, hopeless: Path) -> None:
    ran = xorbit("sim", "--scenario", hopeless, "--seed", "a b", "--limit", FEWER, "--check")
    assert ran.code == 1
    again = f"xorbit sim --scenario {hopeless} --seed 'a b' --limit {FEWER} --check"
    assert f"to repeat it: {again}\n" in ran.err
    assert f"{again} --log-jobs" in ran.err


def test_a_failing_run_says_what_was_expected(xorbit: Command, hopeless: Path) -> None:
    ran = xorbit("sim", "--scenario", hopeless)
    assert "expected more: 99 % of the lookups, got 0 %\n" in ran.err


def test_what_repeats_a_failing_run_logs_one_nodes_jobs(
    xorbit: Command, hopeless: Path, tmp_path: Path
) -> None:
    """The command that is named runs the same again, and writes a log that can be replayed."""
    first = xorbit("sim", "--scenario", hopeless, "--json")
    said = next(line for line in first.err.splitlines() if "--log-jobs" in line)
    log = tmp_path / "jobs"
    words = said.partition(": xorbit ")[2].partition(";")[0]
    command = shlex.split(re.sub(r"--log-jobs \S+ FILE", f"--log-jobs 1 {log}", words))
    again = xorbit(*command, "--json")
    assert json.loads(again.out)["trace_hash"] == json.loads(first.out)["trace_hash"]
    assert f"--log-jobs 1 {log}" in again.err
    assert f"xorbit replay {log}" in again.err
    assert '"Listening"' in xorbit("replay", "--json", log).out


def test_a_handler_that_raises_is_told_with_what_repeats_it(
    xorbit: Command, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Simulation, "run", raises)
    ran = xorbit("sim", "--scenario", short)
    assert ran.code == 70
    assert f"to repeat it: xorbit sim --scenario {short} --seed 1\n" in ran.err


@pytest.mark.parametrize(
    ("seconds", "said"), [(1.25, "1.2 s"), (90, "90.0 s"), (150, "2.5 min"), (9_000, "2.5 h")]
)
def test_time_is_told_in_a_unit_that_fits(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_on_a_terminal_bars_tell_how_far_each_run_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with many_bars(["small", "large"], [1.0, 3.0]) as heard:
        heard(0, "joining", 1.0)
        heard(1, "settling", 0.5)
    said = capsys.readouterr()
    assert said.out == ""
    for text in ("1 of 2 runs", "large", "settling", "50%", "62%", "left"):
        assert text in said.err
    with one_bar() as tell:
        tell("resting", 0.25)
    assert "resting" in capsys.readouterr().err


# --- One run on several cores -------------------------------------------------------------------


def test_a_large_run_is_shared_by_processes_and_comes_out_the_same(
    xorbit: Command, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sim", "--scenario", short, "--nodes", "6", "--json")
    alone = json.loads(xorbit(*words).out)
    monkeypatch.setattr(sim_shards, "SHARED_NODES_MIN", 2)
    monkeypatch.setattr(sim_shards, "cores", lambda: 4)
    started: list[int] = []
    start = sim_shards._start

    def counted(number: int, *rest: Any) -> Any:
        started.append(number)
        return start(number, *rest)

    monkeypatch.setattr(sim_shards, "_start", counted)
    shared = json.loads(xorbit(*words).out)
    assert started == [1]
    for fact in ("mb_per_node", "real_s"):
        del alone[fact], shared[fact]
    assert shared == alone
    assert not multiprocessing.active_children()


def test_a_run_of_which_a_process_dies_says_so(
    xorbit: Command, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory runs out: nobody waits for it for ever."""
    monkeypatch.setattr(sim_shards, "SHARED_NODES_MIN", 2)
    monkeypatch.setattr(sim_shards, "cores", lambda: 2)
    start = sim_shards._start

    def killed(*words: Any) -> Any:
        pipe, process = start(*words)
        process.kill()
        return pipe, process

    monkeypatch.setattr(sim_shards, "_start", killed)
    ran = xorbit("sim", "--scenario", short)
    assert (ran.code, ran.out) == (1, "")
    assert "a process that shared this run ended with code -9: maybe there was not" in ran.err
    assert not multiprocessing.active_children()


# --- Pictures -------------------------------------------------------------------------------------


def test_pictures_of_a_run_show_hops_and_latency(
    xorbit: Command, short: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "pictures"
    ran = xorbit("sim", "--scenario", short, "--plot", folder)
    assert ran.code == 0
    for name in ("hops.png", "latency.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"wrote {folder / name}" in ran.err


def test_a_run_that_asked_for_nothing_has_pictures_too(
    xorbit: Command, short: Path, tmp_path: Path
) -> None:
    short.write_text(SHORT.replace("= 3\nlookups = 3", "= 0"))
    assert xorbit("sim", "--scenario", short, "--plot", tmp_path / "p").code == 0


def test_where_matplotlib_is_missing_the_extra_is_named(
    xorbit: Command, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is run; and without --plot nothing of it is needed."""
    monkeypatch.setattr(sim_plot, "find_spec", lambda _: None)
    ran = xorbit("sim", "--scenario", short, "--plot", tmp_path / "pictures")
    assert (ran.code, ran.out) == (2, "")
    assert "pip install 'xorbit[plot]'" in ran.err
    assert xorbit("sim", "--scenario", short).code == 0


# --- Tables ---------------------------------------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    """Rows of tables are run here, and are short."""

    def perform_all(
        trials: list[Trial], check_every: int, heard: sim_run.Heard
    ) -> list[sim_run.Outcome | str]:
        story = Trial(scenario=str(short)).story()
        ran = sim_run.perform(Simulation(story, "1", check_every=check_every), lambda *_: None)
        heard(0, "", 1.0)
        return [ran for _ in trials]

    monkeypatch.setattr(sim, "perform_all", perform_all)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["sizes", "liars"])
def test_a_table_prints_markdown_its_command_and_its_picture(
    xorbit: Command, name: str, tmp_path: Path
) -> None:
    words = ("--table", name, "--nodes", "40", "--seed", "x", "--limit", "works_max=99")
    ran = xorbit("sim", *words, "--plot", tmp_path)
    assert ran.code == 0
    assert "\n| " in ran.out
    assert f"`xorbit sim {' '.join(words)}`" in ran.out
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("in_process")
def test_a_table_as_json_has_the_command_of_each_row(xorbit: Command) -> None:
    facts = json.loads(xorbit("sim", "--table", "liars", "--nodes", "40", "--json").out)
    assert facts["table"] == "liars"
    assert [row["liars"] for row in facts["rows"]][:3] == ["0 %", "5 %", "10 %"]
    assert facts["rows"][3]["command"] == (
        "xorbit sim --scenario collusion --nodes 40 --seed 1 --liars 0.2"
    )
    assert facts["rows"][3]["result"]["ok"]


def test_runs_come_back_in_order_from_processes_of_their_own(short: Path) -> None:
    trials = [Trial(scenario=str(short), nodes=nodes) for nodes in (2, 4, 3)]
    heard: dict[int, float] = {}
    outcomes = sim_run.perform_all(
        trials, 1, lambda number, _, share: heard.update({number: share})
    )
    results = [one.result for one in outcomes if isinstance(one, sim_run.Outcome)]
    assert [result.nodes for result in results] == [2, 4, 3]
    assert heard == {0: 1.0, 1: 1.0, 2: 1.0}
    here = sim_run.perform(Simulation(trials[2].story(), "1"), lambda *_: None)
    assert results[2].trace_hash == here.result.trace_hash


def test_a_run_whose_process_dies_is_told(short: Path) -> None:
    """As where memory runs out: nobody waits for it for ever."""

    def kill(*_: object) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    outcomes = sim_run.perform_all([Trial(scenario=str(short))], 1, kill)
    assert outcomes == ["its process ended with code -9"]


def test_a_run_that_raises_in_its_process_is_told(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent has read the story, and its child finds another."""
    start = sim_run.start

    def spoil(*args: Any) -> Any:
        short.write_text("nonsense")
        return start(*args)

    monkeypatch.setattr(sim_run, "start", spoil)
    (why,) = sim_run.perform_all([Trial(scenario=str(short))], 1, lambda *_: None)
    assert isinstance(why, str)
    assert "not a scenario" in why


def test_a_failed_run_is_a_row_that_says_so_and_spoils_no_other(
    xorbit: Command, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform_all = sim.perform_all
    monkeypatch.setattr(sim, "perform_all", lambda *args: [*perform_all(*args)[:-1], "no memory"])
    ran = xorbit("sim", "--table", "liars", "--nodes", "9", "--plot", tmp_path)
    assert ran.code == 1
    assert ran.out.count("failed") == len(tables.table("liars", tables.Plan()).measured)
    assert "no memory; to repeat it: xorbit sim --scenario collusion --nodes 9" in ran.err
    assert (tmp_path / "liars.png").exists()


def test_no_more_runs_at_once_than_there_are_cores_and_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of those that wait the first that fits; where nothing runs, one that never fits, too."""
    monkeypatch.setattr(sim_run, "cores", lambda: 2)
    monkeypatch.setattr(sim_run, "memory_bytes", lambda: 1_500 * sim_run.NODE_BYTES)
    sizes = [1_000, 1_000, 100, 9_999]
    assert sim_run.next_of([0, 1, 2], [], sizes) == 0
    assert sim_run.next_of([1, 2], [0], sizes) == 2
    assert sim_run.next_of([1], [0], sizes) is None
    assert sim_run.next_of([1], [0, 2], sizes) is None
    assert sim_run.next_of([3], [], sizes) == 3
    assert sim_run.next_of([], [], sizes) is None


# --- Huge pages -----------------------------------------------------------------------------------


@pytest.fixture
def begun_anew(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The commands that took the place of this one, with their environments."""
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, env: calls.append((words, env)))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in sim_run.LARGE_PAGES:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_large_network_begins_anew_with_huge_pages(
    begun_anew: list[tuple[list[str], dict[str, str]]],
) -> None:
    """The very same command, and only its memory is another's."""
    sim_run.use_large_pages(sim_run.LARGE_NODES_MIN)
    [(words, env)] = begun_anew
    assert words == [sys.executable, *sys.orig_argv[1:]]
    assert env == {**os.environ, **sim_run.LARGE_PAGES}


@pytest.mark.parametrize("why", ["small", "asked for", "elsewhere"])
def test_others_go_on_as_they_are(
    begun_anew: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "asked for":
        monkeypatch.setenv("PYTHONMALLOC", "debug")
    if why == "elsewhere":
        monkeypatch.setattr(sys, "platform", "darwin")
    sim_run.use_large_pages(sim_run.LARGE_NODES_MIN - (why == "small"))
    assert not begun_anew
