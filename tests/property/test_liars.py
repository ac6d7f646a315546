"""Whatever valid messages peers send, asked or not, no step fails and no work goes on for ever.

A small network in which some nodes answer with random responses, push unasked under guids that they
have seen, ask at random and repeat themselves, while the honest ones have every kind of work done.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.check import check
from xorbit.core.follow import FollowWork
from xorbit.ids import Guid, Id
from xorbit.items import (
    Address,
    Contact,
    Record,
    key_of,
    make_block,
    make_connection_item,
    make_record,
    record_key,
)
from xorbit.wire import message

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))
HOSTS = ("10.0.0.1", "127.0.0.1", "0.0.0.0", "::", "fe80::1%x", "8.8.8.8", "evil.example", " ")
LIMITS = Limits(
    works_max=200,
    workers=8,
    lease_s=20.0,
    work_timeout_s=20.0,
    sweep_settle_s=1.0,
    sweep_interval_s=10.0,
    hand_off_delay_s=1.0,
    newcomer_delay_s=1.0,
)
GUIDS_SEEN = 50


class Mouth:
    """Says anything that is well formed."""

    def __init__(self, rng: Random, nodes: list[Node]) -> None:
        self.rng = rng
        self.records = [make_record(KEY, seq, b"v%d" % seq) for seq in (0, 1, 5, 2**63 - 1)]
        self.items = [
            *self.records,
            *(make_block(bytes([number])) for number in range(8)),
            *(make_connection_item(n.key, 7, (Address("10.0.0.9", 1),)) for n in nodes),
        ]
        self.keys = [key_of(item) for item in self.items]
        self.ids = [*(n.id for n in nodes), *(key.id for key in self.keys), Id(bytes(32))]
        self.contacts = [n.contact for n in nodes]

    def some(self, what: Callable[[], object], at_most: int) -> tuple:
        return tuple(what() for _ in range(self.rng.randrange(at_most + 1)))

    def address(self) -> Address:
        return Address(self.rng.choice(HOSTS), self.rng.choice((1, 4000, 65_535)))

    def contact(self) -> Contact:
        invented = Contact(self.rng.choice(self.ids), self.some(self.address, 3))
        return self.rng.choice((*self.contacts, invented))

    def key(self) -> object:
        return self.rng.choice(self.keys)

    def record(self) -> Record:
        return self.rng.choice(self.records)

    def receipt(self) -> message.Receipt:
        return message.Receipt(self.rng.choice(self.ids), "stored")

    def response(self) -> message.Response:
        rng = self.rng
        kinds: tuple[Callable[[], message.Response], ...] = (
            lambda: message.Pong(rng.choice((None, self.address())), self.some(self.address, 3)),
            lambda: message.Next(self.contact(), rng.randrange(256)),
            lambda: message.Closest(self.some(self.contact, 7)),
            lambda: message.Found(rng.choice(self.items), self.some(self.contact, 4)),
            lambda: message.Stored(self.some(self.receipt, 2)),
            lambda: message.Refused("stale", "x\x1b", rng.choice((None, self.record()))),
            lambda: message.Missing(self.some(self.key, 6)),
            lambda: message.Following(rng.choice((1e-9, 5.0, 1e5)), self.record()),
            lambda: message.Updated(self.record()),
        )
        return rng.choice(kinds)()

    def answer(self, to: message.Request) -> message.Response:
        """Say what fits the question, half of the time."""
        while True:
            response = self.response()
            if message.answers(to, response) or self.rng.random() < 0.1:
                return response

    def request(self) -> message.Request:
        rng = self.rng
        kinds: tuple[Callable[[], message.Request], ...] = (
            lambda: message.Ping(self.some(self.address, 3), rng.randrange(5)),
            lambda: message.FindNext(rng.choice(self.ids), rng.choice((0, 1, 254, 255))),
            lambda: message.FindClosest(rng.choice(self.ids)),
            lambda: message.Get(rng.choice(self.keys)),
            lambda: message.Store(
                rng.choice(self.items),
                rng.choice((None, 0, 5)),
                self.some(self.contact, 3),
                rng.choice((0.0, 50.0, float(message.AGE_S_MAX))),
            ),
            lambda: message.Have(self.some(self.key, 6), rng.random() < 0.5),
            lambda: message.Follow(rng.choice(self.keys).id),
        )
        return rng.choice(kinds)()


class Play:
    """Liars and honest nodes."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.world = World(seed)
        nodes = self.world.network(5, LIMITS)
        self.honest, self.liars = nodes[:3], nodes[3:]
        self.mouth = Mouth(self.rng, nodes)
        self.seen: list[tuple[Guid, Guid]] = [(Guid(bytes(16)), Guid(bytes(16)))]
        self.asked: dict[Guid, message.Request] = {}
        self.calls: list[tuple[Node, Guid]] = []
        for liar in self.liars:
            liar.tamper = self.tamper
        for node in self.honest:
            node.push = partial(self.listen, node.push)

    def listen(self, push: Callable[..., None], job: jobs.Job, *more: object) -> None:
        if isinstance(job, jobs.HandleRequest | jobs.HandleResponse):
            self.seen = [*self.seen[-GUIDS_SEEN:], (job.guid, job.work)]
        push(job, *more)

    def tamper(self, envelope: message.Envelope) -> message.Envelope:
        self.seen = [*self.seen[-GUIDS_SEEN:], (envelope.guid, envelope.work)]
        if isinstance(envelope.body, message.Request) or self.rng.random() < 0.5:
            return envelope
        fitting = {message.Found: message.Get(NAME), message.Following: message.Follow(NAME.id)}
        asked = fitting.get(type(envelope.body), self.mouth.request())
        return message.Envelope(envelope.guid, envelope.work, self.mouth.answer(asked))

    def lie(self) -> None:
        """A liar says something, under a guid that it has seen."""
        liar = self.rng.choice(self.liars)
        if liar.ends:
            guid, work = self.rng.choice(self.seen)
            say = self.rng.choice((self.mouth.response, self.mouth.request))
            data = message.encode(message.Envelope(guid, work, say()))
            liar.send_bytes(self.rng.choice(list(liar.ends.values())), data)
        else:  # it has been cut off
            liar.bootstrap(*(node.address for node in self.honest if node.address))

    def work(self) -> None:
        """An honest node has something to do."""
        node, rng = self.rng.choice(self.honest), self.rng
        key, item = rng.choice(self.mouth.keys), rng.choice(self.mouth.items)
        cas = rng.choice((None, 0, 1)) if isinstance(item, Record) else None
        contact, target = rng.choice(self.liars).contact, rng.choice(self.mouth.ids)
        question = self.mouth.request()
        make: Callable[[Guid], jobs.Job] = rng.choice(
            (
                lambda guid: jobs.Get(guid, key),
                lambda guid: jobs.Store(guid, key_of(item), item, cas),
                lambda guid: jobs.Pin(guid, key),
                lambda guid: jobs.LookUp(guid, target),
                lambda guid: jobs.SendRequest(guid, contact, question),
                lambda guid: jobs.Bootstrap(guid, contact.addresses),
            )
        )
        self.calls.append((node, node.call(make)))

    def run(self, moves: int) -> None:
        follows = [(node, node.call(lambda guid: jobs.Follow(guid, NAME))) for node in self.honest]
        for _ in range(moves):
            self.world.run(self.rng.random() * 0.1)
            self.lie()
            if self.rng.random() < 0.2:
                self.work()
        self.world.run(3 * LIMITS.work_timeout_s)
        for node, guid in self.calls:
            assert guid in node.outcomes, "a call has its outcome"
        for node, guid in follows:
            follow = node.machine.state.works[guid]
            assert isinstance(follow, FollowWork)
            assert follow.deadline <= self.world.now + 2 * LIMITS.work_timeout_s, "it goes on"
        for node in self.honest:
            check(node.machine.state)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_no_peer_stops_a_node_or_makes_a_work_hang(seed: int) -> None:
    Play(seed).run(150)
