"""Work on threads: who began it does not let go of its files before it is over."""

import asyncio
import threading

import pytest

from xorbit.files.flow import in_thread


async def test_work_on_a_thread_is_waited_for_however_often_it_is_cancelled() -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait()
        done.append("work")

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work"]
