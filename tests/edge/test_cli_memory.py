"""A file of 200 MB through three nodes: the same bytes, and little memory in every process."""

import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NodeProcess, peak_bytes

SIZE = 200 * 2**20
MEMORY_BYTES_MAX = 150 * 2**20
TRANSFER_WITHIN_S = 100


@pytest.fixture
def directory(tmp_path: Path) -> Generator[Path, None, None]:
    """A directory that is emptied at once: pytest keeps those of several runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


# Not getrusage: its figure counts what this process had before the command took its place.
PROGRAM = """
import sys
from xorbit.cli.main import execute

code = execute(sys.argv[1:])
print(open("/proc/self/status").read(), file=sys.stderr)
sys.exit(code)
"""


def command(*words: object) -> tuple[str, int]:
    """Run a command; return what it said and the most memory that it had."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        timeout=TRANSFER_WITHIN_S,
        check=True,
        text=True,
    )
    return ran.stdout.strip(), peak_bytes(ran.stderr)


@pytest.mark.timeout(300)
def test_a_large_file_needs_little_memory(directory: Path) -> None:
    """200 MB go in at one node and out at another, and no process ever holds 150 MB."""
    file, out = directory / "file", directory / "out"
    with file.open("wb") as target:
        for _ in range(SIZE // 2**20):
            target.write(os.urandom(2**20))
    with (
        NodeProcess(directory / "a") as a,
        NodeProcess(directory / "b", bootstrap=a.address) as b,
        NodeProcess(directory / "c", bootstrap=a.address) as c,
    ):
        name, putting = command("put", file, "--home", a.home)
        _, getting = command("get", name, "--home", c.home, "-o", out)
        peaks = {"put": putting, "get": getting}
        peaks |= {node.home.name: node.peak_bytes() for node in (a, b, c)}
    assert filecmp.cmp(file, out, shallow=False)
    assert max(peaks.values()) < MEMORY_BYTES_MAX, peaks
