"""A node stops in order: what it acknowledged is on disk, and nothing of it is left behind."""

import asyncio
import gc
import json
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.edge.nodes import (
    DEADLINE_S,
    NETWORK,
    QUICK,
    House,
    Process,
    any_port,
    sample,
    silent,
    within,
)
from tests.edge.test_node_driver import loops
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.errors import StoppedError
from xorbit.items import Address, Block, ItemKey, key_of
from xorbit.store.base import Write, WriteResult
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore
from xorbit.wire.message import Envelope, Ping

QUOTA_BYTES = 2**30

# --- In a process of its own --------------------------------------------------------------------


async def put_until_stopped(process: Process) -> dict[ItemKey, Block]:
    """Put from many callers, say SIGTERM in their midst; return what the node acknowledged."""
    acknowledged: dict[ItemKey, Block] = {}
    ends: list[fx.PutDone] = []

    async with House() as house:
        client = await house.client(process.address)

        async def put_some(caller: int) -> None:
            for number in range(100):
                block = sample(1_000 * caller + number, 20_000)
                done = await client.put(block)
                if [said.outcome for said in done.receipts] != ["stored"]:
                    ends.append(done)  # it is stopping, or gone
                    return
                acknowledged[key_of(block)] = block
                if len(acknowledged) == 100:
                    process.popen.send_signal(signal.SIGTERM)

        async with within(), asyncio.TaskGroup() as callers:
            for caller in range(16):
                callers.create_task(put_some(caller))
    assert len(acknowledged) >= 100, ends
    return acknowledged


def holds(store: Path, blocks: dict[ItemKey, Block]) -> bool:
    opened = LmdbStore(store, QUOTA_BYTES)
    try:
        return opened.read(list(blocks)) == list(blocks.values())
    finally:
        opened.close()


async def test_what_was_acknowledged_before_a_sigterm_is_on_disk_and_the_node_ends_well(tmp_path):
    with Process(tmp_path / "node") as process:
        acknowledged = await put_until_stopped(process)
        assert process.wait() == 0
        assert process.errors() == ""
    assert 100 <= len(acknowledged) < 1_600
    assert holds(tmp_path / "node" / "store", acknowledged)


class CommandLineNode(Process):
    """`xorbit node`, every warning an error; talks to stderr."""

    def __init__(self, home: Path) -> None:
        self._errors = home.parent / "errors"
        self._arguments = ["--listen", "127.0.0.1:0", "--network", NETWORK.name, "--json"]
        with self._errors.open("w") as errors:
            self.popen = subprocess.Popen(
                self.command("node", "--home", str(home), *self._arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            self.kill()
            raise AssertionError(f"the node did not start: {self.errors()}")
        host, _, port = json.loads(line)["addresses"][0].rpartition(":")
        self.address = Address(host, int(port))

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-X", "dev", "-W", "error", "-m", "xorbit", *arguments]


async def test_a_node_of_the_command_line_that_is_stopped_leaves_nothing_but_its_home(tmp_path):
    """Not the socket's file, not a lock that is held, not a warning of something left open."""
    home = tmp_path / "home"
    with CommandLineNode(home) as process:
        assert (home / "control.json").exists()
        acknowledged = await put_until_stopped(process)
        assert process.wait() == 0
        said = process.errors()
    assert "Warning" not in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("stopped")
    assert not (home / "control.json").exists()
    assert holds(home / "store", acknowledged)
    assert len(acknowledged) >= 100


# --- In this process ----------------------------------------------------------------------------


async def busy_node_stops(home: Path) -> dict[str, object]:
    """Stop a node with peers, calls and a dial in flight; return what is left of it."""
    async with House(QUICK) as house:
        before = asyncio.all_tasks()
        threads = set(threading.enumerate())
        other = await house.node()
        mute = await house.peer(answer=silent)
        mute_address = await mute.listen()
        node = await house.node(home, boot=[other])
        await node.connect(mute_address)
        blocks = [sample(number, 9_000) for number in range(40)]
        stores = [jobs.Store(node.driver.new_guid(), key_of(block), block) for block in blocks]
        get = jobs.Get(node.driver.new_guid(), key_of(sample(5_000)))
        calls = [asyncio.create_task(node.driver.call(job)) for job in (*stores, get)]
        await mute.inbox.until(Envelope, lambda envelope: not isinstance(envelope.body, Ping))
        await node.driver.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(o, fx.Outcome | StoppedError) for o in outcomes)
        transport = node.driver._transport
        left = {
            "connections": len(transport._shared.connections),
            "tasks of the transport": len(transport._tasks),
            "listeners": len(transport._listeners),
            "callers": len(node.driver.callers._calls),
            "timer": node.driver._timer is None or node.driver._timer.cancelled(),
        }
        await other.driver.stop()
        await mute.transport.close()
        left["tasks"] = len(asyncio.all_tasks() - before)
        # The pool of the loop itself stays until the loop is closed.
        ours = [t.name for t in set(threading.enumerate()) - threads if "xorbit" in t.name]
        left["threads"] = ours
        return left


@pytest.mark.parametrize("factory", loops(), ids=lambda factory: factory.__module__.split(".")[0])
def test_a_stop_leaves_no_task_no_thread_no_open_socket_and_no_open_file(tmp_path, factory):
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what other tests of this process left is no node's
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=factory) as runner:
            left = runner.run(busy_node_stops(tmp_path))
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert left == {
        "connections": 0,
        "tasks of the transport": 0,
        "listeners": 0,
        "callers": 0,
        "timer": True,
        "tasks": 0,
        "threads": [],
    }
    LmdbStore(tmp_path, QUOTA_BYTES).close()  # its lock is free


async def test_what_is_in_flight_when_the_stop_comes_is_finished_and_acknowledged(tmp_path):
    async with House() as house:
        node = await house.node(tmp_path)
        client = await house.client(node)
        blocks = [sample(number, 30_000) for number in range(30)]
        puts = [asyncio.create_task(client.put(block)) for block in blocks]
        await node.jobs.until(jobs.HandleRequest, lambda job: job.size > 30_000)
        await node.driver.stop()
        acknowledged = {}
        for block, done in zip(blocks, await asyncio.gather(*puts), strict=True):
            for said in done.receipts:
                assert said.node == node.id
                if said.outcome == "stored":
                    acknowledged[key_of(block)] = block
        assert acknowledged
        assert holds(tmp_path, acknowledged)


async def test_who_asks_a_node_that_is_stopping_is_refused_with_the_reason():
    class SlowStore(MemoryStore):
        gate = threading.Event()

        def write(self, batch: Sequence[Write]) -> list[WriteResult]:
            assert self.gate.wait(DEADLINE_S)
            return super().write(batch)

    async with House() as house:
        node = await house.node(SlowStore(10**6))
        peer = await house.peer()
        connection = await peer.dial(node.address)
        put = asyncio.create_task(node.put(sample(1)))
        await node.jobs.until(jobs.Store)
        stop = asyncio.create_task(node.driver.stop())
        await node.jobs.until(jobs.Shutdown)
        answer = await peer.ask(connection, Ping())
        assert answer.code == "stopping"
        assert await node.get(key_of(sample(2))) == fx.Failed("stopping", "this node is stopping")
        newcomer = await house.peer()
        [(_, why)] = await newcomer.dialled(node.address)
        assert "refused" in why
        SlowStore.gate.set()
        await stop
        said = {receipt.node: receipt.outcome for receipt in (await put).receipts}
        assert said[node.id] == "stored"


async def test_a_disk_that_hangs_does_not_hold_up_callers_beyond_the_limit():
    """What it then still does is waited for, since half a commit helps nobody."""

    class HangingStore(MemoryStore):
        gate = threading.Event()
        closed = False

        def write(self, batch: Sequence[Write]) -> list[WriteResult]:
            assert self.gate.wait(DEADLINE_S)
            return super().write(batch)

        def close(self) -> None:
            self.closed = True

    store = HangingStore(10**6)
    async with House(QUICK.replace(shutdown_s_max=0.2)) as house:
        node = house.make(store)
        await node.driver.start([any_port()])
        await node.jobs.until(jobs.Listening)
        put = asyncio.create_task(node.put(sample(1)))
        await node.jobs.until(jobs.Store)
        also = asyncio.create_task(node.put(sample(2)))  # waits for the commit after that
        await node.jobs.until(jobs.Store, lambda job: job.item == sample(2))
        stop = asyncio.create_task(node.driver.stop())
        outcomes = await asyncio.gather(put, also, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoppedError] * 2
        await node.driver.ended()
        assert not store.closed
        store.gate.set()
        await stop
        assert store.closed
