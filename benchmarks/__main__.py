"""`python -m benchmarks [NAME]... [--json]`: run all benchmarks, or those named."""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from benchmarks import fairness, node, queue, store, transfer
from benchmarks.measure import Row, print_table
from xorbit.run.loop import run

BENCHMARKS: dict[str, Callable[[Path], Awaitable[list[Row]]]] = {
    "node": node.rows,
    "store": store.rows,
    "queue": queue.rows,
    "fairness": fairness.rows,
    "transfer": transfer.rows,
}


async def _measure(names: list[str], disk: Path) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr)
        rows += await BENCHMARKS[name](disk)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--disk",
        type=Path,
        default=tempfile.gettempdir(),
        help="a directory on the disk to be measured",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"expected names out of {', '.join(BENCHMARKS)}, got {', '.join(unknown)}")
    rows = run(_measure(options.names or list(BENCHMARKS), options.disk))
    if options.json:
        print(msgspec.json.encode(rows).decode())
    else:
        print_table(rows, f"Python {platform.python_version()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
