"""The data of a UnixFS node: what a dag-pb node is (file, directory, ...) and what goes with that.

Pure; one message and its one encoding. Links may not enter here, nor what a type asks of them.

Spec: https://specs.ipfs.tech/unixfs/ (`Data`). Modes and times of files (fields 7 and 8) are not
among what is known here: a node that has them is refused, none of ours has.
"""

from enum import IntEnum

from msgspec import Struct

from xorbit.errors import FormatError
from xorbit.files.protobuf import Field, Schema, bytes_field, decode_message, number_field

_TYPE = Field(1, "Type")
_DATA = Field(2, "Data", is_bytes=True)
_SIZE = Field(3, "filesize")
_SIZES = Field(4, "blocksizes", is_repeated=True)
_HASH_TYPE = Field(5, "hashType")
_FANOUT = Field(6, "fanout")
_MESSAGE = Schema(_TYPE, _DATA, _SIZE, _SIZES, _HASH_TYPE, _FANOUT)


class Type(IntEnum):
    """What a node is (`Data.DataType`)."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMBOLIC_LINK = 4
    SHARDED_DIRECTORY = 5

    @property
    def words(self) -> str:
        """Return what the type is called in errors."""
        return self.name.lower().replace("_", " ")


class UnixFsData(Struct, frozen=True):
    """The fields of one node's data; None where a field is missing, which differs from empty."""

    type: Type
    data: bytes | None = None
    """The bytes of a file, the target of a symbolic link, the bitfield of a shard."""
    size: int | None = None
    """The bytes of a file (`filesize`)."""
    sizes: tuple[int, ...] = ()
    """The bytes of each part of a file (`blocksizes`)."""
    hash_type: int | None = None
    fanout: int | None = None


def encode_data(node: UnixFsData) -> bytes:
    """Return the bytes of a node's data."""
    parts = [number_field(_TYPE, node.type)]
    if node.data is not None:
        parts.append(bytes_field(_DATA, node.data))
    if node.size is not None:
        parts.append(number_field(_SIZE, node.size))
    parts += [number_field(_SIZES, size) for size in node.sizes]
    if node.hash_type is not None:
        parts.append(number_field(_HASH_TYPE, node.hash_type))
    if node.fanout is not None:
        parts.append(number_field(_FANOUT, node.fanout))
    return b"".join(parts)


def decode_data(data: bytes | None) -> UnixFsData:
    """Return what the data of a dag-pb node says.

    Raises:
        FormatError: there is none, it is not in its one encoding, or of a type that nobody knows.
    """
    if data is None:
        raise FormatError("a dag-pb node without data is no part of a file or directory")
    message = decode_message(data, _MESSAGE)
    return UnixFsData(
        _type(message.number(_TYPE)),
        message.blob(_DATA),
        message.number(_SIZE),
        tuple(message.numbers(_SIZES)),
        message.number(_HASH_TYPE),
        message.number(_FANOUT),
    )


def _type(number: int | None) -> Type:
    try:
        return Type(-1 if number is None else number)
    except ValueError:
        told = "none given" if number is None else f"{number} (unknown)"
        raise FormatError(f"expected a UnixFS type from 0 to 5, got {told}") from None
