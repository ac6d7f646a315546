"""The commands that do something: each becomes a job of an ordinary local caller."""

from xorbit.core import discovery, links
from xorbit.core import job as jobs
from xorbit.core.console.line import (
    Line,
    Started,
    name_of,
    parse_id,
    parse_name,
    parse_public_key,
    short,
)
from xorbit.core.state import State
from xorbit.errors import MisuseError
from xorbit.items import (
    Contact,
    ItemKey,
    connection_key,
    key_of,
    make_block,
    parse_address,
    record_key,
)
from xorbit.wire.message import Ping

NO_FILES = "type it in `xorbit console`, or use `xorbit {}`: a node does not read your files"


def put(state: State, line: Line) -> Started:
    """Store a block of the text that was typed."""
    text = line.rest.removeprefix("-t").strip() if line.words[1] == "-t" else line.rest
    block = make_block(text.encode(errors="replace"))
    key = key_of(block)
    what = f"storing {len(block.data)} bytes as {name_of(key)}"
    return Started(what, lambda guid: jobs.Store(guid, key, block))


def get(state: State, line: Line) -> Started:
    """Find a block and show it."""
    key, is_file = parse_name(line.words[1])
    if is_file:
        raise MisuseError(
            f"{line.words[1]} names a file of several blocks: {NO_FILES.format('get')}"
        )
    return Started(f"getting {name_of(key)}", lambda guid: jobs.Get(guid, key))


def publish(state: State, line: Line) -> str:
    """Say where publishing is done: a key is a file of the user, and no business of the core."""
    raise MisuseError(f"publishing needs your key: {NO_FILES.format('publish')}")


def resolve(state: State, line: Line) -> Started:
    """Find the newest record."""
    key = _record_key(line)
    return Started(f"resolving {short(key.id)}", lambda guid: jobs.Get(guid, key))


def follow(state: State, line: Line) -> Started:
    """Show each newer record."""
    key = _record_key(line)
    number = state.typed_count + 1
    return Started(
        f"following {short(key.id)}: 'cancel {number}' ends it",
        lambda guid: jobs.Follow(guid, key),
    )


def whereis(state: State, line: Line) -> Started:
    """Find a node's own word on where it is."""
    id = parse_id(state, line.words[1])
    known = state.table.get(id)
    here = ", ".join(map(str, known.contact.addresses)) if known else ""
    what = f"known at {here}; asking for its own word" if here else "asking for its own word"
    key = connection_key(id)
    return Started(f"{short(id)}: {what}", lambda guid: jobs.Get(guid, key))


def lookup(state: State, line: Line) -> Started:
    """Find the closest nodes, showing each step."""
    id = parse_id(state, line.words[1])
    return Started(f"looking up {short(id)}", lambda guid: jobs.LookUp(guid, id), stepwise=True)


def ping(state: State, line: Line) -> Started:
    """Ask a node whether it is there."""
    if ":" in line.words[1]:
        return connect(state, line)  # a new connection begins with a ping
    id = parse_id(state, line.words[1])
    known = state.table.get(id)
    to = known.contact if known else Contact(id)
    ask = Ping(discovery.dialable_addresses(state))
    return Started(f"asking {short(id)}", lambda guid: jobs.SendRequest(guid, to, ask))


def connect(state: State, line: Line) -> Started:
    """Open a connection."""
    address = parse_address(line.words[1])
    return Started(f"dialling {address}", lambda guid: jobs.Connect(guid, (address,)))


def disconnect(state: State, line: Line) -> str:
    """Close the connections to a peer."""
    id = parse_id(state, line.words[1])
    mine = [link for link in state.links.values() if link.peer == id and not link.closing]
    for link in mine:
        links.close(state, link, "closed at the console")
    if not mine:
        raise MisuseError(f"{short(id)} is not connected: 'peers' lists those that are")
    return f"closing {len(mine)} connection{'' if len(mine) == 1 else 's'} to {short(id)}"


def cancel(state: State, line: Line) -> str:
    """End what a line began."""
    number = line.words[1].strip("[]")
    for guid, typed in state.typed.items():
        if str(typed.number) == number:
            line.also = jobs.Cancel(guid)
            return ""
    raise MisuseError(f"nothing in progress has the number {number!r}")


def stop(state: State, line: Line) -> str:
    """End the node."""
    line.also = jobs.Shutdown()
    return "stopping"


def _record_key(line: Line) -> ItemKey:
    salt = line.words[-1].encode(errors="replace") if line.words[2:] else b""
    return record_key(parse_public_key(line.words[1]), salt)
