"""`xorbit mirror` through a real network of three nodes: what moves for it, and what stays."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, NodeProcess
from tests.edge.conftest import Command
from tests.edge.test_api import soon
from tests.edge.test_trees import make_tree
from tests.unit.files.trees import on_disk
from tests.unit.run.test_mirroring import shown
from xorbit import RecordPlace, UserKey, errors
from xorbit.api import Node
from xorbit.blocking import BlockingNode
from xorbit.files.local_tree import build_source, cid_of
from xorbit.files.mirror_folder import STATE_FOLDER
from xorbit.items import ItemKey
from xorbit.keys import new_key
from xorbit.run.mirroring import Mirrored

KILLS = 16
CHUNK = 65_536

# Runs a command, and kills itself at its Nth change of a disk; says how many there were if it ends.
PROGRAM = """
import os, signal, sys
from xorbit.cli.main import execute
changes = 0
kill_at = int(sys.argv[1])
CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.symlink"}
def watch(event, args):
    global changes
    writes = event == "open" and isinstance(args[1], str) and args[1][0] in "wx"
    if event in CHANGES or writes:
        changes += 1
        if changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
code = execute(sys.argv[2:])
print(changes, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def key(nodes: list[NodeProcess]) -> UserKey:
    """A fresh key in the home of the first node."""
    return new_key(nodes[0].home, f"key-{os.urandom(4).hex()}")


def publish(xorbit: Command, nodes: list[NodeProcess], key: UserKey, *words: object) -> None:
    done = xorbit("publish", key.name, *words, "--home", nodes[0].home)
    assert done.code == 0, done.err


def blocks(tree: Path) -> dict[ItemKey, int]:
    """Return the blocks of a tree, and how many bytes each has."""
    return {cid.key: len(data) for cid, data in build_source(tree)}


class Following:
    """A running `xorbit mirror --json`, or `follow`."""

    def __init__(self, *words: object, command: str = "mirror") -> None:
        self._popen = subprocess.Popen(
            [*XORBIT, command, *map(str, words), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # else a second line is where no select sees it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate(timeout=WITHIN_S)

    def says(self) -> dict[str, Any]:
        """Return the next of its facts."""
        return json.loads(self._line(self._popen.stdout))

    def talks(self) -> str:
        """Return the next line of its standard error."""
        return self._line(self._popen.stderr)

    def _line(self, pipe: Any) -> str:
        assert select.select([pipe], [], [], WITHIN_S)[0], "it says nothing"
        line = pipe.readline()
        assert line, f"it ended with {self._popen.wait(WITHIN_S)}"
        return line.decode()

    def stop(self) -> int:
        self._popen.send_signal(signal.SIGINT)
        return self._popen.wait(WITHIN_S)


# --- Commands -------------------------------------------------------------------------------------


def test_a_folder_is_brought_to_the_newest_version(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """With --once; of the next version only the blocks that changed move, and are counted."""
    publish(xorbit, nodes, key, "--tree", tree)
    out, home = tmp_path / "out", ("--home", nodes[2].home)
    first = xorbit("mirror", key.public_key.hex(), out, "--once", "--json", *home).json
    assert shown(out) == on_disk(tree)
    had = blocks(tree)
    assert (first["seq"], first["cid"], first["left_out"]) == (1, str(cid_of(tree)), [])
    assert (first["fetched_blocks"], first["fetched_bytes"]) == (len(had), sum(had.values()))

    (tree / "large").write_bytes((tree / "large").read_bytes() + b"more")
    (tree / "sub" / "small").rename(tree / "sub" / "renamed")
    publish(xorbit, nodes, key, "--tree", tree)
    words = ("mirror", key.public_key.hex(), out, "--once")
    second = xorbit(*words, "--json", *home).json
    moved = {key: size for key, size in blocks(tree).items() if key not in had}
    assert shown(out) == on_disk(tree)
    assert (second["fetched_blocks"], second["fetched_bytes"]) == (len(moved), sum(moved.values()))
    assert (second["files"], second["removed"]) == (2, 1)
    third = xorbit(*words, *home)
    assert xorbit("cid", out).text.strip() == second["cid"]
    assert xorbit("put", out, *home).text.strip() == second["cid"]
    assert third.text == f"2  {cid_of(tree)}  0 written, 0 removed; 0 blocks fetched, 0 bytes\n"


def test_what_the_user_put_is_told_of_and_stays(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """Also what was there before, and that the key is another: nothing is touched then."""
    publish(xorbit, nodes, key, "--tree", tree)
    out, home = tmp_path / "out", ("--home", nodes[0].home)
    assert xorbit("mirror", key.name, out, "--once", *home).code == 0
    (out / "mine").write_bytes(b"mine")
    (tree / "mine").write_bytes(b"not mine")
    publish(xorbit, nodes, key, "--tree", tree)
    done = xorbit("mirror", key.name, out, "--once", *home)
    assert done.code == 1
    assert "left out of version 2: 'mine', where something is that is not its own" in done.err
    assert (out / "mine").read_bytes() == b"mine"
    xorbit("mirror", key.name, tree, "--once", *home).failed(2, "is no mirror and not empty")
    xorbit("mirror", key.name, out, "--once", "--salt", "x", *home).failed(2, "another record")
    fresh = ("mirror", key.name, tmp_path / "fresh", "--once", *home)
    xorbit(*fresh, "--salt", "x").failed(3, "nobody has it")
    assert not (tmp_path / "fresh").exists()
    assert xorbit(*fresh).code == 0
    publish(xorbit, nodes, key, "no tree")
    xorbit(*fresh).failed(3, "version 3 of the record of")
    assert (tmp_path / "fresh" / "mine").read_bytes() == b"not mine"
    publish(xorbit, nodes, key, "--tree", tree / "large")
    xorbit(*fresh).failed(3, "is a file, and a folder mirrors directories: 'xorbit get ")


def test_versions_are_followed_until_ctrl_c(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """From before there is one; what is no tree is told, and the next version comes again."""
    out, name = tmp_path / "out", key.public_key.hex()
    with Following(name, out, "--home", nodes[1].home) as following:
        assert following.talks() == f"following {name}; Ctrl-C ends it\n"
        assert following.talks() == f"following {name}; there is no version yet\n"
        publish(xorbit, nodes, key, "--tree", tree)
        assert following.says()["seq"] == 1
        assert shown(out) == on_disk(tree)
        (tree / "sub" / "small").write_bytes(b"changed")
        publish(xorbit, nodes, key, "--tree", tree)
        said = following.says()
        assert (said["seq"], said["files"]) == (2, 1)
        assert shown(out) == on_disk(tree)
        publish(xorbit, nodes, key, "no tree")
        told = following.talks()
        assert told.startswith("version 3 cannot be had, the folder stays at version 2: ")
        xorbit("mirror", name, out, "--once", "--home", nodes[0].home).failed(2, "another process")
        (tree / "sub" / "small").unlink()
        publish(xorbit, nodes, key, "--tree", tree)
        said = following.says()
        assert (said["seq"], said["removed"]) == (4, 1)
        assert following.stop() == 130
    assert shown(out) == on_disk(tree)


@pytest.mark.parametrize("command", ["mirror", "follow"])
def test_a_node_that_stops_is_waited_for(
    command: str,
    xorbit: Command,
    nodes: list[NodeProcess],
    key: UserKey,
    tree: Path,
    tmp_path: Path,
) -> None:
    """Nothing is told twice; the versions after it started again are, too."""
    publish(xorbit, nodes, key, "--tree", tree)
    home, out = tmp_path / "home", [tmp_path / "out"] if command == "mirror" else []
    words = (key.public_key.hex(), *out, "--home", home)
    with NodeProcess(home, bootstrap=nodes[0].address) as node:
        following = Following(*words, command=command)
        with following:
            assert following.says()["seq"] == 1
            node.signal(signal.SIGTERM)
            assert node.ended() == 0
            while f"the node on {home} stopped; going on when" not in following.talks():
                pass
            with NodeProcess(home, bootstrap=nodes[0].address):
                while following.talks() != f"a node runs on {home} again\n":
                    pass
                (tree / "new").write_bytes(b"new")
                publish(xorbit, nodes, key, "--tree", tree)
                assert following.says()["seq"] == 2
                assert following.stop() == 130


# --- Killed ---------------------------------------------------------------------------------------


def next_version(tree: Path, rng: Random) -> None:
    """Change a little of everything."""
    for number in rng.sample(range(8), 4):
        path = tree / f"{number}"
        kind = rng.randrange(4)
        if path.is_dir() and not path.is_symlink():
            (path / "in").unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if kind == 0:
            path.mkdir()
            (path / "in").write_bytes(rng.randbytes(100))
        elif kind == 1:
            path.symlink_to(f"{rng.randrange(8)}")
        elif kind == 2:
            path.write_bytes(rng.randbytes(3 * CHUNK + 1))
    large = bytearray((tree / "large").read_bytes())
    large[rng.randrange(len(large))] ^= 1
    (tree / "large").write_bytes(large)


def mirror_killed(at: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(at), "mirror", *map(str, words), "--once"]
    return subprocess.run(command, capture_output=True, timeout=WITHIN_S, check=False, text=True)


def test_kills_at_any_instant_leave_files_whole_and_the_next_run_mends(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tmp_path: Path
) -> None:
    """Whenever it dies: each file is of a version that it had to do with, and what is mine stays.

    The next run that is left to end makes the newest version of it, as if nothing had been.
    """
    seed = int(os.environ.get("XORBIT_SEED", time.time_ns()))
    print(f"replay the choices of this run with XORBIT_SEED={seed}")  # noqa: T201 - if it fails
    rng = Random(seed)
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    (tree / "large").write_bytes(rng.randbytes(20 * CHUNK))
    words = (key.public_key.hex(), out, "--home", nodes[1].home)
    may_be: dict[str, list[object]] = {"large": [(tree / "large").read_bytes()]}
    assert mirror_killed(4, *words).returncode == -signal.SIGKILL
    publish(xorbit, nodes, key, "--tree", tree)
    assert mirror_killed(0, *words).returncode == 0
    (out / "mine").write_bytes(b"mine")
    changes, killed = 60, 0
    for turn in range(KILLS):
        next_version(tree, rng)
        publish(xorbit, nodes, key, "--tree", tree)
        for name, what in on_disk(tree).items():
            may_be.setdefault(name, []).append(what)
        done = mirror_killed(rng.randrange(1, changes), *words)
        here = shown(out)
        assert here.pop("mine") == b"mine"
        for name, what in here.items():
            assert what in may_be[name], (turn, name)
        killed += done.returncode == -signal.SIGKILL
        if done.returncode == 0:
            changes = max(10, int(done.stderr.split()[-1]))
        if rng.randrange(3) == 0:
            done = mirror_killed(0, *words)
            assert done.returncode == 0, done.stderr
            assert shown(out) == {**on_disk(tree), "mine": b"mine"}
            assert [path.name for path in (out / STATE_FOLDER / "stage").iterdir()] == []
    done = mirror_killed(0, *words)
    assert done.returncode == 0, done.stderr
    assert shown(out) == {**on_disk(tree), "mine": b"mine"}
    assert killed >= KILLS // 4, "most of these runs were to be killed"


# --- Python ---------------------------------------------------------------------------------------


async def test_programs_have_the_same(tree: Path, tmp_path: Path) -> None:
    """A node mirrors what is published at it, once and as it comes."""
    key, out = new_key(tmp_path / "home", "me"), tmp_path / "out"
    place = RecordPlace(key.public_key, b"s")
    async with Node(tmp_path / "a", listen="127.0.0.1:0", network=NETWORK) as node:
        await soon(node.publish_tree(key, tree, salt=b"s"))
        assert (await soon(node.mirror_once(place, out))).seq == 1
        steps = node.mirror(place, out)
        assert (await soon(anext(steps))).seq == 1
        (tree / "new").write_bytes(b"new")
        await soon(node.publish_tree(key, tree, salt=b"s"))
        second = await soon(anext(steps))
        assert isinstance(second, Mirrored)
        assert (second.seq, second.files) == (2, 1)
        await steps.aclose()
        for name in (cid_of(tree), RecordPlace(key.public_key, b"s", ("sub",))):
            with pytest.raises(errors.MisuseError, match="expected a public key to follow"):
                await soon(node.mirror_once(name, out))
    assert shown(out) == on_disk(tree)


def test_scripts_have_the_same(tree: Path, tmp_path: Path) -> None:
    key, out = new_key(tmp_path / "home", "me"), tmp_path / "out"
    name = key.public_key.hex()
    with BlockingNode(Node(tmp_path / "a", listen="127.0.0.1:0", network="mirrors")) as node:
        node.publish_tree(key, tree)
        assert node.mirror_once(name, out).files == 65
        for outcome in node.mirror(name, out):
            assert outcome.seq == 1
            break
    assert shown(out) == on_disk(tree)
