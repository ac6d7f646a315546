"""Virtual time: a heap of what is going to happen.

Two events of one instant happen in the order in which they were planned, so that a run depends on
its seed alone.
"""

import heapq
from collections.abc import Callable
from math import inf

START_S = 1_000.0
"""When a world begins: not at 0, so that no time in it is mistaken for "never"."""


class Clock:
    """What time it is, and what is planned."""

    __slots__ = ("_events", "_order", "now")

    def __init__(self) -> None:
        """Make a clock at the beginning of time, with nothing planned."""
        self.now = START_S
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
        """Let everything happen that is planned up to a time; then it is that time.

        Of a world with nodes it is `World.run` that lets time pass.
        """
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            self.now, _, do, args = pop(events)
            do(*args)
        self.now = until

    def next_at(self) -> float:
        """Return when the next event happens; inf where nothing is planned."""
        return self._events[0][0] if self._events else inf
