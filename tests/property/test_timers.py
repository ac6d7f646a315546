"""Timers against the simplest model: a dict of names, looked through from end to end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from xorbit.core.timers import STALE_MIN, TimerName, Timers

names = st.sampled_from([(kind, None) for kind in "abcdef"])
times = st.integers(0, 12).map(float)


class Model(RuleBasedStateMachine):
    """Few names and few times, so that they tie, move and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.due: dict[TimerName, tuple[float, int]] = {}
        self.sets = 0

    def first(self) -> tuple[tuple[float, int], TimerName] | None:
        return min(((due, name) for name, due in self.due.items()), default=None)

    @rule(name=names, due=times)
    def set(self, name: TimerName, due: float) -> None:
        self.sets += 1
        self.timers.set(name, due)
        self.due[name] = due, self.sets

    @rule(name=names, due=times, times=st.integers(1, 200))
    def set_and_cancel(self, name: TimerName, due: float, times: int) -> None:
        for _ in range(times):
            self.timers.set(name, due)
            self.timers.cancel(name)
        self.due.pop(name, None)

    @rule(name=names)
    def cancel(self, name: TimerName) -> None:
        self.timers.cancel(name)
        self.due.pop(name, None)

    @rule()
    def ask(self) -> None:
        first = self.first()
        assert self.timers.next_deadline() == (first[0][0] if first else None)

    @rule(now=times)
    def pop(self, now: float) -> None:
        first = self.first()
        expected = first[1] if first and first[0][0] <= now else None
        assert self.timers.pop_due(now) == expected
        if expected:
            del self.due[expected]

    @invariant()
    def agree(self) -> None:
        assert len(self.timers) == len(self.due)
        assert all((name in self.timers) == (name in self.due) for name in "abcdef")
        assert len(self.timers._heap) <= STALE_MIN + 2 * len(self.due) + 6


TestTimers = Model.TestCase
TestTimers.settings = settings(max_examples=100, stateful_step_count=60)
