"""Following a record: a caller of ours is kept up to date until it cancels.

Who follows asks two of the holders to push newer versions, for a lease each, and reads all of the r
closest once in a while, at once when one that pushed is gone. So a change is seen quickly where
somebody pushes, and is seen at all where nobody does. No I/O.
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

FOREVER_S = 1e9


class FollowWork(Work):
    """Keep a local caller up to date with a record, in rounds of two phases.

    First all of the r closest are read, then holders are asked to push, one after the other, until
    enough do. Each newer version, however it came, goes to the caller as a Pushed.
    """

    __slots__ = ("_asking", "_candidates", "_key", "_reading", "_renew_at", "_told")

    def __init__(self, state: State, guid: Guid, key: ItemKey) -> None:
        """Follow `key`."""
        super().__init__(guid, state.now + FOREVER_S)
        self._key = key
        self._reading: Reading | None = None
        self._candidates: list[Contact] = []
        """Holders that may yet be asked to push in this round."""
        self._asking = False
        self._renew_at: dict[Id, float] = {}
        """Who pushes to us, and when its lease is to be renewed."""
        self._told: Record | None = None

    def start(self, state: State) -> None:
        """Begin a round with our own disk."""
        self._reading = Reading(state, self._key)
        state.emit(ReadStore(state.disk_guid(self.guid), self._key))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Note our own version, then ask the others."""
        assert isinstance(result, StoreRead)
        assert self._reading is not None
        self._reading.on_disk(state, result)
        self._read_on(state, self._reading)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take a push, a lease, or what a holder has."""
        match answer.response:
            case Updated(record):
                self._take(state, answer.peer, record)
            case Following(lease_s, record):
                self._renew_at[answer.peer] = state.now + lease_s / 2
                if record is not None:
                    self._take(state, answer.peer, record)
                self._ask_another(state)
            case _ if self._reading is not None:
                self._reading.on_answer(state, answer)
                self._read_on(state, self._reading)
            case _:  # it does not push
                self._ask_another(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that holder; begin anew when it was one that pushed."""
        pushed = self._renew_at.pop(failure.peer, None) is not None
        if self._reading is not None:
            self._reading.lookup.on_failure(failure.peer)
            self._read_on(state, self._reading)
        elif pushed and not self._asking:
            self.start(state)
        else:
            self._ask_another(state)

    def on_time(self, state: State) -> None:
        """Somebody is slow, or the next round is due."""
        if self._reading is not None:
            self._read_on(state, self._reading)
        elif not self._asking:
            self.start(state)

    def on_deadline(self, state: State) -> None:
        """There is none that a node lives to see."""
        state.end_work(self)

    def _read_on(self, state: State, reading: Reading) -> None:
        if not reading.drive(state, self):
            return
        self._reading = None
        if isinstance(reading.newest, Record):
            self._take(state, reading.source, reading.newest)
        reading.mend(state, self.guid)
        self._candidates = reading.lookup.closest(state.limits.closest_count)
        self._renew_at = {peer: due for peer, due in self._renew_at.items() if due > state.now}
        self._ask_another(state)

    def _ask_another(self, state: State) -> None:
        """Ask one more holder to push; sleep when enough do, or when none is left."""
        self._asking = False
        while self._candidates and len(self._renew_at) < state.limits.follow_holders:
            candidate = self._candidates.pop(0)
            if candidate.id not in self._renew_at:
                self._asking = True
                links.request(state, candidate, Follow(self._key.id), self)
                return
        limits = state.limits
        poll_s = limits.follow_poll_s if self._renew_at else limits.follow_retry_s
        due = state.now + state.jittered(poll_s)
        state.wake_at(self, min([due, *self._renew_at.values()]))

    def _take(self, state: State, peer: Id, record: Record) -> None:
        try:
            check_is(record, self._key)
        except ItemError as error:
            links.distrust(state, peer, str(error))
            return
        if self._told is None or version(record) > version(self._told):
            self._told = record
            state.emit(Pushed(self.guid, record))
