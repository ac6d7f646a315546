"""Chance from the system, drawn in larger pieces: a guid a system call costs more than its step.

For one thread (that of the event loop). Not for keys: what is drawn lies in memory until used.
"""

import os
from random import SystemRandom

from xorbit.config import DRAW_BYTES


class BufferedSystemRandom(SystemRandom):
    """`SystemRandom` whose `randbytes` asks the system for many bytes at a time."""

    def __init__(self) -> None:
        """Begin with nothing drawn."""
        super().__init__()
        self._drawn = b""
        self._used = 0

    def randbytes(self, n: int) -> bytes:
        """Return `n` random bytes, each of them given out once."""
        end = self._used + n
        if end > len(self._drawn):
            self._drawn = os.urandom(max(n, DRAW_BYTES))
            self._used, end = 0, n
        piece = self._drawn[self._used : end]
        self._used = end
        return piece
