"""What a node tells of itself: plain structs, made from the state between two steps.

Read by the API, the command line and (later) the gateway; nothing here changes anything.
"""

from msgspec import Struct

from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact


class Status(Struct, frozen=True, kw_only=True):
    """A node at one instant. Health is live contacts and the share of requests that timed out."""

    id: Id
    addresses: tuple[Address, ...]
    """Where this node listens, as far as it knows; empty for a client."""
    joined: bool
    stopping: bool
    contacts: int
    connections: int
    works: int
    requests_sent: int
    requests_answered: int
    requests_timed_out: int
    requests_served: int
    requests_refused: int
    damaged_found: int
    timeout_rate: float = 0.0
    """Which share of the requests that ended in the last minute, 0..1, had no answer."""


class PeerStatus(Struct, frozen=True, kw_only=True):
    """One connection at one instant. Times in seconds."""

    id: Id
    connection: Guid
    address: Address
    dialled: bool
    """Whether we dialled it (else it dialled us)."""
    round_trip_s: float | None
    waiting_for: int
    """Our requests that wait for its answer or for a free out-worker."""
    answering: int
    """Its requests that we are answering."""
    open_s: float


class FingerStatus(Struct, frozen=True, kw_only=True):
    """One finger: the contact nearest to the point `id ^ 2**index`, and whether it is connected."""

    index: int
    point: Id
    contact: Contact
    connected: bool
