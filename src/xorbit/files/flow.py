"""How blocks move: many in flight, bounded memory, in order where that matters, one error for all.

What transfer.py and trees.py stand on; with them and reader.py the only files of this room that
know asyncio. They know no sockets: blocks go through `Blocks`. What holds up a loop (hashing, the
disk, the caller's sink) runs on a worker thread.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

from xorbit.config import FLOW_STEPS_MAX, WINDOW_BLOCKS
from xorbit.errors import MisuseError, XorbitError
from xorbit.files.cid import Cid, Codec
from xorbit.files.pace import Pace
from xorbit.files.tree import Steps, Want
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[int, int | None], object]
"""Called on the loop with the bytes done so far, and the bytes in all where they are known."""

Sink = Callable[[bytes], object]
"""Called on a worker thread, never twice at once, with the bytes of the file in order."""


class PutReceipt(Protocol):
    """What `store_block` answers; more than this is not looked at."""

    @property
    def holders(self) -> tuple[Id, ...]:
        """The nodes that hold the block."""
        ...

    @property
    def others(self) -> tuple[Id, ...]:
        """Those of them that are not the node that put it."""
        ...

    @property
    def not_kept(self) -> str:
        """Why it is not pinned here; "" where it is."""
        ...

    @property
    def held_before(self) -> bool:
        """Whether a node had it already, so that it was not sent there."""
        ...


class BlocksToGet(Protocol):
    """Where blocks come from: a node, or a fake."""

    async def get_block(self, key: ItemKey) -> bytes:
        """Return the bytes of a block, proved by its hash, at most 65,536.

        Raises:
            XorbitError: it could not be had.
        """
        ...


class Blocks(BlocksToGet, Protocol):
    """Where blocks go to as well."""

    async def store_block(self, data: bytes, kind: Kind) -> PutReceipt:
        """Store a block and say who holds it; one that is held already need not be sent.

        Raises:
            XorbitError: nobody does.
        """
        ...


class Window:
    """Lets a block go when there is room: as many are in flight as the throughput asks for.

    Each `acquire` that returns is followed by one `release`.
    """

    def __init__(self, most: int) -> None:
        """Let at most so many blocks be in flight."""
        check_window(most)
        self._pace = Pace(most)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait for room; who waits longest goes first."""
        loop = asyncio.get_running_loop()
        if self._waiting or self._in_flight >= self._pace.window:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.append(waiter)
            await self._turn(waiter)
        else:
            self._in_flight += 1
        self._pace.begin(loop.time())

    def release(self, size: int) -> None:
        """Say that a block, of so many bytes, is done with."""
        self._in_flight -= 1
        self._pace.done(asyncio.get_running_loop().time(), size, self._in_flight)
        self._wake()

    async def _turn(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter  # who wakes us has counted us in
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._in_flight -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._in_flight < self._pace.window:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)


# --- Fetching -----------------------------------------------------------------------------------


class Nodes(Protocol):
    """Inner nodes that were fetched before, and are to be had again (partial.py)."""

    def get(self, cid: Cid) -> bytes | None:
        """Return a node that proves itself, if it is there."""
        ...

    def add(self, cid: Cid, data: bytes) -> None:
        """Keep a node."""
        ...


class Fetcher:
    """Gets the blocks of one tree; those that will be wanted next are fetched meanwhile.

    Of these as many are in flight as the throughput asks for, at most `window`, and four times as
    many in memory; what came and was never wanted gives way to what is wanted sooner. `close` at
    the end.
    """

    def __init__(
        self,
        blocks: BlocksToGet,
        root: Cid,
        what: str = "file",
        window: int = WINDOW_BLOCKS,
        nodes: "Nodes | None" = None,
    ) -> None:
        """Get the blocks of `root`; errors call it a `what`. What `nodes` has is not asked for."""
        check_window(window)
        self._nodes = nodes
        self._blocks = blocks
        self._root = root
        self._what = what
        self._most = window
        self._window = Window(window)
        self._coming: dict[Cid, asyncio.Task[bytes]] = {}

    async def get(self, want: Want) -> bytes:
        """Return the block that is wanted.

        Raises:
            XorbitError: whatever `get_block` raised, with the name of the block.
        """
        task = self._coming.pop(want.cid, None) or asyncio.create_task(self.fetch(want.cid))
        for cid in want.ahead[: self._most]:
            if cid not in self._coming:
                self._begin(cid)
        return await task

    async def fetch(self, cid: Cid) -> bytes:
        """Return a block, past what was fetched ahead."""
        nodes = self._nodes
        if nodes is None or cid.codec is Codec.RAW:
            return await self._ask(cid)
        if (kept := await in_thread(lambda: nodes.get(cid))) is not None:
            return kept
        data = await self._ask(cid)
        await in_thread(lambda: nodes.add(cid, data))
        return data

    async def _ask(self, cid: Cid) -> bytes:
        try:
            return await self._blocks.get_block(cid.key)
        except XorbitError as error:  # to write names takes as long as to hash a small block
            part = "" if cid == self._root else f"block {cid} of {self._what} "
            raise type(error)(f"cannot get {part}{self._root}: {error}") from error

    async def close(self) -> None:
        """Cancel what is still coming."""
        tasks = list(self._coming.values())
        self._coming.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, cid: Cid) -> None:
        if len(self._coming) >= 4 * self._most:
            self._coming.pop(next(iter(self._coming))).cancel()
        task = self._coming[cid] = asyncio.create_task(self._fetch_ahead(cid))
        task.add_done_callback(_heed)

    async def _fetch_ahead(self, cid: Cid) -> bytes:
        await self._window.acquire()
        size = 0
        try:
            data = await self.fetch(cid)
            size = len(data)
            return data
        finally:
            self._window.release(size)


def _heed(task: asyncio.Task[bytes]) -> None:
    """Take the error of a block that nobody wanted in the end; asyncio would log it."""
    if not task.cancelled():
        task.exception()


async def drive(steps: Steps[T, object], fetcher: Fetcher) -> AsyncGenerator[T]:
    """Answer every `Want` of a generator of tree.py; yield its results."""
    step = next(steps, None)
    while step is not None:
        if isinstance(step, Want):
            step = await hand_in(steps, step.cid, await fetcher.get(step))
        else:
            yield step
            step = next(steps, None)


async def finish(steps: Generator[Want, bytes, R], fetcher: Fetcher) -> R:
    """Answer every `Want` of a generator that yields nothing else; return its end."""
    results: list[R] = []

    def kept() -> Generator[Want, bytes, None]:
        results.append((yield from steps))

    asking = kept()
    want = next(asking, None)
    while want is not None:
        want = await hand_in(asking, want.cid, await fetcher.get(want))
    return results[0]


async def all_of(
    steps: Generator[Want, bytes, object], fetcher: Fetcher
) -> AsyncGenerator[tuple[Cid, bytes]]:
    """Answer every `Want`; yield each block that was wanted, before the generator has it."""
    step = next(steps, None)
    while step is not None:
        data = await fetcher.get(step)
        yield step.cid, data
        step = await hand_in(steps, step.cid, data)


async def hand_in(steps: Generator[T, bytes, object], cid: Cid, data: bytes) -> T | None:
    """Hand a block in and return what comes next, None at the end; nodes take time to read."""
    if cid.codec is Codec.RAW:
        return _next(steps, data)
    return await in_thread(lambda: _next(steps, data))


def _next(steps: Generator[T, bytes, object], data: bytes) -> T | None:
    try:
        return steps.send(data)
    except StopIteration:
        return None


# --- In order -----------------------------------------------------------------------------------


class Flow:
    """Steps that are done one after the other on a worker thread; some first wait for a block.

    As many blocks are in flight or waiting for their turn as the throughput asks for, at most
    `window`. `deliver` runs in a task of its own until `end`.
    """

    def __init__(
        self, tasks: asyncio.TaskGroup, window: int, tell: Callable[[int], object]
    ) -> None:
        """Fetch in `tasks`; tell how many bytes were delivered, each time there are some."""
        self._tasks = tasks
        self._window = Window(window)
        self._steps: asyncio.Queue[_Step | None] = asyncio.Queue(FLOW_STEPS_MAX)
        self._tell = tell

    async def block(self, fetched: Callable[[], Awaitable[bytes]], do: Sink) -> None:
        """Begin to fetch a block, and let something be done with its bytes in its turn."""

        async def fetch() -> bytes:
            return await fetched()

        await self._window.acquire()
        await self._steps.put((self._tasks.create_task(fetch()), do, 0))

    async def then(self, do: Callable[[], object], size: int = 0) -> None:
        """Let something be done in its turn, which counts as so many bytes."""
        await self._steps.put((None, lambda _: do(), size))

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self._steps.put(None)

    async def deliver(self) -> None:
        """Do the steps, those that are ready together in one go; until the end."""
        batch: list[_Ready] = []
        while step := await self._steps.get():
            task, do, size = step
            if task is not None and not task.done():
                await self._flush(batch)  # it never waits with any in hand
            batch.append((None if task is None else await task, do, size))
            if self._steps.empty() or len(batch) >= FLOW_STEPS_MAX:
                await self._flush(batch)
        await self._flush(batch)

    async def _flush(self, batch: "list[_Ready]") -> None:
        if not batch:
            return
        await in_thread(lambda: _do_all(batch))
        sizes = [len(data) for data, _, _ in batch if data is not None]
        done = sum(sizes) + sum(size for _, _, size in batch)
        batch.clear()
        for size in sizes:
            self._window.release(size)
        if done:
            self._tell(done)


_Step = tuple[asyncio.Task[bytes] | None, Sink, int]
"""The block that it waits for, what is to be done, and what that counts as besides the block."""
_Ready = tuple[bytes | None, Sink, int]


def _do_all(batch: list[_Ready]) -> None:
    for data, do, _ in batch:
        do(data or b"")


# --- All ----------------------------------------------------------------------------------------


def silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def check_window(window: int) -> None:
    """Refuse a window that nothing fits through.

    Raises:
        MisuseError: it is below 1.
    """
    if window < 1:
        raise MisuseError(f"expected a window of at least 1 block, got {window}")


@contextmanager
def naming(what: str) -> Generator[None]:
    """Put what was being done before an error's message; its kind, and so its blame, stays."""
    try:
        yield
    except XorbitError as error:
        raise type(error)(f"{what}: {error}") from error


@asynccontextmanager
async def owned_tasks() -> AsyncGenerator[asyncio.TaskGroup]:
    """Give a task group whose first failure comes out as itself instead of in an ExceptionGroup."""
    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    if first is not None:  # raised out here, or it would have itself in its context
        raise first


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work on a worker thread. When cancelled, wait for it first: it has our files."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():  # it may be cancelled more than once
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise
