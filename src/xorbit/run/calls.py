"""What may be asked of a node by those who use it.

`Calls` is what `api.Node` and `control_client.ControlClient` both are, so that a command takes
either; what it has of files and directories is in file_calls.py. No sockets, no files and no state
of its own here.
"""

import inspect
from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from xorbit.config import TIMEOUT_RATE_FAILING
from xorbit.core.effect import (
    PutDone,
)
from xorbit.core.status import FingerStatus, PeerStatus, Status
from xorbit.core.trace import Event
from xorbit.errors import (
    MisuseError,
)
from xorbit.files.cid import Cid, Codec
from xorbit.files.flow import Progress
from xorbit.ids import ID_BYTES, Guid, Id
from xorbit.items import (
    PUBLIC_KEY_BYTES,
    Address,
    ConnectionItem,
    Contact,
    Item,
    ItemKey,
    Kind,
    Record,
    connection_key,
    parse_address,
    record_key,
)
from xorbit.keys import UserKey
from xorbit.pins import Kept, Order, Root, Told
from xorbit.run import pinning
from xorbit.run.file_calls import Name as Name
from xorbit.run.file_calls import cid_from as cid_from
from xorbit.run.file_calls import missing, record_named
from xorbit.run.publish import PublishReceipt, publish
from xorbit.run.tree_calls import TreeCalls
from xorbit.store.base import Usage
from xorbit.wire.message import Receipt

Target = str | Id | Address
"""A node: its id (32 bytes, or in hex), or an address ("host:port", or parsed)."""
Key = str | bytes
"""A public key: 32 bytes, or in hex."""
T = TypeVar("T")


class PutReceipt(Struct, frozen=True):
    """What became of a put: what every node that was asked said. At least one of them stored it."""

    key: ItemKey
    receipts: tuple[Receipt, ...]
    not_kept: str = ""
    """Why it is not kept and refreshed from here; "" where it is."""
    held_before: bool = False
    """Whether a node had it already, so that it was not sent there. Blocks of less than 1 KiB are
    sent without asking, and never say so."""
    own: Id | None = None
    """The node that put it. Where it is one of the closest it is one of the holders."""

    def __repr__(self) -> str:
        """Show the name and how many hold it; the fields have the rest."""
        return f"<PutReceipt {self.cid}, held by {len(self.holders)}>"

    @property
    def cid(self) -> Cid:
        """The name of the block, as raw bytes."""
        return Cid(Codec.RAW, self.key)

    @property
    def holders(self) -> tuple[Id, ...]:
        """The nodes that have it on disk as those closest to it.

        What is kept at home besides, until it is unpinned, does not count.
        """
        return tuple(said.node for said in self.receipts if said.outcome == "stored")

    @property
    def others(self) -> tuple[Id, ...]:
        """Those of the holders that are not the node that put it."""
        return tuple(holder for holder in self.holders if holder != self.own)


class PingAnswer(Struct, frozen=True):
    """A peer that answered: its id, how long it took, and the address at which it sees us."""

    id: Id
    round_trip_s: float
    observed: Address | None
    addresses: tuple[Address, ...]


class NodeStatus(Struct, frozen=True):
    """A node at one instant: its network, the state of its machine, how full its store is."""

    network: str
    node: Status
    store: Usage
    listening: tuple[Address, ...] = ()
    """The sockets that it accepts connections on; `node.addresses` is where others may dial it."""

    @property
    def id(self) -> Id:
        """The node's id."""
        return self.node.id

    @property
    def timeout_rate(self) -> float:
        """Which share of its requests of the last minute, 0..1, came back without an answer."""
        return self.node.timeout_rate

    @property
    def health(self) -> Literal["ok", "alone", "failing", "stopping"]:
        """Whether the node can do its work with others: it has peers, and they answer."""
        if self.node.stopping:
            return "stopping"
        if not self.node.connections:
            return "alone"
        return "failing" if self.timeout_rate >= TIMEOUT_RATE_FAILING else "ok"


class Calls(TreeCalls):
    """What a local caller may ask of a node; files are made of the blocks that it puts and gets."""

    @abstractmethod
    async def store_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block as a part of something, pinned but under no name; raises as `put_block`.

        Nodes that have it already are not sent it again if it has 1 KiB or more. What is stored so
        is let go of by `gc` unless it belongs to something that is kept.
        """

    @abstractmethod
    async def tend(self, order: Order) -> Told:
        """Change or ask what is kept here (pins.py); what pinning stands on.

        Raises:
            StoreError: the disk failed.
        """

    @abstractmethod
    async def keep(self, key: ItemKey, item: Item | None = None) -> Item:
        """Find an item, unless it is given, and pin it; what `pin` stands on.

        Raises:
            NotFoundError: nobody who could be asked has it.
            StoreError: it has no place here.
        """

    @abstractmethod
    async def unpin(self, name: Name, salt: bytes = b"") -> int:
        """Let go of what was put, published or pinned; return how many items lost their pin.

        Those that something else kept here needs too stay pinned. The others are ordinary items
        from now on: they stay as long as this node is among their holders, then expire.

        Raises:
            MisuseError: not a name.
            NotFoundError: it is not pinned here.
            WorldError: what others need cannot be told now; see the message.
        """

    @abstractmethod
    async def gc(self) -> int:
        """Let go of every pin that nothing kept here needs; return how many there were.

        They come from puts that failed or were killed: a put of the same file would have found its
        blocks here. Puts and pins that are under way lose nothing.

        Raises:
            WorldError: as `unpin`.
        """

    async def put_block(self, data: bytes, kind: Kind = Kind.BLOCK_BLAKE3_256) -> PutReceipt:
        """Store a block at the nodes closest to it, keep it, and say who holds it.

        Raises:
            MisuseError: more than 65,536 bytes, or a kind that is no hash of blocks.
            NoPeersError: this node is a client and reaches nobody.
            NotStoredError: nobody took it; the message has what each node said.
        """
        receipt = await self.store_block(data, kind)
        root = Root(receipt.key, size=len(data))
        not_kept = receipt.not_kept or await pinning.settle(self, root)
        return msgspec.structs.replace(receipt, not_kept=not_kept)

    @abstractmethod
    async def get_block(self, key: Name) -> bytes:
        """Return the bytes of a block, proved by its hash.

        Raises:
            MisuseError: not a name.
            NoPeersError: it is not here, and this node reaches nobody.
            NotFoundError: nobody who could be asked has it.
        """

    @abstractmethod
    async def ping(self, target: Target) -> PingAnswer:
        """Ask a node, by its id or at an address, whether it is there.

        Raises:
            MisuseError: neither an id nor an address.
            NoPeersError: it cannot be reached; the message has what happened at each address.
            WorldError: it did not answer.
        """

    @abstractmethod
    async def status(self) -> NodeStatus:
        """Return the state of the node."""

    @abstractmethod
    async def trace(self, work: Guid | str) -> tuple[Event, ...]:
        """Return what this node remembers of one operation, begun here or elsewhere, oldest first.

        `work` is its guid (see `xorbit.run.tracing`), or as text the beginning of one that is
        remembered.

        Raises:
            MisuseError: not a guid, nor the beginning of just one that is remembered.
        """

    @abstractmethod
    def console(self, line: str) -> AsyncGenerator[str]:
        """Do what a line typed at the node's console says; yield each answer until it is done.

        What was begun is cancelled when this is closed before.

        Raises:
            StoppedError: the node stopped before it was done.
        """

    @abstractmethod
    async def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connections of the node, in the order of their ids."""

    @abstractmethod
    async def fingers(self) -> tuple[FingerStatus, ...]:
        """Return the node's fingers: the nearest contact to the point of each bucket that has one.

        From the farthest bucket to the nearest.
        """

    @abstractmethod
    async def contacts(self) -> tuple[Contact, ...]:
        """Return the contacts of the node's routing table, in the order of their ids."""

    @abstractmethod
    async def lookup(self, id: Id | str) -> tuple[Contact, ...]:
        """Ask ever closer nodes for those closest to an id; return them, closest first.

        Raises:
            MisuseError: not an id.
            NoPeersError: this node reaches nobody.
        """

    @abstractmethod
    async def get_signed(self, key: ItemKey) -> Item:
        """Return the newest version of a signed item; `resolve` and `whereis` by its key.

        Raises:
            NoPeersError: it is not here, and this node reaches nobody.
            NotFoundError: nobody who could be asked has it.
        """

    @abstractmethod
    async def put_record(self, record: Record, cas: int) -> PutDone:
        """Store a record that is signed already, by compare-and-swap; `publish` stands on it.

        Raises:
            NoPeersError: this node is a client and reaches nobody.
            NotStoredError: nobody took it, and nobody named a newer one.
        """

    @abstractmethod
    def follow(self, public_key: Key, salt: bytes = b"") -> AsyncGenerator[Record]:
        """Give the newest version of a record, then each newer one as it comes, until closed.

        A caller who is slow to take them is not told of each that came and went meanwhile, but
        always of the latest.

        Raises:
            MisuseError: not a public key.
            StoppedError: the node stopped.
        """

    async def publish(
        self, key: UserKey, value: bytes, *, salt: bytes = b"", cas: int | None = None
    ) -> PublishReceipt:
        """Store the next version of the record under a key (and a salt), signed in this process.

        With `cas`, the sequence number that you have seen (0: none), it is stored only if nobody
        has published since. Without, it comes after whatever is the newest; that is tried again a
        few times when another writer was faster.

        Raises:
            MisuseError: more than 60,000 bytes of value or 64 of salt.
            StaleError: another writer was faster; it has the newer record.
            NoPeersError: this node is a client and reaches nobody.
            NotStoredError: too few nodes took it.
        """
        done = await publish(self, key, value, salt=salt, cas=cas)
        not_kept = await pinning.settle(self, pinning.root_of(done.record), item=done.record)
        return msgspec.structs.replace(done, not_kept=not_kept)

    async def resolve(self, public_key: Key, salt: bytes = b"") -> Record:
        """Return the newest version of the record under a public key (and a salt).

        Raises:
            MisuseError: not a public key.
            NoPeersError: it is not here, and this node reaches nobody.
            NotFoundError: nobody who could be asked has it.
        """
        key = public_key_bytes(public_key)
        with missing(record_named(key, salt)):
            found = await self.get_signed(record_key(key, salt))
        assert isinstance(found, Record), "the key is that of a record"
        return found

    async def whereis(self, id: Id | str) -> ConnectionItem:
        """Return where a node says that it is, signed by that node.

        Raises:
            MisuseError: not an id.
            NoPeersError: it is not known here, and this node reaches nobody.
            NotFoundError: nobody who could be asked knows.
        """
        node = id_from(id)
        with missing(f"where node {node.hex()} is"):
            found = await self.get_signed(connection_key(node))
        assert isinstance(found, ConnectionItem), "the key is that of a connection item"
        return found

    async def pins(self) -> tuple[Kept, ...]:
        """Return what is kept here: files and directories put or pinned, records of either kind.

        They come in the order in which they were put or pinned, the latest last. What is joining is
        being pinned, what is leaving is being let go of.
        """
        return await pinning.all_roots(self)

    async def pin(self, name: Name, salt: bytes = b"", *, progress: Progress | None = None) -> Root:
        """Fetch what is missing of a file, a directory, or a public key's record, and keep it.

        Of private content all of it is kept if the name carries the key, else its topmost block.

        Raises:
            MisuseError: not a name.
            NotFoundError: a part of it is nowhere to be had.
            StoreError: it has no place here.
            XorbitError: as `get_file` and `resolve`.
        """
        root, seal = pinning.root_and_key(name, salt)
        item = await self.resolve(root.public_key, root.salt) if root.is_record else None
        return await pinning.pin(self, root, item=item, progress=progress, seal=seal)


def documented(twin: type[T]) -> type[T]:
    """Give each method that says "see `Calls`" the docstring from there, so that help() has it."""
    for name, method in vars(twin).items():
        if "see `Calls`" in (method.__doc__ or ""):
            method.__doc__ = inspect.getdoc(getattr(Calls, name))
    return twin


def target_from(target: Target) -> Id | Address:
    """Return the id or the address that is meant.

    Raises:
        MisuseError: neither.
    """
    if isinstance(target, bytes):
        if len(target) != ID_BYTES:
            raise MisuseError(f"an id has {ID_BYTES} bytes, got {len(target)}")
        return target
    if isinstance(target, Address):
        return target
    if ":" in target:
        return parse_address(target)
    try:
        return target_from(Id(bytes.fromhex(target)))
    except ValueError as error:
        raise MisuseError(
            f"expected a node's id ({2 * ID_BYTES} hexadecimal digits) or HOST:PORT, got {target!r}"
        ) from error


def id_from(id: Id | str) -> Id:
    """Return the id that is meant.

    Raises:
        MisuseError: neither 32 bytes nor 64 hexadecimal digits.
    """
    try:
        found = Id(bytes.fromhex(id)) if isinstance(id, str) else id
    except ValueError:
        found = Id(b"")
    if len(found) != ID_BYTES:
        raise MisuseError(f"expected a node's id ({2 * ID_BYTES} hexadecimal digits), got {id!r}")
    return found


async def whole_id(calls: Calls, text: str, or_else: str = "") -> Id:
    """Return the id that is meant: whole, or the beginning of that of one peer or contact.

    Raises:
        MisuseError: neither; the message ends with what may be given instead.
    """
    if len(text) >= 2 * ID_BYTES or ":" in text:
        return id_from(text)
    peers, contacts = await calls.peers(), await calls.contacts()
    known = dict.fromkeys(node.id.hex() for node in (*peers, *contacts))
    fitting = [id for id in known if id.startswith(text.lower())]
    if len(fitting) > 1:
        raise MisuseError(f"{len(fitting)} known ids begin with {text!r}: type more of it")
    if not fitting:
        instead = f"give a whole id ({2 * ID_BYTES} hexadecimal digits) {or_else}".rstrip()
        raise MisuseError(
            f"no connected peer's id and no contact's begins with {text!r} ('xorbit peers' and "
            f"'fingers' list some): {instead}"
        )
    return id_from(fitting[0])


def public_key_bytes(key: Key) -> bytes:
    """Return the public key that is meant.

    Raises:
        MisuseError: neither 32 bytes nor 64 hexadecimal digits.
    """
    try:
        found = bytes.fromhex(key) if isinstance(key, str) else key
    except ValueError:
        found = b""
    if len(found) != PUBLIC_KEY_BYTES:
        digits = 2 * PUBLIC_KEY_BYTES
        raise MisuseError(f"expected a public key ({digits} hexadecimal digits), got {key!r}")
    return found
