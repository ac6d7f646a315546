"""`xorbit export` and `import`: trees as CARs, files that other tools read and write.

What a CAR is stands in files/car.py; here is only what is read, written and said.
"""

from pathlib import Path
from typing import Annotated

import typer

from xorbit.cli.names import (
    PlaceArgument,
    check_file_path,
    is_typed,
    may_wait,
    output_to,
    source_at,
)
from xorbit.cli.options import (
    Bootstrap,
    Home,
    Json,
    NetworkName,
    NetworkSecret,
    calls_at,
    parse_given,
    storing_at,
)
from xorbit.cli.output import (
    Begun,
    fact,
    fact_json,
    finish,
    human_size,
    progress,
    stored,
    talk,
    warn_not_kept,
)
from xorbit.cli.places import Facts, Salt, place_named
from xorbit.errors import MisuseError
from xorbit.ids import Id
from xorbit.run.pinning import ImportSummary


def export(
    name: PlaceArgument,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Where to write it; - is standard output."
        ),
    ],
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a file or a directory of the network as a CAR (version 1), each block once."""
    to, place, version = output_to(output), place_named(home, name, salt), Facts()
    check_file_path(output)
    if json and not isinstance(to, Path):
        raise MisuseError("--json needs -o PATH: standard output has room for bytes or for facts")

    async def work() -> int:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            with progress("export") as tell:
                return await calls.export_car(await version.newest(calls, place), to, progress=tell)

    size = finish(work(), at_once=not isinstance(to, Path))
    if json:
        fact_json({"bytes": size, "path": output, **version()})
    elif isinstance(to, Path):
        talk(f"{human_size(size)} written to {output}")


def import_(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            parser=parse_given,
            help="A CAR, or - for standard input; a named pipe is read to its end.",
            show_default=False,
        ),
    ],
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Store what is in a CAR (version 1), keep it, and print the names of its roots.

    Each block is held against its hash; one that is larger than 64 KiB is refused. What the CAR
    lacks of its roots is fetched from the network.
    """
    source, begun = source_at(path), Begun()

    async def work() -> tuple[ImportSummary, Id]:
        async with storing_at(home, bootstrap, network, network_secret) as calls:
            own = (await calls.status()).id
            with (
                begun.storing("import"),
                progress("import", hidden=is_typed(path)) as tell,
            ):
                return await calls.import_car(source, progress=tell), own

    done, own = finish(work(), at_once=may_wait(path), begun=begun)
    if json:
        fact_json(_facts(done))
        return
    talk(stored(done, own))
    warn_not_kept(done.not_kept)
    for cid in done.roots:
        fact(str(cid))


def _facts(done: ImportSummary) -> dict[str, object]:
    return {
        "roots": [str(cid) for cid in done.roots],
        "bytes": done.bytes,
        "blocks": done.blocks,
        "holders_min": done.holders_min,
        "others_min": done.others_min,
        "held_before": done.held_before,
        "unasked": done.unasked,
        "not_kept": done.not_kept,
    }
