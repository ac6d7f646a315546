"""Frames: a 4-byte big-endian length, then that many bytes.

Pure bytes in, frames out. The reader is pulled, not pushed: what was fed and not asked for yet
waits in its buffer, so that whoever reads a connection can stop in the middle (back-pressure). A
length over the limit is an error before anything is allocated for it.
"""

from xorbit.config import FRAME_BYTES_MAX
from xorbit.errors import WireError

HEADER_BYTES = 4


def frame(payload: bytes) -> bytes:
    """Return the payload with its length in front.

    Raises:
        WireError: the payload is empty, or larger than any frame may be.
    """
    if not 0 < len(payload) <= FRAME_BYTES_MAX:
        raise WireError(f"a frame holds 1..{FRAME_BYTES_MAX:,} bytes, got {len(payload):,}")
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameReader:
    """Cuts a stream of bytes into frames, on demand."""

    __slots__ = ("_buffer", "_limit", "_start")

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        """Make a reader that refuses frames over `limit` bytes."""
        self._buffer = bytearray()
        self._start = 0
        self._limit = limit

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the connection."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the payload of the next whole frame, or None until more is fed.

        Raises:
            WireError: the next frame announces more bytes than the limit, or none at all.
        """
        body = self._start + HEADER_BYTES
        if len(self._buffer) < body:
            return None
        length = int.from_bytes(self._buffer[self._start : body], "big")
        if not 0 < length <= self._limit:
            raise WireError(f"a frame holds 1..{self._limit:,} bytes, got a length of {length:,}")
        if len(self._buffer) < body + length:
            return None
        self._start = body + length
        with memoryview(self._buffer) as view:
            return view[body : self._start].tobytes()

    @property
    def pending_bytes(self) -> int:
        """How many bytes were fed and not yet returned."""
        return len(self._buffer) - self._start
