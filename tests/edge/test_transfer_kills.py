"""A put or a get that is killed at any instant goes on where it was: little moves twice.

The client is a process of its own, killed (SIGKILL) behind a line that chance chooses. The holders
are nodes of this process, and every request that the client makes of them is counted.
"""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.edge.nodes import House, Node, within
from tests.unit.files.fakes import names
from tests.unit.files.trees import on_disk
from xorbit.core.job import HandleRequest, Job
from xorbit.files.local_tree import build_source, cid_of
from xorbit.ids import Id
from xorbit.items import ItemKey, key_of
from xorbit.store.memory import MemoryStore
from xorbit.wire import message

KILLS = 4
WITHIN_S = 100.0
WINDOW = 12
"""How many of some 300 blocks may be on their way, which is all that a client that dies loses; as
wide as the throughput asks for, the window would depend on how busy the machine is."""
INNER_NODES = 8
"""The root, the five folders and the large file's node come in a window of their own."""

PROGRAM = f"""
import asyncio, sys
from pathlib import Path
from xorbit import config
config.WINDOW_BLOCKS = {WINDOW}
from xorbit import Node
async def main(home, address, what, name, path):
    async with Node(
        home, bootstrap=address, network="xorbit edge tests", control=False
    ) as node:
        tell = lambda done, total: print(done, flush=True)
        print("id", (await node.status()).id.hex(), flush=True)
        if what == "put":
            print("done", (await node.put_tree(Path(path), progress=tell)).name, flush=True)
        else:
            await node.get_tree(name, Path(path), progress=tell)
            print("done", name, flush=True)
asyncio.run(main(*sys.argv[1:]))
"""


class Holders:
    """Three nodes, and what a client asks of them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.nodes: list[Node] = []
        self.shelves = [MemoryStore(house.limits.store_quota_bytes) for _ in range(3)]
        self.client: Id | None = None
        self.stores: Counter[tuple[Id, ItemKey]] = Counter()
        """How often the client sent a node a block."""
        self.gets: list[set[ItemKey]] = []
        """What each life of the client asked for."""

    async def start(self) -> None:
        for shelf in self.shelves:
            node = await self._house.node(shelf, boot=self.nodes[:1])
            self._watch(node)
            self.nodes.append(node)

    def _watch(self, node: Node) -> None:
        step = node.driver.machine.step

        def watched(now: float, job: Job):
            if isinstance(job, HandleRequest):
                link = node.driver.machine.state.links.get(job.connection)
                if link is not None and link.peer == self.client:
                    self._count(node, job.request)
            return step(now, job)

        node.driver.machine.step = watched  # type: ignore[method-assign]

    def _count(self, node: Node, request: message.Request) -> None:
        match request:
            case message.Store(item):
                self.stores[node.id, key_of(item)] += 1
            case message.Get(key):
                self.gets[-1].add(key)
            case _:
                pass

    async def life(self, home: Path, words: list[str], kill_after: int) -> str:
        """Run the client until it has said so many lines, then kill it; "" or its last line."""
        self.gets.append(set())
        address = str(self.nodes[0].address)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(home), address, *words,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with within(WITHIN_S):
                return await self._read(process.stdout, kill_after)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.communicate()

    async def _read(self, out: asyncio.StreamReader, count: int) -> str:
        for _ in range(count):
            words = (await out.readline()).decode().split()
            match words:
                case ["id", hexed]:
                    self.client = Id(bytes.fromhex(hexed))
                case ["done", name]:
                    return name
                case []:
                    raise AssertionError("the client ended by itself")
                case _:
                    pass
        return ""


def make_tree(top: Path, rng: Random) -> int:
    """Make files of all sizes, in which no block occurs twice; return how many blocks there are."""
    for number in range(150):
        folder = top / f"folder {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"small {number}").write_bytes(rng.randbytes(rng.randint(1_024, 20_000)))
    (top / "large").write_bytes(rng.randbytes(150 * 65_536))
    return sum(1 for _ in build_source(top))


def chances() -> Random:
    seed = int(os.environ.get("XORBIT_SEED", time.time_ns()))
    print(f"replay the choices of this run with XORBIT_SEED={seed}")  # noqa: T201 - if it fails
    return Random(seed)


async def test_a_put_that_is_killed_again_and_again_sends_hardly_a_block_twice(
    tmp_path: Path,
) -> None:
    """At last all holders have all of it, and of what they had they were sent a few blocks only."""
    rng = chances()
    blocks = make_tree(tmp_path / "tree", rng)
    words = ["put", "-", str(tmp_path / "tree")]
    async with House() as house:
        holders = Holders(house)
        await holders.start()
        for _ in range(KILLS):
            assert not await holders.life(tmp_path / "home", words, rng.randint(2, blocks - 20))
        name = await holders.life(tmp_path / "home", words, 10_000)
        assert name == str(cid_of(tmp_path / "tree"))
        twice = sum(count - 1 for count in holders.stores.values())
        assert twice <= KILLS * WINDOW * len(holders.nodes)
        keys = [cid.key for cid, _ in build_source(tmp_path / "tree")]
        assert all(all(shelf.have(keys)) for shelf in holders.shelves)


async def test_a_get_that_is_killed_again_and_again_fetches_hardly_a_block_twice(
    tmp_path: Path,
) -> None:
    """At last it is the tree, and of what had come before each kill little was fetched again."""
    rng = chances()
    make_tree(tmp_path / "tree", rng)
    async with House() as house:
        holders = Holders(house)
        await holders.start()
        put = ["put", "-", str(tmp_path / "tree")]
        name = await holders.life(tmp_path / "home of putter", put, 10_000)
        words = ["get", name, str(tmp_path / "got")]
        holders.gets.clear()
        for _ in range(KILLS):
            if await holders.life(tmp_path / "home", words, rng.randint(2, 30)):
                break  # it was done before its time had come
        else:
            assert await holders.life(tmp_path / "home", words, 10_000) == name
    assert on_disk(tmp_path / "got") == on_disk(tmp_path / "tree")
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    had: set[ItemKey] = set()
    twice = 0
    for asked in holders.gets:
        twice += len(asked & had)
        had |= asked
    assert twice <= KILLS * (WINDOW + INNER_NODES)
