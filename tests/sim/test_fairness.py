"""One peer that floods does not make another peer wait much longer: shown in virtual time.

The server's steps take time, and sending takes time by the byte; the flooder keeps its connection's
inbox full, so that the server is offered as much as it lets in. The other peer asks one thing at a
time. The same run without the flood, and the same flood served first come, first served, are the
measure.
"""

from collections import deque
from collections.abc import Callable, Hashable
from random import Random
from statistics import median

import pytest

from tests.world import End, Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.core.queue import JobQueue
from xorbit.ids import id_of, new_guid
from xorbit.items import ItemKey
from xorbit.wire import message
from xorbit.wire.message import FindClosest, Get, Have, Ping, Request

STEP_S = 0.0001
BYTE_S = 1 / 700e6
QUESTIONS = 200
DELAY_S = 0.001
DISK_S = 0.0002
INBOX_FRAMES = 64


UNDISTURBED = Limits(maintenance_interval_s=1e6)


class FirstCome:
    """The control: a queue that serves whoever came first. Lines are bounded, and held, as ever."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: deque[tuple[Hashable, Job]] = deque()
        self._counts: dict[Hashable, int] = {}
        self._held: dict[Hashable, deque[tuple[Hashable, Job]]] = {}

    def push(self, line: Hashable, job: Job, size: int = 0) -> None:
        self._counts[line] = self._counts.get(line, 0) + 1
        self._jobs.append((line, job))

    def pop(self) -> tuple[Hashable, Job] | None:
        while self._jobs:
            line, job = self._jobs.popleft()
            if line in self._held and isinstance(job, jobs.HandleRequest):
                self._held[line].append((line, job))
            else:
                self._counts[line] -= 1
                return line, job
        return None

    def has_room(self, line: Hashable) -> bool:
        return self._counts.get(line, 0) < self._limits.line_jobs_max

    def hold(self, line: Hashable) -> None:
        self._held.setdefault(line, deque())

    def release(self, line: Hashable) -> None:
        self._jobs.extendleft(reversed(self._held.pop(line, deque())))

    def charge(self, line: Hashable, size: int) -> None:
        pass

    def lengths(self) -> dict[Hashable, int]:
        return self._counts


class Flooder:
    """A peer that keeps to no rule: it sends requests as fast as its line lets them in."""

    def __init__(self, world: World, server: Node, make: Callable[[Random], Request]) -> None:
        self.rng = Random(world.seed)
        self.make = make
        self.server = server
        self.node = world.node(listen=False, limits=UNDISTURBED)
        self.node.connect(server)
        world.run(0.5)
        (here,) = self.node.links_to(server)
        self.end: End = self.node.ends[here]
        self.inbox = server.ends[self.end.there].inbox
        self.sent = 0
        self.node.receive = lambda *_: None  # it does not care for answers
        self._refill()

    def _refill(self) -> None:
        while len(self.inbox) < INBOX_FRAMES:
            guid = new_guid(self.rng)
            envelope = message.Envelope(guid, guid, self.make(self.rng))
            self.server.receive(self.end.there, message.encode(envelope))
            self.sent += 1
        self.node.world.after(5 * STEP_S, self._refill)


def _big(keys: list[ItemKey]) -> Callable[[Random], Request]:
    return lambda rng: Get(rng.choice(keys))


def _small(keys: list[ItemKey]) -> Callable[[Random], Request]:
    return lambda rng: FindClosest(id_of(rng.randbytes(8)))


def _ping(keys: list[ItemKey]) -> Callable[[Random], Request]:
    return lambda rng: Ping()


def _mixed(keys: list[ItemKey]) -> Callable[[Random], Request]:
    def make(rng: Random) -> Request:
        return rng.choice(
            (Get(rng.choice(keys)), Ping(), Have(tuple(keys)), FindClosest(keys[0].id))
        )

    return make


def median_s(
    question: Callable[[ItemKey], Request],
    flood: Callable[[list[ItemKey]], Callable[[Random], Request]] | None,
    queue: Callable[[Limits], JobQueue | FirstCome] = JobQueue,
) -> float:
    """Return the median answer time of one peer, asking one thing after the other."""
    world = World(3, delay_s=DELAY_S, disk_s=DISK_S, make_queue=queue)
    server = world.node(limits=UNDISTURBED)
    asker = world.node(listen=False, limits=UNDISTURBED)
    asker.connect(server)
    keys = [server.keep(Random(n).randbytes(65_536)) for n in range(8)]
    world.run(0.5)
    server.step_s, server.byte_s = STEP_S, BYTE_S
    flooders = [Flooder(world, server, flood(keys))] if flood else []
    served = len(server.log)
    times = []
    for _ in range(QUESTIONS):
        began = world.now
        outcome = world.outcome(asker, asker.ask(server, question(keys[0])), within_s=5.0)
        assert isinstance(outcome, fx.Answered)
        times.append(world.now - began)
    for flooder in flooders:
        # It was a flood: the server was never idle, and did most of its work for the flooder.
        assert flooder.sent > 2 * QUESTIONS
        assert len(flooder.inbox) >= INBOX_FRAMES / 2
        assert server.queue.lengths()[flooder.end.there] <= server.limits.line_jobs_max
    if flooders:
        assert len(server.log) - served > 10 * QUESTIONS
    return median(times)


QUESTION: dict[str, Callable[[ItemKey], Request]] = {
    "ping": lambda _: Ping(),
    "get": Get,
}
FLOODS = {"gets of 64 KiB": _big, "find closest": _small, "pings": _ping, "mixed": _mixed}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("question", QUESTION)
def test_a_flood_does_not_raise_anothers_median_answer_time_by_more_than_half(
    question: str, flood: str
) -> None:
    quiet = median_s(QUESTION[question], None)
    flooded = median_s(QUESTION[question], FLOODS[flood])
    assert flooded <= 1.5 * quiet, f"{quiet * 1e3:.3f} ms became {flooded * 1e3:.3f} ms"


@pytest.mark.parametrize("question", QUESTION)
def test_without_fair_lines_the_same_flood_makes_others_wait(question: str) -> None:
    """The measure can fail: first come, first served, the wait is far over the bound."""
    quiet = median_s(QUESTION[question], None, FirstCome)
    flooded = median_s(QUESTION[question], _big, FirstCome)
    assert flooded > 3 * quiet
