"""The single question: ask one contact one thing, or open one connection, for a local caller.

No I/O; see work.py for how a work lives.
"""

from collections.abc import Iterable

from xorbit.core import dials, links
from xorbit.core import effect as fx
from xorbit.core.effect import Finish
from xorbit.core.state import Answer, DialEnded, NoAnswer, State, Work
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact
from xorbit.wire.message import Request


class AskWork(Work):
    """Ask one contact one thing."""

    __slots__ = ("_body", "_to")

    def __init__(self, guid: Guid, deadline: float, to: Contact, body: Request) -> None:
        """Ask `to` for `body`."""
        super().__init__(guid, deadline)
        self._to = to
        self._body = body

    def start(self, state: State) -> None:
        """Send the request."""
        links.request(state, self._to, self._body, self)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Hand the answer on."""
        outcome = fx.Answered(answer.peer, answer.response, answer.round_trip_s)
        self._finish(state, outcome)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Hand the failure on."""
        self._finish(state, fx.Failed("unreachable", failure.reason))

    def on_deadline(self, state: State) -> None:
        """Give up."""
        self._finish(state, fx.Failed("timeout", "no answer before the deadline"))

    def _finish(self, state: State, outcome: fx.Outcome) -> None:
        state.end_work(self)
        state.emit(Finish(self.guid, outcome))


class ConnectWork(Work):
    """Open one connection."""

    __slots__ = ("_addresses", "_expected")

    def __init__(
        self, guid: Guid, deadline: float, addresses: Iterable[Address], expected: Id | None
    ) -> None:
        """Dial `addresses`, in order."""
        super().__init__(guid, deadline)
        self._addresses = tuple(addresses)
        self._expected = expected

    def start(self, state: State) -> None:
        """Dial, unless that peer is connected."""
        if self._expected is not None and self._expected in state.link_of:
            self._finish(state, fx.Connected(self._expected))
        else:
            dials.dial(state, self._addresses, self._expected, self.guid)

    def on_dial_ended(self, state: State, ended: DialEnded) -> None:
        """Say who is there, or what happened at each address."""
        if ended.peer is not None:
            self._finish(state, fx.Connected(ended.peer))
        else:
            assert ended.failure is not None
            reason = "; ".join(f"{address}: {why}" for address, why in ended.failure.tried)
            self._finish(state, fx.Failed("unreachable", reason, ended.failure.tried))

    def on_deadline(self, state: State) -> None:
        """Give up."""
        self._finish(state, fx.Failed("timeout", "no connection before the deadline"))

    def _finish(self, state: State, outcome: fx.Outcome) -> None:
        state.end_work(self)
        state.emit(Finish(self.guid, outcome))
