"""The sweep: a walk through our items in keyspace order that sees to it that r nodes hold each.

Batch by batch: what has expired is dropped; for the others each of the r closest nodes is asked by
one `Have` which of them it lacks, and is sent only these. To avoid that every holder sends the same
item, the nearest holder acts first; the others look again a little later ("insist"). A copy that
all r closest have, and that is far enough from us, is dropped. Our owner's items are refreshed on
the way when that is due, and fetched again where they rotted. Who is closest the routing table
tells; where it may not know everybody, a sweep for all items asks the network, once for a region.
No I/O, no clock.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xorbit.config import SWEEP_STALLS_MAX
from xorbit.core import followers, links
from xorbit.core.crowd import crowd, spacing
from xorbit.core.effect import CheckStore, DropItems, ReadStore, ScanStore, WriteStore
from xorbit.core.find import RegionWork
from xorbit.core.get import repair
from xorbit.core.job import StoreDropped, StoreRead, StoreScanned
from xorbit.core.regions import apart, around, around_us, near
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.core.work import note_bad_read
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id, distance
from xorbit.items import BLOCK_KINDS, Contact, Held, Item, ItemKey, Kind, Record, check_is
from xorbit.wire.message import AGE_S_MAX, Have, Missing, Refused, Store, Stored

FIRST_ID, LAST_ID = Id(bytes(32)), Id(b"\xff" * 32)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep is for."""

    concerned: dict[Id, None] | None
    """The nodes that came or went: only items that are near them matter. None: all items."""
    insist: bool
    """Send what is missing though a nearer holder should have done so."""
    due_only: bool = False
    """Nothing but our owner's items that are to be refreshed."""


@dataclass(slots=True)
class _Care:
    """An item in a batch, with what is found out about it."""

    held: Held
    others: list[Contact]
    """Of the r closest, all but ourselves."""
    rank: int
    """How many of the r closest are nearer than we are."""
    is_far: bool
    """So far that we need not hold it."""
    is_due: bool
    """Our owner's, to be refreshed now."""
    at: dict[Id, None] = field(default_factory=dict[Id, None])
    """Who said that they hold it."""
    lacking: list[Contact] = field(default_factory=list[Contact])


class SweepWork(Work):
    """One sweep. Nobody waits for it; `ended` is told of its end."""

    __slots__ = (
        "_apart",
        "_around_us",
        "_asked",
        "_cares",
        "_closing",
        "_decided",
        "_ended",
        "_expired",
        "_last",
        "_parts",
        "_reading",
        "_region",
        "_scanned_at",
        "_sending",
        "_stalls",
        "_start",
        "_to_send",
        "_told_of",
        "_unconsidered",
        "_window",
        "cut",
        "due_left",
        "far_left",
        "left_to_nearer",
        "sweep",
    )

    def __init__(
        self,
        state: State,
        sweep: Sweep,
        ended: "Callable[[State, SweepWork], None]",
    ) -> None:
        """Prepare a sweep.

        Args:
            state: of the node.
            sweep: what it is for.
            ended: told at the end.
        """
        super().__init__(state.new_guid(), state.now + state.limits.work_timeout_s)
        self.sweep = sweep
        self.left_to_nearer: int | None = None
        """Our lowest rank among what was left to nearer holders."""
        self.far_left = False
        """Whether a copy that is not ours to keep had to stay."""
        self.due_left = False
        """Whether something that is to be refreshed was taken by nobody."""
        self.cut = False
        """Whether some of it took too long, and was left."""
        self._ended = ended
        self._parts = deque(_parts(state, sweep))
        """The parts of the keyspace that are left, the one that we are in first."""
        self._start = self._parts[0][0]
        self._stalls: dict[Id, int] = {}
        """How many items in a row each peer has not answered; after some it is left out."""
        self._window: float = state.limits.sweep_stores_max
        """How many items may be on their way: fewer where answers come late, as TCP does."""
        self._last = False
        self._scanned_at = 0.0
        self._apart = spacing(state)
        """How far nodes are apart."""
        self._around_us = self._region = around_us(state)
        """Where we know everybody: around us, and where we have asked last."""
        self._clear()

    def _clear(self) -> None:
        self._unconsidered: deque[Held] = deque()
        self._cares: dict[ItemKey, _Care] = {}
        self._decided = False
        self._expired: list[ItemKey] = []
        self._told_of: list[ItemKey] = []
        """Far copies of what their owners put by themselves: nobody need be shown them."""
        self._asked: dict[Guid, tuple[Contact, tuple[ItemKey, ...]]] = {}
        self._to_send: deque[_Care] = deque()
        self._reading: dict[Guid, _Care] = {}
        self._sending: dict[Guid, _Care] = {}
        self._closing: dict[Guid, tuple[ItemKey, ...]] = {}
        """What our disk is writing, and which surplus copies it is to drop."""

    # --- Events -----------------------------------------------------------------------------------

    def start(self, state: State) -> None:
        """Read the first batch."""
        self._scan(state)

    def on_time(self, state: State) -> None:
        """The pause is over: read the next batch."""
        self._scan(state)

    def on_deadline(self, state: State) -> None:
        """Nothing has come for long: close the batch with what there is, go on with the next."""
        self.cut = True
        if self._closing or self._reading or self._unconsidered or not self._cares:
            self._end(state)  # it is our own disk that says nothing
            return
        self._asked.clear()
        self._to_send.clear()
        self._sending.clear()
        self._take_time(state)
        self._close(state)

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Take a batch of items, an item to hand over, or the end of what a batch changed."""
        if state.stopping:
            self._end(state)
        elif isinstance(result, StoreScanned):
            self._take_batch(state, result.entries)
        elif isinstance(result, StoreRead):
            self._hand_over(state, self._reading.pop(result.guid), result)
            self._go_on(state)
        elif (dropping := self._closing.pop(result.guid, None)) is not None:
            if isinstance(result, StoreDropped) and len(result.keys) < len(dropping):
                self.far_left = True
            if not self._closing:
                self._next_batch(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take what a peer lacks, or said to an item."""
        if state.stopping:
            self._end(state)
            return
        if answer.guid in self._asked:
            self._note_have(answer)
        elif answer.guid in self._sending:
            self._note_store(state, answer)
        else:
            return  # to a batch that is closed
        self._take_time(state)
        self._go_on(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that peer: who is failing is noticed, and then another takes its place."""
        peer = failure.peer
        if self._sending.pop(failure.guid, None) is not None:
            self._stalls[peer] = self._stalls.get(peer, 0) + 1
            self._window = max(self._window / 2, 1.0)
        elif self._asked.pop(failure.guid, None) is None:
            return
        self._go_on(state)

    def _take_time(self, state: State) -> None:
        """Something came: the rest of the batch may take as long again."""
        self.deadline = state.now + state.limits.work_timeout_s
        state.wake_at(self, None)

    # --- A batch ----------------------------------------------------------------------------------

    def _scan(self, state: State) -> None:
        limits = state.limits
        self._clear()
        self._scanned_at = state.now
        self._take_time(state)
        count = limits.sweep_items_max + 1  # one more: items of one id are kept together
        state.emit(ScanStore(state.disk_guid(self.guid), self._start, count))

    def _take_batch(self, state: State, entries: tuple[Held, ...]) -> None:
        here = [self._parts[0]]
        if len(entries) <= state.limits.sweep_items_max:
            here = [*self._parts]  # these are all there are, in whatever part they lie
            self._parts.clear()
        else:
            after = entries[-1].key.id
            whole = tuple(held for held in entries if held.key.id != after)
            # A batch too small for the items of one id goes on behind them.
            entries, self._start = (whole, after) if whole else (entries, _next_id(after))
            if self._start > here[0][1]:
                self._parts.popleft()
                self._start = self._parts[0][0] if self._parts else self._start
        self._last = not self._parts
        self._unconsidered.extend(held for held in entries if _is_within(held.key.id, here))
        self._around_us, self._apart = around_us(state), spacing(state)
        self._consider_all(state)

    def _consider_all(self, state: State) -> None:
        """Go through the batch; wait for a lookup where we do not know who is closest."""
        while self._unconsidered:
            held = self._unconsidered[0]
            if self._is_to_be_considered(state, held):
                if not self._is_known(state, held.key.id):
                    state.start_work(RegionWork(state, held.key.id, self._take_region))
                    return
                self._consider(state, held)
            self._unconsidered.popleft()
        self._ask(state)
        self._go_on(state)

    def _is_to_be_considered(self, state: State, held: Held) -> bool:
        """Drop what has expired, have what is lost fetched; return whether to look after it."""
        if held.lost:
            repair(state, held.key)
            return False
        if self.sweep.due_only:
            return self._is_due(state, held)
        if held.pinned_age_s is None and held.age_s > state.limits.item_lifetime_s:
            self._expired.append(held.key)
            return False
        return True

    def _is_known(self, state: State, point: Id) -> bool:
        """Return whether `_region` tells who is closest; of a neighbour's going our own does."""
        count = state.limits.replicas
        if self.sweep.concerned is not None or self._around_us.holds(point, count):
            self._region = self._around_us
            return True
        return self._region.holds(point, count)

    def _take_region(self, state: State, found: tuple[Contact, ...]) -> None:
        """Go on with the batch, now that somebody has said who is there."""
        if self.guid not in state.works:
            return
        if state.stopping:
            self._end(state)
            return
        self._region = around(self._unconsidered[0].key.id, found)
        self._take_time(state)
        self._consider_all(state)

    def _consider(self, state: State, held: Held) -> None:
        limits, key = state.limits, held.key
        known = self._keepers(state, key.id)
        ours = distance(key.id, state.own) if state.listening else None
        nearer = sum(ours is None or distance(key.id, peer.id) < ours for peer in known)
        is_holder = ours is not None and nearer < limits.replicas
        others = known[: limits.replicas - is_holder]
        if self._is_concerned(key.id, known, full=len(others) + is_holder >= limits.replicas):
            rank = min(nearer, limits.replicas)
            is_far = nearer >= limits.replicas + limits.surplus_holders_max or ours is None
            if self.sweep.concerned is not None and _is_told_of(state, key):
                if is_far and held.pinned_age_s is None:
                    self._told_of.append(key)
                return
            self._cares[key] = _Care(held, others, rank, is_far, self._is_due(state, held))

    def _keepers(self, state: State, point: Id) -> list[Contact]:
        """Return who is to keep what stands at a point: not a crowd, that may keep nothing."""
        count = state.limits.replicas + state.limits.surplus_holders_max
        known = self._region.closest(point, count)
        if not crowd(state, point, known, self._apart):
            return known
        near = self._region.closest(point, state.limits.closest_count)
        hidden = crowd(state, point, near, self._apart)
        return [peer for peer in near if peer.id not in hidden][:count]

    def _is_concerned(self, point: Id, known: list[Contact], *, full: bool) -> bool:
        """Return whether one of those who came or went is among those who keep a copy, or was.

        Not among the r closest alone: who comes right behind them may make our copy one too many.
        """
        concerned = self.sweep.concerned
        if concerned is None or not full or not known:
            return True
        farthest = distance(point, known[-1].id)
        return any(distance(point, peer) <= farthest for peer in concerned)

    def _is_due(self, state: State, held: Held) -> bool:
        """Return whether to refresh; by chance somewhat early, so that not all are due at once."""
        if held.pinned_age_s is None or self.sweep.concerned is not None:
            return False
        early = state.limits.interval_jitter * state.rng.random()
        return held.pinned_age_s >= state.limits.refresh_after_s * (1 - early)

    def _ask(self, state: State) -> None:
        """Ask each peer, in one question, for all that it should hold."""
        questions: dict[tuple[Id, bool], tuple[Contact, list[ItemKey]]] = {}
        for key, care in self._cares.items():
            for peer in filter(self._is_in, care.others):
                _, keys = questions.setdefault((peer.id, care.is_due), (peer, []))
                keys.append(key)
        for (_, refresh), (peer, keys) in questions.items():
            asked = tuple(keys)
            guid = links.request(state, peer, Have(asked, refresh), self)
            self._asked[guid] = peer, asked

    def _is_in(self, peer: Contact) -> bool:
        """Return whether a peer takes what it says that it lacks."""
        return self._stalls.get(peer.id, 0) < SWEEP_STALLS_MAX

    def _note_have(self, answer: Answer) -> None:
        peer, keys = self._asked.pop(answer.guid)
        if not isinstance(answer.response, Missing):
            return
        missing = dict.fromkeys(answer.response.keys)
        for key in keys:
            care = self._cares[key]
            if key not in missing:
                care.at[peer.id] = None
            if key in missing or self._may_be_old(care, peer.id):
                care.lacking.append(peer)

    def _may_be_old(self, care: _Care, peer: Id) -> bool:
        """Return whether a peer that holds an item may hold an older version of it."""
        if care.held.key.kind in BLOCK_KINDS:
            return False
        came = {} if self.sweep.insist else self.sweep.concerned or {}
        return care.is_due or peer in came

    def _go_on(self, state: State) -> None:
        """Keep as many items on their way as may be; close the batch when all have arrived."""
        if self._asked:
            return
        if not self._decided:
            self._decided = True
            self._decide(state)
        under_way = len(self._reading) + len(self._sending)
        while self._to_send and under_way < self._window:
            care = self._to_send.popleft()
            guid = state.disk_guid(self.guid)
            self._reading[guid] = care
            state.emit(ReadStore(guid, care.held.key))
            under_way += len(care.lacking)
        if not (self._to_send or self._reading or self._sending or self._closing):
            self._close(state)

    def _decide(self, state: State) -> None:
        for care in self._cares.values():
            self._compare(state, care)
            if not care.lacking:
                continue
            if self.sweep.insist or care.is_due or not self._is_a_nearer_ones(care):
                self._to_send.append(care)
            else:
                left = self.left_to_nearer
                self.left_to_nearer = care.rank if left is None else min(left, care.rank)

    def _compare(self, state: State, care: _Care) -> None:
        """Show a signed item to one of those who have it as well: theirs may be another version.

        The nearest holder does so, each time to one by chance, so that all end with the same one
        though nobody reads it and its owner is gone.
        """
        if care.held.key.kind in BLOCK_KINDS:
            return
        same = [peer for peer in care.others if peer.id in care.at and peer not in care.lacking]
        if care.is_far and care.held.pinned_age_s is None:
            # About to be dropped: each of them must have seen it, or the newest might be lost.
            care.lacking += same
            for peer in same:
                del care.at[peer.id]
        elif self.sweep.concerned is None and not care.rank and same:
            care.lacking.append(state.rng.choice(same))

    def _is_a_nearer_ones(self, care: _Care) -> bool:
        """Return whether somebody nearer to the item holds it, and is to act first."""
        nearer = care.others[: care.rank]
        return any(peer.id in care.at and peer not in care.lacking for peer in nearer)

    # --- Handing over -----------------------------------------------------------------------------

    def _hand_over(self, state: State, care: _Care, result: StoreRead) -> None:
        held = care.held
        if result.item is None:
            if result.fault:
                note_bad_read(state, held.key, result.fault)
            if result.fault == "damaged":
                repair(state, held.key)
            return
        age_s = 0.0 if care.is_due else min(held.age_s, held.pinned_age_s or held.age_s)
        for peer in filter(self._is_in, care.lacking):
            guid = links.request(state, peer, Store(result.item, age_s=min(age_s, AGE_S_MAX)), self)
            self._sending[guid] = care

    def _note_store(self, state: State, answer: Answer) -> None:
        care = self._sending.pop(answer.guid)
        self._stalls.pop(answer.peer, None)
        self._window = min(self._window + 1 / self._window, state.limits.sweep_stores_max)
        match answer.response:
            case Stored():
                care.at[answer.peer] = None
            case Refused("stale", _, Record() as newer):
                care.at[answer.peer] = None
                _take_newer(state, care.held.key, newer)
            case _:
                pass

    # --- The end of a batch -----------------------------------------------------------------------

    def _close(self, state: State) -> None:
        """Write down what was refreshed, drop what is no longer ours to keep."""
        due = [(key, care) for key, care in self._cares.items() if care.is_due]
        refreshed = tuple(key for key, care in due if care.at)
        self.due_left |= len(refreshed) < len(due)
        surplus = [key for key, care in self._cares.items() if _is_surplus(state, care)]
        if refreshed:
            self._closing[guid := state.disk_guid(self.guid)] = ()
            state.emit(CheckStore(guid, refreshed, touch=True, pins=True))
        # What was stored or refreshed since the scan stays; the store counts in whole seconds.
        since_s = state.now - self._scanned_at + 1.0
        self._drop(state, self._expired, state.limits.item_lifetime_s)
        self._drop(state, surplus, since_s, surplus)
        self._drop(state, self._told_of, since_s, self._told_of)
        far = [care for care in self._cares.values() if _is_far_copy(care)]
        self.far_left |= len(surplus) < len(far)
        if not self._closing:
            self._next_batch(state)

    def _drop(
        self, state: State, keys: list[ItemKey], aged_s: float, surplus: Sequence[ItemKey] = ()
    ) -> None:
        if keys:
            self._closing[guid := state.disk_guid(self.guid)] = tuple(surplus)
            state.emit(DropItems(guid, tuple(keys), aged_s))

    def _next_batch(self, state: State) -> None:
        if self._last:
            self._end(state)
        else:
            state.wake_at(self, state.now + state.limits.sweep_pause_s)

    def _end(self, state: State) -> None:
        state.end_work(self)
        self._ended(state, self)


def _is_told_of(state: State, key: ItemKey) -> bool:
    """Return whether an item says where a node is that is there: it tells newcomers by itself."""
    owner = state.table.get(key.id) if key.kind is Kind.CONNECTION else None
    return owner is not None and not owner.failures


def _parts(state: State, sweep: Sweep) -> list[tuple[Id, Id]]:
    if sweep.concerned is None:
        return [(FIRST_ID, LAST_ID)]
    return apart(near(state, peer) for peer in sweep.concerned)


def _is_within(point: Id, parts: list[tuple[Id, Id]]) -> bool:
    return any(first <= point <= last for first, last in parts)


def _is_far_copy(care: _Care) -> bool:
    return care.is_far and care.held.pinned_age_s is None


def _is_surplus(state: State, care: _Care) -> bool:
    others = care.others
    enough = len(others) >= state.limits.replicas
    return _is_far_copy(care) and enough and all(peer.id in care.at for peer in others)


def _take_newer(state: State, key: ItemKey, newer: Item) -> None:
    """Keep the version that a holder had instead of ours, if it proves itself."""
    try:
        check_is(newer, key)
    except ItemError:
        return
    state.emit(WriteStore(state.new_guid(), key, newer))
    followers.tell(state, newer)


def _next_id(after: Id) -> Id:
    return Id((int.from_bytes(after, "big") + 1).to_bytes(len(after), "big"))
