"""Files through a network of blocks: whole, in order, bounded, and nothing left of a failure."""

import asyncio
import os
import re
import shutil
import threading
import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.files.fakes import OWN, FakeBlocks, Receipt, names, vector_content
from xorbit.config import WINDOW_BLOCKS_FIRST
from xorbit.errors import (
    FormatError,
    MisuseError,
    NoPeersError,
    NotFoundError,
    NotStoredError,
    WorldError,
)
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.local_tree import cid_of
from xorbit.files.protobuf import varint
from xorbit.files.transfer import get_file, get_to_path, put_file
from xorbit.files.unixfs import CHUNK_BYTES, DEPTH_MAX
from xorbit.ids import Id
from xorbit.items import Kind

CONTENT = bytes(range(256))  # 64 leaves of 4 bytes, 32 nodes above them by threes


def big(leaves: int) -> bytes:
    return b"".join(vector_content(leaves * CHUNK_BYTES, 7, 3))


async def fetch(blocks: FakeBlocks, cid: Cid, window: int = 32) -> bytes:
    parts: list[bytes] = []
    size = await get_file(blocks, cid, parts.append, window=window)
    content = b"".join(parts)
    assert size == len(content)
    return content


# --- Round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 32])
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 2_500_000])
async def test_round_trip(size: int, window: int) -> None:
    """Whatever its size and the window, a file that was put comes back as it was."""
    blocks = FakeBlocks()
    content = b"".join(vector_content(size, 7, 3))
    summary = await put_file(blocks, content, window=window)
    assert summary.bytes == size
    assert summary.cid == cid_of(content)
    assert await fetch(blocks, summary.cid, window) == content


async def test_round_trip_over_two_levels(tmp_path: Path) -> None:
    """A file just larger than one node can list comes back from a path to a path."""
    blocks = FakeBlocks()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"".join(vector_content(67_108_865, 7, 3)))
    summary = await put_file(blocks, source, kind=Kind.BLOCK_SHA2_256)
    assert (summary.bytes, summary.blocks) == (
        67_108_865,
        256 + 1 + 2 + 1,
    )  # the content comes again
    assert await get_to_path(blocks, summary.cid, target) == 67_108_865
    assert target.read_bytes() == source.read_bytes()


async def test_open_file() -> None:
    """An open file is put from where it stands, and left open."""
    blocks = FakeBlocks()
    file = BytesIO(b"header" + b"body")
    file.seek(6)
    summary = await put_file(blocks, file)
    assert await fetch(blocks, summary.cid) == b"body"
    assert not file.closed


async def test_summary() -> None:
    """A put says how many blocks there are, who holds the root and what the weakest block has."""
    content = big(3)
    weakest = content[CHUNK_BYTES : 2 * CHUNK_BYTES]
    blocks = FakeBlocks(lambda data: 2 if data == weakest else 5)
    summary = await put_file(blocks, content)
    assert (summary.blocks, summary.holders_min, len(summary.holders)) == (4, 2, 5)


async def test_what_was_there_before() -> None:
    """A block that comes twice is one and was not there before; what was put earlier was.

    The small ones are sent unasked: with those that were there they are all of a put's repetition.
    """
    content = bytes(CHUNK_BYTES) * 5 + big(2)
    blocks = FakeBlocks()
    said = [await put_file(blocks, content) for _ in range(2)]
    assert [(one.blocks, one.held_before, one.unasked) for one in said] == [(4, 0, 1), (4, 3, 1)]


async def test_what_came_long_ago_counts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a put remembers of its blocks is bounded; the latest it remembers."""
    monkeypatch.setattr("xorbit.files.transfer.PUT_BLOCKS_SEEN_MAX", 2)
    one, two, three = (big(3)[n * CHUNK_BYTES :][:CHUNK_BYTES] for n in range(3))
    summary = await put_file(FakeBlocks(), one + two + one + three + one, window=1)
    assert summary.blocks == 4
    summary = await put_file(FakeBlocks(), one + two + three + one, window=1)
    assert summary.blocks == 5


async def test_others_are_counted_without_the_node_that_puts() -> None:
    """What the fewest others hold is the weakest, even if no block is held by fewer nodes."""
    away, here = Id(bytes([1]) * 32), (OWN, Id(bytes([1]) * 32))
    content = big(2)

    class Placed(FakeBlocks):
        async def store_block(self, data: bytes, kind: Kind) -> Receipt:
            await super().store_block(data, kind)
            return Receipt(here if data == content[:CHUNK_BYTES] else (away, Id(bytes([2]) * 32)))

    summary = await put_file(Placed(), content)
    assert (summary.holders_min, summary.others_min, summary.fewest) == (2, 1, here)
    alone = await put_file(FakeBlocks(lambda _: 1), content)
    assert (alone.holders_min, alone.others_min, alone.fewest) == (1, 0, (OWN,))


async def test_progress() -> None:
    """Progress starts at nothing, never falls, ends at the whole, and knows it from the start."""
    for content in (b"", b"x", big(5) + b"x"):
        blocks = FakeBlocks()
        put: list[tuple[int, int | None]] = []
        got: list[tuple[int, int | None]] = []
        summary = await put_file(
            blocks, content, progress=lambda *said, put=put: put.append(said), window=2
        )
        await get_file(
            blocks, summary.cid, bytes, progress=lambda *said, got=got: got.append(said), window=2
        )
        for said in (put, got):
            assert {total for _, total in said} == {len(content)}
            assert said[0][0] == 0
            assert said[-1][0] == len(content)
            assert [done for done, _ in said] == sorted(done for done, _ in said)


async def test_progress_of_a_pipe() -> None:
    """A source whose end nobody knows is put all the same, without a total."""
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    blocks = FakeBlocks()
    said: list[tuple[int, int | None]] = []
    with os.fdopen(reading, "rb") as pipe:
        summary = await put_file(blocks, pipe, progress=lambda *now: said.append(now))
    assert said == [(0, None), (11, None)]
    assert await fetch(blocks, summary.cid) == b"from a pipe"


@pytest.mark.parametrize("window", [0, -1])
async def test_window_of_none(window: int) -> None:
    """Without a window nothing could ever move, so it is refused."""
    with pytest.raises(MisuseError, match="at least 1 block"):
        await put_file(FakeBlocks(), b"", window=window)
    with pytest.raises(MisuseError, match="at least 1 block"):
        await fetch(FakeBlocks(), cid_of_block(b"", Codec.RAW), window)


# --- Bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 32])
async def test_put_keeps_its_window(window: int) -> None:
    """At first four blocks are put at once; never more than the window allows (test_pace.py)."""
    blocks = FakeBlocks()
    await put_file(blocks, big(100), window=window)
    assert min(window, WINDOW_BLOCKS_FIRST) <= blocks.in_flight_max <= window


@pytest.mark.parametrize("window", [1, 3, 32])
async def test_get_keeps_its_window(window: int) -> None:
    """No more leaves than the window allows are fetched at once, and at most one node besides."""
    flat, deep = FakeBlocks(), FakeBlocks()
    assert await fetch(flat, flat.add_file(CONTENT, 1, 256), window) == CONTENT
    assert min(window, WINDOW_BLOCKS_FIRST) <= flat.in_flight_max <= window
    assert await fetch(deep, deep.add_file(CONTENT, 1, 16), window) == CONTENT
    assert deep.in_flight_max <= window + 1


@pytest.mark.parametrize("window", [1, 3, 64])
async def test_put_reads_no_further_than_it_must(window: int) -> None:
    """Of a file of any size, at most the window and one batch are read and not yet stored."""
    blocks = FakeBlocks()
    source = BytesIO(big(150))
    stored = 0
    most = 0

    def see(done: int, total: int | None) -> None:
        nonlocal stored
        stored = done

    def measure() -> None:
        nonlocal most
        most = max(most, source.tell() - stored)

    blocks.before_answer = measure
    await put_file(blocks, source, window=window, progress=see)
    assert most <= (window + min(window, 32)) * CHUNK_BYTES


@pytest.mark.parametrize("window", [1, 3, 32])
async def test_get_runs_no_further_ahead_than_its_window(window: int) -> None:
    """Leaves that were asked for and not yet written are at most as many as the window."""
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 1, 256)
    written = 0
    most = 0

    def sink(data: bytes) -> None:
        nonlocal written
        written += len(data)

    def measure() -> None:
        nonlocal most
        most = max(most, blocks.calls - 1 - written)

    blocks.before_answer = measure
    assert await get_file(blocks, cid, sink, window=window) == 256
    assert most <= window


async def test_one_leaf_many_times() -> None:
    """A file made of one leaf over and over is delivered whole, in memory that does not grow."""
    blocks = FakeBlocks()
    leaf = blocks.add(b"x" * 4_096)
    inner = blocks.add(file_node([(leaf, 4_096)] * 64), Codec.DAG_PB)
    root = blocks.add(file_node([(inner, 64 * 4_096)] * 32), Codec.DAG_PB)

    class FreshBlocks(FakeBlocks):
        async def get_block(self, key):
            return bytes(bytearray(await super().get_block(key)))  # as if off the wire

    fresh = FreshBlocks()
    fresh.held = blocks.held
    tracemalloc.start()
    try:
        assert await get_file(fresh, root, len, window=8) == 64 * 32 * 4_096
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # of 8,388,608


# --- Failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 4])
async def test_block_that_nobody_takes(window: int) -> None:
    """One block that cannot be stored ends the put: its error names it, no other goes on."""
    content = big(40)
    bad = cid_of_block(content[5 * CHUNK_BYTES : 6 * CHUNK_BYTES], Codec.RAW)
    blocks = FakeBlocks()
    blocks.fails.add(bad.key)
    with pytest.raises(NotStoredError, match=f"cannot store .*: block {bad}: nobody took it"):
        await put_file(blocks, content, window=window)
    assert blocks.in_flight == 0
    assert blocks.calls <= 5 + 2 * window


@pytest.mark.parametrize("window", [1, 4])
async def test_block_that_nobody_has(window: int) -> None:
    """One block that cannot be had ends the get: its error names it and the file."""
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)
    bad = cid_of_block(CONTENT[40:44], Codec.RAW)
    blocks.fails.add(bad.key)
    parts: list[bytes] = []
    with pytest.raises(NotFoundError, match=f"block {bad} of file {cid}: nobody has it"):
        await get_file(blocks, cid, parts.append, window=window)
    assert blocks.in_flight == 0
    assert CONTENT[:40].startswith(b"".join(parts))


async def test_missing_root() -> None:
    """A file whose root nobody has is not found, whatever the root would be."""
    for codec in Codec:
        cid = cid_of_block(b"unknown", codec)
        with pytest.raises(NotFoundError, match=f"cannot get {cid}: "):
            await fetch(FakeBlocks(), cid)


async def test_a_put_that_reaches_nobody_names_the_file(tmp_path: Path) -> None:
    """The user typed a path: no block, of which none is at fault, is named instead."""

    class Nowhere(FakeBlocks):
        async def store_block(self, data: bytes, kind: Kind) -> NoReturn:
            raise NoPeersError("nobody is there")

    (tmp_path / "file").touch()
    with pytest.raises(NoPeersError, match=f"^cannot store {tmp_path}/file: nobody is there$"):
        await put_file(Nowhere(), tmp_path / "file")


async def test_bad_source(tmp_path: Path) -> None:
    """A put of what is no file fails before anything is stored."""
    blocks = FakeBlocks()
    with pytest.raises(MisuseError, match="there is none at"):
        await put_file(blocks, tmp_path / "missing")
    with pytest.raises(MisuseError, match="hash of blocks"):
        await put_file(blocks, b"x", kind=Kind.RECORD)
    assert blocks.calls == 0


async def test_sink_that_fails() -> None:
    """A sink's own error comes out as it is, and nothing is fetched any more."""
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)

    def sink(data: bytes) -> None:
        raise BrokenPipeError("reader left")

    with pytest.raises(BrokenPipeError, match="reader left"):
        await get_file(blocks, cid, sink, window=2)
    assert blocks.in_flight == 0


async def test_progress_may_stop_a_get() -> None:
    """Who finds a file too large when its size is known can stop before a byte is written."""
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)
    parts: list[bytes] = []

    def refuse(done: int, total: int | None) -> None:
        raise WorldError(f"too large: {total}")

    with pytest.raises(WorldError, match="too large: 256"):
        await get_file(blocks, cid, parts.append, progress=refuse)
    assert parts == []
    assert blocks.calls == 1


async def test_no_room_for_a_file_or_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says that it is larger than the disk is refused when its root is known, by any name."""
    usage = namedtuple("usage", "free")  # noqa: PYI024
    disks = {tmp_path / "disk": usage(100), tmp_path: usage(1_000)}
    monkeypatch.setattr(shutil, "disk_usage", disks.__getitem__)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)
    for path in (tmp_path / "disk" / "file", tmp_path / "link"):
        with pytest.raises(WorldError, match=r"256 bytes to write, 156 more than are free at"):
            await get_to_path(blocks, cid, path)
        with pytest.raises(WorldError, match=r"101 bytes to write, 1 more than are free at"):
            await get_to_path(blocks, cid, path, part=(155, None))
        assert blocks.calls == 2
        blocks.calls = 0
        assert names(tmp_path / "disk") == []


@pytest.mark.parametrize("old", [None, b"old"])
async def test_failed_get_to_path(tmp_path: Path, old: bytes | None) -> None:
    """A get that fails half way leaves the path as it was; what came is kept beside it."""
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)
    blocks.fails.add(cid_of_block(CONTENT[-4:], Codec.RAW).key)
    with pytest.raises(NotFoundError, match=r"what came is kept in .*\.part for a week"):
        await get_to_path(blocks, cid, path, window=1)
    assert names(tmp_path)[1:] == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


async def test_cancelled_get_to_path(tmp_path: Path) -> None:
    """A get that is cancelled half way takes its requests with it, and says what it has kept."""
    blocks = FakeBlocks()
    cid = blocks.add_file(CONTENT, 4, 3)
    blocks.hangs.add(cid_of_block(CONTENT[100:104], Codec.RAW).key)
    task = asyncio.create_task(get_to_path(blocks, cid, tmp_path / "file", window=3))
    await blocks.hanging.wait()
    assert len(names(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    [kept] = names(tmp_path)
    assert kept in cancelled.value.__notes__[0]
    assert blocks.in_flight == 0


async def test_cancelled_put() -> None:
    """A put that is cancelled takes all its requests with it."""
    content = big(40)
    blocks = FakeBlocks()
    blocks.hangs.add(cid_of_block(content[:CHUNK_BYTES], Codec.RAW).key)
    task = asyncio.create_task(put_file(blocks, content, window=3))
    await blocks.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert blocks.in_flight == 0


async def test_cancel_waits_for_the_sink() -> None:
    """When a cancelled get is over, its sink is not being called any more."""
    blocks = FakeBlocks()
    cid = blocks.add(b"one leaf")
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    go_on = threading.Event()
    left: list[bytes] = []

    def sink(data: bytes) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(timeout=60)
        left.append(data)

    task = asyncio.create_task(get_file(blocks, cid, sink))
    await entered.wait()
    task.cancel()
    loop.call_soon(loop.call_soon, go_on.set)  # after the task has seen that it is cancelled
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [b"one leaf"]


# --- Hostile trees ------------------------------------------------------------------------------


def file_node(children: list[tuple[Cid, int]], total: int | None = None, kind: int = 2) -> bytes:
    sizes = [size for _, size in children]
    total = sum(sizes) if total is None else total
    data = b"\x08" + varint(kind) + b"\x18" + varint(total)
    data += b"".join(b"\x20" + varint(size) for size in sizes)
    return encode_node(Node(tuple(Link(cid, "", 1) for cid, _ in children), data))


def circle(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    # No honest hash can do this: a node that lists itself.
    cid = cid_of_block(b"circle", Codec.DAG_PB)
    blocks.held[cid.key] = file_node([(cid, 1)])
    return cid, cid


def too_deep(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    cid = blocks.add(b"x")
    chain = [cid]
    for _ in range(DEPTH_MAX + 1):
        cid = blocks.add(file_node([(cid, 1)]), Codec.DAG_PB)
        chain.append(cid)
    return cid, chain[1]


def leaf_shorter_than_said(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    leaf = blocks.add(b"xx")
    return blocks.add(file_node([(leaf, 3)]), Codec.DAG_PB), leaf


def leaf_longer_than_said(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    leaf = blocks.add(b"xx")
    return blocks.add(file_node([(leaf, 1)]), Codec.DAG_PB), leaf


def node_larger_than_said(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    inner = blocks.add(file_node([(blocks.add(b"xx"), 2)]), Codec.DAG_PB)
    return blocks.add(file_node([(inner, 1)]), Codec.DAG_PB), inner


def node_smaller_than_said(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    inner = blocks.add(file_node([(blocks.add(b"xx"), 2)]), Codec.DAG_PB)
    return blocks.add(file_node([(inner, 2**63)]), Codec.DAG_PB), inner


def sizes_that_do_not_add_up(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    root = blocks.add(file_node([(blocks.add(b"xx"), 2)], total=3), Codec.DAG_PB)
    return root, root


def directory_below_a_file(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    inner = blocks.add(file_node([(blocks.add(b"xx"), 2)], kind=1), Codec.DAG_PB)
    return blocks.add(file_node([(inner, 2)]), Codec.DAG_PB), inner


def leaf_that_calls_itself_a_node(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    inner = blocks.add(b"just bytes", Codec.DAG_PB)
    return blocks.add(file_node([(inner, 10)]), Codec.DAG_PB), inner


def too_many_children(blocks: FakeBlocks) -> tuple[Cid, Cid]:
    leaf = blocks.add(b"x")
    root = blocks.add(file_node([(leaf, 1)] * 1_025), Codec.DAG_PB)
    return root, root


@pytest.mark.parametrize(
    "make",
    [
        circle, too_deep, leaf_shorter_than_said, leaf_longer_than_said, node_larger_than_said,
        node_smaller_than_said, sizes_that_do_not_add_up, directory_below_a_file,
        leaf_that_calls_itself_a_node, too_many_children,
    ],
)  # fmt: skip
async def test_hostile(make: Callable[[FakeBlocks], tuple[Cid, Cid]]) -> None:
    """A tree that is no honest file ends soon, with an error that names the block and the file."""
    blocks = FakeBlocks()
    root, bad = make(blocks)
    with pytest.raises(FormatError, match=re.escape(f"block {bad} of file {root}: ")):
        await fetch(blocks, root)
    assert blocks.calls <= DEPTH_MAX + 1
    assert blocks.in_flight == 0


async def test_deepest() -> None:
    """A tree may be as deep as its bound."""
    blocks = FakeBlocks()
    cid = blocks.add(b"x")
    for _ in range(DEPTH_MAX):
        cid = blocks.add(file_node([(cid, 1)]), Codec.DAG_PB)
    assert await fetch(blocks, cid) == b"x"


async def test_node_named_as_a_leaf() -> None:
    """What a raw name names is the file itself, also when it looks like a node."""
    blocks = FakeBlocks()
    data = file_node([(blocks.add(b"xx"), 2)])
    assert await fetch(blocks, blocks.add(data)) == data
