"""A home killed at any instant of a put, an unpin or a gc: nothing kept is lost, nothing leaks."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Self

from tests.edge.test_pins import file
from xorbit.files.local_tree import cid_of
from xorbit.items import ItemKey, block_key
from xorbit.pins import ScanPins, ScanRoots
from xorbit.run.pinning import name_of
from xorbit.store.lmdb import LmdbStore

KILLS = 12
FILES = 4
SHARED = 5
OWN = 4
WITHIN_S = 40.0

# Works on its home until it is killed; says what was acknowledged, a line for each.
PROGRAM = """
import asyncio, random, sys
from tests.edge.test_pin_kills import content
from xorbit import Node, errors
from xorbit.run.pinning import name_of
async def work(node, rng):
    while True:
        data = content(rng.randrange(4))
        try:
            match rng.randrange(5):
                case 0 | 1:
                    print("put?", flush=True)
                    done = await node.put_file(data)
                    assert not done.not_kept
                    print("put", done.cid, flush=True)
                case 2 | 3:
                    kept = await node.pins()
                    if kept:
                        name = name_of(rng.choice(kept).root)
                        print("unpin?", name, flush=True)
                        await node.unpin(name)
                        print("unpin", name, flush=True)
                case _:
                    await node.gc()
        except errors.NotFoundError:
            pass
async def main(home, seed):
    async with Node(home, listen="127.0.0.1:0", network="pin kills", mdns=False) as node:
        print("begun", flush=True)
        await work(node, random.Random(seed))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def content(number: int) -> bytes:
    """Return one of four files, which share their beginnings."""
    return file(0, SHARED) + file(number + 1, OWN)


NAMES = {str(cid_of(content(number))): number for number in range(FILES)}


def keys_of(name: str) -> set[ItemKey]:
    """Return the keys of all blocks of one of the files."""
    data = content(NAMES[name])
    leaves = {block_key(data[at : at + 65_536]) for at in range(0, len(data), 65_536)}
    return leaves | {cid_of(data).key}


class Life:
    """One run of the program, killed after so many lines, at once or a little later."""

    def __init__(self, home: Path, seed: int) -> None:
        root = str(Path(__file__).parents[2])
        self._popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate(timeout=WITHIN_S)

    def lines(self, count: int) -> list[str]:
        """Kill it behind this line; return all that it said."""
        out = self._popen.stdout
        assert out is not None
        said: list[str] = []
        while len(said) < count:
            assert select.select([out], [], [], WITHIN_S)[0], "it says nothing more"
            line = out.readline()
            assert line, f"it ended with {self._popen.wait()}: {said}"
            said.append(line.strip())
        self._popen.send_signal(signal.SIGKILL)
        return said + out.read().split("\n")


def replay(said: list[str], kept: dict[str, bool | None]) -> None:
    """Note which files are kept (True), are not (False) or may be (None), as far as was told."""
    pending = ""
    for line in said:
        match line.split():
            case ["put", name]:
                kept[name], pending = True, ""
            case ["unpin", name]:
                kept[name], pending = False, ""
            case ["unpin?", name]:
                pending = name
            case _:
                pass
    if pending:
        kept[pending] = None


def look(home: Path) -> tuple[dict[str, str], set[ItemKey]]:
    store = LmdbStore(home / "store", 2**30)
    try:
        roots, pins = store.tend([ScanRoots(1_000), ScanPins(100_000)])
        held = store.have(pins.keys)
        assert all(held), "what is pinned is there"
        return {name_of(kept.root): kept.root.stage for kept in roots.roots}, set(pins.keys)
    finally:
        store.close()


def test_kills_of_a_home_that_puts_and_unpins_lose_nothing_kept_and_leak_nothing(
    tmp_path: Path,
) -> None:
    """Whenever it dies: each kept root has all of its pins; a gc later there is no other pin."""
    seed = int(os.environ.get("XORBIT_SEED", time.time_ns()))
    print(f"replay the choices of this run with XORBIT_SEED={seed}")  # noqa: T201 - if it fails
    rng = Random(seed)
    kept: dict[str, bool | None] = {}
    for _ in range(KILLS):
        with Life(tmp_path, rng.randrange(2**32)) as life:
            replay(life.lines(1 + rng.randint(1, 12)), kept)
        stages, pinned = look(tmp_path)
        for name, is_kept in kept.items():
            if is_kept:
                assert stages[name] == "kept"
        for name, stage in stages.items():
            if stage == "kept":
                assert keys_of(name) <= pinned
                kept[name] = True
    leave_only_what_is_kept(tmp_path)


def leave_only_what_is_kept(home: Path) -> None:
    code = "import sys; from xorbit.cli.main import main; main()"
    for command in ("gc", "pins"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--home", str(home)],
            capture_output=True,
            check=False,
            timeout=WITHIN_S,
            env={**os.environ, "XORBIT_HOME": str(home)},
        )
        assert done.returncode == 0, done.stderr
    stages, pinned = look(home)
    assert set(stages.values()) <= {"kept"}
    assert pinned == set().union(*map(keys_of, stages))
