"""What commands say and how they end: facts to stdout, talk to stderr, exit codes.

Nothing of any one command may enter.
"""

import asyncio
import json
import logging
import os
import shlex
import signal
import sys
from base64 import b64encode
from collections.abc import Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from xorbit.errors import (
    MisuseError,
    NoPeersError,
    NotFoundError,
    NotRunningError,
    StaleError,
    WorldError,
    XorbitError,
)
from xorbit.files.flow import Progress
from xorbit.files.leading_out import leading_out
from xorbit.files.transfer import PutSummary
from xorbit.ids import Id
from xorbit.run.loop import run
from xorbit.run.pinning import ImportSummary

T = TypeVar("T")

DEBUG_VARIABLE = "XORBIT_DEBUG"
CLEAR_LINE = "\r\x1b[2K"
SHOW_CURSOR = "\x1b[?25h"


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    MISUSE = 2
    NOT_FOUND = 3
    NOBODY = 4
    STALE = 5
    BUG = 70
    HUNG_UP = 129
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 the disk, the network or a peer failed; 2 wrong usage; 3 not found; "
    "4 no node runs here, or no other node could be reached; 5 another writer was faster; "
    "129 its terminal was closed; 130 interrupted; 141 nobody reads its output any more; "
    "143 terminated; 70 an error of xorbit itself. XORBIT_DEBUG=1 shows where an error came from."
)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code that says what kind of error it was."""
    match error:
        case MisuseError():
            return ExitCode.MISUSE
        case NotFoundError():
            return ExitCode.NOT_FOUND
        case NoPeersError() | NotRunningError():
            return ExitCode.NOBODY
        case StaleError():
            return ExitCode.STALE
        case XorbitError() | OSError():
            return ExitCode.FAILED
        case _:
            return ExitCode.BUG


# --- Saying -------------------------------------------------------------------------------------


def fact(text: str) -> None:
    """Print a line of facts."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        leave(ExitCode.PIPE_CLOSED)
    except OSError as error:
        raise stdout_failed(error) from error


def stdout_failed(error: OSError) -> WorldError:
    """Return what to raise where facts cannot be written: the disk is full, or stdout is closed."""
    return WorldError(f"cannot write to standard output: {error.strerror}")


def fact_json(content: object) -> None:
    """Print a line of facts as JSON."""
    fact(json.dumps(content, ensure_ascii=False))


def text_or_base64(name: str, data: bytes) -> dict[str, object]:
    """Return bytes as text, or else as base64 with a flag that says so."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        flag = "base64" if name == "value" else f"{name}_base64"
        return {name: b64encode(data).decode(), flag: True}


def fact_columns(rows: Iterable[Sequence[str]]) -> None:
    """Print rows of facts, their columns under each other."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        fact("  ".join(padded).rstrip())


def talk(text: str) -> None:
    """Tell the user something that is no fact."""
    print(text, file=sys.stderr, flush=True)


def warn_not_kept(why: str) -> None:
    """Tell the user, where there is a reason, that what was put is not refreshed from here."""
    if why:
        talk(f"not pinned here ({why}): it expires unless somebody pins it")


def warn_leading_out(path: Path) -> None:
    """Tell the user of symbolic links below a path that no `get` makes, as they lead out of it."""
    found = leading_out(path)
    if found.count:
        lead = "is a symbolic link that leads" if found.count == 1 else "and others lead"
        how_many = "" if found.count == 1 else f" ({found.count:,} symbolic links)"
        talk(
            f"{printable(found.first)} {lead} out of the directory{how_many}: stored as it is, but "
            "'get' makes no such link (its --skip-links leaves them out), and 'mirror' refuses it"
        )


def held_by(holders: Sequence[Id], own: Id, *, or_more: bool = False) -> str:
    """Return who holds what was put, in words: how many others than the node that was asked.

    With `or_more` it is said of many blocks: these hold the one that the fewest others hold.
    """
    others = sum(holder != own for holder in holders)
    is_here = others < len(holders)
    if is_here and others == 0:
        return "this node only: it is nowhere else until other nodes join"
    if is_here and or_more:
        return "1 other node or more" if others == 1 else f"{others} other nodes or more"
    nodes = "1 node" if len(holders) == 1 else f"{len(holders)} nodes"
    return f"{nodes}{' or more' if or_more else ''}{', this one among them' if is_here else ''}"


def stored(put: PutSummary | ImportSummary, own: Id) -> str:
    """Return what was put, in words: how much it is, who holds it, and what was there already."""
    nodes = held_by(put.fewest, own, or_more=put.blocks > 1)
    parts = "1 block" if put.blocks == 1 else f"{put.blocks:,} blocks, each"
    were = "was" if put.held_before == 1 else f"{put.held_before:,} were"
    rest = f"; {put.unasked:,} of less than 1 KiB not asked about" if put.unasked else ""
    there = f" ({were} there already{rest})" if put.held_before else ""
    return f"{human_size(put.bytes)} in {parts} held by {nodes}{there}"


def printable(text: str) -> str:
    """Return a text that a stranger wrote as one line that is safe for any terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def quoted(name: str) -> str:
    """Return a name that a stranger gave to a file in one line, so that no two look the same.

    Most stand as they are. One with blanks at an end, or with what no terminal shows, stands in
    quotes as a shell takes them, as `ls` of coreutils does it.
    """
    if not name.isprintable():
        return f"$'{''.join(map(_escaped, name))}'"
    plain = name and name == name.strip() and name[0] not in "'\"$"
    return name if plain else shlex.quote(name)


def _escaped(char: str) -> str:
    r"""Return a character as it stands between $' and ' (POSIX.1-2024, 2.2.4; \U is bash's)."""
    if char in "'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    code = ord(char)
    return known or (f"\\{code:03o}" if code < 0x80 else f"\\U{code:08x}")


def debugging() -> bool:
    """Return whether the user wants to see where errors come from."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def set_up_log(level: int, *, to_user: bool) -> None:
    """Let the log go to stderr, or (unless debugging) nowhere: errors are told as such."""
    logger = logging.getLogger("xorbit")
    logger.setLevel(level)
    logger.propagate = False
    handler = _stderr_handler() if to_user or debugging() else logging.NullHandler()
    logger.handlers = [handler]


def _stderr_handler() -> logging.Handler:
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        return RichHandler(
            console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S"
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    return handler


@contextmanager
def progress(what: str, *, hidden: bool = False) -> Generator[Progress | None]:
    """Give a function to tell the progress of a transfer to: a bar, where stderr is a terminal."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tell(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield tell


def human_size(size: int) -> str:
    """Return a number of bytes as people write it."""
    if size < 10_000:
        return "1 byte" if size == 1 else f"{size:,} bytes"
    number = float(size)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


# --- Ending -------------------------------------------------------------------------------------


class Begun:
    """What the work of a command leaves if it is interrupted now; "" where that is nothing."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.left = ""

    @contextmanager
    def storing(self, what: str, *, encrypt: bool = False) -> Generator[None]:
        """Note that blocks are put and pinned one by one, until all of them are a root."""
        again = "begins anew, under a new key" if encrypt else "goes on from there"
        self.left = (
            f"what was put so far stays pinned here: the same {what} {again}, "
            "'xorbit gc' lets go of it"
        )
        yield
        self.left = ""


def finish(work: Coroutine[Any, Any, T], *, at_once: bool = False, begun: Begun | None = None) -> T:
    """Run a command's work to its end. A signal to stop cancels it; a second one ends the process.

    With `at_once` the first one does: for work that may hang in a read or write of a pipe, on a
    thread that nothing can wake. Whoever is interrupted hears what is left of what was `begun`.
    """
    return run(_until_told(work, at_once, begun or Begun()))


async def _until_told(work: Coroutine[Any, Any, T], at_once: bool, begun: Begun) -> T:
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None, "asyncio runs this in a task"
    told: list[ExitCode] = []

    def tell(code: ExitCode) -> None:
        if told and code is ExitCode.HUNG_UP:
            return  # a terminal that closes says so twice: by the kernel, and by its shell
        if told or at_once:
            leave(code, "" if told else begun.left)
        told.append(code)
        me.cancel()

    for number in stop_signals():
        loop.add_signal_handler(number, tell, ExitCode(128 + number))
    try:
        return await work
    except asyncio.CancelledError as cancelled:
        for note in (*getattr(cancelled, "__notes__", ()), begun.left):
            if note:  # what was begun and is kept
                talk(note)
        raise typer.Exit(told[0] if told else ExitCode.FAILED) from None


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask us to stop; a closed terminal does, but not under nohup."""
    told = [signal.SIGINT, signal.SIGTERM]
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [*told, signal.SIGHUP] if hangs_up else told


def leave(code: ExitCode, note: str = "") -> NoReturn:
    """End the process at once, from whatever thread. What was acknowledged is on disk."""
    stderr = sys.__stderr__  # while a bar shows, what is written to the other one is text for it
    if stderr is not None:
        # A bar hides the cursor and leaves its line, where a pipe's reader may have written.
        clean = SHOW_CURSOR if code is ExitCode.PIPE_CLOSED else CLEAR_LINE + SHOW_CURSOR
        with suppress(OSError):
            stderr.write((clean if stderr.isatty() else "") + (f"{note}\n" if note else ""))
            stderr.flush()
    os._exit(code)
