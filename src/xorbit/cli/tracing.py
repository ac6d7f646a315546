"""`--trace` and `xorbit trace`: one operation, shown as a tree with times.

A file is many operations, one for each block: these are counted, and the slowest are shown whole.
What a trace holds stands in core/trace.py.
"""

import heapq
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from xorbit.api import connect
from xorbit.cli.options import Home, Json
from xorbit.cli.output import fact_json, finish
from xorbit.core.trace import Event, Operation, Step, milliseconds, operation
from xorbit.errors import NotFoundError, XorbitError
from xorbit.files.cid import Cid, Codec
from xorbit.files.flow import PutReceipt
from xorbit.files.seal_key import keys_hidden
from xorbit.ids import Guid, Id
from xorbit.items import Address, Item, ItemKey, Kind, block_key
from xorbit.pins import Order, Told
from xorbit.run.calls import Calls
from xorbit.run.file_calls import FileCalls, Name, cid_from
from xorbit.run.tracing import tracing

T = TypeVar("T")

SLOWEST_SHOWN = 5
PEER_DIGITS = 8
WIDTH = 500
"""Where no terminal says how wide it is, no line is broken."""

Trace = Annotated[
    bool,
    typer.Option(
        "--trace",
        help="Show who was asked, when, what they said and how long it took (on stderr; with "
        "--json among the facts).",
    ),
]


# --- Recording ------------------------------------------------------------------------------------


class Recorder(FileCalls):
    """Follows the operations of one command where that is wanted, and keeps the slowest.

        recorder = Recorder(trace, json)
        async with open_calls(...) as calls, recorder.at(calls, "lookup"):
            found = await recorder.watch(name, calls.lookup(id))
        fact_json({**facts, **recorder.facts()})

    It is itself what files are put to and got from, so that each of their blocks is followed.
    """

    def __init__(self, wanted: bool, json: bool) -> None:
        """Follow a command, or do nothing; with `json` the trace goes among the facts."""
        self._wanted = wanted
        self._json = json
        self._calls: Calls | None = None
        self._began = 0.0
        self.took_s = 0.0
        self.operations = 0
        self.exchanges = 0
        self.failed = 0
        self.where: dict[Id, Address] = {}
        self._slowest: list[tuple[float, int, str, Operation]] = []

    @asynccontextmanager
    async def at(self, calls: Calls, title: str) -> AsyncGenerator[None]:
        """Follow what is asked of `calls` within this; then show it, also when it failed."""
        self._calls, self._began = calls, time.monotonic()
        if not self._wanted:
            yield
            return
        try:
            yield
        except XorbitError:
            await self._end()
            self._show(title)
            raise
        await self._end()
        if not self._json:
            self._show(title)

    async def watch(self, name: str, call: Awaitable[T]) -> T:
        """Wait for a call, and keep what it was made of, also when it fails."""
        if not self._wanted:
            return await call
        with tracing() as works:
            try:
                result = await call
            except XorbitError:
                await self._keep(name, works)
                raise
        await self._keep(name, works)
        return result

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block, followed."""
        if not self._wanted:
            return await self._at.store_block(data, kind)
        name = str(Cid(Codec.RAW, block_key(data, kind)))
        return await self.watch(name, self._at.store_block(data, kind))

    async def get_block(self, key: Name) -> bytes:
        """Return a block, followed."""
        return await self.watch(str(cid_from(key)), self._at.get_block(key))

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept."""
        return await self._at.tend(order)

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it."""
        return await self._at.keep(key, item)

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of a root."""
        return await self._at.unpin(name, salt)

    async def get_signed(self, key: ItemKey) -> Item:
        """Return a record, followed."""
        return await self.watch("", self._at.get_signed(key))

    def facts(self) -> dict[str, object]:
        """Return the trace as JSON has it, to be put among a command's facts."""
        return {"trace": recorded_facts(self)} if self._wanted else {}

    @property
    def _at(self) -> Calls:
        assert self._calls is not None, "it follows what is asked within `at`"
        return self._calls

    async def _end(self) -> None:
        """Take the time, and note where the peers are."""
        self.took_s = time.monotonic() - self._began
        self.where = {peer.id: peer.address for peer in await self._at.peers()}

    def _show(self, title: str) -> None:
        show(recorded_tree(self, title), stderr=True)

    @property
    def slowest(self) -> list[tuple[str, Operation]]:
        """The slowest operations; in the order of their beginning if these are all."""
        kept = sorted(self._slowest, key=lambda it: (-it[0], it[1]))
        if self.operations <= SLOWEST_SHOWN:
            kept = sorted(self._slowest, key=lambda it: it[1])
        return [(name, found) for _, _, name, found in kept]

    async def _keep(self, name: str, works: list[Guid]) -> None:
        for work in works:
            found = operation(work, await self._at.trace(work))
            self.operations += 1
            self.exchanges += found.exchanges
            self.failed += sum(step.failed for step in found.steps)
            entry = (found.took_s or 0.0, self.operations, name, found)
            if len(self._slowest) < SLOWEST_SHOWN:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heappushpop(self._slowest, entry)


# --- Showing --------------------------------------------------------------------------------------


def show(tree: Tree, *, stderr: bool = False) -> None:
    """Print a tree; in a terminal, lines too long for it are broken within their branch."""
    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal:
        out.width = WIDTH
    out.print(tree)


def recorded_tree(recorder: Recorder, title: str) -> Tree:
    """Return what a command was made of, as a tree."""
    failed = f", {recorder.failed:,} failed" if recorder.failed else ""
    works = _count(recorder.operations, "operation")
    requests = _count(recorder.exchanges, "request")
    title = keys_hidden(title)
    tree = Tree(Text(f"{title}: {milliseconds(recorder.took_s)}, {works}, {requests}{failed}"))
    shown = tree
    if recorder.operations > SLOWEST_SHOWN:
        shown = tree.add(Text(f"the {SLOWEST_SHOWN} slowest:"))
    for name, found in recorder.slowest:
        _add_operation(shown, found, recorder.where, name)
    return tree


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _add_operation(tree: Tree, found: Operation, where: dict[Id, Address], name: str = "") -> None:
    branch = tree.add(_head(found, name))
    _add_steps(branch, found.steps, where)
    if not found.steps:
        branch.add(Text("nobody was asked", style="dim"))


def _head(found: Operation, name: str = "") -> Text:
    text = Text()
    text.append(found.kind or "an operation of another node", style="bold")
    if name:
        text.append(f" {name}")
    if found.kind:
        text.append("  in progress" if found.took_s is None else f"  {milliseconds(found.took_s)}")
    text.append(f"  {found.origin.hex()}", style="dim")
    return text


def _add_steps(tree: Tree, steps: list[Step], where: dict[Id, Address]) -> None:
    for step in steps:
        _add_steps(tree.add(_step(step, where.get(step.peer))), step.passed_on, where)


def _step(step: Step, address: Address | None) -> Text:
    text = Text(f"+{milliseconds(step.at_s):<10}", style="dim")
    peer = step.peer.hex()[:PEER_DIGITS]
    who = "own disk" if step.local else f"{'from' if step.served else 'to'} {peer}"
    text.append(who, style="cyan")
    text.append(f" {address}" if address else "")
    text.append(f"  {step.kind}", style="default")
    if step.said is None or step.took_s is None:
        text.append("  no answer yet", style="yellow")
    else:
        style = "red" if step.failed else "yellow" if step.said.startswith("Refused") else "green"
        text.append(f"  {step.said}", style=style)
        text.append(f"  {milliseconds(step.took_s)}")
    return text


# --- As facts -------------------------------------------------------------------------------------


def recorded_facts(recorder: Recorder) -> dict[str, object]:
    """Return what a command was made of, as JSON has it."""
    return {
        "took_s": recorder.took_s,
        "operations": recorder.operations,
        "requests": recorder.exchanges,
        "failed": recorder.failed,
        "slowest": [
            {"name": name, **operation_facts(found, recorder.where)}
            for name, found in recorder.slowest
        ],
    }


def operation_facts(found: Operation, where: dict[Id, Address]) -> dict[str, object]:
    """Return one operation as JSON has it."""
    return {
        "guid": found.origin.hex(),
        "kind": found.kind or None,
        "took_s": found.took_s,
        "steps": [_step_facts(step, where) for step in found.steps],
    }


def _step_facts(step: Step, where: dict[Id, Address]) -> dict[str, object]:
    address = where.get(step.peer)
    return {
        "exchange": step.exchange.hex(),
        "peer": step.peer.hex(),
        "address": None if address is None else str(address),
        "direction": "disk" if step.local else "from" if step.served else "to",
        "kind": step.kind,
        "at_s": step.at_s,
        "said": step.said,
        "failed": step.failed,
        "took_s": step.took_s,
        "passed_on": [_step_facts(passed, where) for passed in step.passed_on],
    }


# --- xorbit trace ---------------------------------------------------------------------------------


def trace(
    guid: Annotated[
        str,
        typer.Argument(
            metavar="GUID",
            help="An operation, by its guid or the beginning of it.",
            show_default=False,
        ),
    ],
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what the node on the home knows of one operation.

    The guid of an operation travels with every request that it causes: ask other nodes for the
    same guid to see their pieces of it.
    """

    async def work() -> tuple[tuple[Event, ...], dict[Id, Address]]:
        client = await connect(home)
        try:
            events = await client.trace(guid)
            return events, {peer.id: peer.address for peer in await client.peers()}
        finally:
            await client.close()

    events, where = finish(work())
    if not events:
        raise NotFoundError(f"this node remembers nothing of {guid}")
    found = operation(events[0].origin, events)
    if json:
        fact_json(operation_facts(found, where))
        return
    tree = Tree(_head(found))
    _add_steps(tree, found.steps, where)
    show(tree)
