"""One peer floods, another asks: what the flood does to the other's median answer time.

Three processes over real sockets: a node that serves, a node whose user asks one thing after the
other, and a flooder that always has more requests unanswered than the server takes in, so that the
server never runs dry and never stops reading for lack of more. The flooder is no node but prebuilt
frames on a bare connection: it must not need the processor that the asker answers on. Where there
are few cores it also runs `nice`d, which leaves only the server's part of the wait.
"""

import asyncio
import multiprocessing as mp
import os
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.ceilings import HEADER_BYTES, Framed
from benchmarks.measure import Row, compare, rate
from benchmarks.node import NETWORK, address_of, ask, get, put, random_blocks, running_node
from xorbit.identity import NodeKey
from xorbit.ids import Guid
from xorbit.items import Address, Block, Contact, ItemKey, key_of
from xorbit.run.loop import run
from xorbit.run.tls import client_context
from xorbit.wire import message

ROUNDS = 5
ROUND_S = 0.5
SETTLE_S = 0.1
UNANSWERED = 1_024
"""What the flooder has in flight: more than a line of the server's queue and its workers hold."""
BLOCKS = 64
NICE = 19

Role = Callable[..., Coroutine[Any, Any, None]]


# --- Three processes ----------------------------------------------------------------------------


async def _serve(pipe: Pipe, home: Path) -> None:
    blocks = [(block, key_of(block)) for block in random_blocks(BLOCKS)]
    async with running_node(home) as node:
        await rate(lambda item=item: put(node, *item) for item in blocks)
        pipe.send((address_of(node), node.machine.state.own, blocks))
        await asyncio.to_thread(pipe.recv)


async def _ask(
    pipe: Pipe, home: Path, via: Address, to: Contact, blocks: list[tuple[Block, ItemKey]]
) -> None:
    async with running_node(home, via, listen=False) as node:
        target = message.FindClosest(to.id)
        while what := await asyncio.to_thread(pipe.recv):
            times: list[float] = []
            ends = perf_counter() + ROUND_S
            while perf_counter() < ends:
                began = perf_counter()
                if what == "gets":
                    await get(node, *blocks[len(times) % BLOCKS])
                else:
                    await ask(node, to, target)
                times.append(perf_counter() - began)
            pipe.send(median(times))


class _Flood(Framed):
    """Sends prebuilt requests, as many as may be unanswered, until it is told to stop."""

    def __init__(self, requests: list[bytes]) -> None:
        super().__init__()
        self._requests = requests
        self._next = self._unanswered = 0
        self.answered = 0
        self._going = True
        self._settled = asyncio.Event()

    async def stop(self) -> None:
        """End once everything is answered: the round that follows is to be a quiet one."""
        self._going = False
        await self._settled.wait()
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send_more()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's form
        self._settled.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._going:
            self._send_more()
        elif self._unanswered <= 0:
            self._settled.set()

    def frame_received(self, _: bytes) -> None:
        self.answered += 1
        self._unanswered -= 1

    def _send_more(self) -> None:
        count = UNANSWERED - self._unanswered
        start = self._next % len(self._requests)
        batch = self._requests[start : start + count]
        self._transport.write(b"".join(batch))
        self._next = start + len(batch)
        self._unanswered += len(batch)


def _requests(what: str, blocks: list[tuple[Block, ItemKey]]) -> list[bytes]:
    """Return frames of requests: all of another guid, twice as many as are ever in flight."""
    frames: list[bytes] = []
    for number in range(2 * UNANSWERED):
        _, key = blocks[number % len(blocks)]
        body = message.Get(key) if what == "gets" else message.FindClosest(key.id)
        guid = Guid(os.urandom(16))
        payload = message.encode(message.Envelope(guid, guid, body))
        frames.append(len(payload).to_bytes(HEADER_BYTES, "big") + payload)
    return frames


async def _flood(
    pipe: Pipe, via: Address, what: str, nice: int, blocks: list[tuple[Block, ItemKey]]
) -> None:
    os.nice(nice)
    context = client_context(NodeKey.generate(), NETWORK)
    requests = _requests(what, blocks)
    pipe.send("ready")
    while await asyncio.to_thread(pipe.recv):
        # A new connection for each flood: a node leaves a peer that never answers it.
        _, flood = await asyncio.get_running_loop().create_connection(
            lambda: _Flood(requests), via.host, via.port, ssl=context, server_hostname=""
        )
        began = perf_counter()
        await asyncio.to_thread(pipe.recv)
        answered = flood.answered / (perf_counter() - began)
        await flood.stop()
        pipe.send(answered)


# --- The run --------------------------------------------------------------------------------------


class _Process:
    """A role in a process of its own, spoken to through a pipe."""

    def __init__(self, role: Role, *arguments: object) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_play, args=(role, theirs, arguments))
        self._process.start()
        theirs.close()

    async def ask(self, order: object) -> Any:
        self.tell(order)
        return await self.hear()

    def tell(self, order: object) -> None:
        self._pipe.send(order)

    async def hear(self) -> Any:
        return await asyncio.to_thread(self._pipe.recv)

    def end(self) -> None:
        self.tell(None)
        self._process.join()


def _play(role: Role, pipe: Pipe, arguments: tuple[object, ...]) -> None:
    run(role(pipe, *arguments))


async def _row(asker: _Process, flooder: _Process, what: str, note: str) -> Row:
    await asker.ask(what)
    pairs: list[tuple[float, float]] = []
    rates: list[float] = []
    for _ in range(ROUNDS):
        quiet = await asker.ask(what)
        flooder.tell("go")
        await asyncio.sleep(SETTLE_S)
        flooded = await asker.ask(what)
        rates.append(await flooder.ask("stop"))
        pairs.append((flooded * 1e6, quiet * 1e6))
    note = f"{median(rates):,.0f} requests of the flood answered in a second{note}"
    return compare(
        f"median answer time in a flood of {what}", "us", pairs, aim=1.5, at_most=True, note=note
    )


async def rows(disk: Path) -> list[Row]:
    """Measure."""
    measured: list[Row] = []
    with tempfile.TemporaryDirectory(dir=disk) as directory:
        home = Path(directory)
        async with AsyncExitStack() as stack:
            server = _Process(_serve, home / "server")
            stack.callback(server.end)
            via, own, blocks = await server.hear()
            asker = _Process(_ask, home / "asker", via, Contact(own), blocks)
            stack.callback(asker.end)
            for what in ("small requests", "gets"):
                for nice in (0, NICE):
                    flooder = _Process(_flood, via, what, nice, blocks)
                    try:
                        await flooder.hear()
                        note = ", flooder niced" if nice else ""
                        measured.append(await _row(asker, flooder, what, note))
                    finally:
                        flooder.end()
    return measured
