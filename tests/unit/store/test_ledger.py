"""What an owner keeps: roots and pins, in each home of a store."""

import lmdb
import pytest

from tests.unit.store.samples import QUOTA_BYTES, block, record
from xorbit.items import Item, ItemKey, key_of
from xorbit.pins import (
    NOTHING,
    AddMembers,
    AddRoot,
    EndRoot,
    LeaveRoot,
    LetGo,
    Order,
    Root,
    ScanMembers,
    ScanPins,
    ScanRoots,
    Told,
    root_name,
)
from xorbit.store.base import STORED, Store, Write
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

A, B = block(1), block(2)
ROOT_A, ROOT_B = Root(key_of(A), size=1), Root(key_of(B), tree=True, size=2)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "lmdb"])
def store(request, tmp_path, clock):
    is_lmdb = request.param == "lmdb"
    made = (
        LmdbStore(tmp_path, QUOTA_BYTES, clock=clock)
        if is_lmdb
        else MemoryStore(QUOTA_BYTES, clock=clock)
    )
    yield made
    made.close()


def keep(store: Store, *items: Item) -> None:
    store.write([Write(key_of(item), item, pin=True) for item in items])


def one(store: Store, order: Order) -> Told:
    [told] = store.tend([order])
    return told


def roots(store: Store) -> list[Root]:
    return [kept.root for kept in one(store, ScanRoots(99)).roots]


def test_a_root_is_noted_with_its_ages_and_a_number(store, clock):
    keep(store, A, B)
    told = one(store, AddRoot(ROOT_A))
    assert (told.done, told.added, [kept.root for kept in told.roots]) == (True, 1, [ROOT_A])
    clock.now += 50.0
    store.touch([key_of(A)], pins=True)
    clock.now += 20.0
    [kept] = one(store, ScanRoots(99)).roots
    assert (kept.root, kept.put_age_s, kept.refreshed_age_s, kept.number) == (ROOT_A, 70, 20, 1)


def test_roots_are_told_a_page_at_a_time_in_the_order_of_their_names(store):
    keep(store, A, B)
    store.tend([AddRoot(ROOT_A), AddRoot(ROOT_B)])
    [first] = one(store, ScanRoots(1)).roots
    name = first.root.key.id + bytes((first.root.key.kind, first.root.tree))
    [second] = one(store, ScanRoots(1, name)).roots
    name = second.root.key.id + bytes((second.root.key.kind, second.root.tree))
    assert one(store, ScanRoots(1, name)).roots == ()
    assert {first.root, second.root} == {ROOT_A, ROOT_B}


def test_what_has_no_pin_becomes_no_root(store):
    assert not one(store, AddRoot(ROOT_A)).done
    assert roots(store) == []


def test_a_root_that_is_joining_needs_no_pin_yet(store):
    joining = Root(key_of(A), stage="joining")
    assert one(store, AddRoot(joining)).done
    assert roots(store) == [joining]


def test_a_root_that_is_kept_stays_so_when_it_is_pinned_again(store):
    keep(store, A)
    one(store, AddRoot(ROOT_A))
    told = one(store, AddRoot(Root(key_of(A), stage="joining")))
    assert (told.added, told.roots[0].number) == (1, 1)
    assert roots(store) == [ROOT_A]
    assert not one(store, LeaveRoot(key_of(A), tree=False, joining_only=True)).done
    assert roots(store) == [ROOT_A]


def test_a_root_that_joined_is_kept_in_the_end_unless_it_has_left_meanwhile(store):
    keep(store, A)
    joining = Root(key_of(A), stage="joining")
    number = one(store, AddRoot(joining)).roots[0].number
    assert one(store, LeaveRoot(key_of(A), tree=False, joining_only=True)).done
    assert not one(store, AddRoot(ROOT_A, number=number)).done
    again = one(store, AddRoot(joining)).roots[0].number
    assert again > number
    assert not one(store, AddRoot(ROOT_A, number=number)).done
    assert one(store, AddRoot(ROOT_A, number=again)).done
    assert roots(store) == [ROOT_A]


def test_a_root_is_refused_when_pins_were_let_go_of_meanwhile(store):
    keep(store, A, B)
    seen = one(store, NOTHING).unpins
    assert one(store, LetGo((key_of(B),))).keys == (key_of(B),)
    assert not one(store, AddRoot(ROOT_A, seen)).done
    assert one(store, AddRoot(ROOT_A, seen + 1)).done


def test_what_is_being_pinned_and_may_have_lost_a_pin_is_to_be_pinned_once_more(store):
    """It gets a new number; what is kept, or is not there, gets none."""
    keep(store, A, B)
    joining = Root(key_of(A), stage="joining")
    number = one(store, AddRoot(joining)).roots[0].number
    added = one(store, AddRoot(ROOT_B)).added
    unseen = tuple(root_name(key, tree=tree) for key in map(key_of, (A, B)) for tree in (0, 1))
    told = one(store, LetGo((key_of(B),), added, unseen))
    assert (told.done, told.added, told.keys) == (True, added + 1, (key_of(B),))
    refused = one(store, AddRoot(ROOT_A, number=number))
    assert not refused.done
    [there] = refused.roots
    assert (there.root, there.number) == (joining, told.added)
    assert one(store, AddRoot(ROOT_A, number=there.number)).done


def test_nothing_is_to_be_pinned_once_more_where_no_pin_was_let_go_of(store):
    number = one(store, AddRoot(Root(key_of(A), stage="joining"))).roots[0].number
    told = one(store, LetGo((key_of(B),), unseen=(root_name(key_of(A), tree=False),)))
    assert told.added == number


def test_what_has_joined_counts_as_added(store):
    """So that who looked at what is needed before looks again: less may have been there then."""
    keep(store, A)
    added = one(store, AddRoot(Root(key_of(A), stage="joining"))).added
    told = one(store, AddRoot(ROOT_A))
    assert told.added == told.roots[0].number == added + 1
    assert not one(store, LetGo((key_of(A),), added)).done


def test_letting_go_of_what_has_no_pin_disturbs_no_put(store):
    keep(store, A)
    assert one(store, LetGo((key_of(B),))) == Told()
    assert one(store, AddRoot(ROOT_A, 0)).done


def test_pins_are_not_let_go_of_when_a_root_was_added_meanwhile(store):
    keep(store, A, B)
    seen = one(store, NOTHING).added
    assert one(store, AddRoot(ROOT_A)).done
    assert not one(store, LetGo((key_of(A),), seen)).done
    assert one(store, ScanPins(9)).keys == tuple(sorted(map(key_of, (A, B)), key=lambda k: k.id))


def test_a_root_leaves_in_two_steps_and_one_that_came_back_stays(store):
    keep(store, A)
    assert not one(store, LeaveRoot(key_of(A), tree=False)).done
    assert not one(store, EndRoot(key_of(A), tree=False)).done
    one(store, AddRoot(ROOT_A))
    assert not one(store, EndRoot(key_of(A), tree=False)).done
    assert one(store, LeaveRoot(key_of(A), tree=False)).done
    assert [root.stage for root in roots(store)] == ["leaving"]
    one(store, AddRoot(ROOT_A))
    assert not one(store, EndRoot(key_of(A), tree=False)).done
    one(store, LeaveRoot(key_of(A), tree=False))
    assert not one(store, EndRoot(key_of(A), tree=False, number=1)).done
    assert one(store, EndRoot(key_of(A), tree=False, number=2)).done
    assert roots(store) == []


def test_pins_are_told_a_page_at_a_time(store):
    keep(store, A, B)
    [first] = one(store, ScanPins(1)).keys
    [second] = one(store, ScanPins(1, first)).keys
    assert one(store, ScanPins(1, second)).keys == ()
    assert {first, second} == {key_of(A), key_of(B)}


def test_what_was_let_go_of_may_be_dropped(store):
    keep(store, A)
    assert store.drop([key_of(A)]) == []
    one(store, LetGo((key_of(A),)))
    assert store.drop([key_of(A)]) == [key_of(A)]


def test_items_and_orders_go_into_one_commit_and_an_order_sees_the_items(store):
    written, told = store.write_and_tend([Write(key_of(A), A, pin=True)], [AddRoot(ROOT_A)])
    assert (written, told[0].done) == ([STORED], True)
    assert roots(store) == [ROOT_A]


def test_what_cannot_be_one_commit_changes_nothing(tmp_path):
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    store.close()
    assert store.write_and_tend([Write(key_of(A), A)], [NOTHING]) is None


def test_roots_survive_a_restart(tmp_path):
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    keep(store, A)
    one(store, AddRoot(ROOT_A))
    one(store, LetGo((key_of(B),)))
    store.close()
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    assert roots(store) == [ROOT_A]
    assert one(store, NOTHING).added == 1
    store.close()


def test_a_home_from_before_there_were_roots_keeps_every_pin_as_a_root(tmp_path):
    """Schema 2 becomes schema 3: nothing that was kept is without a root."""
    written = record(3, b"value", b"salt")
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    keep(store, A, written)
    store.write([Write(key_of(B), B)])
    store.close()
    with lmdb.open(str(tmp_path), max_dbs=8) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"schema", (2).to_bytes(8, "big"), db=meta)
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    assert {root.key: root for root in roots(store)} == {
        key_of(A): Root(key_of(A), size=len(A.data)),
        key_of(written): Root(key_of(written), size=5, public_key=written.public_key, salt=b"salt"),
    }
    store.close()


# --- Members of private trees -------------------------------------------------------------------


SEALED = Root(key_of(A), size=1, sealed=True)
JOINING = Root(key_of(A), stage="joining", sealed=True)
KEYS = tuple(key_of(block(number)) for number in range(10, 20))


def members(store: Store) -> list[tuple[ItemKey, ...]]:
    """Return the rows of members of A."""
    rows: list[tuple[ItemKey, ...]] = []
    while keys := one(store, ScanMembers(key_of(A), len(rows))).keys:
        rows.append(keys)
    return rows


def note(store: Store) -> None:
    """Note A as joining, with two rows of members."""
    keep(store, A)
    one(store, AddRoot(JOINING))
    assert one(store, AddMembers(key_of(A), 0, KEYS[:6])).done
    assert one(store, AddMembers(key_of(A), 1, KEYS[6:])).done


def test_members_are_noted_while_a_sealed_root_joins_and_forgotten_with_it(store):
    """They are no roots themselves, and are told in rows, as they were noted."""
    note(store)
    assert members(store) == [KEYS[:6], KEYS[6:]]
    assert roots(store) == [JOINING]
    assert one(store, AddRoot(SEALED)).done
    assert not one(store, AddMembers(key_of(A), 0, KEYS[:1])).done
    keep(store, B)
    one(store, AddRoot(ROOT_B))
    assert set(roots(store)) == {SEALED, ROOT_B}
    assert one(store, ScanRoots(1)).roots != ()
    one(store, LeaveRoot(key_of(A), tree=False))
    assert members(store) == [KEYS[:6], KEYS[6:]]
    assert one(store, EndRoot(key_of(A), tree=False)).done
    assert members(store) == []
    assert roots(store) == [ROOT_B]


def test_members_belong_to_sealed_roots_only(store):
    assert not one(store, AddMembers(key_of(A), 0, KEYS)).done
    one(store, AddRoot(Root(key_of(A), stage="joining")))
    assert not one(store, AddMembers(key_of(A), 0, KEYS)).done
    assert members(store) == []


def test_a_sealed_root_is_not_replaced_by_one_of_which_less_is_known(store):
    """Pinning the topmost block alone changes nothing, neither while it joins nor once kept."""
    note(store)
    assert one(store, AddRoot(ROOT_A)).done
    assert roots(store) == [JOINING]
    one(store, AddRoot(SEALED))
    for root in (ROOT_A, Root(key_of(A), stage="joining"), JOINING):
        assert one(store, AddRoot(root)).roots[0].root == SEALED
    assert members(store) == [KEYS[:6], KEYS[6:]]


def test_a_root_that_was_no_more_than_a_block_becomes_a_sealed_one(store):
    keep(store, A)
    one(store, AddRoot(ROOT_A))
    assert one(store, AddRoot(JOINING)).roots[0].root == JOINING


def test_whose_members_are_all_noted_counts_as_new(store):
    """So that who looked at what is needed before looks again."""
    note(store)
    [joining] = one(store, ScanRoots(9)).roots
    added = one(store, NOTHING).added
    told = one(store, AddRoot(SEALED, number=joining.number))
    assert told.roots[0].number > joining.number
    assert told.added > added
    assert not one(store, LetGo((key_of(A),), added)).done


def test_a_sealed_root_that_comes_back_begins_without_members(store):
    note(store)
    one(store, LeaveRoot(key_of(A), tree=False))
    one(store, AddRoot(JOINING))
    assert members(store) == []
