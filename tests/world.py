"""A small world for tests: machines joined by a simulated network, in virtual time, from one seed.

Each node is the production machine behind the production queue, with a memory store. After every
step the invariants of the core are asserted. Frames keep their order on a connection and wait in
its inbox while the receiver's line is full (back-pressure, as in the driver). Nothing here touches
a clock, a socket or a disk.
"""

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from blake3 import blake3
from nacl.signing import SigningKey

from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.check import check
from xorbit.core.job import Job
from xorbit.core.machine import Machine
from xorbit.core.queue import JobQueue
from xorbit.ids import Guid, Id, id_of, new_guid
from xorbit.items import (
    Address,
    Contact,
    ItemKey,
    Kind,
    connection_key,
    key_of,
    make_block,
    make_connection_item,
)
from xorbit.pins import LetGo, Order
from xorbit.store.base import DAMAGED, Eviction, Write
from xorbit.store.memory import MemoryStore
from xorbit.wire import message

DELAY_S = 0.01
DISK_S = 0.002

Log = list[tuple[float, Job, list[fx.Effect]]]
"""Every step of a node: when, the job, what it wanted done."""


@dataclass(eq=False, slots=True)
class End:
    """One node's end of a connection."""

    other: "Node"
    there: Guid
    inbox: deque[bytes] = field(default_factory=deque[bytes])
    """Frames that have come but are not read yet, because the line is full."""
    arrives_at: float = 0.0
    """When the last frame sent from here arrives: frames do not overtake each other."""
    opened: bool = False


class Node:
    """One machine with its queue and its store."""

    def __init__(self, world: "World", name: str, limits: Limits, own: Id | None = None) -> None:
        self.world = world
        self.name = name
        self.key = SigningKey(blake3(name.encode()).digest())
        self.id = own or id_of(bytes(self.key.verify_key))
        self.limits = limits
        eviction = Eviction(self.id, limits.item_lifetime_s)
        self.store = MemoryStore(limits.store_quota_bytes, eviction, lambda: world.now)
        self.outcomes: dict[Guid, fx.Outcome] = {}
        self.reports: list[fx.Report] = []
        self.shown: list[str] = []
        self.address: Address | None = None
        self.mute = False
        """A mute node takes everything in and sends nothing out."""
        self.repeats = False
        """A node whose every frame arrives twice."""
        self.lag_s = 0.0
        """How much later than others' this node's frames arrive."""
        self.step_s = 0.0
        """How long one step takes this node."""
        self.byte_s = 0.0
        """How long it takes this node to send a byte."""
        self.tamper: Callable[[message.Envelope], message.Envelope] = lambda envelope: envelope
        self.lives = 0
        self._be_born()

    def _be_born(self) -> None:
        self.lives += 1
        self.seed = f"{self.world.seed} {self.name} {self.lives}".encode()
        self.machine = Machine(self.id, self.limits, Random(self.seed))
        self.queue: JobQueue = self.world.make_queue(self.limits)
        self.ends: dict[Guid, End] = {}
        self.log: Log = []
        self.alive = True
        self.listening = False
        self.stopped = False
        self._busy = False
        self._tick_at: float | None = None
        self._bytes_sent = 0
        if saved := self.store.load_contacts(b"world"):
            self.push(jobs.Restored(saved), "self")

    @property
    def contact(self) -> Contact:
        """Return how others may be told of this node."""
        return Contact(self.id, (self.address,) if self.address else ())

    # --- What a test does to a node -----------------------------------------------------------

    def listen(self) -> Address:
        """Accept connections at an address of our own."""
        if self.address is None:
            self.address = self.world.free_address()
        self.world.by_address[self.address] = self
        self.listening = True
        self.push(jobs.Listening((self.address,)), "self")
        return self.address

    def push(self, job: Job, line: Hashable = "local", size: int = 0) -> None:
        """Queue a job, and step soon."""
        if self.alive:
            self.queue.push(line, job, size)
            self._work_on()

    def call(self, make: Callable[[Guid], Job]) -> Guid:
        """Queue a job that ends in a Finish; return the guid under which its outcome will stand."""
        guid = new_guid(self.world.rng)
        self.push(make(guid))
        return guid

    def get(self, key: ItemKey) -> Guid:
        return self.call(lambda guid: jobs.Get(guid, key))

    def put(self, data: bytes) -> tuple[Guid, ItemKey]:
        block = make_block(data)
        key = key_of(block)
        return self.call(lambda guid: jobs.Store(guid, key, block)), key

    def tend(self, order: Order) -> Guid:
        return self.call(lambda guid: jobs.TendPins(guid, order))

    def let_go(self, key: ItemKey) -> Guid:
        """Unpin one item."""
        return self.tend(LetGo((key,)))

    def ask(self, to: "Node | Contact", request: message.Request) -> Guid:
        contact = to.contact if isinstance(to, Node) else to
        return self.call(lambda guid: jobs.SendRequest(guid, contact, request))

    def connect(self, other: "Node") -> Guid:
        assert other.address is not None
        addresses = (other.address,)
        return self.call(lambda guid: jobs.Connect(guid, addresses, other.id))

    def bootstrap(self, *addresses: Address) -> Guid:
        return self.call(lambda guid: jobs.Bootstrap(guid, addresses))

    def keep(self, data: bytes) -> ItemKey:
        """Have a block on disk, as from an earlier life."""
        block = make_block(data)
        self.store.write([Write(key_of(block), block)])
        return key_of(block)

    def holds(self, key: ItemKey) -> bool:
        return self.store.read([key]) not in ([None], [DAMAGED])

    def pins(self, key: ItemKey) -> bool:
        """Return whether this node's owner keeps it."""
        return any(held.key == key and held.pinned for held in self.store.scan(key.id, 4))

    def kill(self) -> None:
        """End at once, as SIGKILL would: peers see their connections break."""
        for connection in list(self.ends):
            self.cut(connection, "connection reset")
        self.alive = False
        self.listening = False

    def restart(self) -> None:
        """Begin a new life with the disk of the last one, at the same address."""
        assert not self.alive
        self._be_born()
        if self.address is not None:
            self.listen()

    def damage(self, key: ItemKey) -> None:
        """Spoil a block on disk."""
        self.store.damage(key)

    def cut(self, connection: Guid, reason: str) -> None:
        """Break a connection: known here at once, at the other end when the news arrives."""
        end = self.ends.get(connection)
        if end is not None:
            self._drop(connection, reason)
            other, life = end.other, end.other.lives
            self.world.at(
                self._arrival(end),
                lambda: other.lives == life and other._drop(end.there, "closed by the peer"),
            )

    # --- What a node knows ----------------------------------------------------------------------

    def peer_of(self, connection: Guid) -> Id:
        return self.machine.state.links[connection].peer

    def links_to(self, other: "Node") -> list[Guid]:
        """Return the guids of the connections to a node."""
        links = self.machine.state.links.values()
        return [link.guid for link in links if link.peer == other.id]

    def knows(self, other: "Node") -> bool:
        return other.id in self.machine.state.table

    def sent(self, kind: type[message.Request | message.Response]) -> list[message.Envelope]:
        """Return the envelopes sent whose body is of this kind."""
        sends = (effect for _, _, effects in self.log for effect in effects)
        return [
            effect.envelope
            for effect in sends
            if isinstance(effect, fx.Send) and isinstance(effect.envelope.body, kind)
        ]

    # --- The body of a node -----------------------------------------------------------------------

    def _work_on(self) -> None:
        if not self._busy:
            self._busy = True
            self._after(0.0, self._step)

    def _after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Let something happen later, unless this life is over by then."""
        life = self.lives
        self.world.after(delay_s, lambda: do() if self.alive and self.lives == life else None)

    def _step(self) -> None:
        popped = self.queue.pop()
        if popped is None:
            self._busy = False
            return
        if self.step_s:
            self._after(self.step_s, lambda: self._end_step(*popped))
        else:
            self._end_step(*popped)

    def _end_step(self, line: Hashable, job: Job) -> None:
        self.step(job)
        if isinstance(line, bytes) and line in self.ends:
            self._read(Guid(line))
        self._after(self.byte_s * self._bytes_sent, self._step)
        self._bytes_sent = 0

    def step(self, job: Job) -> list[fx.Effect]:
        """Step the machine at once, past the queue, and perform what it wants."""
        effects = self.machine.step(self.world.now, job)
        check(self.machine.state)
        self.log.append((self.world.now, job, effects))
        for effect in effects:
            self._perform(effect)
        self._arm()
        return effects

    def _arm(self) -> None:
        due = self.machine.next_deadline()
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self._after(max(due - self.world.now, 0.0), self._tick)

    def _tick(self) -> None:
        self._tick_at = None
        due = self.machine.next_deadline()
        if due is not None and due <= self.world.now:
            self.push(jobs.Tick(), "clock")
        else:
            self._arm()

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send(connection, envelope):
                self._send(connection, envelope)
            case fx.Dial():
                self._after(2 * self.world.delay_s, lambda: self._dial(effect))
            case fx.Close(connection, reason):
                self._after(0.0, lambda: self.cut(connection, reason))
            case fx.HoldRequests(connection):
                if connection in self.ends:
                    self.queue.hold(connection)
            case fx.ReleaseRequests(connection):
                if connection in self.ends:
                    self.queue.release(connection)
            case fx.StopListening():
                self.listening = False
            case fx.ReadStore() | fx.WriteStore() | fx.CheckStore() | fx.DropDamaged():
                self._after(self.world.disk_s, lambda: self._disk(effect))
            case fx.ScanStore() | fx.DropItems() | fx.OrderPins():
                self._after(self.world.disk_s, lambda: self._tend_disk(effect))
            case fx.Post(job):
                self.push(job, "self")
            case fx.SaveContacts(contacts):
                self.store.save_contacts(b"world", contacts)
            case fx.SignConnection(guid, seq, addresses):
                item = make_connection_item(self.key, seq, addresses)
                self.push(jobs.ConnectionSigned(guid, item), "self")
            case fx.Finish(guid, outcome):
                assert guid not in self.outcomes, "a call finishes once"
                self.outcomes[guid] = outcome
            case fx.Report():
                self.reports.append(effect)
            case fx.Print(text):
                self.shown.append(text)
            case fx.Stopped():
                assert not self.stopped, "a node stops once"
                self.stopped = True

    def _disk(self, effect: fx.Effect) -> None:
        match effect:
            case fx.ReadStore(guid, key):
                (result,) = self.store.read([key])
                if result is DAMAGED:
                    self.push(jobs.StoreRead(guid, None, "damaged"), "store")
                else:
                    self.push(jobs.StoreRead(guid, result), "store")
            case fx.WriteStore(guid, key, item, cas, pin, age_s):
                (done,) = self.store.write([Write(key, item, cas, pin, age_s)])
                job = jobs.StoreWritten(guid, done.code, done.reason, done.newer)
                self.push(job, "store")
            case fx.CheckStore(guid, keys, touch, pins):
                held = self.store.touch(keys, pins=pins) if touch else self.store.have(keys)
                missing = tuple(key for key, here in zip(keys, held, strict=True) if not here)
                self.push(jobs.StoreChecked(guid, missing), "store")
            case fx.DropDamaged(key):
                self.store.drop_damaged([key])
            case _:
                raise AssertionError(effect)

    def _tend_disk(self, effect: fx.Effect) -> None:
        match effect:
            case fx.ScanStore(guid, start, count):
                entries = tuple(self.store.scan(start, count))
                self.push(jobs.StoreScanned(guid, entries), "store")
            case fx.DropItems(guid, keys, aged_s):
                dropped = tuple(self.store.drop(keys, aged_s))
                self.push(jobs.StoreDropped(guid, dropped), "store")
            case fx.OrderPins(guid, order):
                (told,) = self.store.tend([order])
                self.push(jobs.PinsTended(guid, told), "store")
            case _:
                raise AssertionError(effect)

    # --- Frames ----------------------------------------------------------------------------------

    def _send(self, connection: Guid, envelope: message.Envelope) -> None:
        end = self.ends.get(connection)
        if end is None:
            return
        payload = message.encode(self.tamper(envelope))
        self._bytes_sent += len(payload)
        if not isinstance(envelope.body, message.Request):
            self.queue.charge(connection, len(payload))
        if not self.mute:
            for _ in range(1 + self.repeats):
                self.send_bytes(end, payload)

    def send_bytes(self, end: End, payload: bytes) -> None:
        """Let one frame travel to the other end."""
        other, life = end.other, end.other.lives
        self.world.at(
            self._arrival(end),
            lambda: other.receive(end.there, payload) if other.lives == life else None,
        )

    def _arrival(self, end: End) -> float:
        arrival = self.world.now + self.world.delay_s + self.lag_s
        end.arrives_at = max(end.arrives_at, arrival)
        return end.arrives_at

    def receive(self, connection: Guid, payload: bytes) -> None:
        """Take a frame in."""
        if connection in self.ends:
            self.ends[connection].inbox.append(payload)
            self._read(connection)

    def _read(self, connection: Guid) -> None:
        """Turn a connection's frames into jobs, as far as its line has room; as the driver does."""
        inbox = self.ends[connection].inbox
        while inbox and self.queue.has_room(connection):
            payload = inbox.popleft()
            envelope = message.decode(payload)
            asks = isinstance(envelope.body, message.Request)
            kind = jobs.HandleRequest if asks else jobs.HandleResponse
            job = kind(connection, envelope.guid, envelope.work, envelope.body, len(payload))
            self.push(job, connection, len(payload))

    # --- Connections -----------------------------------------------------------------------------

    def _dial(self, effect: fx.Dial, tried: tuple[tuple[Address, str], ...] = ()) -> None:
        """Try the addresses in order; one in a black hole takes as long as a dial may."""
        addresses = effect.addresses[len(tried) :]
        if not addresses:
            impostor = any("another id" in why or "ourselves" in why for _, why in tried)
            ours = tuple(address for address, why in tried if "ourselves" in why)
            known = impostor and effect.expected is not None
            self.push(jobs.DialFailed(effect.guid, tried, known, ours), "self")
            return
        address = addresses[0]
        other = self.world.by_address.get(address)
        wait_s, why = self.world.delay_s, "connection refused"
        if address in self.world.black_holes:
            wait_s, why = self.limits.dial_timeout_s, "timed out"
        elif other is self:
            why = "it is ourselves"
        elif other is not None and other.listening:
            if effect.expected in (None, other.id):
                self.join(other, address, effect.guid)
                return
            why = f"another id answered: {other.id.hex()}"
        self._after(wait_s, lambda: self._dial(effect, (*tried, (address, why))))

    def join(self, other: "Node", address: Address, dial: Guid | None) -> Guid:
        """Open a connection to a node: here at once, over there when our last handshake arrives."""
        here, there = new_guid(self.world.rng), new_guid(self.world.rng)
        end = self.ends[here] = End(other, there)
        other.ends[there] = End(self, here)
        self._open(here, other.id, address, dial)
        life = other.lives
        seen = Address(self.address.host if self.address else "10.9.9.9", 50_000)
        self.world.at(
            self._arrival(end),
            lambda: other._open(there, self.id, seen, None) if other.lives == life else None,
        )
        return here

    def _open(self, connection: Guid, peer: Id, address: Address, dial: Guid | None) -> None:
        if self.alive and connection in self.ends:
            self.ends[connection].opened = True
            self.queue.hold(connection)
            self.push(jobs.ConnectionOpened(connection, peer, address, dial), connection)

    def _drop(self, connection: Guid, reason: str) -> None:
        end = self.ends.pop(connection, None)
        if end is not None and end.opened:
            # In the connection's own line: it must not overtake its ConnectionOpened.
            self.push(jobs.ConnectionLost(connection, reason), connection)
            self.queue.forget(connection)


class World:
    """Virtual time and the nodes in it."""

    def __init__(
        self,
        seed: int = 0,
        *,
        delay_s: float = DELAY_S,
        disk_s: float = DISK_S,
        make_queue: Callable[[Limits], Any] = JobQueue,
    ) -> None:
        self.seed = seed
        self.now = 100.0
        self.rng = Random(seed)
        self.delay_s = delay_s
        """One way, between any two nodes."""
        self.disk_s = disk_s
        self.make_queue = make_queue
        self.nodes: list[Node] = []
        self.by_address: dict[Address, Node] = {}
        self.black_holes: dict[Address, None] = {}
        """Addresses from which nothing comes back."""
        self._addresses = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0

    def free_address(self) -> Address:
        """Return an address at which nobody listens."""
        self._addresses += 1
        return Address(f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}", 4000)

    def black_hole(self) -> Address:
        """Return an address at which a dial times out."""
        address = self.free_address()
        self.black_holes[address] = None
        return address

    def node(
        self, *, listen: bool = True, limits: Limits | None = None, own: Id | None = None
    ) -> Node:
        """Add a node."""
        node = Node(self, f"node {len(self.nodes)}", limits or Limits(), own)
        self.nodes.append(node)
        if listen:
            node.listen()
        return node

    def network(self, count: int, limits: Limits | None = None) -> list[Node]:
        """Add so many nodes, each joined through the first, and let them settle."""
        nodes = [self.node(limits=limits) for _ in range(count)]
        first = nodes[0].address
        assert first is not None
        nodes[0].bootstrap()
        for node in nodes[1:]:
            node.bootstrap(first)
        self.run(3.0)
        return nodes

    def pair(self, limits: Limits | None = None) -> tuple[Node, Node]:
        """Add two nodes, the first connected to the second; they have pinged each other.

        Without `limits` no upkeep disturbs them.
        """
        limits = limits or Limits(maintenance_interval_s=1e6)
        first, second = self.node(limits=limits), self.node(limits=limits)
        self.outcome(first, first.connect(second))
        self.run(1.0)
        return first, second

    def after(self, delay_s: float, do: Callable[[], object]) -> None:
        """Let something happen later."""
        self.at(self.now + delay_s, do)

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Let something happen at a time."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, do))

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self._happen()
        self.now = until

    def outcome(self, node: Node, guid: Guid, within_s: float = 120.0) -> fx.Outcome:
        """Run until a call has its outcome."""
        self.until(lambda: guid in node.outcomes, within_s)
        return node.outcomes[guid]

    def until(self, holds: Callable[[], bool], within_s: float = 120.0) -> None:
        """Run until something holds; it must, within so much virtual time."""
        end = self.now + within_s
        while not holds():
            in_time = bool(self._events) and self._events[0][0] <= end
            assert in_time, f"in vain (seed {self.seed})"
            self._happen()

    def _happen(self) -> None:
        self.now, _, do = heapq.heappop(self._events)
        do()


# --- What must hold of every log ------------------------------------------------------------------


def check_acknowledgements(own: Id, log: Log) -> int:
    """Hold a node's log against "acknowledged means on disk"; return how often it acknowledged.

    Connection items, which nodes put of themselves, are checked, but not counted.

    A Stored leaves only after the StoreWritten("stored") of just that request has been stepped; a
    receipt in the node's own name only after one of just that item.
    """
    request_of: dict[Guid, tuple[Guid, Guid]] = {}
    """By disk operation: the connection and the exchange that it is for."""
    key_of_disk: dict[Guid, ItemKey] = {}
    key_of_work: dict[Guid, ItemKey] = {}
    durable: dict[tuple[Guid, Guid] | ItemKey, None] = {}
    blocks: dict[tuple[Guid, Guid], None] = {}
    """By connection and exchange: the requests to store what is no connection item."""
    acknowledged = 0
    for _, job, effects in log:
        if isinstance(job, jobs.Store):
            key_of_work[job.guid] = job.key
        elif isinstance(job, jobs.StoreWritten) and job.code == "stored":
            durable[key_of_disk[job.guid]] = None
            if job.guid in request_of:
                durable[request_of[job.guid]] = None
        for effect in effects:
            match effect:
                case fx.WriteStore(guid, key):
                    key_of_disk[guid] = key
                    if isinstance(job, jobs.HandleRequest):
                        if key.kind is not Kind.CONNECTION:
                            blocks[job.connection, job.guid] = None
                        request_of[guid] = (job.connection, job.guid)
                case fx.Send(connection, message.Envelope(guid, _, message.Stored())):
                    assert (connection, guid) in durable, "acknowledged before it was written"
                    acknowledged += (connection, guid) in blocks
                case fx.Finish(guid, fx.PutDone(receipts)):
                    ours = message.Receipt(own, "stored")
                    if ours in receipts:
                        # Without a job it is the node's own connection item.
                        key = key_of_work.get(guid, connection_key(own))
                        assert key in durable, "a receipt before it was written"
                        acknowledged += guid in key_of_work
                case _:
                    pass
    return acknowledged


def stored_at(outcome: fx.Outcome) -> list[Id]:
    """Return which nodes a put's receipts say have the item."""
    assert isinstance(outcome, fx.PutDone)
    return [receipt.node for receipt in outcome.receipts if receipt.outcome == "stored"]
