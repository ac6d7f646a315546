"""The commands: name, arguments, help, function. Nothing else may list them.

The arguments that a usage names (ID, GUID, NAME, PATH, KEY, ...) are also what Tab completes
(cli/prompt.py). Where KEY is a key, a node takes a public key; the name of one of the user's keys
is made one by whoever reads the lines, as are paths and signatures (cli/lines.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from xorbit.config import CONSOLE_WORD_CHARACTERS_MAX
from xorbit.core.console import act, show
from xorbit.core.console.line import Line, Started
from xorbit.core.state import State
from xorbit.errors import MisuseError

MANY = 1_000_000
USAGE_WIDTH = 25
"""A longer usage has a line of its own, so that `help` fits a terminal of 80 columns."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `usage` shows its arguments, of which there are `least` to `most`."""

    usage: str
    help: str
    do: Callable[[State, Line], str | Started]
    least: int = 0
    most: int = 0


def find_command(name: str) -> Command:
    """Return a command.

    Raises:
        MisuseError: there is none of this name; which one may have been meant.
    """
    wanted = name.lower()
    command = COMMANDS.get("quit" if wanted == "exit" else wanted)
    if command is not None:
        return command
    if wanted == "xorbit":
        raise MisuseError("leave out 'xorbit' here: 'help' lists the commands")
    shown = wanted[:CONSOLE_WORD_CHARACTERS_MAX]
    longer = [it for it in COMMANDS if it.startswith(shown)]
    close = longer or get_close_matches(shown, COMMANDS, n=2)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise MisuseError(f"unknown command {shown!r}: {meant}'help' lists them all")


def _help(_: State, line: Line) -> str:
    if len(line.words) > 1:
        command = find_command(line.words[1])
        return f"{command.usage}\n    {command.help}"
    return "\n".join(map(_help_line, COMMANDS.values()))


def _help_line(command: Command) -> str:
    if len(command.usage) > USAGE_WIDTH:
        return f"  {command.usage}\n  {'':<{USAGE_WIDTH}}  {command.help}"
    return f"  {command.usage:<{USAGE_WIDTH}}  {command.help}"


_TABLE = (
    Command("help [COMMAND]", "this list, or one command of it", _help, 0, 1),
    Command("status", "who and where this node is", show.status),
    Command("put PATH | put -t TEXT", "store a file, or a block of the text", act.put, 1, MANY),
    Command("get NAME [-o PATH]", "write a file to a path; without -o show a block", act.get, 1, 1),
    Command("pins", "what this home keeps", act.with_pins),
    Command("pin NAME", "keep a file that is in the network", act.with_pins, 1, 1),
    Command("unpin NAME", "let go of what was put, published or pinned", act.with_pins, 1, 1),
    Command("gc", "let go of pins that nothing kept here needs", act.with_pins),
    Command("keys", "your keys, by name", act.with_keys),
    Command(
        "publish KEYNAME VALUE [--salt SALT] [--cas SEQ]",
        "sign a value and store it as the newest of your key",
        act.with_keys,
        2,
        MANY,
    ),
    Command("resolve KEY [--salt SALT]", "find the newest record of a key", act.resolve, 1, 3),
    Command(
        "follow KEY [--salt SALT]", "show each newer record, until cancelled", act.follow, 1, 3
    ),
    Command("whereis ID", "find where a node is now", act.whereis, 1, 1),
    Command("lookup ID", "find the nodes closest to an id, step by step", act.lookup, 1, 1),
    Command("ping ID|HOST:PORT", "ask a node whether it is there", act.ping, 1, 1),
    Command("connect ID|HOST:PORT", "open a connection", act.connect, 1, 1),
    Command("disconnect ID", "close the connections to a peer", act.disconnect, 1, 1),
    Command("cancel NUMBER", "end what a line began, as [3] by 'cancel 3'", act.cancel, 1, 1),
    Command("peers", "who is connected", show.peers),
    Command("fingers", "the nearest contact to each finger point", show.fingers),
    Command("buckets", "how many contacts each bucket of the table holds", show.buckets),
    Command("knowns", "addresses worth dialling", show.knowns),
    Command("possibles", "nodes only heard of, not dialled yet", show.possibles),
    Command("jobs", "the queue: what waits from whom, what was served", show.jobs),
    Command("work", "what is in progress, and what it waits for", show.work),
    Command("trace GUID", "one operation: who was asked, what they said", show.trace, 1, 1),
    Command("stop", "finish what is in flight and end the node", act.stop),
    Command("quit", "leave `xorbit console`; at the node itself: stop", act.stop),
)

COMMANDS: dict[str, Command] = {command.usage.split()[0]: command for command in _TABLE}
