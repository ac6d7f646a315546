"""The job queue: the one way into the machine, and fair.

Every source of jobs (a connection, the clock, the console, a local caller) has a bounded line of
its own. Three classes of urgency: what finishes work in progress, what asks for new work, and
upkeep. Within a class, deficit round-robin over the lines (Shreedhar and Varghese, "Efficient Fair
Queuing using Deficit Round-Robin", SIGCOMM 1995), by bytes and by jobs; between classes the more
urgent goes first, but nobody is passed over more than a bounded number of times in a row.

Pure data structure: nothing here knows what a job does. A line that is full is never pushed to by a
driver that asks `has_room` first and stops reading instead (back-pressure).
"""

from collections import deque
from collections.abc import Hashable
from enum import IntEnum

from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.job import Job


class Urgency(IntEnum):
    """The classes of jobs, most urgent first."""

    FINISH = 0
    """Completes work in progress: responses to our requests, disk and dial results, the clock."""
    ASK = 1
    """New work: requests of peers, calls of our user."""
    UPKEEP = 2
    """Maintenance."""


_ASKS = frozenset(
    {
        jobs.HandleRequest,
        jobs.Get,
        jobs.Store,
        jobs.Pin,
        jobs.TendPins,
        jobs.Follow,
        jobs.LookUp,
        jobs.SendRequest,
        jobs.Connect,
        jobs.Bootstrap,
        jobs.HandleStdinLine,
        jobs.Cancel,  # behind the call that it cancels, never ahead of it
    }
)


_UPKEEP = frozenset({jobs.ConnectionMaintenance, jobs.StoreScanned})


def urgency(job: Job) -> Urgency:
    """Return the class of a job."""
    kind = type(job)
    if kind in _ASKS:
        return Urgency.ASK
    return Urgency.UPKEEP if kind in _UPKEEP else Urgency.FINISH


class _Lane:
    """The jobs of one line in one class, with the line's deficit in that class.

    Jobs in a list: few wait, and a deque takes 600 bytes empty, three of them for each connection.
    """

    __slots__ = ("deficit", "held", "jobs", "line", "ringed")

    def __init__(self, line: Hashable) -> None:
        self.line = line
        self.jobs: list[tuple[Job, int]] = []
        self.deficit = 0
        self.held = False
        self.ringed = False


class _Line:
    """What one source has waiting, over all classes."""

    __slots__ = ("bytes", "count", "gone", "lanes")

    def __init__(self, name: Hashable) -> None:
        self.lanes = (_Lane(name), _Lane(name), _Lane(name))
        self.count = 0
        self.bytes = 0
        self.gone = False


class JobQueue:
    """Bounded lines, served fairly."""

    __slots__ = ("_length", "_limits", "_lines", "_passed_over", "_rings", "served")

    def __init__(self, limits: Limits) -> None:
        """Make an empty queue under these limits."""
        self._limits = limits
        self._lines: dict[Hashable, _Line] = {}
        self._rings: tuple[deque[_Lane], ...] = tuple(deque() for _ in Urgency)
        self._passed_over = [0 for _ in Urgency]
        self._length = 0
        self.served: dict[str, int] = {}
        """How many jobs of each kind have been taken out."""

    def __len__(self) -> int:
        """Return how many jobs wait, held ones included."""
        return self._length

    def push(self, line: Hashable, job: Job, size: int = 0) -> None:
        """Put a job of `size` bytes at the end of its source's line."""
        held = self._lines.get(line)
        if held is None:
            held = self._lines[line] = _Line(line)
        level = urgency(job)
        lane = held.lanes[level]
        lane.jobs.append((job, size))
        held.count += 1
        held.bytes += size
        self._length += 1
        if not lane.ringed and not lane.held:
            lane.ringed = True
            self._rings[level].append(lane)

    def has_room(self, line: Hashable) -> bool:
        """Return whether this source may bring more; if not, it should not be read from."""
        held = self._lines.get(line)
        if held is None:
            return True
        limits = self._limits
        return held.count < limits.line_jobs_max and held.bytes < limits.line_bytes_max

    def pop(self) -> tuple[Hashable, Job] | None:
        """Take out the next job and its source, or None when none may be served."""
        level = self._next_level() if self._length else None
        if level is None:
            return None
        lane = self._next_lane(self._rings[level])
        job, size = lane.jobs.pop(0)
        lane.deficit -= size + self._limits.job_cost_bytes
        line = self._lines[lane.line]
        line.count -= 1
        line.bytes -= size
        self._length -= 1
        if not lane.jobs:
            self._unring(self._rings[level], lane)
            lane.deficit = min(lane.deficit, 0)  # a source that rests saves up nothing
            if line.gone and not line.count:
                del self._lines[lane.line]
        name = type(job).__name__
        self.served[name] = self.served.get(name, 0) + 1
        return lane.line, job

    def charge(self, line: Hashable, size: int) -> None:
        """Make a source pay for what it caused later: the bytes of a response, say."""
        held = self._lines.get(line)
        if held is not None:
            lane = held.lanes[Urgency.ASK]
            lane.deficit = max(lane.deficit - size, -self._limits.line_bytes_max)

    def hold(self, line: Hashable) -> None:
        """Serve no new requests of this source until `release`; what finishes work still passes."""
        lane = self._line(line).lanes[Urgency.ASK]
        lane.held = True
        if lane.ringed:
            self._unring(self._rings[Urgency.ASK], lane)

    def release(self, line: Hashable) -> None:
        """Serve this source's requests again."""
        held = self._lines.get(line)
        if held is None:
            return
        lane = held.lanes[Urgency.ASK]
        lane.held = False
        if lane.jobs and not lane.ringed:
            lane.ringed = True
            self._rings[Urgency.ASK].append(lane)

    def forget(self, line: Hashable) -> None:
        """Drop a source that is gone, with the new work it asked for.

        What ends work stays until it is served (a lost connection's last job, a Cancel), and with
        the last of it the line itself goes. So a source's last job is pushed before this.
        """
        held = self._lines.get(line)
        if held is None:
            return
        held.gone = True
        for level in (Urgency.ASK, Urgency.UPKEEP):
            lane = held.lanes[level]
            kept = [entry for entry in lane.jobs if type(entry[0]) is jobs.Cancel]
            dropped = len(lane.jobs) - len(kept)
            held.count -= dropped
            held.bytes -= sum(size for _, size in lane.jobs) - sum(size for _, size in kept)
            self._length -= dropped
            lane.jobs = kept
            lane.held = False
            if lane.ringed and not kept:
                self._unring(self._rings[level], lane)
            elif kept and not lane.ringed:
                lane.ringed = True
                self._rings[level].append(lane)
        if not held.count:
            del self._lines[line]

    def lengths(self) -> dict[Hashable, int]:
        """Return how many jobs each source has waiting."""
        return {name: line.count for name, line in self._lines.items()}

    def _line(self, name: Hashable) -> _Line:
        held = self._lines.get(name)
        if held is None:
            held = self._lines[name] = _Line(name)
        return held

    def _next_level(self) -> int | None:
        """Return the class to serve: the most urgent, unless another has been patient enough."""
        rings, passed = self._rings, self._passed_over
        chosen = None
        for level in (2, 1, 0):
            if rings[level] and (chosen is None or passed[chosen] < self._limits.patience_jobs_max):
                chosen = level
        if chosen is None:
            return None
        for level in (0, 1, 2):
            passed[level] = passed[level] + 1 if level > chosen and rings[level] else passed[level]
        passed[chosen] = 0
        return chosen

    def _next_lane(self, ring: deque[_Lane]) -> _Lane:
        """Return the lane whose turn it is: the first that can pay for its next job."""
        price = self._limits.job_cost_bytes
        if len(ring) == 1:
            lane = ring[0]
            lane.deficit = max(lane.deficit, lane.jobs[0][1] + price)  # nobody else waits
            return lane
        quantum = self._limits.quantum_bytes
        while True:
            for _ in range(len(ring)):
                lane = ring[0]
                if lane.deficit >= lane.jobs[0][1] + price:
                    return lane
                lane.deficit += quantum
                ring.rotate(-1)
            # Where all are deep in debt: the rounds until the first of them can pay, in one.
            lacking = min(lane.jobs[0][1] + price - lane.deficit for lane in ring)
            rounds = max(-(-lacking // quantum), 0)
            for lane in ring:
                lane.deficit += rounds * quantum

    @staticmethod
    def _unring(ring: deque[_Lane], lane: _Lane) -> None:
        if ring[0] is lane:
            ring.popleft()
        else:
            ring.remove(lane)
        lane.ringed = False
