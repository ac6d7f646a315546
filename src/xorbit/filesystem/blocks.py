"""The calls of a home, for several readers at once: no block is asked for twice at a time.

Those that were read last are kept, since programs open the same file again and again: once for what
is in it, once for each part. When the node that was used is gone, another is looked for, or started
here: a notebook outlives its node. On one event loop; nothing of fsspec may enter.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, NoReturn, TypeVar

from xorbit.config import FS_ATTACH_PAUSE_S, FS_ATTACH_S, FS_BLOCKS_IN_FLIGHT_MAX, FS_HELD_BYTES_MAX
from xorbit.errors import MisuseError, NotFoundError, StoppedError, StoreError
from xorbit.files.flow import PutReceipt
from xorbit.files.pointer import RecordPlace, TreeVersion
from xorbit.filesystem.problems import READ_ONLY, UnavailableError
from xorbit.items import Item, ItemKey, Kind
from xorbit.pins import Order, Told
from xorbit.run.file_calls import FileCalls, Name, cid_from

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

Opening = Callable[[], AbstractAsyncContextManager[FileCalls]]
"""How calls are come by, and left at the end."""


class Latest(Generic[K, V]):
    """What was used last, up to a weight; the rest is forgotten."""

    def __init__(self, most: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        """Keep values that weigh `most` together."""
        self._most = most
        self._weigh = weigh
        self._held: OrderedDict[K, V] = OrderedDict()
        self._weight = 0

    def get(self, key: K) -> V | None:
        """Return what is held under a key."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: K, value: V) -> V:
        """Hold a value, as long as there is room, and return it."""
        if key in self._held:
            self._weight -= self._weigh(self._held.pop(key))
        self._held[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._most:
            _, last = self._held.popitem(last=False)
            self._weight -= self._weigh(last)
        return value

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
        self._weight = 0


class _Coming:
    """A block that is being fetched, and how many wait for it."""

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.waiting = 0


class SharedCalls(FileCalls):
    """What a home's node is asked for by all who read from it here; for reading only."""

    def __init__(self, opening: Opening) -> None:
        """Open the calls when they are first needed."""
        self._opening = opening
        self._calls: FileCalls | None = None
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(FS_BLOCKS_IN_FLIGHT_MAX)
        self._held: Latest[ItemKey, bytes] = Latest(FS_HELD_BYTES_MAX, len)
        self._coming: dict[ItemKey, _Coming] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Leave; who still waits for a block is cancelled."""
        self._is_closed = True
        tasks = [coming.task for coming in self._coming.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        async with self._lock:
            await self._leave()

    # --- Reading ----------------------------------------------------------------------------------

    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block; whoever wants it at the same time shares it.

        Raises:
            UnavailableError: nobody that could be asked holds it.
            XorbitError: as `FileCalls.get_block`, or what kept the calls from being opened.
        """
        wanted = cid_from(key).key
        held = self._held.get(wanted)
        return await self._shared(wanted) if held is None else held

    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item; raises as `get_block`."""
        return await self._ask(lambda calls: calls.get_signed(key))

    async def newest_tree(self, place: RecordPlace) -> TreeVersion:
        """Return the newest version of a key's tree.

        Raises:
            UnavailableError: nobody has the record, or it points to no tree.
            XorbitError: as `get_block`.
        """
        try:
            return await super().newest_tree(place)
        except NotFoundError as error:
            raise UnavailableError(str(error)) from error

    async def _shared(self, key: ItemKey) -> bytes:
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = _Coming(asyncio.create_task(self._fetch(key)))
            coming.task.add_done_callback(_heed)
        coming.waiting += 1
        try:
            return await asyncio.shield(coming.task)
        except asyncio.CancelledError:
            if self._is_closed:  # not who waits was cancelled, but what it waits for
                raise _closed() from None
            raise
        finally:
            coming.waiting -= 1
            if not coming.waiting:
                coming.task.cancel()  # changes nothing where it is done
                if self._coming.get(key) is coming:
                    del self._coming[key]

    async def _fetch(self, key: ItemKey) -> bytes:
        async with self._slots:
            data = await self._ask(lambda calls: calls.get_block(key))
        return self._held.put(key, data)

    async def _ask(self, what: Callable[[FileCalls], Awaitable[T]]) -> T:
        calls = await self._attached()
        try:
            try:
                return await what(calls)
            except StoppedError:
                async with self._lock:
                    if self._calls is calls:
                        await self._leave()
                return await what(await self._attached())
        except NotFoundError as error:
            raise UnavailableError(str(error)) from error

    # --- The calls --------------------------------------------------------------------------------

    async def _attached(self) -> FileCalls:
        """Return the calls; open them, as soon as no other process is about to use the home."""
        if self._calls is not None:
            return self._calls
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + FS_ATTACH_S
        async with self._lock:
            while self._calls is None:
                if self._is_closed:
                    raise _closed()
                try:
                    self._calls = await self._stack.enter_async_context(self._opening())
                except StoreError:
                    if loop.time() > patience_ends:
                        raise
                    await asyncio.sleep(FS_ATTACH_PAUSE_S)
            return self._calls

    async def _leave(self) -> None:
        self._calls = None
        await self._stack.aclose()

    # --- What is not done here --------------------------------------------------------------------

    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Refuse."""
        _refuse()

    async def tend(self, order: Order) -> Told:
        """Refuse."""
        _refuse()

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Refuse."""
        _refuse()

    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Refuse."""
        _refuse()


def _closed() -> StoppedError:
    return StoppedError("this file system was closed, as it is when the interpreter ends")


def _refuse() -> NoReturn:
    raise MisuseError(READ_ONLY)


def _heed(task: asyncio.Task[bytes]) -> None:
    """Take the error of a block that nobody waits for any more; asyncio would log it."""
    if not task.cancelled():
        task.exception()
