"""Nodes that lie: each kind of lie that a network of strangers has to live with.

A liar runs the production machine, so that it is a convincing neighbour, and bends what leaves it.
It cannot forge what is signed or hashed, nor another's id: TLS and the items themselves see to
that. Chance comes from the node's own.
"""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import assert_never

from msgspec.structs import replace

from xorbit.core.nearest import nearest
from xorbit.ids import Guid, Id, as_number
from xorbit.items import Address, Block, ConnectionItem, Contact, Item, Record
from xorbit.wire.message import (
    Closest,
    Envelope,
    FindClosest,
    FindNext,
    Found,
    Get,
    Next,
    Refused,
    Response,
    Stored,
)

TARGETS_MAX = 4_096
"""How many questions a liar remembers, to answer each to its own advantage."""
LATE_S = 2.5
"""How much later a late liar's messages leave."""


class Lie(StrEnum):
    """What a liar does."""

    SILENT = "silent"
    """Takes every request and answers none."""
    LATE = "late"
    """Answers, but after seconds."""
    STRANGERS = "strangers"
    """Names contacts that do not exist."""
    COLLUDING = "colluding"
    """Names only other liars, the closest to what was asked for, and never gives an item."""
    FORGING = "forging"
    """Gives other bytes than were asked for, and newer records that nobody signed."""
    REFUSING = "refusing"
    """Takes no item."""
    FORGETFUL = "forgetful"
    """Says "stored" and keeps nothing (its disk sees to that)."""


class Friends:
    """All liars of a world, in the order of their ids."""

    def __init__(self, contacts: Sequence[Contact]) -> None:
        """Let these know each other."""
        self.contacts = {as_number(contact.id): contact for contact in contacts}
        self.numbers = sorted(self.contacts)


class Liar:
    """What one liar makes of the envelopes that pass through it."""

    __slots__ = ("_friends", "_rng", "_targets", "lie")

    def __init__(self, lie: Lie, rng: Random, friends: Friends) -> None:
        """Lie in one way; `friends` are all liars, who name each other."""
        self.lie = lie
        self._rng = rng
        self._friends = friends
        self._targets: dict[Guid, Id] = {}

    def hears(self, envelope: Envelope) -> None:
        """Remember what somebody asks for."""
        match envelope.body:
            case FindClosest(target=target) | FindNext(target=target):
                self._targets[envelope.guid] = target
            case Get(key=key):
                self._targets[envelope.guid] = key.id
            case _:
                return
        if len(self._targets) > TARGETS_MAX:
            del self._targets[next(iter(self._targets))]

    def says(self, envelope: Envelope) -> Envelope | None:
        """Return what is sent instead of what the machine sends; None: nothing."""
        body = envelope.body
        if not isinstance(body, Response):
            return envelope
        said = self._answer(envelope.guid, body)
        return None if said is None else Envelope(envelope.guid, envelope.work, said)

    def _answer(self, guid: Guid, answer: Response) -> Response | None:
        target = self._targets.pop(guid, None)
        match self.lie, answer:
            case Lie.SILENT, _:
                return None
            case Lie.STRANGERS, Closest(contacts):
                return Closest(tuple(self._stranger() for _ in contacts))
            case Lie.COLLUDING, (Closest() | Found()) if target is not None:
                return Closest(self._closest_friends(target, 20))
            case Lie.COLLUDING, Next(hops=hops) if target is not None:
                (nearest,) = self._closest_friends(target, 1)
                return Next(nearest, hops)
            case Lie.FORGING, Found(item, closer):
                return Found(_forged(item), closer)
            case Lie.REFUSING, Stored():
                return Refused("full", "no room")
            case _:
                return answer

    def _closest_friends(self, target: Id, count: int) -> tuple[Contact, ...]:
        order = nearest(self._friends.numbers, as_number(target), count)
        return tuple(self._friends.contacts[number] for number in order)

    def _stranger(self) -> Contact:
        host = ".".join(str(self._rng.randrange(200, 220)) for _ in range(4))
        return Contact(Id(self._rng.randbytes(32)), (Address(host, 4000),))


def _forged(item: Item) -> Item:
    match item:
        case Block(kind, data):
            return Block(kind, data[:-1] + bytes([data[-1] ^ 1]))
        case Record():
            return replace(item, seq=item.seq + 1, value=b"forged")
        case ConnectionItem():
            return replace(item, seq=item.seq + 1, addresses=())
        case _ as never:
            assert_never(never)
