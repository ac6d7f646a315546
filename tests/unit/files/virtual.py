"""A loop whose clock jumps to what comes next, and networks of a given latency and bandwidth on it.

Nothing waits: an hour on such a loop takes as long as what happens in it. Work for threads is done
at once, and takes no time.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tests.unit.files.fakes import Receipt
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind, block_key

T = TypeVar("T")


class _AtOnce(ThreadPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as a thread hands it on
            done.set_exception(error)
        return done


class _Jumping(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "it waits for what will never come"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is that of what happens on it."""

    def __init__(self) -> None:
        self._virtual = _Jumping()
        super().__init__(self._virtual)
        self.set_default_executor(_AtOnce())

    def time(self) -> float:
        return self._virtual.now


def run_virtual(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run to the end; return what came of it, and how long it took there."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.close()


class Pipe:
    """A network behind one line: blocks go through it one after the other, then take their time."""

    def __init__(self, latency_s: float, bytes_per_s: float) -> None:
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.held: dict[ItemKey, bytes] = {}
        self.in_flight = 0
        self.in_flight_max = 0
        self.seen: list[tuple[float, int]] = []
        """When a block was sent off, and how many were in flight then."""
        self._free_at = 0.0

    async def store_block(self, data: bytes, kind: Kind) -> Receipt:
        await self._pass(len(data))
        self.held[block_key(data, kind)] = data
        return Receipt((Id(bytes(32)),))

    async def get_block(self, key: ItemKey) -> bytes:
        data = self.held[key]
        await self._pass(len(data))
        return data

    async def _pass(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        self.seen.append((loop.time(), self.in_flight))
        self._free_at = max(self._free_at, loop.time()) + size / self.bytes_per_s
        try:
            await asyncio.sleep(self._free_at + self.latency_s - loop.time())
        finally:
            self.in_flight -= 1

    def in_flight_after(self, share: float) -> int:
        """Return how many were in flight at most in the later part, from this share on."""
        return max(count for _, count in self.seen[int(share * len(self.seen)) :])


class Desk(Pipe):
    """A network that answers so many at once and each in the same time, as busy processors do."""

    def __init__(self, at_once: int, each_s: float) -> None:
        super().__init__(0.0, 1.0)
        self._ready = [0.0] * at_once
        self._each_s = each_s

    async def _pass(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        self.seen.append((loop.time(), self.in_flight))
        done_at = max(heapq.heappop(self._ready), loop.time()) + self._each_s
        heapq.heappush(self._ready, done_at)
        try:
            await asyncio.sleep(done_at - loop.time())
        finally:
            self.in_flight -= 1
