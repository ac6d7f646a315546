"""What a full store lets go of: what is farthest from its own id, and only for something nearer.

Pure choice over keys; who asks does the removing.
"""

from collections.abc import Callable, Iterator

from xorbit.config import EVICTION_LOOKS_MAX
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
) -> list[ItemKey]:
    """Return what to drop so that `wanted_bytes` more become free; nothing if that is not enough.

    Args:
        own: where we are.
        write: what is to be written; unless it is our owner's, it replaces farther items only.
        wanted_bytes: how many bytes must become free.
        keys_from: keys in keyspace order.
        weigh: the bytes that dropping a key frees, None for what may not be dropped.
    """
    chosen: list[ItemKey] = []
    ours = distance(own, write.key.id)
    for looks, key in enumerate(farthest_first(own, keys_from)):
        nearer = not write.pin and distance(own, key.id) <= ours
        if nearer or looks >= EVICTION_LOOKS_MAX:
            return []
        if key != write.key and (weight := weigh(key)) is not None:
            chosen.append(key)
            wanted_bytes -= weight
            if wanted_bytes <= 0:
                return chosen
    return []


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
