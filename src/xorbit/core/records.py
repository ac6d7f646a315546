"""Reading signed items: the newest version that any of the closest nodes holds.

A signed item (a record, a connection item) may differ from holder to holder for a while. So a
reader asks all of the r closest, takes the newest version that proves itself, and hands it to those
that had an older one or none. No I/O.
"""

from xorbit.core import effect as fx
from xorbit.core import followers, links
from xorbit.core.crowd import crowd_last, drive_item_lookup
from xorbit.core.effect import Finish, ReadStore, WriteStore
from xorbit.core.job import StoreRead
from xorbit.core.lookup import Lookup
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.core.work import may_hold, new_lookup, note_bad_read, seeds
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id
from xorbit.items import Contact, Item, ItemKey, check_is, version
from xorbit.wire.message import Closest, Found, Get, Store


class Reading:
    """What the holders of one key have, gathered from our disk and from the closest nodes."""

    __slots__ = ("_held", "_key", "_rotten", "lookup", "newest", "source")

    def __init__(self, state: State, key: ItemKey) -> None:
        """Begin to read `key`."""
        limits = state.limits
        self._key = key
        self._held: dict[Id, Item | None] = {}
        self._rotten = False
        # Peers that nobody can dial are asked in a small network, and may stand before all holders.
        others = sum(not contact.addresses for contact in seeds(state, key.id))
        self.lookup: Lookup = new_lookup(state, key.id, width=limits.replicas + others)
        self.newest: Item | None = None
        self.source: Id = state.own

    def take(self, holder: Id, item: Item | None) -> None:
        """Note what a node (or our own disk) holds."""
        self._held[holder] = item
        if item is not None and (self.newest is None or version(item) > version(self.newest)):
            self.newest, self.source = item, holder

    def on_disk(self, state: State, result: StoreRead) -> None:
        """Note what our own disk holds; damaged bytes are dropped."""
        if result.fault:
            note_bad_read(state, self._key, result.fault)
        self._rotten = result.fault == "damaged"
        self.take(state.own, result.item)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take a holder's version if it proves itself, and closer contacts."""
        match answer.response:
            case Found(item, closer):
                try:
                    check_is(item, self._key)
                except ItemError as error:
                    self.lookup.on_failure(answer.peer)
                    links.distrust(state, answer.peer, str(error))
                    return
                self.take(answer.peer, item)
                self.lookup.on_response(answer.peer, closer)
            case Closest(contacts):
                self.take(answer.peer, None)
                self.lookup.on_response(answer.peer, contacts)
            case _:
                self.lookup.on_response(answer.peer)

    def drive(self, state: State, work: Work) -> bool:
        """Ask whom there is to ask; return whether all that matter have answered, our disk too."""
        done = drive_item_lookup(state, work, self.lookup, lambda _: Get(self._key))
        return done and state.own in self._held

    def mend(self, state: State, origin: Guid) -> None:
        """Give the newest version to those of the r closest, and of ourselves, that lack it."""
        newest = self.newest
        if newest is None:
            return
        answered = self.lookup.closest(state.limits.closest_count)
        trusted = crowd_last(state, self._key.id, answered)
        holders = may_hold(state, trusted)[: state.limits.replicas]
        behind = [contact for contact in holders if self._is_behind(contact.id, newest)]
        if behind:
            state.start_work(MendWork(state, origin, newest, behind))
        held = self._held.get(state.own)
        if self._rotten or (held is not None and version(held) < version(newest)):
            state.emit(WriteStore(state.new_guid(), self._key, newest))
            followers.tell(state, newest)

    def _is_behind(self, peer: Id, newest: Item) -> bool:
        if peer not in self._held:
            return False  # it answered, but did not say what it holds
        held = self._held[peer]
        return held is None or version(held) < version(newest)


class MendWork(Work):
    """Hand the newest version to nodes that had an older one. Nobody waits for it."""

    __slots__ = ("_behind", "_item", "_left")

    def __init__(self, state: State, origin: Guid, item: Item, behind: list[Contact]) -> None:
        """Hand `item` to the nodes `behind`, as part of the work `origin`."""
        deadline = state.now + state.limits.request_timeout_s_max
        super().__init__(state.new_guid(), deadline, origin)
        self._item = item
        self._behind = behind
        self._left = len(behind)

    def start(self, state: State) -> None:
        """Send it to all of them."""
        for contact in self._behind:
            links.request(state, contact, Store(self._item), self)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Whatever they say, the next reader sees to the rest."""
        self._one_less(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """The same."""
        self._one_less(state)

    def on_deadline(self, state: State) -> None:
        """The same."""
        state.end_work(self)

    def _one_less(self, state: State) -> None:
        self._left -= 1
        if not self._left:
            state.end_work(self)


class ResolveWork(Work):
    """Find the newest version of a signed item."""

    __slots__ = ("_key", "_reading")

    def __init__(self, state: State, guid: Guid, deadline: float, key: ItemKey) -> None:
        """Look for `key`."""
        super().__init__(guid, deadline)
        self._key = key
        self._reading = Reading(state, key)

    def start(self, state: State) -> None:
        """Read our own disk first: it counts as one holder."""
        state.emit(ReadStore(state.disk_guid(self.guid), self._key))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Note our own version, then ask the others."""
        assert isinstance(result, StoreRead)
        self._reading.on_disk(state, result)
        self._go_on(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take a holder's version."""
        self._reading.on_answer(state, answer)
        self._go_on(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that holder."""
        self._reading.lookup.on_failure(failure.peer)
        self._go_on(state)

    def on_time(self, state: State) -> None:
        """Somebody is slow: ask one more."""
        self._go_on(state)

    def on_deadline(self, state: State) -> None:
        """Be content with what there is."""
        self._finish(state)

    def _go_on(self, state: State) -> None:
        if self._reading.drive(state, self):
            self._finish(state)

    def _finish(self, state: State) -> None:
        state.end_work(self)
        newest = self._reading.newest
        if newest is None:
            state.emit(Finish(self.guid, fx.NotFound(*self._reading.lookup.counts())))
        else:
            state.emit(Finish(self.guid, fx.Got(newest, self._reading.source)))
            self._reading.mend(state, self.guid)
