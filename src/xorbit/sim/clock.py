"""Virtual time: a heap of what is going to happen.

Two events of one instant happen in the order in which they were planned, so that a run depends on
its seed alone.
"""

import heapq
from collections.abc import Callable

START_S = 1_000.0
"""When a world begins: not at 0, so that no time in it is mistaken for "never"."""


class Clock:
    """What time it is, and what is planned."""

    __slots__ = ("_events", "_order", "happened", "now")

    def __init__(self) -> None:
        """Make a clock at the beginning of time, with nothing planned."""
        self.now = START_S
        self.happened = 0
        """How many events have happened."""
        self._events: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._order = 0

    def at(self, when: float, do: Callable[..., object], *args: object) -> None:
        """Let something happen at a time."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, do, args))

    def after(self, delay_s: float, do: Callable[..., object], *args: object) -> None:
        """Let something happen later."""
        self._order += 1
        heapq.heappush(self._events, (self.now + delay_s, self._order, do, args))

    def run_until(self, until: float) -> None:
        """Let everything happen that is planned up to a time; then it is that time."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            self.now, _, do, args = pop(events)
            self.happened += 1
            do(*args)
        self.now = until

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(self.now + seconds)

    def happen(self) -> bool:
        """Let the next event happen; return whether there was one."""
        if not self._events:
            return False
        self.now, _, do, args = heapq.heappop(self._events)
        self.happened += 1
        do(*args)
        return True

    def next_at(self) -> float | None:
        """Return when the next event happens, or None where nothing is planned."""
        return self._events[0][0] if self._events else None
