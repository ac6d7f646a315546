"""Tables of simulated networks: what is run for them, and how it is written down."""

import shlex
from typing import get_type_hints

import pytest

from xorbit.config import DEFAULT_LIMITS
from xorbit.errors import MisuseError
from xorbit.sim import tables
from xorbit.sim.run import Result
from xorbit.sim.scenario import parse
from xorbit.sim.tables import Plan, markdown, percent, table
from xorbit.sim.trial import Trial

STORY = b"""
about = "Short."
nodes = 10
asked_max = 30
[limits]
replicas = 4
[[phases]]
name = "joining"
seconds = 5
join = 1.0
[[phases]]
name = "asking"
seconds = 5
gets = 20
"""


def some_result(**known: object) -> Result:
    empty = {int: 0, float: 0.0, float | None: 0.0, str: "", bool: True}
    fields = {name: empty.get(kind, ()) for name, kind in get_type_hints(Result).items()}
    return Result(**{**fields, **known})


# --- Trials ---------------------------------------------------------------------------------------


def test_a_trial_names_the_command_that_runs_it() -> None:
    trial = Trial(
        scenario="measure",
        nodes=20,
        seed="a b",
        churn_minutes=60.0,
        loss=0.125,
        limits={"contacts_max": 1_048_576, "hedge_s_min": 0.25},
    )
    assert shlex.join(trial.words()) == (
        "xorbit sim --scenario measure --nodes 20 --seed 'a b' --churn 60 --loss 0.125 "
        "--limit contacts_max=1048576 --limit hedge_s_min=0.25"
    )


def test_churn_begins_when_all_have_joined() -> None:
    """It takes those who live when it begins, and nobody does before the joining."""
    phases = Trial(scenario="plain", churn_minutes=2.0, hours=1.0).story().phases
    assert [phase.churn_s for phase in phases] == [0.0, *([120.0] * (len(phases) - 1))]
    assert phases[-1].seconds == 3_600


@pytest.mark.parametrize("name", ["churn_minutes", "loss", "liars"])
def test_another_weather_holds_to_the_end_and_is_not_what_the_scenario_expects(name: str) -> None:
    story = Trial(scenario="plain", hours=1.0, **{name: 0.1}).story()
    assert (story.expected.lookups_ok, story.expected.gets_ok, story.expected.puts_ok) == (0, 0, 0)
    assert story.expected.items_lost == Trial(scenario="plain").story().expected.items_lost
    if name == "loss":
        assert {phase.loss for phase in story.phases} == {0.1}


def test_liars_are_among_those_that_join() -> None:
    phases = Trial(scenario="plain", liars=0.2, loss=0.1).story().phases
    assert [phase.liars for phase in phases if phase.join] == [0.2]
    assert {phase.loss for phase in phases} == {0.1}


def test_a_trials_limits_come_on_top_of_the_scenarios() -> None:
    limits = Trial(limits={"contacts_max": 200}).story().node_limits()
    assert limits.contacts_max == 200
    assert limits.replicas == DEFAULT_LIMITS.replicas


@pytest.mark.parametrize(
    "limits", [{"contact_max": 200}, {"contacts_max": 0}, {"replicas": 2.5}, {"replicas": 10_000}]
)
def test_a_limit_that_cannot_be_is_wrong_usage(limits: dict[str, int | float]) -> None:
    with pytest.raises(MisuseError):
        Trial(limits=limits).story()


# --- Scenarios ------------------------------------------------------------------------------------


def test_a_scenarios_limits_are_held_against_those_that_there_are() -> None:
    assert parse(STORY).node_limits().replicas == 4
    with pytest.raises(MisuseError, match="no limit is named 'replica'"):
        parse(STORY.replace(b"replicas", b"replica"))


def test_users_grow_with_the_network_up_to_what_the_scenario_allows() -> None:
    gets = [parse(STORY).of_nodes(count).phases[1].gets for count in (1, 5, 10, 1_000)]
    assert gets == [2, 10, 20, 30]


# --- What is run ----------------------------------------------------------------------------------


def test_sizes_has_a_run_for_each_size_budget_and_session() -> None:
    rows = table("sizes", Plan()).rows
    asked = [
        (row.trial.nodes, row.trial.limits["contacts_max"], row.trial.churn_minutes) for row in rows
    ]
    sizes, budgets, sessions = (100, 1_000, 10_000), (200, 1_000, 4_096), (0.0, 60.0)
    assert asked == [(n, budget, s) for n in sizes for budget in budgets for s in sessions]


def test_liars_has_a_run_for_each_share_at_2000_nodes() -> None:
    rows = table("liars", Plan()).rows
    assert [row.trial.liars for row in rows] == [0.0, 0.05, 0.1, 0.2, 0.3, 0.5]
    assert {row.trial.nodes for row in rows} == {2_000}
    assert [row.cells[1] for row in rows] == ["", "", "", "99 %", "", ""]


def test_parameters_holds_one_at_its_default_while_the_other_changes() -> None:
    rows = table("parameters", Plan()).rows
    pairs = [(row.trial.limits["lookup_parallel"], row.trial.limits["replicas"]) for row in rows]
    default = (DEFAULT_LIMITS.lookup_parallel, DEFAULT_LIMITS.replicas)
    assert {alpha for alpha, r in pairs if r == default[1]} >= {1, 3, 5, 8}
    assert {r for alpha, r in pairs if alpha == default[0]} >= {3, 5, 8}
    assert len(set(pairs)) == len(pairs)


def test_intervals_changes_one_at_a_time() -> None:
    first, *rows = table("intervals", Plan()).rows
    assert first.trial.limits == {}
    for row in rows:
        ((name, value),) = row.trial.limits.items()
        assert value != getattr(DEFAULT_LIMITS, name)
        assert row.cells == (name, f"{value:g} s")


@pytest.mark.parametrize("name", tables.NAMES)
def test_every_row_of_every_table_can_be_run(name: str) -> None:
    """Its scenario is there, its limits may be so, and the plan holds for each."""
    plan = Plan(nodes=40, seed="s", limits={"works_max": 99})
    for row in table(name, plan).rows:
        story = row.trial.story()
        assert story.nodes <= 40
        assert row.trial.seed == "s"
        assert story.node_limits().works_max == 99


def test_a_table_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(MisuseError, match="no table 'size'; there are: sizes, liars"):
        table("size", Plan())


# --- How it is written down -----------------------------------------------------------------------


def test_markdown_has_a_line_for_each_run_under_aligned_heads() -> None:
    liars = table("liars", Plan())
    results = [some_result(lookups=100, lookups_ok=1 - row.trial.liars) for row in liars.rows]
    lines = [line for line in markdown(liars, results).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(liars.rows)
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[5].split("|")[1:4]]
    assert cells == ["20 %", "99 %", "80 %"]


def test_every_head_that_needs_it_is_explained() -> None:
    for name in tables.NAMES:
        of = table(name, Plan())
        text = markdown(of, [some_result() for _ in of.rows])
        assert all(f"*{head}*" in text for head, _ in of.measured if head in tables.LEGEND)


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100 %"), (0.99999, "99.99 %"), (0.9995, "99.95 %"), (0.2, "20 %"), (0.0, "0 %")],
)
def test_a_share_is_never_rounded_up(share: float, said: str) -> None:
    assert percent(share) == said


def test_nothing_is_a_share_of_nothing() -> None:
    assert percent(1.0, 0) == "-"
