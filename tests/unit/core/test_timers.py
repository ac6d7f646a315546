"""Timers: one next deadline, in order, and no trace of what was moved or cancelled."""

from xorbit.core.timers import STALE_MIN, TimerName, Timers
from xorbit.ids import Guid

A: TimerName = ("a", None)
B: TimerName = ("b", None)
C: TimerName = ("c", Guid(b"c" * 16))


def fired(timers: Timers, now: float) -> list[TimerName]:
    """Take out all that is due."""
    names: list[TimerName] = []
    while (name := timers.pop_due(now)) is not None:
        names.append(name)
    return names


def test_none_set_means_no_deadline() -> None:
    timers = Timers()
    assert timers.next_deadline() is None
    assert timers.pop_due(1e9) is None
    assert len(timers) == 0


def test_timers_fire_at_their_time_earliest_first() -> None:
    timers = Timers()
    for name, due in ((A, 3.0), (B, 1.0), (C, 2.0)):
        timers.set(name, due)
    assert timers.next_deadline() == 1.0
    assert fired(timers, 0.9) == []
    assert fired(timers, 2.0) == [B, C]
    assert timers.next_deadline() == 3.0


def test_a_fired_timer_is_no_longer_set() -> None:
    timers = Timers()
    timers.set(A, 1.0)
    assert A in timers
    assert fired(timers, 1.0) == [A]
    assert A not in timers
    assert len(timers) == 0


def test_ties_fire_in_the_order_in_which_they_were_last_set() -> None:
    timers = Timers()
    for name in (B, C, A):
        timers.set(name, 1.0)
    timers.set(B, 1.0)
    assert fired(timers, 1.0) == [C, A, B]


def test_asking_for_the_deadline_changes_no_order() -> None:
    """A replay asks at other moments than the node did, and must see the same timers fire."""
    orders = []
    for asked in (False, True):
        timers = Timers()
        timers.set(A, 1.0)
        timers.set(A, 5.0)
        timers.set(B, 5.0)
        if asked:
            assert timers.next_deadline() == 5.0
        timers.set(C, 5.0)
        orders.append(fired(timers, 5.0))
    assert orders == [[A, B, C], [A, B, C]]


def test_moved_later_does_not_fire_at_its_old_time() -> None:
    timers = Timers()
    timers.set(A, 1.0)
    timers.set(A, 2.0)
    assert fired(timers, 1.5) == []
    assert timers.next_deadline() == 2.0
    assert fired(timers, 2.0) == [A]


def test_moved_earlier_fires_once_at_its_new_time() -> None:
    timers = Timers()
    timers.set(A, 2.0)
    timers.set(A, 1.0)
    assert timers.next_deadline() == 1.0
    assert fired(timers, 3.0) == [A]


def test_moved_to_and_fro_fires_once() -> None:
    timers = Timers()
    for due in (3.0, 1.0, 3.0, 2.0, 3.0):
        timers.set(A, due)
    assert fired(timers, 2.9) == []
    assert fired(timers, 3.0) == [A]


def test_cancelled_does_not_fire() -> None:
    """Nor does it after being set again before or after its old time, but for the new one."""
    timers = Timers()
    timers.set(A, 1.0)
    timers.set(B, 2.0)
    timers.cancel(A)
    assert A not in timers
    assert timers.next_deadline() == 2.0
    timers.set(A, 3.0)
    assert fired(timers, 2.0) == [B]
    assert fired(timers, 3.0) == [A]


def test_cancelling_what_is_not_set_changes_nothing() -> None:
    timers = Timers()
    timers.set(B, 1.0)
    timers.cancel(A)
    assert len(timers) == 1
    assert fired(timers, 1.0) == [B]


def test_putting_off_a_deadline_takes_no_room() -> None:
    """The common case, a deadline moved by every answer, leaves nothing behind at all."""
    timers = Timers()
    for now in range(1_000_000):
        timers.set(A, float(now))
    assert len(timers._heap) == 1
    assert timers.next_deadline() == 999_999.0


def test_moving_earlier_without_end_takes_bounded_room() -> None:
    timers = Timers()
    timers.set(B, 0.0)
    for step in range(10_000):
        timers.set(A, 1e6)
        timers.set(A, 1e6 - 1 - step)
        assert len(timers._heap) <= STALE_MIN + 2 * len(timers)
    assert fired(timers, 1e6) == [B, A]


def test_setting_and_cancelling_without_end_takes_bounded_room() -> None:
    """Works that end long before their deadline do not pile up until it comes."""
    timers = Timers()
    timers.set(B, 0.0)
    for step in range(10_000):
        name = ("work", Guid(step.to_bytes(16, "big")))
        timers.set(name, 60.0 + step)
        timers.cancel(name)
        assert len(timers._heap) <= STALE_MIN + 2 * len(timers)
    assert fired(timers, 1e6) == [B]
