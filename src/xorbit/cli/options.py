"""The options that several commands share, and how what was typed becomes values.

No command and no output here.
"""

import os
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import Node, open_calls
from xorbit.errors import NoPeersError
from xorbit.items import Kind
from xorbit.run.calls import Calls

DEFAULT_PORT = 9672
"""What the letters X O R B are on a telephone's keys."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class HashName(StrEnum):
    """The hashes by which blocks are named."""

    BLAKE3 = "blake3-256"
    SHA2 = "sha2-256"

    @property
    def kind(self) -> Kind:
        """The kind of block that it makes."""
        return Kind.BLOCK_SHA2_256 if self is HashName.SHA2 else Kind.BLOCK_BLAKE3_256


def parse_size(text: str) -> int:
    """Return the bytes that "500", "64KiB", "1.5G" or "10 GB" says."""
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else _bytes(*match.groups())
    if size < 1:
        raise typer.BadParameter(f"expected a size like 500MB or 10GiB, got {text!r}")
    return size


def _bytes(number: str, unit: str, binary: str) -> int:
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.upper()])


def parse_given(text: str) -> str:
    """Return what was typed for a path or `-`; nothing is not to mean the current folder."""
    if not text:
        raise typer.BadParameter("expected a path, got nothing")
    return text


def parse_path(text: str) -> Path:
    """Return the path that was typed; nothing is not to mean the current folder."""
    return Path(parse_given(text))


def parse_secret_file(text: str) -> Path:
    """Return the path of a file that can be read, though not what it holds."""
    path = Path(text)
    if not text:
        raise typer.BadParameter("expected the name of a file with the secret, got an empty name")
    if not path.exists():
        raise typer.BadParameter(f"file {text!r} does not exist")
    if path.is_dir() or not os.access(path, os.R_OK):
        raise typer.BadParameter(f"{text!r} is not a file that can be read")
    return path


Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        parser=parse_path,
        help="The directory of the node: its key, its store, its memory of peers. It belongs to "
        "one network: the first that a node ran in or that answered.",
        show_default="$XORBIT_HOME, else your data directory",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON, for scripts.")]

Bootstrap = Annotated[
    list[str] | None,
    typer.Option(
        "--bootstrap",
        metavar="HOST:PORT",
        help="A node to join the network through; may be given several times.",
        show_default=False,
    ),
]

NetworkName = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NAME",
        help="The network's public name.",
        show_default="that of the home, else xorbit",
    ),
]

NetworkSecret = Annotated[
    Path | None,
    typer.Option(
        "--network-secret",
        metavar="FILE",
        parser=parse_secret_file,
        help="A file with the secret that the network's members share.",
        show_default=False,
    ),
]

Hash = Annotated[HashName, typer.Option("--hash", help="What names the blocks.")]


def read_secret(path: Path | None) -> bytes | None:
    """Return the secret in a file, if one is named."""
    return None if path is None else path.read_bytes()


def calls_at(
    home: Path | None,
    bootstrap: list[str] | None,
    network: str | None,
    network_secret: Path | None,
) -> AbstractAsyncContextManager[Calls]:
    """Return the calls of whom a command asks: the node on the home, or a client for the moment.

    Raises:
        OSError: the file with the secret cannot be read.
        XorbitError: on entering, as `open_calls`.
    """
    return open_calls(
        home, bootstrap=bootstrap or (), network=network, secret=read_secret(network_secret)
    )


@asynccontextmanager
async def storing_at(
    home: Path | None,
    bootstrap: list[str] | None,
    network: str | None,
    network_secret: Path | None,
) -> AsyncGenerator[Calls]:
    """Give the calls of whom a command asks to store something, as `calls_at`.

    What is stored is kept in the home as well, and belongs to its network from then on. So a client
    that reaches nobody, maybe for a slip in the network's name, stores nothing.

    Raises:
        NoPeersError: nobody could be reached.
        OSError: as `calls_at`.
        XorbitError: as `calls_at`.
    """
    async with calls_at(home, bootstrap, network, network_secret) as calls:
        if isinstance(calls, Node) and calls.alone_because and not await calls.peers():
            raise NoPeersError(calls.alone_because)
        yield calls
