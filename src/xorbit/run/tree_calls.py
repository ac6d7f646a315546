"""Trees under a key: publish one, and say which is the newest.

Stands on the calls for files and for records, so that it is the same in the node's own process and
over the local socket. No sockets and no state of its own here.
"""

from abc import abstractmethod
from pathlib import Path

from msgspec import Struct

from xorbit.files.flow import Progress
from xorbit.files.pointer import pointer_to
from xorbit.files.transfer import PutSummary
from xorbit.items import Kind
from xorbit.keys import UserKey
from xorbit.run.file_calls import FileCalls
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

    async def publish_tree(
        self,
        key: UserKey,
        path: Path,
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
