"""Hearsay: contacts that others named and nobody here has proved.

Lookups may begin at them, so that most need one hop only; whoever turns out wrong costs that
lookup a little time and is forgotten. Nothing from here is ever handed on, or counts as a contact.
Bounded: those heard of longest ago give way. Pure.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

from xorbit.core.nearest import nearest
from xorbit.ids import Id, as_id, as_number
from xorbit.items import Contact


class Heard:
    """Contacts only heard of, in the order of their ids."""

    __slots__ = ("_contacts", "_max", "_sorted")

    def __init__(self, count_max: int) -> None:
        """Make room for so many."""
        self._max = count_max
        self._contacts: dict[Id, Contact] = {}
        """The longest known first."""
        self._sorted: list[int] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._contacts)

    def __contains__(self, peer: Id) -> bool:
        """Return whether this one has been heard of."""
        return peer in self._contacts

    def unheard(self, contacts: Iterable[Contact]) -> list[Contact]:
        """Return those that have not been heard of."""
        known = self._contacts
        return [contact for contact in contacts if contact.id not in known]

    def note(self, contacts: Iterable[Contact]) -> None:
        """Remember contacts; what was heard of one first stands until it proves wrong."""
        for contact in contacts:
            if contact.id not in self._contacts:
                self._contacts[contact.id] = contact
                insort(self._sorted, as_number(contact.id))
        while len(self._contacts) > self._max:
            self.forget(next(iter(self._contacts)))

    def forget(self, peer: Id) -> None:
        """Drop one that is proved, or wrong."""
        if self._contacts.pop(peer, None) is not None:
            del self._sorted[bisect_left(self._sorted, as_number(peer))]

    def closest(self, target: Id, count: int) -> list[Contact]:
        """Return up to `count` of them, by rising XOR distance to `target`."""
        order = nearest(self._sorted, as_number(target), count)
        return [self._contacts[as_id(number)] for number in order]
