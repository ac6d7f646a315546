"""The work of finding the nodes closest to a point: one Lookup, for whoever wants to know.

No I/O; see work.py for how a work lives.
"""

from collections.abc import Callable

from xorbit.core import effect as fx
from xorbit.core.effect import Finish
from xorbit.core.lookup import Lookup
from xorbit.core.state import Answer, NoAnswer, State, Work
from xorbit.core.work import drive_lookup, new_lookup
from xorbit.ids import Guid, Id
from xorbit.items import Contact
from xorbit.wire.message import Closest, FindClosest


class LookUpWork(Work):
    """Find the nodes closest to a target."""

    __slots__ = ("_lookup", "_target", "_width")

    def __init__(
        self, state: State, guid: Guid, deadline: float, target: Id, width: int = 0
    ) -> None:
        """Look for the `width` closest to `target`; for as many as usual without one."""
        super().__init__(guid, deadline)
        self._target = target
        self._width = width or state.limits.lookup_width
        self._lookup: Lookup = new_lookup(state, target, width=self._width)

    def start(self, state: State) -> None:
        """Ask the closest that we know."""
        self._go_on(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take closer contacts; who names none is done without, as who is silent."""
        if isinstance(answer.response, Closest):
            self._lookup.on_response(answer.peer, answer.response.contacts)
        else:
            self._lookup.on_failure(answer.peer)
        self._go_on(state)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that node."""
        self._lookup.on_failure(failure.peer)
        self._go_on(state)

    def on_time(self, state: State) -> None:
        """Somebody is slow: ask one more."""
        self._go_on(state)

    def on_deadline(self, state: State) -> None:
        """Say who has answered by now."""
        self._finish(state)

    def _go_on(self, state: State) -> None:
        if drive_lookup(state, self, self._lookup, lambda _: FindClosest(self._target)):
            self._finish(state)

    def _finish(self, state: State) -> None:
        state.end_work(self)
        self._tell(state, tuple(self._lookup.closest(self._width)))

    def _tell(self, state: State, found: tuple[Contact, ...]) -> None:
        asked, failed = self._lookup.counts()
        state.emit(Finish(self.guid, fx.LookedUp(found, asked, failed, self._lookup.hops())))


class RegionWork(LookUpWork):
    """The same for another work of ours, which is told who was found."""

    __slots__ = ("_done",)

    def __init__(
        self, state: State, target: Id, done: Callable[[State, tuple[Contact, ...]], None]
    ) -> None:
        """Look for who is closest to `target`, and tell `done`."""
        deadline = state.now + state.limits.work_timeout_s / 2
        super().__init__(state, state.new_guid(), deadline, target, state.limits.closest_count)
        self._done = done

    def _tell(self, state: State, found: tuple[Contact, ...]) -> None:
        self._done(state, found)
