"""No sequence of jobs, sensible or not, breaks an invariant, and what it leaves can be stopped.

A move is plain data: a kind and a few numbers, which the Puppeteer reads against what is live at
that moment (a connection, an exchange that waits, a dial under way). So moves shrink well, and can
be handed to another interpreter (test_determinism).
"""

from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from tests.world import check_acknowledgements
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.check import check
from xorbit.core.effect import Effect
from xorbit.core.job import Job
from xorbit.core.machine import Machine
from xorbit.ids import Guid, Id, id_of
from xorbit.items import (
    Address,
    Block,
    Contact,
    ItemKey,
    block_key,
    make_block,
    make_connection_item,
)
from xorbit.wire import message
from xorbit.wire.message import Request, Response

Move = tuple[int, int, int]
"""What happens, to which of those there are, and how."""

PEERS = [id_of(bytes([number])) for number in range(12)]
BLOCKS = [make_block(bytes([number])) for number in range(4)]
KEY = SigningKey(bytes(32))
OWN = id_of(bytes(KEY.verify_key))


def _address(number: int) -> Address:
    return Address(f"10.0.0.{number % 200 + 1}", 4000)


def _contact(number: int) -> Contact:
    return Contact(PEERS[number % len(PEERS)], (_address(number),))


def _key(number: int) -> ItemKey:
    return block_key(BLOCKS[number % len(BLOCKS)].data)


def _request(number: int) -> Request:
    others = tuple(_contact(number + step) for step in range(number % 3))
    return (
        message.Ping((_address(number),)),
        message.Ping((Address("0.0.0.0", 4000),)),
        message.FindNext(PEERS[number % 12], number % 256, not_equal=bool(number % 2)),
        message.FindClosest(PEERS[number % 12]),
        message.Get(_key(number)),
        message.Store(BLOCKS[number % 4], also=others),
        message.Have((_key(number),)),
        message.Follow(PEERS[number % 12]),
    )[number % 8]


def _response(number: int) -> Response:
    return (
        message.Pong(_address(number)),
        message.Next(_contact(number), number % 256),
        message.Closest(tuple(_contact(number + step) for step in range(number % 5))),
        message.Found(BLOCKS[number % 4]),
        message.Stored(),
        message.Refused("full", "no room"),
        message.Missing(()),
    )[number % 7]


class Puppeteer:
    """Feeds one machine, and remembers of its effects what must come back as jobs."""

    def __init__(self, seed: bytes, limits: Limits) -> None:
        self.machine = Machine(OWN, limits, Random(seed))
        self.now = 0.0
        self.trace: list[list[Effect]] = []
        self.log: list[tuple[float, Job, list[Effect]]] = []
        self.count = 0
        self.finished: dict[Guid, None] = {}
        self.stopped = False
        self.connections: list[Guid] = []
        self.held: dict[Guid, None] = {}
        self.exchanges: list[tuple[Guid, Guid]] = []
        self.dials: list[fx.Dial] = []
        self.disk: list[fx.ReadStore | fx.WriteStore | fx.CheckStore] = []
        self.posts: list[Job] = []
        self.calls: list[Guid] = []

    def play(self, move: Move) -> None:
        """Make one move; it may be one that makes no sense at this moment."""
        kind, which, how = move
        MOVES[kind % len(MOVES)](self, which, how)
        while self.posts:
            self.step(self.posts.pop(0))

    def step(self, job: Job) -> None:
        effects = self.machine.step(self.now, job)
        check(self.machine.state)
        self.trace.append(effects)
        self.log.append((self.now, job, effects))
        for effect in effects:
            self._note(effect)

    def _note(self, effect: Effect) -> None:
        match effect:
            case fx.Send(connection, envelope):
                if isinstance(envelope.body, Request):
                    self.exchanges.append((connection, envelope.guid))
            case fx.Dial():
                self.dials.append(effect)
            case fx.ReadStore() | fx.WriteStore() | fx.CheckStore():
                self.disk.append(effect)
            case fx.Post(job):
                self.posts.append(job)
            case fx.SignConnection(guid, seq, addresses):
                item = make_connection_item(KEY, seq, addresses)
                self.posts.append(jobs.ConnectionSigned(guid, item))
            case fx.Finish(guid):
                assert guid not in self.finished, "a call finishes once"
                self.finished[guid] = None
            case fx.HoldRequests(connection):
                self.held[connection] = None
            case fx.ReleaseRequests(connection):
                self.held.pop(connection, None)
            case fx.Stopped():
                assert not self.stopped, "a node stops once"
                self.stopped = True
            case _:
                pass

    def guid(self) -> Guid:
        self.count += 1
        return Guid(self.count.to_bytes(16, "big"))

    def some_connection(self, which: int) -> Guid:
        return self.connections[which % len(self.connections)] if self.connections else self.guid()

    # --- Moves ------------------------------------------------------------------------------------

    def call(self, which: int, how: int) -> None:
        guid = self.guid()
        self.calls.append(guid)
        block: Block = BLOCKS[which % 4]
        self.step(
            (
                jobs.Get(guid, _key(which)),
                jobs.Store(guid, _key(which), block),
                jobs.SendRequest(guid, _contact(which), _request(how)),
                jobs.Connect(guid, (_address(which),), (None, PEERS[which % 12])[how % 2]),
                jobs.Bootstrap(guid, tuple(_address(which + step) for step in range(how % 3))),
            )[how % 5]
        )

    def other_call(self, which: int, how: int) -> None:
        if how % 10 == 5:
            self.step(jobs.Restored(tuple(_contact(which + step) for step in range(3))))
        elif how % 5 == 0:
            self.step(jobs.Listening((_address(which),)))
        elif how % 5 == 1 and self.calls:
            self.step(jobs.Cancel(self.calls[which % len(self.calls)]))
        elif how % 5 == 2:
            self.step(jobs.ConnectionMaintenance())
        elif how % 5 == 3:
            self.step(jobs.HandleStdinLine(("status", "peers", "help", "")[which % 4]))
        elif which % 40 == 0:
            self.step(jobs.Shutdown())

    def open(self, which: int, how: int) -> None:
        """A dial succeeds, or a peer dials us."""
        guid = self.guid()
        if self.dials and how % 2:
            dial = self.dials.pop(which % len(self.dials))
            peer = dial.expected or PEERS[which % 12]
            self.step(jobs.ConnectionOpened(guid, peer, dial.addresses[0], dial.guid))
        else:
            self.step(jobs.ConnectionOpened(guid, PEERS[which % 12], _address(which)))
        self.connections.append(guid)

    def fail_dial(self, which: int, how: int) -> None:
        if self.dials:
            dial = self.dials.pop(which % len(self.dials))
            tried = tuple((address, "refused") for address in dial.addresses)
            impostor = dial.expected is not None and how % 3 == 0
            ours = dial.addresses if how % 5 == 0 else ()
            self.step(jobs.DialFailed(dial.guid, tried, impostor, ours))

    def lose(self, which: int, how: int) -> None:
        if self.connections:
            self.step(jobs.ConnectionLost(self.connections.pop(which % len(self.connections))))

    def ask(self, which: int, how: int) -> None:
        connection = self.some_connection(which)
        if connection not in self.held:  # a held line is not served, as the queue sees to
            guid = self.guid()
            self.step(jobs.HandleRequest(connection, guid, guid, _request(how)))

    def answer(self, which: int, how: int) -> None:
        """Answer one of our requests, maybe with nonsense, maybe twice or too late."""
        if self.exchanges:
            index = which % len(self.exchanges)
            connection, guid = self.exchanges[index]
            if how % 4:
                del self.exchanges[index]
            self.step(jobs.HandleResponse(connection, guid, guid, _response(how)))

    def finish_disk(self, which: int, how: int) -> None:
        if not self.disk:
            return
        effect = self.disk.pop(which % len(self.disk))
        match effect:
            case fx.ReadStore(guid, key):
                held = next((block for block in BLOCKS if block_key(block.data) == key), None)
                item, fault = ((held, ""), (None, ""), (None, "damaged"), (None, "broken"))[how % 4]
                self.step(jobs.StoreRead(guid, item, fault))
            case fx.WriteStore(guid):
                code = ("stored", "stored", "full", "failed")[how % 4]
                self.step(jobs.StoreWritten(guid, code))
            case fx.CheckStore(guid, keys):
                self.step(jobs.StoreChecked(guid, keys[: how % 2]))

    def tick(self, which: int, how: int) -> None:
        """Let time pass: a little, or up to the next deadline."""
        due = self.machine.next_deadline()
        self.now += how / 100
        if due is not None and which % 2:
            self.now = max(self.now, due)
        self.step(jobs.Tick())

    def settle(self) -> None:
        """Let everything that is under way end, as a driver would, and time pass."""
        for _ in range(400):
            while self.dials:
                self.play((MOVES.index(Puppeteer.fail_dial), 0, 1))
            while self.disk:
                self.play((MOVES.index(Puppeteer.finish_disk), 0, 0))
            while self.connections:
                self.play((MOVES.index(Puppeteer.lose), 0, 0))
            due = self.machine.next_deadline()
            self.now = max(self.now, due if due is not None else self.now)
            self.step(jobs.Tick())
            while self.posts:
                self.step(self.posts.pop(0))
            if self.stopped:
                return


MOVES: list[Callable[[Puppeteer, int, int], None]] = [
    Puppeteer.call,
    Puppeteer.other_call,
    Puppeteer.open,
    Puppeteer.fail_dial,
    Puppeteer.lose,
    Puppeteer.ask,
    Puppeteer.ask,
    Puppeteer.answer,
    Puppeteer.answer,
    Puppeteer.answer,
    Puppeteer.finish_disk,
    Puppeteer.finish_disk,
    Puppeteer.tick,
]


def random_moves(rng: Random, count: int) -> list[Move]:
    """Return so many moves, drawn evenly."""
    return [(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(count)]


byte = st.integers(0, 255)
moves = st.lists(st.tuples(byte, byte, byte), max_size=150)
limits = st.builds(
    Limits,
    workers=st.integers(1, 4),
    waiting_requests_max=st.integers(1, 4),
    connections_max=st.integers(1, 10),
    dials_max=st.integers(1, 4),
    contacts_max=st.integers(1, 12),
    knowns_max=st.integers(1, 5),
    possibles_max=st.integers(1, 5),
    works_max=st.integers(1, 8),
    timeouts_in_row_max=st.integers(1, 3),
)


@given(limits, moves)
def test_no_sequence_of_jobs_breaks_a_promise(limits: Limits, moves: list[Move]) -> None:
    """The invariants hold after each step; a call finishes once; nothing is acknowledged early."""
    puppeteer = Puppeteer(b"seed", limits)
    for move in moves:
        puppeteer.play(move)
    check_acknowledgements(OWN, puppeteer.log)


@given(limits, moves)
def test_from_any_state_a_node_stops_and_every_call_that_was_not_cancelled_has_ended(
    limits: Limits, moves: list[Move]
) -> None:
    puppeteer = Puppeteer(b"seed", limits)
    for move in moves:
        puppeteer.play(move)
    puppeteer.step(jobs.Shutdown())
    puppeteer.settle()
    assert puppeteer.stopped
    cancelled = {job.guid for _, job, _ in puppeteer.log if isinstance(job, jobs.Cancel)}
    open_calls = [guid for guid in puppeteer.calls if guid not in puppeteer.finished]
    in_time = [guid for guid in open_calls if guid not in puppeteer.machine.state.works]
    assert set(in_time) <= cancelled
    state = puppeteer.machine.state
    assert not state.links
    assert not state.dials
    assert not state.dials_waiting


@given(limits, moves)
def test_the_same_moves_give_the_same_effects(limits: Limits, moves: list[Move]) -> None:
    traces = []
    for _ in range(2):
        puppeteer = Puppeteer(b"seed", limits)
        for move in moves:
            puppeteer.play(move)
        traces.append(puppeteer.trace)
    assert traces[0] == traces[1]


def test_another_seed_gives_other_effects() -> None:
    """Ids of peers alone do not decide: the guids come from the injected source of chance."""
    traces = []
    for seed in (b"one", b"two"):
        puppeteer = Puppeteer(seed, Limits())
        for move in random_moves(Random(1), 50):
            puppeteer.play(move)
        traces.append(puppeteer.trace)
    assert traces[0] != traces[1]
    assert Id(OWN) == puppeteer.machine.state.own
