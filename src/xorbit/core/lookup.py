"""The Lookup: an iterator over the network that knows nothing of sockets.

Iterative Kademlia lookup: ask the closest contacts known, learn closer ones from their answers, end
when the `width` closest have answered. Hedged: whoever is slower than its own usual round trip no
longer holds a place among those asked in parallel, and the end does not wait for it while others
can answer. Late and duplicate answers change nothing.

`next(now)` says what to do; `on_response` and `on_failure` feed it. Modelled on the query iterator
of rust-libp2p (kad/src/query/peers/closest.rs).
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from xorbit.config import BLAME_MAX
from xorbit.ids import Id, distance
from xorbit.items import ADDRESSES_MAX, Contact


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this contact now."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before an answer comes, or before this time (None: no time will change it)."""

    until: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """Nobody else need be asked."""


HEARSAY = Id(b"hearsay")
"""As the source of contacts that we had only heard of when the lookup began."""


class _Stage(Enum):
    NEW = "new"
    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    source: Id | None
    """Who named it last, while it was not asked yet; None for our own contacts."""
    depth: int
    """How many nodes were asked in a row until this one is: 1 for our own contacts."""
    stage: _Stage = _Stage.NEW


FINISHED = Finished()


class Lookup:
    """One search for the contacts closest to a target."""

    __slots__ = (
        "_asked",
        "_asked_max",
        "_at_end",
        "_blame",
        "_candidates",
        "_is_near",
        "_order",
        "_outstanding",
        "_own",
        "_parallel",
        "_target",
        "_width",
    )

    def __init__(
        self,
        target: Id,
        own: Id,
        seeds: Iterable[Contact],
        *,
        width: int,
        parallel: int,
        asked_max: int,
        at_end: int = 0,
    ) -> None:
        """Start a lookup of `target` from the contacts in `seeds`.

        Args:
            target: the point to come close to.
            own: our own id, which is never asked.
            seeds: where to begin.
            width: how many closest contacts must have answered.
            parallel: alpha, how many are asked at once.
            asked_max: how many may be asked in all.
            at_end: how many are asked at once when the latest answer has brought nobody closer
                (Maymounkov and Mazieres, 2.3, ask all that are left); `parallel` by default.
        """
        self._target = target
        self._own = own
        self._width = width
        self._parallel = parallel
        self._at_end = max(parallel, at_end)
        self._asked_max = asked_max
        self._asked = 0
        self._is_near = False
        """Whether the latest answer named nobody among the `width` closest that was new."""
        self._outstanding: dict[Id, float] = {}
        self._blame: dict[Id | None, int] = {}
        self._candidates: dict[Id, _Candidate] = {}
        self._order: list[tuple[int, Id]] = []
        self.offer(seeds)

    def offer(self, contacts: Iterable[Contact], source: Id | None = None) -> None:
        """Add contacts that might be close; ourselves and those already asked are passed over.

        Whoever names a contact anew adds its addresses: one liar cannot hide a node by naming it
        first, at a wrong place.
        """
        teller = None if source is None else self._candidates.get(source)
        depth = 1 if teller is None else teller.depth + 1
        candidates, order, target = self._candidates, self._order, self._target
        for contact in contacts:
            peer = contact.id
            candidate = candidates.get(peer)
            if peer == self._own:
                continue
            if candidate is None:
                candidates[peer] = _Candidate(contact, source, depth)
                insort(order, (distance(target, peer), peer))
            elif candidate.stage is _Stage.NEW:
                known = candidate.contact.addresses
                merged = tuple(dict.fromkeys((*known, *contact.addresses)))
                candidate.contact = Contact(contact.id, merged[:ADDRESSES_MAX])
                candidate.source = None if candidate.source is None else source
            elif candidate.source == HEARSAY and source is not None:
                candidate.source = source

    def next(self, now: float) -> Ask | Wait | Finished:
        """Return what to do next. After Ask, call `asked` before the next `next`.

        The `width` closest places belong to whoever answered or may yet answer in time; the failed
        and the slow hold none.
        """
        in_time = [slow_at for slow_at in self._outstanding.values() if slow_at > now]
        hearsay = self._blame.get(HEARSAY, 0) + self._slow_hearsay(now)
        parallel = self._at_end if self._is_near else self._parallel
        places = open_places = 0
        for _, peer in self._order:
            candidate = self._candidates[peer]
            match candidate.stage:
                case _Stage.ANSWERED:
                    places += 1
                case _Stage.ASKED if self._outstanding[peer] > now:
                    places += 1
                    open_places += 1
                case _Stage.NEW if self._may_be_asked(candidate, hearsay):
                    if len(in_time) < parallel:
                        return Ask(candidate.contact)
                    return Wait(min(in_time))
                case _:
                    pass
            if places >= self._width:
                break
        if places >= self._width and not open_places:
            return FINISHED
        if not self._outstanding:
            return FINISHED
        return Wait(min(in_time, default=None))

    def _slow_hearsay(self, now: float) -> int:
        """Return how many are slow of whom we had only heard: probably they are gone."""
        slow = (peer for peer, slow_at in self._outstanding.items() if slow_at <= now)
        return sum(self._candidates[peer].source == HEARSAY for peer in slow)

    def _may_be_asked(self, candidate: _Candidate, hearsay: int) -> bool:
        """Return whether to believe who named it; `hearsay`: how much of that has been wrong."""
        source = candidate.source
        wrong = hearsay if source == HEARSAY else self._blame.get(source, 0)
        return (source is None or wrong < BLAME_MAX) and self._asked < self._asked_max

    def asked(self, peer: Id, slow_at: float) -> None:
        """Note that a contact has been asked, and from when on its answer counts as slow."""
        candidate = self._candidates[peer]
        candidate.stage = _Stage.ASKED
        self._outstanding[peer] = slow_at
        self._asked += 1

    def on_response(self, peer: Id, closer: Iterable[Contact] = ()) -> None:
        """Note an answer and the contacts in it. Changes nothing unless this peer was asked."""
        candidate = self._candidates.get(peer)
        if candidate is None or candidate.stage is not _Stage.ASKED:
            return
        candidate.stage = _Stage.ANSWERED
        self._outstanding.pop(peer, None)
        before = self._order[: self._width]
        self.offer(closer, peer)
        self._is_near = self._order[: self._width] == before

    def on_failure(self, peer: Id) -> None:
        """Note that a contact did not answer, or lied."""
        candidate = self._candidates.get(peer)
        if candidate is not None and candidate.stage in (_Stage.ASKED, _Stage.ANSWERED):
            candidate.stage = _Stage.FAILED
            self._blame[candidate.source] = self._blame.get(candidate.source, 0) + 1
            self._outstanding.pop(peer, None)

    def closest(self, count: int) -> list[Contact]:
        """Return up to `count` contacts that answered, closest first."""
        answered = (
            self._candidates[peer].contact
            for _, peer in self._order
            if self._candidates[peer].stage is _Stage.ANSWERED
        )
        return [contact for contact, _ in zip(answered, range(count), strict=False)]

    def hops(self) -> int:
        """Return how many nodes were asked in a row to come to the closest, itself included."""
        stages = (self._candidates[peer] for _, peer in self._order)
        return next((one.depth for one in stages if one.stage is _Stage.ANSWERED), 0)

    def counts(self) -> tuple[int, int]:
        """Return how many contacts answered, and how many failed."""
        stages = [candidate.stage for candidate in self._candidates.values()]
        return stages.count(_Stage.ANSWERED), stages.count(_Stage.FAILED)
