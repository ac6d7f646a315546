"""The commands: name, arguments, help, function. Nothing else may list them."""

from collections.abc import Callable
from dataclasses import dataclass

from xorbit.core.console import act, show
from xorbit.core.console.line import Line, Started
from xorbit.core.state import State
from xorbit.errors import MisuseError

MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `usage` shows its arguments, of which there are `least` to `most`."""

    usage: str
    help: str
    do: Callable[[State, Line], str | Started]
    least: int = 0
    most: int = 0


def _help(_: State, line: Line) -> str:
    if len(line.words) > 1:
        command = COMMANDS.get(line.words[1].lower())
        if command is None:
            raise MisuseError(f"unknown command {line.words[1]!r}: 'help' lists them all")
        return f"{command.usage}\n  {command.help}"
    width = max(len(command.usage) for command in COMMANDS.values())
    return "\n".join(f"  {it.usage:<{width}}  {it.help}" for it in COMMANDS.values())


_TABLE = (
    Command("help [COMMAND]", "this list, or one command of it", _help, 0, 1),
    Command("status", "who and where this node is", show.status),
    Command("put TEXT", "store a block of this text; its name is the answer", act.put, 1, MANY),
    Command("get NAME", "show a block: as text, or the beginning of its bytes", act.get, 1, 1),
    Command(
        "publish KEYNAME VALUE",
        "sign a value and store it as the newest of its key",
        act.publish,
        0,
        MANY,
    ),
    Command("resolve PUBLICKEY [SALT]", "find the newest record of a key", act.resolve, 1, 2),
    Command(
        "follow PUBLICKEY [SALT]",
        "show each newer record of a key, until cancelled",
        act.follow,
        1,
        2,
    ),
    Command("whereis ID", "find where a node is now", act.whereis, 1, 1),
    Command(
        "lookup ID", "find the nodes closest to an id, each step as it happens", act.lookup, 1, 1
    ),
    Command("ping ID|HOST:PORT", "ask a node whether it is there", act.ping, 1, 1),
    Command("connect HOST:PORT", "open a connection", act.connect, 1, 1),
    Command("disconnect ID", "close the connections to a peer", act.disconnect, 1, 1),
    Command("cancel NUMBER", "end what a line began, as [3] by 'cancel 3'", act.cancel, 1, 1),
    Command("peers", "who is connected", show.peers),
    Command("fingers", "the nearest contact to each finger point", show.fingers),
    Command("buckets", "how many contacts each bucket of the table holds", show.buckets),
    Command("knowns", "addresses worth dialling", show.knowns),
    Command("possibles", "nodes only heard of, not dialled yet", show.possibles),
    Command("jobs", "the queue: what waits from whom, what was served", show.jobs),
    Command("work", "what is in progress: guid, kind, age, what it waits for", show.work),
    Command("trace GUID", "one operation: who was asked, when, what they said", show.trace, 1, 1),
    Command("stop", "finish what is in flight and end the node", act.stop),
    Command("quit", "the same; in `xorbit console` leave it, the node runs on", act.stop),
)

COMMANDS: dict[str, Command] = {command.usage.split()[0]: command for command in _TABLE}
