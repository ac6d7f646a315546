"""Trees and CARs held against the JavaScript world: its readers read ours, we read its writers'.

The packages come by npm into a folder beside other temporary ones, once for each lock file, exactly
as it says. Without Node.js, or where npm cannot fetch them, there is nothing to compare with.
"""

import base64
import json
import os
import random
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.unit.files.trees import Shelf
from xorbit.files.car import CarReader
from xorbit.files.cid import parse_cid
from xorbit.files.local_tree import build_source, cid_of
from xorbit.files.tree import drive, finish, open_block, read_file, walk
from xorbit.items import Kind

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("javascript")]

SCRIPTS = Path(__file__).parent / "js"
INSTALL_S_MAX = 300
RUN_S_MAX = 240


@pytest.fixture(scope="module")
def packages() -> Path:
    """Return the folder with the scripts and the packages that they need."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm here")
    lock = (SCRIPTS / "package-lock.json").read_bytes()
    name = f"xorbit-test-js-{os.getuid()}-{sha256(lock).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if not folder.exists():
        install(folder)
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


def install(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SCRIPTS / name, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(
                command, cwd=made, check=True, capture_output=True, timeout=INSTALL_S_MAX
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm cannot fetch the packages: {(error.stderr or b'')[-300:]!r}")
        whole = folder.with_suffix(f".{os.getpid()}")
        shutil.copytree(made, whole, symlinks=True)
        try:
            whole.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(whole)


def node(packages: Path, script: str, *arguments: str, given: str = "") -> Any:
    ran = subprocess.run(
        ["node", script, *arguments],
        cwd=packages,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S_MAX,
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    return json.loads(ran.stdout)


def files_of(seed: int, large: int) -> dict[str, bytes]:
    """Return files of every size, in folders, one of them with many, under names of every kind."""
    rng = random.Random(seed)
    sizes = (0, 1, 65_535, 65_536, 65_537, 200_000, 1_000_000)
    files = {f"sizes/{size}": rng.randbytes(size) for size in sizes}
    for number in range(large):
        name = rng.choice(["", "ä", "日本", "\U0001f600", "x" * 100]) + str(number)
        files[f"large/{name}"] = b"%d" % number
    for number in range(20):
        files[f"{rng.choice('abc')}/{rng.choice('de')}/{number}"] = rng.randbytes(number)
    return files


def lay_out(files: dict[str, bytes], top: Path) -> Path:
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return top


def write_our_car(top: Path, car: Path, kind: Kind) -> tuple[str, int]:
    shelf = Shelf()
    root = shelf.take(build_source(top, kind))
    car.write_bytes(shelf.car(root).getvalue())
    return str(root), len(shelf.held)


@pytest.mark.parametrize("kind", [Kind.BLOCK_SHA2_256, Kind.BLOCK_BLAKE3_256])
@pytest.mark.parametrize("large", [10, 700, 6_000])
def test_javascript_reads_our_cars(packages: Path, tmp_path: Path, large: int, kind: Kind) -> None:
    """Every file of a tree comes out of our CAR, read by JavaScript, with the same bytes."""
    files = files_of(1, large)
    top = lay_out(files, tmp_path / "top")
    (top / "link").symlink_to("sizes/1")
    (top / "empty").mkdir()
    root, blocks = write_our_car(top, tmp_path / "x.car", kind)
    told = node(packages, "read_car.mjs", str(tmp_path / "x.car"))
    assert (told["root"], told["blocks"]) == (root, blocks)
    read = {path: entry["bytes"] for path, entry in told["entries"].items() if entry["bytes"]}
    assert read == {name: sha256(content).hexdigest() for name, content in files.items()}
    types = {path: entry["type"] for path, entry in told["entries"].items()}
    assert types["link"] == "symlink"
    assert types["empty"] == types[""] == "directory"
    assert types["large"] == ("directory" if large == 10 else "hamt-sharded-directory")


@pytest.mark.parametrize("size", [0, 5, 65_537, 70_000_000])
def test_javascript_reads_a_file(packages: Path, tmp_path: Path, size: int) -> None:
    """A CAR of one file, of one leaf or of many levels, comes out with the same bytes."""
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    write_our_car(tmp_path / "file", tmp_path / "x.car", Kind.BLOCK_SHA2_256)
    told = node(packages, "read_car.mjs", str(tmp_path / "x.car"))
    assert told["entries"][""]["bytes"] == sha256(content).hexdigest()


@pytest.mark.parametrize(("seed", "large"), [(2, 10), (3, 700), (4, 6_000)])
def test_we_read_javascripts_cars(packages: Path, tmp_path: Path, seed: int, large: int) -> None:
    """A tree that JavaScript names has our name too, and its CAR gives us every file."""
    files = files_of(seed, large)
    given = {
        "car": str(tmp_path / "x.car"),
        "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }
    told = node(packages, "write_car.mjs", given=json.dumps(given))
    root = parse_cid(told["root"])
    with (tmp_path / "x.car").open("rb") as file:
        reader = CarReader(file)
        assert reader.roots == (root,)
        held = dict(reader)
    assert len(held) == told["blocks"]

    read: dict[str, bytes] = {}
    get = held.__getitem__
    for entry in drive(walk(finish(open_block(root), get)), get):
        if not entry.found.is_directory:
            read["/".join(entry.path)] = b"".join(drive(read_file(entry.found), get))
    assert read == files
    assert cid_of(lay_out(files, tmp_path / "top"), Kind.BLOCK_SHA2_256) == root
