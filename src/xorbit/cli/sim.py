"""`xorbit sim`: a simulated network of production nodes, from one seed.

What happens in it is told by sim/run.py; here the story is put together from the options, and the
result is shown.
"""

import gc
import resource
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from xorbit.cli.options import Home, Json
from xorbit.cli.output import CLEAR_LINE, ExitCode, fact_columns, fact_json, talk
from xorbit.core import joblog
from xorbit.sim import scenario as stories
from xorbit.sim.node import SimNode
from xorbit.sim.run import Result, Simulation
from xorbit.sim.scenario import Scenario

CHECKED_NODES_MAX = 300
"""In larger worlds the invariants are held after every hundredth step only."""
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1_024


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
            help="Hold every invariant after each step.", show_default="in worlds of up to 300"
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios and end.")] = False,
    home: Home = None,  # noqa: ARG001 - every command takes it
    json: Json = False,
) -> int:
    """Simulate a network of production nodes: thousands in one process, exactly repeatable.

    The same seed gives the same trace hash. Ends with exit code 1 where a promise was broken or
    less succeeded than the scenario expects, and then names the command that repeats it.
    """
    if list_:
        fact_columns([(name, stories.load(name).about) for name in stories.names()])
        return ExitCode.DONE
    story = _story(scenario, nodes, hours, churn, loss, liars)
    every = 1 if check or (check is None and story.nodes <= CHECKED_NODES_MAX) else 100
    simulation = Simulation(story, seed, check_every=0 if check is False else every)
    began = time.monotonic()
    gc.disable()  # a world is one growing heap of live objects: there is nothing to collect
    try:
        if log_jobs is None:
            result = simulation.run(_progress)
        else:
            with log_jobs[1].open("wb") as log:
                _log_node(simulation, log_jobs[0], log)
                result = simulation.run(_progress)
    finally:
        gc.enable()
        _end_progress()
    _show(result, time.monotonic() - began, json)
    if not result.ok:
        talk(f"not as it should be; to repeat it: {_command()}")
    return ExitCode.DONE if result.ok else ExitCode.FAILED


def _story(
    name: str, nodes: int | None, hours: float, churn: float, loss: float, liars: float
) -> Scenario:
    """Return the scenario with what the options change."""
    story = stories.load(name)
    if nodes is not None:
        story = story.of_nodes(nodes)
    changed = tuple(
        msgspec.structs.replace(
            phase,
            loss=max(phase.loss, loss),
            liars=liars if phase.join and liars else phase.liars,
            churn_s=60 * churn or phase.churn_s,
        )
        for phase in story.phases
    )
    if hours:
        more = stories.Phase(name=f"{hours:g} hours", seconds=3_600 * hours, churn_s=60 * churn)
        changed = (*changed, more)
    return msgspec.structs.replace(story, phases=changed)


def _log_node(simulation: Simulation, number: int, log: BinaryIO) -> None:
    """Write down the jobs of one node, until it dies for the first time."""
    node = simulation.world.nodes[number]
    seed = node.first_seed
    log.write(joblog.encode_header(node.id, node.limits, seed))

    def saw(stepped: SimNode, job: joblog.Job, effects: object) -> None:
        del effects
        if stepped is node and node.life == 1:
            log.write(joblog.encode_entry(simulation.world.clock.now, job))

    simulation.world.watchers.append(saw)


def _progress(name: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"{CLEAR_LINE}{share:4.0%}  {name}", end="", file=sys.stderr, flush=True)


def _end_progress() -> None:
    if sys.stderr.isatty():
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _show(result: Result, real_s: float, json: bool) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    content = msgspec.to_builtins(result)
    content["mb_per_node"] = round(peak / 1e6 / result.nodes, 3)
    content["real_s"] = round(real_s, 1)
    if json:
        fact_json(content)
        return
    faults = content.pop("faults")
    fact_columns([(name, _readable(value)) for name, value in content.items()])
    for fault in faults:
        talk(f"broken: {fault}")


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _command() -> str:
    return shlex.join(["xorbit", *sys.argv[1:]])
