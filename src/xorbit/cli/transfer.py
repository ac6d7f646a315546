"""`xorbit put`, `get` and `cid`: files and directories to and from the network.

How they become blocks stands in `files`; here is only what is read, written and said.
"""

from pathlib import Path
from typing import Annotated

import typer

from xorbit.cli.names import (
    STANDARD_STREAM,
    PlaceArgument,
    Stdout,
    check_file_path,
    is_typed,
    may_wait,
    output_to,
    parse_range,
    source_at,
)
from xorbit.cli.options import (
    Bootstrap,
    Hash,
    HashName,
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
    warn_leading_out,
    warn_not_kept,
)
from xorbit.cli.places import Facts, Salt, found_at, named, place_named
from xorbit.cli.tracing import Recorder, Trace
from xorbit.errors import LeadsOutError, MisuseError
from xorbit.files.cid import Place
from xorbit.files.flow import Progress
from xorbit.files.local_tree import cid_of
from xorbit.files.new_tree import Written
from xorbit.files.transfer import WHOLE, PutSummary, Range
from xorbit.files.tree import Found
from xorbit.ids import Id
from xorbit.run.file_calls import FileCalls

PathToRead = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        parser=parse_given,
        help="A file or a directory, or - for standard input; a named pipe is read to its end.",
        show_default=False,
    ),
]

Encrypt = Annotated[
    bool,
    typer.Option(
        "--encrypt",
        help="Seal all of it on this machine, under a new key, which only the printed name holds.",
    ),
]


def put(
    path: PathToRead,
    hash: Hash = HashName.BLAKE3,
    encrypt: Encrypt = False,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Store a file or a whole directory in the network and print its name.

    A directory is stored with everything in it, hidden files too, symbolic links as they are. A
    mirror's own .xorbit-mirror at its top is left out, so a mirror keeps its name. A directory with
    a home of xorbit in it is refused, for its private keys. You are warned of symbolic links
    that lead out of the directory: `get` makes no such link.

    Blocks of 1 KiB and more that the network has already are not sent again: a put that was
    interrupted goes on where it was. At its end the put says how many those were, and by how many
    nodes each block is held. This node counts where it is one of the closest to a block, not for
    the copy that it keeps: with --json, "others_min" is how many others hold each block.

    With --encrypt who holds the blocks can read nothing, not even names. The name that is printed
    opens it for whoever has it, and nothing else does: keep it, and keep it secret. Every such put
    has a new key and a new name, so one that was interrupted begins anew.

    What was put is kept in the home and refreshed from there, until `unpin`. You are warned where
    that has no room for it: others hold it then, until it expires.

    The node that runs on the home does it. Without one, xorbit joins the network for as long as it
    takes: through --bootstrap, or through the peers that the home remembers.
    """
    recorder, kind, source = Recorder(trace, json), hash.kind, source_at(path)
    begun = Begun()

    async def work() -> tuple[PutSummary, Id]:
        async with (
            storing_at(home, bootstrap, network, network_secret) as calls,
            recorder.at(calls, f"put {path}"),
        ):
            own = (await calls.status()).id
            with (
                begun.storing("put", encrypt=encrypt),
                progress("put", hidden=is_typed(path)) as tell,
            ):
                if isinstance(source, Path):
                    putting = recorder.put_tree(source, kind=kind, encrypt=encrypt, progress=tell)
                else:
                    putting = recorder.put_file(source, kind=kind, encrypt=encrypt, progress=tell)
                return await putting, own

    summary, own = finish(work(), at_once=may_wait(path), begun=begun)
    if path != STANDARD_STREAM:
        warn_leading_out(Path(path))
    if json:
        fact_json(
            {
                "cid": str(summary.cid),
                **({"name": summary.name} if encrypt else {}),
                "bytes": summary.bytes,
                "blocks": summary.blocks,
                "holders": [holder.hex() for holder in summary.holders],
                "holders_min": summary.holders_min,
                "others_min": summary.others_min,
                "held_before": summary.held_before,
                "unasked": summary.unasked,
                "not_kept": summary.not_kept,
                **recorder.facts(),
            }
        )
        return
    talk(stored(summary, own))
    warn_not_kept(summary.not_kept)
    fact(summary.name)


def get(
    name: PlaceArgument,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Where to write it; - is standard output."
        ),
    ] = None,
    bytes_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="A-B",
            help="Of a file, only from byte A to byte B, the first being 0; A- is up to the end.",
        ),
    ] = None,
    skip_links: Annotated[
        bool,
        typer.Option(
            "--skip-links",
            help="Of a directory, leave out symbolic links that lead out of it.",
        ),
    ] = False,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Fetch a file from the network to standard output or a path, or a directory to a path.

    A path shows the whole file or directory or what was there before; a file that is replaced keeps
    its permissions. A get to a path that was interrupted goes on where it was. Bytes that prove to
    be wrong are never written. For a directory there must be nothing at the path, or an empty
    folder, which is filled at the end; names and symbolic links that lead out of it are refused,
    unless --skip-links leaves such links out.
    """
    wanted, part, to = place_named(home, name, salt), parse_range(bytes_range), output_to(output)
    if json and not isinstance(to, Path):
        raise MisuseError("--json needs -o PATH: standard output has room for bytes or for facts")
    recorder, version = Recorder(trace, json), Facts()

    async def work() -> tuple[Place, Written]:
        async with (
            calls_at(home, bootstrap, network, network_secret) as calls,
            recorder.at(calls, f"get {wanted}"),
        ):
            place = await version.newest(recorder, wanted)
            with progress("get") as tell:
                found = await found_at(recorder, place, name)
                if found.is_directory and not isinstance(to, Path):
                    raise MisuseError(
                        f"{named(name)} is a directory: say where to write it with -o PATH; "
                        "'xorbit ls' shows it"
                    )
                if found.is_directory and bytes_range is not None:
                    raise MisuseError(f"{named(name)} is a directory: --range is for files")
                if not found.is_directory:
                    check_file_path(output or STANDARD_STREAM)
                return place, await _get(recorder, found, to, part, skip_links, tell)

    place, done = finish(work(), at_once=not isinstance(to, Path))
    if json:
        facts = {"cid": str(place.cid), **version(), **_written(done), "path": output}
        fact_json({**facts, **recorder.facts()})
    elif isinstance(to, Path):
        if done.skipped:
            talk(f"{_count(done.skipped, 'symbolic link')} left out: leading out of the directory")
        files = "" if done.folders == 0 else f" in {_count(done.files, 'file')}"
        there = human_size(done.resumed_bytes)
        resumed = f", going on with {there} that were there" if done.resumed_bytes else ""
        talk(f"{human_size(done.bytes)}{files} written to {output}{resumed}")


async def _get(
    calls: FileCalls,
    found: Found,
    to: Path | Stdout,
    part: Range,
    skip_links: bool,
    tell: Progress | None,
) -> Written:
    if not isinstance(to, Path) or part != WHOLE:
        size = await calls.get_file_to(found, to, progress=tell, part=part)
        return Written(files=1, bytes=size)
    try:
        return await calls.get_tree(found, to, progress=tell, skip_links=skip_links)
    except LeadsOutError as error:
        raise type(error)(f"{error}; --skip-links leaves such links out") from error


def _written(done: Written) -> dict[str, object]:
    facts: dict[str, object] = {"bytes": done.bytes}
    if done.folders:
        facts |= {"files": done.files, "folders": done.folders, "links": done.links}
    if done.skipped:
        facts["skipped"] = done.skipped
    if done.resumed_bytes:
        facts["resumed_bytes"] = done.resumed_bytes
    return facts


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def cid(
    path: PathToRead,
    hash: Hash = HashName.BLAKE3,
    encrypt: Annotated[bool, typer.Option("--encrypt", hidden=True)] = False,
    home: Home = None,  # noqa: ARG001 - every command takes it
    json: Json = False,
) -> None:
    """Print the name of a file or of a whole directory, without a network.

    A directory is named with everything in it, hidden files too. Symbolic links in it are part of
    it as they are, and not followed. A mirror's own .xorbit-mirror at its top is left out: an
    unchanged mirror has the name that `mirror` printed.
    """
    if encrypt:
        raise MisuseError(
            "private content has no name before it is put: each `xorbit put --encrypt` draws a new "
            "key, and so gives a new name"
        )
    found = cid_of(source_at(path), hash.kind)
    if json:
        fact_json({"cid": str(found)})
    else:
        fact(str(found))
