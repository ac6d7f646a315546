"""Paths and files as a program gives them: to a node, by its socket, and blocking."""

import io
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import xorbit
from xorbit.api import Node, connect
from xorbit.blocking import open_node
from xorbit.errors import MisuseError
from xorbit.run.calls import Calls

LOOPBACK = "127.0.0.1:0"
NETWORK = "paths"


@asynccontextmanager
async def own_node(home: Path) -> AsyncGenerator[Calls]:
    async with Node(str(home), listen=LOOPBACK, network=NETWORK) as node:
        yield node


@asynccontextmanager
async def by_its_socket(home: Path) -> AsyncGenerator[Calls]:
    async with own_node(home):
        client = await connect(str(home))
        yield client
        await client.close()


@pytest.mark.parametrize("opened", [own_node, by_its_socket])
async def test_paths_are_text_as_well(opened: Callable[[Path], Any], tmp_path: Path) -> None:
    """Wherever a path is taken, text is, and a file that is open where one is read or written."""
    tree, out = tmp_path / "d1", tmp_path / "out"
    tree.mkdir()
    (tree / "a.txt").write_bytes(b"abc")
    key = xorbit.new_key(str(tmp_path / "home"), "k")
    assert xorbit.load_key(str(tmp_path / "home"), "k").public_key == key.public_key
    async with opened(tmp_path / "home") as calls:
        put = await calls.put_tree(str(tree))
        assert put.cid == xorbit.cid_of(str(tree)) == xorbit.cid_of(tree)
        assert (await calls.publish_tree(key, str(tree))).put.cid == put.cid
        assert (await calls.put_file(str(tree / "a.txt"))).cid == xorbit.cid_of(io.BytesIO(b"abc"))
        name = f"{put.cid}/a.txt"
        await calls.get_tree(put.cid, str(out))
        assert (out / "a.txt").read_bytes() == b"abc"
        await calls.get_file_to(name, str(tmp_path / "b.txt"))
        with (tmp_path / "c.txt").open("wb") as file:
            assert await calls.get_file_to(name, file) == 3
        assert (tmp_path / "b.txt").read_bytes() == (tmp_path / "c.txt").read_bytes() == b"abc"
        await calls.export_car(put.cid, str(tmp_path / "x.car"))
        with (tmp_path / "y.car").open("wb") as file:
            await calls.export_car(put.cid, file)
        assert (await calls.import_car(str(tmp_path / "x.car"))).roots == (put.cid,)
        with (tmp_path / "y.car").open("rb") as file:
            assert (await calls.import_car(file)).roots == (put.cid,)
        await calls.mirror_once(key.public_key.hex(), str(tmp_path / "mirrored"))
        assert (tmp_path / "mirrored" / "a.txt").read_bytes() == b"abc"


def test_the_blocking_twin_takes_the_same(tmp_path: Path) -> None:
    """Text for paths and open files; what is neither says what was expected."""
    (tmp_path / "a.txt").write_bytes(b"abc")
    with open_node(str(tmp_path / "home"), listen=LOOPBACK, network=NETWORK) as node:
        name = node.put_file(str(tmp_path / "a.txt")).cid
        node.get_file_to(name, str(tmp_path / "b.txt"))
        buffer = io.BytesIO()
        assert node.get_file_to(name, buffer) == 3
        assert (tmp_path / "b.txt").read_bytes() == buffer.getvalue() == b"abc"
        wrong: Any = io.StringIO("abc")
        for call in (node.put_file, node.import_car):
            with pytest.raises(MisuseError, match="a file open for reading bytes"):
                call(wrong)
        for sink in (node.get_file_to, node.export_car):
            with pytest.raises(MisuseError, match="a file open for writing bytes"):
                sink(name, wrong)
        for path in (node.put_tree, lambda given: node.get_tree(name, given)):
            with pytest.raises(MisuseError, match="expected a path"):
                path(wrong)


def test_a_file_that_is_open_for_reading_is_not_written_to(tmp_path: Path) -> None:
    """It says so as files do."""
    with (
        open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node,
        node.open(node.put_file(b"abc").cid) as file,
    ):
        assert not file.writable()
        with pytest.raises(io.UnsupportedOperation, match="reading only"):
            file.write(b"x")
        assert file.read(0) == b""
        assert node.put_file(file).cid == xorbit.cid_of(b"abc")
