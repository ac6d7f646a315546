"""Pinning: how what a caller put, published or named becomes a root of the home.

Works over the calls of a node, so that it is the same in its own process and over the local socket.
What another root still needs when one is let go of is keeper.py's. No sockets and no state here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from xorbit import homes
from xorbit.config import LEDGER_ROWS_MAX, MEMBERS_ROW_KEYS, PIN_TRIES_MAX
from xorbit.errors import MisuseError, WorldError, XorbitError
from xorbit.files import transfer, trees
from xorbit.files.cid import Cid, Codec, Place, parse_cid, parse_place
from xorbit.files.flow import Blocks, BlocksToGet, Progress, in_thread
from xorbit.files.local import Source
from xorbit.files.local_tree import look_through
from xorbit.files.opened import inner, opened
from xorbit.files.seal_key import KEY_MARK, SealKey, without_key
from xorbit.files.sealed import Making
from xorbit.files.transfer import PutSummary
from xorbit.files.unixfs import FileNode
from xorbit.ids import ID_BYTES, Id
from xorbit.items import Block, Item, ItemKey, Record, key_of, pasted, record_key
from xorbit.pins import (
    NOTHING,
    AddMembers,
    AddRoot,
    Kept,
    LeaveRoot,
    Order,
    Root,
    ScanRoots,
    Told,
    root_name,
)

RootName = str | Cid | ItemKey
"""What is pinned: a CID, parsed or not, as text also with the key of private content behind it; a
public key in hex; or a key."""


class Pins(Protocol):
    """What of a node's calls is needed here (`calls.Calls`)."""

    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept."""
        ...

    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it."""
        ...

    async def get_block(self, key: ItemKey) -> bytes:
        """Return the bytes of a block."""
        ...

    async def unpin(self, name: RootName, salt: bytes = b"") -> int:
        """Let go of a root."""
        ...


def root_from(name: RootName, salt: bytes = b"") -> Root:
    """Return the root, of a size not known yet, that a name means; raises as `root_and_key`."""
    return root_and_key(name, salt)[0]


def root_and_key(name: RootName, salt: bytes = b"") -> tuple[Root, SealKey | None]:
    """Return the root, of a size not known yet, that a name means, and what opens its blocks.

    Raises:
        MisuseError: not a name, or a salt for what is no record.
    """
    if not isinstance(name, str) or KEY_MARK not in name:
        return _plain_root(name, salt), None
    place = parse_place(pasted(name))
    if salt or place.path:
        raise MisuseError(
            f"{without_key(name)}: private content has no salt, and is pinned as a whole"
        )
    return Root(place.cid.key, sealed=True), place.seal


def _plain_root(name: RootName, salt: bytes) -> Root:
    name = pasted(name) if isinstance(name, str) else name
    if isinstance(name, str) and len(name) == 2 * ID_BYTES and _is_hex(name):
        public_key = bytes.fromhex(name)
        return Root(record_key(public_key, salt), public_key=public_key, salt=salt)
    if salt:
        raise MisuseError(f"only a record has a salt; {name} is no public key")
    cid = parse_cid(name) if isinstance(name, str) else name
    if isinstance(cid, ItemKey):
        return Root(cid)
    return Root(cid.key, tree=cid.codec is Codec.DAG_PB)


def _is_hex(text: str) -> bool:
    return not text.strip("0123456789abcdefABCDEF")


def name_of(root: Root) -> str:
    """Return the name by which a user knows a root: a CID, or a public key in hex."""
    return root.public_key.hex() if root.is_record else str(cid_of(root))


def cid_of(root: Root) -> Cid:
    """Return the CID of a root that is a file."""
    return Cid(Codec.DAG_PB if root.tree else Codec.RAW, root.key)


def root_of(record: Record) -> Root:
    """Return the root of a record."""
    size, public_key, salt = len(record.value), record.public_key, record.salt
    return Root(key_of(record), size=size, public_key=public_key, salt=salt)


async def all_roots(pins: Pins) -> tuple[Kept, ...]:
    """Return what is kept, in the order in which it was put or pinned, the latest last."""
    found: list[Kept] = []
    page: Sequence[Kept] = ()
    after = b""
    while page := (await pins.tend(ScanRoots(LEDGER_ROWS_MAX, after))).roots:
        found += page
        after = root_name(page[-1].root.key, tree=page[-1].root.tree)
    found.sort(key=lambda kept: (-kept.put_age_s, kept.number))
    return tuple(found)


# --- Put ----------------------------------------------------------------------------------------


async def put_file(
    pins: Pins, blocks: Blocks, source: Source, kind: Making, progress: Progress | None
) -> PutSummary:
    """Put a file, and note it as a root once all of it is acknowledged.

    Pins that are let go of while it runs, for another file that shares blocks with this one, may
    have been meant for both: then all of this one is pinned again.
    """
    if isinstance(source, Path):
        await _refuse_home(source)
    seen = (await pins.tend(NOTHING)).unpins
    done = await transfer.put_file(blocks, source, kind=kind, progress=progress)
    return await _settled(pins, done, seen)


async def put_tree(
    pins: Pins, blocks: Blocks, path: Path, kind: Making, progress: Progress | None
) -> PutSummary:
    """Put a directory or a file, and note it as a root, as `put_file` does."""
    await _refuse_home(path)
    seen = (await pins.tend(NOTHING)).unpins
    done = await transfer.put_tree(blocks, path, kind=kind, progress=progress)
    return await _settled(pins, done, seen, is_directory=await asyncio.to_thread(path.is_dir))


async def _refuse_home(path: Path) -> None:
    await in_thread(lambda: look_through(path, homes.refuse_keys))


async def _settled(
    pins: Pins, done: PutSummary, seen: int, *, is_directory: bool = False
) -> PutSummary:
    tree, seal = done.cid.codec is Codec.DAG_PB, done.seal
    root = Root(done.cid.key, tree, done.bytes, is_directory=is_directory, sealed=seal is not None)
    not_kept = done.not_kept or await settle(pins, root, seen, seal=seal)
    return msgspec.structs.replace(done, not_kept=not_kept)


class ImportSummary(Struct, frozen=True):
    """What became of a CAR that was imported."""

    roots: tuple[Cid, ...]
    bytes: int
    """Of its raw blocks, together."""
    blocks: int
    """How many different blocks; as of `PutSummary`."""
    holders_min: int
    """How many nodes hold the block that the fewest hold; `fewest` says which."""
    fewest: tuple[Id, ...]
    """The nodes that hold the block that the fewest others hold."""
    not_kept: str = ""
    """Why it is not kept and refreshed from here; "" where it is."""
    held_before: int = 0
    """How many of the blocks, among those of 1 KiB and more, the network had already."""
    unasked: int = 0
    """How many are smaller than that: they are sent without asking who has them already."""
    others_min: int = 0
    """How many nodes besides the one that put it hold the block that the fewest others hold."""


async def import_car(
    pins: Pins, blocks: Blocks, source: Source, progress: Progress | None
) -> ImportSummary:
    """Put the blocks of a CAR, then pin each of its roots; what the CAR lacks of them is fetched.

    Raises:
        NotFoundError: a part of a root is neither in the CAR nor anywhere else.
        XorbitError: as `trees.import_car`.
    """
    roots, done = await trees.import_car(blocks, source, progress=progress)
    if not done.not_kept:
        for cid in roots:
            await pin(pins, root_from(cid))
    return ImportSummary(
        roots=roots,
        bytes=done.bytes,
        blocks=done.blocks,
        holders_min=done.holders_min,
        fewest=done.fewest,
        not_kept=done.not_kept,
        held_before=done.held_before,
        unasked=done.unasked,
        others_min=done.others_min,
    )


async def settle(
    pins: Pins,
    root: Root,
    seen: int | None = None,
    item: Item | None = None,
    seal: SealKey | None = None,
) -> str:
    """Note as a root what has been put and pinned, and return why that could not be; "" if it was.

    What was put is in the network all the same, so this is no failure of the put.
    """
    try:
        if seal is not None:
            await pin(pins, root, seal=seal, put_since=seen)
        elif not (await pins.tend(AddRoot(root, seen))).done:
            await pin(pins, root, item=item)
    except WorldError as error:
        return str(error)
    return ""


# --- Pin ----------------------------------------------------------------------------------------


async def pin(
    pins: Pins,
    root: Root,
    *,
    item: Item | None = None,
    progress: Progress | None = None,
    seal: SealKey | None = None,
    put_since: int | None = None,
) -> Root:
    """Pin all that belongs to a root, fetch what is missing, and note it; return it with its size.

    From the first moment it counts among the roots, so that nothing of it is let go of meanwhile.
    When it fails, what it had pinned is let go of.

    Args:
        pins: Where.
        root: What.
        item: The topmost item, where it is here already.
        progress: Told of the bytes of raw blocks.
        seal: Of a sealed root, what opens its blocks.
        put_since: All of a sealed root was put and pinned, since pins were let go of so often.
    """
    joining = msgspec.structs.replace(root, stage="joining")
    number = (await pins.tend(AddRoot(joining))).roots[0].number
    try:
        if seal is None:
            whole = await _pin_plain(pins, root, number, item, progress)
        else:
            whole = await _pin_sealed(pins, joining, number, seal, progress, put_since)
    except BaseException as error:
        # Again: who has unpinned it meanwhile did not see what was pinned since.
        await pins.tend(AddRoot(joining))
        left = await pins.tend(LeaveRoot(root.key, root.tree, joining_only=True))
        if left.done and isinstance(error, XorbitError):  # else the keeper's next turn does it
            await pins.unpin(name_of(root), root.salt)
        raise
    return whole


async def _pin_plain(
    pins: Pins, root: Root, number: int, item: Item | None, progress: Progress | None
) -> Root:
    """Pin a file or a record; once more where pins were let go of before all of it was here."""
    for _ in range(PIN_TRIES_MAX):
        whole = await _pin_items(pins, root, item, progress)
        told = await pins.tend(AddRoot(whole, number=number))
        if told.done:
            return whole
        if not told.roots:
            break
        [there] = told.roots
        if there.root.stage == "kept":  # by another pin, which was faster
            return there.root
        number = there.number
    raise _unpinned(root)


def _unpinned(root: Root) -> WorldError:
    return WorldError(f"{name_of(root)} was unpinned before all of it was pinned")


async def _pin_items(pins: Pins, root: Root, item: Item | None, progress: Progress | None) -> Root:
    if root.is_record:
        found = await pins.keep(root.key, item)
        assert isinstance(found, Record), "the key is that of a record"
        return root_of(found)
    return await _pin_tree(pins, root, None, progress)


async def _pin_tree(
    pins: Pins, root: Root, seal: SealKey | None, progress: Progress | None
) -> Root:
    blocks, cid = opened(_Keeping(pins), seal), inner(cid_of(root), seal)
    found = await trees.find(blocks, Place(cid))
    total = found.node.size if isinstance(found.node, FileNode) else None
    size = await trees.fetch_all(blocks, cid, progress=progress, total=total)
    size = size if total is None else total
    return msgspec.structs.replace(root, size=size, is_directory=found.is_directory)


async def _pin_sealed(
    pins: Pins,
    joining: Root,
    number: int,
    seal: SealKey,
    progress: Progress | None,
    put_since: int | None,
) -> Root:
    """Pin a private tree and note what it is made of: without the key nobody can see that later.

    Until all of that is noted, pins of it may be let go of; where any were, it is pinned again.
    """
    whole = None if put_since is None else msgspec.structs.replace(joining, stage="kept")
    seen = put_since
    for _ in range(PIN_TRIES_MAX):
        told = await pins.tend(AddRoot(joining))
        [there] = told.roots
        if there.number != number:
            if there.root.stage == "kept":  # by another pin, which was faster
                return there.root
            break
        if whole is None:
            seen = told.unpins
            whole = await _pin_tree(pins, joining, seal, progress)
            whole = msgspec.structs.replace(whole, stage="kept")
        await note_members(pins, joining.key, opened(pins, seal), inner(cid_of(joining), seal))
        if (await pins.tend(AddRoot(whole, seen, number))).done:
            return whole
        whole = None
    raise _unpinned(joining)


async def note_members(pins: Pins, key: ItemKey, blocks: BlocksToGet, root: Cid) -> None:
    """Note what a private tree is made of, in the order of the tree."""
    row = 0
    members: list[ItemKey] = []
    async with aclosing(trees.all_names(blocks, root)) as cids:
        async for cid in cids:
            members.append(cid.key)
            if len(members) == MEMBERS_ROW_KEYS:
                await pins.tend(AddMembers(key, row, tuple(members)))
                row, members = row + 1, []
    if members:
        await pins.tend(AddMembers(key, row, tuple(members)))


class _Keeping:
    """Blocks that are pinned when they are got."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    async def get_block(self, key: ItemKey) -> bytes:
        found = await self._pins.keep(key)
        assert isinstance(found, Block), "the key is that of a block"
        return found.data
