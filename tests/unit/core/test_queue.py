"""The job queue: nobody waits for a flood, what finishes work goes first, and nothing is kept."""

from collections import Counter
from collections.abc import Hashable
from typing import get_args

import pytest

from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.core.queue import JobQueue, Urgency, urgency
from xorbit.ids import Guid, Id
from xorbit.items import Address
from xorbit.wire.message import Ping, Pong

GUID = Guid(bytes(16))
LIMITS = Limits()
COST = LIMITS.job_cost_bytes
QUANTUM = LIMITS.quantum_bytes


def ask(number: int = 0) -> Job:
    return jobs.HandleRequest(GUID, GUID, GUID, Ping(seq=number))


def finish(number: int = 0) -> Job:
    return jobs.HandleResponse(GUID, Guid(number.to_bytes(16, "big")), GUID, Pong())


def upkeep() -> Job:
    return jobs.ConnectionMaintenance()


def drain(queue: JobQueue, most: int = 10_000) -> list[tuple[Hashable, Job]]:
    """Take out everything that may be served."""
    popped: list[tuple[Hashable, Job]] = []
    while len(popped) < most and (served := queue.pop()) is not None:
        popped.append(served)
    return popped


def lines_of(popped: list[tuple[Hashable, Job]]) -> str:
    return "".join(str(line) for line, _ in popped)


def test_empty_queue_gives_nothing() -> None:
    queue = JobQueue(LIMITS)
    assert queue.pop() is None
    assert len(queue) == 0
    assert queue.lengths() == {}


def test_urgency_of_every_job() -> None:
    """What ends work goes before new work, maintenance last; a Cancel stays behind its call."""
    asks = {
        jobs.HandleRequest,
        jobs.Get,
        jobs.Store,
        jobs.Follow,
        jobs.LookUp,
        jobs.Pin,
        jobs.TendPins,
        jobs.SendRequest,
        jobs.Connect,
        jobs.Bootstrap,
        jobs.HandleStdinLine,
        jobs.Cancel,
    }
    finishes = {
        jobs.HandleResponse,
        jobs.ConnectionOpened,
        jobs.DialFailed,
        jobs.ConnectionLost,
        jobs.SendResponse,
        jobs.Listening,
        jobs.Shutdown,
        jobs.Tick,
        jobs.StoreRead,
        jobs.StoreWritten,
        jobs.StoreChecked,
        jobs.StoreDropped,
        jobs.PinsTended,
        jobs.Restored,
        jobs.Revoked,
        jobs.ConnectionSigned,
    }
    kinds = set(get_args(Job))
    by_class = {level: set() for level in Urgency}
    for kind in kinds:
        by_class[urgency(kind(*[None] * len(kind.__struct_fields__)))].add(kind)
    assert by_class[Urgency.ASK] == asks
    assert by_class[Urgency.UPKEEP] == {jobs.ConnectionMaintenance, jobs.StoreScanned}
    assert by_class[Urgency.FINISH] == finishes


def test_one_line_keeps_its_order() -> None:
    queue = JobQueue(LIMITS)
    sent = [ask(number) for number in range(50)]
    for job in sent:
        queue.push("a", job, 100)
    assert drain(queue) == [("a", job) for job in sent]


def test_cancel_comes_after_the_call_that_it_cancels() -> None:
    queue = JobQueue(LIMITS)
    call = jobs.Connect(GUID, ())
    queue.push("local", call)
    queue.push("local", jobs.Cancel(GUID))
    assert [job for _, job in drain(queue)] == [call, jobs.Cancel(GUID)]


# --- Between the lines of one class --------------------------------------------------------------


def test_flood_does_not_delay_others() -> None:
    """One job behind another line's thousand is served within one quantum of them."""
    queue = JobQueue(LIMITS)
    for number in range(1_000):
        queue.push("a", ask(number), 100)
    assert queue.pop() is not None
    queue.push("b", ask())
    most = QUANTUM // COST + 1
    assert "b" in lines_of(drain(queue, most))


def test_every_newcomer_waits_for_one_round_only() -> None:
    """However long the lines are, whoever joins is served before anybody has had two quanta."""
    queue = JobQueue(LIMITS)
    for line in "abcde":
        for number in range(500):
            queue.push(line, ask(number))
    drain(queue, 100)
    queue.push("z", ask())
    before, _, _ = lines_of(drain(queue, 100)).partition("z")
    assert max(Counter(before).values()) * COST < 2 * QUANTUM + COST


@pytest.mark.parametrize(("small", "large"), [(0, 65_536), (100, 1_000), (0, 0), (4_096, 70_000)])
def test_full_lines_get_equal_shares(small: int, large: int) -> None:
    """Two lines that are never empty never differ by more than a quantum and their largest job."""
    queue = JobQueue(LIMITS)
    sizes = {"a": small, "b": large}
    spent = Counter(a=0, b=0)
    for line, size in sizes.items():
        for _ in range(3):
            queue.push(line, ask(), size)
    for _ in range(2_000):
        line, _ = queue.pop()
        queue.push(line, ask(), sizes[line])
        spent[line] += sizes[line] + COST
        assert abs(spent["a"] - spent["b"]) <= QUANTUM + large + COST
    assert min(spent.values()) > 0


def test_line_alone_saves_up_nothing() -> None:
    """Who had the node to itself has no claim against those who come later, and no debt either."""
    queue = JobQueue(LIMITS)
    for _ in range(300):
        queue.push("a", ask(), 70_000)
    drain(queue, 100)
    for _ in range(100):
        queue.push("b", ask(), 70_000)
    shares = Counter(lines_of(drain(queue, 20)))
    assert abs(shares["a"] - shares["b"]) <= 1


def test_line_that_rests_saves_up_nothing() -> None:
    """A line that was empty while others worked is served no faster for it afterwards."""
    queue = JobQueue(LIMITS)
    queue.push("a", ask())
    for number in range(1_000):
        queue.push("b", ask(number))
    drain(queue, 500)
    for number in range(400):
        queue.push("a", ask(number))
    shares = Counter(lines_of(drain(queue, 100)))
    assert abs(shares["a"] - shares["b"]) <= QUANTUM // COST + 1


def test_charge_is_paid_before_the_next_turn() -> None:
    """A source whose answers are large waits until others have had as much."""
    queue = JobQueue(LIMITS)
    for line in "ab":
        for _ in range(100):
            queue.push(line, ask())
    line, _ = queue.pop()
    assert line == "a"
    queue.charge("a", 10 * COST)
    before, _, _ = lines_of(drain(queue, 50)).partition("a")
    assert len(before) >= 8


def test_charge_of_one_alone_costs_nothing() -> None:
    queue = JobQueue(LIMITS)
    queue.push("a", ask())
    queue.charge("a", 2**40)
    assert queue.pop() == ("a", ask())


def test_charge_has_a_limit() -> None:
    """No source is ever charged for more than a full line, so none is shut out for good."""
    limits = LIMITS.replace(line_bytes_max=10 * QUANTUM)
    queue = JobQueue(limits)
    for line in "ab":
        for _ in range(100):
            queue.push(line, ask())
    queue.charge("a", 2**60)
    assert "a" in lines_of(drain(queue, 2 * 12))


def test_charge_of_a_stranger_is_forgotten() -> None:
    queue = JobQueue(LIMITS)
    queue.charge("a", 1_000)
    assert queue.lengths() == {}


def test_debts_do_not_slow_the_queue() -> None:
    """When all are deep in debt the next is found at once: counting it down would take for ever."""
    queue = JobQueue(LIMITS.replace(quantum_bytes=1, line_bytes_max=2**60))
    for line, debt in (("a", 2**59 + 5), ("b", 2**59), ("c", 2**58 + 5)):
        queue.push(line, ask(), 70_000)
        queue.charge(line, debt)
    assert lines_of(drain(queue)) == "cba"


# --- Between classes -----------------------------------------------------------------------------


def test_more_urgent_classes_go_first() -> None:
    queue = JobQueue(LIMITS)
    for job in (upkeep(), ask(), finish()):
        queue.push("a", job)
    assert [job for _, job in drain(queue)] == [finish(), ask(), upkeep()]


def test_answers_of_one_line_go_before_requests_of_all() -> None:
    queue = JobQueue(LIMITS)
    for line in "abc":
        queue.push(line, ask())
    queue.push("c", finish())
    assert queue.pop() == ("c", finish())


def test_upkeep_is_not_starved() -> None:
    """Under endless floods of both other classes upkeep is passed over only so often."""
    queue = JobQueue(LIMITS)
    queue.push("own", upkeep())
    served = 0
    while served <= LIMITS.patience_jobs_max:
        queue.push("a", finish())
        queue.push("b", ask())
        line, _ = queue.pop()
        if line == "own":
            break
        served += 1
    assert served == LIMITS.patience_jobs_max


def test_requests_are_not_starved() -> None:
    """Under an endless flood of answers a request is passed over only so often."""
    queue = JobQueue(LIMITS)
    queue.push("b", ask())
    for _ in range(LIMITS.patience_jobs_max):
        queue.push("a", finish())
        assert queue.pop() == ("a", finish())
    queue.push("a", finish())
    assert queue.pop() == ("b", ask())
    assert queue.pop() == ("a", finish())


# --- Bounds --------------------------------------------------------------------------------------


def test_room_by_jobs() -> None:
    queue = JobQueue(LIMITS.replace(line_jobs_max=3))
    for number in range(3):
        assert queue.has_room("a")
        queue.push("a", [finish(), ask(), upkeep()][number])
    assert not queue.has_room("a")
    assert queue.has_room("b")
    queue.pop()
    assert queue.has_room("a")


def test_room_by_bytes() -> None:
    queue = JobQueue(LIMITS.replace(line_bytes_max=1_000))
    queue.push("a", ask(), 999)
    assert queue.has_room("a")
    queue.push("a", ask(), 1)
    assert not queue.has_room("a")
    queue.pop()
    assert queue.has_room("a")


def test_lengths_and_served_count_jobs() -> None:
    queue = JobQueue(LIMITS)
    for job in (ask(), ask(), finish()):
        queue.push("a", job)
    queue.push("b", upkeep())
    assert queue.lengths() == {"a": 3, "b": 1}
    assert len(queue) == 4
    drain(queue)
    assert len(queue) == 0
    served = {"HandleRequest": 2, "HandleResponse": 1, "ConnectionMaintenance": 1}
    assert queue.served == served


# --- Holding and forgetting ----------------------------------------------------------------------


def test_held_requests_wait_and_answers_pass() -> None:
    queue = JobQueue(LIMITS)
    queue.push("a", ask(1))
    queue.hold("a")
    queue.push("a", ask(2))
    queue.push("a", finish())
    queue.push("b", ask(3))
    assert drain(queue) == [("a", finish()), ("b", ask(3))]
    assert len(queue) == 2
    queue.release("a")
    assert drain(queue) == [("a", ask(1)), ("a", ask(2))]


def test_holding_one_of_many_keeps_the_turns_of_the_others() -> None:
    queue = JobQueue(LIMITS)
    for line in "abc":
        queue.push(line, ask())
    queue.hold("b")
    assert lines_of(drain(queue)) == "ac"


def test_line_is_held_before_its_first_job() -> None:
    queue = JobQueue(LIMITS)
    queue.hold("a")
    queue.push("a", ask())
    assert queue.pop() is None
    queue.release("a")
    assert queue.pop() == ("a", ask())


def test_holding_and_releasing_twice_is_the_same_as_once() -> None:
    queue = JobQueue(LIMITS)
    queue.push("a", ask())
    queue.hold("a")
    queue.hold("a")
    assert queue.pop() is None
    queue.release("a")
    queue.release("a")
    assert drain(queue) == [("a", ask())]


def test_forgotten_line_loses_its_new_work_only() -> None:
    """What ends work stays: answers, and the Cancel of a call that may be in progress."""
    queue = JobQueue(LIMITS)
    for job in (ask(), finish(), upkeep(), jobs.Cancel(GUID)):
        queue.push("a", job, 10)
    queue.push("b", ask())
    queue.forget("a")
    assert len(queue) == 3
    assert queue.lengths() == {"a": 2, "b": 1}
    popped = drain(queue)
    assert popped[0] == ("a", finish())
    assert sorted(popped[1:], key=str) == [("a", jobs.Cancel(GUID)), ("b", ask())]


def test_forgotten_line_is_held_no_longer() -> None:
    """A Cancel behind held work is served once that work is dropped."""
    queue = JobQueue(LIMITS)
    queue.hold("a")
    queue.push("a", ask())
    queue.push("a", jobs.Cancel(GUID))
    queue.forget("a")
    assert drain(queue) == [("a", jobs.Cancel(GUID))]
    assert queue.lengths() == {}


def test_forgetting_a_stranger_changes_nothing() -> None:
    queue = JobQueue(LIMITS)
    queue.forget("a")
    queue.release("a")
    assert queue.lengths() == {}


def test_connections_that_come_and_go_leave_nothing() -> None:
    """Held at first, idle or busy, with or without a last job: once gone, a line is gone."""
    queue = JobQueue(LIMITS)
    for number in range(1_000):
        queue.hold(number)
        queue.push(number, jobs.ConnectionOpened(GUID, Id(bytes(32)), Address("h", 1)))
        if number % 2:
            queue.pop()
            queue.release(number)
            queue.push(number, ask())
            queue.charge(number, 70_000)
        if number % 3:
            queue.push(number, jobs.ConnectionLost(GUID))
        queue.forget(number)
        drain(queue)
        assert queue.lengths() == {}


def test_line_forgotten_and_come_back_starts_anew() -> None:
    queue = JobQueue(LIMITS)
    queue.push("a", finish())
    queue.hold("a")
    queue.forget("a")
    drain(queue)
    queue.push("a", ask())
    assert queue.pop() == ("a", ask())
    assert queue.lengths() == {"a": 0}
