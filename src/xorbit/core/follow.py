"""Following a record: a caller of ours is kept up to date until it cancels.

Who follows asks two of the holders to push newer versions, for a lease each, and reads all of the r
closest once in a while, at once when one that pushed is gone. So a change is seen quickly where
somebody pushes, and is seen at all where nobody does. Whatever holders answer, a round ends by its
deadline, and rounds are some time apart. No I/O.
"""

from xorbit.core import links
from xorbit.core.effect import Pushed, ReadStore
from xorbit.core.job import StoreRead
from xorbit.core.records import Reading
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id
from xorbit.items import Contact, ItemKey, Record, check_is, version
from xorbit.wire.message import Follow, Following, Updated


class FollowWork(Work):
    """Keep a local caller up to date with a record, in rounds of two phases, until cancelled.

    First all of the r closest are read, then holders are asked to push, one after the other, until
    enough do. Each newer version, however it came, goes to the caller as a Pushed. The deadline is
    that of the phase, or when the next round begins.
    """

    __slots__ = ("_asking", "_began", "_candidates", "_key", "_reading", "_renew_at", "_told")

    def __init__(self, state: State, guid: Guid, key: ItemKey) -> None:
        """Follow `key`."""
        super().__init__(guid, state.now + state.limits.work_timeout_s)
        self._key = key
        self._began = state.now
        """When the round began."""
        self._reading: Reading | None = None
        self._candidates: list[Contact] = []
        """Holders that may yet be asked to push in this round."""
        self._asking: Guid | None = None
        """The request to push that is under way."""
        self._renew_at: dict[Id, float] = {}
        """Who pushes to us, and when its lease is to be renewed."""
        self._told: Record | None = None

    def start(self, state: State) -> None:
        """Begin a round with our own disk."""
        self._began = state.now
        self._have_until(state, state.now + state.limits.work_timeout_s)
        self._reading = Reading(state, self._key)
        state.emit(ReadStore(state.disk_guid(self.guid), self._key))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Note our own version, then ask the others."""
        assert isinstance(result, StoreRead)
        if self._reading is not None:
            self._reading.on_disk(state, result)
            self._read_on(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take a push, a lease, or what a holder has."""
        if isinstance(answer.response, Updated):
            self._take(state, answer.peer, answer.response.record)
        elif answer.guid == self._asking:
            if isinstance(answer.response, Following):
                self._take_lease(state, answer.peer, answer.response)
            self._ask_another(state)
        elif self._reading is not None:
            self._reading.on_answer(state, answer)
            self._read_on(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that holder; begin anew when it was one that pushed."""
        pushed = self._renew_at.pop(failure.peer, None) is not None
        if failure.guid == self._asking:
            self._ask_another(state)
        elif self._reading is not None:
            self._reading.lookup.on_failure(failure.peer)
            self._read_on(state)
        elif pushed and self._asking is None:
            self._sleep(state, state.now)

    def on_time(self, state: State) -> None:
        """Somebody is slow: ask one more."""
        self._read_on(state)

    def on_deadline(self, state: State) -> None:
        """Go on with what was heard by now, or begin the next round."""
        if self._reading is not None:
            self._conclude(state, self._reading)
        elif self._asking is not None:
            self._ask_another(state)
        else:
            self.start(state)

    def _read_on(self, state: State) -> None:
        reading = self._reading
        if reading is not None and reading.drive(state, self):
            self._conclude(state, reading)

    def _conclude(self, state: State, reading: Reading) -> None:
        self._reading = None
        if isinstance(reading.newest, Record):
            self._take(state, reading.source, reading.newest)
        reading.mend(state, self.guid)
        self._candidates = reading.lookup.closest(state.limits.closest_count)
        self._renew_at = {peer: due for peer, due in self._renew_at.items() if due > state.now}
        self._ask_another(state)

    def _ask_another(self, state: State) -> None:
        """Ask one more holder to push; sleep when enough do, or when none is left."""
        self._asking = None
        limits = state.limits
        while self._candidates and len(self._renew_at) < limits.follow_holders:
            candidate = self._candidates.pop(0)
            if candidate.id not in self._renew_at:
                self._have_until(state, state.now + limits.work_timeout_s)
                self._asking = links.request(state, candidate, Follow(self._key.id), self)
                return
        poll_s = limits.follow_poll_s if self._renew_at else limits.follow_retry_s
        self._sleep(state, min([state.now + state.jittered(poll_s), *self._renew_at.values()]))

    def _take_lease(self, state: State, peer: Id, following: Following) -> None:
        """Count a holder among those that push, unless its lease would end before we may renew."""
        if following.lease_s / 2 >= state.limits.follow_retry_s:
            self._renew_at[peer] = state.now + following.lease_s / 2
        if following.record is not None:
            self._take(state, peer, following.record)

    def _sleep(self, state: State, until: float) -> None:
        """Begin the next round then, but not too soon after this one began."""
        self._have_until(state, max(until, self._began + state.limits.follow_retry_s))

    def _have_until(self, state: State, deadline: float) -> None:
        self.deadline = deadline
        state.wake_at(self, None)

    def _take(self, state: State, peer: Id, record: Record) -> None:
        try:
            check_is(record, self._key)
        except ItemError as error:
            links.distrust(state, peer, str(error))
            return
        if self._told is None or version(record) > version(self._told):
            self._told = record
            state.emit(Pushed(self.guid, record))
