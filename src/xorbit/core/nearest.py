"""Ids in order, walked by their XOR distance to a point.

Ids with a common prefix are one run of a sorted list, and the nearer to a point, the longer the
prefix that they share with it. So the walk begins where the point would stand and takes one run
after the other, each from the side on which more of the prefix agrees: O(log n + k) for the first k
(Maymounkov and Mazieres, "Kademlia", 2002, for the metric). Pure: knows no node.
"""

from bisect import bisect_left
from collections.abc import Iterator

from xorbit.ids import ID_BITS

_SORT_BELOW = 16  # a run this short is quicker sorted than walked
_NOTHING = ID_BITS + 1
_FIRST_COUNT = 32


def nearest(numbers: list[int], target: int, count: int) -> list[int]:
    """Return the `count` numbers nearest to `target`, of `numbers`, which rise, nearest first."""
    found: list[int] = []
    _collect(numbers, target, 0, len(numbers), count, found)
    return found[:count]


def _collect(
    numbers: list[int], target: int, first: int, last: int, count: int, found: list[int]
) -> None:
    """Add to `found` run after run of `numbers[first:last]`, until there are `count`."""
    low = high = bisect_left(numbers, target, first, last)
    while len(found) < count and (low > first or high < last):
        left = (numbers[low - 1] ^ target).bit_length() if low > first else _NOTHING
        right = (numbers[high] ^ target).bit_length() if high < last else _NOTHING
        if left < right:
            bit, end = left, low
            begin = low = bisect_left(numbers, target >> bit << bit, first, low)
        else:
            bit, begin = right, high
            end = high = bisect_left(numbers, ((target >> bit) + 1) << bit, high, last)
        if end - begin <= _SORT_BELOW:
            found += sorted(numbers[begin:end], key=target.__xor__)
        else:  # these differ in the bit above all others: as near to each other as without it
            _collect(numbers, target ^ (1 << (bit - 1)), begin, end, count, found)


def by_distance(numbers: list[int], target: int) -> Iterator[int]:
    """Give all of `numbers`, which rise, the nearest to `target` first; the first few are cheap."""
    given, count = 0, _FIRST_COUNT
    while given < len(numbers):
        found = nearest(numbers, target, count)
        yield from found[given:]
        given, count = len(found), count * 8
