"""`xorbit console`: type commands to the node that runs on the home, and see their answers.

What a line does stands in lines.py and core/console. With a terminal it is a prompt with history
and completion, and answers appear above it as they come; without one it reads lines and answers
each in turn, for scripts.
"""

import asyncio
import os
import sys
from pathlib import Path

from xorbit.api import connect, default_home
from xorbit.cli.lines import Lines
from xorbit.cli.options import Home
from xorbit.cli.output import ExitCode, fact, finish, talk
from xorbit.config import CONSOLE_HISTORY_BYTES_MAX
from xorbit.errors import StoppedError, XorbitError
from xorbit.files.seal_key import keys_hidden

HISTORY_FILE = "console_history"
LEAVE = ("quit", "exit")


def console(home: Home = None) -> None:
    """Type commands to the node that runs on the home: try `help`.

    Several may be in progress at once: each answer is marked with the number of its line. Without a
    terminal, lines are read from standard input and answered one after the other; what could not be
    done is told on stderr, and makes the exit code 1.
    """
    place = Path(home) if home is not None else default_home()
    if finish(_run(place), at_once=not sys.stdin.isatty()) is False:
        sys.exit(ExitCode.FAILED)


async def _run(home: Path) -> bool:
    client = await connect(home)
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from xorbit.cli.prompt import Prompt  # only here: it takes a while to load

            return await Prompt(Lines(client, home), _history(home)).run()
        return await _read_lines(Lines(client, home))
    finally:
        await client.close()


async def _read_lines(lines: Lines) -> bool:
    """Do line after line; return whether all could be done."""
    well = True
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        text = line.decode(errors="replace").strip()
        if text.lower() in LEAVE:
            break
        try:
            await lines.do(text, fact)
        except StoppedError:
            raise
        except XorbitError as error:
            well = False
            talk(f"xorbit: {keys_hidden(str(error))}")
    return well


def _history(home: Path) -> Path:
    """Return the file of what was typed before; nobody else may read it."""
    path = home / HISTORY_FILE
    too_long = path.exists() and path.stat().st_size > CONSOLE_HISTORY_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if too_long else 0)
    os.close(os.open(path, flags, 0o600))
    path.chmod(0o600)
    return path
