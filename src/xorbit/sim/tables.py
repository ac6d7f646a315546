"""Tables: what is to be run for each, and how the results are written down.

A table is a list of rows, each a trial of its own; whoever runs them hands the results back in the
same order. `markdown` makes of them what docs/simulation.md keeps. Nothing here runs anything.

What S/Kademlia reached is from Baumgart and Mies, "S/Kademlia: A Practicable Approach Towards
Secure Key-Based Routing", ICPADS 2007: 99 % of the lookups succeed with 20 % of 10,000 nodes
against them, without churn.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from xorbit.config import DEFAULT_LIMITS
from xorbit.errors import MisuseError
from xorbit.sim.run import Result
from xorbit.sim.trial import Trial

SIZES = (0.01, 0.1, 1.0)
"""Of the largest network."""
BUDGETS = (200, 1_000, 4_096)
SESSION_MINUTES = (0.0, 60.0)
LIARS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
PUBLISHED = {0.2: "99 %"}
"""The lookup success of S/Kademlia, by the share of liars."""
LOOKUP_PARALLELS = (1, 3, 5, 8)
REPLICAS = (3, 5, 8)
INTERVALS = (
    "ping_interval_s",
    "maintenance_interval_s",
    "contact_silent_s",
    "finger_check_s_max",
    "look_around_s_max",
    "survey_s_max",
)
INTERVAL_FACTORS = (0.5, 2.0, 4.0)

Cell = Callable[[Result], str]


class Row(Struct, frozen=True):
    """One run of a table."""

    cells: tuple[str, ...]
    """What it has in the columns that are known before it is run."""
    trial: Trial


class Table(Struct, frozen=True):
    """Runs that belong together, and what is told of each."""

    name: str
    about: str
    known: tuple[str, ...]
    """The heads of the columns that are known before."""
    measured: tuple[tuple[str, Cell], ...]
    """The heads of the others, and what stands in them."""
    rows: tuple[Row, ...]


class Plan(Struct, frozen=True):
    """What all runs of a table have in common."""

    nodes: int | None = None
    """The size of the (largest) network; None: that of the table."""
    seed: str = "1"
    limits: dict[str, int | float] = {}


# --- What a column says ---------------------------------------------------------------------------


def percent(share: float, of: int = 1) -> str:
    """Return a share as people read it: never rounded up, so that 100 % is all of them.

    Nothing is a share of nothing.
    """
    if not of:
        return "-"
    hundredths = int(share * 10_000 + 1e-9)
    return f"{hundredths / 100:.4g} %"


def _rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:,.0f}"


_FOUND: tuple[str, Cell] = ("found", lambda result: percent(result.lookups_ok, result.lookups))
_GOT: tuple[str, Cell] = ("got", lambda result: percent(result.gets_ok, result.gets))
_HOPS: tuple[str, Cell] = ("hops", lambda result: f"{result.lookup_hops_mean:.2f}")
_HOPS_P99: tuple[str, Cell] = ("hops p99", lambda result: f"{result.lookup_hops_p99:g}")
_MESSAGES: tuple[str, Cell] = ("messages", lambda result: f"{result.messages_per_lookup:.1f}")
_LOOKUP_S: tuple[str, Cell] = ("s p50", lambda result: f"{result.lookup_s_p50:.2f}")
_LOOKUP_S_P99: tuple[str, Cell] = ("s p99", lambda result: f"{result.lookup_s_p99:.2f}")
_GET_S_P99: tuple[str, Cell] = ("get s p99", lambda result: f"{result.get_s_p99:.2f}")
_BYTES: tuple[str, Cell] = ("bytes/s", lambda result: _rate(result.bytes_per_node_per_s))
_CONTACTS: tuple[str, Cell] = ("contacts", lambda result: f"{result.contacts_mean:,.0f}")
_GONE: tuple[str, Cell] = (
    "gone",
    lambda result: f"{result.items_lost + result.items_excused:,} of {result.items:,}",
)

LEGEND = {
    "found": "share of the lookups that found the closest honest node",
    "got": "share of the gets that got the item",
    "hops": "steps from the asker to the closest node, mean of all lookups",
    "messages": "messages of one lookup, questions and answers, mean",
    "s p50": "seconds that half of the lookups took at most",
    "bytes/s": "sent by each node for itself in each second while nobody asks for anything",
    "contacts": "in the routing table of a node at the end, mean",
    "gone": "items that nobody could read at the end",
}
"""What the heads mean; "p99": what 99 of 100 need at most."""


# --- The tables -----------------------------------------------------------------------------------


def _sizes(plan: Plan) -> Table:
    largest = plan.nodes or 10_000
    rows: list[Row] = []
    for share in SIZES:
        for budget in BUDGETS:
            for minutes in SESSION_MINUTES:
                nodes = max(round(share * largest), 2)
                session = f"{minutes:g} min" if minutes else "endless"
                trial = Trial(
                    scenario="measure",
                    nodes=nodes,
                    seed=plan.seed,
                    churn_minutes=minutes,
                    limits={**plan.limits, "contacts_max": budget},
                )
                rows.append(Row((f"{nodes:,}", f"{budget:,}", session), trial))
    return Table(
        "sizes",
        "What a lookup costs, and what a node spends at rest, by the size of the network, the "
        "budget of contacts, and how long half of the sessions last at most.",
        ("nodes", "budget", "sessions"),
        (_HOPS, _HOPS_P99, _MESSAGES, _FOUND, _BYTES, _CONTACTS),
        tuple(rows),
    )


def _liars(plan: Plan) -> Table:
    nodes = plan.nodes or 2_000
    rows = tuple(
        Row(
            (percent(share), PUBLISHED.get(share, "")),
            Trial(
                scenario="collusion",
                nodes=nodes,
                seed=plan.seed,
                liars=share,
                limits=plan.limits,
            ),
        )
        for share in LIARS
    )
    return Table(
        "liars",
        f"Lookups and gets among {nodes:,} nodes of which some lie: they collude, name only each "
        "other and give no item. Beside them what S/Kademlia has published (Baumgart and Mies "
        "2007: lookups among 10,000 nodes without churn).",
        ("liars", "S/Kademlia found"),
        (_FOUND, _GOT, _HOPS, _MESSAGES, _LOOKUP_S, _LOOKUP_S_P99),
        rows,
    )


def _worn(plan: Plan, changed: dict[str, float]) -> Trial:
    limits = {**plan.limits, **changed}
    return Trial(scenario="wear", nodes=plan.nodes, seed=plan.seed, limits=limits)


_WEAR = (
    "Sessions have a median of 15 minutes, for an hour and a half; then a third of the nodes "
    "vanishes, and everything is read."
)
_WORN = (_FOUND, _LOOKUP_S, _LOOKUP_S_P99, _MESSAGES, _GOT, _GET_S_P99, _BYTES, _GONE)


def _parameters(plan: Plan) -> Table:
    parallel, replicas = DEFAULT_LIMITS.lookup_parallel, DEFAULT_LIMITS.replicas
    pairs = [(value, replicas) for value in LOOKUP_PARALLELS]
    pairs += [(parallel, value) for value in REPLICAS if value != replicas]
    rows = tuple(
        Row(
            (f"{alpha}", f"{r}"),
            _worn(plan, {"lookup_parallel": alpha, "replicas": r}),
        )
        for alpha, r in pairs
    )
    about = f"How many nodes a lookup asks at once (alpha), and how many keep an item (r). {_WEAR}"
    return Table("parameters", about, ("alpha", "r"), _WORN, rows)


def _intervals(plan: Plan) -> Table:
    rows = [Row(("as they are", ""), _worn(plan, {}))]
    for name in INTERVALS:
        default = getattr(DEFAULT_LIMITS, name)
        for factor in INTERVAL_FACTORS:
            value = default * factor
            rows.append(Row((name, f"{value:g} s"), _worn(plan, {name: value})))
    about = f"Intervals of upkeep, each shorter and longer than it is. {_WEAR}"
    return Table("intervals", about, ("interval", "is"), _WORN, tuple(rows))


_TABLES: dict[str, Callable[[Plan], Table]] = {
    "sizes": _sizes,
    "liars": _liars,
    "parameters": _parameters,
    "intervals": _intervals,
}
NAMES = tuple(_TABLES)


def table(name: str, plan: Plan) -> Table:
    """Return a table by its name, with nothing run.

    Raises:
        MisuseError: there is none of that name.
    """
    if name not in _TABLES:
        raise MisuseError(f"no table {name!r}; there are: {', '.join(NAMES)}")
    return _TABLES[name](plan)


# --- Writing it down ------------------------------------------------------------------------------


def markdown(of: Table, results: Sequence[Result | None]) -> str:
    """Return a table in Markdown, padded so that it can be read as it is.

    Args:
        of: which one.
        results: those of its rows, in their order; None: that run failed.
    """
    heads = [*of.known, *(head for head, _ in of.measured)]
    lines = [
        [*row.cells, *(cell(result) if result else "failed" for _, cell in of.measured)]
        for row, result in zip(of.rows, results, strict=True)
    ]
    widths = [max(3, *map(len, column)) for column in zip(heads, *lines, strict=True)]
    rule = [f"{'-' * (width - 1)}:" for width in widths]
    table = [_line(cells, widths) for cells in (heads, rule, *lines)]
    legend = "; ".join(f"*{head}*: {LEGEND[head]}" for head, _ in of.measured if head in LEGEND)
    return "\n".join((of.about, "", *table, "", f"{legend}; *p99*: what 99 of 100 need at most."))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
