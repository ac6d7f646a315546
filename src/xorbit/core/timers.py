"""The timers of a machine: one heap, one next deadline.

Names are data (tuples), so that a timer can be printed and compared. Moving a timer to a later time
costs nothing until its old time comes; that is the common case (a deadline that is put off by every
answer). Pure: no clock, the time comes in as an argument.
"""

import heapq

from xorbit.config import STALE_MIN
from xorbit.ids import Guid

TimerName = tuple[str, Guid | None]
"""What a timer is for, and whose it is: ("link", connection), ("work", guid), ("retry", None)."""


class Timers:
    """Names with the time at which each is due."""

    __slots__ = ("_due", "_heap", "_order")

    def __init__(self) -> None:
        """Make an empty set of timers."""
        self._due: dict[TimerName, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, TimerName]] = []
        self._order = 0

    def __len__(self) -> int:
        """Return how many timers are set."""
        return len(self._due)

    def __contains__(self, name: TimerName) -> bool:
        """Return whether this timer is set."""
        return name in self._due

    def due(self, name: TimerName) -> float | None:
        """Return when a timer is due, or None where it is not set."""
        held = self._due.get(name)
        return held[0] if held else None

    def set(self, name: TimerName, due: float) -> None:
        """Set or move a timer. Equal times fire in the order in which they were last set."""
        held = self._due.get(name)
        self._order += 1
        self._due[name] = due, self._order
        if held is None or due < held[0]:
            heapq.heappush(self._heap, (due, self._order, name))
            self._tidy()

    def cancel(self, name: TimerName) -> None:
        """Forget a timer, set or not."""
        self._due.pop(name, None)
        self._tidy()

    def next_deadline(self) -> float | None:
        """Return when the next timer is due, or None where none is set."""
        self._settle()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> TimerName | None:
        """Take out one timer that is due, the earliest first; None when no other is."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        name = heapq.heappop(self._heap)[2]
        del self._due[name]
        return name

    def _tidy(self) -> None:
        """Keep the heap in proportion to the timers set, whatever was moved or cancelled."""
        if len(self._heap) > STALE_MIN + 2 * len(self._due):
            self._heap = [(due, order, name) for name, (due, order) in self._due.items()]
            heapq.heapify(self._heap)

    def _settle(self) -> None:
        """Bring the true next timer to the top: drop cancelled entries, re-file postponed ones."""
        while self._heap:
            when, order, name = self._heap[0]
            held = self._due.get(name)
            if held == (when, order):
                return
            if held is not None and held > (when, order):
                heapq.heapreplace(self._heap, (*held, name))
            else:
                heapq.heappop(self._heap)
