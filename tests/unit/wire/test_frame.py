"""Frames: whole payloads out, whatever the stream's pieces; lengths refused before their bytes."""

import pytest

from xorbit.config import FRAME_BYTES_MAX
from xorbit.errors import WireError
from xorbit.wire.frame import HEADER_BYTES, FrameReader, frame


def test_frame_is_a_big_endian_length_and_the_payload() -> None:
    assert frame(b"abc") == b"\0\0\0\x03abc"


def test_largest_frame_goes_through() -> None:
    payload = bytes(FRAME_BYTES_MAX)
    reader = FrameReader()
    reader.feed(frame(payload))
    assert reader.next_frame() == payload


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
def test_what_no_reader_takes_is_not_framed(size: int) -> None:
    with pytest.raises(WireError, match=f"1..{FRAME_BYTES_MAX:,} bytes, got {size:,}"):
        frame(bytes(size))


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_bad_length_is_refused_from_the_header_alone(length: int) -> None:
    """Not one byte of the body has to come, and asking again gives the same error."""
    reader = FrameReader()
    reader.feed(length.to_bytes(HEADER_BYTES, "big"))
    for _ in range(2):
        with pytest.raises(WireError, match=f"got a length of {length:,}"):
            reader.next_frame()
    assert reader.pending_bytes == HEADER_BYTES


def test_reader_holds_its_own_limit() -> None:
    reader = FrameReader(limit=3)
    reader.feed(frame(b"abc") + frame(b"abcd"))
    assert reader.next_frame() == b"abc"
    with pytest.raises(WireError, match=r"1\.\.3 bytes, got a length of 4"):
        reader.next_frame()


def test_frames_before_a_bad_length_are_still_given() -> None:
    reader = FrameReader()
    reader.feed(frame(b"good") + bytes(HEADER_BYTES))
    assert reader.next_frame() == b"good"
    with pytest.raises(WireError):
        reader.next_frame()


def test_part_of_a_frame_is_no_frame() -> None:
    """Neither a part of the header nor a part of the body gives anything."""
    reader = FrameReader()
    whole = frame(b"abc")
    for byte in whole[:-1]:
        reader.feed(bytes([byte]))
        assert reader.next_frame() is None
    reader.feed(whole[-1:])
    assert reader.next_frame() == b"abc"
    assert reader.next_frame() is None


def test_pending_bytes_counts_what_was_not_asked_for() -> None:
    reader = FrameReader()
    reader.feed(frame(b"abc") + frame(b"de") + b"\0")
    assert reader.pending_bytes == 7 + 6 + 1
    reader.next_frame()
    assert reader.pending_bytes == 6 + 1
    reader.next_frame()
    assert reader.pending_bytes == 1


def test_buffer_does_not_keep_what_was_taken() -> None:
    """A long stream read in step needs no more room than one frame."""
    reader = FrameReader()
    for _ in range(100):
        reader.feed(frame(bytes(1_000)))
        assert reader.next_frame() == bytes(1_000)
    assert len(reader._buffer) <= 1_000 + HEADER_BYTES
