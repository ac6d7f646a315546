"""What a full store lets go of: what is farthest from its own id and longest unasked for.

Only for something nearer. The farthest goes first, but one that was asked for lately is passed over
for those after it that were not; only so many of them, or a stranger could hold far places by
asking. Pure choice over keys; who asks does the removing.
"""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import islice

from xorbit.config import EVICTION_LOOKS_MAX, EVICTION_SPARED_MAX
from xorbit.ids import ID_BITS, Id, as_id, as_number, distance
from xorbit.items import ItemKey, Kind
from xorbit.store.base import Write

KeysFrom = Callable[[Id, int], list[ItemKey]]


def choose(
    own: Id,
    write: Write,
    wanted_bytes: int,
    keys_from: KeysFrom,
    weigh: Callable[[ItemKey], int | None],
    asked: Callable[[ItemKey], int],
) -> list[ItemKey]:
    """Return what to drop so that `wanted_bytes` more become free; nothing if that is not enough.

    Args:
        own: where we are.
        write: what is to be written; unless it is our owner's, it replaces farther items only.
        wanted_bytes: how many bytes must become free.
        keys_from: keys in keyspace order.
        weigh: the bytes that dropping a key frees, None for what may not be dropped.
        asked: higher the later a key was asked for, 0 where it was not.
    """
    chosen: list[ItemKey] = []
    may_go = _may_go(own, write, keys_from, weigh)
    for key, weight in _longest_unasked_first(may_go, asked):
        chosen.append(key)
        wanted_bytes -= weight
        if wanted_bytes <= 0:
            return chosen
    return []


def _may_go(
    own: Id, write: Write, keys_from: KeysFrom, weigh: Callable[[ItemKey], int | None]
) -> Iterator[tuple[ItemKey, int]]:
    """Yield what may be dropped for a write, and its weight, farthest first."""
    ours = distance(own, write.key.id)
    for key in islice(farthest_first(own, keys_from), EVICTION_LOOKS_MAX):
        if not write.pin and distance(own, key.id) <= ours:
            return
        if key != write.key and (weight := weigh(key)) is not None:
            yield key, weight


def _longest_unasked_first(
    may_go: Iterator[tuple[ItemKey, int]], asked: Callable[[ItemKey], int]
) -> Iterator[tuple[ItemKey, int]]:
    """Yield the same with those put off that were asked for, up to so many of them at a time."""
    spared: list[tuple[int, ItemKey, int]] = []
    for key, weight in may_go:
        if when := asked(key):
            heappush(spared, (when, key, weight))
            if len(spared) > EVICTION_SPARED_MAX:
                yield heappop(spared)[1:]
        else:
            yield key, weight
    while spared:
        yield heappop(spared)[1:]


def farthest_first(own: Id, keys_from: KeysFrom) -> Iterator[ItemKey]:
    """Yield the keys by falling XOR distance to `own`, each found by a few seeks."""
    return _visit(as_number(own), 0, ID_BITS, keys_from)


def _visit(own: int, low: int, bits: int, keys_from: KeysFrom) -> Iterator[ItemKey]:
    """Yield the keys in `low..low + 2**bits - 1`, farthest first."""
    end = low + (1 << bits)
    # At one id there may stand an item of each kind.
    first = keys_from(as_id(low), 2 if bits else len(Kind))
    inside = [key for key in first if as_number(key.id) < end]
    if len(inside) < 2 or not bits:
        yield from inside
        return
    half = 1 << (bits - 1)
    farther = low if own & half else low + half
    yield from _visit(own, farther, bits - 1, keys_from)
    yield from _visit(own, farther ^ half, bits - 1, keys_from)
