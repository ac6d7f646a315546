"""Reads go on while another thread writes, and see what was acknowledged before they were asked."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.store.samples import block, write
from xorbit.errors import StoreError
from xorbit.ids import Id
from xorbit.items import Block, key_of
from xorbit.store import home
from xorbit.store.base import STORED, ReadResult
from xorbit.store.lmdb import LmdbStore

BLOCKS = [block(n, 20_000) for n in range(400)]
BATCH = 8
READERS = 3


class Progress:
    """How many of BLOCKS are acknowledged; readers stop when the writer has."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.done = threading.Event()
        self.first = threading.Event()


def write_all(store: LmdbStore, progress: Progress) -> None:
    try:
        for n in range(0, len(BLOCKS), BATCH):
            batch = [write(each) for each in BLOCKS[n : n + BATCH]]
            assert store.write(batch) == [STORED] * BATCH
            progress.acknowledged = n + BATCH
            progress.first.set()
    finally:
        progress.first.set()
        progress.done.set()


def read_while_written(store: LmdbStore, progress: Progress) -> int:
    rounds = 0
    progress.first.wait(30)
    while not progress.done.is_set() or not rounds:
        held: list[Block] = BLOCKS[: progress.acknowledged][-60:]
        keys = [key_of(each) for each in held]
        assert store.have(keys) == [True] * len(keys)
        assert store.read(keys) == held
        assert set(keys) <= set(store.keys_from(Id(bytes(32)), len(BLOCKS)))
        rounds += 1
    return rounds


@pytest.mark.parametrize("map_grows", [False, True])
def test_reads_during_writes_see_all_that_was_acknowledged(tmp_path, monkeypatch, map_grows):
    """Also while the map is moved under them because the file outgrows it."""
    if map_grows:
        monkeypatch.setattr(home, "MAP_BYTES_MIN", 2**20)
        monkeypatch.setattr(home, "MAP_PER_QUOTA", 0)
    store, progress = LmdbStore(tmp_path, 2**30), Progress()
    with ThreadPoolExecutor(READERS + 1) as pool:
        readers = [pool.submit(read_while_written, store, progress) for _ in range(READERS)]
        pool.submit(write_all, store, progress).result()
        assert all(reader.result() for reader in readers)
    assert store.read([key_of(each) for each in BLOCKS]) == BLOCKS
    store.close()


def test_the_map_is_laid_anew_under_reads_and_writes_and_both_stay_right(tmp_path, monkeypatch):
    """Every batch written is enough for that, and so is every round of reading."""
    layers: list[int] = []
    real = home.Home._lay_map

    def lay(self: home.Home, size: int) -> None:
        layers.append(threading.get_ident())
        real(self, size)

    monkeypatch.setattr(home, "VIEWED_BYTES_MAX", 4 * home.VIEWED_PER_LOOKUP_BYTES)
    monkeypatch.setattr(home, "resident_file_bytes", lambda: math.inf)
    monkeypatch.setattr(home.Home, "_lay_map", lay)
    store, progress = LmdbStore(tmp_path, 2**30), Progress()
    with ThreadPoolExecutor(READERS + 1) as pool:
        readers = [pool.submit(read_while_written, store, progress) for _ in range(READERS)]
        pool.submit(write_all, store, progress).result()
        assert all(reader.result() for reader in readers)
        assert len(layers) >= len(BLOCKS) / BATCH
        layers.clear()
        readers = [pool.submit(read_all, store) for _ in range(READERS)]
        assert all(reader.result() == BLOCKS for reader in readers)
        assert len(layers) >= 3
        assert threading.get_ident() not in layers
    store.close()


def read_all(store: LmdbStore) -> list[ReadResult]:
    keys = [key_of(each) for each in BLOCKS]
    return [item for n in range(0, len(keys), BATCH) for item in store.read(keys[n : n + BATCH])]


def test_closing_during_reads_ends_them_with_an_error_and_no_crash(tmp_path):
    store, reading = LmdbStore(tmp_path, 2**30), threading.Event()
    store.write([write(each) for each in BLOCKS[:50]])
    keys = [key_of(each) for each in BLOCKS[:50]]

    def read_until_closed() -> None:
        while True:
            assert store.read(keys) == BLOCKS[:50]
            reading.set()

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_until_closed)
        assert reading.wait(30)
        store.close()
        with pytest.raises(StoreError, match="is closed"):
            reader.result(30)
