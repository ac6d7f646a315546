"""Works for what our owner keeps: Pin fetches an item and keeps it, TendPins asks the store.

No I/O; see work.py for how a work lives. What a root's tree is made of is no affair of the core:
who pins a file goes through its blocks and pins each.
"""

from xorbit.core import effect as fx
from xorbit.core.effect import Finish, OrderPins, WriteStore
from xorbit.core.get import GetWork
from xorbit.core.job import PinsTended, StoreWritten
from xorbit.core.state import DiskResult, State, Work
from xorbit.ids import Guid, Id
from xorbit.items import Item, ItemKey
from xorbit.pins import Order


class PinWork(GetWork):
    """Find an item, here or elsewhere, and pin it, due to be refreshed: others' copies may be old.

    An item that is given is not looked for.
    """

    __slots__ = ("_found", "_given", "_pinning")

    def __init__(self, guid: Guid, deadline: float, key: ItemKey, item: Item | None = None) -> None:
        """Pin `key`."""
        super().__init__(guid, deadline, key)
        self._given = item
        self._found: fx.Got | None = None
        self._pinning: Guid | None = None

    def start(self, state: State) -> None:
        """Look for it, or write it down."""
        if self._given is None:
            super().start(state)
        else:
            self._finish(state, self._given, state.own)

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Take what the disk had, or what it said to the pin. A newer version is as good."""
        if result.guid != self._pinning:
            super().on_disk(state, result)
            return
        assert isinstance(result, StoreWritten)
        assert self._found is not None
        state.end_work(self)
        if result.code in ("stored", "stale"):
            state.emit(Finish(self.guid, self._found))
        else:
            state.emit(Finish(self.guid, fx.Failed("disk", result.reason)))

    def on_deadline(self, state: State) -> None:
        """Say that nobody had it in time, or that the disk said nothing."""
        if self._pinning is None:
            super().on_deadline(state)
        else:
            state.end_work(self)
            state.emit(Finish(self.guid, _no_answer()))

    def _finish(self, state: State, item: Item, source: Id) -> None:
        self._found = fx.Got(item, source)
        self._pinning = state.disk_guid(self.guid)
        state.wake_at(self, None)
        age_s = state.limits.refresh_after_s
        state.emit(WriteStore(self._pinning, self._key, item, pin=True, age_s=age_s))


class TendPinsWork(Work):
    """Ask the store one thing about what is kept."""

    __slots__ = ("_order",)

    def __init__(self, guid: Guid, deadline: float, order: Order) -> None:
        """Have `order` done."""
        super().__init__(guid, deadline)
        self._order = order

    def start(self, state: State) -> None:
        """Hand it on."""
        state.emit(OrderPins(state.disk_guid(self.guid), self._order))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Say what the store said."""
        assert isinstance(result, PinsTended)
        told = result.told
        failed = fx.Failed("disk", told.fault) if told.fault else None
        state.end_work(self)
        state.emit(Finish(self.guid, failed or fx.Tended(told)))

    def on_deadline(self, state: State) -> None:
        """Give up."""
        state.end_work(self)
        state.emit(Finish(self.guid, _no_answer()))


def _no_answer() -> fx.Failed:
    return fx.Failed("timeout", "the disk did not answer before the deadline")
