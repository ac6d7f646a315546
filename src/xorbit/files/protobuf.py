"""Just so much of Protocol Buffers as dag-pb and UnixFS need, in one canonical encoding.

Pure; nothing of links or files may enter here. Own code on purpose: protobuf libraries accept by
design what a content-addressed format must refuse (fields out of order, repeated or unknown,
numbers written longer than need be), and the dag-pb package for Python (ipld-dag-pb) knows no
UnixFS and would bring the whole multiformats stack for these few functions.

Encoding: https://protobuf.dev/programming-guides/encoding/ (varints and length-delimited fields).
"""

from collections.abc import Iterator
from typing import NamedTuple

from xorbit.errors import FormatError

UINT64_MAX = 2**64 - 1
VARINT_BYTES_MAX = 10

_VARINT = 0
_BYTES = 2


class Field(NamedTuple):
    """One field of a message: its number, what it is called in errors, its shape."""

    number: int
    name: str
    is_bytes: bool = False
    is_repeated: bool = False


class Schema:
    """The fields that a message may have, in the order in which they must come."""

    def __init__(self, *fields: Field) -> None:
        self.places = {known.number: (place, known) for place, known in enumerate(fields)}
        self.names = ", ".join(known.name for known in fields)


class Message:
    """The fields that were found, by number."""

    __slots__ = ("_blobs", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[int, list[int]] = {}
        self._blobs: dict[int, list[bytes]] = {}

    def add(self, number: int, value: int | bytes) -> None:
        """Add one value of a field."""
        if isinstance(value, bytes):
            self._blobs.setdefault(number, []).append(value)
        else:
            self._numbers.setdefault(number, []).append(value)

    def numbers(self, field: Field) -> list[int]:
        """Return the values of a number field in the order in which they came."""
        return self._numbers.get(field.number, [])

    def blobs(self, field: Field) -> list[bytes]:
        """Return the values of a bytes field in the order in which they came."""
        return self._blobs.get(field.number, [])

    def number(self, field: Field) -> int | None:
        """Return the value of a number field that is not repeated, None where it is missing."""
        return next(iter(self.numbers(field)), None)

    def blob(self, field: Field) -> bytes | None:
        """Return the value of a bytes field that is not repeated, None where it is missing."""
        return next(iter(self.blobs(field)), None)


def varint(value: int) -> bytes:
    """Return a number in 0..2**64-1 as a varint of the least length."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number_field(field: Field, value: int) -> bytes:
    """Return a number with its tag."""
    return varint(field.number << 3 | _VARINT) + varint(value)


def bytes_field(field: Field, data: bytes) -> bytes:
    """Return bytes with their tag and length."""
    return varint(field.number << 3 | _BYTES) + varint(len(data)) + data


def decode_message(data: bytes, schema: Schema) -> Message:
    """Return the fields of a message that follows a schema to the letter.

    The fields must come in the order of the schema, each at most once unless it is repeated.

    Raises:
        FormatError: anything else came, or a number is longer than need be, or bytes are missing.
    """
    message = Message()
    last = -1
    for number, value in _read_fields(data):
        if number not in schema.places:
            raise FormatError(f"expected the fields {schema.names}, got number {number}")
        place, field = schema.places[number]
        if place < last or (place == last and not field.is_repeated):
            raise FormatError(f"field {field.name} is out of order or comes twice")
        if isinstance(value, bytes) is not field.is_bytes:
            raise FormatError(f"field {field.name} has the wrong wire type")
        message.add(number, value)
        last = place
    return message


def _read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        elif tag & 7 == _BYTES:
            end = at + value
            if end > len(data):
                raise FormatError(f"field {tag >> 3} says {value} bytes, {len(data) - at} follow")
            yield tag >> 3, data[at:end]
            at = end
        else:
            raise FormatError(f"field {tag >> 3} has wire type {tag & 7}, expected 0 or 2")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:  # most are this short
        return data[at], at + 1
    value = shift = 0
    for byte in data[at : at + VARINT_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if byte == 0 or value > UINT64_MAX:
                raise FormatError("a number is longer than need be, or above 2**64-1")
            return value, at + shift // 7
    raise FormatError("the bytes end within a number, or it does not end")
