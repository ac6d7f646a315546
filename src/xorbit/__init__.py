"""xorbit: a peer-to-peer store of small items that nobody has to host.

    async with xorbit.Node(bootstrap=["host:port"]) as node: ...
    with xorbit.open_node(bootstrap=["host:port"]) as node: ...

What is named here is loaded when it is first used, so that one room of the house can be imported
without the whole house.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xorbit.api import Node as Node
    from xorbit.api import connect as connect
    from xorbit.api import open_calls as open_calls
    from xorbit.blocking import BlockingClient as BlockingClient
    from xorbit.blocking import BlockingNode as BlockingNode
    from xorbit.blocking import open_client as open_client
    from xorbit.blocking import open_node as open_node
    from xorbit.config import Limits as Limits
    from xorbit.errors import FormatError as FormatError
    from xorbit.errors import MisuseError as MisuseError
    from xorbit.errors import NoPeersError as NoPeersError
    from xorbit.errors import NotFoundError as NotFoundError
    from xorbit.errors import NotRunningError as NotRunningError
    from xorbit.errors import NotStoredError as NotStoredError
    from xorbit.errors import PeerError as PeerError
    from xorbit.errors import StaleError as StaleError
    from xorbit.errors import StoppedError as StoppedError
    from xorbit.errors import StoreError as StoreError
    from xorbit.errors import WorldError as WorldError
    from xorbit.errors import XorbitError as XorbitError
    from xorbit.files.cid import Cid as Cid
    from xorbit.files.cid import parse_cid as parse_cid
    from xorbit.files.local_tree import cid_of as cid_of
    from xorbit.files.pointer import RecordPlace as RecordPlace
    from xorbit.items import Kind as Kind
    from xorbit.items import Record as Record
    from xorbit.keys import UserKey as UserKey
    from xorbit.keys import load_key as load_key
    from xorbit.keys import new_key as new_key

__version__ = "0.1.0"

_ROOMS = {
    "xorbit.api": ("Node", "connect", "open_calls"),
    "xorbit.blocking": ("BlockingClient", "BlockingNode", "open_client", "open_node"),
    "xorbit.config": ("Limits",),
    "xorbit.errors": (
        "FormatError",
        "MisuseError",
        "NoPeersError",
        "NotFoundError",
        "NotRunningError",
        "NotStoredError",
        "PeerError",
        "StaleError",
        "StoppedError",
        "StoreError",
        "WorldError",
        "XorbitError",
    ),
    "xorbit.files.cid": ("Cid", "parse_cid"),
    "xorbit.files.local_tree": ("cid_of",),
    "xorbit.files.pointer": ("RecordPlace",),
    "xorbit.items": ("Kind", "Record"),
    "xorbit.keys": ("UserKey", "load_key", "new_key"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module 'xorbit' has no attribute {name!r}")
    return getattr(import_module(room), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF])
