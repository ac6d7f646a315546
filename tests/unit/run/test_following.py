"""A follower between versions as they come and a caller who may be slow."""

import asyncio
from contextlib import aclosing

import pytest
from nacl.signing import SigningKey

from xorbit.items import Record, make_record
from xorbit.run.following import Follower

KEY = SigningKey(bytes(range(32)))


def version_of(seq: int) -> Record:
    return make_record(KEY, seq, b"value")


async def test_a_slow_caller_misses_the_oldest_never_the_newest() -> None:
    follower, end = Follower(3), asyncio.Event()
    for seq in range(1, 11):
        follower.push(version_of(seq))
    async with aclosing(follower.until(end.wait())) as versions:
        assert [await anext(versions) for _ in range(3)] == [version_of(seq) for seq in (8, 9, 10)]
        waiting = asyncio.ensure_future(anext(versions))
        await asyncio.sleep(0)
        follower.push(version_of(11))
        assert await waiting == version_of(11)


async def test_what_came_before_the_end_is_given_before_it() -> None:
    async def work() -> str:
        return "the end"

    follower = Follower(3)
    follower.push(version_of(1))
    assert [given async for given in follower.until(work())] == [version_of(1), "the end"]


async def test_a_failure_of_the_work_comes_out() -> None:
    async def work() -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await anext(Follower(3).until(work()))


async def test_who_leaves_ends_the_work() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    follower = Follower(3)
    follower.push(version_of(1))
    versions = follower.until(work())
    await anext(versions)
    await asyncio.sleep(0)  # it begins
    await versions.aclose()
    assert ended == [True]
