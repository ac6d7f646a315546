"""Trees under a key: publish one, and keep a folder as the newest is.

Stands on the calls for files and for records, so that it is the same in the node's own process and
over the local socket. No sockets and no state of its own here.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import Struct

from xorbit.errors import MisuseError
from xorbit.files.flow import Progress
from xorbit.files.pointer import RecordPlace, pointer_to
from xorbit.files.transfer import PutSummary
from xorbit.items import Kind, Record
from xorbit.keys import UserKey
from xorbit.paths import StrPath, path_from
from xorbit.run import mirroring
from xorbit.run.file_calls import FileCalls, PlaceName, place_from
from xorbit.run.mirroring import Mirrored, NotMirrored
from xorbit.run.publish import PublishReceipt


class PublishedTree(Struct, frozen=True):
    """What became of a tree that was published: of its blocks, and of the record that names it."""

    put: PutSummary
    record: PublishReceipt


class TreeCalls(FileCalls):
    """What may be asked about trees that are published under a key."""

    @abstractmethod
    async def publish(
        self, key: UserKey, value: bytes, *, salt: bytes = b"", cas: int | None = None
    ) -> PublishReceipt:
        """Store the next version of the record under a key; see `Calls`."""

    @abstractmethod
    def follow(self, public_key: str | bytes, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one as it comes; see `Calls`."""

    async def publish_tree(
        self,
        key: UserKey,
        path: StrPath,
        *,
        salt: bytes = b"",
        cas: int | None = None,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        progress: Progress | None = None,
    ) -> PublishedTree:
        """Store a directory or a file, then publish a record that points to it.

        "PUBLICKEY/path" is a name of it from then on, for `get_tree`, `ls` and all others that take
        a name; `mirror` follows it. Trees of earlier versions stay kept until they are unpinned.

        Raises:
            MisuseError: as `put_tree` and `publish`.
            StaleError: as `publish`; what was put is kept.
            XorbitError: as `put_tree` and `publish`.
        """
        put = await self.put_tree(path, kind=kind, progress=progress)
        return PublishedTree(put, await self.publish(key, pointer_to(put.cid), salt=salt, cas=cas))

    async def mirror(
        self, name: PlaceName, path: StrPath, *, progress: Progress | None = None
    ) -> AsyncGenerator[Mirrored | NotMirrored]:
        """Bring a folder to the newest version of a tree published under a key, and keep it so.

        Gives what became of each version, until closed. One that cannot be had, or that lies,
        leaves the folder at the version before; it is tried again now and then, and the next one
        is waited for. `mirror_once` says what happens in the folder.

        Raises:
            MisuseError: no public key; or the folder is no mirror of its record, and not empty.
            StoppedError: the node stopped.
        """
        steps = mirroring.mirror(self, _record_place(name), path_from(path), progress)
        async with aclosing(steps) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def mirror_once(
        self, name: PlaceName, path: StrPath, *, progress: Progress | None = None
    ) -> Mirrored:
        """Bring a folder to the newest version of a tree published under a key.

        The folder is new, empty, or a mirror of that key. Only blocks that no file of it has are
        fetched; nothing of the version shows before all of it is there; then each file is replaced
        by renaming. What the mirror did not make, or what was changed since, is neither replaced
        nor removed: `Mirrored.left_out` says where that is in the way. After a kill at any instant
        each file is whole, of one version or the next, and the next call goes on. `Mirrored.lost`
        names versions of which it cannot be told any more what the mirror made.

        Raises:
            MisuseError: no public key; or the folder is no mirror of its record, and not empty.
            FormatError: a tree that lies or would leave the folder; names the block or the path.
            NotFoundError: nobody has the record, it points to no directory, or a block is nowhere.
            WorldError: the disk is full or failed, or a newer version is there already.
        """
        return await mirroring.mirror_once(self, _record_place(name), path_from(path), progress)


def _record_place(name: PlaceName) -> RecordPlace:
    place = place_from(name)
    if not isinstance(place, RecordPlace) or place.path:
        raise MisuseError(f"expected a public key to follow, got {place}: only records change")
    return place
