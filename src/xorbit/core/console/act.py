"""The commands that do something: each becomes a job of an ordinary local caller."""

from string import hexdigits

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
    unquoted,
)
from xorbit.core.state import State
from xorbit.errors import MisuseError
from xorbit.ids import Id
from xorbit.items import (
    Address,
    Contact,
    ItemKey,
    connection_key,
    key_of,
    make_block,
    parse_address,
    record_key,
)
from xorbit.pins import Root
from xorbit.wire.message import Ping

NO_FILES = "is done where your files are: type it in `xorbit console`, or at `xorbit node` itself"


def put(state: State, line: Line) -> Started:
    """Store a block of the text that was typed; quotes around it are no part of it."""
    if line.words[1] != "-t":
        raise MisuseError(f"storing a file {NO_FILES}; 'put -t TEXT' stores a text")
    text = unquoted(line.rest.removeprefix("-t").strip())
    if not text:
        raise MisuseError("expected a text after 'put -t'")
    block = make_block(text.encode(errors="replace"))
    key = key_of(block)
    what = f"storing {len(block.data)} bytes as {name_of(key)}"
    root = Root(key, size=len(block.data))
    return Started(what, lambda guid: jobs.Store(guid, key, block), root=root)


def get(state: State, line: Line) -> Started:
    """Find a block and show it."""
    key, is_file = parse_name(line.words[1])
    if is_file:
        raise MisuseError(
            f"{line.words[1]} names a file of several blocks, and writing it to a path {NO_FILES}"
        )
    return Started(f"getting {name_of(key)}", lambda guid: jobs.Get(guid, key))


def with_keys(state: State, line: Line) -> str:
    """Say where this is done: a key is a file of the user, and no business of the core."""
    raise MisuseError(f"what needs your keys {NO_FILES}")


def with_pins(state: State, line: Line) -> str:
    """Say where this is done: what a name stands for is known above the core."""
    raise MisuseError(f"what is kept here {NO_FILES}")


def resolve(state: State, line: Line) -> Started:
    """Find the newest record."""
    whose, key = _record(line)
    return Started(f"resolving the record of {whose}", lambda guid: jobs.Get(guid, key))


def follow(state: State, line: Line) -> Started:
    """Show each newer record."""
    whose, key = _record(line)
    number = state.typed_count + 1
    return Started(
        f"following the record of {whose}, each version as it comes: 'cancel {number}' ends it",
        lambda guid: jobs.Follow(guid, key),
    )


def whereis(state: State, line: Line) -> Started:
    """Find a node's own word on where it is."""
    id = parse_id(state, line.words[1])
    known = state.table.get(id)
    here = ", ".join(map(str, known.contact.addresses)) if known else ""
    what = f"known at {here}; asking for its own word" if here else "asking for its own word"
    key = connection_key(id)
    return Started(f"{id.hex()}: {what}", lambda guid: jobs.Get(guid, key))


def lookup(state: State, line: Line) -> Started:
    """Find the closest nodes, showing each step."""
    id = parse_id(state, line.words[1])
    return Started(f"looking up {short(id)}", lambda guid: jobs.LookUp(guid, id), stepwise=True)


def ping(state: State, line: Line) -> Started:
    """Ask a node whether it is there."""
    if _address(line) is not None:
        return connect(state, line)  # a new connection begins with a ping
    id = _other(state, line)
    known = state.table.get(id)
    to = known.contact if known else Contact(id)
    ask = Ping(discovery.dialable_addresses(state))
    return Started(f"asking {short(id)}", lambda guid: jobs.SendRequest(guid, to, ask))


def connect(state: State, line: Line) -> Started:
    """Open a connection, to an address or to a node of which one is known."""
    address = _address(line)
    if address is not None:
        return Started(f"dialling {address}", lambda guid: jobs.Connect(guid, (address,)))
    id = _other(state, line)
    known = state.table.get(id)
    contact = known.contact if known else state.possibles.get(id, Contact(id))
    if not contact.addresses:
        raise MisuseError(f"no address of {short(id)} is known: 'whereis' asks the network for it")
    where = ", ".join(map(str, contact.addresses))
    return Started(
        f"dialling {short(id)} at {where}", lambda guid: jobs.Connect(guid, contact.addresses, id)
    )


def disconnect(state: State, line: Line) -> str:
    """Close the connections to a peer."""
    id = _other(state, line)
    mine = [link for link in state.links.values() if link.peer == id and not link.closing]
    for link in mine:
        links.close(state, link, "closed at the console")
    if not mine:
        raise MisuseError(f"{short(id)} is not connected: 'peers' lists those that are")
    what = f"closing {len(mine)} connection{'' if len(mine) == 1 else 's'} to {short(id)}"
    return f"{what}; whichever of the two wants one opens it again"


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


def _address(line: Line) -> Address | None:
    """Return the address that was typed, None where it is an id."""
    word = line.words[1]
    if ":" in word:
        return parse_address(word)
    if not set(word) <= set(hexdigits):
        raise MisuseError(f"expected an id or HOST:PORT, got {word!r}")
    return None


def _other(state: State, line: Line) -> Id:
    id = parse_id(state, line.words[1])
    if id == state.own:
        raise MisuseError(f"{short(id)} is this node itself")
    return id


def _record(line: Line) -> tuple[str, ItemKey]:
    """Return whose record is meant, as it is shown, and its place."""
    public_key = parse_public_key(line.words[1])
    match line.words[2:]:
        case ():
            return short(public_key), record_key(public_key)
        case ("--salt", salt):
            key = record_key(public_key, unquoted(salt).encode(errors="replace"))
            return f"{short(public_key)} with salt {salt}", key
        case _:
            raise MisuseError(f"usage: {line.words[0]} KEY [--salt SALT]")
