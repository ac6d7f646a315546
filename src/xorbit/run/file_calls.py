"""Files and directories as a node's caller has them: put, get, list, open, to and from CARs.

Stands on five calls (store_block, get_block and those of pins), so that it is the same in the
node's own process and over the local socket. No sockets, no files and no state of its own here.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from xorbit.errors import MisuseError, NotFoundError
from xorbit.files import transfer, trees
from xorbit.files.cid import Cid, Codec, Place, parse_cid
from xorbit.files.flow import BlocksToGet, Progress, PutReceipt, in_thread
from xorbit.files.given import GivenSink, GivenSource, sink_from, source_from
from xorbit.files.listing import EntryInfo
from xorbit.files.new_tree import Written
from xorbit.files.opened import inner, inner_place, opened, outer
from xorbit.files.pointer import RecordPlace, TreeVersion, parse_name, tree_version
from xorbit.files.reader import FileReader, open_reader
from xorbit.files.seal_key import SealKey
from xorbit.files.sealed import Sealer
from xorbit.files.transfer import WHOLE, PutSummary, Range
from xorbit.files.tree import Found
from xorbit.items import Item, ItemKey, Kind, Record, pasted, record_key
from xorbit.paths import StrPath, path_from
from xorbit.pins import Order, Told
from xorbit.run import pinning
from xorbit.run.pinning import ImportSummary

Name = str | Cid | ItemKey
"""What a block or a file is asked for by: its CID, parsed or not, or its key."""
PlaceName = str | Place | RecordPlace | Cid | ItemKey | Found
"""The same, where a path may follow: "CID/path", also after `xorbit://` or `ipfs://`; or what was
found there. Or "PUBLICKEY/path": in the tree that the newest version of its record points to. Of
private content "CID#KEY/path": the key opens blocks here and goes to nobody."""


@contextmanager
def missing(what: str) -> Generator[None]:
    """Let the error say what it is that nobody has."""
    try:
        yield
    except NotFoundError as error:
        raise type(error)(f"{what}: {error}") from error


def record_named(public_key: bytes, salt: bytes) -> str:
    """Return a record as an error names it."""
    salted = f" with salt {salt.decode(errors='replace')!r}" if salt else ""
    return f"the record under {public_key.hex()}{salted}"


class FileCalls(ABC):
    """What may be asked about files and directories; where a name is taken, a path may follow."""

    @abstractmethod
    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block as a part of something; see `Calls`."""

    @abstractmethod
    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block; see `Calls`."""

    @abstractmethod
    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept here; see `Calls`."""

    @abstractmethod
    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it; see `Calls`."""

    @abstractmethod
    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of a root; see `Calls`."""

    @abstractmethod
    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item; see `Calls`."""

    # --- Put --------------------------------------------------------------------------------------

    async def put_file(
        self,
        source: GivenSource,
        *,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        encrypt: bool = False,
        progress: Progress | None = None,
    ) -> PutSummary:
        """Store a file (bytes, a path or an open file) and say its name and who holds it.

        Blocks of 1 KiB and more that are held already are not sent again: a put that was
        interrupted goes on so.

        Args:
            source: The bytes, the path of a file, or a file open for reading bytes, which is read
                from where it stands.
            kind: The hash that names the blocks.
            encrypt: Seal every block here, under a new key, before it leaves this process. What
                gets it back is `name` of the answer, which carries the key; it is kept nowhere.
            progress: Told how far it is.

        Raises:
            MisuseError: no such file, or a private key of a home.
            XorbitError: a block could not be stored, as `put_block`.
        """
        making = Sealer(kind) if encrypt else kind
        given = await in_thread(lambda: source_from(source))
        return await pinning.put_file(self, self, given, making, progress)

    async def put_tree(
        self,
        path: StrPath,
        *,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        encrypt: bool = False,
        progress: Progress | None = None,
    ) -> PutSummary:
        """Store a directory with everything in it, or a file, as `put_file` does.

        Symbolic links in it are stored as what they say; modes, times and owners are not. At its
        top `.xorbit-mirror`, which is a mirror's own, is left out.

        Raises:
            MisuseError: nothing is there; in it is what is neither file, directory nor link, or a
                home of xorbit with private keys.
            WorldError: a part of it cannot be read.
            XorbitError: a block could not be stored, as `put_block`.
        """
        making = Sealer(kind) if encrypt else kind
        return await pinning.put_tree(self, self, path_from(path), making, progress)

    async def import_car(
        self, source: GivenSource, *, progress: Progress | None = None
    ) -> ImportSummary:
        """Store the blocks of a CAR (CARv1), each proved by its hash, and pin its roots.

        The CAR is given as its bytes, its path, or a file open for reading bytes.

        Raises:
            MisuseError: no such file, or a CAR without a root.
            FormatError: no CARv1, or it is damaged; names the block and where it begins.
            NotFoundError: a part of a root is neither in it nor in the network.
            XorbitError: a block could not be stored, as `put_block`.
        """
        given = await in_thread(lambda: source_from(source))
        return await pinning.import_car(self, self, given, progress)

    # --- Get --------------------------------------------------------------------------------------

    async def get_file(
        self, name: PlaceName, *, progress: Progress | None = None, part: Range = WHOLE
    ) -> bytes:
        """Return the bytes of a file that fits in memory; see `get_file_to` for larger ones.

        Raises:
            MisuseError: `part` begins behind the end of the file.
            FormatError: what the name names is no file.
            XorbitError: a block could not be had, as `get_block`.
        """
        parts: list[bytes] = []
        await self.get_file_to(name, parts.append, progress=progress, part=part)
        return b"".join(parts)

    async def get_file_to(
        self,
        name: PlaceName,
        to: GivenSink,
        *,
        progress: Progress | None = None,
        part: Range = WHOLE,
    ) -> int:
        """Fetch a file to a path, whole or not at all, or piece by piece to a file or function.

        A file that is replaced keeps its permissions.

        Args:
            name: What it is named; a path may follow.
            to: A path; a file open for writing bytes, which stays open; or a function that is
                called with the bytes in order, on a worker thread.
            progress: Told how far it is.
            part: From which byte on and before which, (0, None) for all; no more is fetched.

        Returns:
            How many bytes were written.

        Raises:
            MisuseError: what cannot be written to.
            WorldError: the disk is full (also: the file says that it is larger than what is free)
                or failed.
            XorbitError: as `get_file`.
        """
        target = await in_thread(lambda: sink_from(to))
        blocks, file = await self._file_at(name)
        if isinstance(target, Path):
            return await transfer.get_to_path(blocks, file, target, progress=progress, part=part)
        return await transfer.get_file(blocks, file, target, progress=progress, part=part)

    async def get_tree(
        self,
        name: PlaceName,
        path: StrPath,
        *,
        progress: Progress | None = None,
        skip_links: bool = False,
    ) -> Written:
        """Fetch a directory or a file to a path, which shows all of it or what was there before.

        For a directory there must be nothing at the path, or an empty folder: that stays, and gets
        all entries at the end. Names and symbolic links that lead out of it are refused; with
        `skip_links` such links are left out.

        Raises:
            LeadsOutError: a symbolic link that leads out of the directory.
            MisuseError: a path that cannot be written to.
            FormatError: a tree that lies or would leave its folder; names the block or the path.
            WorldError: the disk is full or failed.
            XorbitError: a block could not be had, as `get_block`.
        """
        target = path_from(path)
        found = await self.find(name)
        blocks = opened(self, found.seal)
        return await trees.get_tree(blocks, found, target, progress=progress, skip_links=skip_links)

    async def place(self, name: PlaceName) -> Place:
        """Return the place that a name means; one that goes by a record is resolved.

        Raises:
            MisuseError: not a name.
            NotFoundError: nobody has the record, or it points to no tree.
            NoPeersError: it is not here, and this node reaches nobody.
        """
        place = place_from(name)
        if isinstance(place, Place):
            return place
        return Place((await self.newest_tree(place)).cid, place.path)

    async def newest_tree(self, place: RecordPlace) -> TreeVersion:
        """Return the newest version that is found of a tree published under a key.

        Raises:
            NotFoundError: nobody has the record, or it points to no tree.
            NoPeersError: it is not here, and this node reaches nobody.
        """
        with missing(record_named(place.public_key, place.salt)):
            record = await self.get_signed(record_key(place.public_key, place.salt))
        assert isinstance(record, Record), "the key is that of a record"
        return tree_version(record)

    async def find(self, name: PlaceName) -> Found:
        """Return what is at a place, as its blocks say it; raises as `ls`."""
        if isinstance(name, Found):
            return name
        place = await self.place(name)
        found = await trees.find(opened(self, place.seal), inner_place(place))
        if place.seal is None:
            return found
        seal = SealKey(place.seal.secret, is_node=found.cid.codec is Codec.DAG_PB)
        return msgspec.structs.replace(found, seal=seal)

    async def ls(self, name: PlaceName) -> tuple[EntryInfo, ...]:
        """Return what is in a directory, in the order of the names; of a file, the file itself.

        Raises:
            NotFoundError: nothing is at the path, or a block could not be had.
            FormatError: no directory that may be; names the block.
            XorbitError: as `get_block`.
        """
        place = await self.place(name)
        entries = await trees.list_place(opened(self, place.seal), inner_place(place))
        return tuple(_as_outside(entry, place) for entry in entries)

    async def stat(self, name: PlaceName) -> EntryInfo:
        """Say what is at a place: its name, what it is, and how large; raises as `ls`."""
        place = await self.place(name)
        entry = await trees.stat(opened(self, place.seal), inner_place(place))
        return _as_outside(entry, place)

    async def open(self, name: PlaceName) -> FileReader:
        """Open a file for reading anywhere in it; only what is read is fetched, with read-ahead.

        `close` it at the end, as by `async with`.

        Raises:
            NotFoundError: it is no file, or a block could not be had.
            XorbitError: as `get_block`.
        """
        found = await self.find(name)
        return await open_reader(opened(self, found.seal), found)

    async def export_car(
        self, name: PlaceName, to: GivenSink, *, progress: Progress | None = None
    ) -> int:
        """Write a file or a directory as a CAR (CARv1), each block once; return its size in bytes.

        It is written to what `get_file_to` takes; at a path it appears whole or not at all.

        Raises:
            MisuseError: a path that cannot be written to, or private content: nobody could read
                such a CAR, and no import would know what belongs together.
            FormatError: no tree; names the block.
            XorbitError: a block could not be had, as `get_block`.
        """
        target = await in_thread(lambda: sink_from(to))
        place = await self.place(name)
        if place.seal is not None:
            raise MisuseError(
                "private content is not exported: a CAR of sealed blocks opens nowhere. Get it, "
                "and make a CAR of what you got"
            )
        cid = (await self.find(place)).cid if place.path else place.cid
        return await trees.export_car(self, cid, target, progress=progress)

    async def _file_at(self, name: PlaceName) -> tuple[BlocksToGet, Found | Cid]:
        """Return what is at a place, or the root's name alone, which asks for no block."""
        place = name if isinstance(name, Found) else await self.place(name)
        if isinstance(place, Place) and not place.path:
            return opened(self, place.seal), inner(place.cid, place.seal)
        found = await self.find(place)
        return opened(self, found.seal), found


def _as_outside(entry: EntryInfo, place: Place) -> EntryInfo:
    """Return an entry with the names that its blocks have outside of a private tree."""
    if place.seal is None:
        return entry
    is_root = not place.path and entry.cid == inner(place.cid, place.seal)
    name = str(place.cid) if is_root else entry.name
    return msgspec.structs.replace(entry, name=name, cid=outer(entry.cid, place.seal))


def cid_from(name: Name) -> Cid:
    """Return the CID of a name in any of its forms; of a bare key, that of raw bytes.

    Raises:
        MisuseError: text that is no CID, or what is no name at all.
    """
    match name:
        case str():
            return parse_cid(pasted(name))
        case ItemKey():
            return Cid(Codec.RAW, name)
        case Cid():
            return name
        case _:  # callers without types
            raise MisuseError(f"expected a name (text, Cid or ItemKey), got {name!r:.80}")


def place_from(name: PlaceName) -> Place | RecordPlace:
    """Return the place that a name in any of its forms means.

    Raises:
        MisuseError: as `cid_from`, or a path with what is no name of an entry.
    """
    match name:
        case str():
            return parse_name(pasted(name))
        case Place() | RecordPlace():
            return name
        case Found():
            return Place(outer(name.cid, name.seal), seal=name.seal)
        case _:
            return Place(cid_from(name))
