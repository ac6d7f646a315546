"""Interleaved rounds, and the rows that come out of them.

A figure alone says as much of the machine as of the code. So both sides of each row run in turns,
a round of one, a round of the other, and the ratio is taken round by round: what else the machine
does meanwhile falls on both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from statistics import median
from time import perf_counter

from msgspec import Struct
from rich.console import Console
from rich.table import Table

IN_FLIGHT = 64

Side = Callable[[], Awaitable[float]]
"""Runs one round and returns its figure."""


class Row(Struct, frozen=True):
    """One comparison: the medians of both sides, and their ratio over the rounds."""

    name: str
    unit: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    aim: float | None = None
    at_most: bool = False
    """The aim is an upper bound, not a lower one."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median ratio meets the aim; None where there is none."""
        if self.aim is None or self.ratio is None:
            return None
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim


def compare(
    name: str,
    unit: str,
    pairs: Iterable[tuple[float, float]],
    *,
    aim: float | None = None,
    at_most: bool = False,
    note: str = "",
) -> Row:
    """Return the row of some rounds, each a pair: our figure, and what it is held against."""
    ours, theirs = zip(*pairs, strict=True)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Row(
        name,
        unit,
        median(ours),
        median(theirs),
        median(ratios),
        min(ratios),
        max(ratios),
        aim,
        at_most,
        note,
    )


async def interleave(rounds: int, ours: Side, theirs: Side) -> list[tuple[float, float]]:
    """Run both sides in turns, after one round of each that does not count."""
    await ours()
    await theirs()
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            other = await theirs()
            pairs.append((await ours(), other))
        else:
            mine = await ours()
            pairs.append((mine, await theirs()))
    return pairs


async def rate(calls: Iterable[Callable[[], Awaitable[None]]], in_flight: int = IN_FLIGHT) -> float:
    """Make all calls, so many in flight, and return how many were done in a second."""
    waiting = iter(calls)
    done = 0

    async def caller() -> None:
        nonlocal done
        for call in waiting:
            await call()
            done += 1

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return done / (perf_counter() - began)


def print_table(rows: Iterable[Row], title: str) -> None:
    """Print what was measured."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for heading in ("xorbit", "against", "unit", "ratio", "min - max", "aim", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        spread = "" if row.ratio_min is None else f"{row.ratio_min:.2f} - {row.ratio_max:.2f}"
        aim = "" if row.aim is None else f"{'<=' if row.at_most else '>='} {row.aim:g}"
        table.add_row(
            f"{row.name}\n  [dim]{row.note}[/dim]" if row.note else row.name,
            _figure(row.ours),
            _figure(row.theirs),
            row.unit,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            spread,
            aim,
            {True: "met", False: "missed", None: ""}[row.met],
        )
    Console(width=120).print(table)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
