"""`xorbit demo`: the main job, shown: real nodes, a real picture, two of its holders killed.

Everything goes the way of any user: processes of `xorbit node`, asked over their local sockets.
"""

import asyncio
import filecmp
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from xorbit.api import connect
from xorbit.cli.options import Home
from xorbit.cli.output import finish, progress, talk
from xorbit.cli.swarm import Child, Swarm
from xorbit.errors import WorldError, XorbitError
from xorbit.files.transfer import PutSummary
from xorbit.items import BLOCK_BYTES_MAX
from xorbit.run.calls import Calls

NODES_MIN = 3
NODES_MAX = 99
KILLED = 2


def demo(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="What to hand from node to node.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default="a picture that it paints",
        ),
    ] = None,
    nodes: Annotated[
        int, typer.Option("--nodes", min=NODES_MIN, max=NODES_MAX, help="How many nodes to start.")
    ] = 9,
    once: Annotated[
        bool, typer.Option("--once", help="Stop everything once it has been shown.")
    ] = False,
    home: Home = None,
) -> None:
    """Show the main job: put a picture, kill two nodes that hold it, get it where nothing is held.

    All of it on this machine, in a network of its own. The homes of its nodes are in a directory
    that is removed at the end; --home says where to make it.
    """
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="xorbit-demo-", dir=home)).absolute()
    try:
        finish(_run(_Stage(), directory, file, nodes, once))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _run(stage: "_Stage", directory: Path, file: Path | None, nodes: int, once: bool) -> None:
    stage.title(f"xorbit demo: {nodes} real nodes on this machine")
    async with Swarm(directory, directory.name) as swarm:
        try:
            source = await _start(stage, swarm, file, nodes)
            name, came = await _show(stage, swarm, source)
        except XorbitError:
            _show_logs(swarm)
            raise
        if not once:
            await _stay(stage, swarm, name, came)
    stage.title("all nodes are stopped")


class _Stage:
    """Where the demo speaks: standard output, with colours on a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._mark = "✓" if self._console.encoding.lower().startswith("utf") else "*"

    def title(self, text: str) -> None:
        self._console.print(Text(text, "bold"))

    def done(self, what: str, *details: str) -> None:
        self._console.print(Text(f"  {self._mark} ", "bold green") + Text(what))
        for detail in details:
            self._console.print(Text(f"      {detail}", "cyan"))

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style))


# --- The show -----------------------------------------------------------------------------------


async def _start(stage: _Stage, swarm: Swarm, file: Path | None, nodes: int) -> Path:
    began = perf_counter()
    await swarm.add(1)
    await swarm.add(nodes - 1)
    took = perf_counter() - began
    stage.done(f"started {nodes} nodes in {took:.1f} s", f"their homes: {swarm.directory}")
    if file is not None:
        stage.done(f"took {file}", _size(file))
        return file
    painted = swarm.directory / "picture.webp"
    await asyncio.to_thread(_paint_to, painted)
    stage.done("painted a picture, 1200x800 WebP at quality 80", _size(painted))
    return painted


def _paint_to(path: Path) -> None:
    from xorbit.cli.picture import paint  # loads Pillow, which only this needs

    path.write_bytes(paint())


def _size(file: Path) -> str:
    size = file.stat().st_size
    fits = "fits" if size <= BLOCK_BYTES_MAX else "does not fit"
    return f"{size:,} bytes, which {fits} in one block of {BLOCK_BYTES_MAX:,}"


async def _show(stage: _Stage, swarm: Swarm, source: Path) -> tuple[str, Path]:
    """Put it, kill, get it; return its name and where it came to."""
    putter = swarm.children[0]
    began = perf_counter()
    summary = await _put(putter, source)
    holders = [child for child in swarm.children if child.id in summary.holders]
    parts = "1 block" if summary.blocks == 1 else f"{summary.blocks:,} blocks"
    stage.done(
        f"put it at {putter} as {parts} in {_seconds(began)}",
        f"its name: {summary.cid}",
        f"held by {_names(holders)}",
    )
    # The node that we talk to is the last to go.
    victims = sorted(holders, key=lambda child: child is putter)[:KILLED]
    for victim in victims:
        await victim.kill()
    stage.done(
        f"killed {_names(victims)} with SIGKILL",
        f"left of its holders: {_names([child for child in holders if child.is_alive])}",
    )
    return str(summary.cid), await _get(stage, swarm, summary, source)


async def _put(putter: Child, source: Path) -> PutSummary:
    async with _calls(putter) as calls:
        with progress("put") as tell:
            return await calls.put_file(source, progress=tell)


async def _get(stage: _Stage, swarm: Swarm, summary: PutSummary, source: Path) -> Path:
    getter = await _empty_node(stage, swarm)
    came = swarm.directory / f"from-{getter.number}{source.suffix}"
    began = perf_counter()
    async with _calls(getter) as calls:
        with progress("get") as tell:
            size = await calls.get_file_to(summary.cid, came, progress=tell)
    stage.done(f"got it from {getter}, which holds nothing, in {_seconds(began)}")
    if not await asyncio.to_thread(filecmp.cmp, source, came, shallow=False):
        raise WorldError(f"the bytes that came from {getter} differ from those of {source}")
    stage.done(f"compared the bytes: all {size:,} are the same")
    return came


async def _empty_node(stage: _Stage, swarm: Swarm) -> Child:
    """Return a node that holds nothing; a new one if all hold something."""
    for child in swarm.alive[1:]:
        async with _calls(child) as calls:
            if not (await calls.status()).store.items:
                return child
    [newcomer] = await swarm.add(1)
    stage.done(f"started {newcomer}, because every other node holds something")
    return newcomer


@asynccontextmanager
async def _calls(child: Child) -> AsyncGenerator[Calls]:
    try:
        client = await connect(child.home)
        try:
            yield client
        finally:
            await client.close()
    except XorbitError as error:
        raise type(error)(f"{child}: {error}") from error


def _names(children: list[Child]) -> str:
    return ", ".join(map(str, children)) or "nobody"


def _seconds(began: float) -> str:
    took = perf_counter() - began
    return f"{took:.1f} s" if took >= 1 else f"{took * 1000:.0f} ms"


def _show_logs(swarm: Swarm) -> None:
    """Show how the logs end of those nodes that have ended by themselves, else of all."""
    suspects = [child for child in swarm.children if child.has_failed] or swarm.children
    for child in suspects:
        talk(f"--- the log of {child} ends with:")
        for line in child.log_tail():
            talk(f"    {line}")


# --- Afterwards ---------------------------------------------------------------------------------


async def _stay(stage: _Stage, swarm: Swarm, name: str, came: Path) -> None:
    """Keep the nodes up until Ctrl-C, and say so when one ends."""
    _say_what_to_try(stage, swarm, name, came)
    try:
        async with asyncio.TaskGroup() as watches:
            for child in swarm.alive:
                watches.create_task(_watch(stage, child))
        stage.line("\nno node is left")
    except asyncio.CancelledError:
        stage.line("\nstopping")


async def _watch(stage: _Stage, child: Child) -> None:
    code = await child.process.wait()
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    stage.line(f"{child} (process {child.pid}) has ended {how}", "yellow")


def _say_what_to_try(stage: _Stage, swarm: Swarm, name: str, came: Path) -> None:
    program = _program()
    first, *others, last = swarm.alive
    victim = others[0] if others else last
    join = f"--network {swarm.network} --bootstrap {first.address}"
    ideas = (
        ("look at what came", f"{_opener()} {_quoted(came)}"),
        ("see how a node is doing", f"{program} status --home {_quoted(last.home)}"),
        ("see whom it is connected to", f"{program} peers --home {_quoted(last.home)}"),
        ("get the file", f"{program} get {name} --home {_quoted(last.home)} -o got{came.suffix}"),
        ("put a file of your own", f"{program} put README.md --home {_quoted(first.home)}"),
        ("kill another node, and get it again", f"kill -9 {victim.pid}"),
        ("join with a node of your own", f"{program} node --home own --listen 127.0.0.1:0 {join}"),
    )
    stage.line()
    stage.title(f"{len(swarm.alive)} nodes stay up; try next, in another terminal:")
    for what, command in ideas:
        stage.line(f"\n  # {what}", "dim")
        stage.line(f"  {command}")
    stage.line("\nCtrl-C stops them all and removes their homes", "bold")


def _program() -> str:
    """Return how the user can call xorbit from where they are."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_quoted(Path(sys.executable))} -m xorbit"
    found = shutil.which("xorbit")
    on_path = found is not None and Path(found).resolve() == called.resolve()
    return "xorbit" if on_path else _quoted(called.absolute())


def _opener() -> str:
    """Return the command that shows a file; one that says what it is where there is no desktop."""
    return next(filter(shutil.which, ("xdg-open", "open")), "ls -l")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
