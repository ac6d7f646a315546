"""What only the store on disk promises, as far as one process can show it."""

import errno
import io
import math
import os
from pathlib import Path

import lmdb
import pytest

from tests.unit.store.samples import (
    QUOTA_BYTES,
    block,
    connection,
    record,
    rewrite,
    rot,
    write,
)
from xorbit.errors import StoreError
from xorbit.ids import Id, id_of
from xorbit.items import Address, Contact, Record, key_of, size_of
from xorbit.pins import AddRoot, Root
from xorbit.store import home as home_module
from xorbit.store.base import DAMAGED, STORED, Usage
from xorbit.store.home import Home
from xorbit.store.lmdb import LmdbStore


@pytest.fixture
def store(tmp_path):
    made = LmdbStore(tmp_path / "home", QUOTA_BYTES)
    yield made
    made.close()


def disk_error(code: int, kind: type[lmdb.Error] = lmdb.Error) -> lmdb.Error:
    error = kind(os.strerror(code))
    error.code = code
    return error


def fail(monkeypatch, *errors: Exception) -> None:
    """Let the next write transactions fail with these errors, one after the other."""
    left = list(errors)
    real = Home.write_txn
    monkeypatch.setattr(Home, "write_txn", lambda self: _raise(left) if left else real(self))


def _raise(left: list[Exception]):
    raise left.pop(0)


# --- Use ----------------------------------------------------------------------------------------


def test_what_holds_anything_is_not_unused(tmp_path):
    """An item, a pin whose item is gone, a root, a contact: each of them is enough."""
    contact = Contact(id_of(b"x" * 32), (Address("192.0.2.1", 1),))
    key = key_of(block(1))

    def lost_pin(store):
        store.write([write(block(1))])
        assert store.pin([key]) == [True]
        rot(store, block(1))
        assert store.drop_damaged([key]) == 1

    uses = {
        "item": lambda store: store.write([write(block(1))]),
        "pin": lost_pin,
        "root": lambda store: store.tend([AddRoot(Root(key, stage="joining"))]),
        "contact": lambda store: store.save_contacts(b"net", [contact]),
    }
    for name, use in uses.items():
        store = LmdbStore(tmp_path / name, QUOTA_BYTES)
        store.save_contacts(b"another net", [])
        assert store.is_unused()
        use(store)
        assert not store.is_unused(), name
        store.close()


# --- Durability ---------------------------------------------------------------------------------


def test_a_commit_is_synced_to_the_disk(store):
    flags = store._home._env.flags()
    assert (flags["sync"], flags["metasync"], flags["map_async"]) == (True, True, False)


def test_a_batch_is_one_commit(store):
    before = store._home._env.info()["last_txnid"]
    store.write([write(block(n)) for n in range(20)] + [write(record(1))])
    assert store._home._env.info()["last_txnid"] == before + 1


def test_a_batch_that_changes_nothing_commits_nothing(store):
    store.write([write(block(1)), write(record(2))])
    before = store._home._env.info()["last_txnid"]
    store.write([write(block(1)), write(record(1)), write(record(2))])
    assert store._home._env.info()["last_txnid"] == before


def test_items_and_counts_outlive_the_process_that_wrote_them(tmp_path):
    items = [block(1), record(1), connection(1)]
    first = LmdbStore(tmp_path, QUOTA_BYTES)
    first.write([write(item) for item in items])
    usage = first.usage()
    first.close()
    second = LmdbStore(tmp_path, QUOTA_BYTES)
    assert second.read([key_of(item) for item in items]) == items
    assert second.usage() == usage == Usage(3, sum(map(size_of, items)), QUOTA_BYTES)
    second.close()


def test_a_lowered_quota_keeps_what_is_held_and_takes_nothing_more(tmp_path):
    weight = size_of(block(1))
    first = LmdbStore(tmp_path, 5 * weight)
    first.write([write(block(n)) for n in range(5)])
    first.close()
    second = LmdbStore(tmp_path, 3 * weight)
    assert second.usage() == Usage(5, 5 * weight, 3 * weight)
    assert [result.code for result in second.write([write(block(1)), write(block(9))])] == [
        "stored",
        "full",
    ]
    second.close()


# --- Failures of the disk -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EFBIG, "full"),
        (errno.EIO, "failed"),
        (errno.ENOMEM, "failed"),
    ],
)
def test_a_failed_commit_is_answered_with_its_reason_and_the_next_one_goes(
    store, monkeypatch, code, answer
):
    fail(monkeypatch, disk_error(code))
    [result] = store.write([write(block(1))])
    assert result.code == answer
    assert "disk" in result.reason
    assert store.read([key_of(block(1))]) == [None]
    assert store.write([write(block(1))]) == [STORED]
    assert store.usage() == Usage(1, size_of(block(1)), QUOTA_BYTES)


def test_a_write_that_the_disk_cut_short_counts_as_full(store, monkeypatch):
    """LMDB says EIO when only a part of its pages could be written."""
    monkeypatch.setattr(Home, "free_bytes", lambda self: 4_096)
    fail(monkeypatch, disk_error(errno.EIO))
    [result] = store.write([write(block(1))])
    assert (result.code, result.reason) == (
        "full",
        f"the disk is full: 4,096 bytes free, {size_of(block(1)):,} wanted",
    )


def test_a_file_system_that_does_not_say_how_much_is_free_counts_as_full(store, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: _raise([OSError(errno.EIO, "gone")]))
    fail(monkeypatch, disk_error(errno.ENOSPC))
    [result] = store.write([write(block(1))])
    assert result.code == "full"
    assert result.reason.startswith("the disk is full: 0 bytes free, ")


def test_a_read_that_lmdb_refuses_is_a_store_error_that_names_the_home(store):
    store._home._env.close()
    with pytest.raises(StoreError, match=f"reading the store in {store._home.path} failed"):
        store.read([key_of(block(1))])


def test_a_batch_that_does_not_fit_is_tried_item_by_item(store, monkeypatch):
    fail(monkeypatch, disk_error(errno.ENOSPC), disk_error(errno.ENOSPC))
    codes = [result.code for result in store.write([write(block(n)) for n in range(3)])]
    assert codes == ["full", "stored", "stored"]


def test_after_a_root_could_not_be_written_the_environment_is_opened_anew(store, monkeypatch):
    store.write([write(block(1))])
    before = store._home._env
    fail(monkeypatch, disk_error(-30795, lmdb.PanicError))
    assert store.write([write(block(2))]) == [STORED]
    assert store._home._env is not before
    assert store.read([key_of(block(1)), key_of(block(2))]) == [block(1), block(2)]
    assert store.usage() == Usage(2, 2 * size_of(block(1)), QUOTA_BYTES)


def test_an_environment_that_cannot_be_opened_anew_is_tried_again_by_the_next_write(
    store, monkeypatch
):
    store.write([write(block(1))])
    opening = monkeypatch.context()
    with opening as cannot:
        fail(cannot, disk_error(-30795, lmdb.PanicError))
        cannot.setattr(Home, "_open_environment", lambda self: _raise([disk_error(errno.EIO)]))
        assert [result.code for result in store.write([write(block(2)), write(block(3))])] == [
            "failed",
            "failed",
        ]
        with pytest.raises(StoreError, match="closed"):
            store.read([key_of(block(1))])
    assert store.write([write(block(2))]) == [STORED]
    assert store.read([key_of(block(1))]) == [block(1)]


def test_a_drop_that_the_disk_refuses_says_so_and_removes_nothing(store, monkeypatch):
    store.write([write(block(1))])
    rot(store, block(1))
    fail(monkeypatch, disk_error(errno.EIO))
    with pytest.raises(StoreError, match=str(store._home.path)):
        store.drop_damaged([key_of(block(1))])
    assert store.read([key_of(block(1))]) == [DAMAGED]


# --- Damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [record(1), connection(1)], ids=["record", "connection"])
def test_no_flipped_byte_of_a_record_is_ever_given_out(store, item):
    """Whatever byte flips: the item itself (where the encoding allows it), or DAMAGED."""
    store.write([write(item)])
    with store._home.read_txn() as txn:
        [intact] = [raw for _, raw in txn.cursor()]
    for at in range(len(intact)):
        for bit in (0x01, 0x80):
            flipped = intact[:at] + bytes([intact[at] ^ bit]) + intact[at + 1 :]
            rewrite(store, item, lambda _, flipped=flipped: flipped)
            assert store.read([key_of(item)])[0] in (DAMAGED, item)


@pytest.mark.parametrize("heal", ["drop", "overwrite"])
@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x00" * 5_000], ids=["empty", "one", "many"])
def test_the_count_is_exact_again_after_a_record_that_became_no_record(store, junk, heal):
    store.write([write(record(1)), write(connection(1)), write(block(1))])
    rewrite(store, record(1), lambda raw: junk)
    if heal == "drop":
        assert store.drop_damaged([key_of(record(1))]) == 1
        store.write([write(record(1))])
    assert store.write([write(record(1))]) == [STORED]
    held = [record(1), connection(1), block(1)]
    assert store.usage() == Usage(3, sum(map(size_of, held)), QUOTA_BYTES)


def test_an_item_under_the_wrong_key_is_damaged(store):
    other = record(1, salt=b"other")
    store.write([write(record(1)), write(other)])
    with store._home.read_txn() as txn:
        raw = txn.get(key_of(other).id + bytes([key_of(other).kind]))
    rewrite(store, record(1), lambda _: raw)
    assert store.read([key_of(record(1)), key_of(other)]) == [DAMAGED, other]


def test_a_key_that_rotted_to_nonsense_is_passed_over(store):
    store.write([write(block(1))])
    with store._home.write_txn() as txn:
        txn.put(bytes(32) + b"\xee", b"junk")
    assert store.keys_from(Id(bytes(32)), 5) == [key_of(block(1))]


# --- Opening ------------------------------------------------------------------------------------


def test_a_second_opening_is_refused_and_names_the_home(store):
    with pytest.raises(StoreError, match=r"in use by another process: stop .* --home") as caught:
        LmdbStore(store._home.path, QUOTA_BYTES)
    assert str(store._home.path) in str(caught.value)


def test_closing_lets_the_next_one_in_and_may_be_repeated(store):
    store.close()
    store.close()
    LmdbStore(store._home.path, QUOTA_BYTES).close()


def test_a_closed_store_says_that_it_is_closed(store):
    store.close()
    for call in (store.read, store.have, store.drop_damaged):
        with pytest.raises(StoreError, match="is closed"):
            call([key_of(block(1))])
    [result] = store.write([write(block(1))])
    assert (result.code, "is closed" in result.reason) == ("failed", True)


def test_a_home_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot open a store in"):
        LmdbStore(tmp_path / "file" / "home", QUOTA_BYTES)


def test_a_map_that_the_system_refuses_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot open the store in"):
        LmdbStore(tmp_path, 2**60)
    LmdbStore(tmp_path, QUOTA_BYTES).close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    LmdbStore(tmp_path, QUOTA_BYTES).close()
    set_schema(tmp_path, 4)
    for _ in range(2):
        with pytest.raises(StoreError, match="has schema 4, this xorbit knows 3: use the xorbit"):
            LmdbStore(tmp_path, QUOTA_BYTES)
    set_schema(tmp_path, 2)
    LmdbStore(tmp_path, QUOTA_BYTES).close()


def test_a_store_of_the_first_version_opens_with_all_its_items_as_young_as_can_be(tmp_path):
    store = LmdbStore(tmp_path, QUOTA_BYTES, clock=lambda: 1_000.0)
    assert store.write([write(block(1)), write(record(1))]) == [STORED] * 2
    store.close()
    with lmdb.open(str(tmp_path), max_dbs=4) as env, env.begin(write=True) as txn:
        for name in (b"times", b"pins"):
            txn.drop(env.open_db(name, txn))
    set_schema(tmp_path, 1)
    now = 5_000.0
    store = LmdbStore(tmp_path, QUOTA_BYTES, clock=lambda: now)
    now = 5_007.0
    assert {entry.age_s for entry in store.scan(Id(bytes(32)), 10)} == {7.0}
    assert store.read([key_of(record(1))]) == [record(1)]
    store.close()
    LmdbStore(tmp_path, QUOTA_BYTES).close()


def set_schema(path: Path, schema: int) -> None:
    with lmdb.open(str(path), max_dbs=2) as env:
        meta = env.open_db(b"meta")
        with env.begin(db=meta, write=True) as txn:
            txn.put(b"schema", schema.to_bytes(8, "big"))


def test_a_file_that_lies_as_it_was_left_is_not_looked_through_again(tmp_path, monkeypatch):
    looks: list[str] = []
    real = home_module.verify
    monkeypatch.setattr(home_module, "verify", lambda path: looks.append(path) or real(path))
    for _ in range(3):
        LmdbStore(tmp_path, QUOTA_BYTES).close()
    assert looks == []
    os.utime(tmp_path / "data.mdb", (1, 1))
    LmdbStore(tmp_path, QUOTA_BYTES).close()
    assert len(looks) == 1


# --- Growing ------------------------------------------------------------------------------------


@pytest.fixture
def small_map(monkeypatch):
    monkeypatch.setattr(home_module, "MAP_BYTES_MIN", 256 * 1024)
    monkeypatch.setattr(home_module, "MAP_PER_QUOTA", 0)


def test_the_map_grows_when_a_batch_does_not_fit(small_map, tmp_path):
    store = LmdbStore(tmp_path, 2**30)
    items = [block(n, 60_000) for n in range(30)]
    assert store.write([write(item) for item in items]) == [STORED] * 30
    assert store.read([key_of(item) for item in items]) == items
    store.close()


def test_at_its_largest_the_store_is_full_and_keeps_what_it_has(small_map, tmp_path):
    store = LmdbStore(tmp_path, 2**30)
    items = [block(n, 60_000) for n in range(80)] + [record(1)]
    results = dict(zip(map(key_of, items), store.write([write(i) for i in items]), strict=True))
    refused = [result for result in results.values() if result != STORED]
    assert {result.code for result in refused} == {"full"}
    wanted = f"{size_of(items[0]):,} wanted"
    assert refused[0].reason == f"the store's file is at its largest, {wanted}"
    kept = [item if results[key_of(item)] == STORED else None for item in items]
    assert store.read([key_of(item) for item in items]) == kept
    assert isinstance(kept[-1], Record)
    store.close()


def test_a_map_that_cannot_grow_is_a_failure_and_the_next_write_opens_the_store_anew(
    small_map, tmp_path
):
    store = LmdbStore(tmp_path, 2**30)
    items = [block(n, 60_000) for n in range(8)]
    assert store.write([write(items[0])]) == [STORED]
    take_room_from(store)
    [*_, last] = store.write([write(item) for item in items])
    assert last == STORED  # the environment opened anew has memory again
    assert store.read([key_of(item) for item in items]) == items
    store.close()


def test_a_store_larger_than_its_first_map_opens_again(small_map, tmp_path):
    first = LmdbStore(tmp_path, 2**30)
    items = [block(n, 60_000) for n in range(30)]
    first.write([write(item) for item in items])
    first.close()
    second = LmdbStore(tmp_path, 2**30)
    assert second.read([key_of(item) for item in items]) == items
    second.close()


# --- The map, laid anew -------------------------------------------------------------------------


class CannotMap:
    """An environment for whose map the system has no room: LMDB has let go of the old one then."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env

    def __getattr__(self, name: str):
        return getattr(self._env, name)

    def set_mapsize(self, size: int) -> None:
        self._env.close()
        raise disk_error(errno.ENOMEM, lmdb.MemoryError)


def take_room_from(store) -> None:
    store._home._env = CannotMap(store._home._env)


@pytest.fixture
def lays(monkeypatch):
    """Return the list of maps laid; the fourth lookup is one too many."""
    made: list[int] = []
    real = Home._lay_map
    monkeypatch.setattr(home_module, "VIEWED_BYTES_MAX", 3 * home_module.VIEWED_PER_LOOKUP_BYTES)
    monkeypatch.setattr(home_module, "resident_file_bytes", lambda: math.inf)
    monkeypatch.setattr(Home, "_lay_map", lambda self, size: made.append(size) or real(self, size))
    return made


LOOKUPS = {
    "read": lambda store, items: store.read([key_of(item) for item in items]),
    "have": lambda store, items: store.have([key_of(item) for item in items]),
    "keys_from": lambda store, items: store.keys_from(Id(bytes(32)), len(items)),
    "drop_damaged": lambda store, items: store.drop_damaged([key_of(item) for item in items]),
    "write": lambda store, items: store.write([write(item) for item in items]),
}


@pytest.mark.parametrize("look", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("batches", [[4], [3, 1], [1, 1, 1, 1]], ids=str)
def test_whatever_looks_at_enough_of_the_map_has_it_laid_anew_as_large(store, lays, look, batches):
    items = [block(n) for n in range(4)]
    store.write([write(item) for item in items])
    before = store._home._env.info()["map_size"]
    lays.clear()
    for size in batches:
        assert lays == []
        look(store, items[:size])
    assert lays == [before]
    assert store._home._env.info()["map_size"] == before
    assert store.read([key_of(item) for item in items]) == items


def test_a_map_of_which_little_is_in_memory_is_not_laid_anew(store, lays, monkeypatch):
    monkeypatch.setattr(store._home, "_resident_before", 1_000.0)
    monkeypatch.setattr(home_module, "resident_file_bytes", lambda: 2_000.0)
    for _ in range(3):
        store.have([key_of(block(n)) for n in range(4)])
    assert lays == []


def test_where_the_system_does_not_say_what_is_in_memory_it_counts_as_everything(monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_: io.StringIO("no numbers"))
    assert home_module.resident_file_bytes() == math.inf


def test_a_count_made_anew_looks_at_every_item(store, lays):
    items = [record(1), *(block(n) for n in range(3))]
    store.write([write(item) for item in items])
    rewrite(store, items[0], lambda _: b"")
    lays.clear()
    assert store.drop_damaged([key_of(items[0])]) == 1
    assert len(lays) == 1


def test_while_a_write_is_under_way_the_map_stays_and_is_laid_anew_after_it(store, lays):
    items = [block(n) for n in range(3)]
    store.write([write(item) for item in items])
    with store._writing:
        assert store.read([key_of(item) for item in items]) == items
    assert lays == []
    assert store.write([write(items[0])]) == [STORED]
    assert len(lays) == 1


def test_a_read_gives_what_it_found_when_the_map_cannot_be_laid_anew(store, lays):
    """Reads say that the store is closed then, until a write has opened it anew."""
    items, keys = [block(n) for n in range(3)], [key_of(block(n)) for n in range(3)]
    store.write([write(item) for item in items])
    take_room_from(store)
    assert store.read(keys) == items
    with pytest.raises(StoreError, match="is closed"):
        store.read(keys)
    assert store.write([write(block(3))]) == [STORED]
    assert store.read(keys) == items
    assert store.usage() == Usage(4, 4 * size_of(block(1)), QUOTA_BYTES)


def test_a_write_is_acknowledged_when_the_map_cannot_be_laid_anew_after_it(store, lays):
    items, keys = [block(n) for n in range(4)], [key_of(block(n)) for n in range(4)]
    take_room_from(store)
    assert store.write([write(item) for item in items]) == [STORED] * 4
    assert store.drop_damaged(keys) == 0
    assert store.read(keys) == items


def test_contacts_outlive_a_restart_and_damaged_ones_are_none(tmp_path):
    contacts = (Contact(id_of(b"a"), (Address("10.0.0.1", 1),)),)
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    store.save_contacts(b"n" * 32, contacts)
    store.close()
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    assert store.load_contacts(b"n" * 32) == contacts
    with store._home.write_txn() as txn:
        txn.put(b"n" * 32, b"rot", db=store._home.contacts)
    assert store.load_contacts(b"n" * 32) == ()
    store.close()
    with pytest.raises(StoreError):
        store.load_contacts(b"n" * 32)
    with pytest.raises(StoreError):
        store.save_contacts(b"n" * 32, contacts)


def test_a_disk_that_fails_while_contacts_are_saved_is_said(tmp_path, monkeypatch):
    store = LmdbStore(tmp_path, QUOTA_BYTES)

    def fail():
        raise disk_error(errno.EIO)

    monkeypatch.setattr(store._home, "write_txn", fail)
    with pytest.raises(StoreError):
        store.save_contacts(b"n" * 32, ())
    monkeypatch.undo()
    store.close()
