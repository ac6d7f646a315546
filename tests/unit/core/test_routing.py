"""The routing table: who enters, who is forgotten, who gives way, and who is handed out."""

from random import Random

import pytest

from xorbit.core.routing import ADDRESSES_KEPT, FAILURES_MAX, RoutingTable
from xorbit.ids import Id, as_id, as_number, bucket_index, distance, finger_point, id_of
from xorbit.items import Address

OWN = id_of(b"own")
ADDRESS = Address("10.0.0.1", 4_000)


def at(far: int) -> Id:
    """Return the id at this distance from our own."""
    return as_id(as_number(OWN) ^ far)


def address(number: int) -> Address:
    return Address("10.0.0.1", number)


def table_of(*peers: Id, budget: int = 100) -> RoutingTable:
    """Return a table in which each was heard later than the one before."""
    table = RoutingTable(OWN, budget)
    for now, peer in enumerate(peers):
        table.proved(peer, ADDRESS, float(now))
    return table


def ids_in(table: RoutingTable) -> set[Id]:
    return {contact.id for contact in table.contacts()}


def test_empty_table() -> None:
    table = table_of()
    assert len(table) == 0
    assert table.contacts() == table.closest(OWN, 5) == table.bucket(255) == []
    assert table.finger(255) is None
    assert table.get(at(1)) is None


def test_own_id_never_enters() -> None:
    table = table_of(OWN)
    assert len(table) == 0
    assert OWN not in table


def test_hearsay_is_no_way_in() -> None:
    """Only what was proved is known: to be heard of, or to fail, brings nobody in."""
    table = table_of()
    table.heard(at(1), 1.0)
    table.failed(at(1))
    table.forget(at(1))
    assert len(table) == 0


def test_proved_contact_is_known() -> None:
    table = table_of(at(1))
    entry = table.get(at(1))
    assert entry is not None
    assert entry.contact.id == at(1)
    assert entry.contact.addresses == (ADDRESS,)
    assert at(1) in table


def test_latest_proved_address_comes_first() -> None:
    """Earlier ones stay behind it, each once, up to the limit."""
    table = RoutingTable(OWN, 10)
    for number in (1, 2, 1, *range(3, 3 + ADDRESSES_KEPT)):
        table.proved(at(1), address(number), 0.0)
    [contact] = table.contacts()
    latest = 2 + ADDRESSES_KEPT
    assert contact.addresses == tuple(
        address(number) for number in range(latest, latest - ADDRESSES_KEPT, -1)
    )
    table.proved(at(1), address(latest - 1), 0.0)
    [contact] = table.contacts()
    assert contact.addresses[:3] == (address(latest - 1), address(latest), address(latest - 2))


def test_failing_contact_is_not_handed_out() -> None:
    """It stays in the table, to be tried again, and is named only to who asks for failing ones."""
    table = table_of(at(1), at(2))
    table.failed(at(1))
    assert [contact.id for contact in table.closest(OWN, 5)] == [at(2)]
    assert [contact.id for contact in table.closest(OWN, 5, failing=True)] == [at(1), at(2)]
    assert table.finger(0).id == at(2)
    assert [contact.id for contact in table.bucket(0)] == [at(1)]
    assert at(1) in table


@pytest.mark.parametrize("recover", ["heard", "proved"])
def test_sign_of_life_clears_failures(recover: str) -> None:
    table = table_of(at(1))
    for _ in range(FAILURES_MAX - 1):
        table.failed(at(1))
    if recover == "heard":
        table.heard(at(1), 9.0)
    else:
        table.proved(at(1), ADDRESS, 9.0)
    entry = table.get(at(1))
    assert entry is not None
    assert (entry.failures, entry.heard_at) == (0, 9.0)
    for _ in range(FAILURES_MAX - 1):
        table.failed(at(1))
    assert at(1) in table


def test_repeated_failure_forgets() -> None:
    table = table_of(at(1), at(2))
    for _ in range(FAILURES_MAX):
        table.failed(at(1))
    assert ids_in(table) == {at(2)}
    table.failed(at(1))
    assert ids_in(table) == {at(2)}


def test_forget() -> None:
    table = table_of(at(1), at(2), at(3))
    table.forget(at(2))
    table.forget(at(2))
    assert ids_in(table) == {at(1), at(3)}
    assert table.get(at(2)) is None


def test_forgotten_contact_comes_back_anew() -> None:
    table = table_of(at(1))
    table.failed(at(1))
    table.forget(at(1))
    table.proved(at(1), address(2), 5.0)
    entry = table.get(at(1))
    assert entry is not None
    assert entry.failures == 0
    assert entry.contact.addresses == (address(2),)


# --- The budget ----------------------------------------------------------------------------------


def test_fullest_bucket_gives_way() -> None:
    """A near newcomer takes the place of the longest unheard of the fullest bucket."""
    far = [at(2**255 + number) for number in range(6)]
    table = table_of(*far, at(1), at(2), budget=6)
    assert ids_in(table) == {at(1), at(2), *far[2:]}
    assert table.newcomers == 0


def test_in_a_full_bucket_living_old_contacts_keep_their_place_and_the_newcomer_waits() -> None:
    far = [at(2**255 + number) for number in range(5)]
    table = table_of(*far, budget=3)
    assert ids_in(table) == set(far[:3])
    assert table.newcomers == 2
    table.proved(far[3], ADDRESS, 9.0)
    assert table.newcomers == 2


def test_the_longest_unheard_is_tested_for_a_newcomer_and_gives_way_only_when_it_fails_again() -> (
    None
):
    far = [at(2**255 + number) for number in range(4)]
    table = table_of(*far, budget=3)
    table.heard(far[0], 8.0)
    tested = table.to_test(9.0, 1e9, 30.0, 10)
    assert [contact.id for contact in tested] == [far[1]]
    table.tested(far[1], 9.0)
    assert table.to_test(10.0, 1e9, 30.0, 10) == []
    table.failed(far[1])
    assert far[1] in table
    assert [contact.id for contact in table.to_test(40.0, 1e9, 30.0, 10)] == [far[1]]
    table.failed(far[1])
    assert ids_in(table) == {far[0], far[2], far[3]}
    assert table.newcomers == 0


def test_a_newcomer_takes_the_place_of_whoever_has_failed_again_already() -> None:
    far = [at(2**255 + number) for number in range(4)]
    table = table_of(*far[:3], budget=3)
    table.failed(far[1])
    table.failed(far[1])
    table.proved(far[3], ADDRESS, 9.0)
    assert ids_in(table) == {far[0], far[2], far[3]}


def test_newcomers_are_bounded_and_one_that_fails_waits_no_longer() -> None:
    far = [at(2**255 + number) for number in range(5)]
    table = RoutingTable(OWN, 1, newcomers_max=2)
    for peer in far:
        table.proved(peer, ADDRESS, 1.0)
    assert table.newcomers == 2
    table.failed(far[3])
    assert table.newcomers == 1
    table.forget(far[0])
    assert ids_in(table) == {far[4]}


def test_all_places_that_come_free_are_taken_as_far_as_they_go() -> None:
    far = [at(2**255 + number) for number in range(4)]
    table = table_of(*far, budget=2)
    table.forget(far[0])
    assert ids_in(table) == {far[1], far[2]}
    assert table.newcomers == 1


# --- Liveness ------------------------------------------------------------------------------------


def test_tables_full_of_dead_nodes_slowed_every_lookup() -> None:
    """The silent are tested, the failing first, those unheard for longest before the others."""
    table = table_of(at(1), at(2), at(3), at(4))
    table.heard(at(1), 100.0)
    table.failed(at(4))
    tested = table.to_test(now=302.0, silent_s=300.0, retry_s=30.0, count=10)
    assert [contact.id for contact in tested] == [at(4), at(2), at(3)]
    assert [contact.id for contact in table.to_test(302.0, 300.0, 30.0, 1)] == [at(4)]
    table.tested(at(4), 302.0)
    table.tested(OWN, 302.0)
    tested = table.to_test(303.0, 300.0, 30.0, 10)
    assert [contact.id for contact in tested] == [at(2), at(3)]
    assert table.to_test(100.0, 300.0, 30.0, 10) == []


# --- Subnets -------------------------------------------------------------------------------------


def test_one_subnet_gets_only_so_many_places_in_a_bucket() -> None:
    table = RoutingTable(OWN, 100, subnet_max=2)
    for number in range(5):
        table.proved(at(2**255 + number), Address(f"203.0.113.{number}", 1), 0.0)
        table.proved(at(2**254 + number), Address(f"2001:db8:7::{number}", 1), 0.0)
    assert len(table.bucket(255)) == len(table.bucket(254)) == 2
    table.proved(at(2**255 + 9), Address("203.0.114.1", 1), 0.0)
    table.proved(at(2**253), Address("203.0.113.9", 1), 0.0)
    assert len(table) == 6
    table.forget(at(2**255))
    table.proved(at(2**255 + 4), Address("203.0.113.4", 1), 0.0)
    assert at(2**255 + 4) in table


def test_a_contact_does_not_move_into_a_crowded_subnet() -> None:
    table = RoutingTable(OWN, 100, subnet_max=1)
    table.proved(at(2**255), Address("203.0.113.1", 1), 0.0)
    mover = at(2**255 + 1)
    table.proved(mover, Address("203.0.114.1", 1), 0.0)
    table.proved(mover, Address("203.0.113.2", 1), 5.0)
    [contact] = [contact for contact in table.contacts() if contact.id == mover]
    assert contact.addresses == (Address("203.0.114.1", 1),)
    table.proved(mover, Address("203.0.115.2", 1), 6.0)
    table.proved(at(2**255 + 2), Address("203.0.114.2", 1), 6.0)
    assert len(table) == 3


# --- Budget, once more ---------------------------------------------------------------------------


def test_of_equally_full_buckets_the_farthest_gives_way() -> None:
    table = table_of(at(4), at(5), at(8), at(9), at(2), budget=4)
    assert ids_in(table) == {at(4), at(5), at(9), at(2)}


def test_failing_one_gives_way_first() -> None:
    """Before one that is longer unheard of; the one that failed most often before all."""
    far = [at(2**255 + number) for number in range(4)]
    table = table_of(*far, budget=4)
    table.failed(far[2])
    table.failed(far[3])
    table.failed(far[3])
    table.proved(at(1), ADDRESS, 10.0)
    assert ids_in(table) == {far[0], far[1], far[2], at(1)}
    table.proved(at(2), ADDRESS, 11.0)
    assert far[2] not in table


def test_table_of_one_keeps_the_nearest() -> None:
    table = table_of(at(2), at(4), at(1), at(8), budget=1)
    assert ids_in(table) == {at(1)}


# --- Who is closest ------------------------------------------------------------------------------


@pytest.mark.parametrize("clustered", [False, True])
def test_large_table_against_brute_force(clustered: bool) -> None:
    """Among thousands, also where long prefixes are shared, the walk finds what sorting finds."""
    rng = Random(7)
    peers = [
        at(rng.getrandbits(rng.randrange(1, 257)) | 1) if clustered else Id(rng.randbytes(32))
        for _ in range(3_000)
    ]
    table = table_of(*peers, budget=10_000)
    for peer in rng.sample(peers, 900):
        table.failed(peer)
    known = ids_in(table)
    sound = {peer for peer in known if table.get(peer).failures == 0}
    targets = [OWN, peers[0], peers[1], *(Id(rng.randbytes(32)) for _ in range(20)), at(2**200)]
    for target in targets:
        for among, failing in ((sound, False), (known, True)):
            expected = sorted(among, key=lambda peer: distance(peer, target))
            for count in (0, 1, 20, 5_000):
                found = [contact.id for contact in table.closest(target, count, failing=failing)]
                assert found == expected[:count]
    for index in range(256):
        bucket = [contact.id for contact in table.bucket(index)]
        assert bucket == sorted(peer for peer in known if bucket_index(OWN, peer) == index)
        point = finger_point(OWN, index)
        assert table.finger(index).id == min(sound, key=lambda peer: distance(peer, point))


def test_buckets_at_both_ends_of_the_keyspace() -> None:
    """No bucket runs over the first or the last id there is."""
    for own in (Id(bytes(32)), Id(b"\xff" * 32)):
        table = RoutingTable(own, 100)
        peers = [as_id(as_number(own) ^ 1 << index) for index in range(0, 256, 5)]
        for peer in peers:
            table.proved(peer, ADDRESS, 0.0)
        for index in range(256):
            expected = [peer for peer in peers if bucket_index(own, peer) == index]
            assert [contact.id for contact in table.bucket(index)] == expected
