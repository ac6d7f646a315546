"""What may be typed at a node: a line in, text out.

One table of commands (table.py) serves standard input and every attached console. What the state
tells at once is answered at once (show.py). What takes time becomes a job like any local caller's
(act.py); its outcome is text too (tell.py), under the number that the line was given. Pure: no
files, no keys, no clock; what needs files and keys is done by whoever reads the lines
(cli/lines.py).
"""

from typing import Literal

from xorbit.config import CONSOLE_TEXT_CHARACTERS_MAX
from xorbit.core.console.line import Line, Started
from xorbit.core.console.table import COMMANDS, find_command
from xorbit.core.console.tell import is_failure, outcome_text, pushed_text, step_text
from xorbit.core.effect import Finish, OrderPins, Print, Pushed
from xorbit.core.job import HandleStdinLine, Job
from xorbit.core.state import State, Typed
from xorbit.errors import MisuseError
from xorbit.ids import Guid
from xorbit.pins import AddRoot

__all__ = ["COMMANDS", "cancelled", "handle_line", "tell"]


def handle_line(state: State, job: HandleStdinLine) -> Job | None:
    """Answer a line, or return the job that it stands for."""
    line = Line.of(job)
    try:
        answer = _answer(state, line)
    except MisuseError as error:
        text = str(error)[:CONSOLE_TEXT_CHARACTERS_MAX]
        state.emit(Print(text, job.session, fault="misuse"))
        return None
    if isinstance(answer, str):
        if answer or job.session is not None:
            state.emit(Print(answer, job.session))
        return line.also
    return _begin(state, job.session, line, answer)


def tell(state: State) -> None:
    """Show what this step brought for the lines that are in progress."""
    for event in state.trace.fresh:
        typed = state.typed.get(event.origin)
        if typed is not None and (text := step_text(state, event)):
            state.emit(Print(f"[{typed.number}] {text}", typed.session, last=False))
    state.trace.fresh.clear()
    for effect in tuple(state.effects):
        if isinstance(effect, Finish) and effect.guid in state.typed:
            fault = "world" if is_failure(effect.outcome) else ""
            if (root := state.typed[effect.guid].root) is not None and not fault:
                state.emit(OrderPins(state.new_guid(), AddRoot(root)))  # refused if not kept here
            _end(state, effect.guid, outcome_text(state, effect.guid, effect.outcome), fault)
        elif isinstance(effect, Pushed) and (typed := state.typed.get(effect.guid)):
            text = pushed_text(effect.record)
            state.emit(Print(f"[{typed.number}] {text}", typed.session, last=False))


def cancelled(state: State, guid: Guid) -> None:
    """Forget a line whose work was cancelled."""
    if guid in state.typed:
        _end(state, guid, "cancelled")


def _answer(state: State, line: Line) -> str | Started:
    if not line.words:
        return ""
    command = find_command(line.words[0])
    given = len(line.words) - 1
    if not command.least <= given <= command.most:
        raise MisuseError(f"usage: {command.usage}")
    return command.do(state, line)


def _begin(state: State, session: Guid | None, line: Line, started: Started) -> Job | None:
    limits = state.limits
    if len(state.typed) >= limits.console_works_max:
        text = f"{limits.console_works_max} commands are in progress: wait, or cancel one"
        state.emit(Print(text, session, fault="world"))
        return None
    guid = session or state.new_guid()
    state.typed_count += 1
    number = state.typed_count
    state.typed[guid] = Typed(session, number, line.words, started.stepwise, started.root)
    if started.stepwise:
        state.trace.watched[guid] = None
    state.emit(Print(f"[{number}] {started.text}", session, last=False))
    return started.job(guid)


def _end(state: State, guid: Guid, text: str, fault: Literal["", "world"] = "") -> None:
    typed = state.typed.pop(guid)
    state.trace.watched.pop(guid, None)
    state.emit(Print(f"[{typed.number}] {text}", typed.session, fault=fault))
