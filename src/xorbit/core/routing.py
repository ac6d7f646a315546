"""The routing table: which contacts a node knows, and who of them is closest to a point.

One sorted list of ids stands for all buckets: the ids of bucket `i` (those at a distance of
2**i..2**(i+1)-1) are one run of it, and so is every set of ids with a common prefix. That makes the
closest contacts to any point a walk down the prefixes, in O(log n + k), and a bucket's size a
difference of two bisections.

A contact enters by proof only (a connection that we dialled answered with its id); who fails is
never handed on. Pure: no clock, no chance, no I/O.
"""

from bisect import bisect_left, insort

from xorbit.config import ADDRESSES_KEPT, FAILURES_MAX
from xorbit.ids import ID_BITS, Id, as_id, as_number, finger_point
from xorbit.items import Address, Contact

_SORT_BELOW = 16  # a run this short is quicker sorted than split


class Entry:
    """What the table knows of one contact."""

    __slots__ = ("contact", "failures", "heard_at")

    def __init__(self, contact: Contact, heard_at: float) -> None:
        """Note a contact, proved at `heard_at`."""
        self.contact = contact
        self.heard_at = heard_at
        self.failures = 0


class RoutingTable:
    """The contacts of one node, under a budget."""

    __slots__ = ("_budget", "_entries", "_own", "_sorted")

    def __init__(self, own: Id, budget: int) -> None:
        """Make an empty table of at most `budget` contacts around `own`."""
        self._own = own
        self._budget = budget
        self._entries: dict[Id, Entry] = {}
        self._sorted: list[int] = []

    def __len__(self) -> int:
        """Return how many contacts the table holds."""
        return len(self._entries)

    def __contains__(self, peer: Id) -> bool:
        """Return whether this contact is in the table."""
        return peer in self._entries

    def get(self, peer: Id) -> Entry | None:
        """Return what is known of this contact."""
        return self._entries.get(peer)

    def proved(self, peer: Id, address: Address, now: float) -> None:
        """Note that this address led to this id: the way into the table."""
        if peer == self._own:
            return
        entry = self._entries.get(peer)
        if entry is None:
            self._entries[peer] = Entry(Contact(peer, (address,)), now)
            insort(self._sorted, as_number(peer))
            if len(self._entries) > self._budget:
                self._evict()
            return
        others = [known for known in entry.contact.addresses if known != address]
        entry.contact = Contact(peer, (address, *others)[:ADDRESSES_KEPT])
        entry.heard_at = now
        entry.failures = 0

    def heard(self, peer: Id, now: float) -> None:
        """Note that this contact is alive."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.heard_at = now
            entry.failures = 0

    def failed(self, peer: Id) -> None:
        """Note that this contact did not answer; it is forgotten when it does so repeatedly."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.failures += 1
        if entry.failures >= FAILURES_MAX:
            self.forget(peer)

    def forget(self, peer: Id) -> None:
        """Take a contact out."""
        if self._entries.pop(peer, None) is not None:
            del self._sorted[bisect_left(self._sorted, as_number(peer))]

    def closest(self, target: Id, count: int, *, failing: bool = False) -> list[Contact]:
        """Return up to `count` contacts, by rising XOR distance to `target`.

        Contacts that failed last time are left out, unless `failing` asks for them too.
        """
        found: list[Contact] = []
        self._gather(as_number(target), 0, len(self._sorted), ID_BITS - 1, count, failing, found)
        return found

    def finger(self, index: int) -> Contact | None:
        """Return the contact nearest to the finger point `own ^ 2**index`."""
        nearest = self.closest(finger_point(self._own, index), 1)
        return nearest[0] if nearest else None

    def bucket(self, index: int) -> list[Contact]:
        """Return all contacts of one bucket, in the order of their ids."""
        low, high = self._run(index)
        return [self._entries[as_id(number)].contact for number in self._sorted[low:high]]

    def contacts(self) -> list[Contact]:
        """Return all contacts, in the order of their ids."""
        return [self._entries[as_id(number)].contact for number in self._sorted]

    def _gather(
        self,
        target: int,
        low: int,
        high: int,
        bit: int,
        count: int,
        failing: bool,
        found: list[Contact],
    ) -> None:
        """Append the run `low:high`, whose ids agree above `bit`, by distance, up to `count`."""
        if low >= high or len(found) >= count:
            return
        if high - low <= _SORT_BELOW or bit < 0:
            for number in sorted(self._sorted[low:high], key=target.__xor__):
                entry = self._entries[as_id(number)]
                if failing or not entry.failures:
                    found.append(entry.contact)
                    if len(found) >= count:
                        return
            return
        middle_number = (self._sorted[low] >> (bit + 1) << (bit + 1)) | (1 << bit)
        middle = bisect_left(self._sorted, middle_number, low, high)
        halves = [(low, middle), (middle, high)]
        if target >> bit & 1:
            halves.reverse()
        for start, end in halves:
            self._gather(target, start, end, bit - 1, count, failing, found)

    def _run(self, index: int) -> tuple[int, int]:
        """Return where in the sorted list bucket `index` begins and ends."""
        first = (as_number(self._own) ^ (1 << index)) >> index << index
        low = bisect_left(self._sorted, first)
        return low, bisect_left(self._sorted, first + (1 << index), low)

    def _evict(self) -> None:
        """Let go of one contact of the fullest bucket: a failing one, else the longest unheard."""
        entries = [self._entries[contact.id] for contact in self.bucket(self._fullest())]
        worst = max(entries, key=lambda entry: (entry.failures, -entry.heard_at))
        self.forget(worst.contact.id)

    def _fullest(self) -> int:
        """Return the fullest bucket, of equals the farthest."""
        fullest, size, index = 0, 0, ID_BITS
        rest = len(self._sorted)
        while rest > size:  # the nearer buckets together could still hold a fuller one
            index -= 1
            low, high = self._run(index)
            rest -= high - low
            if high - low > size:
                fullest, size = index, high - low
        return fullest
