"""The keyspace: ids, guids, XOR distance and finger points.

Pure arithmetic over bytes. No time, no chance of its own (`new_guid` takes its source of chance as
an argument), no knowledge of items or peers.

The metric is that of Kademlia (Maymounkov and Mazieres, "Kademlia: A Peer-to-peer Information
System Based on the XOR Metric", IPTPS 2002), over 256-bit ids.
"""

from random import Random
from typing import NewType

from blake3 import blake3

ID_BYTES = 32
ID_BITS = 256
GUID_BYTES = 16

Id = NewType("Id", bytes)
"""A point of the keyspace: 32 bytes, read as a big-endian 256-bit number."""

Guid = NewType("Guid", bytes)
"""16 random bytes that name one exchange, one work, one connection or one effect in progress."""


def id_of(data: bytes) -> Id:
    """Return the id of some bytes: their BLAKE3-256 digest, 32 bytes."""
    return Id(blake3(data).digest())


def new_guid(rng: Random) -> Guid:
    """Return 16 fresh random bytes from the given source of chance."""
    return Guid(rng.randbytes(GUID_BYTES))


def as_number(point: Id) -> int:
    """Return the id as a number in [0, 2**256)."""
    return int.from_bytes(point, "big")


def as_id(number: int) -> Id:
    """Return the id of a number in [0, 2**256)."""
    return Id(number.to_bytes(ID_BYTES, "big"))


def distance(a: Id, b: Id) -> int:
    """Return the XOR distance of two ids as a number in [0, 2**256)."""
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


def bucket_index(own: Id, other: Id) -> int:
    """Return which bucket of `own` holds `other`: floor(log2(distance)), or -1 for `own` itself."""
    return distance(own, other).bit_length() - 1


def finger_point(own: Id, index: int) -> Id:
    """Return `own ^ 2**index`: the nearest possible id of bucket `index` (0..255)."""
    return as_id(as_number(own) ^ (1 << index))
