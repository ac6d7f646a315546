"""The wire, for any bytes: what is sent comes back the same, what is no message is a WireError."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.wire.strategies import envelopes
from xorbit.errors import WireError
from xorbit.wire.frame import FrameReader, frame
from xorbit.wire.message import Envelope, decode, encode


@given(envelopes)
def test_round_trip(envelope: Envelope) -> None:
    """Every message that keeps its bounds is decoded to what was encoded."""
    assert decode(encode(envelope)) == envelope


def decodes_or_is_refused(data: bytes) -> None:
    """Fail on any error but WireError, and on an envelope that does not survive a round trip."""
    try:
        envelope = decode(data)
    except WireError:
        return
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=200))
@example(b"\xc1")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 200)
def test_arbitrary_bytes(data: bytes) -> None:
    """Bytes from anybody are a message or a WireError, never another error."""
    decodes_or_is_refused(data)


@given(envelopes, st.data())
def test_truncated(envelope: Envelope, data: st.DataObject) -> None:
    """A message cut off anywhere is a WireError."""
    whole = encode(envelope)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        decode(cut)
    except WireError:
        return
    raise AssertionError(f"{len(cut)} of {len(whole)} bytes were taken for a message")


@given(envelopes, st.data())
def test_mutated(envelope: Envelope, data: st.DataObject) -> None:
    """A message with bytes changed, put in or taken out is a message or a WireError."""
    raw = bytearray(encode(envelope))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    decodes_or_is_refused(bytes(raw))


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.data())
def test_frames_do_not_depend_on_the_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    """However the stream is cut, and whenever the reader is asked, the same frames come out."""
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader, got = FrameReader(), []
    for start, end in pairwise([0, *cuts, len(stream)]):
        reader.feed(stream[start:end])
        got += [reader.next_frame() for _ in range(data.draw(st.integers(0, 3)))]
    while (payload := reader.next_frame()) is not None:
        got.append(payload)
    assert [payload for payload in got if payload is not None] == payloads
    assert reader.pending_bytes == 0


@given(st.binary(max_size=300), st.integers(1, 40))
def test_reader_of_arbitrary_bytes(stream: bytes, limit: int) -> None:
    """Any stream gives frames of 1 to `limit` bytes, then a WireError or a wait for more."""
    reader = FrameReader(limit)
    reader.feed(stream)
    read = 0
    try:
        while (payload := reader.next_frame()) is not None:
            assert 1 <= len(payload) <= limit
            read += 4 + len(payload)
    except WireError:
        assert not 1 <= int.from_bytes(stream[read : read + 4], "big") <= limit
    assert reader.pending_bytes == len(stream) - read
