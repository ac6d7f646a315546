"""A node against bare TLS: the same bytes over one connection, on one loop, 64 in flight."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.ceilings import TlsEcho
from benchmarks.measure import Row, compare, interleave, rate
from xorbit.config import DEFAULT_LIMITS
from xorbit.core import job as jobs
from xorbit.core.effect import Answered, Got, Joined, PutDone, Report
from xorbit.identity import NodeKey, open_network
from xorbit.items import BLOCK_BYTES_MAX, Address, Block, Contact, ItemKey, key_of, make_block
from xorbit.run.driver import Driver
from xorbit.run.tls import client_context, server_context
from xorbit.store.lmdb import LmdbStore
from xorbit.wire import message

ROUNDS = 7
BLOCKS = 256
GETS = 2_000
SMALL = 8_000
NETWORK = open_network("benchmarks")


def _complain(report: Report) -> None:
    if report.level in ("warning", "error"):
        print(f"{report.event}: {report.detail}")


@asynccontextmanager
async def running_node(home: Path, *via: Address, listen: bool = True) -> AsyncIterator[Driver]:
    """Run a node with a store of its own, joined through the addresses given."""
    limits = DEFAULT_LIMITS
    store = LmdbStore(home / "store", limits.store_quota_bytes)
    driver = Driver(
        key=NodeKey.load_or_create(home),
        network=NETWORK,
        store=store,
        limits=limits,
        report=_complain,
    )
    await driver.start([Address("127.0.0.1", 0)] if listen else [])
    try:
        joined = await driver.call(jobs.Bootstrap(driver.new_guid(), via))
        assert isinstance(joined, Joined)
        yield driver
    finally:
        await driver.stop()


def address_of(driver: Driver) -> Address:
    """Return where a listening node can be dialled."""
    return driver.machine.state.listening[0]


def random_blocks(count: int) -> list[Block]:
    """Return full blocks that no store has seen yet."""
    return [make_block(os.urandom(BLOCK_BYTES_MAX)) for _ in range(count)]


async def put(driver: Driver, item: Block, key: ItemKey) -> None:
    """Put a block as a user's call does, and see that it was stored."""
    outcome = await driver.call(jobs.Store(driver.new_guid(), key, item))
    assert isinstance(outcome, PutDone)
    assert [receipt.outcome for receipt in outcome.receipts] == ["stored"]


async def get(driver: Driver, item: Block, key: ItemKey) -> None:
    """Get a block as a user's call does, and see that it came from somewhere else."""
    outcome = await driver.call(jobs.Get(driver.new_guid(), key))
    assert isinstance(outcome, Got)
    assert outcome.source != driver.machine.state.own
    assert outcome.item == item


async def ask(driver: Driver, to: Contact, request: message.Request) -> None:
    """Ask a node one thing, and see that it answered."""
    outcome = await driver.call(jobs.SendRequest(driver.new_guid(), to, request))
    assert isinstance(outcome, Answered)


def _bytes_of(driver: Driver, body: message.Request | message.Response) -> bytes:
    return message.encode(message.Envelope(driver.new_guid(), driver.new_guid(), body))


@asynccontextmanager
async def _echo(question: bytes, *answers: bytes) -> AsyncIterator[TlsEcho]:
    key = NodeKey.generate()
    echo = TlsEcho(question, answers)
    await echo.open(server_context(key, NETWORK), client_context(key, NETWORK))
    try:
        yield echo
    finally:
        await echo.close()


async def gets(client: Driver, blocks: list[tuple[Block, ItemKey]]) -> Row:
    """Gets of full blocks by a client that has none, from the disk of the only other node."""
    question = _bytes_of(client, message.Get(blocks[0][1]))
    answers = [_bytes_of(client, message.Found(block)) for block, _ in blocks]

    async def ours() -> float:
        calls = (blocks[number % len(blocks)] for number in range(GETS))
        return await rate(lambda item=item: get(client, *item) for item in calls)

    async with _echo(question, *answers) as echo:
        pairs = await interleave(ROUNDS, ours, lambda: echo.rate(GETS))
    return compare("gets of 64 KiB blocks over one connection", "1/s", pairs, aim=0.6)


async def small(server: Driver, client: Driver, name: str, request: message.Request) -> Row:
    """Small requests from one node to another."""
    to = Contact(server.machine.state.own)
    outcome = await client.call(jobs.SendRequest(client.new_guid(), to, request))
    assert isinstance(outcome, Answered)
    question, answer = _bytes_of(client, request), _bytes_of(client, outcome.response)

    async def ours() -> float:
        return await rate((lambda: ask(client, to, request)) for _ in range(SMALL))

    async with _echo(question, answer) as echo:
        pairs = await interleave(ROUNDS, ours, lambda: echo.rate(SMALL))
    note = f"{len(question)} bytes there, {len(answer)} back"
    return compare(f"{name} over one connection", "1/s", pairs, aim=0.5, note=note)


async def rows(disk: Path) -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=disk) as directory:
        home = Path(directory)
        async with running_node(home / "server") as server:
            # Before the client is there: the node would put them there as well.
            blocks = [(block, key_of(block)) for block in random_blocks(BLOCKS)]
            await rate(lambda item=item: put(server, *item) for item in blocks)
            key = blocks[0][1]
            via = address_of(server)
            async with running_node(home / "client", via, listen=False) as client:
                return [
                    await small(server, client, "Ping", message.Ping((via,))),
                    await small(server, client, "FindClosest", message.FindClosest(key.id)),
                    await small(server, client, "Have of one key", message.Have((key,))),
                    await gets(client, blocks),
                ]
