"""`xorbit pins`, `pin`, `unpin` and `gc`: what a home keeps for its owner.

How pins are told apart and let go of stands in `run`; here is only what is read and said.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import default_home, open_calls
from xorbit.cli.options import Bootstrap, Home, Json, NetworkName, NetworkSecret, calls_at
from xorbit.cli.output import (
    fact,
    fact_columns,
    fact_json,
    finish,
    human_size,
    progress,
    talk,
    text_or_base64,
)
from xorbit.cli.places import salt_from
from xorbit.errors import MisuseError, NotFoundError
from xorbit.files.flow import Progress
from xorbit.files.pointer import TreeVersion, tree_version
from xorbit.keys import public_key_from
from xorbit.pins import Kept, Root
from xorbit.run.calls import Calls
from xorbit.run.pinning import name_of, root_from

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="What `put` printed, or the public key that something is published under, also by "
        "the name of a key of yours.",
        show_default=False,
    ),
]
Salt = Annotated[
    str, typer.Option("--salt", metavar="SALT", help="Of a record: the salt that it has.")
]


def pins(home: Home = None, json: Json = False) -> None:
    """List what this home keeps: what was put, published or pinned, a line for each, latest last.

    SIZE is the bytes of the file, of all files of the directory together, or of the record's value;
    of what was pinned by its name or imported, a block that occurs twice in a directory counts
    once.

    It is kept on disk and refreshed in the network until it is unpinned, whenever a node runs on
    the home. A node need not run for this.
    """

    async def work() -> tuple[Kept, ...]:
        async with open_calls(home, join=False) as calls:
            return await calls.pins()

    found = finish(work())
    now = datetime.now(UTC)
    if json:
        fact_json([_facts(kept, now) for kept in found])
    elif found:
        fact_columns([("NAME", "WHAT", "SIZE", "PUT", "REFRESHED"), *_lines(found, now)])
    else:
        talk("nothing is pinned here")


def _facts(kept: Kept, now: datetime) -> dict[str, object]:
    root = kept.root
    facts: dict[str, object] = {"name": name_of(root), "kind": _kind(root)}
    if root.is_record:
        facts |= text_or_base64("salt", root.salt)
    if root.sealed:
        facts["private"] = True
    return {
        **facts,
        "bytes": root.size,
        "state": root.stage,
        "put_at": _when(kept.put_age_s, now),
        "refreshed_at": _when(kept.refreshed_age_s, now),
    }


def _kind(root: Root) -> str:
    if root.is_record:
        return "record"
    return "directory" if root.is_directory else "file"


def _when(age_s: float | None, now: datetime) -> str | None:
    if age_s is None:
        return None
    return (now - _span(age_s, now)).isoformat(timespec="seconds")


def _span(age_s: float, now: datetime) -> timedelta:
    """Return an age that does not reach behind the beginning of the calendar."""
    return timedelta(seconds=min(age_s, now.timestamp()))


def _lines(found: tuple[Kept, ...], now: datetime) -> list[tuple[str, ...]]:
    return [_line(kept, now) for kept in found]


def _line(kept: Kept, now: datetime) -> tuple[str, ...]:
    root = kept.root
    salt = f" (salt {_salt_shown(root.salt)})" if root.salt else ""
    private = ", private" if root.sealed else ""
    stage = "" if root.stage == "kept" else f", {root.stage}"
    return (
        name_of(root),
        _kind(root) + salt + private + stage,
        human_size(root.size),
        _local(kept.put_age_s, now),
        _local(kept.refreshed_age_s, now),
    )


def _salt_shown(salt: bytes) -> str:
    try:
        return repr(salt.decode())
    except UnicodeDecodeError:
        return repr(salt)


def _local(age_s: float | None, now: datetime) -> str:
    if age_s is None or age_s >= now.timestamp():
        return "-"
    return f"{(now - _span(age_s, now)).astimezone():%Y-%m-%d %H:%M}"


def pin(
    name: Name,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Keep what is in the network, a file, a directory or a record.

    What is missing is fetched, and all of it is refreshed from here. Of a tree published under a
    key its newest version is kept too, under its own name; that of a later version is another pin.

    Private content is kept whole if NAME carries its key; without the key only the block that the
    CID names is. The key itself is not kept, nor does `pins` show it.

    When this is interrupted, nothing is pinned; what was fetched is not fetched again as long as it
    is here.
    """
    wanted, salted = _root_named(home, name, salt), salt_from(salt)

    async def work() -> tuple[Root, TreeVersion | None, Root | None]:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            with progress("pin") as tell:
                version, tree = await _pin_tree(calls, root_from(wanted, salted), tell)
                return await calls.pin(wanted, salted, progress=tell), version, tree

    root, version, tree = finish(work())
    if json:
        fact_json({**_pinned(root), **({} if tree is None else {"tree": _pinned(tree)})})
        return
    if tree is not None and version is not None:
        size = human_size(tree.size)
        talk(f"{size} of its version {version.seq} kept here as well, as {name_of(tree)}")
    talk(f"{human_size(root.size)} kept here")
    fact(name_of(root))


async def _pin_tree(
    calls: Calls, root: Root, tell: Progress | None
) -> tuple[TreeVersion | None, Root | None]:
    """Pin the tree that a record points to, if it points to one."""
    if not root.is_record:
        return None, None
    try:
        version = tree_version(await calls.resolve(root.public_key, root.salt))
    except NotFoundError:
        return None, None  # nobody has the record, which its pin tells; or it is another value
    return version, await calls.pin(version.cid, progress=tell)


def _pinned(root: Root) -> dict[str, object]:
    return {"name": name_of(root), "kind": _kind(root), "bytes": root.size}


def _root_named(home: Path | None, name: str, salt: str) -> str:
    """Return the name of a root; a key of the home may go by its own.

    Raises:
        MisuseError: neither.
    """
    try:
        root_from(name, salt_from(salt))
    except MisuseError as error:
        try:
            return public_key_from(home or default_home(), name).hex()
        except MisuseError:
            raise MisuseError(f"{error}; nor is it the name of a key here") from error
    return name


def unpin(name: Name, salt: Salt = "", home: Home = None, json: Json = False) -> None:
    """Let go of what was put, published or pinned: it is refreshed from here no more.

    Blocks that something else pinned here needs as well stay pinned. The others expire, unless
    somebody else refreshes them; none is removed at once. What is not pinned is an error (3). The
    tree of a record is let go of by its own name.
    """

    async def work() -> int:
        async with open_calls(home, join=False) as calls:
            return await calls.unpin(_root_named(home, name, salt), salt_from(salt))

    _tell_count(finish(work()), json)


def gc(home: Home = None, json: Json = False) -> None:
    """Let go of pins that nothing pinned here needs: those of puts that failed or were killed.

    Reads and writes go on meanwhile; a put or pin under way loses nothing.
    """

    async def work() -> int:
        async with open_calls(home, join=False) as calls:
            return await calls.gc()

    _tell_count(finish(work()), json)


def _tell_count(count: int, json: bool) -> None:
    if json:
        fact_json({"unpinned": count})
    else:
        talk("1 item let go of" if count == 1 else f"{count:,} items let go of")
