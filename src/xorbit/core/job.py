"""Jobs: everything that can happen to a node, as data.

A job can be printed, compared, logged and replayed; it never holds a closure. The machine takes
them apart in one match (machine.py).
"""

from msgspec import Struct

from xorbit.ids import Guid, Id
from xorbit.items import Address, ConnectionItem, Contact, Held, Item, ItemKey, Record
from xorbit.pins import Order, Told
from xorbit.wire.message import Request, Response


class JobBase(Struct, frozen=True, tag=True, gc=False):
    """The root of all jobs; the tag is the class name, for the job log."""


# --- From connections ---------------------------------------------------------------------------


class HandleRequest(JobBase, frozen=True):
    """A peer asks. `size` is the frame's bytes: what the job costs its line in the queue."""

    connection: Guid
    guid: Guid
    work: Guid
    request: Request
    size: int = 0


class HandleResponse(JobBase, frozen=True):
    """A peer answers the exchange `guid`."""

    connection: Guid
    guid: Guid
    work: Guid
    response: Response
    size: int = 0


class ConnectionOpened(JobBase, frozen=True):
    """A handshake is done and proved the peer's id. `dial` names our Dial, None when they dialled.

    `address` is the peer's end of the socket: what we dialled, or where an inbound peer came from.
    """

    connection: Guid
    peer: Id
    address: Address
    dial: Guid | None = None


class DialFailed(JobBase, frozen=True):
    """No address of a Dial led to the peer: each address tried, and what happened there.

    `impostor` says that some address was answered by another id than the one expected.
    """

    dial: Guid
    tried: tuple[tuple[Address, str], ...]
    impostor: bool = False
    ours: tuple[Address, ...] = ()
    """Addresses at which we ourselves answered."""


class ConnectionLost(JobBase, frozen=True):
    """A connection is gone, by the peer, the network or our own Close; once for each opened one."""

    connection: Guid
    reason: str = ""


# --- From the local caller, the console and the cron ---------------------------------------------


class Get(JobBase, frozen=True):
    """Find this item, here or in the network. The guid names the work; comes back as Finish."""

    guid: Guid
    key: ItemKey


class Store(JobBase, frozen=True):
    """Put this item at the nodes closest to it. The guid names the work; comes back as Finish."""

    guid: Guid
    key: ItemKey
    item: Item
    cas: int | None = None
    look_first: bool = False
    """Of a block: whether each node is asked if it has it, and is sent it only if it has not."""


class Pin(JobBase, frozen=True):
    """Keep this item, and keep it alive in the network; found first, unless it is given.

    The guid names the work; comes back as Finish, once it is on disk and pinned.
    """

    guid: Guid
    key: ItemKey
    item: Item | None = None


class TendPins(JobBase, frozen=True):
    """Change or ask what is kept for our owner. Comes back as Finish."""

    guid: Guid
    order: Order


class SendRequest(JobBase, frozen=True):
    """Ask one contact one thing; the guid names the work; comes back as Finish."""

    guid: Guid
    to: Contact
    request: Request


class SendResponse(JobBase, frozen=True):
    """Answer a request that took a work of its own (posted by the machine itself)."""

    connection: Guid
    guid: Guid
    response: Response


class Connect(JobBase, frozen=True):
    """Open a connection to these addresses (to just this id, where one is given).

    The guid names the work; comes back as Finish.
    """

    guid: Guid
    addresses: tuple[Address, ...]
    expected: Id | None = None


class Follow(JobBase, frozen=True):
    """Keep a caller up to date with a record: each newer version comes as a Pushed effect.

    The guid names the work, which goes on until Cancel.
    """

    guid: Guid
    key: ItemKey


class Revoked(JobBase, frozen=True):
    """The operator of our network has revoked these nodes: the whole list, in place of the last."""

    ids: tuple[Id, ...]


class LookUp(JobBase, frozen=True):
    """Find the nodes closest to a point. The guid names the work; comes back as Finish."""

    guid: Guid
    target: Id


class QueueFigures(Struct, frozen=True, gc=False):
    """The job queue at one instant: how many jobs wait, how many of each kind have been served."""

    waiting: tuple[tuple[str, int], ...] = ()
    """By source; that of a connection is its guid in hex. The longest lines first."""
    served: tuple[tuple[str, int], ...] = ()


class HandleStdinLine(JobBase, frozen=True):
    """Somebody typed a line, at the node's standard input or in a console attached to it.

    `session` names the line where a console waits for its answers: each Print for it carries it
    back, and a work that it starts has it as its guid, so that Cancel ends it. None is standard
    input. `queue` is what the line may ask of the queue, which is the driver's and not the
    machine's: as a part of the job, the answer is the same whenever the job is replayed.
    """

    line: str
    session: Guid | None = None
    queue: QueueFigures = QueueFigures()


class Listening(JobBase, frozen=True):
    """We accept connections at these addresses (a host may be unspecified: 0.0.0.0 or ::)."""

    addresses: tuple[Address, ...]


class Bootstrap(JobBase, frozen=True):
    """Join the network through these addresses; the first job of a node's life.

    The guid names the work; comes back as Finish once joined, or with what each address said.
    """

    guid: Guid
    addresses: tuple[Address, ...] = ()


class ConnectionMaintenance(JobBase, frozen=True):
    """Look after the connections: dial where too few, ping the silent, close the idle."""


class Cancel(JobBase, frozen=True):
    """The caller of this work no longer waits for it."""

    guid: Guid


class Shutdown(JobBase, frozen=True):
    """Stop: take nothing new, finish what is in flight, then say Stopped."""


# --- From the clock and the disk -----------------------------------------------------------------


class Tick(JobBase, frozen=True):
    """The deadline that the machine named has come."""


class StoreRead(JobBase, frozen=True):
    """What a ReadStore found; `fault` is "damaged", or what the disk said when it failed."""

    guid: Guid
    item: Item | None = None
    fault: str = ""


class StoreWritten(JobBase, frozen=True):
    """What became of a WriteStore; with code "stored" the item is durable."""

    guid: Guid
    code: str
    reason: str = ""
    newer: Record | None = None


class StoreChecked(JobBase, frozen=True):
    """Which keys of a CheckStore are missing."""

    guid: Guid
    missing: tuple[ItemKey, ...]


class StoreScanned(JobBase, frozen=True):
    """What a ScanStore came by; nothing where the end was reached or the disk failed."""

    guid: Guid
    entries: tuple[Held, ...]


class StoreDropped(JobBase, frozen=True):
    """Which keys of a DropItems were removed."""

    guid: Guid
    keys: tuple[ItemKey, ...]


class PinsTended(JobBase, frozen=True):
    """What became of an OrderPins."""

    guid: Guid
    told: Told


class Restored(JobBase, frozen=True):
    """The contacts that an earlier life of this node saved: to be proved again before use."""

    contacts: tuple[Contact, ...]


class ConnectionSigned(JobBase, frozen=True):
    """What a SignConnection asked for."""

    guid: Guid
    item: ConnectionItem


Job = (
    HandleRequest
    | HandleResponse
    | ConnectionOpened
    | DialFailed
    | ConnectionLost
    | Get
    | Store
    | Pin
    | TendPins
    | Follow
    | LookUp
    | SendRequest
    | SendResponse
    | Connect
    | Revoked
    | HandleStdinLine
    | Listening
    | Bootstrap
    | ConnectionMaintenance
    | Cancel
    | Shutdown
    | Tick
    | StoreRead
    | StoreWritten
    | StoreChecked
    | StoreScanned
    | StoreDropped
    | PinsTended
    | Restored
    | ConnectionSigned
)
