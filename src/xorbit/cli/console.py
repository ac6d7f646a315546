"""`xorbit console`: type commands to the node that runs on the home, and see their answers.

Every command is the node's own (core/console), asked over its local socket, but for those that need
the user's files and keys: they are done here. With a terminal it is a prompt with history and
completion, and answers appear above it as they come; without one it reads lines and answers each in
turn, for scripts.
"""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NoReturn

from xorbit.api import connect, default_home
from xorbit.cli.options import Home
from xorbit.cli.output import ExitCode, fact, finish, human_size, talk
from xorbit.errors import MisuseError, StoppedError, XorbitError
from xorbit.files.cid import Codec, parse_cid
from xorbit.keys import load_key
from xorbit.run.control_client import ControlClient

HISTORY_FILE = "console_history"
HISTORY_BYTES_MAX = 1_000_000
LEAVE = ("quit", "exit")
TEXT_FLAG = "-t"

Say = Callable[[str], None]

HELP = {
    "put": ("put PATH | put -t TEXT", "store a file, or a block of the text"),
    "get": ("get NAME [-o PATH]", "write a file to a path; without -o show a block"),
    "publish": (
        "publish KEYNAME VALUE [--salt SALT]",
        "sign a value with a key of yours and store it as the newest",
    ),
    "quit": ("quit", "leave the console; the node runs on"),
}
"""The commands that this program does itself, or differently from a node's standard input."""


def console(home: Home = None) -> None:
    """Type commands to the node that runs on the home: try `help`.

    Several may be in progress at once: each answer is marked with the number of its line. Without a
    terminal, lines are read from standard input and answered one after the other.
    """
    place = Path(home) if home is not None else default_home()
    if finish(_run(place), at_once=not sys.stdin.isatty()) is False:
        sys.exit(ExitCode.FAILED)


async def _run(home: Path) -> bool:
    client = await connect(home)
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from xorbit.cli.prompt import Prompt  # only here: it takes a while to load

            return await Prompt(Console(client, home), _history(home)).run()
        return await _read_lines(Console(client, home))
    finally:
        await client.close()


async def _read_lines(console: "Console") -> bool:
    """Do line after line; return whether all could be done."""
    well = True
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        text = line.decode(errors="replace").strip()
        if text.lower() in LEAVE:
            break
        try:
            await console.do(text, fact)
        except StoppedError:
            raise
        except XorbitError as error:
            well = False
            talk(f"xorbit: {error}")
    return well


def _history(home: Path) -> Path:
    """Return the file of what was typed before; nobody else may read it."""
    path = home / HISTORY_FILE
    too_long = path.exists() and path.stat().st_size > HISTORY_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if too_long else 0)
    os.close(os.open(path, flags, 0o600))
    path.chmod(0o600)
    return path


class Console:
    """Does lines: the node's commands by the node, those that need files and keys by itself."""

    def __init__(self, client: ControlClient, home: Path) -> None:
        """Serve a user at the node that `client` talks to."""
        self.client = client
        self._home = home

    async def do(self, line: str, say: Say) -> None:
        """Do a line, and say every answer as it comes.

        Raises:
            XorbitError: it could not be done.
            StoppedError: the node is gone.
        """
        name, _, rest = line.strip().partition(" ")
        match name.lower(), rest.strip():
            case "put", text if not text.startswith(TEXT_FLAG):
                await self._put(_words(text), say)
            case "get", text if " " in text or _is_file(text):
                await self._get(_words(text), say)
            case "publish", text:
                await self._publish(_words(text), say)
            case "help", "":
                say(_with_own_help([answer async for answer in self.client.console("help")]))
            case "help", ("put" | "get" | "publish" | "quit") as own:
                say("\n  ".join(HELP[own]))
            case _:
                async with aclosing(self.client.console(line)) as answers:
                    async for answer in answers:
                        if answer:
                            say(answer)

    async def _put(self, words: list[str], say: Say) -> None:
        if len(words) != 1:
            _misuse("put")
        path = _path(words[0])
        async with _naming("put", path):
            summary = await self.client.put_file(path)
        nodes = "1 node" if summary.holders_min == 1 else f"{summary.holders_min} nodes or more"
        say(f"[put {path}] {human_size(summary.bytes)} held by {nodes}\n{summary.cid}")

    async def _get(self, words: list[str], say: Say) -> None:
        match words:
            case [name, "-o", to] | ["-o", to, name]:
                path = _path(to)
            case [name]:
                text = f"{name} names a file of several blocks: add -o PATH to write it somewhere"
                raise MisuseError(text)
            case _:
                _misuse("get")
        cid = parse_cid(name)
        async with _naming("get", path):
            size = await self.client.get_file_to(cid, path)
        say(f"[get {path}] {human_size(size)} written")

    async def _publish(self, words: list[str], say: Say) -> None:
        match words:
            case [name, value]:
                salt = ""
            case [name, value, "--salt", salt]:
                pass
            case _:
                _misuse("publish")
        key = load_key(self._home, name)
        async with _naming("publish", name):
            done = await self.client.publish(key, value.encode(), salt=salt.encode())
        nodes = "1 node" if len(done.holders) == 1 else f"{len(done.holders)} nodes"
        say(f"[publish {name}] sequence {done.seq}, held by {nodes}")


@asynccontextmanager
async def _naming(what: str, of: object) -> AsyncGenerator[None]:
    """Put which line it was before an error's message: several may be in progress."""
    try:
        yield
    except XorbitError as error:
        raise type(error)(f"[{what} {of}] {error}") from error


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise MisuseError(f"{error}: put quotes around what has spaces in it") from error


def _is_file(name: str) -> bool:
    """Return whether a name is that of a file of several blocks; text that is no name is not."""
    try:
        return parse_cid(name).codec is Codec.DAG_PB
    except MisuseError:
        return False


def _misuse(name: str) -> NoReturn:
    raise MisuseError(f"usage: {HELP[name][0]}")


def _with_own_help(answers: list[str]) -> str:
    """Return the node's list of commands, with those that are different here."""
    lines = [line for line in "\n".join(answers).splitlines() if line.strip()]
    width = max(*(len(usage) for usage, _ in HELP.values()), _width(lines))
    shown: list[str] = []
    for line in lines:
        usage, _, text = line.strip().partition("  ")
        own = HELP.get(usage.split()[0])
        usage, text = own or (usage, text.strip())
        shown.append(f"  {usage:<{width}}  {text}")
    return "\n".join(shown)


def _width(lines: list[str]) -> int:
    return max(len(line.strip().partition("  ")[0]) for line in lines)
