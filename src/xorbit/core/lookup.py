"""The Lookup: an iterator over the network that knows nothing of sockets.

Iterative Kademlia lookup: ask the closest contacts known, learn closer ones from their answers, end
when the `width` closest have answered. Hedged: whoever is slower than its own usual round trip no
longer holds a place among those asked in parallel, and the end does not wait for it while others
can answer. Late and duplicate answers change nothing.

One liar among those asked can lead the whole lookup astray: it names its friends, all closer than
whoever was known. Where that may have happened, paths begin elsewhere (`begin_at`). What somebody
names counts only for the path that led to it, and the end waits until each path has come to the
closest that it knows of (disjoint paths: Baumgart and Mies, "S/Kademlia", ICPADS 2007).

`next(now)` says what to do; `on_response` and `on_failure` feed it. Modelled on the query iterator
of rust-libp2p (kad/src/query/peers/closest.rs).
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from msgspec import Struct

from xorbit.config import BLAME_MAX, PATHS_PER_START, PATHS_TURN
from xorbit.ids import Id, as_number, distance
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


_NEW, _ASKED, _ANSWERED = _Stage.NEW, _Stage.ASKED, _Stage.ANSWERED
"""By names of their own, as the order is walked for every answer."""


class _Candidate(Struct, eq=False):
    contact: Contact
    source: Id | None
    """Who named it last, while it was not asked yet; None for our own contacts."""
    depth: int
    """How many nodes were asked in a row until this one is: 1 for our own contacts."""
    stage: _Stage = _Stage.NEW
    paths: int = 0
    """Which paths lead to it, one bit for each."""
    asked_for: int = 0
    """The path for which it was asked, as a bit."""
    is_start: bool = False
    """Whether those whom it names begin paths of their own."""


FINISHED = Finished()


class Lookup:
    """One search for the contacts closest to a target."""

    __slots__ = (
        "_asked_max",
        "_at_end",
        "_blame",
        "_candidates",
        "_heard_of",
        "_is_near",
        "_order",
        "_outstanding",
        "_own",
        "_parallel",
        "_path_asks",
        "_target_number",
        "_too",
        "_turn",
        "asked_count",
        "is_looking_beside",
        "is_past_crowd",
        "is_wide",
        "target",
        "width",
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
        self.target = target
        self._target_number = as_number(target)
        self._own = own
        self.width = width
        self._parallel = parallel
        self._at_end = max(parallel, at_end)
        self._asked_max = asked_max
        self.asked_count = 0
        self._is_near = False
        """Whether the latest answer named nobody among the `width` closest that was new."""
        self._outstanding: dict[Id, float] = {}
        self._heard_of: dict[Id, None] = {}
        """Of those outstanding, of whom we had only heard."""
        self._blame: dict[Id | None, int] = {}
        self._candidates: dict[Id, _Candidate] = {}
        self._order: list[tuple[int, _Candidate]] = []
        """All candidates, the closest first: their distances, of which no two are the same."""
        self._path_asks: list[int] = []
        """How many have been asked for each path."""
        self._turn = 0
        """The path whose turn it is, as a bit; 0 where just the closest is asked."""
        self.is_wide = False
        """Whether paths have begun elsewhere than at the closest."""
        self._too: list[_Candidate] = []
        """Who is to be asked before the closest, wherever they are."""
        self.is_past_crowd = False
        """Whether somebody has seen to it that no crowd hides others (crowd.py)."""
        self.is_looking_beside = False
        """Whether those others are being looked for."""
        self.offer(seeds)

    def begin_at(self, starts: Iterable[Contact]) -> None:
        """Begin paths at contacts that need not be close; the closest that these name begin more.

        Once: afterwards the lookup `is_wide`.
        """
        self.is_wide = True
        starts = [contact for contact in starts if contact.id != self._own]
        self.offer(starts)
        for contact in starts:
            self._candidates[contact.id].is_start = True
            self._begin_path(contact.id)

    def _begin_path(self, peer: Id) -> None:
        self._candidates[peer].paths |= 1 << len(self._path_asks)
        self._path_asks.append(0)

    def ask_too(self, contacts: Iterable[Contact]) -> None:
        """Have these asked next, the first ones first, however far away they are."""
        others = [contact for contact in contacts if contact.id != self._own]
        self.offer(others)
        for contact in others:
            candidate = self._candidates[contact.id]
            candidate.source = None
            self._too.append(candidate)

    def offer(self, contacts: Iterable[Contact], source: Id | None = None) -> None:
        """Add contacts that might be close; ourselves and those already asked are passed over.

        Whoever names a contact anew adds its addresses: one liar cannot hide a node by naming it
        first, at a wrong place.
        """
        teller = None if source is None else self._candidates.get(source)
        depth, paths = (1, 0) if teller is None else (teller.depth + 1, teller.asked_for)
        candidates, order, target = self._candidates, self._order, self._target_number
        own = self._own
        for contact in contacts:
            peer = contact.id
            candidate = candidates.get(peer)
            if peer == own:
                continue
            if candidate is None:
                candidate = candidates[peer] = _Candidate(contact, source, depth, _NEW, paths)
                insort(order, (as_number(peer) ^ target, candidate))
                continue
            candidate.paths |= paths
            if candidate.stage is _NEW:
                known = candidate.contact.addresses
                if contact.addresses != known:
                    merged = tuple(dict.fromkeys((*known, *contact.addresses)))
                    candidate.contact = Contact(contact.id, merged[:ADDRESSES_MAX])
                candidate.source = None if candidate.source is None else source
            elif candidate.source == HEARSAY and source is not None:
                candidate.source = source
                self._heard_of.pop(peer, None)

    def next(self, now: float) -> Ask | Wait | Finished:
        """Return what to do next. After Ask, call `asked` before the next `next`.

        The `width` closest places belong to whoever answered or may yet answer in time; the failed
        and the slow hold none.
        """
        in_time = [slow_at for slow_at in self._outstanding.values() if slow_at > now]
        # Who is slow of whom we had only heard is probably gone.
        slow = sum(self._outstanding[peer] <= now for peer in self._heard_of)
        hearsay = self._blame.get(HEARSAY, 0) + slow
        wanted, is_open = self._closest_wanted(now, hearsay)
        self._turn = 0
        if self.is_wide and (wanted is None or self.asked_count % PATHS_TURN == 0):
            on_path, is_path_open = self._wanted_on_paths(now, hearsay)
            wanted, is_open = on_path or wanted, is_open or is_path_open
        if self._too:
            too, is_too_open = self._wanted_too(now)
            wanted, is_open = too or wanted, is_open or is_too_open
        if wanted is None:
            over = not (is_open and self._outstanding)
            return FINISHED if over else Wait(min(in_time, default=None))
        if len(in_time) < (self._at_end if self._is_near else self._parallel):
            return Ask(wanted.contact)
        return Wait(min(in_time))

    def _closest_wanted(self, now: float, hearsay: int) -> tuple[_Candidate | None, bool]:
        """Return whom to ask of the `width` closest, and whether one of them may yet answer."""
        places = open_places = 0
        for _, candidate in self._order:
            stage = candidate.stage
            if stage is _ANSWERED:
                places += 1
            elif stage is _ASKED and self._outstanding[candidate.contact.id] > now:
                places += 1
                open_places += 1
            elif stage is _NEW and self._may_be_asked(candidate, hearsay):
                return candidate, True
            if places >= self.width:
                return None, bool(open_places)
        return None, True  # the slow may name more

    def _wanted_on_paths(self, now: float, hearsay: int) -> tuple[_Candidate | None, bool]:
        """Return whom to ask for the path that has come least far, and whether one may yet come on.

        A path is at its end where the closest of all whom it leads to has answered.
        """
        going = (1 << len(self._path_asks)) - 1
        is_open, best, fewest = False, None, 0
        for _, candidate in self._order:
            here = candidate.paths & going
            if not here:
                continue
            stage = candidate.stage
            if stage is _ANSWERED:
                going &= ~here
            elif stage is _ASKED and self._outstanding[candidate.contact.id] > now:
                going &= ~here
                is_open = True
            elif stage is _NEW and self._may_be_asked(candidate, hearsay):
                going &= ~here
                while here:
                    path = here & -here
                    here ^= path
                    asks = self._path_asks[path.bit_length() - 1]
                    if best is None or asks < fewest:
                        best, fewest, self._turn = candidate, asks, path
            if not going:
                break
        return best, is_open

    def _wanted_too(self, now: float) -> tuple[_Candidate | None, bool]:
        """Return whom to ask of those wherever they are, and whether one of them may yet answer."""
        is_open = False
        for candidate in self._too:
            if candidate.stage is _NEW and self._may_be_asked(candidate, 0):
                return candidate, True
            slow_at = self._outstanding.get(candidate.contact.id, now)
            is_open = is_open or slow_at > now
        return None, is_open

    def _may_be_asked(self, candidate: _Candidate, hearsay: int) -> bool:
        """Return whether to believe who named it; `hearsay`: how much of that has been wrong."""
        source = candidate.source
        wrong = hearsay if source == HEARSAY else self._blame.get(source, 0)
        return (source is None or wrong < BLAME_MAX) and self.asked_count < self._asked_max

    def asked(self, peer: Id, slow_at: float) -> None:
        """Note that a contact has been asked, and from when on its answer counts as slow."""
        candidate = self._candidates[peer]
        candidate.stage = _ASKED
        path = self._turn if self._turn & candidate.paths else candidate.paths & -candidate.paths
        if path:
            candidate.asked_for = path
            self._path_asks[path.bit_length() - 1] += 1
        self._outstanding[peer] = slow_at
        if candidate.source == HEARSAY:
            self._heard_of[peer] = None
        self.asked_count += 1

    def on_response(self, peer: Id, closer: Iterable[Contact] = ()) -> None:
        """Note an answer and the contacts in it. Changes nothing unless this peer was asked."""
        candidate = self._candidates.get(peer)
        if candidate is None or candidate.stage is not _ASKED:
            return
        candidate.stage = _ANSWERED
        self._no_longer_waits_for(peer)
        before = self._order[: self.width]
        closer = tuple(closer)
        self.offer(closer, peer)
        if candidate.is_start:
            named = [contact.id for contact in closer if contact.id in self._candidates]
            named.sort(key=lambda peer: distance(self.target, peer))
            for other in named[:PATHS_PER_START]:
                self._begin_path(other)
        self._is_near = self._order[: self.width] == before

    def on_failure(self, peer: Id) -> None:
        """Note that a contact did not answer, or lied."""
        candidate = self._candidates.get(peer)
        if candidate is not None and candidate.stage in (_ASKED, _ANSWERED):
            candidate.stage = _Stage.FAILED
            self._blame[candidate.source] = self._blame.get(candidate.source, 0) + 1
            self._no_longer_waits_for(peer)

    def _no_longer_waits_for(self, peer: Id) -> None:
        self._outstanding.pop(peer, None)
        self._heard_of.pop(peer, None)

    def closest(self, count: int) -> list[Contact]:
        """Return up to `count` contacts that answered, closest first."""
        answered = (one.contact for _, one in self._order if one.stage is _ANSWERED)
        return [contact for contact, _ in zip(answered, range(count), strict=False)]

    def hops(self) -> int:
        """Return how many nodes were asked in a row to come to the closest, itself included."""
        return next((one.depth for _, one in self._order if one.stage is _ANSWERED), 0)

    def reach(self, count: int) -> int | None:
        """Return how far the `count` closest that answered are; None where there are fewer."""
        found = self.closest(count)
        return distance(self.target, found[-1].id) if len(found) == count else None

    def counts(self) -> tuple[int, int]:
        """Return how many contacts answered, and how many failed."""
        stages = [candidate.stage for candidate in self._candidates.values()]
        return stages.count(_ANSWERED), stages.count(_Stage.FAILED)
