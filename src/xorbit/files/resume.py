"""Gets that go on where an interrupted one stopped: what partial.py keeps, as transfers use it.

The disk is read on a worker thread, some leaves at a time.
"""

import errno
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from xorbit.config import PARTIAL_LOOK_LEAVES
from xorbit.errors import FormatError, LeadsOutError, WriteError, XorbitError
from xorbit.files.cid import Codec
from xorbit.files.flow import BlocksToGet, in_thread
from xorbit.files.local import Identity
from xorbit.files.opened import Opening
from xorbit.files.partial import Partial
from xorbit.files.unixfs import Child

Skip = Callable[[int, Identity], object]
"""Leaves so many bytes as they are, of the file that was looked at."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@asynccontextmanager
async def resuming(path: Path, what: str, blocks: BlocksToGet) -> AsyncGenerator[Partial]:
    """Give what an interrupted get of `what` to a path left; keep what this one leaves.

    Nothing is kept of what lies, where the disk is full, and of private content: once it is opened,
    nothing of it proves itself. An error says what is kept, as does a note at the end of what is
    cancelled.
    """
    kept = await in_thread(lambda: Partial(path, what))
    try:
        await in_thread(kept.open)
        yield kept
    except XorbitError as error:
        if _is_lie(error) or _is_full(error):
            await in_thread(kept.discard)
            raise
        if not await _keep(kept, blocks):
            raise
        raise type(error)(f"{error}; {_told(kept)}") from error
    except Exception:
        await in_thread(kept.discard)
        raise
    except BaseException as interrupted:
        if await _keep(kept, blocks):
            interrupted.add_note(_told(kept))
        raise
    await in_thread(kept.discard)


def _is_lie(error: XorbitError) -> bool:
    """Return whether no get of this will ever be whole; without its links it may be."""
    return isinstance(error, FormatError) and not isinstance(error, LeadsOutError)


def _is_full(error: BaseException | None) -> bool:
    """Return whether the disk has nothing left, as the system said beneath an error."""
    while isinstance(error, WriteError):
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in _FULL


async def _keep(kept: Partial, blocks: BlocksToGet) -> bool:
    if isinstance(blocks, Opening):
        await in_thread(kept.discard)
        return False
    return await in_thread(kept.keep)


def _told(kept: Partial) -> str:
    return f"what came is kept in {kept.folder} for a week: the same get goes on from there"


class OldLeaves:
    """The leaves of one file that are there from before."""

    def __init__(self, kept: Partial, path: Sequence[str], skip: Skip) -> None:
        """Look at the file at this path of the tree, () where it is all there is."""
        self.skip = skip
        self._kept = kept
        self._path = path
        self._found: dict[int, Identity | None] = {}
        """What is known of the leaves that come next, by where they begin."""

    async def find(self, children: Sequence[Child], number: int, at: int) -> Identity | None:
        """Return in which file the leaf `number` stands at a byte; None where it is missing.

        It looks at the leaves behind it as well, which are asked for next.
        """
        if at not in self._found:
            self._found.clear()
            leaves = _leaves(children[number : number + PARTIAL_LOOK_LEAVES])
            seen = await in_thread(lambda: self._kept.look(self._path, at, leaves))
            for index, leaf in enumerate(leaves):
                is_there = seen is not None and seen.there[index]
                self._found[at] = seen.identity if seen is not None and is_there else None
                at += leaf.size
            at -= sum(leaf.size for leaf in leaves)
        return self._found.pop(at, None)


def _leaves(children: Sequence[Child]) -> list[Child]:
    """Return the leaves that children begin with; without bytes there is nothing to look for."""
    found: list[Child] = []
    for child in children:
        if child.cid.codec is not Codec.RAW or child.size == 0:
            break
        found.append(child)
    return found


def real_path(path: Path) -> Path:
    """Return where a file that is written to a path will be: what a link names is replaced."""
    return Path(os.path.realpath(path))
