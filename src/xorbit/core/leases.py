"""Leases: which peers follow which records here, until when. Pure: no clock, the time comes in.

All leases are equally long, so they end in the order in which they were granted; one that is
prolonged goes to the end. Counting, refusing and letting go cost the same however many there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from xorbit.ids import Guid, Id


@dataclass(slots=True)
class Lease:
    """One peer that follows one record."""

    connection: Guid
    exchange: Guid
    """What was asked, and so the name under which it is told."""
    work: Guid
    until: float
    told: tuple[int, bytes] | None
    """The version (`items.version`) that it has, as far as we told it."""


class Leases:
    """All of them, found by record and by peer."""

    __slots__ = ("_by_end", "_of_peer", "_of_record")

    def __init__(self) -> None:
        """Make none."""
        self._by_end: dict[tuple[Id, Id], Lease] = {}
        """By record and peer, those that end first in front."""
        self._of_record: dict[Id, dict[Id, Lease]] = {}
        self._of_peer: dict[Id, dict[Id, Lease]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_end)

    def __contains__(self, pair: tuple[Id, Id]) -> bool:
        """Return whether, of a record and a peer, the one is followed by the other."""
        return pair in self._by_end

    def of_record(self, record: Id) -> Iterable[Lease]:
        """Return the leases on one record."""
        return self._of_record.get(record, {}).values()

    def of_peer(self, peer: Id) -> Iterable[Lease]:
        """Return the leases of one peer."""
        return self._of_peer.get(peer, {}).values()

    def count_of(self, peer: Id) -> int:
        """Return how many one peer has."""
        return len(self._of_peer.get(peer, {}))

    def peers(self) -> Iterable[Id]:
        """Return who has any."""
        return self._of_peer

    def grant(self, record: Id, peer: Id, lease: Lease) -> None:
        """Take one in, in the place of an older one of that peer on that record."""
        self._by_end.pop((record, peer), None)
        self._by_end[record, peer] = lease
        self._of_record.setdefault(record, {})[peer] = lease
        self._of_peer.setdefault(peer, {})[record] = lease

    def drop_ended(self, now: float) -> None:
        """Let go of those that have ended."""
        while self._by_end:
            (record, peer), lease = next(iter(self._by_end.items()))
            if lease.until > now:
                return
            self._drop(record, peer)

    def drop_connection(self, peer: Id, connection: Guid) -> None:
        """Let go of those that a peer was to be told by a connection that is gone."""
        held = self._of_peer.get(peer, {})
        for record in [key for key, lease in held.items() if lease.connection == connection]:
            self._drop(record, peer)

    def _drop(self, record: Id, peer: Id) -> None:
        del self._by_end[record, peer]
        for index, first, second in (
            (self._of_record, record, peer),
            (self._of_peer, peer, record),
        ):
            del index[first][second]
            if not index[first]:
                del index[first]
