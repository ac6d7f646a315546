"""What may be typed at a node's standard input: one table of commands, each a function to text.

Pure: reads the state, returns what to show. Commands that change something return it as effects.
"""

from collections.abc import Callable

from xorbit.core.effect import Post, Print
from xorbit.core.job import Shutdown
from xorbit.core.state import State


def handle_line(state: State, line: str) -> None:
    """Do what a line says and show the answer; an unknown one is answered with the list."""
    words = line.split()
    if not words:
        return
    command = COMMANDS.get(words[0].lower())
    if command is None:
        state.emit(Print(f"unknown command {words[0]!r}\n{_help(state)}"))
    else:
        state.emit(Print(command[1](state)))


def _help(_: State) -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:<{width}}  {what}" for name, (what, _) in COMMANDS.items())


def _status(state: State) -> str:
    where = ", ".join(map(str, state.listening)) or "nowhere (a client)"
    return (
        f"id {state.own.hex()}\nlistening at {where}\n{len(state.table)} contacts, "
        f"{len(state.link_of)} peers connected, {len(state.works)} works in progress"
    )


def _peers(state: State) -> str:
    lines = [
        f"{peer.hex()}  {state.links[connection].address}"
        for peer, connection in state.link_of.items()
    ]
    return "\n".join(sorted(lines)) or "no peers"


def _stop(state: State) -> str:
    state.emit(Post(Shutdown()))
    return "stopping"


COMMANDS: dict[str, tuple[str, Callable[[State], str]]] = {
    "help": ("this list", _help),
    "status": ("who and where this node is", _status),
    "peers": ("who is connected", _peers),
    "stop": ("finish what is in flight and end", _stop),
}
