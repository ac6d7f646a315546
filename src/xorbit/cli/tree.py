"""`xorbit cat`, `ls` and `stat`: what is inside of what was put.

What a tree is stands in `files`; here is only what is typed and said.
"""

from xorbit.cli.names import PlaceArgument, Stdout
from xorbit.cli.options import Bootstrap, Home, Json, NetworkName, NetworkSecret, calls_at
from xorbit.cli.output import fact_columns, fact_json, finish, quoted, talk
from xorbit.cli.places import Facts, Salt, found_at, named, place_named
from xorbit.errors import MisuseError
from xorbit.files.listing import EntryInfo


def cat(
    name: PlaceArgument,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
) -> None:
    """Write the bytes of a file to standard output, as they come, for a pipe.

    Unlike `get` it asks no terminal whether it wants them.
    """
    place, version = place_named(home, name, salt), Facts()

    async def work() -> None:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            found = await found_at(calls, await version.newest(calls, place), name)
            if found.is_directory:
                raise MisuseError(f"{named(name)} is a directory: 'xorbit ls' shows it")
            await calls.get_file_to(found, Stdout(forced=True))

    finish(work(), at_once=True)


def ls(
    name: PlaceArgument,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List what is in a directory: what it is, its size in bytes, its name.

    The size of a directory is what all its blocks weigh, its own and those below, as its maker
    says; `put`, `get` and `pins` tell the bytes of its files. Of a file the file itself is listed.
    A name with blanks at an end, or with what no terminal shows, is quoted as for a shell; --json
    has it as it is.
    """
    place, version = place_named(home, name, salt), Facts()

    async def work() -> tuple[EntryInfo, ...]:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            return await calls.ls(await version.newest(calls, place))

    found = finish(work())
    if json:
        fact_json([_facts(entry) for entry in found])
    elif found:
        fact_columns([_line(entry) for entry in found])
    else:
        talk("an empty directory")


def stat(
    name: PlaceArgument,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say what is at a name or a path inside it: its own name, what it is, how large.

    "bytes" of a file is what it holds. Of a directory it is what `ls` lists: what all its blocks
    weigh, its own and those below, as its maker says; `put`, `get` and `pins` tell the bytes of its
    files. Of a symbolic link it is the length of its target.
    """
    place, version = place_named(home, name, salt), Facts()

    async def work() -> EntryInfo:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            return await calls.stat(await version.newest(calls, place))

    found = finish(work())
    if json:
        fact_json({**_facts(found), **version()})
        return
    facts = {key: str(value) for key, value in _facts(found).items() if key != "name"}
    fact_columns([(key, quoted(value)) for key, value in facts.items()])


def _facts(entry: EntryInfo) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": entry.name,
        "cid": str(entry.cid),
        "kind": entry.kind,
        "bytes": entry.size,
    }
    if entry.entries is not None:
        facts["entries"] = entry.entries
    if entry.kind == "symlink":
        facts["target"] = entry.target
    return facts


def _line(entry: EntryInfo) -> tuple[str, ...]:
    slash = "/" if entry.is_directory else ""
    arrow = f" -> {quoted(entry.target)}" if entry.kind == "symlink" else ""
    shown = quoted(entry.name) + slash + arrow
    return (entry.kind, f"{entry.size:,}", str(entry.cid), shown)
