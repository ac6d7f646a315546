"""Where a home is, and which network it belongs to: noted at its first use, and it keeps to that.

What is kept in a home is pushed to the nodes of its network. Were a secret forgotten on a command
line, everything would go to strangers; so the home itself remembers. A note under which nothing
came, as a name with a slip in it leaves one, may lapse. Nor does the home itself go out, with its
private keys. What a network is stands in identity.py; neither asyncio nor sockets may enter here.
"""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import platformdirs
from msgspec import Struct

from xorbit.errors import MisuseError, WorldError
from xorbit.keyfiles import (
    from_json,
    make_directory,
    read_file,
    read_key,
    remove_file,
    to_json,
    write_new,
    write_over,
)

HOME_VARIABLE = "XORBIT_HOME"
NETWORK_FILE = "network.json"
NODE_KEY_FILE = "node.key"
AUTHORITY_KEY_FILE = "authority.key"
KEYS_DIRECTORY = "keys"
STORE_DIRECTORY = "store"
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


class _Note(Belonging, frozen=True):
    """What stands in the file."""

    for_good: bool = False
    """Whether it stays, whatever comes: a node was started so, an operator made it, or something
    came of it. Homes of an earlier version say nothing of it."""


def belonging(home: Path) -> Belonging | None:
    """Return what network a home belongs to; None where it has not been used yet.

    Raises:
        MisuseError: the note is damaged.
        WorldError: it cannot be read.
    """
    note = _note(home)
    return note and Belonging(note.network, note.kind, note.authority)


def _note(home: Path) -> _Note | None:
    path = home / NETWORK_FILE
    return from_json(read_file(path), _Note, str(path)) if path.exists() else None


def check(home: Path, wanted: Belonging) -> None:
    """Refuse a home that belongs to another network than the one wanted.

    Raises:
        MisuseError: it does, or the note is damaged.
        WorldError: the note cannot be read.
    """
    own = belonging(home)
    if own is not None and own.authority != wanted.authority:
        raise MisuseError(_refusal(own, wanted) + _way_out(home, own))


def bind(home: Path, wanted: Belonging, *, for_good: bool = True) -> None:
    """Note, durably, the network of a home that has none yet; refuse one that has another.

    A note that is not `for_good` may lapse; one that is so already stays so.

    Raises:
        MisuseError: it has, or the note is damaged.
        WorldError: the note cannot be read or written.
    """
    noted = _Note(wanted.network, wanted.kind, wanted.authority, for_good)
    if not (home / NETWORK_FILE).exists():
        make_directory(home)
        write_new(home / NETWORK_FILE, to_json(noted))
    check(home, wanted)  # also against whoever was faster
    if for_good and may_lapse(home):
        write_over(home / NETWORK_FILE, to_json(noted))


def may_lapse(home: Path) -> bool:
    """Return whether nobody has decided yet for how long the home's note stands; see `settle`.

    Raises:
        MisuseError: the note is damaged.
        WorldError: it cannot be read.
    """
    note = _note(home)
    return note is not None and not note.for_good and note.kind != "managed"


def settle(home: Path, *, unused: bool, has_secret: bool) -> None:
    """Let a note lapse under which nothing came; under which something did, it stays for good.

    Call it under the lock of the home's store, which tells whether that is unused. A note of a
    network with a secret gives way only to who has a secret: who forgot it must not get further.

    Raises:
        MisuseError: the note is damaged.
        WorldError: it cannot be read or written.
    """
    own = belonging(home)
    if own is None or not may_lapse(home):
        return
    if not unused:
        bind(home, own)
    elif has_secret or own.kind == "open":
        remove_file(home / NETWORK_FILE)


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


def _way_out(home: Path, own: Belonging) -> str:
    if own.kind == "managed":
        return ""
    files = shlex.join(str(home / name) for name in (STORE_DIRECTORY, NETWORK_FILE))
    return f"; to take it out of that network, with all that only it keeps: rm -r {files}"


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
