"""The prompt of `xorbit console` in a terminal: history, completion, answers above the prompt.

What a line does stands in console.py.
"""

import asyncio
import re
from collections.abc import Generator, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.patch_stdout import patch_stdout

from xorbit.cli.console import HELP, LEAVE, Console
from xorbit.cli.output import fact
from xorbit.core.console import COMMANDS
from xorbit.errors import StoppedError, XorbitError

SEEN_MAX = 1_000
"""How many ids, guids and names of earlier answers are remembered for completion."""
_WORTH_COMPLETING = re.compile(r"\bb[a-z2-7]{58}\b|\b[0-9a-f]{32,64}\b|(?<=trace )[0-9a-f]{8}")
_TAKES_PATH = ("put",)


class Prompt:
    """One session at the prompt."""

    def __init__(self, console: Console, history: Path) -> None:
        """Read lines for `console`, remembering them in the file `history`."""
        self._console = console
        self._words = Words()
        self._session: PromptSession[str] = PromptSession(
            "xorbit> ",
            history=FileHistory(str(history)),
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
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        return not self._gone

    async def _greet(self) -> None:
        status = await self._console.client.status()
        peers = await self._console.client.peers()
        for peer in peers:
            self._words.see(peer.id.hex())
        self._say(
            f"node {status.id.hex()[:8]} of network {status.network!r}, {len(peers)} peers. "
            "'help' lists the commands, Tab completes, Ctrl-D leaves."
        )

    async def _start(self, line: str) -> None:
        """Do a line; wait a moment for it, so that quick answers come before the next prompt."""
        task = asyncio.create_task(self._do(line))
        self._running[task] = line
        task.add_done_callback(lambda done: self._running.pop(done, None))
        await asyncio.wait([task], timeout=0.2)

    async def _do(self, line: str) -> None:
        try:
            await self._console.do(line, self._say)
        except StoppedError as error:
            self._leave(str(error))
        except XorbitError as error:
            self._say(str(error))

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
        self._say(f"cancelled: {self._running[task]}")
        task.cancel()

    def _say(self, text: str) -> None:
        self._words.see(text)
        fact(text)


class Words(Completer):
    """Completes commands, and the ids, guids and names that answers have shown."""

    def __init__(self) -> None:
        """Know the commands."""
        self._commands = sorted({*COMMANDS, *HELP, *LEAVE})
        self._seen: dict[str, None] = {}
        self._paths = PathCompleter(expanduser=True)

    def see(self, text: str) -> None:
        """Remember what of an answer may be typed next."""
        for word in _WORTH_COMPLETING.findall(text):
            self._seen.pop(word, None)
            self._seen[word] = None
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Return what the word before the cursor may become."""
        words = document.text_before_cursor.split(" ")
        last = words[-1]
        if len(words) == 1:
            yield from _beginning(last, self._commands)
        elif words[0] in _TAKES_PATH or words[-2] == "-o":
            yield from self._paths.get_completions(Document(last), complete_event)
        elif words[0] == "help":
            yield from _beginning(last, self._commands)
        else:
            yield from _beginning(last, reversed(self._seen))


def _beginning(start: str, words: Iterable[str]) -> Generator[Completion]:
    for word in words:
        if word.startswith(start):
            yield Completion(word, -len(start))
