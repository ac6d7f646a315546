"""Between the versions of a record as they come and a local caller who may be slow to take them.

Used at both ends of the local socket: by the driver, and by the client of a running node.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from xorbit.items import Record

T = TypeVar("T")


class Follower:
    """Keeps the latest versions for a caller: where it is too slow, the oldest are passed over."""

    def __init__(self, versions_max: int) -> None:
        self._versions: deque[Record] = deque(maxlen=versions_max)
        self._changed = asyncio.Event()

    def push(self, record: Record) -> None:
        """Take a newer version in; never waits."""
        self._versions.append(record)
        self._changed.set()

    async def until(self, work: Coroutine[Any, Any, T]) -> AsyncGenerator[Record | T]:
        """Give the versions as they come while `work` goes on, then what it returned.

        Closing this cancels the work.

        Raises:
            Exception: what the work raised.
        """
        going_on = asyncio.ensure_future(work)
        going_on.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                while self._versions:
                    yield self._versions.popleft()
                if going_on.done():
                    yield going_on.result()
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            going_on.cancel()
            await asyncio.wait([going_on])
