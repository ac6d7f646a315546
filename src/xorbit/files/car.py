"""Trees as one file: CARv1, written and read as a stream, each block proved by its hash.

Blocks the caller while it reads; no network and no asyncio here. Memory holds one block. What goes
into the CAR of a tree, trees.py says.

Spec: https://ipld.io/specs/transport/car/carv1/. A CAR is a header and then sections: the length of
what follows (a varint), a CID, the bytes of its block. The header is DAG-CBOR, but of one form
only: a map of roots and of version 1. So it is read by that form and not by a CBOR library: those
make dates, patterns and huge numbers of whatever a stranger writes, and what they accept would have
to be held against this one form all the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from xorbit.config import CAR_ROOTS_MAX
from xorbit.errors import FormatError, MisuseError, WorldError
from xorbit.files.cid import CID_BYTES, Cid, cid_of_block, decode_cid
from xorbit.files.local import read_some
from xorbit.files.protobuf import varint
from xorbit.items import BLOCK_BYTES_MAX

_MAP_OF_ROOTS = b"\xa2\x65roots"
_VERSION_1 = b"\x67version\x01"
_MAP_OF_VERSION_2 = b"\xa1\x67version\x02"
_MAPS = (_MAP_OF_VERSION_2[0], _MAP_OF_ROOTS[0])
_LINK = b"\xd8\x2a\x58\x25\x00"
"""Tag 42, bytes of length 37, and the zero with which a CID in DAG-CBOR begins."""
_ARRAY_SHORT_MAX = 23
_ARRAY = 0x80
_ARRAY_ONE_BYTE = 0x98
_HEADER_BYTES_MAX = len(_MAP_OF_ROOTS) + 2 + CAR_ROOTS_MAX * (len(_LINK) + CID_BYTES) + 9
_SECTION_BYTES_MAX = CID_BYTES + BLOCK_BYTES_MAX
_LENGTH_BYTES_MAX = 4
"""How many bytes the varint of a length may have: enough to say how much too long a block is."""


# --- Writing ------------------------------------------------------------------------------------


def encode_header(roots: Sequence[Cid]) -> bytes:
    """Return the beginning of a CAR with these roots, its length included.

    Raises:
        MisuseError: more roots than a CAR may have.
    """
    if len(roots) > CAR_ROOTS_MAX:
        raise MisuseError(f"expected at most {CAR_ROOTS_MAX} roots, got {len(roots)}")
    links = b"".join(_LINK + bytes(root) for root in roots)
    header = _MAP_OF_ROOTS + _array_of(len(roots)) + links + _VERSION_1
    return varint(len(header)) + header


def _array_of(count: int) -> bytes:
    if count <= _ARRAY_SHORT_MAX:
        return bytes((_ARRAY | count,))
    return bytes((_ARRAY_ONE_BYTE, count))


def encode_section(cid: Cid, data: bytes) -> bytes:
    """Return a block as it stands in a CAR, its length and its name before it."""
    return varint(CID_BYTES + len(data)) + bytes(cid) + data


# --- Reading ------------------------------------------------------------------------------------


class CarReader:
    """The roots and the blocks of a CAR, from an open file that is read once, from where it stands.

    Going through the reader yields each block with its name, proved by its hash. That the blocks
    make up the trees that the roots name is for who puts them together to find.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Raises:
            FormatError: no CARv1, or with roots that xorbit has no names for.
            WorldError: the file cannot be read.
        """
        self._file = file
        self._at = 0
        self._count = 0
        self.roots = self._header()

    def __iter__(self) -> Iterator[tuple[Cid, bytes]]:
        """Yield the blocks in the order of the file.

        Raises:
            FormatError: the file is damaged or ends early; names the block and where it begins.
            WorldError: the file cannot be read.
        """
        while True:
            where = f"block {self._count + 1} at byte {self._at:,}"
            length = self._length(where)
            if length is None:
                return
            if length > _SECTION_BYTES_MAX:
                raise self._too_long(where, length)
            yield _proved(self._exactly(length, where), where)
            self._count += 1

    def _header(self) -> tuple[Cid, ...]:
        length = self._length("header")
        if length is None:
            raise FormatError("expected a CAR, got an empty file")
        if length > _HEADER_BYTES_MAX:
            raise FormatError(f"expected a CAR of at most {CAR_ROOTS_MAX} roots: this is no CAR")
        data = self._read(length)
        if data and data[0] not in _MAPS:
            start = (varint(length) + data)[:16]
            raise FormatError(f"expected a CAR: this is no CAR, it begins with {start!r}")
        return decode_header(self._exactly(length, "header", data))

    def _too_long(self, where: str, length: int) -> FormatError:
        with suppress(FormatError):  # then the place has to do
            where += f", {decode_cid(self._exactly(CID_BYTES, where))}"
        size = length - CID_BYTES
        return FormatError(
            f"{where}: expected at most {BLOCK_BYTES_MAX:,} bytes, got {size:,}: "
            "make the CAR with chunks of 64 KiB"
        )

    def _length(self, what: str) -> int | None:
        """Return the number that comes next, None at the end of the file."""
        value = 0
        for place in range(_LENGTH_BYTES_MAX):
            byte = self._read(1)
            if not byte:
                if place == 0:
                    return None
                raise FormatError(f"{what}: the CAR ends within a length")
            value |= (byte[0] & 0x7F) << 7 * place
            if byte[0] == 0:
                raise FormatError(f"{what}: a length of zero, or one longer than need be")
            if byte[0] < 0x80:
                return value
        raise FormatError(f"{what}: its length does not end within {_LENGTH_BYTES_MAX} bytes")

    def _exactly(self, size: int, what: str, data: bytes = b"") -> bytes:
        while len(data) < size:
            more = self._read(size - len(data))
            if not more:
                raise FormatError(f"{what}: the CAR ends after {len(data):,} of {size:,} bytes")
            data += more
        return data

    def _read(self, size: int) -> bytes:
        try:
            data = read_some(self._file, size)
        except OSError as error:
            raise WorldError(f"cannot read the CAR: {error.strerror}") from error
        self._at += len(data)
        return data


def _proved(section: bytes, where: str) -> tuple[Cid, bytes]:
    try:
        cid = decode_cid(section[:CID_BYTES])
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    data = section[CID_BYTES:]
    if cid_of_block(data, cid.codec, cid.key.kind) != cid:
        raise FormatError(f"{where}, {cid}: its {len(data):,} bytes are not those of its name")
    return cid, data


def decode_header(data: bytes) -> tuple[Cid, ...]:
    """Return the roots that the header of a CAR names; `data` begins after its length.

    Raises:
        FormatError: it is not of the one form that version 1 has, or has too many roots or such as
            xorbit has no names for.
    """
    if data.startswith(_MAP_OF_VERSION_2):
        raise FormatError("expected a CAR of version 1, got version 2: unwrap it with another tool")
    if not data.startswith(_MAP_OF_ROOTS):
        raise FormatError(f"expected a CAR of version 1, got {data[:16].hex()}...")
    count, at = _decode_array(data, len(_MAP_OF_ROOTS))
    step = len(_LINK) + CID_BYTES
    end = at + count * step
    roots = tuple(_decode_root(data[start : start + step]) for start in range(at, end, step))
    if data[end:] != _VERSION_1:
        raise FormatError(f"expected version 1 after {count} roots, got {data[end:].hex()[:40]}")
    return roots


def _decode_array(data: bytes, at: int) -> tuple[int, int]:
    head = data[at : at + 2]
    if len(head) == 2 and head[0] == _ARRAY_ONE_BYTE and head[1] > _ARRAY_SHORT_MAX:
        return head[1], at + 2
    if head and _ARRAY <= head[0] <= _ARRAY | _ARRAY_SHORT_MAX:
        return head[0] & 0x1F, at + 1
    raise FormatError(f"expected a list of at most {CAR_ROOTS_MAX} roots, got {head.hex()}")


def _decode_root(data: bytes) -> Cid:
    if not data.startswith(_LINK):
        raise FormatError(f"expected a root that is a CIDv1 of 36 bytes, got {data[:8].hex()}...")
    return decode_cid(data[len(_LINK) :])
