"""Leases: found by record and by peer, in the order of their ends."""

from xorbit.core.leases import Lease, Leases
from xorbit.ids import Guid, Id

A, B, R, S = (Id(bytes([number]) * 32) for number in range(4))
ONE, TWO = Guid(b"1" * 16), Guid(b"2" * 16)


def lease(until: float, connection: Guid = ONE) -> Lease:
    return Lease(connection, ONE, ONE, until, None)


def test_a_lease_is_found_by_its_record_and_by_its_peer() -> None:
    leases = Leases()
    leases.grant(R, A, first := lease(1.0))
    leases.grant(S, A, second := lease(2.0))
    leases.grant(R, B, third := lease(3.0))
    assert list(leases.of_record(R)) == [first, third]
    assert list(leases.of_peer(A)) == [first, second]
    assert [leases.count_of(peer) for peer in (A, B, R)] == [2, 1, 0]
    assert (R, B) in leases
    assert (S, B) not in leases
    assert len(leases) == 3
    assert list(leases.peers()) == [A, B]


def test_those_that_have_ended_go_and_one_that_was_prolonged_stays() -> None:
    leases = Leases()
    leases.grant(R, A, lease(1.0))
    leases.grant(R, B, lease(2.0))
    leases.grant(R, A, again := lease(3.0))
    assert len(leases) == 2
    leases.drop_ended(2.0)
    assert list(leases.of_record(R)) == [again]
    leases.drop_ended(3.0)
    assert len(leases) == 0
    assert list(leases.peers()) == []
    assert list(leases.of_record(R)) == []


def test_a_connection_takes_its_own_leases_with_it() -> None:
    leases = Leases()
    leases.grant(R, A, lease(1.0, ONE))
    leases.grant(S, A, other := lease(1.0, TWO))
    leases.drop_connection(A, ONE)
    leases.drop_connection(B, ONE)
    assert list(leases.of_peer(A)) == [other]
