"""The work of storing an item: one Lookup, then stores at the r closest, and what each said.

No I/O; see work.py for how a work lives.
"""

from typing import Literal

from xorbit.core import effect as fx
from xorbit.core import followers, links
from xorbit.core.crowd import crowd, drive_item_lookup, spacing
from xorbit.core.effect import Finish, ReadStore, WriteStore
from xorbit.core.job import StoreRead, StoreWritten
from xorbit.core.lookup import Lookup
from xorbit.core.regions import around_us
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.core.work import may_hold, new_lookup
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id, distance
from xorbit.items import (
    BLOCK_KINDS,
    Contact,
    Item,
    ItemKey,
    Record,
    check_is,
    version,
)
from xorbit.wire.message import (
    Closest,
    FindClosest,
    Found,
    Get,
    Have,
    Missing,
    Receipt,
    Refused,
    Request,
    Store,
    one_line,
)


class PutWork(Work):
    """Store an item at the r nodes closest to its id, and collect what each of them says.

    First a lookup for who is closest, then the stores, all at once; where one refuses, fails or is
    slow, the next closest is asked, found by a second, wider lookup when the first found no more.
    Who stands in a crowd comes after all others (crowd.py).
    We count among the closest ourselves if others can dial us. With `cas` the lookup reads what
    they hold: where another writer's version is there already, nothing is stored. Then the closest
    node alone is asked: most races are decided there, and the loser's record goes no further. Where
    that node is lost, the others are read again before the next one decides.

    With `keep` a copy stays here, pinned for our owner; it is no receipt. A block is written while
    the others are asked, a record once somebody has taken it.

    With `look_first` the first node is sent a block only after it has said that it lacks it; then
    the others are sent it at once. If it has it, each of the others is asked first as well. That a
    node has it is a receipt like any other, and lets its copy live on.

    Where the table knows all who are close to the item, as in any small network, nobody need be
    asked for them.
    """

    __slots__ = (
        "_again",
        "_cas",
        "_contact_of",
        "_crowd",
        "_has_looked",
        "_held_before",
        "_is_stale",
        "_item",
        "_keep",
        "_keeping",
        "_kept",
        "_key",
        "_look_first",
        "_lookup",
        "_may_widen",
        "_newer",
        "_not_kept",
        "_others",
        "_reading",
        "_receipts",
        "_silent",
        "_slow_at",
        "_storing",
        "_taken_before",
        "_unable",
    )

    def __init__(
        self,
        guid: Guid,
        deadline: float,
        key: ItemKey,
        item: Item,
        cas: int | None,
        *,
        keep: bool = False,
        look_first: bool = False,
    ) -> None:
        """Put `item`, which stands under `key`."""
        super().__init__(guid, deadline)
        self._look_first = look_first and key.kind in BLOCK_KINDS
        self._has_looked = False
        """Whether somebody has the item by now, and so others may have it too."""
        self._held_before = False
        """Whether somebody has said that it need not be sent."""
        self._key = key
        self._item = item
        self._cas = cas
        self._lookup: Lookup | None = None
        self._crowd: dict[Id, None] = {}
        """Who is asked last: they stand closer to each other than chance would put them."""
        self._others: list[Contact] = []
        """Whom to ask next, closest first."""
        self._may_widen = True
        """Whether there may be more nodes than the first lookup found."""
        self._storing: dict[Guid, Id] = {}
        """Who has been asked to store, by the guid of the exchange or of the disk operation."""
        self._slow_at: dict[Guid, float] = {}
        self._receipts: dict[Id, Receipt] = {}
        self._newer: Record | None = None
        self._reading: Guid | None = None
        """The disk operation that reads, in a race, what we hold ourselves."""
        self._taken_before = False
        """Whether somebody had this very version already: it is being stored again."""
        self._is_stale = False
        """Whether somebody has refused it for a newer version."""
        self._silent: dict[Id, None] = {}
        """Who has not answered the lookup: others may reach it, another writer have its vote."""
        self._unable: dict[Id, None] = {}
        """Who keeps no version at all, and so has no part in a race."""
        self._again: dict[Id, None] = {}
        """Whom a race has asked a second time."""
        self._contact_of: dict[Id, Contact] = {}
        self._keep = keep
        self._keeping: Guid | None = None
        """The disk operation that writes our owner's copy."""
        self._kept = False
        self._not_kept = ""
        """Why that copy is not here."""

    def start(self, state: State) -> None:
        """Look for the closest nodes."""
        if self._key.kind in BLOCK_KINDS:
            self._keep_copy(state)
        if self._cas is not None:
            self._reading = state.disk_guid(self.guid)
            state.emit(ReadStore(self._reading, self._key))
        self._find_takers(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take closer contacts, or what a node said to the store."""
        if answer.guid in self._storing:
            self._note_answer(state, answer)
        elif self._lookup is not None:
            self._note_found(state, answer, self._lookup)
        self._go_on(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that node."""
        if failure.guid in self._storing:
            self._fail(state, failure)
        elif self._lookup is not None:
            self._lookup.on_failure(failure.peer)
        self._go_on(state)

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Take what our own disk said."""
        if isinstance(result, StoreRead):
            self._reading = None
            self._note_held(state.own, result.item)
            self._go_on(state)
            return
        assert isinstance(result, StoreWritten)
        if result.guid == self._keeping:
            self._keeping = None
            self._kept = result.code in ("stored", "stale")
            if not self._kept:
                self._not_kept = one_line(result.reason) or result.code
                _tell_unkept(state, result.reason)
            self._go_on(state)
            return
        if result.code == "stored":
            followers.tell(state, self._item)
            self._note(result.guid, "stored")
        else:
            self._note_refused(result.guid, result.code, result.reason, result.newer)
        self._go_on(state)

    def on_time(self, state: State) -> None:
        """Somebody is slow: go on without."""
        self._go_on(state)

    def on_deadline(self, state: State) -> None:
        """Say what there is to say."""
        for peer in self._storing.values():
            self._receipts[peer] = Receipt(peer, "timeout", "no answer before the deadline")
        if self._keeping is not None:
            self._not_kept = "the disk did not answer before the deadline"
        self._end(state)

    def _find_takers(self, state: State) -> None:
        """Look for the closest nodes, unless the table knows all who are as close."""
        limits = state.limits
        sure = state.joined and self._cas is None
        known = state.table.closest(self._key.id, limits.closest_count)
        sure = sure and around_us(state).holds(self._key.id, limits.replicas)
        if sure and not crowd(state, self._key.id, known, spacing(state)):
            self._may_widen = len(known) >= limits.replicas  # else there is nobody else
            self._others = self._takers(state, known)
            self._go_on(state)
        else:
            self._look_up(state, limits.replicas)

    def _look_up(self, state: State, width: int) -> None:
        self._lookup = self._new_lookup(state, width)
        self._go_on(state)

    def _new_lookup(self, state: State, width: int) -> Lookup:
        return new_lookup(state, self._key.id, width=width)

    def _go_on(self, state: State) -> None:
        if self._lookup is not None:
            if not drive_item_lookup(state, self, self._lookup, self._question) or self._reading:
                return
            self._take_over(state, self._lookup)
            self._lookup = None
        self._store(state)

    def _question(self, contact: Contact) -> Request:
        self._silent[contact.id] = None
        return FindClosest(self._key.id) if self._cas is None else Get(self._key)

    def _note_found(self, state: State, answer: Answer, lookup: Lookup) -> None:
        """Take closer contacts and, in a race, what a node holds."""
        self._silent.pop(answer.peer, None)
        match answer.response:
            case Closest(contacts):
                lookup.on_response(answer.peer, contacts)
            case Found(item, closer) if self._cas is not None:
                try:
                    check_is(item, self._key)
                except ItemError as error:
                    lookup.on_failure(answer.peer)
                    links.distrust(state, answer.peer, str(error))
                else:
                    self._note_held(answer.peer, item)
                    lookup.on_response(answer.peer, closer)
            case _:
                lookup.on_failure(answer.peer)

    def _note_held(self, holder: Id, item: Item | None) -> None:
        """Note another writer's version, which has come before ours, or that ours is there."""
        if not isinstance(item, Record):
            return
        if version(item) == version(self._item):
            self._taken_before = True
        elif item.seq > (self._cas or 0):
            self._note_newer(item)
            reason = f"stale: expected sequence {self._cas}, held {item.seq}"
            self._receipts[holder] = Receipt(holder, "refused", reason)

    def _take_over(self, state: State, lookup: Lookup) -> None:
        """Note whom a finished lookup has shown to be the closest, as far as it has looked."""
        replicas = state.limits.replicas
        answered = lookup.closest(state.limits.lookup_asked_max)
        self._crowd = crowd(state, self._key.id, answered, spacing(state))
        if len(answered) < replicas:
            self._may_widen = False  # there is nobody else
        self._others = self._takers(state, answered, replicas if self._may_widen else None)

    def _takers(
        self, state: State, closest: list[Contact], count: int | None = None
    ) -> list[Contact]:
        """Return who is to be asked of the closest, ourselves among them; of `count` at most."""
        found = may_hold(state, closest)
        if state.listening and (state.dialled_from or not found):  # behind a NAT it is of no use
            found.append(Contact(state.own))
        found.sort(key=lambda one: (one.id in self._crowd, distance(self._key.id, one.id)))
        tried = {*self._receipts, *self._storing.values(), *state.revoked}
        return [contact for contact in found[:count] if contact.id not in tried]

    def _store(self, state: State) -> None:
        """Keep as many stores under way as copies are missing; finish when none can come."""
        stored = self._stored()
        arbitrated = self._cas is not None and not stored
        if stored >= state.limits.replicas or (arbitrated and self._is_lost()):
            self._finish(state)
            return
        # Whoever decides a race is waited for: two who decide at once might decide differently.
        waited = [due for due in self._slow_at.values() if arbitrated or due > state.now]
        wanted = 1 if arbitrated else state.limits.replicas
        if self._look_first and not self._has_looked:
            wanted = stored + 1  # where the first lacks a block, the others do too
        if self._cas is not None and self._is_lost():
            wanted = 0  # there is another: what is not asked yet keeps out of it
        while self._others and stored + len(waited) < wanted:
            waited.append(self._ask(state, self._others.pop(0)))
        if self._may_widen and stored + len(waited) < wanted:
            self._may_widen = False
            self._look_up(state, state.limits.closest_count)
        elif self._storing:
            state.wake_at(self, min((due for due in waited if due > state.now), default=None))
        else:
            self._finish(state)

    def _ask(self, state: State, taker: Contact) -> float:
        if taker.id != state.own:
            return self._request(state, taker, look=self._look_first)
        guid = state.disk_guid(self.guid)
        state.emit(WriteStore(guid, self._key, self._item, self._cas))
        return self._asked(guid, taker, self.deadline)

    def _request(self, state: State, taker: Contact, *, look: bool) -> float:
        body = Have((self._key,), refresh=True) if look else Store(self._item, self._cas)
        guid = links.request(state, taker, body, self)
        return self._asked(guid, taker, state.now + state.limits.request_timeout_s_min)

    def _asked(self, guid: Guid, taker: Contact, slow_at: float) -> float:
        self._storing[guid] = taker.id
        self._contact_of[taker.id] = taker
        self._slow_at[guid] = slow_at
        return slow_at

    def _note_answer(self, state: State, answer: Answer) -> None:
        match answer.response:
            case Refused(code, reason, newer):
                self._note_refused(answer.guid, code, reason, newer)
            case Missing(keys) if keys:
                self._look_first = False
                del self._slow_at[answer.guid]
                taker = self._contact_of[self._storing.pop(answer.guid)]
                self._request(state, taker, look=False)
            case said:  # Stored, or nothing missing: links.py lets no other answer through
                self._has_looked = True
                self._held_before = self._held_before or isinstance(said, Missing)
                self._note(answer.guid, "stored")

    def _note_refused(self, store: Guid, code: str, reason: str, newer: Item | None) -> None:
        if code == "stale":
            self._is_stale = True
        else:
            self._unable[self._storing[store]] = None
        self._note_newer(newer)
        self._note(store, "refused", f"{code}: {reason}" if reason else code)

    def _is_lost(self) -> bool:
        """Return whether another writer came before us, or has the version that will stay."""
        newer = self._newer
        ours_is_greater = newer is not None and version(newer) < version(self._item)
        return newer is not None and not (self._taken_before and ours_is_greater)

    def _fail(self, state: State, failure: NoAnswer) -> None:
        """Do without a node; in a race it is asked once more: others might decide otherwise."""
        if self._cas is not None and failure.peer not in self._again:
            self._again[failure.peer] = None
            del self._slow_at[failure.guid]
            self._others.insert(0, self._contact_of[self._storing.pop(failure.guid)])
        else:
            self._note(failure.guid, "timeout", failure.reason)
            if self._cas is not None and not self._stored():
                self._lookup = self._new_lookup(state, state.limits.replicas)

    def _note_newer(self, newer: Item | None) -> None:
        """Keep the newest record that somebody holds instead of ours, if it proves itself."""
        if not isinstance(newer, Record) or (self._cas is not None and newer.seq <= self._cas):
            return  # what it holds is older than what the writer has seen
        try:
            check_is(newer, self._key)
        except ItemError:
            return  # its sender has refused us all the same
        if self._newer is None or version(newer) > version(self._newer):
            self._newer = newer

    def _note(
        self, store: Guid, outcome: Literal["stored", "refused", "timeout"], reason: str = ""
    ) -> None:
        del self._slow_at[store]
        peer = self._storing.pop(store)
        self._receipts[peer] = Receipt(peer, outcome, one_line(reason))

    def _keep_copy(self, state: State) -> None:
        if self._keep:
            self._keep = False
            self._keeping = state.disk_guid(self.guid)
            state.emit(WriteStore(self._keeping, self._key, self._item, pin=True))

    def _finish(self, state: State) -> None:
        """End, once our owner's copy is on disk where there is to be one."""
        if self._outcome(state).won:
            self._keep_copy(state)
        if self._keeping is None:
            self._end(state)
        else:
            state.wake_at(self, None)

    def _end(self, state: State) -> None:
        state.end_work(self)
        state.emit(Finish(self.guid, self._outcome(state)))
        if self._kept and not self._is_taken(state):
            self._send_again_soon(state)

    def _is_taken(self, state: State) -> bool:
        """Return whether any other node has it."""
        takers = (peer for peer, receipt in self._receipts.items() if receipt.outcome == "stored")
        return any(peer != state.own for peer in takers)

    def _send_again_soon(self, state: State) -> None:
        """Let our owner's copy count as not refreshed, and a sweep come by for it."""
        age_s = state.limits.refresh_after_s
        order = WriteStore(state.new_guid(), self._key, self._item, pin=True, age_s=age_s)
        state.emit(order)
        upkeep = state.upkeep
        if upkeep.due_at is None:
            upkeep.due_wait_s = state.limits.send_again_s_min
            upkeep.due_at = state.now + state.jittered(upkeep.due_wait_s)

    def _outcome(self, state: State) -> fx.PutDone:
        receipts = tuple(self._receipts.values())
        newer = self._newer
        if self._cas is None:
            won = bool(self._stored()) and newer is None
            held_before = self._held_before
            return fx.PutDone(receipts, newer, won, self._not_kept, held_before=held_before)
        votes = self._votes(state)
        # Readers end with the greatest version, however few hold it.
        above_ours = newer is not None and version(newer) > version(self._item)
        won = votes == "ours" and not above_ours
        return fx.PutDone(receipts, newer, won, self._not_kept, votes)

    def _stored(self) -> int:
        return sum(receipt.outcome == "stored" for receipt in self._receipts.values())

    def _votes(self, state: State) -> Literal["ours", "theirs", "split"]:
        """Return whose version all but one of the r closest took, or may have taken."""
        voters = [peer for peer in self._receipts if peer not in self._unable]
        voters += [peer for peer in self._silent if peer not in self._receipts]
        # What is being stored may be the very list that turns a node out, which then drops out.
        voters = [peer for peer in voters if peer not in state.revoked]
        voters.sort(key=lambda peer: distance(self._key.id, peer))
        closest = voters[: state.limits.replicas]
        said = [self._receipts[peer].outcome for peer in closest if peer in self._receipts]
        ours = said.count("stored")
        enough = max(len(closest) // 2 + 1, len(closest) - 1)
        if ours >= enough:
            return "ours"
        return "theirs" if len(closest) - ours >= enough else "split"


def _tell_unkept(state: State, why: str) -> None:
    """Tell the log that our disk took no copy: of all items of a moment at once."""
    state.unkept += 1
    if state.now < state.unkept_due:
        return
    items = "" if state.unkept == 1 else f" ({state.unkept:,} items since this was last said)"
    state.warn("no copy is kept here", why + items)
    state.unkept, state.unkept_due = 0, state.now + state.limits.unkept_warning_s
