"""Names of places and parts of files as they are typed, and where files come from and go to.

What several commands of files share; no command here.
"""

import stat
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from xorbit.cli.output import ExitCode, leave, printable, stdout_failed, talk
from xorbit.errors import MisuseError
from xorbit.files.local import check_there
from xorbit.files.transfer import WHOLE, Range

STANDARD_STREAM = "-"
LOOKED_AT_BYTES = 2_000
"""How much of what goes to a terminal is looked at for being binary, as curl does."""

PlaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME[/PATH]",
        help="What `put` printed, also after xorbit:// or ipfs://, or the key of a published tree "
        "(PUBLICKEY, or the name of a key of yours): its newest version; a path inside may follow.",
        show_default=False,
    ),
]


def parse_range(text: str | None) -> Range:
    """Return which bytes "A-B" says, both included as in HTTP; "A-" goes on to the end.

    Raises:
        MisuseError: it says none.
    """
    if text is None:
        return WHOLE
    first, dash, last = text.strip().partition("-")
    if not dash or not first.isdecimal() or not (last.isdecimal() or not last):
        raise MisuseError(
            f"expected a range like 0-99 (the first 100 bytes) or 100- (what follows), got {text!r}"
        )
    start, end = int(first), int(last) + 1 if last else None
    if end is not None and end <= start:
        raise MisuseError(f"expected a range that ends behind its start, got {text!r}")
    return start, end


def output_to(output: str | None) -> "Path | Stdout":
    """Return where to write: a path, or standard output ("-", or none given).

    Raises:
        MisuseError: an empty path.
    """
    if output == "":
        raise MisuseError("expected a path to write to after -o, got nothing")
    if output is None or output == STANDARD_STREAM:
        return Stdout(forced=output is not None)
    return Path(output)


def check_file_path(output: str) -> None:
    """Refuse a path that ends in a slash, of which Path() knows nothing, for a file.

    Raises:
        MisuseError: it is one.
    """
    if output.endswith(("/", "/.")):
        raise MisuseError(
            f"expected a path to write a file to, but {output} names a folder: "
            "name the new file in it"
        )


def source_at(path: str) -> Path | BinaryIO:
    """Return what to read: what is at a path, or standard input ("-"); say it where that waits.

    Raises:
        MisuseError: nothing is at the path, or standard input is closed.
        WorldError: the path cannot be looked at.
    """
    if path == STANDARD_STREAM:
        if sys.__stdin__ is None:  # as it was when we began; main.py has put something in its place
            raise MisuseError("standard input is closed: there is nothing to read")
        if sys.stdin.isatty():
            talk("reading what you type; Ctrl-D at the beginning of a line ends it")
        return sys.stdin.buffer
    return there(Path(path))


def there(path: Path) -> Path:
    """Return a path at which something is to read; say it where that waits.

    A named pipe is read to its end: who names it means its bytes. In a directory it is refused.

    Raises:
        MisuseError: nothing is there.
        WorldError: it cannot be looked at.
    """
    check_there(path)
    if path.is_fifo():
        talk(f"reading the pipe {printable(str(path))} until its writer closes it")
    return path


def is_typed(path: str) -> bool:
    """Return whether a source is what somebody types at a terminal, where a bar would disturb."""
    return path == STANDARD_STREAM and sys.stdin.isatty()


def may_wait(path: str | Path | None) -> bool:
    """Return whether a read of this source may wait for somebody: "-", a named pipe, a device."""
    if path is None or path == STANDARD_STREAM:
        return path is not None
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False  # whoever reads it says why
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


class Stdout:
    """Standard output as a sink of bytes; like curl's, it spares terminals what is not text."""

    def __init__(self, *, forced: bool) -> None:
        self._out: BinaryIO = sys.stdout.buffer
        self._guards = sys.stdout.isatty() and not forced

    def __call__(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._guards and b"\0" in data[:LOOKED_AT_BYTES]:
            raise MisuseError(
                "these bytes are no text and may upset your terminal: "
                "write them to a file with -o PATH, or add -o - to see them anyway"
            )
        self._guards = False
        try:
            self._out.write(data)
            self._out.flush()
        except BrokenPipeError:
            leave(ExitCode.PIPE_CLOSED)  # whoever reads has enough
        except OSError as error:
            raise stdout_failed(error) from error
