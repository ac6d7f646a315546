"""Threads, event loops, pickles, and nodes that come and go under a file system."""

import asyncio
import errno
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.filesystem.home import (
    LARGE,
    NOBODY,
    SMALL,
    FakeHome,
    FakeSystem,
    leaves_asked,
)
from xorbit.errors import MisuseError, StoppedError, StoreError
from xorbit.files.cid import Codec
from xorbit.filesystem import XorbitFileSystem
from xorbit.filesystem.blocks import SharedCalls
from xorbit.items import Kind
from xorbit.pins import ScanRoots

WITHIN_S = 20.0


# --- Threads, loops, processes ------------------------------------------------------------------


def test_several_threads_share_what_they_read(fs: FakeSystem, home: FakeHome, top: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fs.cat_file, [f"{top}/large"] * 16))
    assert found == [LARGE] * 16
    assert set(leaves_asked(home).values()) == {1}


def test_any_event_loop_may_await_it(home: FakeHome, top: str) -> None:
    """It reads on a loop of its own, so that no caller's loop is held up or left waiting."""
    fs = home.system(asynchronous=True)

    fs.invalidate_cache()

    async def read() -> None:
        assert await fs._cat_file(f"{top}/small") == SMALL
        assert await fs._find(f"{top}/sub") == [f"{top}/sub/deep/small"]
        async with await fs.open_async(f"xorbit://{top}/large") as file:
            file.seek(100)
            assert await file.read(10) == LARGE[100:110]
            assert await file.read() == LARGE[110:]
            assert await file.read() == b""
        unclosed = await fs.open_async(f"{top}/small")
        del unclosed
        with pytest.raises(PermissionError):
            await fs.open_async(f"{top}/small", "wb")

    asyncio.run(read())
    asyncio.run(read())
    fs.fake.stop()
    asyncio.run(read())


def test_who_stops_waiting_stops_the_fetching(fs: FakeSystem, home: FakeHome, top: str) -> None:
    asked, cancelled = threading.Event(), threading.Event()

    async def hang() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    home.before_answer = hang

    async def read() -> None:
        reading = asyncio.create_task(fs._cat_file(f"{top}/small"))
        assert await asyncio.to_thread(asked.wait, WITHIN_S)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(read())
    assert cancelled.wait(WITHIN_S)


def test_it_is_pickled_by_its_options_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef")
    fs = XorbitFileSystem(
        home=tmp_path, bootstrap="127.0.0.1:1", network="n", network_secret=secret
    )
    data = pickle.dumps(fs)
    assert b"0123456789abcdef" not in data
    assert pickle.loads(data) is fs
    again = XorbitFileSystem.from_json(fs.to_json())
    assert again._options == fs._options
    assert again._options.bootstrap == ("127.0.0.1:1",)


def test_an_open_file_is_pickled_as_where_it_is(
    home: FakeHome, fs: FakeSystem, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSystem, "__reduce__", lambda self: (_again, (id(home),)))
    HOMES[id(home)] = home
    with fs.open(f"{top}/large") as file:
        file.seek(1_000)
        with pickle.loads(pickle.dumps(file)) as again:
            assert again.tell() == 1_000
            assert again.read(10) == LARGE[1_000:1_010]
            assert again == file


HOMES: dict[int, FakeHome] = {}


def _again(home: int) -> FakeSystem:
    return HOMES[home].system()


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Not as if the path that is asked for were not there."""
    fs = XorbitFileSystem(home=tmp_path / "home", network_secret=tmp_path / "none")
    with pytest.raises(OSError, match="cannot read the network's secret") as caught:
        fs.exists(NOBODY)
    assert caught.value.errno == errno.EINVAL


# --- The node -----------------------------------------------------------------------------------


def test_a_node_that_stops_is_replaced(fs: FakeSystem, home: FakeHome, top: str) -> None:
    """Open files go on reading."""
    with fs.open(f"{top}/large") as file:
        file.read(1)
        home.stop()
        assert file.read() == LARGE[1:]
    assert (len(home.opened), home.left) == (2, 1)


def test_a_home_that_is_in_use_is_waited_for(fs: FakeSystem, home: FakeHome, top: str) -> None:
    """The process that has it is about to share it, or to leave it."""
    home.fails_to_open = [StoreError("in use")] * 3
    assert fs.cat_file(f"{top}/small") == SMALL
    assert home.fails_to_open == []


def test_a_home_that_stays_in_use_is_an_error(
    fs: FakeSystem, home: FakeHome, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xorbit.filesystem.blocks.FS_ATTACH_S", -1.0)
    home.fails_to_open = [StoreError("in use")]
    with pytest.raises(OSError, match="in use"):
        fs.cat_file(f"{top}/small")


def test_who_still_reads_when_it_is_closed_is_told(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    """As when the interpreter ends: nobody gets nothing and takes it for what is in the file."""
    asked = threading.Event()

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    home.before_answer = hang
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(fs.cat_file, f"{top}/small")
        assert asked.wait(WITHIN_S)
        fs.line.close()
        with pytest.raises(ConnectionAbortedError, match="was closed"):
            reading.result(WITHIN_S)


def test_the_home_is_left_when_nobody_can_read_from_it(home: FakeHome, top: str) -> None:
    """An open file can."""
    fs = home.system()
    file = fs.open(f"{top}/large")
    del fs
    gc.collect()
    assert file.read(10) == LARGE[:10]
    assert home.left == 0
    del file
    gc.collect()
    assert home.all_left.wait(WITHIN_S)


def test_what_only_writers_ask_for_is_refused(home: FakeHome) -> None:
    async def ask() -> None:
        calls = SharedCalls(home.open)
        for refused in (
            calls.store_block(b"", Kind.BLOCK_BLAKE3_256),
            calls.tend(ScanRoots(1)),
            calls.keep(calls_key),
            calls.unpin(NOBODY),
        ):
            with pytest.raises(MisuseError, match="read-only"):
                await refused
        await calls.close()
        with pytest.raises(StoppedError):
            await calls.get_block(NOBODY)

    calls_key = home.add(b"", Codec.RAW).key
    asyncio.run(ask())
