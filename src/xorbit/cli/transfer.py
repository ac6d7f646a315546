"""`xorbit put`, `get` and `cid`: files to and from the network.

How a file becomes blocks stands in `files`; here is only what is read, written and said.
"""

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from xorbit.api import open_calls
from xorbit.cli.options import (
    Bootstrap,
    Hash,
    HashName,
    Home,
    Json,
    NetworkName,
    NetworkSecret,
    read_secret,
)
from xorbit.cli.output import (
    ExitCode,
    fact,
    fact_json,
    finish,
    held_by,
    human_size,
    leave,
    progress,
    stdout_failed,
    talk,
    warn_not_kept,
)
from xorbit.cli.tracing import Recorder, Trace
from xorbit.errors import MisuseError
from xorbit.files.cid import parse_cid
from xorbit.files.local import Source
from xorbit.files.local_tree import cid_of
from xorbit.files.transfer import PutSummary
from xorbit.ids import Id

STANDARD_STREAM = "-"
LOOKED_AT_BYTES = 2_000
"""How much of what goes to a terminal is looked at for being binary, as curl does."""

PathToRead = Annotated[
    str, typer.Argument(metavar="PATH", help="A file, or - for standard input.", show_default=False)
]
PathToName = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A file or a directory, or - for standard input.",
        show_default=False,
    ),
]


def put(
    path: PathToRead,
    hash: Hash = HashName.BLAKE3,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Store a file in the network and print its name.

    The node that runs on the home does it. Without one, xorbit joins the network for as long as it
    takes: through --bootstrap, or through the peers that the home remembers.
    """
    recorder = Recorder(trace, json)
    secret = read_secret(network_secret)

    async def work() -> tuple[PutSummary, Id]:
        async with (
            open_calls(home, bootstrap=bootstrap or (), network=network, secret=secret) as calls,
            recorder.at(calls, f"put {path}"),
        ):
            own = (await calls.status()).id
            with progress("put") as tell:
                return await recorder.put_file(_source(path), hash.kind, tell), own

    summary, own = finish(work(), at_once=path == STANDARD_STREAM)
    if json:
        fact_json(
            {
                "cid": str(summary.cid),
                "bytes": summary.bytes,
                "blocks": summary.blocks,
                "holders": [holder.hex() for holder in summary.holders],
                "holders_min": summary.holders_min,
                "not_kept": summary.not_kept,
                **recorder.facts(),
            }
        )
        return
    blocks = "1 block" if summary.blocks == 1 else f"{summary.blocks:,} blocks, each"
    at_least = " or more" if summary.blocks > 1 else ""
    nodes = held_by(summary.fewest, own, at_least)
    talk(f"{human_size(summary.bytes)} in {blocks} held by {nodes}")
    warn_not_kept(summary.not_kept)
    fact(str(summary.cid))


def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What `put` printed.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Where to write it; - is standard output."
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Fetch a file from the network to standard output, or to a path.

    A path shows the whole file or what was there before. Bytes that prove to be wrong are never
    written.
    """
    cid = parse_cid(name.strip())  # blanks come with what is copied from a page
    if output == "":
        raise MisuseError("expected a path to write to after -o, got nothing")
    to_path = output is not None and output != STANDARD_STREAM
    if json and not to_path:
        raise MisuseError("--json needs -o PATH: standard output has room for bytes or for facts")
    sink = Path(output) if output is not None and to_path else _Stdout(forced=output is not None)

    recorder = Recorder(trace, json)
    secret = read_secret(network_secret)

    async def work() -> int:
        async with (
            open_calls(home, bootstrap=bootstrap or (), network=network, secret=secret) as calls,
            recorder.at(calls, f"get {cid}"),
        ):
            with progress("get") as tell:
                return await recorder.get_file_to(cid, sink, tell)

    size = finish(work(), at_once=not to_path)
    if json:
        fact_json({"cid": str(cid), "bytes": size, "path": output, **recorder.facts()})
    elif to_path:
        talk(f"{human_size(size)} written to {output}")


def cid(
    path: PathToName,
    hash: Hash = HashName.BLAKE3,
    home: Home = None,  # noqa: ARG001 - every command takes it
    json: Json = False,
) -> None:
    """Print the name of a file or of a whole directory, without a network.

    A directory is named with everything in it, hidden files too. Symbolic links in it are part of
    it as they are, and not followed.
    """
    found = cid_of(_source(path), hash.kind)
    if json:
        fact_json({"cid": str(found)})
    else:
        fact(str(found))


def _source(path: str) -> Source:
    return sys.stdin.buffer if path == STANDARD_STREAM else Path(path)


class _Stdout:
    """Standard output as a sink of bytes; like curl's, it spares terminals what is not text."""

    def __init__(self, *, forced: bool) -> None:
        self._out: BinaryIO = sys.stdout.buffer
        self._guards = sys.stdout.isatty() and not forced

    def __call__(self, data: bytes) -> None:
        if self._guards and b"\0" in data[:LOOKED_AT_BYTES]:
            raise MisuseError(
                "these bytes are no text and may upset your terminal: "
                "write them to a file with -o PATH, or add -o - to see them anyway"
            )
        self._guards = False
        try:
            self._out.write(data)
            self._out.flush()
        except BrokenPipeError:
            leave(ExitCode.PIPE_CLOSED)  # whoever reads has enough
        except OSError as error:
            raise stdout_failed(error) from error
