"""The window: it fills a long fat pipe, leaves a thin one free, and follows a way that changes."""

import asyncio
import random

import pytest

from tests.unit.files.virtual import Desk, Pipe, run_virtual
from xorbit.config import WINDOW_BLOCKS, WINDOW_BLOCKS_FIRST, WINDOW_BLOCKS_MIN
from xorbit.errors import MisuseError
from xorbit.files.flow import Window
from xorbit.files.transfer import get_file, put_file

BLOCK = 65_536
CONTENT = random.Random(1).randbytes(3_000 * BLOCK)


def part(blocks: int) -> bytes:
    return CONTENT[: blocks * BLOCK]


def both_ways(pipe: Pipe, blocks: int) -> tuple[float, float]:
    """Return how long a put and then a get of so many blocks take; the bytes come back the same."""

    async def put():
        return await put_file(pipe, part(blocks))

    done, put_s = run_virtual(put())
    pipe._free_at = 0.0
    got: list[bytes] = []

    async def get():
        return await get_file(pipe, done.cid, got.append)

    _, get_s = run_virtual(get())
    assert b"".join(got) == part(blocks)
    return put_s, get_s


def test_a_long_fat_pipe_is_filled() -> None:
    """50 MB/s that take 100 ms hold 76 blocks: either way comes near to what it carries."""
    pipe = Pipe(0.1, 50e6)
    for took_s in both_ways(pipe, 3_000):
        assert took_s < 1.35 * 3_000 * BLOCK / 50e6  # 32 blocks in flight take 2.4 times as long
    assert pipe.in_flight_after(0.9) < 4 * 76


def test_a_thin_pipe_is_not_flooded() -> None:
    """1 Mbit/s: blocks never wait long for each other, and the line is full all the same."""
    pipe = Pipe(0.05, 125e3)
    for took_s in both_ways(pipe, 200):
        assert took_s < 1.1 * 200 * BLOCK / 125e3
    assert pipe.in_flight_max <= 2 * WINDOW_BLOCKS_FIRST
    assert pipe.in_flight_after(0.75) <= WINDOW_BLOCKS_FIRST + 1


def test_where_blocks_take_seconds_few_are_in_flight() -> None:
    """200 kbit/s: a block takes 2.6 s alone, and requests time out after 10."""
    pipe = Pipe(0.05, 25e3)
    both_ways(pipe, 40)
    assert pipe.in_flight_max <= WINDOW_BLOCKS_FIRST + 1
    assert pipe.in_flight_after(0.75) <= WINDOW_BLOCKS_MIN + 1


def test_a_latency_without_a_bound_is_met_by_the_ceiling() -> None:
    """However much would fit, no more than the most is in flight, so memory is bounded."""
    pipe = Pipe(0.1, 1e12)
    both_ways(pipe, 3_000)
    assert pipe.in_flight_max <= WINDOW_BLOCKS + 1


@pytest.mark.parametrize("at_once", [1, 6, 24])
def test_busy_processors_are_kept_busy(at_once: int) -> None:
    """Who answers six at once is asked for six, and not for hundreds that would wait."""
    desk = Desk(at_once, 0.002)
    put_s, _ = both_ways(desk, 2_000)
    assert put_s < 1.25 * 2_000 * 0.002 / at_once
    assert desk.in_flight_after(0.75) <= 6 * at_once + 4


def test_it_follows_a_way_that_changes() -> None:
    """A line that thins out while a put runs ends with few blocks in flight; a wider one, many."""
    for before, after, low, high in ((50e6, 1e6, 0, 16), (1e6, 50e6, 30, WINDOW_BLOCKS)):
        pipe = Pipe(0.1, before)

        def change(done: int, _: int | None, pipe: Pipe = pipe, after: float = after) -> None:
            if done > 600 * BLOCK:
                pipe.bytes_per_s = after

        async def put(pipe: Pipe = pipe, change=change):
            return await put_file(pipe, part(3_000), progress=change)

        run_virtual(put())
        assert low <= pipe.in_flight_after(0.9) <= high


# --- Who waits ----------------------------------------------------------------------------------


async def test_who_gives_up_waiting_takes_nobodys_turn() -> None:
    """Also where it gives up in the very moment at which its turn has come."""
    window = Window(1)
    await window.acquire()
    first, second, third = (asyncio.create_task(window.acquire()) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    window.release(1)
    second.cancel()  # it has been let in, and has not run yet
    await asyncio.wait([second])
    assert second.cancelled()
    async with asyncio.timeout(10):
        await third


def test_nothing_fits_through_a_window_of_none() -> None:
    with pytest.raises(MisuseError, match="at least 1 block"):
        Window(0)
