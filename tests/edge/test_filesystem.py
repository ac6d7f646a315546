"""Programs that read from real nodes by `xorbit://`: pandas, pyarrow, and processes that share."""

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, NodeProcess
from tests.edge.worker import read_there
from xorbit.files.unixfs import CHUNK_BYTES
from xorbit.filesystem import XorbitFileSystem
from xorbit.filesystem.blocks import SharedCalls
from xorbit.items import ItemKey
from xorbit.run.control_wire import CONTROL_FILE

ROWS = 200_000
GROUP_ROWS = 50_000
FOOTER_BYTES = 2 * CHUNK_BYTES
"""What pyarrow reads of the end of a file at first, 64 KiB, may be in two blocks."""


def table() -> pa.Table:
    """Three columns of bytes by chance, which no compression makes smaller."""
    rng = Random(9)
    columns = {name: [rng.getrandbits(63) for _ in range(ROWS)] for name in "abc"}
    return pa.table(columns)


@pytest.fixture(scope="module")
def top(nodes: list[NodeProcess], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of data, put at the first of three nodes."""
    folder = tmp_path_factory.mktemp("data")
    numbers = table()
    pq.write_table(
        numbers,
        folder / "part.parquet",
        row_group_size=GROUP_ROWS,
        compression="none",
        use_dictionary=False,
    )
    numbers.slice(0, 60_000).to_pandas().to_csv(folder / "table.csv", index=False)
    (folder / "set" / "deep").mkdir(parents=True)
    for at in range(3):
        name = folder / "set" / ("deep" if at == 2 else "") / f"{at}.parquet"
        pq.write_table(numbers.slice(at * 1_000, 1_000), name)
    command = [*XORBIT, "put", str(folder), "--home", str(nodes[0].home)]
    done = subprocess.run(command, capture_output=True, timeout=WITHIN_S, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def options(nodes: list[NodeProcess], tmp_path: Path) -> dict[str, Any]:
    """A home of its own, where no node runs: it has none of the blocks."""
    return {"home": str(tmp_path / "home"), "bootstrap": nodes[0].address, "network": NETWORK}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ItemKey]:
    """The blocks that are asked of the node, each time they are."""
    keys: list[ItemKey] = []
    fetch = SharedCalls._fetch

    async def counted(self: SharedCalls, key: ItemKey) -> bytes:
        keys.append(key)
        return await fetch(self, key)

    monkeypatch.setattr(SharedCalls, "_fetch", counted)
    return keys


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None, None, None]:
    """Leave no file system behind that holds a node."""
    yield
    XorbitFileSystem.clear_instance_cache()


def blocks_of(ranges: list[tuple[int, int]]) -> set[int]:
    """The leaves in which ranges of a file are, by their number."""
    return {
        leaf
        for start, end in ranges
        for leaf in range(start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1)
    }


# --- pandas and pyarrow -------------------------------------------------------------------------


def test_pandas_fetches_only_the_columns_that_it_reads(
    top: str, options: dict[str, Any], asked: list[ItemKey]
) -> None:
    """The footer's blocks, those of the column in each row group, and the nodes on the way."""
    path = f"xorbit://{top}/part.parquet"
    read = pd.read_parquet(path, columns=["b"], storage_options=options)
    assert read["b"].tolist() == table()["b"].to_pylist()
    fetched = len(asked)
    fs = fsspec.filesystem("xorbit", **options)
    with fs.open(path) as file:
        said, size = pq.read_metadata(file), file.size
    assert said.num_row_groups == ROWS // GROUP_ROWS
    columns = [said.row_group(at).column(1) for at in range(said.num_row_groups)]
    ranges = [
        (column.data_page_offset, column.data_page_offset + column.total_compressed_size)
        for column in columns
    ]
    assert {column.path_in_schema for column in columns} == {"b"}
    needed = blocks_of([*ranges, (size - FOOTER_BYTES // 2, size)])
    nodes_on_the_way = 2  # the directory, and the root of the file
    assert fetched <= len(needed) + nodes_on_the_way < 0.5 * size / CHUNK_BYTES
    assert len(set(asked)) == len(asked)


def test_pandas_reads_a_csv_and_the_beginning_of_one(
    top: str, options: dict[str, Any], asked: list[ItemKey]
) -> None:
    path = f"xorbit://{top}/table.csv"
    few = pd.read_csv(path, nrows=3, storage_options=options)
    assert few.equals(table().slice(0, 3).to_pandas())
    size = fsspec.filesystem("xorbit", **options).size(path)
    assert len(asked) < 0.5 * size / CHUNK_BYTES
    whole = pd.read_csv(path, storage_options=options)
    assert whole.equals(table().slice(0, 60_000).to_pandas())
    assert len(asked) == len(set(asked)) <= size / CHUNK_BYTES + 3


def test_pyarrow_reads_a_directory_as_one_dataset(top: str, options: dict[str, Any]) -> None:
    fs = fsspec.filesystem("xorbit", **options)
    data = pyarrow.dataset.dataset(f"{top}/set", filesystem=fs)
    assert data.files == [f"{top}/set/{name}" for name in ("0.parquet", "1.parquet")] + [
        f"{top}/set/deep/2.parquet"
    ]
    assert data.to_table().sort_by("a") == table().slice(0, 3_000).sort_by("a")
    frame = pd.read_parquet(f"xorbit://{top}/set", storage_options=options)
    assert len(frame) == 3_000


def test_paths_are_found_as_in_any_file_system(top: str, options: dict[str, Any]) -> None:
    fs, path = fsspec.url_to_fs(f"xorbit://{top}", **options)
    assert fs.glob(f"{path}/**/*.parquet") == [
        f"{top}/part.parquet",
        f"{top}/set/0.parquet",
        f"{top}/set/1.parquet",
        f"{top}/set/deep/2.parquet",
    ]
    files = fsspec.open_files(f"xorbit://{top}/set/*.parquet", **options)
    assert [file.path for file in files] == [f"{top}/set/0.parquet", f"{top}/set/1.parquet"]
    assert [folder for folder, _, _ in fs.walk(path)] == [path, f"{path}/set", f"{path}/set/deep"]
    with fsspec.open(f"xorbit://{top}/table.csv", "rt", **options) as text:
        assert text.readline() == "a,b,c\n"


# --- Nodes and processes ------------------------------------------------------------------------

# Python 3.12 and later warn of every fork of a process with threads, and this is about such forks.
forking = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_the_node_that_runs_on_the_home_is_used(top: str, nodes: list[NodeProcess]) -> None:
    fs = fsspec.filesystem("xorbit", home=nodes[1].home)
    assert fs.isdir(top)
    with pytest.raises(OSError, match="this home belongs to the open network 'cli tests'"):
        fsspec.filesystem("xorbit", home=nodes[1].home, network="another").info(top)


@forking
def test_processes_share_the_node_of_one(top: str, options: dict[str, Any]) -> None:
    """A worker gets the options alone; where the first holds the home it asks the first."""
    fs = fsspec.filesystem("xorbit", **options)
    size = fs.size(f"{top}/table.csv")
    assert (Path(options["home"]) / CONTROL_FILE).exists()
    data = pickle.dumps(fs)
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            jobs = [(data, f"{top}/table.csv", at) for at in (0, 1, 100_000)]
            assert pool.starmap(read_there, jobs) == [
                fs.cat_file(f"{top}/table.csv", at, at + 10) for at in (0, 1, 100_000)
            ]
    assert fs.info(f"{top}/table.csv")["size"] == size


@forking
def test_what_was_open_before_a_fork_reads_on_after_it(top: str, options: dict[str, Any]) -> None:
    fs = fsspec.filesystem("xorbit", **options)
    with fs.open(f"{top}/table.csv") as file:
        first = file.read(10)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)

        def child() -> None:
            file.seek(0)
            theirs.send((file.read(10), fs.size(f"{top}/part.parquet")))

        process = context.Process(target=child)
        process.start()
        assert ours.poll(WITHIN_S)
        assert ours.recv() == (first, fs.size(f"{top}/part.parquet"))
        process.join(WITHIN_S)
        assert process.exitcode == 0
        file.seek(0)
        assert file.read(10) == first


ENDS = """
import sys, fsspec
fs = fsspec.filesystem("xorbit", home=sys.argv[1], bootstrap=sys.argv[2], network=sys.argv[3])
file = fs.open(sys.argv[4] + "/table.csv")
print(file.read(5))
"""


def test_an_interpreter_that_ends_leaves_the_home_in_order(
    top: str, options: dict[str, Any]
) -> None:
    """Without a word on stderr; also with files open, and with the store as a clean stop has it."""
    home = Path(options["home"])
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", ENDS]
    words += [str(home), options["bootstrap"], NETWORK, top]
    done = subprocess.run(words, capture_output=True, timeout=WITHIN_S, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"b'a,b,c'"), done.stderr
    assert done.stderr == b""
    assert not (home / CONTROL_FILE).exists()
    assert (home / "store" / "store.lock").read_text() not in ("", "in use")


def test_a_node_that_restarts_is_found_again(
    top: str, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """A notebook outlives its node; without one, it is the node."""
    address = nodes[0].address
    with NodeProcess(tmp_path / "home", bootstrap=address) as node:
        fs = fsspec.filesystem("xorbit", home=node.home, bootstrap=address, network=NETWORK)
        assert fs.cat_file(f"{top}/table.csv", 0, 5) == b"a,b,c"
    assert fs.cat_file(f"{top}/part.parquet", 0, 4) == b"PAR1"
    assert (tmp_path / "home" / CONTROL_FILE).exists()
