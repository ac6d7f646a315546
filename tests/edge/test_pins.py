"""What a home keeps for its owner, on real disks: seen, kept through restarts, and let go of."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from tests.edge.test_api import NETWORK, NOBODY, WITHIN_S, address_of, client, listening, soon
from tests.edge.test_node_disk import on_small_disk
from tests.edge.test_node_disk import small_disk as small_disk
from xorbit import errors
from xorbit.api import Node
from xorbit.blocking import BlockingNode
from xorbit.config import DEFAULT_LIMITS
from xorbit.files.cid import Cid, Codec
from xorbit.files.dag_pb import Link, encode_node
from xorbit.files.dag_pb import Node as PbNode
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind, block_key
from xorbit.keys import UserKey
from xorbit.pins import NOTHING, AddRoot, LeaveRoot, Root, ScanPins, ScanRoots
from xorbit.run.control_client import ControlClient
from xorbit.run.pinning import name_of
from xorbit.store.lmdb import LmdbStore

KEY = UserKey(SigningKey(bytes(range(32))))
BLOCKS = 20
MISSING = Root(ItemKey(Kind.BLOCK_BLAKE3_256, Id(bytes(32))), tree=True, stage="joining")


def file(number: int, blocks: int = BLOCKS) -> bytes:
    """Return a file of blocks that no other number has."""
    return b"".join(bytes([number, at]) * (CHUNK_BYTES // 2) for at in range(blocks))


async def names(node: Node | ControlClient) -> dict[str, str]:
    return {name_of(kept.root): kept.root.stage for kept in await node.pins()}


async def pinned(node: Node | ControlClient) -> set[ItemKey]:
    found: set[ItemKey] = set()
    after = None
    while page := (await node.tend(ScanPins(200, after))).keys:
        found |= set(page)
        after = page[-1]
    return found


def on_disk(home: Path) -> tuple[dict[str, str], int]:
    """Return the roots and the number of pins that a home has, with no node running."""
    store = LmdbStore(home / "store", 2**30)
    try:
        [roots, pins] = store.tend([ScanRoots(1_000), ScanPins(100_000)])
        return {name_of(kept.root): kept.root.stage for kept in roots.roots}, len(pins.keys)
    finally:
        store.close()


# --- What is kept -------------------------------------------------------------------------------


async def test_what_is_put_and_published_is_listed_a_line_for_each(tmp_path: Path) -> None:
    """A file of many blocks, a small one, a block and a record: four roots, with their sizes."""
    async with listening(tmp_path) as node:
        large = await soon(node.put_file(file(1)))
        small = await soon(node.put_file(b"small"))
        block = await soon(node.put_block(b"block"))
        record = await soon(node.publish(KEY, b"value", salt=b"salt"))
        assert not any((large.not_kept, small.not_kept, block.not_kept, record.not_kept))
        found = {name_of(kept.root): kept for kept in await node.pins()}
        put = (large.cid, small.cid, block.cid, KEY.public_key.hex())
        assert list(found) == [str(name) for name in put]
        assert {name: kept.root.size for name, kept in found.items()} == {
            str(large.cid): len(file(1)),
            str(small.cid): 5,
            str(block.cid): 5,
            KEY.public_key.hex(): 5,
        }
        assert {kept.root.salt for kept in found.values()} == {b"", b"salt"}
        assert all(kept.put_age_s < 60 for kept in found.values())
        assert len(await pinned(node)) == BLOCKS + 1 + 3


async def test_pins_survive_a_restart_and_are_let_go_of_after_it(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        put = await soon(node.put_file(file(1)))
        await soon(node.publish(KEY, b"value"))
    async with listening(tmp_path) as node:
        assert await names(node) == {str(put.cid): "kept", KEY.public_key.hex(): "kept"}
        assert await soon(node.unpin(put.cid)) == BLOCKS + 1
        assert await soon(node.unpin(KEY.public_key.hex())) == 1
        assert (await names(node), await pinned(node)) == ({}, set())
        assert await soon(node.get_file(put.cid)) == file(1)


async def test_what_another_file_needs_stays_pinned(tmp_path: Path) -> None:
    """Of two files that begin the same, each keeps all of its blocks until it is unpinned."""
    async with listening(tmp_path) as node:
        one = await soon(node.put_file(file(1)))
        both = await soon(node.put_file(file(1) + file(2, 5)))
        leaf = await soon(node.put_block(file(2, 5)[-CHUNK_BYTES:]))
        assert await soon(node.unpin(one.cid)) == 1  # its own inner node
        assert await soon(node.unpin(both.cid)) == BLOCKS + 5
        assert await pinned(node) == {leaf.key}
        assert await soon(node.unpin(leaf.cid)) == 1


async def test_large_trees_are_let_go_of_in_parts(tmp_path: Path, monkeypatch) -> None:
    """Also where only a few pins are looked at together, just those are let go of."""
    for limit in ("UNPIN_KEYS_MAX", "UNPIN_BATCH_KEYS_MAX", "LEDGER_ROWS_MAX"):
        monkeypatch.setattr(f"xorbit.run.keeper.{limit}", 3)
    async with listening(tmp_path) as node:
        one = await soon(node.put_file(file(1)))
        both = await soon(node.put_file(file(1, 7) + file(2, 5)))
        await soon(asyncio.gather(*(node.put_block(bytes([n])) for n in range(9))))
        assert await soon(node.unpin(one.cid)) == BLOCKS + 1 - 7
        assert len(await pinned(node)) == 7 + 5 + 1 + 9
        await soon(node.tend(LeaveRoot(both.cid.key, tree=True)))
        assert await soon(node.gc()) == 13


async def test_unpinning_what_is_not_pinned_is_told(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        for name in (NOBODY, KEY.public_key.hex()):
            with pytest.raises(errors.NotFoundError, match=f"{name} is not pinned here"):
                await soon(node.unpin(name))
        for name, salt in (("hello", b""), (NOBODY, b"salt")):
            with pytest.raises(errors.MisuseError):
                await soon(node.unpin(name, salt))


async def test_a_file_that_a_name_stands_in_under_no_leaf_is_no_part_of_it(tmp_path: Path) -> None:
    """A root that says it is a tree, and is none, is let go of all the same."""
    async with listening(tmp_path) as node:
        block = await soon(node.put_block(b"no tree"))
        await soon(node.tend(AddRoot(Root(block.key, tree=True))))
        assert await soon(node.unpin(block.cid)) == 0
        tree = next(iter(await names(node)))
        assert await soon(node.unpin(tree)) == 1


# --- Pin ----------------------------------------------------------------------------------------


async def test_a_file_and_a_record_of_others_are_pinned_whole(tmp_path: Path) -> None:
    """What is missing is fetched; the home then has all of it with nobody else there."""
    async with listening(tmp_path / "a") as a:
        put = await soon(a.put_file(file(1)))
        await soon(a.publish(KEY, b"value", salt=b"salt"))
        async with client(tmp_path / "b", bootstrap=await address_of(a)) as b:
            told: list[int] = []
            root = await soon(b.pin(put.cid, progress=lambda done, _: told.append(done)))
            assert (root.size, told[-1]) == (len(file(1)), len(file(1)))
            await soon(b.pin(KEY.public_key.hex(), b"salt"))
            assert set((await names(b)).values()) == {"kept"}
    async with Node(tmp_path / "b", network=NETWORK, join=False) as alone:
        assert await soon(alone.get_file(put.cid)) == file(1)
        assert (await soon(alone.resolve(KEY.public_key, b"salt"))).value == b"value"
        with pytest.raises(errors.NoPeersError, match="told not to look for others"):
            await soon(alone.get_block(NOBODY))


async def test_a_name_that_nobody_has_is_not_pinned(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        for name in (NOBODY, NOBODY.replace("bafkr", "bafyb"), KEY.public_key.hex()):
            with pytest.raises(errors.NotFoundError):
                await soon(node.pin(name))
        assert (await names(node), await pinned(node)) == ({}, set())


async def test_a_file_of_which_a_part_is_missing_is_not_pinned_at_all(tmp_path: Path) -> None:
    """What was pinned of it is let go of; a root that was kept before stays."""
    async with listening(tmp_path) as node:
        put = await soon(node.put_file(file(1)))
        await soon(node.unpin(put.cid))
        lost = await node.get_block(put.cid)
        assert lost
    store = LmdbStore(tmp_path / "store", 2**30)
    assert store.drop([block_key(file(1)[-CHUNK_BYTES:])])
    store.close()
    async with listening(tmp_path) as node:
        with pytest.raises(errors.NotFoundError):
            await soon(node.pin(put.cid))
        assert (await names(node), await pinned(node)) == ({}, set())
        await soon(node.put_file(file(1)))
        assert await names(node) == {str(put.cid): "kept"}
        await soon(node.pin(put.cid))
        assert await names(node) == {str(put.cid): "kept"}


async def test_what_was_being_pinned_when_the_node_died_is_let_go_of(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        block = await soon(node.store_block(b"half"))
        await soon(node.tend(AddRoot(Root(block.key, stage="joining"))))
    async with listening(tmp_path) as node:
        await soon(node.gc())  # behind what the start goes on with
        assert (await names(node), await pinned(node)) == ({}, set())


async def test_a_pin_that_is_unpinned_meanwhile_is_told(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        put = await soon(node.put_file(file(1)))
        await soon(node.unpin(put.cid))

        def unpin(done: int, _: int | None) -> None:
            if not done:
                tasks.append(asyncio.create_task(node.unpin(put.cid)))

        tasks: list[asyncio.Task[int]] = []
        try:
            await soon(node.pin(put.cid, progress=unpin))
        except errors.WorldError as error:
            assert "was unpinned before" in str(error)  # noqa: PT017 - both orders are right
        await soon(tasks[0])
        assert await pinned(node) == set()


# --- At the same time -----------------------------------------------------------------------------


async def test_a_put_that_runs_while_its_blocks_are_let_go_of_keeps_all_of_them(
    tmp_path: Path,
) -> None:
    """Unpins of a file that shares all blocks, at each moment of a put of the same."""
    async with listening(tmp_path) as node:
        for moment in range(0, BLOCKS, 3):
            put = await soon(node.put_file(file(1)))
            unpins: list[asyncio.Task[int]] = []

            def unpin(done: int, _: int | None, moment: int = moment) -> None:
                if done == moment * CHUNK_BYTES:
                    unpins.append(asyncio.create_task(node.unpin(put.cid)))  # noqa: B023

            again = await soon(node.put_file(file(1), progress=unpin))
            await soon(asyncio.gather(*unpins))
            assert not again.not_kept
            assert await names(node) == {str(put.cid): "kept"}
            assert len(await pinned(node)) == BLOCKS + 1


async def test_puts_unpins_and_gcs_at_once_leave_just_what_is_kept(tmp_path: Path) -> None:
    """Whatever the order, each root has all of its pins in the end, and there is no other pin."""
    async with listening(tmp_path) as node:
        first = await soon(asyncio.gather(*(node.put_file(file(n, 6)) for n in range(6))))
        works = [node.unpin(put.cid) for put in first[:3]]
        works += [node.gc() for _ in range(3)]
        puts = [node.put_file(file(n, 6) + file(n + 1, 6)) for n in range(6)]
        done = await soon(asyncio.gather(*puts, *works))
        kept = [*first[3:], *done[:6]]
        assert await names(node) == {str(put.cid): "kept" for put in kept}
        await soon(node.gc())
        leaves = {
            block_key(file(n, 6)[at * CHUNK_BYTES :][:CHUNK_BYTES])
            for n in range(7)
            for at in range(6)
        }
        assert await pinned(node) == leaves | {put.cid.key for put in kept}


async def test_what_a_put_left_that_was_given_up_is_let_go_of_by_gc(tmp_path: Path) -> None:
    """Without gc it stays, so that a put of the same file finds it."""
    async with listening(tmp_path) as node:
        kept = await soon(node.put_block(b"kept"))
        for number in range(5):
            await soon(node.store_block(bytes([number])))
        assert len(await pinned(node)) == 6
        assert await soon(node.gc()) == 5
        assert await pinned(node) == {kept.key}
        assert await soon(node.gc()) == 0


async def test_while_a_part_of_a_root_is_missing_nothing_that_it_may_need_is_let_go_of(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path) as node:
        one, two = [await soon(node.put_file(file(n))) for n in (1, 2)]
        part = Link(Cid(Codec.DAG_PB, MISSING.key), "part")
        data = encode_node(PbNode((part,), encode_data(UnixFsData(Type.DIRECTORY))))
        folder = Root((await soon(node.store_block(data))).key, tree=True)
        assert (await soon(node.tend(AddRoot(folder)))).done
        with pytest.raises(errors.WorldError, match="get that back, or unpin it as well"):
            await soon(node.unpin(one.cid))
        assert (await names(node))[str(one.cid)] == "leaving"
        assert len(await pinned(node)) == 2 * (BLOCKS + 1) + 1
        assert await soon(node.unpin(name_of(folder))) == BLOCKS + 2
        assert await names(node) == {str(two.cid): "kept"}


async def test_while_a_part_of_a_pin_under_way_is_missing_others_are_let_go_of(
    tmp_path: Path,
) -> None:
    """Nothing below that part can be pinned yet; and it may never come."""
    async with listening(tmp_path) as node:
        put = await soon(node.put_file(file(1)))
        await soon(node.store_block(b"left"))
        await soon(node.tend(AddRoot(MISSING)))
        assert await soon(node.unpin(put.cid)) == BLOCKS + 1
        assert await soon(node.gc()) == 1
        assert await names(node) == {name_of(MISSING): "joining"}


async def test_what_a_program_was_pinning_that_is_gone_is_let_go_of(tmp_path: Path) -> None:
    """What another one is pinning too goes on; what is kept stays."""
    async with listening(tmp_path) as node:
        shared, own, kept = [await soon(node.store_block(bytes([n]))) for n in range(3)]
        roots = [Root(receipt.key, stage="joining") for receipt in (shared, own, kept)]
        killed, other = [await soon(ControlClient.connect(tmp_path)) for _ in range(2)]
        numbers = {}
        for root in (*roots, MISSING):
            numbers[root.key] = (await soon(killed.tend(AddRoot(root)))).roots[0].number
        await soon(other.tend(AddRoot(roots[0])))
        assert (await soon(node.tend(AddRoot(Root(kept.key))))).done
        await soon(killed.close())
        async with asyncio.timeout(WITHIN_S):
            while len(await names(node)) > 2:
                pass
        assert await names(node) == {name_of(roots[0]): "joining", name_of(roots[2]): "kept"}
        assert await pinned(node) == {shared.key, kept.key}
        joined = AddRoot(Root(shared.key), number=numbers[shared.key])
        assert (await soon(other.tend(joined))).done
        await soon(other.close())
        assert await soon(node.gc()) == 0


# --- The local socket, and the blocking twin ------------------------------------------------------


async def test_pins_over_the_local_socket(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        remote = await soon(ControlClient.connect(tmp_path))
        try:
            put = await soon(remote.put_file(file(1)))
            record = await soon(remote.publish(KEY, b"value"))
            assert set(await names(remote)) == {str(put.cid), record.public_key.hex()}
            assert await soon(remote.unpin(put.cid)) == BLOCKS + 1
            assert (await soon(remote.pin(str(put.cid)))).size == len(file(1))
            assert await soon(remote.unpin(KEY.public_key.hex())) == 1
            await soon(remote.store_block(b"left"))
            assert await soon(remote.gc()) == 1
            assert await names(node) == await names(remote) == {str(put.cid): "kept"}
            with pytest.raises(errors.NotFoundError, match="is not pinned here"):
                await soon(remote.unpin(NOBODY))
        finally:
            await soon(remote.close())


def test_pins_by_the_blocking_twin(tmp_path: Path) -> None:
    node = BlockingNode(listening(tmp_path))
    try:
        put = node.put_file(b"hello")
        assert [name_of(kept.root) for kept in node.pins()] == [str(put.cid)]
        assert (node.unpin(put.cid), node.gc(), node.pins()) == (1, 0, ())
        assert node.pin(put.cid).size == 5
    finally:
        node.close()


# --- No room --------------------------------------------------------------------------------------


async def test_what_has_no_place_here_is_put_and_said_not_to_be_kept(tmp_path: Path) -> None:
    """The network takes it, this home cannot: the put succeeds and says why it is not kept."""
    small = DEFAULT_LIMITS.replace(store_quota_bytes=5 * CHUNK_BYTES)
    async with listening(tmp_path / "a") as a:
        via = await address_of(a)
        async with Node(tmp_path / "b", bootstrap=via, network=NETWORK, limits=small) as b:
            put = await soon(b.put_file(file(1)))
            assert "quota" in put.not_kept
            assert await names(b) == {}
            assert await soon(a.get_file(put.cid)) == file(1)
            await soon(b.gc())
            assert await pinned(b) == set()
            with pytest.raises(errors.StoreError, match="quota"):
                await soon(b.pin(put.cid))
            assert (await names(b), await pinned(b)) == ({}, set())


FULL = """
import asyncio, sys
from pathlib import Path
from tests.edge.test_pins import file, names, pinned
from xorbit import Node, errors
async def main(home, via, name):
    async with Node(home, bootstrap=via, network="api tests", mdns=False) as node:
        kept = await node.put_block(b"kept before")
        try:
            await node.pin(name)
        except errors.StoreError as error:
            print(error)
        assert list(await names(node)) == [str(kept.cid)], await names(node)
        ballast.unlink()
        assert not (await node.put_block(b"kept after")).not_kept
        await node.gc()
        assert len(await pinned(node)) == 2
home = Path(sys.argv[1])
ballast = home.parent / "ballast"
ballast.write_bytes(bytes(4_500_000))
asyncio.run(main(home, sys.argv[2], sys.argv[3]))
"""


async def test_a_pin_for_which_the_disk_has_no_room_fails_and_leaves_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    """A full disk: the pin says so, what was kept stays, and with room again all goes on."""
    async with listening(tmp_path / "a") as a:
        put = await soon(a.put_file(file(1, 60)))
        python = [sys.executable, "-c", FULL]
        words = [str(small_disk / "home"), await address_of(a), str(put.cid)]
        process = await asyncio.create_subprocess_exec(
            *on_small_disk(small_disk),
            *python,
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        said, _ = await soon(process.communicate())
        assert process.returncode == 0, said.decode()
        assert b"the disk is full" in said or b"No space left" in said, said.decode()


async def test_the_counts_are_asked_without_a_commit(tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        assert (await soon(node.tend(NOTHING))).done
