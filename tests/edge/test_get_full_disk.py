"""Trees that are got to a small disk: one that it has no room for, and one that fills a mount."""

import os
import subprocess
from pathlib import Path

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, NodeProcess
from tests.edge.test_node_disk import on_small_disk, small_disk

__all__ = ["small_disk"]  # the fixture

LOOK = '"$@"; code=$?; ls -A "$DISK/target" >&2; exit $code'


def test_a_full_disk_while_a_tree_is_got_is_said_and_nothing_stays(
    tmp_path: Path, small_disk: Path
) -> None:
    """Files that say what they need are refused before; small ones as soon as they do not fit."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(400):
        (tree / f"{number}").write_bytes(b"%d" % number * 9_000)
    with NodeProcess(tmp_path / "node") as node:
        home = ["--home", str(node.home)]
        put = subprocess.run(
            [*XORBIT, "put", str(tree), *home], capture_output=True, check=True, timeout=WITHIN_S
        )
        name = put.stdout.decode().strip()
        target = small_disk / "target"
        words = [*XORBIT, "get", name, "-o", str(target / "got"), *home, "--network", NETWORK]
        run = [*on_small_disk(small_disk), "sh", "-c", f'mkdir "{target}"; ' + LOOK, "sh", *words]
        got = subprocess.run(
            run,
            capture_output=True,
            check=False,
            timeout=WITHIN_S,
            env={"DISK": str(small_disk), "PATH": "/usr/bin:/bin"},
        )
    assert got.returncode == 1, got.stderr
    assert got.stdout == b""
    said = got.stderr.decode().splitlines()
    assert len(said) == 1, "nothing is left in the folder"
    assert "No space left on device" in said[0]
    assert str(target / "got") in said[0]


def test_a_tree_is_got_into_a_mount_point(tmp_path: Path, small_disk: Path) -> None:
    """An empty folder with a disk of its own, as a volume of a container, is filled."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(bytes(100_000))
    with NodeProcess(tmp_path / "node") as node:
        home = ["--home", str(node.home)]
        put = subprocess.run(
            [*XORBIT, "put", str(tree), *home], capture_output=True, check=True, timeout=WITHIN_S
        )
        name = put.stdout.decode().strip()
        words = [*XORBIT, "get", name, "-o", str(small_disk), *home, "--network", NETWORK]
        run = [*on_small_disk(small_disk), "sh", "-c", '"$@"; ls -A "$DISK"', "sh", *words]
        environment = os.environ | {"DISK": str(small_disk)}
        got = subprocess.run(
            run, capture_output=True, check=True, timeout=WITHIN_S, env=environment
        )
    assert got.stdout == b"file\n", got.stderr
