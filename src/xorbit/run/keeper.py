"""The keeper: lets go of pins that no root of the home needs, whatever else goes on.

Which blocks a file or a directory is made of stands in its inner nodes. What another root needs is
found by going through the inner nodes of all others, for a bounded number of pins at a time; the
store refuses to let go where a root came meanwhile, and then the new ones are gone through as well.
A tree that is being pinned may lack nodes: nothing below them is pinned yet, and should they come
just then, the store has whoever pins it do so once more.
A root that is let go of is marked first and forgotten last, its leaves before the nodes that name
them: who is killed in between goes on later where it was, and the worst that remains is a pin too
many.
"""

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterable
from contextlib import aclosing
from itertools import islice
from typing import Protocol

from xorbit.config import (
    LEDGER_ROWS_MAX,
    TREE_BLOCKS_DEPTH_MAX,
    TREE_NODES_MAX,
    UNPIN_BATCH_KEYS_MAX,
    UNPIN_KEYS_MAX,
)
from xorbit.errors import FormatError, NotFoundError, WorldError
from xorbit.files.cid import Cid, Codec
from xorbit.files.tree import children
from xorbit.items import ItemKey
from xorbit.pins import (
    NOTHING,
    EndRoot,
    Kept,
    LeaveRoot,
    LetGo,
    Order,
    Root,
    ScanMembers,
    ScanPins,
    ScanRoots,
    Told,
    root_name,
)
from xorbit.run.joins import Joins
from xorbit.run.pinning import name_of

TREE_NAME_BYTES = 16
"""How much of a node's hash is remembered: nobody finds two that agree in so much."""


class Home(Protocol):
    """What the keeper needs of a node (`local_calls.LocalCalls`)."""

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept."""
        ...

    async def get_block(self, key: ItemKey) -> bytes:
        """Return the bytes of a block."""
        ...


class Keeper:
    """Lets go of the pins of one home, one root at a time."""

    def __init__(self, home: Home) -> None:
        self.joins = Joins()
        self._home = home
        self._turn = asyncio.Lock()
        self._gone = asyncio.Event()

    async def unpin(self, root: Root) -> int:
        """Let go of a root; return how many items have lost their pin.

        Raises:
            NotFoundError: nothing of that name is kept.
            WorldError: what another root is made of cannot be read. This one is gone; its pins go
                as soon as the other can be read again, or is let go of.
        """
        if not (await self._home.tend(LeaveRoot(root.key, root.tree))).done:
            raise NotFoundError(f"{name_of(root)} is not pinned here: 'xorbit pins' lists what is")
        return await self.let_go_of_leaving()

    async def gc(self) -> int:
        """Let go of every pin that no root needs; return how many."""
        async with self._turn:
            count = await self._finish_leaving()
            async with aclosing(self._pinned()) as batches:
                async for batch in batches:
                    count += await self._let_go(batch)
            return count

    async def give_up_joining(self) -> None:
        """Mark what an earlier life of this home was pinning: nobody goes on with it.

        To be called before anybody can pin something in this life.
        """
        async with aclosing(self._roots()) as roots:
            async for kept in roots:
                if kept.root.stage == "joining":
                    await self._home.tend(LeaveRoot(kept.root.key, kept.root.tree))

    async def let_go_of_leaving(self) -> int:
        """Go on with what was being let go of when an earlier life ended; return how many pins."""
        async with self._turn:
            return await self._finish_leaving()

    def gone(self, line: Hashable) -> None:
        """Say that a caller is gone: nobody goes on with what only it was pinning."""
        if self.joins.gone(line):
            self._gone.set()

    async def next_gone(self) -> None:
        """Wait until a caller is gone that may have left something to let go of."""
        await self._gone.wait()
        self._gone.clear()

    # --- What is let go of ------------------------------------------------------------------------

    async def _finish_leaving(self) -> int:
        while (order := self.joins.abandoned()) is not None:
            await self._home.tend(order)
        count = 0
        while (kept := await self._next_leaving()) is not None:
            count += await self._leave(kept.root)
            await self._home.tend(EndRoot(kept.root.key, kept.root.tree, kept.number))
        return count

    async def _next_leaving(self) -> Kept | None:
        async with aclosing(self._roots()) as roots:
            async for kept in roots:
                if kept.root.stage == "leaving":
                    return kept
        return None

    async def _leave(self, root: Root) -> int:
        count = 0
        batch: dict[ItemKey, None] = {}
        async with aclosing(self._keys(_Walk(self._home, root, lenient=True))) as keys:
            async for key in keys:
                batch[key] = None
                if len(batch) >= UNPIN_KEYS_MAX:
                    count += await self._let_go(batch)
                    batch = {}
        return count + await self._let_go(batch)

    async def _let_go(self, keys: Iterable[ItemKey]) -> int:
        """Let go of those of the pins, in this order, that no root needs."""
        rest, count, known = dict.fromkeys(keys), 0, 0
        unseen: dict[bytes, None] = {}
        while rest:
            added = (await self._home.tend(NOTHING)).added
            unseen |= await self._spare(rest, known)
            known = added
            while batch := tuple(islice(rest, UNPIN_BATCH_KEYS_MAX)):
                told = await self._home.tend(LetGo(batch, known, tuple(unseen)))
                if not told.done:  # a root came meanwhile, and may need some of them
                    break
                known = told.added  # those that are to be pinned once more count as added
                count += len(told.keys)
                for key in batch:
                    del rest[key]
        return count

    async def _spare(self, keys: dict[ItemKey, None], known: int) -> dict[bytes, None]:
        """Take out what a root needs that came after those known; return which was not all seen."""
        unseen: dict[bytes, None] = {}
        async with aclosing(self._roots()) as roots:
            async for kept in roots:
                if kept.root.stage == "leaving" or kept.number <= known or not keys:
                    continue
                walk = _Walk(self._home, kept.root, lenient=kept.root.stage == "joining")
                async with aclosing(self._keys(walk)) as needed:
                    async for key in needed:
                        keys.pop(key, None)
                if not walk.is_whole:
                    unseen[root_name(kept.root.key, tree=kept.root.tree)] = None
        return unseen

    # --- What there is ----------------------------------------------------------------------------

    async def _roots(self) -> AsyncGenerator[Kept]:
        after = b""
        while page := (await self._home.tend(ScanRoots(LEDGER_ROWS_MAX, after))).roots:
            for kept in page:
                yield kept
            after = root_name(page[-1].root.key, tree=page[-1].root.tree)

    async def _pinned(self) -> AsyncGenerator[list[ItemKey]]:
        """Give all pinned keys, as many at a time as may be looked at together."""
        batch: list[ItemKey] = []
        after = None
        while page := (await self._home.tend(ScanPins(LEDGER_ROWS_MAX, after))).keys:
            batch += page
            after = page[-1]
            if len(batch) >= UNPIN_KEYS_MAX:
                yield batch
                batch = []
        yield batch

    async def _keys(self, walk: "_Walk") -> AsyncGenerator[ItemKey]:
        """Give the keys of a root's items, each node behind what it names; raises as `below`."""
        root = walk.root
        if root.tree:
            async with aclosing(walk.below(root.key)) as keys:
                async for key in keys:
                    yield key
        row = 0
        while root.sealed and (told := await self._home.tend(ScanMembers(root.key, row))).keys:
            for key in told.keys:
                yield key
            row += 1
        yield root.key


class _Walk:
    """One way through a tree; an inner node that stands in it several times is visited once."""

    def __init__(self, home: Home, root: Root, *, lenient: bool) -> None:
        self.root = root
        self.is_whole = True
        """Whether each node that was come to could be had."""
        self._home = home
        self._lenient = lenient
        self._seen: dict[bytes, None] = {}

    async def below(self, key: ItemKey) -> AsyncGenerator[ItemKey]:
        """Give all that is below a node, each node behind what it names.

        Raises:
            WorldError: a node cannot be had; where this is lenient what it names is left out.
        """
        levels = [_Row(key, await self._children(key))]
        while levels:
            child = next(levels[-1].rest, None)
            if child is None:
                done = levels.pop()
                if levels:
                    yield done.key
            elif child.codec is Codec.RAW:
                yield child.key
            elif self._is_new(child.key) and len(levels) <= TREE_BLOCKS_DEPTH_MAX:
                levels.append(_Row(child.key, await self._children(child.key)))
            else:
                yield child.key

    def _is_new(self, key: ItemKey) -> bool:
        name = bytes((key.kind,)) + key.id[:TREE_NAME_BYTES]
        if name in self._seen:
            return False
        if len(self._seen) < TREE_NODES_MAX:  # of others' trees, no larger ones are pinned
            self._seen[name] = None
        return True

    async def _children(self, key: ItemKey) -> tuple[Cid, ...]:
        try:
            data = await self._home.get_block(key)
            return await asyncio.to_thread(children, Cid(Codec.DAG_PB, key), data)
        except FormatError:
            return ()  # whoever pinned it got no further either
        except WorldError as error:
            self.is_whole = False
            if self._lenient:
                return ()
            raise WorldError(
                f"what is no longer needed cannot be told while a part of {name_of(self.root)} "
                f"is missing ({error}): get that back, or unpin it as well"
            ) from error


class _Row:
    """A node that a walk is in, and those of its children that it has not come to."""

    def __init__(self, key: ItemKey, children: tuple[Cid, ...]) -> None:
        self.key = key
        self.rest = iter(children)
