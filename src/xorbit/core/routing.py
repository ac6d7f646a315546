"""The routing table: which contacts a node knows, and who of them is closest to a point.

One sorted list of ids stands for all buckets: the ids of bucket `i` (those at a distance of
2**i..2**(i+1)-1) are one run of it, and so is every set of ids with a common prefix. That makes the
closest contacts to any point a walk down the prefixes, in O(log n + k), and a bucket's size a
difference of two bisections.

A contact enters by proof only (a connection that we dialled answered with its id); who fails is
never handed on. Where the budget is spent, a newcomer to the fullest bucket waits: those that have
long been alive are likely to stay alive (Maymounkov and Mazieres, 4.1), so one of them gives way
only when it fails. Of one public subnet a bucket takes only so many, or a single host with a rented
/24 could fill it. Pure: no clock, no chance, no I/O.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from math import inf

from xorbit.config import ADDRESSES_KEPT, DEFAULT_LIMITS, FAILURES_MAX, FAILURES_MIN
from xorbit.core.nearest import nearest
from xorbit.core.scope import subnet_of
from xorbit.ids import ID_BITS, Id, as_number, bucket_index, finger_point
from xorbit.items import Address, Contact


class Entry:
    """What the table knows of one contact."""

    __slots__ = ("contact", "failures", "heard_at", "place", "tested_at")

    def __init__(self, contact: Contact, heard_at: float, place: tuple[int, str] | None) -> None:
        """Note a contact, proved at `heard_at`, that counts as one of `place`."""
        self.contact = contact
        self.heard_at = heard_at
        self.failures = 0
        self.place = place
        """Its bucket and its public subnet, if it is in one."""
        self.tested_at = -inf
        """When it was last asked only for whether it is there."""


class RoutingTable:
    """The contacts of one node, under a budget."""

    __slots__ = (
        "_budget",
        "_crowds",
        "_entries",
        "_failing",
        "_fingers",
        "_near",
        "_newcomers",
        "_newcomers_max",
        "_numbered",
        "_own",
        "_sorted",
        "_subnet_max",
        "changes",
    )

    def __init__(
        self,
        own: Id,
        budget: int,
        subnet_max: int = DEFAULT_LIMITS.subnet_contacts_max,
        newcomers_max: int = DEFAULT_LIMITS.newcomers_max,
    ) -> None:
        """Make an empty table around `own`.

        Args:
            own: our own id, which never enters.
            budget: how many contacts it holds.
            subnet_max: how many of one public subnet a bucket takes.
            newcomers_max: how many may wait for a place.
        """
        self._own = own
        self._budget = budget
        self._subnet_max = subnet_max
        self._newcomers_max = newcomers_max
        self._entries: dict[Id, Entry] = {}
        """Those unheard for longest come first."""
        self._failing: dict[Id, None] = {}
        self._newcomers: dict[Id, tuple[Address, float]] = {}
        self._crowds: dict[tuple[int, str], int] = {}
        """How many contacts each public subnet has in each bucket."""
        self._sorted: list[int] = []
        self._numbered: dict[int, Entry] = {}
        """The same entries, by their ids as numbers."""
        self._near: dict[int, list[Contact]] = {}
        """What `closest` has said of ourselves since the last change, by count."""
        self._fingers: dict[int, Contact] = {}
        """Fingers that are of their point's own bucket, until something changes in that bucket."""
        self.changes = 0
        """How often something has changed that `closest` could tell."""

    def __len__(self) -> int:
        """Return how many contacts the table holds."""
        return len(self._entries)

    def __contains__(self, peer: Id) -> bool:
        """Return whether this contact is in the table."""
        return peer in self._entries

    def get(self, peer: Id) -> Entry | None:
        """Return what is known of this contact."""
        return self._entries.get(peer)

    @property
    def newcomers(self) -> int:
        """How many proved contacts wait for a place."""
        return len(self._newcomers)

    def proved(self, peer: Id, address: Address, now: float) -> None:
        """Note that this address led to this id: the way into the table."""
        if peer == self._own:
            return
        entry = self._entries.get(peer)
        place = self._place(peer, address)
        if (entry is None or entry.place != place) and self._is_crowded(place):
            return
        if entry is None:
            self._enter(peer, address, now, place)
            return
        self._count(entry.place, -1)
        self._count(place, 1)
        entry.place = place
        others = [known for known in entry.contact.addresses if known != address]
        contact = Contact(peer, (address, *others)[:ADDRESSES_KEPT])
        if contact != entry.contact:
            entry.contact = contact
            self._changed(peer)
        self.heard(peer, now)

    def heard(self, peer: Id, now: float) -> None:
        """Note that this contact is alive."""
        entry = self._entries.pop(peer, None)
        if entry is not None:
            self._entries[peer] = entry
            entry.heard_at = now
            if entry.failures:
                entry.failures = 0
                del self._failing[peer]
                self._changed(peer)

    def tested(self, peer: Id, now: float) -> None:
        """Note that this contact is being asked whether it is there."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.tested_at = now

    def failed(self, peer: Id) -> None:
        """Note that this contact did not answer.

        Failing again it gives way to a newcomer that waits; without one it is tried once more.
        """
        self._newcomers.pop(peer, None)
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.failures += 1
        self._failing[peer] = None
        self._changed(peer)
        awaited = self._has_newcomer(bucket_index(self._own, peer))
        if entry.failures >= (FAILURES_MIN if awaited else FAILURES_MAX):
            self.forget(peer)

    def forget(self, peer: Id) -> None:
        """Take a contact out; one that waits takes its place."""
        self._newcomers.pop(peer, None)
        if self._remove(peer):
            for newcomer, (address, now) in list(self._newcomers.items()):
                if len(self._entries) >= self._budget:
                    break
                del self._newcomers[newcomer]
                self.proved(newcomer, address, now)

    def to_test(self, now: float, silent_s: float, retry_s: float, count: int) -> list[Contact]:
        """Return whom to ask whether it is there, the most urgent first.

        Who failed last time; in buckets that a newcomer waits for, who is unheard for longest; who
        is unheard for `silent_s`. Nobody more often than every `retry_s`.
        """
        chosen: dict[Id, None] = {}
        for peer in (*self._failing, *self._before_newcomers(), *self._silent(now - silent_s)):
            if len(chosen) >= count:
                break
            if self._entries[peer].tested_at <= now - retry_s:
                chosen[peer] = None
        return [self._entries[peer].contact for peer in chosen]

    def closest(self, target: Id, count: int, *, failing: bool = False) -> list[Contact]:
        """Return up to `count` contacts, by rising XOR distance to `target`.

        Contacts that failed last time are left out, unless `failing` asks for them too.
        """
        if target == self._own and not failing:
            if count not in self._near:
                self._near[count] = self._closest(target, count)
            return self._near[count].copy()
        return self._closest(target, count, failing=failing)

    def _closest(self, target: Id, count: int, *, failing: bool = False) -> list[Contact]:
        numbered = self._numbered
        if failing or not self._failing:
            order = nearest(self._sorted, as_number(target), count)
            return [numbered[number].contact for number in order]
        order = nearest(self._sorted, as_number(target), count + len(self._failing))
        entries = (numbered[number] for number in order)
        return [entry.contact for entry in entries if not entry.failures][:count]

    def finger(self, index: int) -> Contact | None:
        """Return the contact nearest to the finger point `own ^ 2**index`."""
        if index in self._fingers:
            return self._fingers[index]
        nearest = self.closest(finger_point(self._own, index), 1)
        if nearest and bucket_index(self._own, nearest[0].id) == index:
            self._fingers[index] = nearest[0]
        return nearest[0] if nearest else None

    def bucket(self, index: int) -> list[Contact]:
        """Return all contacts of one bucket, in the order of their ids."""
        low, high = self._run(index)
        return [self._numbered[number].contact for number in self._sorted[low:high]]

    def buckets(self) -> list[int]:
        """Return the indices of the buckets that hold somebody, the farthest first."""
        found: list[int] = []
        rest = len(self._sorted)
        for index in reversed(range(ID_BITS)):
            if not rest:
                break
            low, high = self._run(index)
            rest -= high - low
            if high > low:
                found.append(index)
        return found

    def contacts(self) -> list[Contact]:
        """Return all contacts, in the order of their ids."""
        return [self._numbered[number].contact for number in self._sorted]

    def _run(self, index: int) -> tuple[int, int]:
        """Return where in the sorted list bucket `index` begins and ends."""
        first = (as_number(self._own) ^ (1 << index)) >> index << index
        low = bisect_left(self._sorted, first)
        return low, bisect_left(self._sorted, first + (1 << index), low)

    def _silent(self, since: float) -> Iterator[Id]:
        for peer, entry in self._entries.items():
            if entry.heard_at > since:
                return
            yield peer

    def _before_newcomers(self) -> list[Id]:
        """Return who is unheard for longest in each bucket that somebody waits for."""
        buckets = dict.fromkeys(bucket_index(self._own, peer) for peer in self._newcomers)
        crowds = [
            [self._entries[contact.id] for contact in self.bucket(index)] for index in buckets
        ]
        return [
            min(crowd, key=lambda entry: entry.heard_at).contact.id for crowd in crowds if crowd
        ]

    def _has_newcomer(self, index: int) -> bool:
        return any(bucket_index(self._own, peer) == index for peer in self._newcomers)

    def _changed(self, peer: Id) -> None:
        self.changes += 1
        self._near.clear()
        self._fingers.pop(bucket_index(self._own, peer), None)

    def _place(self, peer: Id, address: Address) -> tuple[int, str] | None:
        subnet = subnet_of(address.host)
        return None if subnet is None else (bucket_index(self._own, peer), subnet)

    def _is_crowded(self, place: tuple[int, str] | None) -> bool:
        return place is not None and self._crowds.get(place, 0) >= self._subnet_max

    def _count(self, place: tuple[int, str] | None, change: int) -> None:
        if place is not None:
            count = self._crowds.pop(place, 0) + change
            if count:
                self._crowds[place] = count

    def _enter(self, peer: Id, address: Address, now: float, place: tuple[int, str] | None) -> None:
        if len(self._entries) >= self._budget:
            index = bucket_index(self._own, peer)
            worst = self._worst(self._fullest(joining=index), index)
            if worst is None:
                self._let_wait(peer, address, now)
                return
            self._remove(worst)
        self._insert(peer, Entry(Contact(peer, (address,)), now, place))

    def _let_wait(self, peer: Id, address: Address, now: float) -> None:
        self._newcomers.pop(peer, None)
        self._newcomers[peer] = address, now
        if len(self._newcomers) > self._newcomers_max:
            del self._newcomers[next(iter(self._newcomers))]

    def _insert(self, peer: Id, entry: Entry) -> None:
        self._newcomers.pop(peer, None)
        self._entries[peer] = entry
        self._count(entry.place, 1)
        self._changed(peer)
        number = as_number(peer)
        self._numbered[number] = entry
        insort(self._sorted, number)

    def _remove(self, peer: Id) -> bool:
        entry = self._entries.pop(peer, None)
        if entry is None:
            return False
        self._failing.pop(peer, None)
        self._changed(peer)
        self._count(entry.place, -1)
        number = as_number(peer)
        del self._numbered[number]
        del self._sorted[bisect_left(self._sorted, number)]
        return True

    def _worst(self, index: int, joining: int) -> Id | None:
        """Return who of a bucket gives way to a newcomer, None where all alive stay in their place.

        Who failed most often; else, where the newcomer has another bucket, who is unheard for
        longest: the fullest bucket can spare one. Looks at those that fail and at as many more as
        it takes to find one of the bucket, never at the whole bucket: strangers can make newcomers.
        """
        failing = [
            self._entries[peer] for peer in self._failing if bucket_index(self._own, peer) == index
        ]
        worst = max(failing, key=lambda entry: (entry.failures, -entry.heard_at), default=None)
        if worst is not None and (index != joining or worst.failures >= FAILURES_MIN):
            return worst.contact.id
        if index == joining:
            return None
        return next(peer for peer in self._entries if bucket_index(self._own, peer) == index)

    def _fullest(self, joining: int) -> int:
        """Return the fullest bucket, a newcomer to `joining` counted; of equals the farthest."""
        fullest, size, index = 0, 0, ID_BITS
        rest = len(self._sorted) + 1
        while rest > size:  # the nearer buckets together could still hold a fuller one
            index -= 1
            low, high = self._run(index)
            held = high - low + (index == joining)
            rest -= held
            if held > size:
                fullest, size = index, held
        return fullest
