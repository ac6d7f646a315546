"""The local callers of a node: who waits for which call, who follows, who waits for room.

Between whoever calls in this process (or over the local socket) and the machine's queue. Decides
nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import Protocol

from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.effect import Outcome
from xorbit.core.job import Job
from xorbit.core.queue import JobQueue
from xorbit.errors import StoppedError
from xorbit.ids import Guid
from xorbit.items import Block, Item, ItemKey, Record
from xorbit.run.following import Follower


class Body(Protocol):
    """What local callers need of the driver."""

    def post(self, job: Job, line: Hashable = ..., size: int = ...) -> None:
        """Push a job."""
        ...

    def new_guid(self) -> Guid:
        """Return a fresh guid."""
        ...


class Callers:
    """Who waits for what."""

    def __init__(self, body: Body, queue: JobQueue, limits: Limits) -> None:
        self._body = body
        self._queue = queue
        self._limits = limits
        self._calls: dict[Guid, asyncio.Future[Outcome]] = {}
        self._followers: dict[Guid, Callable[[Record], None]] = {}
        """Who is told of newer versions of a record, by the guid of the Follow."""
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Those that wait until their line has room."""
        self._over = False

    async def call(self, job: Job, line: Hashable) -> Outcome:
        """Push a job that ends in a Finish, and wait for its outcome.

        Waits first while the line is full. When this is cancelled, so is the work.

        Raises:
            StoppedError: the node stopped before the work was done.
        """
        guid: Guid = getattr(job, "guid")  # noqa: B009 - each job that ends in a Finish has one
        await self.room(line)
        caller = self._calls[guid] = asyncio.get_running_loop().create_future()
        self._body.post(job, line, _size(job))
        try:
            return await caller
        except asyncio.CancelledError:
            if not self._over:
                self._body.post(jobs.Cancel(guid), line)
            raise
        finally:
            self._calls.pop(guid, None)

    async def follow(self, key: ItemKey, line: Hashable) -> AsyncGenerator[Record | Outcome]:
        """Give the newest version of a record, then each newer one as it comes, until closed.

        An outcome, where one comes, is the last thing given: the node could not go on.

        Raises:
            StoppedError: the node stopped.
        """
        job = jobs.Follow(self._body.new_guid(), key)
        follower = Follower(self._limits.follow_versions_max)
        self._followers[job.guid] = follower.push
        try:
            async with aclosing(follower.until(self.call(job, line))) as versions:
                async for version in versions:
                    yield version
        finally:
            del self._followers[job.guid]

    async def room(self, line: Hashable) -> None:
        """Wait until this source may bring another job.

        Raises:
            StoppedError: the node has stopped.
        """
        while not self._queue.has_room(line) and not self._over:
            await self._wait(line)
        if self._over:
            raise StoppedError("this node has stopped")

    def let_in(self, line: Hashable) -> None:
        """Let the first that waits for this line go on, where it has room again."""
        if self._waiting and self._queue.has_room(line):
            self._wake(line)

    def finish(self, guid: Guid, outcome: Outcome) -> None:
        """Tell a caller how its call ended."""
        caller = self._calls.pop(guid, None)
        if caller is not None and not caller.done():
            caller.set_result(outcome)

    def push(self, guid: Guid, record: Record) -> None:
        """Tell a follower of a newer version."""
        take = self._followers.get(guid)
        if take is not None:
            take(record)

    def dismiss(self) -> None:
        """Tell all that the node has stopped; nobody is let in any more."""
        self._over = True
        for caller in self._calls.values():
            if not caller.done():
                caller.set_exception(StoppedError("this node stopped before the call was done"))
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait(self, line: Hashable) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(line, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(line)  # the place was meant for us: hand it on
            raise

    def _wake(self, line: Hashable) -> None:
        waiting = self._waiting.get(line, ())
        while waiting:
            caller = waiting.popleft()
            if not waiting:
                del self._waiting[line]
            if not caller.done():
                caller.set_result(None)
                return


def _size(job: Job) -> int:
    item: Item | None = getattr(job, "item", None)
    return len(item.data) if isinstance(item, Block) else 0
