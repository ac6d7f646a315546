"""`xorbit node`: a node in the foreground, until it is told to stop.

Its log goes to stderr, the answers to what is typed at its standard input go to stdout.
"""

import asyncio
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import Node
from xorbit.cli.info import status_facts
from xorbit.cli.lines import TypedLines
from xorbit.cli.options import (
    DEFAULT_PORT,
    Bootstrap,
    Home,
    Json,
    NetworkName,
    NetworkSecret,
    parse_path,
    parse_size,
    read_secret,
)
from xorbit.cli.output import ExitCode, fact, fact_json, leave, set_up_log, stop_signals
from xorbit.config import CONSOLE_LINE_BYTES_MAX, CONSOLE_READ_BYTES, DEFAULT_LIMITS, Limits
from xorbit.errors import WorldError
from xorbit.run.loop import run

DEFAULT_LISTEN = f"0.0.0.0:{DEFAULT_PORT}"
ANY_PORT = "0.0.0.0:0"
TAKEN_BYTES = CONSOLE_LINE_BYTES_MAX + 1
"""What is kept of a line too long: enough to see that it is."""

log = logging.getLogger("xorbit")

Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help="Where to accept connections; may be given several times. Port 0 lets the system "
        "choose.",
        show_default=f"{DEFAULT_LISTEN}, or another port where that one is taken",
    ),
]
Quota = Annotated[
    int | None,
    typer.Option(
        "--quota",
        metavar="SIZE",
        parser=parse_size,
        help="How many bytes of items the node keeps, like 500MB or 10GiB.",
        show_default="10GiB",
    ),
]
JobLog = Annotated[
    Path | None,
    typer.Option(
        "--log-jobs",
        metavar="FILE",
        parser=parse_path,
        help="Write every job to a file, for `xorbit replay`.",
        show_default=False,
    ),
]
NoMdns = Annotated[
    bool,
    typer.Option("--no-mdns", help="Do not look for other nodes on the local network."),
]
UntilStdinCloses = Annotated[
    bool,
    typer.Option(
        "--until-stdin-closes",
        help="Stop when standard input ends: for a program that starts nodes and may die.",
    ),
]


def node(
    listen: Listen = None,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    quota: Quota = None,
    log_jobs: JobLog = None,
    no_mdns: NoMdns = False,
    until_stdin_closes: UntilStdinCloses = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run a node until Ctrl-C or SIGTERM (a second Ctrl-C ends it at once).

    Lines typed at its standard input are commands: try `help`. With --json it prints one JSON
    object when it is ready: it listens, and has tried once to join.
    """
    set_up_log(logging.INFO, to_user=True)
    secret = read_secret(network_secret)

    def make(listen_at: list[str]) -> Node:
        return Node(
            home,
            listen=listen_at,
            bootstrap=bootstrap or (),
            network=network,
            secret=secret,
            limits=_limits(quota),
            mdns=not no_mdns,
            job_log=log_jobs,
            show=fact,
        )

    try:
        run(_serve(make(listen or [DEFAULT_LISTEN]), until_stdin_closes, json))
    except WorldError as error:
        if listen or not _is_taken(error):
            raise
        log.warning("port %d is taken: listening at one that the system chooses", DEFAULT_PORT)
        run(_serve(make([ANY_PORT]), until_stdin_closes, json))


def _limits(quota_bytes: int | None) -> Limits:
    if quota_bytes is None:
        return DEFAULT_LIMITS
    return DEFAULT_LIMITS.replace(store_quota_bytes=quota_bytes)


def _is_taken(error: WorldError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


async def _serve(node: Node, until_stdin_closes: bool, json: bool) -> None:
    told = _Told()
    try:
        async with node:
            await _announce(node, json)
            typed = TypedLines(node, fact)
            try:
                _read_stdin(typed, told.stop if until_stdin_closes else None)
                await node.ended()
            finally:
                await typed.close()
            log.info("stopping, as typed at the console")
    except asyncio.CancelledError:
        if not told.why:
            raise
    log.info("stopped")


async def _announce(node: Node, json: bool) -> None:
    status = await node.status()
    where = ", ".join(map(str, status.listening))
    log.info("node %s of network %r listens at %s", status.id.hex(), status.network, where)
    log.info("home %s, process %d", node.home, os.getpid())
    if json:
        fact_json({**status_facts(status), "home": str(node.home), "pid": os.getpid()})


class _Told:
    """What tells the node to stop: signals, or the end of standard input."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._task = task
        self.why = ""
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.why and number is signal.SIGINT:
            leave(ExitCode.INTERRUPTED)
        self.stop(f"stopping on {number.name}")

    def stop(self, why: str = "standard input has ended: stopping") -> None:
        """Stop the node cleanly, unless that is under way."""
        if not self.why:
            self.why = why
            log.info(why)
            self._task.cancel()


# --- Standard input -----------------------------------------------------------------------------


def _read_stdin(typed: TypedLines, at_end: Callable[[], None] | None) -> None:
    """Make the lines of standard input jobs, on a thread: files and terminals know no waiting.

    A daemon: nothing can wake a thread that reads, and it must not keep the process from ending.
    """
    # In the background of a terminal a read would stop the whole process; so it is only an error.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    thread = threading.Thread(
        target=_pump_stdin, args=(loop, typed, at_end), name="xorbit-stdin", daemon=True
    )
    thread.start()


def _pump_stdin(
    loop: asyncio.AbstractEventLoop, typed: TypedLines, at_end: Callable[[], None] | None
) -> None:
    rest = b""
    try:
        while data := _read_some():
            *whole, last = (rest + data).split(b"\n")
            lines, rest = [line[:TAKEN_BYTES] for line in whole], last[:TAKEN_BYTES]
            # Reads on when these are taken, or a flood of lines would pile up in the loop.
            asyncio.run_coroutine_threadsafe(_type(typed, lines), loop).result()
        if at_end is not None:
            loop.call_soon_threadsafe(at_end)
    except RuntimeError:
        pass  # the loop is closed: the node has stopped


def _read_some() -> bytes:
    # Not sys.stdin: its buffer has a lock, which must not be held when the interpreter ends.
    try:
        return os.read(sys.stdin.fileno(), CONSOLE_READ_BYTES)
    except (OSError, ValueError):
        return b""  # closed, or a terminal that has another process in its foreground


async def _type(typed: TypedLines, lines: list[bytes]) -> None:
    for line in lines:
        if text := line.decode(errors="replace").strip():
            typed.do(text)
            await asyncio.sleep(0)  # a turn of the machine
