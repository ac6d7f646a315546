"""Names of places as they are typed: a CID, a public key or a key of one's own, and a path.

What several commands of files share; no command here.
"""

from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import default_home
from xorbit.cli.output import printable, talk
from xorbit.errors import MisuseError
from xorbit.files.cid import CID_START, Place
from xorbit.files.directory import SymbolicLink
from xorbit.files.names import shown
from xorbit.files.pointer import RecordPlace, TreeVersion, parse_name
from xorbit.files.seal_key import holds_key, keys_hidden
from xorbit.files.tree import Found
from xorbit.items import pasted
from xorbit.keys import public_key_from
from xorbit.run.file_calls import FileCalls

Salt = Annotated[
    str,
    typer.Option(
        "--salt",
        metavar="TEXT",
        help="Which of the key's records: up to 64 bytes.",
        show_default=False,
    ),
]


def salt_from(text: str) -> bytes:
    """Return the salt that was typed."""
    return text.encode(errors="surrogateescape")


def public_key_named(home: Path | None, text: str) -> bytes:
    """Return the public key that is meant; one of the home may go by its name.

    Raises:
        MisuseError: neither; or the name of private content, which has no record.
    """
    if holds_key(text):
        raise MisuseError(
            f"{keys_hidden(text)} names private content, which never changes and stands under no "
            "public key: 'xorbit get' gets it"
        )
    return public_key_from(home or default_home(), text)


def place_named(home: Path | None, text: str, salt: str) -> Place | RecordPlace:
    """Return the place that is meant; a key of the home may go by its name.

    Raises:
        MisuseError: neither a CID nor a public key nor such a name, or a path with what is no name.
    """
    text = pasted(text)
    try:
        return parse_name(text, salt_from(salt))
    except MisuseError as error:
        name, _, path = text.partition("/")
        try:
            public_key = public_key_from(home or default_home(), name)
        except MisuseError:
            if name.startswith(CID_START):
                raise error from None  # then it was meant to be the name of a block
            raise MisuseError(f"{error}; nor is it the name of a key here") from error
    return parse_name(f"{public_key.hex()}/{path}", salt_from(salt))


def named(text: str) -> str:
    """Return a place as it was typed, for a message: without the key of private content."""
    return printable(keys_hidden(pasted(text)))


async def found_at(calls: FileCalls, place: Place, text: str) -> Found:
    """Return the file or the directory at a place, which was typed so.

    Raises:
        MisuseError: a symbolic link is there.
        XorbitError: as `FileCalls.find`.
    """
    found = await calls.find(place)
    if isinstance(found.node, SymbolicLink):
        target = shown(found.node.target)
        raise MisuseError(f"{named(text)} is a symbolic link to {target}: name what it leads to")
    return found


class Facts:
    """Which version of a tree was used, as it is told: once on stderr, and among JSON facts."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._version: TreeVersion | None = None

    async def newest(self, calls: FileCalls, place: Place | RecordPlace) -> Place:
        """Return the place; one that goes by a record is resolved, and the version told of.

        Raises:
            XorbitError: as `FileCalls.place`.
        """
        if isinstance(place, Place):
            return place
        version = self._version = await calls.newest_tree(place)
        talk(f"version {version.seq} of {version.public_key.hex()}: {version.cid}")
        return Place(version.cid, place.path)

    def __call__(self) -> dict[str, object]:
        """Return what JSON says of it, nothing where no record was asked."""
        version = self._version
        return (
            {} if version is None else {"public_key": version.public_key.hex(), "seq": version.seq}
        )
