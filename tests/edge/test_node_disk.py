"""A node whose disk is damaged or full: what it serves stays right, what it refuses says why."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.edge.nodes import PATIENT, House, Node, Process, sample, serves
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.items import Block, key_of, size_of
from xorbit.wire.message import Closest, Found, Get, Ping, Pong

BLOCK = sample(1, 20_000)
"""In pages of its own, which no later commit copies."""
KEY = key_of(BLOCK)

# --- Damage -------------------------------------------------------------------------------------


def flip_bytes_of(block: Block, home: Path) -> None:
    """Flip some bytes of a block in the file of a store, in place, as a disk does it."""
    data = home / "data.mdb"
    content = data.read_bytes()
    at = content.index(block.data[:1_000]) + 500
    with data.open("r+b") as file:
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in content[at : at + 16]))


async def put_alone(node: Node, block: Block) -> None:
    """Put a block at the only node there is, and wait until it is noted as due to be sent again."""
    node.jobs.seen.clear()
    await node.put(block)
    written = [job for job in node.jobs.seen if isinstance(job, jobs.StoreWritten)]
    await node.jobs.until(jobs.StoreWritten, lambda job: job not in written)


async def is_mended(node: Node) -> None:
    """Wait until the node has written what it fetched again."""
    await node.jobs.until(jobs.StoreRead, lambda read: read.fault == "damaged")
    await node.jobs.until(jobs.StoreWritten, lambda written: written.code == "stored")


@pytest.mark.parametrize("live", [True, False], ids=["under a live node", "of a stopped node"])
async def test_a_damaged_block_is_never_served_but_reported_and_fetched_from_another(
    tmp_path, live
):
    async with House() as house:
        keeper = await house.node()
        await keeper.put(BLOCK)
        node = await house.node(tmp_path)
        await put_alone(node, BLOCK)
        await put_alone(node, sample(2))
        if not live:
            await node.driver.stop()
        flip_bytes_of(BLOCK, tmp_path)
        if not live:
            node = await house.node(tmp_path)
        else:
            node.jobs.seen.clear()
        await node.join(keeper.address)
        client = await house.client(node)

        answer = await client.response(node.contact, Get(KEY))
        assert isinstance(answer, Closest)
        assert keeper.id in [contact.id for contact in answer.contacts]
        await node.reported("bad read from the store", f"{KEY.id.hex()}: damaged")
        await is_mended(node)
        assert await client.response(node.contact, Get(KEY)) == Found(BLOCK)
        assert node.driver.status().damaged_found == 1
        await serves(node, client, sample(2))


async def test_a_node_that_gets_its_own_damaged_block_has_it_from_another_and_mends_it(tmp_path):
    async with House() as house:
        keeper = await house.node()
        await keeper.put(BLOCK)
        node = await house.node(tmp_path)
        await put_alone(node, BLOCK)
        flip_bytes_of(BLOCK, tmp_path)
        await node.join(keeper.address)
        node.jobs.seen.clear()
        assert await node.get(KEY) == fx.Got(BLOCK, keeper.id)
        await node.reported("bad read from the store", f"{KEY.id.hex()}: damaged")
        await is_mended(node)
        assert await node.get(KEY) == fx.Got(BLOCK, node.id)


async def test_a_damaged_block_that_nobody_else_has_is_gone_and_said_to_be(tmp_path):
    async with House() as house:
        node = await house.node(tmp_path)
        await put_alone(node, BLOCK)
        flip_bytes_of(BLOCK, tmp_path)
        client = await house.client(node)
        assert await client.response(node.contact, Get(KEY)) == Closest(())
        await node.reported("bad read from the store", f"{KEY.id.hex()}: damaged")
        assert await client.get(KEY) == fx.NotFound(1, 0)
        await client.put(BLOCK)
        assert await client.response(node.contact, Get(KEY)) == Found(BLOCK)


# --- No room ------------------------------------------------------------------------------------


async def fill(client: Node, node_id: bytes) -> tuple[list[Block], str]:
    """Put blocks until the node refuses one; return those that it took, and why it refused."""
    taken: list[Block] = []
    for number in range(1_000):
        block = sample(number, 60_000)
        [receipt] = (await client.put(block)).receipts
        assert receipt.node == node_id
        if receipt.outcome != "stored":
            assert receipt.outcome == "refused"
            return taken, receipt.reason
        taken.append(block)
    raise AssertionError("it never became full")


async def test_a_node_at_its_quota_refuses_with_the_reason_and_serves_on(tmp_path):
    weight = size_of(sample(0, 60_000))
    quota = 8 * weight + 20_000
    async with House(PATIENT.replace(store_quota_bytes=quota)) as house:
        node = await house.node(tmp_path)
        client = await house.client(node)
        more = sample(1_000, 60_000)
        taken, reason = await fill(client, node.id)
        assert len(taken) == 8
        assert reason == f"full: quota of {quota:,} bytes: {8 * weight:,} held, {weight:,} wanted"
        for block in taken:
            await serves(node, client, block)
        [said] = (await node.put(more)).receipts  # nobody asks the client, who keeps nothing
        assert (said.node, said.reason) == (node.id, reason)
        await node.driver.stop()

        roomier = await house.node(tmp_path, limits=PATIENT.replace(store_quota_bytes=2 * quota))
        client = await house.client(roomier)
        assert [said.outcome for said in (await client.put(more)).receipts] == ["stored"]
        for block in (*taken, more):
            await serves(roomier, client, block)


MOUNT = 'mount -t tmpfs -o size=6m tmpfs "$1" && shift && exec "$@"'


def on_small_disk(mountpoint: Path) -> list[str]:
    """Return the front of a command that then runs with a file system of 6 MiB mounted there."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return [*own, "sh", "-c", MOUNT, "sh", str(mountpoint)]


@pytest.fixture
def small_disk(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1) is not here to mount a small file system with")
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    command = [*on_small_disk(mountpoint), "true"]
    tried = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")
    return mountpoint


async def test_a_node_on_a_full_disk_refuses_with_the_reason_serves_on_and_takes_again(small_disk):
    with Process(small_disk / "node", command=on_small_disk(small_disk)) as process:
        seen_from_here = Path(f"/proc/{process.popen.pid}/root/{small_disk}")
        if not (seen_from_here / "node").exists():
            pytest.skip("the file system of another mount namespace cannot be reached here")
        ballast = seen_from_here / "ballast"
        ballast.write_bytes(bytes(3 * 2**20))
        async with House() as house:
            client = await house.client(process.address)
            taken, reason = await fill(client, process.id)
            assert len(taken) >= 20
            assert reason.startswith("full: the disk is full: ")
            for block in taken:
                asked = await client.response(process.contact, Get(key_of(block)))
                assert asked == Found(block)
            assert isinstance(await client.response(process.contact, Ping()), Pong)

            ballast.unlink()
            more = [sample(number, 60_000) for number in range(2_000, 2_010)]
            for block in more:
                assert (await client.put(block)).receipts[0].outcome == "stored"
            for block in (*taken, *more):
                asked = await client.response(process.contact, Get(key_of(block)))
                assert asked == Found(block)
