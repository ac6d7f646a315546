"""Everything that a machine remembers, and the one way to want something done (`emit`).

Only code that runs inside `Machine.step` may change a State. The rooms of the core (links, serve,
work, discovery) are functions over it. No I/O, no clock: `now` is the time of the step at hand.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from random import Random

from xorbit.config import HEALTH_WINDOW_S, Limits
from xorbit.core.effect import Effect, Report
from xorbit.core.heard import Heard
from xorbit.core.job import (
    DialFailed,
    PinsTended,
    StoreChecked,
    StoreDropped,
    StoreRead,
    StoreScanned,
    StoreWritten,
)
from xorbit.core.leases import Leases
from xorbit.core.routing import RoutingTable
from xorbit.core.scope import Scope
from xorbit.core.timers import TimerName, Timers
from xorbit.core.trace import Event, Trace, on_disk
from xorbit.ids import Guid, Id, new_guid
from xorbit.items import Address, ConnectionItem, Contact, Record
from xorbit.pins import Root
from xorbit.wire.message import Request, Response

DiskResult = StoreRead | StoreWritten | StoreChecked | StoreScanned | StoreDropped | PinsTended


@dataclass(slots=True)
class OutWorker:
    """One of our requests, from when it was asked for until it is answered or given up."""

    guid: Guid
    work: Guid
    origin: Guid
    """The work that caused all this, maybe at another node: what the envelope names."""
    request: Request
    sent_at: float = 0.0
    deadline: float = 0.0


@dataclass(slots=True)
class InWorker:
    """One request of a peer that we are answering."""

    work: Guid
    request: Request
    came_at: float = 0.0


@dataclass(slots=True)
class RoundTrip:
    """A peer's smoothed round-trip time and its variation, seconds (RFC 6298)."""

    smoothed_s: float | None = None
    variation_s: float = 0.0
    backoff: int = 1
    """Doubled by each timeout until the next answer (RFC 6298, 5.5)."""


@dataclass(slots=True)
class Link:
    """One connection, with its workers."""

    guid: Guid
    peer: Id
    address: Address
    dialled: bool
    opened_at: float
    heard_at: float
    used_at: float
    greets: bool = True
    """Whether the peer is to be told who and where we are, once it is open."""
    out_workers: dict[Guid, OutWorker] = field(default_factory=dict[Guid, OutWorker])
    deadline: float = 0.0
    """When the timer of its out-workers rings: not after the earliest of their deadlines."""
    waiting: list[OutWorker] = field(default_factory=list[OutWorker])
    in_workers: dict[Guid, InWorker] = field(default_factory=dict[Guid, InWorker])
    round_trip: RoundTrip = field(default_factory=RoundTrip)
    timeouts_in_row: int = 0
    observed: Address | None = None
    """Where this peer sees us, with the port that we listen on."""
    retiring: bool = False
    """Another connection to the same peer has taken over; this one only finishes what it has."""
    closing: bool = False
    """We asked for it to be closed."""


@dataclass(slots=True)
class Dialling:
    """A dial under way."""

    guid: Guid
    addresses: tuple[Address, ...]
    expected: Id | None
    greets: bool = False
    """Whether somebody wants it for more than one question."""
    waiting: list[OutWorker] = field(default_factory=list[OutWorker])
    """Requests to be sent once it is open."""
    works: list[Guid] = field(default_factory=list[Guid])
    """Works that want to know how it ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to one of our requests, on its way to the work that asked."""

    work: Guid
    guid: Guid
    peer: Id
    response: Response
    round_trip_s: float


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The end of one of our requests without a response."""

    work: Guid
    guid: Guid
    peer: Id
    reason: str


@dataclass(frozen=True, slots=True)
class DialEnded:
    """A dial that a work waited for: the connection's peer, or the failure."""

    work: Guid
    peer: Id | None
    failure: DialFailed | None = None


Delivery = Answer | NoAnswer | DialEnded


class Work(ABC):
    """An operation in progress, addressed by its guid: a small state machine.

    It is told what it waits for by the `on_` methods, and takes itself out by `State.end_work`.
    """

    __slots__ = ("began_at", "deadline", "guid", "origin")

    def __init__(self, guid: Guid, deadline: float, origin: Guid | None = None) -> None:
        """Name a work, say by when it must have ended, and which work elsewhere caused it."""
        self.guid = guid
        self.deadline = deadline
        self.origin = origin or guid
        self.began_at = 0.0

    @abstractmethod
    def start(self, state: "State") -> None:
        """Do the first thing."""

    def on_answer(self, state: "State", answer: Answer) -> None:
        """Take a response to a request of this work."""

    def on_no_answer(self, state: "State", failure: NoAnswer) -> None:
        """Take the failure of a request of this work."""

    def on_dial_ended(self, state: "State", ended: DialEnded) -> None:
        """Take the end of a dial that this work waited for."""

    def on_disk(self, state: "State", result: DiskResult) -> None:
        """Take what the store said to this work."""

    def on_time(self, state: "State") -> None:
        """Take note that the time asked for by `State.wake_at` has come."""

    @abstractmethod
    def on_deadline(self, state: "State") -> None:
        """Give up: finish with what there is, and end."""


@dataclass(slots=True)
class Serving:
    """A disk operation on behalf of a peer's request."""

    connection: Guid
    exchange: Guid


@dataclass(frozen=True, slots=True)
class DiskWait:
    """A disk operation under way: who waits for it, for which work anywhere, since when."""

    waiter: Guid | Serving
    origin: Guid
    at: float


@dataclass(frozen=True, slots=True)
class Pusher:
    """A connection by which a peer pushes to a work of ours, and until when it said it would."""

    connection: Guid
    until: float


@dataclass(slots=True)
class Telling:
    """A record whose followers have just been told: when they may be again, and of what then."""

    due: float
    newest: Record | None = None


@dataclass(slots=True)
class Typed:
    """A line typed at a console that takes time, and who waits for the answer."""

    session: Guid | None
    number: int
    words: tuple[str, ...]
    stepwise: bool = False
    """Whether each exchange is shown as it happens."""
    root: Root | None = None
    """What is kept for our owner once it is stored."""


@dataclass(slots=True)
class DialBack:
    """A possible dialled in vain: how often, when it may be again, how long that wait was."""

    tries: int = 0
    due: float = 0.0
    wait_s: float = 0.0


@dataclass(slots=True)
class FingerChecks:
    """How far the checks of our fingers have come."""

    turn: int = 0
    """Which point is next; 0 is our own neighbour."""
    wait_s: float = 0.0
    """How long the last wait before another check was."""


@dataclass(slots=True)
class Survey:
    """How far our walk through the keyspace has come."""

    point: Id | None = None
    """What is asked for next; None before the first question."""
    wait_s: float = 0.0
    """How long the last wait before a question was."""
    known: int = 0
    """How many nodes were known, or heard of, when this round began."""


@dataclass(slots=True)
class Announced:
    """What we last told the network of where we are."""

    addresses: tuple[Address, ...] = ()
    holders: tuple[Id, ...] = ()
    """The nodes closest to us at that time."""
    at: float = 0.0
    item: ConnectionItem | None = None
    work: Guid | None = None
    """The work that announces us now."""
    in_doubt: bool = False
    """Somebody holds, or says that it holds, a newer item of ours: from a life we forgot, maybe."""


@dataclass(slots=True)
class Counters:
    """What a node has seen since it started."""

    requests_sent: int = 0
    requests_answered: int = 0
    requests_timed_out: int = 0
    requests_served: int = 0
    requests_refused: int = 0
    damaged_found: int = 0
    marks: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """How many requests had been answered and had timed out when the last two windows began."""
    marked_at: float = 0.0

    def mark(self, now: float) -> None:
        """Begin a new window for `timeout_rate` where the last one has passed."""
        if now >= self.marked_at + HEALTH_WINDOW_S:
            self.marks = self.marks[1], (self.requests_answered, self.requests_timed_out)
            self.marked_at = now

    @property
    def timeout_rate(self) -> float:
        """Which share of the requests that ended lately, 0..1, came back without an answer."""
        answered, timed_out = self.marks[0]
        late = self.requests_timed_out - timed_out
        done = self.requests_answered - answered + late
        return late / done if done else 0.0


@dataclass(slots=True)
class Upkeep:
    """What the upkeep of our items (upkeep.py) remembers."""

    near: dict[Id, None] | None = None
    """The contacts around us at the last look; None before the first."""
    lost: dict[Id, None] = field(default_factory=dict[Id, None])
    """Neighbours whose connection broke, to be dialled to see whether they are there."""
    changed: dict[Id, None] = field(default_factory=dict[Id, None])
    """Who came and went since the last sweep."""
    left: dict[Id, None] = field(default_factory=dict[Id, None])
    """Who came or went, where the last sweep left it to nearer holders to act."""
    settled_at: float = 0.0
    """No sweep before this: a node that has just started knows too little."""
    full_at: float = 0.0
    changed_at: float | None = None
    left_at: float | None = None
    """When the sweeps for all items, for `changed` and for `left` are due."""
    due_at: float | None = None
    """When those of our owner's items that nobody took are sent again."""
    far_wait_s: float = 0.0
    """How long the last wait was before copies that are not ours to keep were looked at again."""
    due_wait_s: float = 0.0
    """How long the last wait for that was."""
    sweep: Guid | None = None
    """The sweep under way."""


@dataclass(slots=True)
class State:
    """The state of one node."""

    own: Id
    limits: Limits
    rng: Random
    table: RoutingTable
    now: float = 0.0
    timers: Timers = field(default_factory=Timers)
    effects: list[Effect] = field(default_factory=list[Effect])
    deliveries: deque[Delivery] = field(default_factory=deque[Delivery])
    """What works have yet to be told within this step."""

    links: dict[Guid, Link] = field(default_factory=dict[Guid, Link])
    link_of: dict[Id, Guid] = field(default_factory=dict[Id, Guid])
    """The connection by which each connected peer is asked."""
    crowds: dict[str, int] = field(default_factory=dict[str, int])
    """How many connections there are with each public subnet."""
    dials: dict[Guid, Dialling] = field(default_factory=dict[Guid, Dialling])
    dial_of: dict[Id, Guid] = field(default_factory=dict[Id, Guid])
    dials_waiting: deque[Guid] = field(default_factory=deque[Guid])
    """Dials that wait until fewer than `dials_max` are under way, up to `dials_waiting_max`."""

    works: dict[Guid, Work] = field(default_factory=dict[Guid, Work])
    disk_of: dict[Guid, DiskWait] = field(default_factory=dict[Guid, DiskWait])
    """Who waits for each disk operation: a work, or a peer's request."""

    leases: Leases = field(default_factory=Leases)
    """Whom we tell of newer versions of a record."""
    telling: dict[Id, Telling] = field(default_factory=dict[Id, Telling])
    """Records whose followers were told a moment ago; who may be told again first stands first."""
    pushers: dict[Guid, dict[Guid, Pusher]] = field(default_factory=dict[Guid, dict[Guid, Pusher]])
    """Who pushes to our works: by work, then by the exchange that asked for it."""
    listening: tuple[Address, ...] = ()
    own_addresses: dict[Address, None] = field(default_factory=dict[Address, None])
    """Where others see us and can dial us, the latest last."""
    dialled_from: dict[Scope, None] = field(default_factory=dict[Scope, None])
    """From how far others have dialled us."""
    own_forms: dict[Address, None] = field(default_factory=dict[Address, None])
    """Addresses at which we ourselves answered when we dialled them."""
    own_seq: int = 0
    """The sequence number of our connection item; 0 before there is one."""
    knowns: dict[Address, None] = field(default_factory=dict[Address, None])
    anchors: dict[Id, Contact] = field(default_factory=dict[Id, Contact])
    """By whom we came in: at addresses that our user gave us, or that had been good before we had
    lost everybody. Liars had less of a say in these than in whom they name."""
    possibles: dict[Id, Contact] = field(default_factory=dict[Id, Contact])
    revoked: frozenset[Id] = frozenset()
    """Whom the operator of our network has turned out; asked for membership only."""
    hung_up_told: bool = False
    """Whether the log has it that all who answer hang up; it is said once."""
    unkept: int = 0
    """Of how many of our owner's items our disk took no copy since the log was last told so."""
    unkept_due: float = 0.0
    """When it may be told again."""
    dial_backs: dict[Id, DialBack] = field(default_factory=dict[Id, DialBack])
    """For those of the possibles that were dialled in vain, how that went."""
    wanted: dict[Id, Contact] = field(default_factory=dict[Id, Contact])
    """Who stays connected, as it was when the table had changed `wanted_at` times."""
    wanted_at: int = -1
    unused_due: float = 0.0
    """When it is next seen which connections nobody uses."""
    dial_back_due: float = 0.0
    """When the next possible that is connected to us is dialled."""
    fingers: FingerChecks = field(default_factory=FingerChecks)
    survey: Survey = field(default_factory=Survey)
    announced: Announced = field(default_factory=Announced)
    relays: int = 0
    """How many FindNext requests of others are on their way through us."""
    saved: tuple[Contact, ...] = ()
    """The contacts that were last saved."""
    known_due: float = 0.0
    """When one of the knowns that are no contacts is dialled again."""
    save_due: float = 0.0
    """When they may be saved again."""
    upkeep: Upkeep = field(default_factory=Upkeep)
    joined: bool = False
    retry_wait_s: float = 0.0
    """How long the last wait before another try to join was."""
    look_wait_s: float = 0.0
    """How long the last wait before another look around was."""
    looks: int = 0
    """How many looks around there have been."""
    stopping: bool = False
    stopped: bool = False
    counters: Counters = field(default_factory=Counters)
    trace: Trace = field(init=False)
    heard: Heard = field(init=False)
    """Whom others named; `possibles` are those that came to us by themselves."""
    typed: dict[Guid, Typed] = field(default_factory=dict[Guid, Typed])
    """The lines of a console whose works are in progress, by the guid of the work."""
    typed_count: int = 0
    served_at: float = 0.0
    served_before: dict[str, int] = field(default_factory=dict[str, int])
    """How many jobs of each kind had been served when a console was last told of it."""

    def __post_init__(self) -> None:
        """Make what the limits measure."""
        self.trace = Trace(self.limits.trace_events_max)
        self.heard = Heard(self.limits.heard_max)

    def emit(self, effect: Effect) -> None:
        """Want something done after this step."""
        self.effects.append(effect)

    def warn(self, event: str, detail: str = "") -> None:
        """Tell the node's log of something that its owner may want to look into."""
        self.effects.append(Report("warning", event, detail))

    def tell(self, event: str, detail: str = "") -> None:
        """Tell the node's log of an ordinary event."""
        self.effects.append(Report("info", event, detail))

    def new_guid(self) -> Guid:
        """Return a fresh guid."""
        return new_guid(self.rng)

    def hurry(self, name: TimerName, within_s: float) -> None:
        """Have a timer ring within so many seconds, or when it was to ring if that is sooner."""
        due = self.timers.due(name)
        soon = self.now + self.jittered(within_s)
        if due is None or soon < due:
            self.timers.set(name, soon)

    def jittered(self, interval_s: float) -> float:
        """Return an interval stretched or shrunk by chance, so that nodes do not march in step."""
        share = self.limits.interval_jitter
        return interval_s * (1 + share * (2 * self.rng.random() - 1))

    def start_work(self, work: Work) -> None:
        """Take a work in and let it do its first thing."""
        self.works[work.guid] = work
        self.timers.set(("work", work.guid), work.deadline)
        work.began_at = self.now
        kind = type(work).__name__.removesuffix("Work")
        self.trace.add(self.now, work.origin, work.guid, self.own, "began", kind)
        work.start(self)

    def end_work(self, work: Work) -> None:
        """Take a work out; what still comes for it changes nothing."""
        if self.works.pop(work.guid, None) is not None:
            took_s = self.now - work.began_at
            kind = type(work).__name__.removesuffix("Work")
            self.trace.add(self.now, work.origin, work.guid, self.own, "ended", kind, "", took_s)
        self.pushers.pop(work.guid, None)
        self.timers.cancel(("work", work.guid))

    def trace_of(self, origin: Guid) -> tuple[Event, ...]:
        """Return what is still known of what this work caused here, oldest first."""
        return self.trace.of(origin)

    def wake_at(self, work: Work, when: float | None) -> None:
        """Call a work's `on_time` at `when`, or only its `on_deadline` at its deadline."""
        assert work.guid in self.works
        due = work.deadline if when is None else min(when, work.deadline)
        self.timers.set(("work", work.guid), due)

    def disk_guid(self, waiter: Guid | Serving) -> Guid:
        """Return the guid for a new disk operation that `waiter` waits for."""
        guid = self.new_guid()
        if isinstance(waiter, Serving):
            origin = self.links[waiter.connection].in_workers[waiter.exchange].work
        else:  # a work may mend what it found on its way out
            origin = self.works[waiter].origin if waiter in self.works else waiter
        self.disk_of[guid] = DiskWait(waiter, origin, self.now)
        return guid

    def disk_done(self, result: DiskResult) -> Guid | Serving | None:
        """Return who waited for this result of a disk operation, None if nobody did."""
        wait = self.disk_of.pop(result.guid, None)
        if wait is None:
            return None
        exchange = wait.waiter.exchange if isinstance(wait.waiter, Serving) else result.guid
        kind, said, failed = on_disk(result)
        what = "disk failed" if failed else "disk"
        took_s = self.now - wait.at
        self.trace.add(self.now, wait.origin, exchange, self.own, what, kind, said, took_s)
        return wait.waiter
