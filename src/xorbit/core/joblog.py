"""The job log: every job of a node with its time, so that a fault can be reproduced step by step.

A log is a file of frames: a header (who the node is, its limits, the seed of its chance), then one
entry for each step. Pure: encodes and decodes; who reads or writes the file is the caller's affair.
"""

from collections.abc import Iterable, Iterator
from random import Random
from typing import BinaryIO

import msgspec
from msgspec import Struct

from xorbit.config import JOB_LOG_ENTRY_BYTES_MAX, Limits
from xorbit.core.effect import Effect
from xorbit.core.job import Job
from xorbit.core.machine import Machine
from xorbit.errors import FormatError
from xorbit.ids import Id
from xorbit.wire.frame import HEADER_BYTES

LOG_VERSION = 1


class Header(Struct, frozen=True):
    """What a machine needs to be made again exactly as it was."""

    version: int
    own: Id
    limits: Limits
    seed: bytes


class Entry(Struct, frozen=True, array_like=True):
    """One step: the time and the job."""

    now: float
    job: Job


_encode = msgspec.msgpack.encode
_header_decoder = msgspec.msgpack.Decoder(Header)
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode_header(own: Id, limits: Limits, seed: bytes) -> bytes:
    """Return the first frame of a log."""
    return _frame(_encode(Header(LOG_VERSION, own, limits, seed)))


def encode_entry(now: float, job: Job) -> bytes:
    """Return the frame of one step."""
    return _frame(_encode(Entry(now, job)))


def new_machine(header: Header) -> Machine:
    """Return the machine that the log's node began as."""
    return Machine(header.own, header.limits, Random(header.seed))  # noqa: S311 - guids name exchanges, they keep no secret


def read(source: BinaryIO) -> tuple[Header, Iterator[Entry]]:
    """Return a log's header and its entries, read as they are asked for.

    The end may be torn (the node was killed while it wrote): reading ends at the last whole entry.

    Raises:
        FormatError: the file is no job log, or one of another version, or damaged in the middle.
    """
    first = _next_frame(source)
    try:
        header = _header_decoder.decode(first or b"")
    except _UNDECODABLE as error:
        raise FormatError(f"expected a job log of xorbit: {error}") from error
    if header.version != LOG_VERSION:
        raise FormatError(f"expected a job log of version {LOG_VERSION}, got {header.version}")
    return header, _entries(source)


def replay(
    machine: Machine, entries: Iterable[Entry]
) -> Iterator[tuple[float, Job, list[Effect] | Exception]]:
    """Step a machine through a log; yield each step's time, job and effects.

    Ends with the step that raises, if one does: that has the error in the place of effects.
    """
    for entry in entries:
        try:
            effects = machine.step(entry.now, entry.job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            yield entry.now, entry.job, error
            return
        yield entry.now, entry.job, effects


def _entries(source: BinaryIO) -> Iterator[Entry]:
    while (payload := _next_frame(source)) is not None:
        try:
            yield _entry_decoder.decode(payload)
        except _UNDECODABLE as error:
            raise FormatError(f"expected a step of the job log: {error}") from error


def _frame(payload: bytes) -> bytes:
    # Not wire.frame: a job is larger than the frame that it came in, and that may have been full.
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


def _next_frame(source: BinaryIO) -> bytes | None:
    header = source.read(HEADER_BYTES)
    length = int.from_bytes(header, "big") if len(header) == HEADER_BYTES else 0
    if length > JOB_LOG_ENTRY_BYTES_MAX:
        raise FormatError(
            f"expected a job log of xorbit, whose entries hold at most"
            f" {JOB_LOG_ENTRY_BYTES_MAX:,} bytes, got one of {length:,}"
        )
    payload = source.read(length)
    return payload if payload and len(payload) == length else None
