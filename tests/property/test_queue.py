"""The job queue against models: nothing lost or doubled, nobody starved, turns by the book."""

from collections import deque
from collections.abc import Hashable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.core.queue import JobQueue, Urgency
from xorbit.ids import Guid
from xorbit.wire.message import Ping, Pong

NOBODY = Guid(bytes(16))
LIMITS = Limits(line_jobs_max=5, line_bytes_max=20_000, patience_jobs_max=3)
LINES = "abcd"
lines = st.sampled_from(LINES)
sizes = st.sampled_from([0, 1, 500, 4_096, 15_000])
classes = st.sampled_from(["finish", "ask", "cancel", "upkeep"])


class Conservation(RuleBasedStateMachine):
    """A model that knows who is in which line, and not whose turn it is."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue(LIMITS)
        self.waiting: dict[tuple[str, Urgency], deque[tuple[Job, int]]] = {
            (line, level): deque() for line in LINES for level in Urgency
        }
        self.held: dict[str, bool] = dict.fromkeys(LINES, False)
        self.known: dict[str, bool] = dict.fromkeys(LINES, False)
        self.passed_over: dict[Urgency, int] = dict.fromkeys(Urgency, 0)
        self.number = 0

    def servable(self, level: Urgency) -> list[str]:
        return [
            line
            for line in LINES
            if self.waiting[line, level] and not (level is Urgency.ASK and self.held[line])
        ]

    def of_line(self, line: str) -> list[tuple[Job, int]]:
        return [entry for level in Urgency for entry in self.waiting[line, level]]

    @rule(line=lines, size=sizes, kind=classes, times=st.integers(1, 4))
    def push(self, line: str, size: int, kind: str, times: int) -> None:
        for _ in range(times):
            self.number += 1
            guid = Guid(self.number.to_bytes(16, "big"))
            job, level = {
                "finish": (jobs.HandleResponse(guid, guid, guid, Pong()), Urgency.FINISH),
                "ask": (jobs.HandleRequest(guid, guid, guid, Ping()), Urgency.ASK),
                "cancel": (jobs.Cancel(guid), Urgency.ASK),
                "upkeep": (jobs.ConnectionMaintenance(), Urgency.UPKEEP),
            }[kind]
            self.queue.push(line, job, size)
            self.waiting[line, level].append((job, size))
            self.known[line] = True

    @rule(times=st.integers(1, 6))
    def pop(self, times: int) -> None:
        for _ in range(times):
            self.pop_one()

    def pop_one(self) -> None:
        """Hold that the job is the first of its line and class, and that the class was due."""
        ready = [level for level in Urgency if self.servable(level)]
        popped = self.queue.pop()
        if not ready:
            assert popped is None
            return
        assert popped is not None
        line, job = popped
        (level,) = (
            level
            for level in ready
            if line in self.servable(level) and self.waiting[line, level][0][0] == job
        )
        self.waiting[line, level].popleft()
        for other in Urgency:
            waits = other in ready and other is not level
            self.passed_over[other] = self.passed_over[other] + 1 if waits else 0
        assert self.passed_over[Urgency.FINISH] <= 2
        assert self.passed_over[Urgency.ASK] <= LIMITS.patience_jobs_max + 2
        assert self.passed_over[Urgency.UPKEEP] <= LIMITS.patience_jobs_max

    @rule(line=lines)
    def hold(self, line: str) -> None:
        self.queue.hold(line)
        self.held[line] = self.known[line] = True

    @rule(line=lines)
    def release(self, line: str) -> None:
        self.queue.release(line)
        self.held[line] = False

    @rule(line=lines)
    def forget(self, line: str) -> None:
        """Known no longer: from now on the line exists only while something waits in it."""
        self.queue.forget(line)
        asks = self.waiting[line, Urgency.ASK]
        self.waiting[line, Urgency.ASK] = deque(e for e in asks if isinstance(e[0], jobs.Cancel))
        self.waiting[line, Urgency.UPKEEP].clear()
        self.held[line] = self.known[line] = False

    @rule(line=lines, size=sizes)
    def charge(self, line: str, size: int) -> None:
        self.queue.charge(line, size)

    @invariant()
    def count(self) -> None:
        assert len(self.queue) == sum(map(len, self.waiting.values()))

    @invariant()
    def bound(self) -> None:
        for line in LINES:
            waiting = self.of_line(line)
            room = len(waiting) < 5 and sum(size for _, size in waiting) < 20_000
            assert self.queue.has_room(line) == room

    @invariant()
    def keep_no_strangers(self) -> None:
        lengths = self.queue.lengths()
        for line in LINES:
            assert lengths.get(line, 0) == len(self.of_line(line))
            if not self.known[line] and not self.of_line(line):
                assert line not in lengths

    def teardown(self) -> None:
        """Everything comes out in the end, each job once."""
        for line in LINES:
            self.release(line)
        for _ in range(len(self.queue)):
            self.pop_one()
        assert self.queue.pop() is None
        assert not any(self.waiting.values())


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=100, stateful_step_count=50)


class Textbook:
    """Deficit round-robin as in the paper: one visit after the other, one quantum for each."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ring: deque[Hashable] = deque()
        self.jobs: dict[Hashable, deque[tuple[Job, int]]] = {}
        self.deficit: dict[Hashable, int] = {}

    def push(self, line: Hashable, job: Job, size: int) -> None:
        self.jobs.setdefault(line, deque()).append((job, size))
        self.deficit.setdefault(line, 0)
        if line not in self.ring:
            self.ring.append(line)

    def charge(self, line: Hashable, size: int) -> None:
        if line in self.deficit:
            self.deficit[line] = max(self.deficit[line] - size, -self.limits.line_bytes_max)

    def pop(self) -> tuple[Hashable, Job] | None:
        while self.ring:
            line = self.ring[0]
            job, size = self.jobs[line][0]
            price = size + self.limits.job_cost_bytes
            if len(self.ring) == 1:
                self.deficit[line] = max(self.deficit[line], price)
            if self.deficit[line] < price:
                self.deficit[line] += self.limits.quantum_bytes
                self.ring.rotate(-1)
                continue
            self.deficit[line] -= price
            self.jobs[line].popleft()
            if not self.jobs[line]:
                self.ring.popleft()
                self.deficit[line] = min(self.deficit[line], 0)
            return line, job
        return None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), lines, sizes),
            st.tuples(st.just("charge"), lines, st.integers(0, 100_000)),
            st.tuples(st.just("pop"), st.just(""), st.just(0)),
        ),
        max_size=60,
    ),
    st.sampled_from([1, 700, 4_096, 50_000]),
)
def test_turns_are_those_of_the_textbook(
    steps: list[tuple[str, str, int]], quantum_bytes: int
) -> None:
    """Whatever shortcuts the queue takes, it serves in the order of plain deficit round-robin."""
    limits = LIMITS.replace(quantum_bytes=quantum_bytes)
    queue, model = JobQueue(limits), Textbook(limits)
    for number, (what, line, size) in enumerate(steps):
        job = jobs.HandleRequest(NOBODY, NOBODY, NOBODY, Ping(seq=number), size)
        match what:
            case "push":
                queue.push(line, job, size)
                model.push(line, job, size)
            case "charge":
                queue.charge(line, size)
                model.charge(line, size)
            case _:
                assert queue.pop() == model.pop()
    while (expected := model.pop()) is not None:
        assert queue.pop() == expected
    assert queue.pop() is None


@given(
    st.lists(st.integers(0, 70_000), min_size=2, max_size=5),
    st.integers(1, 20_000),
    st.integers(1, 5_000),
)
def test_full_lines_get_equal_bytes(sizes: list[int], quantum_bytes: int, cost: int) -> None:
    """Lines that are never empty stay within one quantum and the largest job of each other."""
    queue = JobQueue(Limits(quantum_bytes=quantum_bytes, job_cost_bytes=cost))
    spent = dict.fromkeys(range(len(sizes)), 0)
    ping = jobs.HandleRequest(NOBODY, NOBODY, NOBODY, Ping())
    for line, size in enumerate(sizes):
        queue.push(line, ping, size)
        queue.push(line, ping, size)
    for _ in range(200):
        popped = queue.pop()
        assert popped is not None
        line = popped[0]
        assert isinstance(line, int)
        queue.push(line, ping, sizes[line])
        spent[line] += sizes[line] + cost
        assert max(spent.values()) - min(spent.values()) <= quantum_bytes + max(sizes) + cost
