"""The ceilings: what the same machine, loop, certificates and disk do without a node."""

import asyncio
import ssl
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import cast

import lmdb

from benchmarks.measure import IN_FLIGHT

HEADER_BYTES = 4


class Framed(asyncio.Protocol):
    """Length framing over a stream, nothing else."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            end = start + HEADER_BYTES + int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
            if len(buffer) < end:
                break
            self.frame_received(bytes(memoryview(buffer)[start + HEADER_BYTES : end]))
            start = end
        del buffer[:start]

    def frame_received(self, _: bytes) -> None:
        raise NotImplementedError

    def send(self, payload: bytes) -> None:
        self._transport.write(len(payload).to_bytes(HEADER_BYTES, "big") + payload)

    def close(self) -> None:
        self._transport.close()


class _Answering(Framed):
    def __init__(self, answers: Sequence[bytes]) -> None:
        super().__init__()
        self._answers = cycle(answers)

    def frame_received(self, _: bytes) -> None:
        self.send(next(self._answers))


class _Asking(Framed):
    def __init__(self) -> None:
        super().__init__()
        self._unsent = self._unanswered = 0
        self._question = b""
        self._done: asyncio.Future[None]

    async def ask(self, question: bytes, times: int) -> None:
        self._question = question
        self._unanswered = times
        self._unsent = times - IN_FLIGHT
        self._done = asyncio.get_running_loop().create_future()
        for _ in range(IN_FLIGHT):
            self.send(question)
        await self._done

    def frame_received(self, _: bytes) -> None:
        self._unanswered -= 1
        if self._unsent:
            self._unsent -= 1
            self.send(self._question)
        elif not self._unanswered:
            self._done.set_result(None)


class TlsEcho:
    """A bare TLS connection within one loop, that answers a message with the next of several.

    The loop's own TLS transport, a plain asyncio.Protocol at each end, both ends authenticated.
    """

    def __init__(self, question: bytes, answers: Sequence[bytes]) -> None:
        self._question = question
        self._answers = answers

    async def open(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Answering(self._answers), "127.0.0.1", 0, ssl=server
        )
        host, port = self._server.sockets[0].getsockname()
        _, self._asking = await loop.create_connection(
            _Asking, host, port, ssl=client, server_hostname=""
        )

    async def rate(self, times: int) -> float:
        """Return how many were answered in a second."""
        began = perf_counter()
        await self._asking.ask(self._question, times)
        return times / (perf_counter() - began)

    async def close(self) -> None:
        self._asking.close()
        self._server.close()
        await self._server.wait_closed()


class BareLmdb:
    """LMDB with its defaults (durable commits), written in batches by one thread."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self._env = lmdb.open(str(path), map_size=map_bytes)

    def rate(self, items: Sequence[tuple[bytes, bytes]], batch: int) -> float:
        """Return how many items were durable in a second, `batch` of them to a commit."""
        began = perf_counter()
        for start in range(0, len(items), batch):
            with self._env.begin(write=True) as txn:
                for key, value in items[start : start + batch]:
                    txn.put(key, value)
        return len(items) / (perf_counter() - began)

    def close(self) -> None:
        self._env.close()
