"""Real `xorbit node` processes, started for the demo, watched, and never left behind.

Each has a home of its own and a pipe as its standard input. The pipe closes when we end, in
whatever way, and then the node stops. What is done with the nodes is demo.py's affair.
"""

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from xorbit.config import (
    SWARM_LOG_BYTES_READ,
    SWARM_LOG_LINES_SHOWN,
    SWARM_READY_S_MAX,
    SWARM_STOP_S_MAX,
)
from xorbit.errors import WorldError
from xorbit.ids import Id

LOOPBACK = "127.0.0.1:0"
LOG_FILE = "node.log"


class _Ready(Struct, frozen=True):
    """What `xorbit node --json` prints when it is ready, as far as we need it."""

    id: str
    addresses: list[str]


class Child:
    """One node process."""

    def __init__(self, number: int, home: Path, process: Process) -> None:
        self.number = number
        self.home = home
        self.process = process
        self.id = Id(b"")
        self.address = ""
        self._killed = False

    def __str__(self) -> str:
        return f"node {self.number}"

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as we were told."""
        return self.process.returncode is None

    async def ready(self) -> None:
        """Wait until it listens and has joined.

        Raises:
            WorldError: it ended, or was not ready in time; the message has the end of its log.
        """
        assert self.process.stdout is not None, "it was started with a pipe there"
        try:
            async with asyncio.timeout(SWARM_READY_S_MAX):
                line = await self.process.stdout.readline()
                if not line:
                    await self.process.wait()
            said = msgspec.json.decode(line, type=_Ready)
        except TimeoutError:
            raise WorldError(f"{self} was not ready in {SWARM_READY_S_MAX:.0f} s") from None
        except msgspec.MsgspecError:
            raise WorldError(f"{self} ended instead of starting") from None
        self.id = Id(bytes.fromhex(said.id))
        self.address = said.addresses[0]

    @property
    def has_failed(self) -> bool:
        """Whether it has ended, and not by our hand."""
        return not self.is_alive and not self._killed

    async def kill(self) -> None:
        """End it by SIGKILL, as a fault would: it can do nothing more."""
        self._killed = True
        self.process.kill()
        await self.process.wait()

    def log_tail(self) -> list[str]:
        """Return the last lines of its log."""
        try:
            with (self.home / LOG_FILE).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - SWARM_LOG_BYTES_READ))
                return file.read().decode(errors="replace").splitlines()[-SWARM_LOG_LINES_SHOWN:]
        except OSError:
            return []


class Swarm:
    """Node processes on loopback, as an async context manager that ends them all."""

    def __init__(self, directory: Path, network: str) -> None:
        """Keep the homes in this directory; the nodes are alone in a network of this name."""
        self.children: list[Child] = []
        self.directory = directory
        self.network = network

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def alive(self) -> list[Child]:
        """Those that have not ended."""
        return [child for child in self.children if child.is_alive]

    async def add(self, count: int) -> list[Child]:
        """Start nodes that join through those that are there; return when all are ready.

        Raises:
            WorldError: one did not start.
        """
        bootstrap = [child.address for child in self.alive[:2]]
        added = [await self._start(bootstrap) for _ in range(count)]
        for child in added:
            await child.ready()
        return added

    async def _start(self, bootstrap: Sequence[str]) -> Child:
        number = len(self.children) + 1
        home = self.directory / f"node-{number}"
        home.mkdir(mode=0o700)
        options = ["--home", str(home), "--listen", LOOPBACK, "--network", self.network, "--json"]
        options += [word for address in bootstrap for word in ("--bootstrap", address)]
        with (home / LOG_FILE).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "xorbit", "node", "--until-stdin-closes", *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop them
            )
        child = Child(number, home, process)
        self.children.append(child)
        return child

    async def stop(self) -> None:
        """End all nodes: cleanly, by closing their standard input; by force if that takes long."""
        for child in self.alive:
            assert child.process.stdin is not None, "it was started with a pipe there"
            child.process.stdin.close()
        ends = [asyncio.ensure_future(child.process.wait()) for child in self.alive]
        if ends:
            await asyncio.wait(ends, timeout=SWARM_STOP_S_MAX)
        for child in self.alive:
            await child.kill()
