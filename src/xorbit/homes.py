"""Where a home is, and which network it belongs to: noted at its first use, and it keeps to that.

What is kept in a home is pushed to the nodes of its network. Were a secret forgotten on a command
line, everything would go to strangers; so the home itself remembers. Nor does the home itself go
out, with its private keys. What a network is stands in identity.py; neither asyncio nor sockets may
enter here.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import platformdirs
from msgspec import Struct

from xorbit.errors import MisuseError, WorldError
from xorbit.keyfiles import from_json, make_directory, read_file, read_key, to_json, write_new

HOME_VARIABLE = "XORBIT_HOME"
NETWORK_FILE = "network.json"
NODE_KEY_FILE = "node.key"
AUTHORITY_KEY_FILE = "authority.key"
KEYS_DIRECTORY = "keys"
KEY_SUFFIX = ".pem"
DEFAULT_NETWORK = "xorbit"

NetworkKind = Literal["open", "secret", "managed"]


def default_home() -> Path:
    """Return the home of a node that names none: `XORBIT_HOME`, else the user's data directory."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("xorbit")


class Belonging(Struct, frozen=True):
    """The network of a home: what makes it that one, and what its owner knows it by."""

    network: str
    """Its name."""
    kind: NetworkKind
    authority: str
    """The authority's public key, in hexadecimal digits."""

    def __str__(self) -> str:
        """Say which it is, as in "this home belongs to ..."."""
        if self.kind == "secret":
            return f"network {self.network!r} with a secret"
        return f"the {self.kind} network {self.network!r}"


def belonging(home: Path) -> Belonging | None:
    """Return what network a home belongs to; None where it has not been used yet.

    Raises:
        MisuseError: the note is damaged.
        WorldError: it cannot be read.
    """
    path = home / NETWORK_FILE
    return from_json(read_file(path), Belonging, str(path)) if path.exists() else None


def check(home: Path, wanted: Belonging) -> None:
    """Refuse a home that belongs to another network than the one wanted.

    Raises:
        MisuseError: it does, or the note is damaged.
        WorldError: the note cannot be read.
    """
    own = belonging(home)
    if own is not None and own.authority != wanted.authority:
        raise MisuseError(_refusal(own, wanted))


def bind(home: Path, wanted: Belonging) -> None:
    """Note, durably, the network of a home that has none yet; refuse one that has another.

    Raises:
        MisuseError: it has, or the note is damaged.
        WorldError: the note cannot be read or written.
    """
    if not (home / NETWORK_FILE).exists():
        make_directory(home)
        write_new(home / NETWORK_FILE, to_json(wanted))
    check(home, wanted)  # also against whoever was faster


def refuse_keys(folder: Path, names: Iterable[str]) -> None:
    """Refuse to give away private keys of a home, which anybody could read and act with.

    Args:
        folder: Where the files are.
        names: What they are called; only those that a home has keys in are opened.

    Raises:
        MisuseError: one holds such a key; names the home.
    """
    for name in names:
        path = folder / name
        in_keys = folder.name == KEYS_DIRECTORY and name.endswith(KEY_SUFFIX)
        if (in_keys or name in (NODE_KEY_FILE, AUTHORITY_KEY_FILE)) and _holds_key(path):
            home = os.fsencode(folder.parent if in_keys else folder)
            raise MisuseError(
                f"{home.decode(errors='backslashreplace')} is a home of xorbit, with private keys "
                f"({path.name}) that nobody else may have: put something without them"
            )


def _holds_key(path: Path) -> bool:
    try:
        read_key(path, private=False)
    except (MisuseError, WorldError):
        return False  # another program's, or one that cannot be read to be put either
    return True


def _refusal(own: Belonging, wanted: Belonging) -> str:
    if own.kind == wanted.kind == "secret" and own.network == wanted.network:
        return (
            f"this home belongs to network {own.network!r} with another secret: "
            "give that one, or use another --home"
        )
    advice = f"{_advice(own)}, or use another --home"
    if wanted.kind == "managed":
        advice = "use another --home"
    return f"this home belongs to {own}: {advice}"


def _advice(own: Belonging) -> str:
    named = "" if own.network == DEFAULT_NETWORK else f"--network {own.network!r}"
    match own.kind:
        case "secret":
            return f"give {named} and --network-secret" if named else "give --network-secret"
        case "open" if named:
            return f"give {named} and no secret"
        case "open":
            return "give neither --network nor --network-secret"
        case "managed":
            return "put its membership.json back with 'xorbit network join FILE'"
