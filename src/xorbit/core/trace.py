"""The trace: what this node asked, answered and was told lately, by the work that caused it.

A bounded ring of small events, and the tree that they make of one operation. The guid of a work
travels with every exchange that it causes, so every node that took part knows its piece of the
same operation. Nothing here decides anything, and no event keeps what a message carried.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from xorbit.config import TRACE_CHARACTERS_MAX
from xorbit.core import job as jobs
from xorbit.ids import Guid, Id
from xorbit.items import Address, Block, Item
from xorbit.wire import message
from xorbit.wire.message import GuidField, Request, Response

What = Literal["sent", "answered", "failed", "served", "began", "ended", "disk", "disk failed"]
"""A request of ours left, was answered or came to nothing; one of a peer's was answered; a work of
ours began or ended; our own disk did what was wanted, or did not."""


class Event(Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened.

    `exchange` is the guid of the request, of the work, or of a work's own disk operation; the disk
    operation that a peer's request needs goes by the guid of that request.
    """

    at: float
    origin: GuidField
    """The work that caused it, maybe at another node."""
    exchange: GuidField
    peer: Id
    what: What
    kind: str
    said: str = ""
    took_s: float = 0.0


class Trace:
    """The latest events of a node."""

    __slots__ = ("_events", "fresh", "watched")

    def __init__(self, events_max: int) -> None:
        """Keep the latest `events_max` events."""
        self._events: deque[Event] = deque(maxlen=events_max)
        self.watched: dict[Guid, None] = {}
        """The works of which every event is also put into `fresh`."""
        self.fresh: list[Event] = []

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        """Go through the events, oldest first."""
        return iter(self._events)

    def add(
        self,
        at: float,
        origin: Guid,
        exchange: Guid,
        peer: Id,
        what: What,
        kind: str,
        said: str = "",
        took_s: float = 0.0,
    ) -> None:
        """Note what happened; the oldest event gives way."""
        event = Event(at, origin, exchange, peer, what, kind, said, took_s)
        self._events.append(event)
        if self.watched and origin in self.watched:
            self.fresh.append(event)

    def of(self, origin: Guid) -> tuple[Event, ...]:
        """Return what is still known of one operation, oldest first."""
        return tuple(event for event in self._events if event.origin == origin)


# --- What a message says, in a few words --------------------------------------------------------


def asked(request: Request) -> str:
    """Return the kind of a request."""
    return type(request).__name__


def said(response: Response) -> str:
    """Return what a response says, in a few words."""
    # No `match`, which takes twice as long: this happens thousands of times a second.
    if isinstance(response, message.Stored):
        return "Stored"
    if isinstance(response, message.Found):
        item = response.item
        return f"Found {_item(item)}"
    if isinstance(response, message.Closest):
        return f"Closest {len(response.contacts)}"
    if isinstance(response, message.Refused):
        return f"Refused {response.code}: {clean(response.reason)}"
    if isinstance(response, message.Next):
        return f"Next {response.contact.id.hex()[:8]}, hop {response.hops}"
    if isinstance(response, message.Missing):
        return f"Missing {len(response.keys)}"
    return type(response).__name__


def on_disk(result: Struct) -> tuple[str, str, bool]:
    """Return what was wanted of our own disk, what came of it, and whether it failed."""
    match result:
        case jobs.StoreRead(_, item, fault):
            return "Read", clean(fault) or (_item(item) if item else "not here"), bool(fault)
        case jobs.StoreWritten(_, "stored"):
            return "Write", "stored", False
        case jobs.StoreWritten(_, code, reason):
            return "Write", f"{code}: {clean(reason)}", True
        case jobs.StoreChecked(_, missing):
            return "Check", f"{len(missing)} missing", False
        case _:  # upkeep's, of no interest but for the time they take
            return type(result).__name__, "done", False


def _item(item: Item) -> str:
    return f"{len(item.data):,} bytes" if isinstance(item, Block) else f"sequence {item.seq}"


def clean(text: str) -> str:
    """Return text that a stranger wrote without what would upset a terminal, and not too long."""
    shown = text[:TRACE_CHARACTERS_MAX]
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


# --- One operation as a tree --------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """One exchange of an operation, or one use of our own disk for it, as this node saw it."""

    exchange: Guid
    peer: Id
    served: bool
    """Whether the peer asked us (else we asked the peer)."""
    kind: str
    at_s: float
    """When it began, from the beginning of the operation as this node saw it."""
    said: str | None = None
    """What came of it; None while nothing has."""
    failed: bool = False
    took_s: float | None = None
    local: bool = False
    """Whether it is our own disk, and nobody was asked."""
    passed_on: "list[Step]" = field(default_factory=list["Step"])
    """What we did to answer it: a relayed request goes on under the same guid."""


@dataclass(slots=True)
class Operation:
    """All that one node knows of one operation."""

    origin: Guid
    kind: str
    """What kind of work it is, where it began here; else ""."""
    took_s: float | None
    """None while it goes on, or where it began at another node."""
    steps: list[Step]

    @property
    def exchanges(self) -> int:
        """How many requests it took, as far as this node saw it."""
        every = (it for step in self.steps for it in (step, *step.passed_on))
        return sum(not step.local for step in every)


_DISK = ("disk", "disk failed")


def operation(origin: Guid, events: Iterable[Event]) -> Operation:
    """Put the events of one operation together."""
    kind, took_s, began = "", None, None
    steps: dict[tuple[Guid, Id, What], Step] = {}
    for event in events:
        began_at = event.at - event.took_s
        began = began_at if began is None else min(began, began_at)
        if event.what in ("began", "ended"):
            if event.exchange == origin:
                kind = event.kind
                took_s = event.took_s if event.what == "ended" else None
            continue
        local, served = event.what in _DISK, event.what == "served"
        name = (event.exchange, event.peer, event.what if local or served else "sent")
        step = steps.get(name)
        if step is None:
            step = Step(event.exchange, event.peer, served, event.kind, began_at, local=local)
            steps[name] = step
        if event.what != "sent":
            step.said, step.took_s = event.said, event.took_s
            step.failed = event.what in ("failed", "disk failed")
    for step in steps.values():
        step.at_s -= began or 0.0
    return Operation(origin, kind, took_s, _nested(list(steps.values())))


def _nested(steps: list[Step]) -> list[Step]:
    """Put what was done for a peer's request under that request."""
    served = {step.exchange: step for step in steps if step.served}
    top: list[Step] = []
    for step in sorted(steps, key=lambda step: step.at_s):
        relayed = None if step.served else served.get(step.exchange)
        (top if relayed is None else relayed.passed_on).append(step)
    return top


# --- As text ------------------------------------------------------------------------------------


def in_words(found: Operation, where: dict[Id, Address] | None = None) -> list[str]:
    """Return the lines of an operation: a head, then each exchange, indented under its cause."""
    lines = [head(found)]
    _add_lines(lines, found.steps, where or {}, "  ")
    return lines


def head(found: Operation) -> str:
    """Return the first line of an operation."""
    if found.kind and found.took_s is not None:
        what = f"{found.kind} in {milliseconds(found.took_s)}"
    elif found.kind:
        what = f"{found.kind}, in progress"
    else:
        what = "caused by another node, or longer ago than is kept"
    count = found.exchanges
    return f"{found.origin.hex()}  {what}, {count} exchange{'' if count == 1 else 's'} here"


def _add_lines(lines: list[str], steps: list[Step], where: dict[Id, Address], indent: str) -> None:
    for step in steps:
        at = f"+{milliseconds(step.at_s)}"
        address = where.get(step.peer)
        peer = step.peer.hex()[:8] + (f" {address}" if address else "")
        lines.append(f"{indent}{at:>11}  {step_words(step, peer)}")
        _add_lines(lines, step.passed_on, where, indent + "    ")


def step_words(step: Step, peer: str) -> str:
    """Return who asked whom, what was said and how long it took."""
    if step.local:
        return f"own disk: {step.kind}  -> {step.said}  ({milliseconds(step.took_s or 0.0)})"
    who = f"{peer} asked us" if step.served else f"asked {peer}"
    if step.said is None or step.took_s is None:
        return f"{who}: {step.kind}  -> no answer yet"
    return f"{who}: {step.kind}  -> {step.said}  ({milliseconds(step.took_s)})"


def milliseconds(seconds: float) -> str:
    """Return a time as people read it."""
    return f"{seconds * 1000:.1f} ms"
