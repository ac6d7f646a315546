"""How many blocks are in flight: a window that follows the throughput that is measured.

Hill climbing: the window doubles for as long as that carries at least an eighth more, and halves
for as long as that carries hardly less. It begins by doubling, as the slow start of TCP does and
for the same reason; later it asks now and then, up and down in turn, whether the way has changed,
and at once where it carries half or twice as much as it did. By Little's law what is in flight is
throughput times latency: a larger window that carries no more only makes each block wait, so of two
that are about as fast the smaller one is taken. Where blocks take seconds it shrinks in any case,
as requests time out. Pure: time comes in as an argument, and nobody waits here.
"""

from math import inf
from typing import Literal

from xorbit.config import (
    BLOCK_COST_BYTES,
    WINDOW_BLOCKS_FIRST,
    WINDOW_BLOCKS_MIN,
    WINDOW_CHANGE,
    WINDOW_FLIGHT_S_MAX,
    WINDOW_GAIN_MIN,
    WINDOW_ROUND_BLOCKS_MIN,
    WINDOW_ROUNDS_HELD,
)

Try = Literal["hold", "double", "halve"]


class Pace:
    """The window of one transfer."""

    def __init__(self, most: int) -> None:
        """Let at most so many blocks be in flight."""
        self._most = most
        self._least = min(WINDOW_BLOCKS_MIN, most)
        self.window = min(WINDOW_BLOCKS_FIRST, most)
        """How many may be in flight now."""
        self._trying: Try = "hold"
        self._next: Try = "double"
        self._is_first = True
        """Whether it has only been doubled yet."""
        self._before = 0.0
        """What the window carried that was there before the one that is being tried; or, while it
        is held, at first."""
        self._held = WINDOW_ROUNDS_HELD
        """For how many rounds it has been held; at first it is time to try another."""
        self._skip = 0
        """So many blocks began under another window, and say nothing of this one."""
        self._count = 0
        self._cost = 0
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """Note that the first block is on its way."""
        if self._began is None:
            self._start_round(now)

    def done(self, now: float, size: int, in_flight: int) -> None:
        """Note that a block of so many bytes is done, and how many are in flight without it."""
        if self._skip > 0:
            self._skip -= 1
            if self._skip == 0:
                self._start_round(now)
            return
        self._cost += size + BLOCK_COST_BYTES
        self._count += 1
        if self._count >= self._round() or self._is_slow(now):
            self._end_round(now, in_flight)

    def _start_round(self, now: float) -> None:
        self._began = now
        self._count = 0
        self._cost = 0

    def _end_round(self, now: float, in_flight: int) -> None:
        was = self.window
        if self._is_slow(now):
            self._hold(self._sized(self.window // 2))
            self._next, self._held = "halve", WINDOW_ROUNDS_HELD  # maybe it is still too much
        else:
            took_s = self._took_s(now)
            self._judge(self._cost / took_s if took_s > 0 else inf)
        if self.window == was:
            self._start_round(now)
        else:
            self._skip = in_flight
            if in_flight == 0:
                self._start_round(now)

    def _round(self) -> int:
        """Return over how many blocks to measure: at first few, where much is to be gained."""
        return self.window if self._is_first else max(2 * self.window, WINDOW_ROUND_BLOCKS_MIN)

    def _is_slow(self, now: float) -> bool:
        """Return whether a whole window of blocks took so long that each of them did."""
        flights = self._count / self.window
        return flights >= 1 and self._took_s(now) > flights * WINDOW_FLIGHT_S_MAX

    def _took_s(self, now: float) -> float:
        assert self._began is not None, "a block was begun before it was done"
        return now - self._began

    def _judge(self, rate: float) -> None:
        """Keep what was tried, or go back; and try the next, where it is time to."""
        match self._trying:
            case "double" if rate < self._before * WINDOW_GAIN_MIN:
                self._hold(self._sized(self.window // 2))
            case "halve" if rate * WINDOW_GAIN_MIN < self._before:
                self._hold(self._sized(self.window * 2))
            case "hold" if self._held == 0:
                self._before = rate
                self._held = 1
            case "hold" if rate * WINDOW_CHANGE < self._before:
                self._try("halve", rate)
            case "hold" if rate > self._before * WINDOW_CHANGE:
                self._try("double", rate)
            case "hold" if self._held < WINDOW_ROUNDS_HELD:
                self._held += 1
            case "hold":
                self._try(self._next, rate)
            case "double" | "halve":
                self._try(self._trying, rate)

    def _try(self, what: Try, rate: float) -> None:
        size = self._sized(self.window * 2 if what == "double" else self.window // 2)
        if size == self.window:  # there is no further
            self._trying = what
            self._hold(size)
            return
        self.window, self._trying, self._before = size, what, rate

    def _hold(self, size: int) -> None:
        """Stay at a size for some rounds; then ask in the other direction than lately."""
        self._is_first = False
        self._next = "halve" if self._trying == "double" else "double"
        self.window, self._trying, self._held = size, "hold", 0

    def _sized(self, size: int) -> int:
        return max(self._least, min(size, self._most))
