"""The work of finding an item: one Lookup that asks each node for the item itself.

No I/O; see work.py for how a work lives.
"""

from xorbit.core import effect as fx
from xorbit.core import links
from xorbit.core.crowd import drive_item_lookup
from xorbit.core.effect import Finish, ReadStore, WriteStore
from xorbit.core.job import StoreRead
from xorbit.core.lookup import Lookup
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.core.work import may_work_unasked, new_lookup, note_bad_read
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id
from xorbit.items import Item, ItemKey, check_is
from xorbit.wire.message import Closest, Found, Get


class GetWork(Work):
    """Find an item: on our own disk, else by asking ever closer nodes for it.

    With `repair`, our own copy was damaged: skip it, and write what was found in its place. Nobody
    waits for such a work.
    """

    __slots__ = ("_faults", "_key", "_lookup", "_repair")

    def __init__(self, guid: Guid, deadline: float, key: ItemKey, *, repair: bool = False) -> None:
        """Look for `key`."""
        super().__init__(guid, deadline)
        self._key = key
        self._repair = repair
        self._lookup: Lookup | None = None
        self._faults = 0

    def repairs(self, key: ItemKey) -> bool:
        """Return whether this looks for what is to replace our damaged copy of `key`."""
        return self._repair and self._key == key

    def start(self, state: State) -> None:
        """Read our own disk, unless that is what is broken."""
        if self._repair:
            self._ask_network(state)
        else:
            state.emit(ReadStore(state.disk_guid(self.guid), self._key))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Take what the disk had; a damaged block is dropped and found again elsewhere."""
        assert isinstance(result, StoreRead)
        if result.item is not None:
            self._finish(state, result.item, state.own)
            return
        if result.fault:
            note_bad_read(state, self._key, result.fault)
            self._repair = result.fault == "damaged"
        self._ask_network(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take an item if it proves itself, or closer contacts."""
        lookup = self._lookup
        assert lookup is not None
        match answer.response:
            case Found(item):
                try:
                    check_is(item, self._key)
                except ItemError as error:
                    lookup.on_failure(answer.peer)
                    links.distrust(state, answer.peer, str(error))
                else:
                    self._finish(state, item, answer.peer)
                    return
            case Closest(contacts):
                lookup.on_response(answer.peer, contacts)
            case _:
                self._faults += 1
                lookup.on_response(answer.peer)
        self._go_on(state, lookup)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Ask somebody else."""
        lookup = self._lookup
        assert lookup is not None
        lookup.on_failure(failure.peer)
        self._go_on(state, lookup)

    def on_time(self, state: State) -> None:
        """Somebody is slow: ask one more."""
        assert self._lookup is not None
        self._go_on(state, self._lookup)

    def on_deadline(self, state: State) -> None:
        """Say that nobody had it in time."""
        self._not_found(state)

    def _ask_network(self, state: State) -> None:
        # One at a time, hedged: an item is up to 64 KiB, and the first asked usually has it.
        width = state.limits.closest_count
        self._lookup = new_lookup(state, self._key.id, width=width, alone=True)
        self._go_on(state, self._lookup)

    def _go_on(self, state: State, lookup: Lookup) -> None:
        if drive_item_lookup(state, self, lookup, lambda _: Get(self._key)):
            self._not_found(state)

    def _finish(self, state: State, item: Item, source: Id) -> None:
        state.end_work(self)
        if self._repair:
            state.emit(WriteStore(state.disk_guid(self.guid), self._key, item))
        state.emit(Finish(self.guid, fx.Got(item, source)))

    def _not_found(self, state: State) -> None:
        answered, failed = self._lookup.counts() if self._lookup else (0, 0)
        state.end_work(self)
        state.emit(Finish(self.guid, fx.NotFound(answered - self._faults, failed + self._faults)))


def repair(state: State, key: ItemKey) -> None:
    """Fetch from others what is to stand in the place of our damaged copy, with what room there is.

    What has no room now is found again: by the next who asks, or as a pin without its item.
    """
    works = state.works.values()
    under_way = any(isinstance(work, GetWork) and work.repairs(key) for work in works)
    if not under_way and may_work_unasked(state):
        deadline = state.now + state.limits.work_timeout_s
        state.start_work(GetWork(state.new_guid(), deadline, key, repair=True))
