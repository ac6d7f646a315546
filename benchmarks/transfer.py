"""Files and trees through a network of node processes on loopback, by the command line.

`xorbit put` and `xorbit get` as processes of their own, each with a home of its own, so that
whatever is got has come over sockets; what came is compared byte for byte. A put is durable at five
nodes and at home before it is over. Beside the figures stand those of the same run for one
connection of bare TLS, one bare LMDB, and rsync through its daemon on loopback, where it is
installed: none of them makes copies, names or proves anything.

`python -m benchmarks.transfer --files 300 --large-mb 64` is a smaller run.
"""

import argparse
import asyncio
import filecmp
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from time import perf_counter, sleep

from msgspec import Struct

from benchmarks.ceilings import BareLmdb, TlsEcho
from benchmarks.measure import Row, compare, print_table
from xorbit.api import open_calls
from xorbit.cli.swarm import Child, Swarm
from xorbit.config import DEFAULT_LIMITS
from xorbit.identity import NodeKey, open_network
from xorbit.items import BLOCK_BYTES_MAX
from xorbit.run.loop import run
from xorbit.run.tls import client_context, server_context

NETWORK = "benchmark of transfers"
MB = 1_000_000
LOOK_S = 0.02
"""How often it is looked how much memory a command has."""
MEMORY_MB_MAX = 200.0
"""What a client may have resident at most, whatever it moves."""
CEILING_BLOCKS = 2_048
LMDB_BATCH = 16
FOLDER_FILES = 100
SMALL_BYTES_MAX = 16_384
PIECE_BYTES = 2**20
SEED = 1
HOLDERS_MIN = DEFAULT_LIMITS.replicas
"""Fewer would be less work than users have."""
KNOWN_EVERY_S = 0.2


class Sizes(Struct, frozen=True):
    """What is moved, and through how many nodes."""

    nodes: int = 9
    files: int = 5_000
    large_mb: int = 2_000


class Ran(Struct, frozen=True):
    """How a command went: its last line, how long it took, and the most memory it had."""

    said: str
    seconds: float
    peak_mb: float


class Ceilings(Struct, frozen=True):
    """What one connection and one disk carry without a node, in MB/s."""

    tls: float
    lmdb: float


# --- What is moved ------------------------------------------------------------------------------


def make_tree(top: Path, files: int) -> int:
    """Make small files, 100 to a folder, of up to 16 KiB each; return their bytes."""
    rng = Random(SEED)
    total = 0
    for number in range(files):
        folder = top / f"folder {number // FOLDER_FILES}"
        folder.mkdir(parents=True, exist_ok=True)
        content = rng.randbytes(rng.randrange(SMALL_BYTES_MAX))
        (folder / f"file {number}").write_bytes(content)
        total += len(content)
    return total


def make_large(path: Path, size: int) -> int:
    """Make one file that nothing is known of; return its bytes."""
    with path.open("wb") as file:
        for at in range(0, size, PIECE_BYTES):
            file.write(os.urandom(min(PIECE_BYTES, size - at)))
    return size


def assert_same(one: Path, other: Path) -> None:
    """Compare two files, or two trees, byte for byte."""
    if one.is_file():
        assert filecmp.cmp(one, other, shallow=False), f"{other} is not {one}"
        return
    ours, theirs = ({str(path.relative_to(top)) for path in top.rglob("*")} for top in (one, other))
    assert ours == theirs, "there are other files in it"
    for name in ours:
        if (one / name).is_file():
            assert filecmp.cmp(one / name, other / name, shallow=False), f"{name} is another"


# --- Commands -----------------------------------------------------------------------------------


async def command(*words: object) -> Ran:
    """Run xorbit to its end, which must be a good one."""
    return await asyncio.to_thread(_run, [sys.executable, "-m", "xorbit", *map(str, words)])


def _run(words: list[str]) -> Ran:
    began = perf_counter()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(words, stdout=said, stderr=complained)
        status, peak = _wait(process.pid)
        seconds = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for
        for file in (said, complained):
            file.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {complained.read().decode()}")
        lines = said.read().decode().splitlines()
    return Ran(lines[-1] if lines else "", seconds, peak / MB)


def _wait(pid: int) -> tuple[int, int]:
    """Wait for a process; return its status, and the most memory that it had, in bytes.

    Not what `wait4` tells: that counts what its parent had when it was forked.
    """
    peak = 0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, peak
        with suppress(OSError):  # it is ending just now
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            high = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
            peak = max(peak, int(high.split()[1]) * 1_024)
        sleep(LOOK_S)


class Client:
    """Somebody's machine: a home that no node runs on."""

    def __init__(self, home: Path, via: str) -> None:
        self._options = ("--home", home, "--network", NETWORK, "--bootstrap", via)

    async def put(self, path: Path) -> Ran:
        return await command("put", path, "--json", *self._options)

    async def get(self, name: str, to: Path) -> Ran:
        return await command("get", name, "-o", to, *self._options)


# --- Ceilings -----------------------------------------------------------------------------------


async def measure_ceilings(directory: Path) -> Ceilings:
    """Measure bare TLS and bare LMDB with full blocks."""
    block = os.urandom(BLOCK_BYTES_MAX)
    key, network = NodeKey.generate(), open_network(NETWORK)
    echo = TlsEcho(b"?", [block])
    await echo.open(server_context(key, network), client_context(key, network))
    tls = await echo.rate(CEILING_BLOCKS)
    await echo.close()
    store = BareLmdb(directory / "bare", 4 * CEILING_BLOCKS * BLOCK_BYTES_MAX)
    items = [(number.to_bytes(8, "big"), block) for number in range(CEILING_BLOCKS)]
    lmdb = store.rate(items, LMDB_BATCH)
    store.close()
    return Ceilings(tls * BLOCK_BYTES_MAX / MB, lmdb * BLOCK_BYTES_MAX / MB)


@contextmanager
def rsync_daemon(directory: Path) -> Iterator[str]:
    """Run rsync's daemon on loopback; give the address of a folder that may be written to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "module").mkdir()
    settings = directory / "rsyncd.conf"
    settings.write_text(
        f"port = {port}\naddress = 127.0.0.1\nuse chroot = no\n"
        f"uid = {os.geteuid()}\ngid = {os.getegid()}\n"  # who is root is nobody there, else
        f"[module]\npath = {directory / 'module'}\nread only = no\n"
    )
    words = ["rsync", "--daemon", "--no-detach", f"--config={settings}"]
    daemon = subprocess.Popen(words)
    try:
        yield f"rsync://127.0.0.1:{port}/module/"
    finally:
        daemon.terminate()
        daemon.wait()


def rsync_seconds(source: Path, address: str, back: Path) -> tuple[float, float]:
    """Send something to the daemon and fetch it again; return how long each took."""
    began = perf_counter()
    _rsync([str(source), address])
    sent = perf_counter()
    _rsync([address + source.name, str(back)])
    return sent - began, perf_counter() - sent


def _rsync(words: list[str]) -> None:
    tries = 100  # the daemon takes a moment to listen
    for number in range(tries):
        done = subprocess.run(["rsync", "-a", *words], capture_output=True, check=False)
        if done.returncode == 0:
            return
        if b"onnection refused" not in done.stderr or number == tries - 1:
            raise RuntimeError(done.stderr.decode())


# --- All ----------------------------------------------------------------------------------------


class Trip(Struct, frozen=True):
    """Something that went through the network and came back the same."""

    what: str
    path: Path
    files: int
    bytes: int
    put: Ran
    got: Ran


async def travel(what: str, path: Path, files: int, size: int, work: Path, via: str) -> Trip:
    """Put something from one home and get it from another; see that it is the same."""
    name = path.name
    put = await Client(work / f"home that puts {name}", via).put(path)
    target = work / f"got {name}"
    said = json.loads(put.said)
    assert said["holders_min"] >= HOLDERS_MIN, f"a block is held by {said['holders_min']} only"
    got = await Client(work / f"home that gets {name}", via).get(said["cid"], target)
    await asyncio.to_thread(assert_same, path, target)
    for left in (f"home that puts {name}", f"home that gets {name}"):
        shutil.rmtree(work / left)
    return Trip(what, path, files, size, put, got)


def rows_of(trip: Trip, ceilings: Ceilings, rsync: tuple[float, float] | None) -> Iterator[Row]:
    """Say how a trip went, beside what the same bytes take without a node."""
    for way, ran, at in (("put of", trip.put, 0), ("get of", trip.got, 1)):
        name, rate = f"{way} {trip.what}", trip.bytes / ran.seconds / MB
        note = f"{trip.bytes / MB:,.0f} MB in {ran.seconds:.1f} s"
        yield compare(f"{name}, bare TLS", "MB/s", [(rate, ceilings.tls)], note=note)
        note = "five copies and the owner's, all durable" if at == 0 else ""
        yield compare(f"{name}, bare LMDB", "MB/s", [(rate, ceilings.lmdb)], note=note)
        if rsync is not None:
            theirs = trip.bytes / rsync[at] / MB
            note = "rsync's daemon on loopback: one copy, not fsynced"
            yield compare(f"{name}, rsync", "MB/s", [(rate, theirs)], note=note)
        if trip.files > 1:
            yield Row(f"{name}, whole command", "files/s", trip.files / ran.seconds)
        pair = (ran.peak_mb, MEMORY_MB_MAX)
        yield compare(f"{name}, peak memory", "MB", [pair], aim=1.0, at_most=True)


async def measure(directory: Path, sizes: Sizes) -> list[Row]:
    """Measure with these sizes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        work = Path(folder)
        tree, large = work / "tree", work / "large"
        tree_bytes = make_tree(tree, sizes.files)
        large_bytes = make_large(large, sizes.large_mb * MB)
        ceilings = await measure_ceilings(work)
        async with Swarm(work, NETWORK) as swarm:
            [first] = await swarm.add(1)
            await swarm.add(sizes.nodes - 1)
            await _all_known(swarm, first)
            via = first.address
            trips = [
                await travel(f"{sizes.files:,} files", tree, sizes.files, tree_bytes, work, via),
                await travel("one file", large, 1, large_bytes, work, via),
            ]
        for trip in trips:
            rows += rows_of(trip, ceilings, await asyncio.to_thread(_rsynced, trip, work))
    return rows


async def _all_known(swarm: Swarm, first: Child) -> None:
    """Wait until the node that clients begin at knows all others."""
    async with open_calls(first.home) as calls:
        while len(await calls.contacts()) < len(swarm.children) - 1:  # noqa: ASYNC110 - a process
            await asyncio.sleep(KNOWN_EVERY_S)


def _rsynced(trip: Trip, work: Path) -> tuple[float, float] | None:
    if shutil.which("rsync") is None:
        return None
    folder = work / f"rsync of {trip.path.name}"
    folder.mkdir()
    with rsync_daemon(folder) as address:
        return rsync_seconds(trip.path, address, folder / "back")


async def rows(disk: Path) -> list[Row]:
    """Measure, with the sizes that the project promises something of."""
    return await measure(disk, Sizes())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    for name, default in (("nodes", 9), ("files", 5_000), ("large-mb", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--disk", type=Path, default=tempfile.gettempdir())
    options = parser.parse_args()
    sizes = Sizes(options.nodes, options.files, options.large_mb)
    if shutil.which("rsync") is None:
        print("rsync is not installed: no figures of it", file=sys.stderr)
    found = run(measure(options.disk, sizes))
    print_table(found, f"Python {platform.python_version()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
