"""The command `xorbit`: all its commands, and where errors become one line and an exit code.

What a command does stands in a file of its own; nothing of it may enter.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, cast

import typer

from xorbit import __version__
from xorbit.cli import (
    car,
    console,
    demo,
    find,
    info,
    key,
    mirror,
    network,
    node,
    pin,
    record,
    replay,
    sim,
    tracing,
    transfer,
    tree,
)
from xorbit.cli.output import EXIT_CODES_HELP, ExitCode, debugging, exit_code_of, fact, set_up_log
from xorbit.files.seal_key import keys_hidden

app = typer.Typer(
    name="xorbit",
    help="Hand files from machine to machine, with no server in the middle.",
    epilog=EXIT_CODES_HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        fact(f"xorbit {__version__}")
        raise typer.Exit


@app.callback()
def _xorbit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.command("node")(node.node)
app.command("put")(transfer.put)
app.command("get")(transfer.get)
app.command("cat")(tree.cat)
app.command("ls")(tree.ls)
app.command("stat")(tree.stat)
app.command("export")(car.export)
app.command("import")(car.import_)
app.command("cid")(transfer.cid)
app.command("pins")(pin.pins)
app.command("pin")(pin.pin)
app.command("unpin")(pin.unpin)
app.command("gc")(pin.gc)
app.command("publish")(record.publish)
app.command("resolve")(record.resolve)
app.command("follow")(record.follow)
app.command("mirror")(mirror.mirror)
app.command("whereis")(find.whereis)
app.command("fingers")(find.fingers)
app.command("lookup")(find.lookup)
app.command("status")(info.status)
app.command("peers")(info.peers)
app.command("ping")(info.ping)
app.command("trace")(tracing.trace)
app.command("console")(console.console)
app.command("replay")(replay.replay)
app.command("sim")(sim.sim)
app.command("demo")(demo.demo)
app.add_typer(key.app, name="key")
app.add_typer(network.app, name="network")


def main() -> None:
    """Run the command line of this process, and exit."""
    _open_standard_streams()
    code = execute(sys.argv[1:])
    written = _written()
    sys.exit(code or written)


def _open_standard_streams() -> None:
    """Open those that were closed when we began, or a socket would get the number of one."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # The lowest free number: this one. Facts that nobody gets are not to look delivered.
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
    # As stderr does: the names of a disk need be no text.
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")


def _written() -> ExitCode:
    """Write what is left for stdout; where that cannot be, spare the interpreter from trying."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED if isinstance(error, BrokenPipeError) else ExitCode.FAILED
    return ExitCode.DONE


def execute(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; whatever fails is told in one line on stderr."""
    set_up_log(30, to_user=False)
    try:
        code = app(list(arguments) or ["--help"], prog_name="xorbit", standalone_mode=False)
        return code if isinstance(code, int) else ExitCode.DONE
    except typer.TyperException as error:
        return _tell_misuse(error)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return ExitCode.PIPE_CLOSED  # help is printed by a library that ends so
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user
        return _tell(error)


def _tell_misuse(error: typer.TyperException) -> int:
    context: typer.Context | None = getattr(error, "ctx", None)
    path = "xorbit" if context is None else context.command_path
    problem = error.format_message().rstrip(".").replace("Value error, ", "")  # of its library
    _tell_line(f"{problem} (see '{path} --help')")
    return ExitCode.MISUSE


def _tell(error: Exception) -> int:
    if debugging():
        traceback.print_exception(error)
    code = exit_code_of(error)
    if code is ExitCode.BUG:
        _tell_line(
            f"an error of xorbit itself: {error!r}; XORBIT_DEBUG=1 shows where, please report it"
        )
    elif isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        _tell_line(f"{error.strerror or error}{where}")
    else:
        _tell_line(str(error))
    return code


def _tell_line(text: str) -> None:
    # What was typed stands in many an error, and where stderr goes is not known.
    print(f"xorbit: {keys_hidden(' '.join(text.split()))}", file=sys.stderr)
