"""What a person sees of a simulation: a bar while it runs, and a summary of what came of it.

Nothing here runs anything.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from xorbit.cli.output import fact
from xorbit.cli.sim_run import Heard, Outcome
from xorbit.sim.run import Result, Tell
from xorbit.sim.tables import percent

NAME_WIDTH = 18
CELL_WIDTH = 10
BAR_WIDTH = 20
REMEMBERED_S = 100_000.0
"""The time left is told from the whole run, not from its last seconds: phases differ."""


# --- While it runs --------------------------------------------------------------------------------


@contextmanager
def one_bar() -> Generator[Tell]:
    """Give somebody to tell of one run: a bar, where stderr is a terminal."""
    with _bars() as bar:

        def tell(phase: str, share: float) -> None:
            bar("", phase, share)

        yield tell


@contextmanager
def many_bars(names: list[str], weights: list[float]) -> Generator[Heard]:
    """Give somebody to tell of many runs: a bar for each that is under way, and one for all."""
    shares = [0.0] * len(names)
    with _bars() as bar:
        whole = sum(weights)
        bar("all", f"{len(names)} runs", 0.0)

        def heard(number: int, phase: str, share: float) -> None:
            shares[number] = share
            done = sum(share * weight for share, weight in zip(shares, weights, strict=True))
            bar(names[number], phase, share)
            bar("all", f"{shares.count(1.0)} of {len(names)} runs", done / whole)

        yield heard


Bar = Callable[[str, str, float], None]
"""Hears of which run, what happens in it, and which share of it is over."""


@contextmanager
def _bars() -> Generator[Bar]:
    if not sys.stderr.isatty():
        yield _tell_nobody
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (
        TextColumn("{task.description}"),
        BarColumn(BAR_WIDTH),
        TaskProgressColumn(),
        Left(),
        TextColumn("left  {task.fields[what]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
        speed_estimate_period=REMEMBERED_S,
    ) as bars:

        def tell(name: str, what: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0, what=what)
            bars.update(tasks[name], completed=share, what=what)
            if share >= 1.0:
                bars.remove_task(tasks.pop(name))

        yield tell


def _tell_nobody(name: str, what: str, share: float) -> None:
    del name, what, share


# --- What came of it ------------------------------------------------------------------------------


def show(story: str, outcome: Outcome) -> None:
    """Print the summary of a run."""
    result = outcome.result
    fact(f"{story}: {result.nodes:,} nodes, seed {result.seed}")
    fact("")
    _row("", "count", "success", "mean", "p50", "p99")
    for line in _asked(result):
        _row(*line)
    fact("")
    for name, text in _told(result, outcome):
        fact(f"{name:<{NAME_WIDTH}}{text}")


def _row(name: str, *cells: str) -> None:
    fact((name.ljust(NAME_WIDTH) + "".join(cell.rjust(CELL_WIDTH) for cell in cells)).rstrip())


def _asked(result: Result) -> list[tuple[str, ...]]:
    hops = (f"{result.lookup_hops_p50:g}", f"{result.lookup_hops_p99:g}")
    lookups: list[tuple[str, ...]] = [
        ("  hops", "", "", f"{result.lookup_hops_mean:.2f}", *hops),
        ("  seconds", "", "", "", f"{result.lookup_s_p50:.3f}", f"{result.lookup_s_p99:.3f}"),
        ("  messages", "", "", f"{result.messages_per_lookup:.1f}"),
    ]
    gets = ("  seconds", "", "", "", f"{result.get_s_p50:.3f}", f"{result.get_s_p99:.3f}")
    return [
        ("lookups", f"{result.lookups:,}", percent(result.lookups_ok, result.lookups)),
        *(lookups if result.lookups else ()),
        ("gets", f"{result.gets:,}", percent(result.gets_ok, result.gets)),
        *([gets] if result.gets else ()),
        ("puts", f"{result.puts:,}", percent(result.puts_ok, result.puts)),
    ]


def _told(result: Result, outcome: Outcome) -> list[tuple[str, str]]:
    rate = result.steps / max(outcome.real_s, 1e-9)
    megabytes = outcome.peak_bytes / 1e6
    return [
        ("traffic at rest", _traffic(result)),
        ("items", _items(result)),
        ("contacts", f"{result.contacts_mean:,} per node"),
        ("connections", f"{result.connections_mean:,} per node"),
        ("went wrong", f"{result.deaths:,} deaths, {result.messages_lost:,} messages lost"),
        ("memory", f"{megabytes / result.nodes:.2f} MB per node, {megabytes:,.0f} MB in all"),
        ("steps", f"{result.steps:,}, {rate:,.0f} a second"),
        ("time", f"{span(outcome.real_s)} here for {span(result.virtual_s)} there"),
        ("trace hash", result.trace_hash),
        ("as it should be", "yes" if result.ok else "no"),
    ]


def _items(result: Result) -> str:
    text = f"{result.items:,} acknowledged, {result.items_lost:,} lost, "
    why = " (all who held them are gone, or lie)" if result.items_excused else ""
    return f"{text}{result.items_excused:,} excused{why}"


def _traffic(result: Result) -> str:
    messages, size = result.messages_per_node_per_s, result.bytes_per_node_per_s
    if messages is None or size is None:
        return "not measured: users were never silent for a whole phase"
    return f"{messages:,.2f} messages, {size:,.0f} bytes per node and second"


def span(seconds: float) -> str:
    """Return a stretch of time as people say it."""
    for unit, length_s in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"
