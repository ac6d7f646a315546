"""A node killed at the instant that it acknowledged still has everything that it acknowledged."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import pytest

from tests.edge.nodes import DEADLINE_S, NETWORK, PATIENT, PROGRAM, House, Node, within
from xorbit.ids import Id
from xorbit.items import Address, Block, Contact, ItemKey, key_of, make_block
from xorbit.wire import message

KILLS = 100
IN_FLIGHT = 24
PUTS_MAX = 40

# Imports once, then forks a node for every line that it is sent, and says how each of them ended.
NURSERY = f"""
import os, sys
source = {PROGRAM!r}
imports, _, program = source.partition("home, network")
exec(imports)
program = compile("home, network" + program, "node", "exec")
for _ in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if not pid:
        exec(program)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """Nodes on one home, one after the other."""

    def __init__(self, home: Path) -> None:
        self._pid = 0
        arguments = [str(home), NETWORK.name, str(2**30)]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", NURSERY, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pid:
            self.kill()
        self._popen.communicate(timeout=DEADLINE_S)

    def start(self) -> Contact:
        """Start a node and return who and where it is."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("start\n")
        self._popen.stdin.flush()
        self._pid = int(self._read())
        node, port = self._read().split()
        return Contact(Id(bytes.fromhex(node)), (Address("127.0.0.1", int(port)),))

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the node has ended, and return its exit code."""
        code, self._pid = int(self._read()), 0
        return code

    def _read(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()


class Round:
    """Puts from many callers at once, until the node dies: of an acknowledgement, or of a put."""

    def __init__(self, client: Node, nursery: Nursery, rng: Random) -> None:
        self.acknowledged: dict[ItemKey, Block] = {}
        self._client = client
        self._nursery = nursery
        self._rng = rng
        self._dies_acknowledging = rng.random() < 0.7
        self._dies_at = rng.randint(1, PUTS_MAX)
        self._sent = 0
        self._killed = False

    async def run(self) -> None:
        async with within(), asyncio.TaskGroup() as callers:
            for _ in range(IN_FLIGHT):
                callers.create_task(self._put_until_killed())

    async def _put_until_killed(self) -> None:
        while not self._killed:
            block = make_block(self._rng.randbytes(self._rng.randint(1, 65_536)))
            self._sent += 1
            self._kill_if(not self._dies_acknowledging and self._sent == self._dies_at)
            done = await self._client.put(block)
            if [said.outcome for said in done.receipts] == ["stored"]:
                self.acknowledged[key_of(block)] = block
                due = len(self.acknowledged) == self._dies_at
                self._kill_if(self._dies_acknowledging and due)

    def _kill_if(self, due: bool) -> None:
        if due:
            self._nursery.kill()
            self._killed = True


async def holds(client: Node, node: Contact, blocks: dict[ItemKey, Block]) -> None:
    """Assert that the node serves every one of these blocks, with the right bytes."""
    keys = list(blocks)
    for start in range(0, len(keys), IN_FLIGHT):
        asked = keys[start : start + IN_FLIGHT]
        gets = [client.response(node, message.Get(key)) for key in asked]
        answers = zip(asked, await asyncio.gather(*gets), strict=True)
        missing = [key for key, answer in answers if answer != message.Found(blocks[key])]
        assert not missing


@pytest.mark.timeout(300)
async def test_a_hundred_kills_under_load_lose_nothing_acknowledged(tmp_path):
    seed = int(os.environ.get("XORBIT_SEED", time.time_ns()))
    print(f"replay the choices of this run with XORBIT_SEED={seed}")  # noqa: T201 - if it fails
    rng = Random(seed)
    kept: dict[ItemKey, Block] = {}
    with Nursery(tmp_path / "node") as nursery:
        node = nursery.start()
        for _ in range(KILLS):
            async with House(PATIENT) as house:
                client = await house.client(node.addresses[0])
                load = Round(client, nursery, rng)
                await load.run()
            assert nursery.wait() == -signal.SIGKILL
            again = nursery.start()
            assert again.id == node.id
            node = again
            async with House(PATIENT) as house:
                await holds(await house.client(node.addresses[0]), node, load.acknowledged)
            kept |= load.acknowledged
        async with House(PATIENT) as house:
            await holds(await house.client(node.addresses[0]), node, kept)
    assert len(kept) >= KILLS
