"""Which items were asked for lately, in which order: in memory only, so that a read costs no write.

Coarse on purpose: of more items than it remembers the ones longest unasked for are forgotten, and
all are with the end of the process. No clock: only the order counts.
"""

from collections.abc import Iterable

from xorbit.config import ASKED_KEPT_MAX
from xorbit.items import ItemKey

NEVER = 0


class Asked:
    """The order in which items were last asked for.

    Two threads may note at once: a note may get lost then, nothing else.
    """

    __slots__ = ("_count", "_kept_max", "_latest", "_older")

    def __init__(self, kept_max: int = ASKED_KEPT_MAX) -> None:
        """Remember between `kept_max / 2` and `kept_max` items."""
        self._kept_max = kept_max
        self._count = NEVER
        self._latest: dict[ItemKey, int] = {}
        self._older: dict[ItemKey, int] = {}

    def note(self, keys: Iterable[ItemKey]) -> None:
        """Note that these have just been asked for, one after the other."""
        for key in keys:
            self._count += 1
            self._latest[key] = self._count
            if 2 * len(self._latest) >= self._kept_max:
                self._older, self._latest = self._latest, {}

    def when(self, key: ItemKey) -> int:
        """Return a number, the higher the later it was asked for; NEVER where that is unknown."""
        return self._latest.get(key) or self._older.get(key, NEVER)
