"""The blocking twins of `api.Node` and of what `api.connect` gives, for code without an event loop.

    with xorbit.open_node(bootstrap=["host:port"]) as node:     # scripts, notebooks
        summary = node.put_file("picture.webp")
    with xorbit.open_client(home) as client:                    # the node that runs there
        summary = client.put_file("picture.webp")

Each method hands one of `Calls` to its loop and waits; nothing is decided here.
"""

import asyncio
import io
import logging
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from xorbit.api import Node, connect
from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.core.status import FingerStatus, PeerStatus
from xorbit.core.trace import Event
from xorbit.errors import MisuseError, StoppedError, XorbitError
from xorbit.files.flow import Progress
from xorbit.files.given import GivenSink, GivenSource
from xorbit.files.listing import EntryInfo
from xorbit.files.new_tree import Written
from xorbit.files.pointer import RecordPlace, TreeVersion
from xorbit.files.reader import FileReader
from xorbit.files.transfer import WHOLE, PutSummary, Range
from xorbit.ids import Guid, Id
from xorbit.items import (
    ConnectionItem,
    Contact,
    Kind,
    Record,
)
from xorbit.keys import UserKey
from xorbit.paths import StrPath
from xorbit.pins import Kept, Root
from xorbit.run.calls import (
    Calls,
    Key,
    Name,
    NodeStatus,
    PingAnswer,
    PutReceipt,
    Target,
    documented,
)
from xorbit.run.file_calls import PlaceName
from xorbit.run.loop import run
from xorbit.run.mirroring import Mirrored, NotMirrored
from xorbit.run.pinning import ImportSummary
from xorbit.run.publish import PublishReceipt
from xorbit.run.tree_calls import PublishedTree

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

log = logging.getLogger("xorbit")
T = TypeVar("T")


@documented
class BlockingCalls:
    """What `BlockingNode` and `BlockingClient` both are: the methods of `Node`, which wait.

    Their loop runs in a thread of its own; `progress` is called on that thread, and must
    not call them.
    """

    def __init__(self, opened: AbstractAsyncContextManager[Calls], what: str) -> None:
        self._opened = opened
        self._what = what
        self._started: Future[tuple[asyncio.AbstractEventLoop, Calls]] = Future()
        self._leave = asyncio.Event()
        self._closing: dict[Future[None], None] = {}
        # A daemon: a node that nobody closed must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._live, name=f"xorbit-{what}", daemon=True)
        self._thread.start()
        self._loop, self._calls = self._wait_for_start()

    def _wait_for_start(self) -> tuple[asyncio.AbstractEventLoop, Calls]:
        try:
            return self._started.result()
        except XorbitError as error:
            # Raised here, where the caller is, without the frames of the thread.
            raise error.with_traceback(None) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave, and end the thread. May be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._leave.set)
            self._thread.join()

    def put_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block and say who holds it; see `Calls`."""
        return self._do(self._calls.put_block(data, kind))

    def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block; see `Calls`."""
        return self._do(self._calls.get_block(key))

    def put_file(
        self,
        source: GivenSource,
        *,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        encrypt: bool = False,
        progress: Progress | None = None,
    ) -> PutSummary:
        """Store a file and say its name and who holds it; see `Calls`."""
        return self._do(self._calls.put_file(source, kind=kind, encrypt=encrypt, progress=progress))

    def put_tree(
        self,
        path: StrPath,
        *,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        encrypt: bool = False,
        progress: Progress | None = None,
    ) -> PutSummary:
        """Store a directory with everything in it, or a file; see `Calls`."""
        return self._do(self._calls.put_tree(path, kind=kind, encrypt=encrypt, progress=progress))

    def get_file(
        self, name: PlaceName, *, progress: Progress | None = None, part: Range = WHOLE
    ) -> bytes:
        """Return the bytes of a file, or a part, that fits in memory; see `Calls`."""
        return self._do(self._calls.get_file(name, progress=progress, part=part))

    def get_file_to(
        self,
        name: PlaceName,
        to: GivenSink,
        *,
        progress: Progress | None = None,
        part: Range = WHOLE,
    ) -> int:
        """Fetch a file, or a part, to a path or to a function; see `Calls`."""
        return self._do(self._calls.get_file_to(name, to, progress=progress, part=part))

    def get_tree(
        self,
        name: PlaceName,
        path: StrPath,
        *,
        progress: Progress | None = None,
        skip_links: bool = False,
    ) -> Written:
        """Fetch a directory or a file to a path; see `Calls`."""
        return self._do(self._calls.get_tree(name, path, progress=progress, skip_links=skip_links))

    def ls(self, name: PlaceName) -> tuple[EntryInfo, ...]:
        """Return what is in a directory; see `Calls`."""
        return self._do(self._calls.ls(name))

    def stat(self, name: PlaceName) -> EntryInfo:
        """Say what is at a place; see `Calls`."""
        return self._do(self._calls.stat(name))

    def open(self, name: PlaceName) -> "BlockingFile":
        """Open a file for reading anywhere in it; only what is read is fetched, with read-ahead.

        To be wrapped in `io.BufferedReader` or `io.TextIOWrapper` where many small reads come.

        Raises:
            NotFoundError: it is no file, or a block could not be had.
            XorbitError: as `get_block`.
        """
        return BlockingFile(self, self._do(self._calls.open(name)))

    def read_open(self, reader: FileReader, start: int, end: int) -> bytes:
        """Return a part of an open file; `BlockingFile` stands on it."""
        return self._do(reader.read_at(start, end))

    def close_open(self, reader: FileReader) -> None:
        """Have an open file let go of; waits for nothing, so that garbage may call it anywhere."""
        self._let_go(reader.close())

    def export_car(
        self, name: PlaceName, to: GivenSink, *, progress: Progress | None = None
    ) -> int:
        """Write a file or a directory as a CAR; see `Calls`."""
        return self._do(self._calls.export_car(name, to, progress=progress))

    def import_car(self, source: GivenSource, *, progress: Progress | None = None) -> ImportSummary:
        """Store the blocks of a CAR and pin its roots; see `Calls`."""
        return self._do(self._calls.import_car(source, progress=progress))

    def pins(self) -> tuple[Kept, ...]:
        """Return what is kept here; see `Calls`."""
        return self._do(self._calls.pins())

    def pin(self, name: Name, salt: bytes = b"", *, progress: Progress | None = None) -> Root:
        """Fetch what is missing of a file or record, and keep it; see `Calls`."""
        return self._do(self._calls.pin(name, salt, progress=progress))

    def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of what was put, published or pinned; see `Calls`."""
        return self._do(self._calls.unpin(name, salt))

    def gc(self) -> int:
        """Let go of every pin that nothing kept here needs; see `Calls`."""
        return self._do(self._calls.gc())

    def ping(self, target: Target) -> PingAnswer:
        """Ask a node whether it is there; see `Calls`."""
        return self._do(self._calls.ping(target))

    def status(self) -> NodeStatus:
        """Return the state of the node."""
        return self._do(self._calls.status())

    def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connections of the node."""
        return self._do(self._calls.peers())

    def fingers(self) -> tuple[FingerStatus, ...]:
        """Return the node's fingers; see `Calls`."""
        return self._do(self._calls.fingers())

    def contacts(self) -> tuple[Contact, ...]:
        """Return the contacts of the node's routing table; see `Calls`."""
        return self._do(self._calls.contacts())

    def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        """Ask ever closer nodes for those closest to an id; see `Calls`."""
        return self._do(self._calls.lookup(id))

    def whereis(self, id: Id | str) -> ConnectionItem:
        """Return where a node says that it is; see `Calls`."""
        return self._do(self._calls.whereis(id))

    def publish(
        self, key: UserKey, value: bytes, *, salt: bytes = b"", cas: int | None = None
    ) -> PublishReceipt:
        """Store the next version of the record under a key; see `Calls`."""
        return self._do(self._calls.publish(key, value, salt=salt, cas=cas))

    def publish_tree(
        self,
        key: UserKey,
        path: StrPath,
        *,
        salt: bytes = b"",
        cas: int | None = None,
        kind: Kind = Kind.BLOCK_BLAKE3_256,
        progress: Progress | None = None,
    ) -> PublishedTree:
        """Store a directory or a file and publish a record that points to it; see `Calls`."""
        publishing = self._calls.publish_tree(
            key, path, salt=salt, cas=cas, kind=kind, progress=progress
        )
        return self._do(publishing)

    def mirror(
        self, name: PlaceName, path: StrPath, *, progress: Progress | None = None
    ) -> Generator[Mirrored | NotMirrored]:
        """Keep a folder at the newest version of a published tree; see `Calls`."""
        return self._each(self._calls.mirror(name, path, progress=progress))

    def mirror_once(
        self, name: PlaceName, path: StrPath, *, progress: Progress | None = None
    ) -> Mirrored:
        """Bring a folder to the newest version of a published tree; see `Calls`."""
        return self._do(self._calls.mirror_once(name, path, progress=progress))

    def newest_tree(self, place: RecordPlace) -> TreeVersion:
        """Return the newest version of a tree published under a key; see `Calls`."""
        return self._do(self._calls.newest_tree(place))

    def resolve(self, public_key: Key, salt: bytes = b"") -> Record:
        """Return the newest version of the record under a public key; see `Calls`."""
        return self._do(self._calls.resolve(public_key, salt))

    def follow(self, public_key: Key, salt: bytes = b"") -> Generator[Record]:
        """Give the newest version of a record, then each newer one as it comes; see `Calls`."""
        return self._each(self._calls.follow(public_key, salt))

    def trace(self, work: Guid | str) -> tuple[Event, ...]:
        """Return what this node remembers of one operation, oldest first; see `Calls`."""
        return self._do(self._calls.trace(work))

    def _each(self, steps: AsyncGenerator[T]) -> Generator[T]:
        end = object()

        async def following() -> T | object:
            return await anext(steps, end)

        try:
            while (step := self._do(following())) is not end:
                yield cast("T", step)
        finally:
            if self._is_here():
                self._let_go(steps.aclose())
            elif self._thread.is_alive():
                self._do(steps.aclose())

    def _is_here(self) -> bool:
        """Return whether this is the node's own thread, where nobody may wait for the node.

        It is where `progress` is called, and where garbage may be collected.
        """
        return threading.current_thread() is self._thread

    def _let_go(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin what closes something, unless the node is closed, and so all is."""
        if not self._thread.is_alive():
            work.close()
            return
        closing = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._closing[closing] = None
        closing.add_done_callback(self._closing.pop)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._thread.is_alive():
            work.close()
            raise StoppedError(f"this {self._what} was closed")
        if self._is_here():
            work.close()
            raise MisuseError(
                "this is a call on the node's own thread, which would wait for itself: make it "
                "from another one"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting ends the work as well
            raise

    def _live(self) -> None:
        try:
            run(self._main())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                log.exception("the %s ended with an error", self._what)

    async def _main(self) -> None:
        async with self._opened as calls:
            self._started.set_result((asyncio.get_running_loop(), calls))
            await self._leave.wait()


class BlockingNode(BlockingCalls):
    """A `Node` for code without an event loop. Made by `open_node`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        super().__init__(node, "node")

    @property
    def alone_because(self) -> str:
        """Why nobody could be reached: what happened at each address. "" where that is no fault."""
        return self._node.alone_because


class BlockingClient(BlockingCalls):
    """The node that runs on a home, for code without an event loop. Made by `open_client`.

    When that node stops, what is asked of it raises `StoppedError`.
    """


class BlockingFile(io.RawIOBase):
    """An open file of the network, as Python's own binary files that are not buffered.

    Made by `open` of a node or client; `name` is not there, `size` is in bytes.
    """

    def __init__(self, node: BlockingCalls, reader: FileReader) -> None:
        super().__init__()
        self._node = node
        self._reader = reader
        self.size = reader.size

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the start (0), from here (1) or from the end (2); return it.

        Raises:
            MisuseError: it would be before the start.
        """
        self._check_open()
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        """Return at which byte the next read begins."""
        self._check_open()
        return self._reader.tell()

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer with the next bytes, less at the end of the file; return how many.

        Raises:
            XorbitError: as `FileReader.read`.
        """
        self._check_open()
        with memoryview(buffer).cast("B") as view:
            start = self._reader.tell()
            data = self._node.read_open(self._reader, start, start + len(view))
            view[: len(data)] = data
        return self._reader.seek(start + len(data)) - start

    def readall(self) -> bytes:
        """Return all that is left."""
        self._check_open()
        start = self._reader.tell()
        data = self._node.read_open(self._reader, start, self.size)
        self._reader.seek(start + len(data))
        return data

    def write(self, data: "ReadableBuffer") -> int:  # noqa: ARG002 - as every file takes it
        """Refuse: a name says what is in the file.

        Raises:
            io.UnsupportedOperation: always.
        """
        raise io.UnsupportedOperation("this file is open for reading only: a put makes new ones")

    def close(self) -> None:
        """Let go of what was read ahead. May be called again."""
        if not self.closed:
            super().close()
            self._node.close_open(self._reader)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def open_node(
    home: StrPath | None = None,
    *,
    listen: Sequence[str] | str = (),
    bootstrap: Sequence[str] | str = (),
    network: str | None = None,
    secret: bytes | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> BlockingNode:
    """Start a node for scripts and notebooks; close it at the end, as by `with`.

    Args:
        home: the directory of its key, its store and its memory of peers; made if missing. By
            default `XORBIT_HOME`, else the user's data directory. One node runs on a home: see
            `xorbit.open_client` for using one that runs already.
        listen: "host:port", one or several; port 0 lets the system choose. Without, it is a
            client: it holds nothing for others.
        bootstrap: "host:port" of nodes to join through, one or several, besides those remembered.
        network: the network's public name; by default that of the home, else "xorbit".
        secret: what only the members of that network know, at least 16 bytes.
        limits: every limit and interval.

    Raises:
        MisuseError: an address that is none, or the home belongs to another network.
        StoreError: the home is in use by another process, or the disk failed.
        WorldError: an address cannot be listened at.
    """
    return BlockingNode(
        Node(
            home,
            listen=listen,
            bootstrap=bootstrap,
            network=network,
            secret=secret,
            limits=limits,
        )
    )


def open_client(home: StrPath | None = None, limits: Limits = DEFAULT_LIMITS) -> BlockingClient:
    """Use the node that runs on a home, from scripts and notebooks; close it at the end.

    It has the methods of what `open_node` gives. By `close`, as by `with`, it leaves; the node goes
    on.

    Args:
        home: the directory of that node; by default as in `open_node`.
        limits: every limit and interval.

    Raises:
        NotRunningError: no node runs there.
    """
    return BlockingClient(_connected(home, limits), "client")


@asynccontextmanager
async def _connected(home: StrPath | None, limits: Limits) -> AsyncGenerator[Calls]:
    client = await connect(home, limits)
    try:
        yield client
    finally:
        await client.close()
