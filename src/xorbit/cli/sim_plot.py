"""Pictures of simulations, by matplotlib, which is needed for nothing else.

It is imported only where somebody asks for pictures (`pip install xorbit[plot]`). Colours are those
of Okabe and Ito, told apart by all eyes; lines differ in their markers, too.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib says of most of what it takes by name only that it takes it)

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xorbit.errors import MisuseError
from xorbit.sim.history import History
from xorbit.sim.run import Result
from xorbit.sim.tables import Table
from xorbit.sim.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLES = ("sizes", "liars")
"""The tables that there are pictures of."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = (ORANGE, GREEN, BLUE)
MARKERS = ("o", "s", "^")
MARKER_POINTS = (10, 7, 4)
"""Smaller ones lie on larger ones, where results are the same."""
HOPS_SHOWN = 3
"""As many, at least: one lonely bar looks like a wall."""
LATENCY_S_MIN = 0.01
"""What is faster came from the own disk: that part of the axis would be empty."""
DOTS_PER_INCH = 150
PUBLISHED_LIARS, PUBLISHED_FOUND = 0.2, 0.99


def prepare(folder: Path) -> None:
    """Make sure, before anything is run, that pictures can be made.

    Raises:
        MisuseError: matplotlib is missing.
        OSError: there can be no such directory.
    """
    if find_spec("matplotlib") is None:
        raise MisuseError("--plot needs matplotlib: pip install 'xorbit[plot]'")
    folder.mkdir(parents=True, exist_ok=True)


# --- One run --------------------------------------------------------------------------------------


def plot_run(history: History, title: str, folder: Path) -> list[Path]:
    """Draw how far lookups went, and how long lookups and gets took; return what was written."""
    hops, slow = _figure(), _figure()
    _draw_hops(hops.subplots(), [one.hops for one in history.lookups])
    took_s = {"lookups": [one.took_s for one in history.lookups], "gets": history.get_s}
    _draw_latency(slow.subplots(), took_s)
    return [_save(hops, folder / "hops.png", title), _save(slow, folder / "latency.png", title)]


def _draw_hops(axes: "Axes", hops: Sequence[int]) -> None:
    numbers = range(max(HOPS_SHOWN, *hops, 0) + 1)
    counts = {number: hops.count(number) for number in numbers}
    shares = [100 * count / max(len(hops), 1) for count in counts.values()]
    bars = axes.bar(list(counts), shares, color=BLUE, width=0.7)
    labels = [f"{share:.3g} %" if share else "" for share in shares]
    axes.bar_label(bars, labels, padding=2, fontsize=9)
    axes.set_xticks(list(counts))
    _label(axes, "hops", f"share of {len(hops):,} lookups (%)")
    axes.margins(y=0.1)


def _draw_latency(axes: "Axes", took_s: dict[str, list[float]]) -> None:
    for (name, values), colour, style in zip(
        took_s.items(), (BLUE, ORANGE), ("-", "--"), strict=True
    ):
        if values:
            label = f"{len(values):,} {name}"
            shown = [max(value, LATENCY_S_MIN) for value in values]
            axes.ecdf(shown, color=colour, linestyle=style, linewidth=2, label=label)
    _plain_log(axes)
    axes.set_xlim(left=LATENCY_S_MIN)
    _label(axes, "time taken (s)", "share that was done by then")
    if any(took_s.values()):
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


# --- Tables ---------------------------------------------------------------------------------------


def plot_table(table: Table, results: Sequence[Result | None], folder: Path) -> list[Path]:
    """Draw what there is to draw of a table; return what was written.

    Args:
        table: which one: one of `TABLES`.
        results: those of its rows, in their order; None: that run failed.
        folder: where to.
    """
    pairs = zip(table.rows, results, strict=True)
    done = [(row.trial, result) for row, result in pairs if result is not None]
    if not done:
        return []
    trials, results = [trial for trial, _ in done], [result for _, result in done]
    if table.name == "sizes":
        return [_plot_sizes(trials, results, folder / "sizes.png")]
    assert table.name == "liars", "other tables are refused before they are run"
    return [_plot_liars(trials, results, folder / "liars.png")]


def _plot_sizes(trials: Sequence[Trial], results: Sequence[Result], path: Path) -> Path:
    figure = _figure(wide=True)
    left, right = figure.subplots(1, 2)
    drawn = [
        (left, "hops to the closest node, mean", "lookup_hops_mean"),
        (right, "messages per lookup, mean", "messages_per_lookup"),
    ]
    budgets = sorted({trial.limits["contacts_max"] for trial in trials})
    pairs = sorted(zip(trials, results, strict=True), key=lambda pair: _line_of(pair[0]))
    for (budget, minutes), group in groupby(pairs, key=lambda pair: _line_of(pair[0])):
        of_line = [result for _, result in group]
        number = budgets.index(budget)
        for axes, _, name in drawn:
            axes.plot(
                [result.nodes for result in of_line],
                [getattr(result, name) for result in of_line],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=MARKER_POINTS[number % len(MARKER_POINTS)],
                linestyle="--" if minutes else "-",
                label=_line_name(budget, minutes),
            )
    for axes, what, _ in drawn:
        _plain_log(axes, sorted({result.nodes for result in results}))
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        _label(axes, "nodes in the network", what)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", title="budget of contacts", frameon=False
    )
    return _save(figure, path, "What a lookup costs, by the size of the network")


def _line_of(trial: Trial) -> tuple[float, float]:
    return trial.limits["contacts_max"], trial.churn_minutes


def _line_name(budget: float, minutes: float) -> str:
    return f"{budget:,}, sessions of {minutes:g} min" if minutes else f"{budget:,}, nobody leaves"


def _plot_liars(trials: Sequence[Trial], results: Sequence[Result], path: Path) -> Path:
    figure = _figure()
    axes = figure.subplots()
    shares = [100 * trial.liars for trial in trials]
    for name, of, colour, marker, style in (
        ("lookups find the closest honest node", "lookups_ok", BLUE, "o", "-"),
        ("gets get the item", "gets_ok", ORANGE, "s", "--"),
    ):
        succeeded = [100 * getattr(result, of) for result in results]
        axes.plot(shares, succeeded, color=colour, marker=marker, linestyle=style, label=name)
    point = (100 * PUBLISHED_LIARS, 100 * PUBLISHED_FOUND)
    axes.plot(
        *point,
        color=GREY,
        marker="D",
        markersize=12,
        fillstyle="none",
        linestyle="",
        label="lookups of S/Kademlia, as published (2007)",
    )
    axes.set_ylim(0, 105)
    _label(axes, "colluding liars (% of the nodes)", "success (%)")
    axes.legend(frameon=False, loc="lower left")
    return _save(figure, path, f"Success among {results[0].nodes:,} nodes of which some lie")


# --- What all have in common ----------------------------------------------------------------------


def _figure(*, wide: bool = False) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(10.0, 4.2) if wide else (6.4, 4.2), layout="constrained")


def _label(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _plain_log(axes: "Axes", ticks: Sequence[float] = ()) -> None:
    """Let the axis of x be logarithmic, with numbers as people write them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    def plain(value: float, position: Any) -> str:
        del position
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.xaxis.set_minor_locator(NullLocator())


def _save(figure: "Figure", path: Path, title: str) -> Path:
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
