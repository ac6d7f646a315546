"""`xorbit replay`: step through the jobs that a node has logged, and see what each led to.

The stepping itself is core/joblog.py's; here its jobs and effects are only made readable.
"""

import traceback
from collections.abc import Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, cast

import msgspec
import typer

from xorbit.cli.options import Home, Json
from xorbit.cli.output import fact, fact_json, talk
from xorbit.core import joblog
from xorbit.core.effect import Effect
from xorbit.core.job import Job
from xorbit.items import Address

BYTES_SHOWN = 8
"""How much of long bytes is shown: enough to tell ids apart."""


def replay(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="What `xorbit node --log-jobs` has written.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ],
    first: Annotated[int, typer.Option("--from", min=1, help="The first step to show.")] = 1,
    last: Annotated[
        int | None,
        typer.Option("--to", min=1, help="The last step to show.", show_default="the end"),
    ] = None,
    home: Home = None,  # noqa: ARG001 - every command takes it
    json: Json = False,
) -> None:
    """Step through a log of jobs: show each job and the effects it had.

    The log has all that decided anything, so what happens is what happened then. A job whose
    handler raises is the last.
    """
    with log.open("rb") as source:
        header, entries = joblog.read(source)
        talk(f"node {header.own.hex()}")
        steps = joblog.replay(joblog.new_machine(header), entries)
        number = 0
        for number, (now, job, effects) in enumerate(islice(steps, last), 1):
            if number >= first:
                _show(number, now, job, effects, json)
        if number < first:
            talk(f"nothing to show: expected a step from {first:,} on, got to step {number:,}")


def _show(number: int, now: float, job: Job, effects: list[Effect] | Exception, json: bool) -> None:
    raised = _raised(effects) if isinstance(effects, Exception) else None
    wanted = [] if isinstance(effects, Exception) else effects
    if json:
        step = {"step": number, "now": now, "job": plain(job)}
        step |= {"effects": [plain(effect) for effect in wanted]}
        fact_json(step if raised is None else {**step, "raised": raised})
        return
    fact(f"{number:>6}  {now:.6f}  {compact(job)}")
    for effect in wanted:
        fact(f"{'':>6}  -> {compact(effect)}")
    if raised is not None:
        fact(f"{'':>6}  raised {raised}")


def _raised(error: Exception) -> str:
    """Return an error with the line of the core that it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    file = where.filename.rpartition("/")[2]
    return f"{type(error).__name__}: {error} ({file}, line {where.lineno})"


def compact(value: object) -> str:
    """Return a value in one line, with long bytes shortened."""
    match value:
        case bytes():
            return _short(value)
        case Enum():
            return value.name
        case Address():
            return str(value)
        case msgspec.Struct():
            fields = (f"{name}={compact(part)}" for name, part in _fields(value))
            return f"{type(value).__name__}({', '.join(fields)})"
        case tuple() | list():
            parts = cast(Sequence[object], value)
            return f"[{', '.join(map(compact, parts))}]"
        case _:
            return repr(value)


def plain(value: object) -> object:
    """Return a value as JSON has it: bytes as hexadecimal digits, long ones shortened."""
    match value:
        case bytes():
            return value.hex() if len(value) <= 64 else _short(value)
        case Enum():
            return value.name
        case Address():
            return str(value)
        case msgspec.Struct():
            return {"type": type(value).__name__, **{n: plain(part) for n, part in _fields(value)}}
        case tuple() | list():
            parts = cast(Sequence[object], value)
            return [plain(part) for part in parts]
        case _:
            return value


def _short(data: bytes) -> str:
    if len(data) <= BYTES_SHOWN:
        return data.hex() or '""'
    start = data[:BYTES_SHOWN].hex()
    return f"{start}..." if len(data) <= 64 else f"{start}... ({len(data):,} bytes)"


def _fields(value: msgspec.Struct) -> list[tuple[str, object]]:
    return [(name, getattr(value, name)) for name in value.__struct_fields__]
