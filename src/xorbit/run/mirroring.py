"""Mirroring: a folder is brought to the newest version of a tree, and kept there.

Works over whatever follows records and gets blocks for a caller. What is whose in the folder, and
how it changes, stands in files/mirror.py; here are what is fetched, and when.

A version is fetched whole before anything of it shows. A block is fetched only if the folder has it
nowhere: nodes are kept beside what they describe, leaves are read from the files that hold them.
"""

import asyncio
import shlex
import shutil
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from xorbit.config import (
    MIRROR_COMING_MAX,
    MIRROR_RETRY_S,
    MIRROR_STEPS_AT_ONCE,
    WINDOW_BLOCKS,
)
from xorbit.errors import FormatError, NotFoundError, WorldError, XorbitError
from xorbit.files.cid import Cid, Codec, parse_cid
from xorbit.files.directory import SymbolicLink
from xorbit.files.flow import (
    BlocksToGet,
    Fetcher,
    Flow,
    Progress,
    drive,
    finish,
    in_thread,
    naming,
    owned_tasks,
    silent,
)
from xorbit.files.held_folder import TreePath
from xorbit.files.mirror import Change, Listing, LocalLeaves, inner_nodes, shown_path
from xorbit.files.mirror_folder import MirrorFolder, State, Version
from xorbit.files.pointer import RecordPlace, TreeVersion, tree_version
from xorbit.files.transfer import FileParts, file_root
from xorbit.files.tree import Found, open_block, walk
from xorbit.files.unixfs import FileNode
from xorbit.files.visits import SeenBlocks
from xorbit.items import Record


class Mirrored(Struct, frozen=True):
    """A version that a folder was brought to, and what that took."""

    seq: int
    cid: Cid
    files: int
    """How many files and symbolic links were written."""
    removed: int
    """How many were removed."""
    fetched_blocks: int
    fetched_bytes: int
    reused_bytes: int
    """What files that were written have from files that were there."""
    left_out: tuple[str, ...]
    """Where something that the mirror did not make is in the way of the version; quoted."""
    lost: tuple[int, ...] = ()
    """Which versions, that something here was of, cannot be read any more: what is of them and was
    not noted counts as the user's."""


class NotMirrored(Struct, frozen=True):
    """A version that a folder could not be brought to, and why; it stays at `at` (0: at none)."""

    seq: int
    at: int
    error: str


class NoDirectoryError(NotFoundError):
    """What is published is no directory, and never will be in that version."""


class Source(BlocksToGet, Protocol):
    """What a mirror needs of a node's calls (`calls.Calls`)."""

    def follow(self, public_key: bytes, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one."""
        ...

    async def newest_tree(self, place: RecordPlace) -> TreeVersion:
        """Return the newest version that is found of a tree published under a key."""
        ...


@asynccontextmanager
async def open_mirror(
    blocks: BlocksToGet, place: RecordPlace, path: Path, progress: Progress | None = None
) -> AsyncGenerator["Mirror"]:
    """Give a mirror of the trees of a record, in a folder, which only one process may work on.

    Raises:
        MisuseError: the folder is no mirror of that record, and not empty; see `MirrorFolder`.
        WorldError: the disk is full or failed.
    """
    folder = await in_thread(lambda: MirrorFolder(path, place.public_key, place.salt))
    try:
        yield Mirror(blocks, folder, progress or silent)
    finally:
        await in_thread(folder.close)


async def mirror_once(
    source: Source, place: RecordPlace, path: Path, progress: Progress | None = None
) -> Mirrored:
    """Bring a folder to the newest version that is found; see `TreeCalls`."""
    async with open_mirror(source, place, path, progress) as mirror:
        with suppress(XorbitError):  # what else is wrong shows right now
            await mirror.mend()
        return await mirror.bring(await source.newest_tree(place))


async def mirror(
    source: Source,
    place: RecordPlace,
    path: Path,
    progress: Progress | None = None,
    retry_s: float = MIRROR_RETRY_S,
) -> AsyncGenerator[Mirrored | NotMirrored]:
    """Keep a folder at the newest version until closed; see `TreeCalls`."""
    async with open_mirror(source, place, path, progress) as mirror:
        told = _Told()
        mended = await told.outcome(mirror, mirror.mend(), mirror.coming_seq)
        if isinstance(mended, NotMirrored):
            yield mended
        async with _following(source, place) as newest:
            record = await newest.next()
            while record is not None:
                outcome = await told.outcome(mirror, mirror.follow(record), record.seq)
                if outcome is not None:
                    yield outcome
                again_s = retry_s if told.may_succeed_later else None
                record = await newest.next(again_s) or record


class _Told:
    """What became of versions, as it is told: what fails again in the same way only once."""

    def __init__(self) -> None:
        self._last: NotMirrored | None = None
        self.may_succeed_later = False

    async def outcome(
        self, mirror: "Mirror", work: Awaitable[Mirrored | None], seq: int
    ) -> Mirrored | NotMirrored | None:
        self.may_succeed_later = False
        try:
            done = await work
        except XorbitError as error:
            self.may_succeed_later = not isinstance(error, FormatError | NoDirectoryError)
            failed = NotMirrored(seq, mirror.seq, str(error))
            told, self._last = self._last, failed
            return None if failed == told else failed
        self._last = None
        return done


class _Newest:
    """The newest version of a record that was heard of."""

    def __init__(self) -> None:
        self._record: Record | None = None
        self._changed = asyncio.Event()
        self._ended: asyncio.Task[None] | None = None

    async def follow(self, source: Source, place: RecordPlace) -> None:
        """Hear of versions as they come."""
        async with aclosing(source.follow(place.public_key, place.salt)) as versions:
            async for record in versions:
                self._record = record
                self._changed.set()

    def end(self, following: asyncio.Task[None]) -> None:
        """Take note that no more come; whoever waits is told why."""
        self._ended = following
        self._changed.set()

    async def next(self, within_s: float | None = None) -> Record | None:
        """Wait for a version that was not given yet; None where none comes within a time.

        Raises:
            XorbitError: the record cannot be followed any more.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        if self._ended is not None:
            self._ended.result()
            raise WorldError("the record is not followed any more")
        self._changed.clear()
        record, self._record = self._record, None
        return record


@asynccontextmanager
async def _following(source: Source, place: RecordPlace) -> AsyncGenerator[_Newest]:
    newest = _Newest()
    following = asyncio.create_task(newest.follow(source, place))
    following.add_done_callback(newest.end)
    try:
        yield newest
    finally:
        following.cancel()
        await asyncio.wait([following])


# --- A folder -------------------------------------------------------------------------------------


class Mirror:
    """A folder and the version that it is at; made by `open_mirror`."""

    def __init__(self, blocks: BlocksToGet, folder: MirrorFolder, progress: Progress) -> None:
        self._blocks = blocks
        self._folder = folder
        self._progress = progress

    @property
    def seq(self) -> int:
        """The sequence number of the version that is here, or 0."""
        at = self._folder.state.at
        return 0 if at is None else at.seq

    @property
    def coming_seq(self) -> int:
        """The sequence number of the version that an earlier life was putting in place, or 0."""
        coming = self._folder.state.coming
        return coming[-1].seq if coming else 0

    async def mend(self) -> Mirrored | None:
        """Put in place what an earlier life began to; all of that is here already.

        Raises:
            XorbitError: as `bring`.
        """
        state = self._folder.state
        if not state.coming:
            return None
        seq, cid = state.coming[-1].seq, parse_cid(state.coming[-1].root)
        key, salt = bytes.fromhex(state.public_key), bytes.fromhex(state.salt)
        return await self.bring(TreeVersion(key, salt, seq, cid))

    async def follow(self, record: Record) -> Mirrored:
        """Bring the folder to what a record points to; raises as `bring`, or it points to none."""
        return await self.bring(tree_version(record))

    async def bring(self, version: TreeVersion) -> Mirrored:
        """Bring the folder to a version; until all of it is fetched nothing of it shows.

        Raises:
            FormatError: a tree that lies, or that has what may not be written.
            NotFoundError: a block is nowhere.
            NoDirectoryError: the version is a file; says how to get it.
            WorldError: the disk is full or failed; a newer version is here already.
            XorbitError: whatever `get_block` raised.
        """
        if version.seq < self.seq:
            raise WorldError(f"that is older than version {self.seq}, which is here already")
        step = _Step(self._blocks, self._folder, self._progress)
        return await step.run(Version(version.seq, str(version.cid)))


class _Known(Struct, frozen=True):
    """A version that files of the folder may be of."""

    version: Version
    listing: Listing
    nodes: tuple[Cid, ...]


class _Step:
    """The way to one version."""

    def __init__(self, blocks: BlocksToGet, folder: MirrorFolder, progress: Progress) -> None:
        self._blocks = blocks
        self._folder = folder
        self._progress = progress
        self._leaves: LocalLeaves | None = None
        self._done = 0
        self._total = 0
        self._asked: dict[Cid, None] = {}
        """The nodes of the tree that was listed last."""
        self._lost: list[int] = []
        self.blocks = self.bytes = self.reused = 0

    async def run(self, version: Version) -> Mirrored:
        root = parse_cid(version.root)
        known = self._known()
        # These first: only then it can be told which nodes are of what is in the folder.
        before = [await self._list_before(it) for it in known if it.root != version.root]
        is_new = len(before) == len(known)
        try:
            new = await self._known_as(version)
            here = before if is_new else [*before, new]
            change = await self._compared(new.listing, here)
            await self._stage(root, change)
        except XorbitError as error:
            if is_new:
                in_vain = isinstance(error, FormatError | NoDirectoryError)
                await in_thread(lambda: self._tidy_nodes(_nodes_of(before), in_vain=in_vain))
            raise
        await in_thread(lambda: self._commit(change, new, here))
        left_out = tuple(map(shown_path, change.left_out))
        counts = (change.written, change.removed, self.blocks, self.bytes, self.reused)
        return Mirrored(version.seq, root, *counts, left_out, tuple(self._lost))

    # --- What there is ------------------------------------------------------------------------

    def _known(self) -> list[Version]:
        """Return the versions that files here may be of, each tree once, the latest first."""
        latest_first = reversed(self._folder.state.versions)
        return list({version.root: version for version in latest_first}.values())

    async def _list_before(self, known: Version) -> _Known:
        with naming(f"cannot tell what is left of version {known.seq} here"):
            try:
                return await self._known_as(known)
            except (NotFoundError, FormatError):
                self._lost.append(known.seq)
        listing, at = Listing(), self._folder.state.at
        if at is not None and known.root == at.root:
            listing.add_seen(await in_thread(self._folder.read_seen))
        return _Known(known, listing, ())

    async def _known_as(self, version: Version) -> _Known:
        return _Known(version, await self._list(parse_cid(version.root)), tuple(self._asked))

    async def _list(self, root: Cid) -> Listing:
        """Return what a tree names; all its nodes are here then, and in `_asked`."""
        listing, seen = Listing(), SeenBlocks()
        self._asked = {}
        async with self._fetching(root) as fetcher:
            found = await finish(open_block(root), fetcher)
            if not found.is_directory:
                raise self._no_directory(found)
            async with aclosing(drive(walk(found), fetcher)) as entries:
                async for entry in entries:
                    if entry.path and listing.add(entry):
                        node = entry.found.node
                        if isinstance(node, FileNode):
                            await finish(inner_nodes(node, seen), fetcher)
            return listing

    def _no_directory(self, found: Found) -> NoDirectoryError:
        state = self._folder.state
        what = "a symbolic link" if isinstance(found.node, SymbolicLink) else "a file"
        salt = bytes.fromhex(state.salt).decode(errors="replace")
        salted = f" --salt {shlex.quote(salt)}" if salt else ""
        return NoDirectoryError(
            f"what is published is {what}, and a folder mirrors directories: 'xorbit get "
            f"{state.public_key}{salted} -o FILE' gets it"
        )

    async def _compared(self, new: Listing, before: list[_Known]) -> Change:
        listings = [known.listing for known in before]
        change = await in_thread(lambda: Change(self._folder, new, listings))
        await _go_through(change.compare())
        return change

    # --- Fetch --------------------------------------------------------------------------------

    async def _stage(self, root: Cid, change: Change) -> None:
        if not change.missing:
            return
        self._leaves = leaves = LocalLeaves()
        await _go_through(change.note_leaves(leaves))
        self._total = sum(change.made(path).size for path in change.missing)
        files = _by_cid(change)
        try:
            await in_thread(self._check_room)
            self._tell(0)
            async with self._fetching(root) as fetcher, owned_tasks() as tasks:
                flow = Flow(tasks, WINDOW_BLOCKS, self._tell)
                tasks.create_task(flow.deliver())
                for cid, (path, *_) in files.items():
                    await self._pour(fetcher, flow, cid, path)
                await flow.end()
            for cid, (path, *same) in files.items():
                for other in same:
                    await in_thread(partial(self._copy, cid, path, other))
        except XorbitError:
            await in_thread(lambda: self._tidy_stage(change))
            raise
        finally:
            self._folder.stage.close()
            leaves.close()

    async def _pour(self, fetcher: "_NodesAtHand", flow: Flow, cid: Cid, path: TreePath) -> None:
        stage = self._folder.stage
        await flow.then(lambda: stage.begin(path, cid))
        if cid.codec is Codec.RAW:
            await flow.block(partial(fetcher.fetch, cid), stage.write)
        else:
            node = await file_root(fetcher, cid)
            await FileParts(fetcher, flow, cid, stage.write).pour(node, 0, node.size)
        await flow.then(stage.end)

    def _copy(self, cid: Cid, path: TreePath, other: TreePath) -> None:
        stage = self._folder.stage
        self.reused += stage.copy(stage.path_of(path, cid), other, cid)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._folder.path).free
        if self._total > free:
            self._folder.stage.failed = True
            raise WorldError(
                f"the files that changed say that they have {self._total:,} bytes, "
                f"{self._total - free:,} more than are free at {self._folder.path}"
            )

    def _tell(self, count: int) -> None:
        self._done += count
        self._progress(self._done, max(self._total, self._done))

    @asynccontextmanager
    async def _fetching(self, root: Cid) -> AsyncGenerator["_NodesAtHand"]:
        fetcher = _NodesAtHand(self, self._blocks, root)
        try:
            yield fetcher
        finally:
            await fetcher.close()

    # --- Have at hand -------------------------------------------------------------------------

    async def node(self, cid: Cid, fetch: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return a node, which is kept from then on."""
        self._asked[cid] = None
        nodes = self._folder.nodes
        data = await in_thread(partial(nodes.read, cid))
        if data is None:
            data = self._count(await fetch())
            await in_thread(partial(nodes.write, cid, data))
        return data

    async def leaf(self, cid: Cid, fetch: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return a leaf: from a file that is here, or else it is fetched."""
        if self._leaves is not None and cid in self._leaves:
            data = await in_thread(partial(self._leaves.read, cid))
            if data is not None:
                self.reused += len(data)
                return data
        return self._count(await fetch())

    def _count(self, data: bytes) -> bytes:
        self.blocks += 1
        self.bytes += len(data)
        return data

    # --- Put in place -------------------------------------------------------------------------

    def _tidy_nodes(self, of_known: list[Cid], *, in_vain: bool) -> None:
        """Keep those of a version that may go on later, and of no other that never came here."""
        nodes = self._folder.nodes
        wanted = of_known if in_vain or nodes.failed else [*of_known, *self._asked]
        nodes.keep_only(wanted)
        nodes.failed = False

    def _tidy_stage(self, change: Change) -> None:
        """Keep what may go on later, unless the disk has no room for it."""
        stage = self._folder.stage
        wanted = [] if stage.failed else change.missing
        stage.keep_only(stage.path_of(path, change.made(path).cid) for path in wanted)
        stage.failed = False

    def _commit(self, change: Change, new: _Known, here: list[_Known]) -> None:
        folder, state = self._folder, self._folder.state
        noted = set(_nodes_of(here))  # only ever asked whether something is in it
        folder.nodes.sync([cid for cid in new.nodes if cid not in noted])
        folder.stage.sync(change.staged)
        if not change.stays:
            self._begin(change, new, here)
            change.apply()
        if state.at != new.version or state.coming:
            folder.note(State(state.public_key, state.salt, at=new.version))
        with suppress(WorldError):  # without, files are hashed again
            change.note_seen()
        folder.nodes.keep_only(new.nodes)
        folder.stage.keep_only(())

    def _begin(self, change: Change, new: _Known, here: list[_Known]) -> None:
        """Note that a version is coming, and let go of those that nothing here is of any more."""
        folder, state = self._folder, self._folder.state
        owning = [known for number, known in enumerate(here) if number in change.owning]
        begun = [known.version for known in reversed(owning) if known.version in state.coming]
        coming = (*begun, new.version)[-MIRROR_COMING_MAX:]
        if coming != state.coming:
            folder.note(msgspec.structs.replace(state, coming=coming))
        kept = [known for known in here if known.version in folder.state.versions]
        folder.nodes.keep_only(_nodes_of([*kept, new]))
        folder.stage.keep_only(change.staged)


class _NodesAtHand(Fetcher):
    """Gets the blocks of a tree from what is here first."""

    def __init__(self, step: _Step, blocks: BlocksToGet, root: Cid) -> None:
        super().__init__(blocks, root, "tree")
        self._step = step

    async def fetch(self, cid: Cid) -> bytes:
        """Return a block."""
        if cid.codec is Codec.RAW:
            return await self._step.leaf(cid, lambda: self._from_others(cid))
        return await self._step.node(cid, lambda: self._from_others(cid))

    async def _from_others(self, cid: Cid) -> bytes:
        return await super().fetch(cid)


def _nodes_of(versions: list[_Known]) -> list[Cid]:
    return [cid for known in versions for cid in known.nodes]


def _by_cid(change: Change) -> dict[Cid, list[TreePath]]:
    """Return the files that are missing; those of the same bytes together."""
    files: dict[Cid, list[TreePath]] = {}
    for path in change.missing:
        files.setdefault(change.made(path).cid, []).append(path)
    return files


async def _go_through(steps: Iterator[None]) -> None:
    while not await in_thread(lambda: _is_over(steps)):
        pass


def _is_over(steps: Iterator[None]) -> bool:
    """Do some steps; return whether these were the last."""
    return len(deque(islice(steps, MIRROR_STEPS_AT_ONCE))) < MIRROR_STEPS_AT_ONCE
