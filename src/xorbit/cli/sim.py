"""`xorbit sim`: simulated networks of production nodes, from one seed.

What happens in one is told by sim/run.py, what a table is made of by sim/tables.py; here it is put
together from the options and run, and what came of it is shown.
"""

import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from xorbit import __version__
from xorbit.cli import sim_plot as pictures
from xorbit.cli.options import Home, Json
from xorbit.cli.output import ExitCode, fact, fact_columns, fact_json, talk
from xorbit.cli.sim_run import Outcome, cores, perform, perform_all, use_large_pages
from xorbit.cli.sim_shards import shared
from xorbit.cli.sim_show import many_bars, one_bar, show, span
from xorbit.core import joblog
from xorbit.errors import MisuseError, XorbitError
from xorbit.sim import scenario as stories
from xorbit.sim import tables
from xorbit.sim.node import SimNode
from xorbit.sim.run import Result, Simulation
from xorbit.sim.trial import Trial

CHECKED_NODES_MAX = 300
"""In larger worlds the invariants are held after few steps only."""
LARGE_CHECK_EVERY = 1_000
"""So seldom there, and in all worlds of a table: tests hold them at every step."""
_NODE = re.compile(r"\bnode (\d+)\b")


def _parse_limit(text: str) -> tuple[str, int | float]:
    """Return the name and the value that "contacts_max=200" says."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise typer.BadParameter(f"expected NAME=NUMBER, got {text!r}") from error
    return name.strip(), int(number) if number.is_integer() and "." not in value else number


def sim(
    scenario: Annotated[
        str,
        typer.Option(metavar="NAME", help="What happens: a name, or a TOML file (see --list)."),
    ] = "plain",
    nodes: Annotated[
        int | None,
        typer.Option(min=2, help="How many nodes; users in proportion.", show_default="its own"),
    ] = None,
    seed: Annotated[str, typer.Option(help="Decides everything left to chance.")] = "1",
    hours: Annotated[
        float, typer.Option(min=0.0, help="Let so many more hours pass, in virtual time.")
    ] = 0.0,
    churn: Annotated[
        float,
        typer.Option(metavar="MINUTES", min=0.0, help="The median session; 0: nobody leaves."),
    ] = 0.0,
    loss: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Which share of the messages is lost.")
    ] = 0.0,
    liars: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Which share of the nodes lies, colluding.")
    ] = 0.0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A limit of the nodes (config.py) that differs; may be given several times.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Run what a table is made of, on all cores: {', '.join(tables.NAMES)}. Prints "
            "Markdown; takes --nodes (of the largest network), --seed and --limit.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write pictures: hops and latency; of a table, what it shows (needs the extra "
            "xorbit[plot]).",
            show_default=False,
        ),
    ] = None,
    log_jobs: Annotated[
        tuple[int, Path] | None,
        typer.Option(
            metavar="NODE FILE",
            help="Write the jobs of one node's first life, for `xorbit replay`.",
        ),
    ] = None,
    check: Annotated[
        bool | None,
        typer.Option(
            help="Hold every invariant after each step.",
            show_default="in single runs of up to 300 nodes",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios and end.")] = False,
    home: Home = None,  # noqa: ARG001 - every command takes it
    json: Json = False,
) -> int:
    """Simulate a network of production nodes: thousands in one world, exactly repeatable.

    The same seed gives the same trace hash. Ends with exit code 1 where a promise was broken or
    less succeeded than the scenario expects (it expects nothing of the weather that --churn, --loss
    and --liars make), and then names the command that repeats it.
    """
    if list_:
        fact_columns([(name, stories.load(name).about) for name in stories.names()])
        return ExitCode.DONE
    trial = Trial(
        scenario=scenario,
        nodes=nodes,
        seed=seed,
        hours=hours,
        churn_minutes=churn,
        loss=loss,
        liars=liars,
        limits=dict(map(_parse_limit, limit or [])),
    )
    if table is not None:
        return _table(table, trial, plot, check, json, logged=log_jobs is not None)
    return _one(trial, plot, log_jobs, check, json)


# --- One run --------------------------------------------------------------------------------------


def _one(
    trial: Trial,
    plot: Path | None,
    log_jobs: tuple[int, Path] | None,
    check: bool | None,
    json: bool,
) -> int:
    story = trial.story()
    use_large_pages(story.nodes)
    every = 1 if story.nodes <= CHECKED_NODES_MAX else LARGE_CHECK_EVERY
    every = every if check is None else int(check)
    if plot is not None:
        pictures.prepare(plot)
    command = [*trial.words(), *_how_checked(check)]
    try:
        simulation, outcome = _run(trial, every, log_jobs)
    except XorbitError:
        raise
    except Exception:
        _tell_how_to_repeat(command, log_jobs, ())
        raise
    if json:
        fact_json({"scenario": trial.scenario, **outcome.facts()})
    else:
        show(trial.scenario, outcome)
        for fault in outcome.result.faults:
            talk(f"broken: {fault}")
    for missed in _missed(story.expected, outcome.result):
        talk(f"expected more: {missed}")
    if plot is not None:
        title = f"{trial.scenario}: {story.nodes:,} nodes, seed {trial.seed}"
        _tell_written(pictures.plot_run(simulation.history, title, plot))
    if not outcome.result.ok:
        _tell_how_to_repeat(command, log_jobs, outcome.result.faults)
    return ExitCode.DONE if outcome.result.ok else ExitCode.FAILED


def _run(
    trial: Trial, check_every: int, log_jobs: tuple[int, Path] | None
) -> tuple[Simulation, Outcome]:
    story = trial.story()
    if log_jobs is None:
        with shared(trial, check_every) as shards, one_bar() as tell:
            simulation = Simulation(story, trial.seed, check_every=check_every, shards=shards)
            return simulation, perform(simulation, tell)
    simulation = Simulation(story, trial.seed, check_every=check_every)
    number, path = log_jobs
    count = story.nodes + sum(phase.besiege for phase in story.phases)
    if not 0 <= number < count:
        raise MisuseError(f"expected a node from 0 to {count - 1}, got {number}")
    with path.open("wb") as log, one_bar() as tell:
        _log_node(simulation, number, log)
        return simulation, perform(simulation, tell)


def _log_node(simulation: Simulation, number: int, log: BinaryIO) -> None:
    """Write down the jobs of one node, until it dies for the first time.

    Each before it is stepped: the last may be the one that raises.
    """
    has_header = False

    def note(node: SimNode, job: joblog.Job) -> None:
        nonlocal has_header
        if node.number != number or node.life != 1:
            return
        if not has_header:
            has_header = True
            log.write(joblog.encode_header(node.id, node.limits, node.first_seed))
        log.write(joblog.encode_entry(simulation.world.clock.now, job))

    simulation.world.loggers.append(note)


def _missed(expected: stories.Expected, result: Result) -> list[str]:
    """Return what the scenario expects, and what came instead, where that is less."""
    shares = (
        ("lookups", expected.lookups_ok, result.lookups_ok),
        ("gets", expected.gets_ok, result.gets_ok),
        ("puts", expected.puts_ok, result.puts_ok),
    )
    missed = [
        f"{tables.percent(least)} of the {what}, got {tables.percent(share)}"
        for what, least, share in shares
        if share < least
    ]
    if result.items_lost > expected.items_lost:
        missed.append(f"{expected.items_lost:,} items lost at most, got {result.items_lost:,}")
    return missed


def _how_checked(check: bool | None) -> list[str]:
    return [] if check is None else ["--check" if check else "--no-check"]


def _tell_how_to_repeat(
    command: Sequence[str], log_jobs: tuple[int, Path] | None, faults: Sequence[str]
) -> None:
    """Say which command runs the same again, and how to see what one node did in it."""
    again = shlex.join(command)
    if log_jobs is not None:
        number, path = map(str, log_jobs)
        logged, replay = shlex.join(["--log-jobs", number, path]), shlex.join(["replay", path])
        talk(f"not as it should be; to repeat it: {again} {logged}")
        talk(f"to see what node {number} did in its first life: xorbit {replay}")
        return
    talk(f"not as it should be; to repeat it: {again}")
    named = next((match[1] for match in map(_NODE.search, faults) if match), "NODE")
    talk(
        f"to see what one node did in its first life: {again} --log-jobs {named} FILE; "
        "xorbit replay FILE"
    )


def _tell_written(paths: Sequence[Path]) -> None:
    for path in paths:
        talk(f"wrote {path}")


# --- A table --------------------------------------------------------------------------------------


def _table(
    name: str, trial: Trial, plot: Path | None, check: bool | None, json: bool, *, logged: bool
) -> int:
    plan = tables.Plan(trial.nodes, trial.seed, trial.limits)
    if logged or trial != Trial(nodes=trial.nodes, seed=trial.seed, limits=trial.limits):
        raise MisuseError("--table takes only --nodes, --seed, --limit, --check, --plot and --json")
    table = tables.table(name, plan)
    if plot is not None:
        if name not in pictures.TABLES:
            drawn = " and ".join(pictures.TABLES)
            raise MisuseError(f"of the table {name!r} there are no pictures, only of {drawn}")
        pictures.prepare(plot)
    trials = [row.trial for row in table.rows]
    names = [" / ".join(filter(None, row.cells)) for row in table.rows]
    every = LARGE_CHECK_EVERY if check is None else int(check)
    began = datetime.now().astimezone()
    with many_bars(names, [float(one.story().nodes) for one in trials]) as heard:
        outcomes = perform_all(trials, every, heard)
    took_s = (datetime.now().astimezone() - began).total_seconds()
    results = [one.result if isinstance(one, Outcome) else None for one in outcomes]
    if json:
        fact_json(_table_facts(table, outcomes, check))
    else:
        fact(tables.markdown(table, results))
        fact("")
        fact(_printed_by(_table_command(name, trial, check), began, took_s))
    if plot is not None:
        _tell_written(pictures.plot_table(table, results, plot))
    return _judged(table, outcomes, check)


def _table_command(name: str, trial: Trial, check: bool | None) -> str:
    """Return the command that prints a table again."""
    words = ["xorbit", "sim", "--table", name]
    words += [] if trial.nodes is None else ["--nodes", str(trial.nodes)]
    words += [] if trial.seed == Trial().seed else ["--seed", trial.seed]
    for limit, value in trial.limits.items():
        words += ["--limit", f"{limit}={value}"]
    return shlex.join([*words, *_how_checked(check)])


def _printed_by(command: str, began: datetime, took_s: float) -> str:
    count = cores()
    machine = f"{count} core{'s' if count > 1 else ''}"
    return (
        f"Printed by `{command}` (xorbit {__version__}) on {began:%Y-%m-%d}, in {span(took_s)} "
        f"on {machine}."
    )


def _table_facts(
    table: tables.Table, outcomes: Sequence[Outcome | str], check: bool | None
) -> dict[str, object]:
    rows = [
        {
            **dict(zip(table.known, row.cells, strict=True)),
            "command": shlex.join([*row.trial.words(), *_how_checked(check)]),
            "result": outcome.facts() if isinstance(outcome, Outcome) else None,
        }
        for row, outcome in zip(table.rows, outcomes, strict=True)
    ]
    return {"table": table.name, "about": table.about, "rows": rows}


def _judged(table: tables.Table, outcomes: Sequence[Outcome | str], check: bool | None) -> int:
    """Tell every run that failed, lost something or broke another promise.

    What the table says of it is worth nothing.
    """
    code = ExitCode.DONE
    for row, outcome in zip(table.rows, outcomes, strict=True):
        if fault := _broken(row.trial, outcome):
            command = shlex.join([*row.trial.words(), *_how_checked(check)])
            talk(f"broken: {fault}; to repeat it: {command}")
            code = ExitCode.FAILED
    return code


def _broken(trial: Trial, outcome: Outcome | str) -> str | None:
    if isinstance(outcome, str):
        return outcome
    lost, may_be = outcome.result.items_lost, trial.story().expected.items_lost
    lost_ones = (f"{lost:,} items are lost",) if lost > may_be else ()
    return next(iter((*outcome.result.faults, *lost_ones)), None)
