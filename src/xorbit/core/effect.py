"""Effects: everything that the machine can want done, as data; and the outcomes of local calls.

A driver performs them in order, right after the step that returned them. Each effect that starts
something asynchronous comes back as exactly one job, named beside it.
"""

from typing import Literal

from msgspec import Struct

from xorbit.core.job import Job
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, Item, ItemKey, Record
from xorbit.pins import Order, Told
from xorbit.wire.message import Envelope, Receipt, Response


class EffectBase(Struct, frozen=True, tag=True, gc=False):
    """The root of all effects."""


# --- The network --------------------------------------------------------------------------------


class Send(EffectBase, frozen=True):
    """Send this envelope on that connection. Fire and forget: a loss shows as ConnectionLost."""

    connection: Guid
    envelope: Envelope


class Dial(EffectBase, frozen=True):
    """Try these addresses in order -> ConnectionOpened (with `dial` = guid) or DialFailed.

    With `expected`, an answer by any other id counts as failed at that address and is closed.
    """

    guid: Guid
    addresses: tuple[Address, ...]
    expected: Id | None = None


class Close(EffectBase, frozen=True):
    """Close this connection after what was sent has left -> ConnectionLost."""

    connection: Guid
    reason: str


class HoldRequests(EffectBase, frozen=True):
    """All in-workers of this connection are busy: serve no further request of its line."""

    connection: Guid


class ReleaseRequests(EffectBase, frozen=True):
    """An in-worker is free again: serve this connection's requests."""

    connection: Guid


class StopListening(EffectBase, frozen=True):
    """Accept no further connections."""


# --- The disk -----------------------------------------------------------------------------------


class ReadStore(EffectBase, frozen=True):
    """-> StoreRead."""

    guid: Guid
    key: ItemKey


class WriteStore(EffectBase, frozen=True):
    """Write durably, grouped with others of the moment -> StoreWritten."""

    guid: Guid
    key: ItemKey
    item: Item
    cas: int | None = None
    pin: bool = False
    """Our owner put it."""
    age_s: float = 0.0
    """How old it was where it came from."""


class CheckStore(EffectBase, frozen=True):
    """-> StoreChecked: which of the keys are missing. With `touch`, those held are young again."""

    guid: Guid
    keys: tuple[ItemKey, ...]
    touch: bool = False
    pins: bool = False
    """It is our own owner who has refreshed them: the times of the pins move as well."""


class ScanStore(EffectBase, frozen=True):
    """-> StoreScanned: up to `count` items in keyspace order, from `start` on."""

    guid: Guid
    start: Id
    count: int


class DropItems(EffectBase, frozen=True):
    """Remove those that are not pinned, and of such an age even then -> StoreDropped."""

    guid: Guid
    keys: tuple[ItemKey, ...]
    aged_s: float = 0.0


class OrderPins(EffectBase, frozen=True):
    """Change or ask what is kept for our owner -> PinsTended."""

    guid: Guid
    order: Order


class DropDamaged(EffectBase, frozen=True):
    """Remove what stands under this key if it is still damaged. Nothing comes back."""

    key: ItemKey


class SaveContacts(EffectBase, frozen=True):
    """Keep these contacts for our next life, in place of those kept before. Nothing comes back."""

    contacts: tuple[Contact, ...]


class SignConnection(EffectBase, frozen=True):
    """Sign with our key where we are -> ConnectionSigned."""

    guid: Guid
    seq: int
    addresses: tuple[Address, ...]


# --- Ourselves ----------------------------------------------------------------------------------


class Post(EffectBase, frozen=True):
    """Put this job into the machine's own line of the queue."""

    job: Job


class Finish(EffectBase, frozen=True):
    """The local call with this guid has its outcome."""

    guid: Guid
    outcome: "Outcome"


class Pushed(EffectBase, frozen=True):
    """A newer version of the record that the local caller with this guid follows."""

    guid: Guid
    record: Record


class Report(EffectBase, frozen=True):
    """Tell the node's log. `event` is a short fixed phrase, `detail` says of what."""

    level: Literal["debug", "info", "warning", "error"]
    event: str
    detail: str = ""


class Print(EffectBase, frozen=True):
    """Show this text to whoever typed the line.

    That is the node's standard input where `session` is None, else that console. `last` says that
    nothing more comes for that line, `fault` that it could not be done, and whose fault that is.
    """

    text: str
    session: Guid | None = None
    last: bool = True
    fault: Literal["", "misuse", "world"] = ""


class Stopped(EffectBase, frozen=True):
    """Nothing is in flight any more (or the limit has passed): the driver may end."""


Effect = (
    Send
    | Dial
    | Close
    | HoldRequests
    | ReleaseRequests
    | StopListening
    | ReadStore
    | WriteStore
    | CheckStore
    | ScanStore
    | DropItems
    | OrderPins
    | DropDamaged
    | SaveContacts
    | SignConnection
    | Post
    | Finish
    | Pushed
    | Report
    | Print
    | Stopped
)


# --- Outcomes of local calls ---------------------------------------------------------------------


class Got(Struct, frozen=True, tag=True):
    """Get or Pin: the item, and who gave it (our own id when it was here)."""

    item: Item
    source: Id


class NotFound(Struct, frozen=True, tag=True):
    """Get: nobody has it. How many nodes said so, and how many could not be asked."""

    asked: int
    failed: int


class PutDone(Struct, frozen=True, tag=True):
    """Store: what every node said. Stored nowhere at all is a PutDone without a "stored".

    `won`: as far as this record goes, nobody else's was taken. With `cas` that means that all but
    one of the r closest took it (of fewer nodes, a majority): no other writer who saw the same
    can have that as well, even if it knows of other nodes than we do; and that nobody was found to
    hold a version that readers would take for the newer.
    """

    receipts: tuple[Receipt, ...]
    newer: Record | None = None
    """The newest record that a node held instead of ours, where one said so."""
    won: bool = False
    not_kept: str = ""
    """Why no pinned copy of it is here for our owner; "" where there is one."""
    votes: Literal["ours", "theirs", "split"] = "split"
    """With `cas`, by who was first: all but one of the r closest took ours; they may all have taken
    another writer's; neither can be."""
    held_before: bool = False
    """Whether a node had this block already, so that it was not sent there; only with `look_first`:
    else nobody is asked."""


class Answered(Struct, frozen=True, tag=True):
    """SendRequest: the response, and how long it took."""

    peer: Id
    response: Response
    round_trip_s: float


class LookedUp(Struct, frozen=True, tag=True):
    """LookUp: the contacts that are closest, closest first; how many answered and did not.

    `hops`: how many nodes were asked in a row to come to the closest one, itself included.
    """

    contacts: tuple[Contact, ...]
    asked: int
    failed: int
    hops: int = 0


class Tended(Struct, frozen=True, tag=True):
    """TendPins: what the store said."""

    told: Told


class Connected(Struct, frozen=True, tag=True):
    """Connect: who is there."""

    peer: Id


class Joined(Struct, frozen=True, tag=True):
    """Bootstrap: how many contacts the table holds now."""

    contacts: int


class Failed(Struct, frozen=True, tag=True):
    """The call could not be done, in one sentence; `tried` names addresses and their answers."""

    code: Literal["timeout", "unreachable", "busy", "stopping", "disk", "refused"]
    reason: str
    tried: tuple[tuple[Address, str], ...] = ()


Outcome = Got | NotFound | PutDone | Answered | LookedUp | Tended | Connected | Joined | Failed
