"""A simulated node: the production machine behind the production queue, and its body.

Performs the machine's effects as `run/driver.py` does, in virtual time: frames keep their order on
a connection and wait in its inbox while the line is full; requests of a connection are held when
the machine says so. No decision of the protocol is made here.

Nodes touch each other only by what they send (`World.post`). Where a node belongs to another shard
it has no machine here, and is only what the story makes of it.
"""

from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from random import Random
from typing import TYPE_CHECKING, assert_never

from blake3 import blake3
from nacl.signing import SigningKey

from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.core.machine import Machine
from xorbit.core.queue import JobQueue
from xorbit.ids import Guid, Id, id_of, new_guid
from xorbit.items import Address, Contact, make_connection_item
from xorbit.sim.disk import Disk
from xorbit.sim.liars import Liar
from xorbit.sim.network import Place, one_way_s
from xorbit.store.base import Eviction
from xorbit.store.memory import MemoryStore
from xorbit.wire.frame import HEADER_BYTES
from xorbit.wire.message import Envelope, Request, decode, encode

if TYPE_CHECKING:
    from xorbit.sim.world import World

NETWORK = b"world"
OUTBOUND_PORT = 50_000


class End:
    """One node's end of a connection."""

    __slots__ = ("arrives_at", "delay_s", "inbox", "other", "there")

    def __init__(self, other: "SimNode", there: Guid, delay_s: float) -> None:
        self.other = other
        self.there = there
        self.delay_s = delay_s
        """How long a small message takes from here to there, without jitter."""
        self.inbox: deque[tuple[Envelope, int]] | None = None
        """Frames that have come but are not read yet, because the line is full."""
        self.arrives_at = 0.0
        """When the last frame sent from here arrives."""


class SimNode:
    """One machine with its queue, its disk and its place in the world."""

    __slots__ = (
        "_busy",
        "_dials",
        "_said_joined",
        "_sent_until",
        "_silent",
        "_tick_at",
        "address",
        "alive",
        "bandwidth",
        "bytes_sent",
        "calls",
        "died_at",
        "disk",
        "ends",
        "here",
        "id",
        "joined",
        "keeps",
        "key",
        "lag_s",
        "liar",
        "life",
        "limits",
        "listening",
        "machine",
        "messages_sent",
        "natted",
        "number",
        "place",
        "queue",
        "reports",
        "rng",
        "world",
    )

    def __init__(
        self, world: "World", number: int, limits: Limits, at: Place, own: Id | None = None
    ) -> None:
        """Make a node that is not yet born; `own` is an id that its key could not have."""
        self.world = world
        self.number = number
        self.limits = limits
        self.place = at
        self.key = SigningKey(blake3(f"{world.seed} {number}".encode()).digest())
        self.id = own or id_of(bytes(self.key.verify_key))
        self.here = world.is_here(self.id)
        """Whether this shard moves it."""
        self.address = _address(number)
        self.rng = Random(f"{world.seed} body {number}")
        store = MemoryStore(
            limits.store_quota_bytes,
            Eviction(self.id, limits.item_lifetime_s),
            lambda: world.clock.now,
        )
        self.disk = Disk(world.clock, self.rng, store, lambda job: self.push(job, "store"))
        self.keeps = True
        """Whether it listens, and so keeps items for others; else it is a client."""
        self.natted = False
        """Whether nobody can dial it."""
        self.bandwidth: float | None = None
        """Bytes a second that it can send; None: as many as it likes."""
        self.lag_s = 0.0
        """How much later than others' its messages arrive."""
        self.liar: Liar | None = None
        self.bytes_sent = 0
        self.messages_sent = 0
        self.calls: dict[Guid, Callable[[fx.Outcome], None]] = {}
        """Who waits for the outcomes of this node's own calls."""
        self.reports: list[fx.Report] = []
        self.life = 0
        self.died_at = -inf
        """When its last life ended."""
        self.alive = self.listening = self._silent = False
        self.joined = False
        """Whether it said lately that it is in the network."""

    # --- Its lives --------------------------------------------------------------------------------

    def start(self, *, listen: bool = True) -> None:
        """Begin a life with the disk of the last one."""
        assert not self.alive, "a node lives once at a time"
        self.life += 1
        self.alive = True
        self.listening = listen
        self.joined = self._silent = False
        if self.here:
            self._come_to_life(listen=listen)

    def _come_to_life(self, *, listen: bool) -> None:
        self.machine = Machine(self.id, self.limits, Random(self._seed(self.life)))
        self.queue = JobQueue(self.limits)
        self.ends: dict[Guid, End] = {}
        self._dials: dict[Guid, _Dialling] = {}
        self._said_joined = False
        self._busy = False
        self._tick_at: float | None = None
        self._sent_until = 0.0
        if saved := self.disk.store.load_contacts(NETWORK):
            self.push(jobs.Restored(saved), "self")
        if listen:
            self.push(jobs.Listening((self.address,)), "self")

    def _seed(self, life: int) -> bytes:
        return f"{self.world.seed} {self.number} {life}".encode()

    @property
    def can_be_dialled(self) -> bool:
        """Whether it is there for others, as far as the story goes: all shards see the same."""
        return self.alive and self.keeps and not self.natted

    @property
    def first_seed(self) -> bytes:
        """From what the chance of its first life is drawn, for a job log."""
        return self._seed(1)

    def kill(self, *, silently: bool = False) -> None:
        """End at once: as SIGKILL would, or silently, as when the power of its router goes."""
        if self.here:
            for connection in list(self.ends):
                if silently:
                    del self.ends[connection]
                else:
                    self.cut(connection, "connection reset")
            self._dials.clear()
            self.disk.crash()
            self.calls.clear()
        self.alive = self.listening = self.joined = False
        self.died_at = self.world.clock.now
        self._silent = silently
        self.life += 1

    def cut(self, connection: Guid, reason: str) -> None:
        """Break a connection: known here at once, at the other end when the news arrives."""
        end = self.ends.get(connection)
        if end is None:
            return
        self._drop(connection, reason)
        self._hang_up_on(end)

    def hang_up(self, connection: Guid) -> None:
        """Hear that the other end of a connection is gone."""
        if self.alive:
            self._drop(connection, "closed by the peer")

    def _drop(self, connection: Guid, reason: str) -> None:
        end = self.ends.pop(connection, None)
        if end is not None:
            # In the connection's own line: it must not overtake its ConnectionOpened.
            self.queue.push(connection, jobs.ConnectionLost(connection, reason))
            self.queue.forget(connection)
            self.work()

    # --- What is asked of it ------------------------------------------------------------------

    def push(self, job: Job, line: Hashable = "local", size: int = 0) -> None:
        """Queue a job, and work."""
        if self.alive and self.here:
            self.queue.push(line, job, size)
            self.work()

    def call(
        self,
        make: Callable[[Guid], Job],
        done: Callable[[fx.Outcome], None] | None = None,
        guid: Guid | None = None,
    ) -> Guid:
        """Queue a job that ends in a Finish; `done` hears the outcome, unless the node dies."""
        guid = guid or new_guid(self.rng)
        if self.here:
            if done is not None:
                self.calls[guid] = done
            self.push(make(guid))
        return guid

    @property
    def contact(self) -> Contact:
        """How others may be told of this node."""
        return Contact(self.id, (self.address,))

    # --- Working through the queue ----------------------------------------------------------------

    def work(self) -> None:
        """Step until the queue is empty, or until a step has ended this life."""
        if self._busy:
            return
        self._busy = True
        life, pop = self.life, self.queue.pop
        while (popped := pop()) is not None:
            line, job = popped
            self.step(job)
            if type(line) is bytes and (end := self.ends.get(Guid(line))) and end.inbox:
                self._read(Guid(line), end)
            if life != self.life:
                return
        self._busy = False
        if self.machine.state.joined is not self._said_joined:
            self._said_joined = not self._said_joined
            self.world.tell(self, "joined", self.life, self._said_joined)
        self._arm()

    def step(self, job: Job) -> None:
        """Step the machine and perform what it wants; what it raises says where that was."""
        try:
            self.world.will_step(self, job)
            effects = self.machine.step(self.world.clock.now, job)
            self.world.saw(self, job, effects)
            for effect in effects:
                self._perform(effect)
        except Exception as error:
            error.add_note(f"node {self.number}, stepping {type(job).__name__}")
            raise

    def _arm(self) -> None:
        due = self.machine.next_deadline()
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self.world.clock.at(max(due, self.world.clock.now), self._tick, self.life, due)

    def _tick(self, life: int, planned: float) -> None:
        if life != self.life or planned != self._tick_at:
            return
        self._tick_at = None
        due = self.machine.next_deadline()
        if due is not None and due <= self.world.clock.now:
            self.push(jobs.Tick(), "clock")
        elif not self._busy:
            self._arm()

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send(connection, envelope):
                self._send(connection, envelope)
            case fx.ReadStore() | fx.WriteStore() | fx.CheckStore() | fx.DropDamaged():
                self.disk.perform(effect)
            case fx.ScanStore() | fx.DropItems() | fx.OrderPins():
                self.disk.perform(effect)
            case fx.Dial():
                self._dial(_Dialling(effect))
            case fx.Close(connection, reason):
                self.world.clock.after(0.0, self._close, self.life, connection, reason)
            case fx.HoldRequests(connection):
                if connection in self.ends:
                    self.queue.hold(connection)
            case fx.ReleaseRequests(connection):
                if connection in self.ends:
                    self.queue.release(connection)
            case fx.Post(job):
                self.queue.push("self", job)
            case fx.Finish(guid, outcome):
                done = self.calls.pop(guid, None)
                if done is not None:
                    done(outcome)
            case fx.SignConnection(guid, seq, addresses):
                item = make_connection_item(self.key, seq, addresses)
                self.queue.push("self", jobs.ConnectionSigned(guid, item))
            case fx.SaveContacts(contacts):
                self.disk.store.save_contacts(NETWORK, contacts)
            case fx.StopListening():
                self.listening = False
            case fx.Report():
                self.reports.append(effect)
            case fx.Pushed(guid, record):
                self.world.pushed(self, guid, record)
            case fx.Print() | fx.Stopped():
                pass
            case _ as never:
                assert_never(never)

    def _close(self, life: int, connection: Guid, reason: str) -> None:
        if life == self.life:
            self.cut(connection, reason)

    # --- Frames ----------------------------------------------------------------------------------

    def _send(self, connection: Guid, envelope: Envelope) -> None:
        end = self.ends.get(connection)
        if end is None:
            return
        if self.liar is not None:
            bent = self.liar.says(envelope)
            if bent is None:
                return
            envelope = bent
        data = encode(envelope)
        size = len(data) + HEADER_BYTES
        self.bytes_sent += size
        self.messages_sent += 1
        if not isinstance(envelope.body, Request):
            self.queue.charge(connection, size)
        self.world.carry(self, end, envelope, data, size)

    def leaves_at(self, size: int) -> float:
        """Return when the last byte of a message has left this node, and count it as sent."""
        now = self.world.clock.now
        if self.bandwidth is None:
            return now
        self._sent_until = max(self._sent_until, now) + size / self.bandwidth
        return self._sent_until

    def receive_bytes(self, connection: Guid, data: bytes) -> None:
        """Take in a frame that comes from another shard."""
        self.receive(connection, self.world.as_here(decode(data)), len(data) + HEADER_BYTES)

    def receive(self, connection: Guid, envelope: Envelope, size: int) -> None:
        """Take a frame in; where the line is full it waits."""
        end = self.ends.get(connection)
        if end is None or not self.alive:
            return
        if self.liar is not None:
            self.liar.hears(envelope)
        if end.inbox:
            end.inbox.append((envelope, size))
        elif self.queue.has_room(connection):
            self._take(connection, envelope, size)
            self.work()
        else:
            end.inbox = deque(((envelope, size),))

    def _read(self, connection: Guid, end: End) -> None:
        while end.inbox and self.queue.has_room(connection):
            self._take(connection, *end.inbox.popleft())

    def _take(self, connection: Guid, envelope: Envelope, size: int) -> None:
        body = envelope.body
        if isinstance(body, Request):
            job = jobs.HandleRequest(connection, envelope.guid, envelope.work, body, size)
        else:
            job = jobs.HandleResponse(connection, envelope.guid, envelope.work, body, size)
        self.queue.push(connection, job, size)

    # --- Connections -----------------------------------------------------------------------------

    def _dial(self, dialling: "_Dialling") -> None:
        """Try the addresses in order."""
        dial, tried = dialling.dial, dialling.tried
        if len(tried) == len(dial.addresses):
            impostor = any("another id" in why or "ourselves" in why for _, why in tried)
            ours = tuple(address for address, why in tried if "ourselves" in why)
            known = impostor and dial.expected is not None
            self.push(jobs.DialFailed(dial.guid, tuple(tried), known, ours), "self")
            return
        clock, here = self.world.clock, new_guid(self.rng)
        self._dials[here] = dialling
        other = self.world.by_address.get(dialling.address)
        if other is self:
            clock.after(0.001, self.refused, here, "it is ourselves")
            return
        clock.after(self.limits.dial_timeout_s, self.refused, here, "timed out")
        if other is not None and not other.natted and not self._is_parted(other):
            delay_s = one_way_s(self.place, other.place)
            knock = self.number, here, dial.expected, delay_s
            self.world.post(clock.now + delay_s, other, "knocked", *knock)

    def _is_parted(self, other: "SimNode") -> bool:
        faults = self.world.faults
        return faults.parted(self.number, other.number) or faults.parted(other.number, self.number)

    def knocked(self, number: int, dial: Guid, expected: Id | None, delay_s: float) -> None:
        """Answer who dials: after TCP and TLS 1.3, a round trip each, it may send."""
        if self._is_parted(self.world.nodes[number]):
            return
        if self.listening:
            wait_s = 2 * delay_s
            self.world.clock.after(wait_s, self._welcome, number, dial, expected, delay_s)
        elif not self._silent:
            self._refuse(number, dial, delay_s, "connection refused")

    def _welcome(self, number: int, dial: Guid, expected: Id | None, delay_s: float) -> None:
        if self._silent:
            return
        if not self.listening:  # any more
            self._refuse(number, dial, delay_s, "connection refused")
        elif expected not in (None, self.id):
            self._refuse(number, dial, delay_s, f"another id answered: {self.id.hex()}")
        else:
            arrives = self.world.clock.now + delay_s
            self.world.post(arrives, self.world.nodes[number], "let_in", dial, self.number, delay_s)

    def _refuse(self, number: int, dial: Guid, delay_s: float, why: str) -> None:
        arrives = self.world.clock.now + delay_s
        self.world.post(arrives, self.world.nodes[number], "refused", dial, why)

    def refused(self, dial: Guid, why: str) -> None:
        """Hear that an address leads nowhere, if that is not over yet; try the next."""
        dialling = self._dials.pop(dial, None) if self.alive else None
        if dialling is not None:
            dialling.tried.append((dialling.address, why))
            self._dial(dialling)

    def let_in(self, dial: Guid, number: int, delay_s: float) -> None:
        """Open a connection: here at once, over there when our last handshake arrives."""
        dialling = self._dials.pop(dial, None) if self.alive else None
        if dialling is None:
            return
        here, there = new_guid(self.rng), new_guid(self.rng)
        end = self.ends[here] = End(self.world.nodes[number], there, delay_s)
        arrives = self.world.arrival(self, end)
        if arrives is not None:  # planned before anything is sent, so that nothing overtakes it
            end.arrives_at = arrives
            self.world.post(arrives, end.other, "accept", self.number, here, there, delay_s)
        self._open(here, dialling.address, dialling.dial.guid)

    def accept(self, number: int, there: Guid, here: Guid, delay_s: float) -> None:
        """Take in a connection that another node has dialled; hang up where that is too late."""
        end = End(self.world.nodes[number], there, delay_s)
        if self.listening:
            self.ends[here] = end
            self._open(here, Address(end.other.address.host, OUTBOUND_PORT), None)
        elif not self._silent:
            self._hang_up_on(end)

    def _hang_up_on(self, end: End) -> None:
        arrives = self.world.arrival(self, end)
        if arrives is not None:
            self.world.post(arrives, end.other, "hang_up", end.there)

    def _open(self, connection: Guid, address: Address, dial: Guid | None) -> None:
        peer = self.ends[connection].other.id
        self.queue.hold(connection)
        self.push(jobs.ConnectionOpened(connection, peer, address, dial), connection)


class _Dialling:
    """A dial under way, and what its addresses have led to so far."""

    __slots__ = ("dial", "tried")

    def __init__(self, dial: fx.Dial) -> None:
        self.dial = dial
        self.tried: list[tuple[Address, str]] = []

    @property
    def address(self) -> Address:
        """The one that is being tried."""
        return self.dial.addresses[len(self.tried)]


def _address(number: int) -> Address:
    """Return the address of a node: each lives in a public /24 of its own."""
    return Address(f"{5 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1", 4000)
