"""The prompt of `xorbit console` in a terminal: history, completion, answers above the prompt.

What a line does stands in console.py.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.patch_stdout import patch_stdout

from xorbit.cli.console import LEAVE
from xorbit.cli.lines import Lines, is_own
from xorbit.cli.output import fact
from xorbit.config import CONSOLE_COMPLETION_CHARACTERS_MAX, CONSOLE_SEEN_MAX
from xorbit.core.console import COMMANDS
from xorbit.errors import StoppedError, XorbitError
from xorbit.files.seal_key import keys_hidden, may_hold_key
from xorbit.keys import list_keys
from xorbit.run.typed import as_text

_SEEN = {
    "NAME": re.compile(r"\bb[a-z2-7]{58}\b"),
    "GUID": re.compile(r"(?<=trace )[0-9a-f]{8}|\b[0-9a-f]{32}\b"),
    "KEY": re.compile(r"(?:(?<=resolve )|(?<=follow ))[0-9a-f]{64}\b"),
    "NUMBER": re.compile(r"(?<='cancel )f?\d+"),
}
_OPTION = re.compile(r"(-\S+) (\w+)")


class History(FileHistory):
    """The lines that were typed, in a file; those that may have a key are left out."""

    def store_string(self, string: str) -> None:
        """Note a line."""
        if not may_hold_key(string):
            super().store_string(as_text(string))


class Prompt:
    """One session at the prompt."""

    def __init__(self, lines: Lines, history: Path) -> None:
        """Read lines for `lines` to do, remembering them in the file `history`."""
        self._lines = lines
        self._words = Words(lines)
        self._session: PromptSession[str] = PromptSession(
            "xorbit> ",
            history=History(str(history)),
            completer=self._words,
            complete_while_typing=False,
        )
        self._running: dict[asyncio.Task[None], str] = {}
        self._gone = False

    async def run(self) -> bool:
        """Serve until the user leaves (True) or the node is gone (False)."""
        await self._greet()
        with patch_stdout(raw=True):
            while not self._gone:
                try:
                    line = (await self._session.prompt_async()).strip()
                except KeyboardInterrupt:
                    if not self._session.default_buffer.text:  # else it only clears the line
                        self._interrupt()
                except EOFError:
                    break
                else:
                    if line.lower() in LEAVE:
                        break
                    if line:
                        await self._start(line)
        for task, line in list(self._running.items()):
            if not self._gone and not is_own(line):  # the others say so themselves
                self._say(f"cut off: {keys_hidden(line)}")
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        return not self._gone

    async def _greet(self) -> None:
        status = await self._lines.calls.status()
        peers = await self._lines.calls.peers()
        count = f"{len(peers)} peer{'' if len(peers) == 1 else 's'}"
        self._say(
            f"node {status.id.hex()[:8]} of network {status.network!r}, {count}. "
            "'help' lists the commands, Tab completes, Ctrl-D leaves."
        )

    async def _start(self, line: str) -> None:
        """Do a line; wait a moment for it, so that quick answers come before the next prompt."""
        self._words.see(line)
        task = asyncio.create_task(self._do(line))
        self._running[task] = line
        task.add_done_callback(lambda done: self._running.pop(done, None))
        await asyncio.wait([task], timeout=0.2)

    async def _do(self, line: str) -> None:
        try:
            await self._lines.do(line, self._say)
        except StoppedError as error:
            self._leave(str(error))
        except XorbitError as error:
            self._say(keys_hidden(str(error)))

    def _leave(self, why: str) -> None:
        """Leave because the node is gone."""
        if not self._gone:
            self._gone = True
            self._say(why)
            if self._session.app.is_running:
                self._session.app.exit(exception=EOFError)

    def _interrupt(self) -> None:
        """End what was begun last, on Ctrl-C; with nothing in progress say how to leave."""
        if not self._running:
            self._say("(Ctrl-D or 'quit' leaves; the node runs on)")
            return
        task = list(self._running)[-1]
        self._say(f"cancelled: {keys_hidden(self._running[task])}")
        task.cancel()

    def _say(self, text: str) -> None:
        self._words.see(text)
        fact(text)


class Words(Completer):
    """Completes commands, and each argument by what its place in the command's usage says it is."""

    def __init__(self, lines: Lines) -> None:
        """Know the commands; ask the node behind `lines` for the rest."""
        self._lines = lines
        self._seen: dict[str, dict[str, None]] = {kind: {} for kind in _SEEN}
        self._paths = PathCompleter(expanduser=True)

    def see(self, text: str) -> None:
        """Remember what of an answer, or of a line that was typed, may be typed again."""
        for kind, pattern in _SEEN.items():
            seen = self._seen[kind]
            for word in pattern.findall(text):
                seen.pop(word, None)
                seen[word] = None
            while len(seen) > CONSOLE_SEEN_MAX:
                del seen[next(iter(seen))]

    def get_completions(
        self,
        document: Document,  # noqa: ARG002 - the completer of the library has it
        complete_event: CompleteEvent,  # noqa: ARG002
    ) -> Iterable[Completion]:
        """Return nothing: what may be typed is asked of the node, which takes time."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion]:
        """Yield what the word before the cursor may become."""
        words = document.text_before_cursor.lstrip().split(" ")
        kinds, last = kinds_of(words), words[-1]
        if "PATH" in kinds:
            for completion in self._paths.get_completions(Document(last), complete_event):
                yield completion
        for word, what in await self._choices(kinds):
            if word.lower().startswith(last.lower()):
                cut = word[:CONSOLE_COMPLETION_CHARACTERS_MAX]
                shown = word if cut == word else f"{cut}..."
                yield Completion(word, -len(last), display=shown, display_meta=what)

    async def _choices(self, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the words of these kinds, and what each of them is."""
        choices: list[tuple[str, str]] = []
        for kind in kinds:
            if kind in ("KEY", "KEYNAME"):
                choices += self._keys()
            if kind in self._seen:
                choices += [(word, "") for word in reversed(self._seen[kind])]
            elif kind == "COMMAND":
                choices += [(name, command.help) for name, command in COMMANDS.items()]
            elif kind in ("ID", "HOST:PORT"):
                choices += await self._nodes(kind)
            elif kind.startswith("-"):
                choices.append((kind, ""))
        return list(dict(choices).items())

    async def _nodes(self, kind: str) -> list[tuple[str, str]]:
        """Return the ids or addresses of the nodes that this node knows, connected ones first."""
        try:
            peers = await self._lines.calls.peers()
            contacts = await self._lines.calls.contacts()
        except XorbitError:
            return []
        where = {contact.id: ", ".join(map(str, contact.addresses)) for contact in contacts}
        if kind == "ID":
            known = {peer.id: where.get(peer.id, str(peer.address)) for peer in peers}
            return [(id.hex(), place) for id, place in {**known, **where}.items()]
        return [(str(it), c.id.hex()[:8]) for c in contacts for it in c.addresses]

    def _keys(self) -> list[tuple[str, str]]:
        try:
            return [(key.name, key.public_key.hex()[:8]) for key in list_keys(self._lines.home)]
        except XorbitError:
            return []


def kinds_of(words: Sequence[str]) -> tuple[str, ...]:
    """Return what the last of these words may be, in the words that usages have for arguments.

    So for `get NAME [-o PATH]` it is ("NAME",) after `get`, ("-o",) after `get x`, and ("PATH",)
    after `get x -o`.
    """
    if len(words) == 1:
        return ("COMMAND",)
    command = COMMANDS.get(words[0].lower())
    forms = command.usage.split(" | ") if command else ()
    return tuple(dict.fromkeys(kind for form in forms for kind in _kinds_in(form, words[1:])))


def _kinds_in(form: str, given: Sequence[str]) -> list[str]:
    options: dict[str, str] = dict(_OPTION.findall(form))
    *before, _ = given
    if before and before[-1] in options:
        return [options[before[-1]]]
    of_options = {at + more for at, word in enumerate(before) if word in options for more in (0, 1)}
    place = len(set(range(len(before))) - of_options)
    plain = _OPTION.sub("", form).replace("[]", "").split()[1:]
    here = plain[place].strip("[]").split("|") if place < len(plain) else []
    if here and not given[-1].startswith("-"):
        return here
    return [flag for flag in options if flag not in before]
