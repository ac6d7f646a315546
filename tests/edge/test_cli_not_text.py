"""What was typed need be no text: each command says what it makes of it, and ends as documented.

A name of a disk is bytes, and so is whatever else a shell gives. Those that are no UTF-8 arrive as
lone surrogates, which neither a message nor a file can hold.
"""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NodeProcess, xorbit_process
from tests.edge.conftest import Command
from xorbit.api import connect
from xorbit.errors import MisuseError
from xorbit.files.local_tree import cid_of

BYTES = "\udcff"
LEAF = str(cid_of(b"content"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Generator[NodeProcess, None, None]:
    """A node alone, on a home whose path is no text."""
    with NodeProcess(tmp_path_factory.mktemp("node") / f"home{BYTES}") as node:
        assert xorbit_process("key", "new", "me", "--home", node.home).returncode == 0
        yield node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which stand a file, a folder and a link whose names are no text."""
    monkeypatch.chdir(tmp_path)
    for path in (
        tmp_path / f"file{BYTES}",
        tmp_path / f"dir{BYTES}" / "a",
        tmp_path / "in" / BYTES,
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"content")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link").symlink_to(BYTES)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (0, "put file@"),
        (0, "put dir@ --trace"),
        (0, "put dir@ --encrypt --json"),
        (2, "put none@"),
        (2, "put in"),
        (2, "put links"),
        (2, "put file@ --network @"),
        (2, "put file@ --network-secret @"),
        (2, "put file@ --hash @"),
        (2, "get @"),
        (2, "get LEAF#@ -o out"),
        (2, "get LEAF --salt @"),
        (2, "get LEAF --range @"),
        (2, "get LEAF -o none@/out"),
        (3, "get LEAF/@"),
        (3, "get me --salt @ -o out@"),
        (2, "cat @"),
        (3, "cat LEAF/@"),
        (2, "ls @"),
        (3, "ls LEAF/@ --json"),
        (2, "stat @"),
        (3, "stat me/@ --salt @"),
        (2, "export @ -o out@"),
        (2, "import file@"),
        (2, "import none@"),
        (2, "pin @"),
        (2, "pin LEAF --salt @"),
        (3, "pin me --salt @"),
        (2, "unpin @"),
        (2, "unpin LEAF --salt @"),
        (3, "unpin me --salt @"),
        (2, "publish @ value"),
        (2, "publish me --file none@"),
        (2, "publish me --tree in"),
        (2, "publish me value --cas @"),
        (2, "resolve @"),
        (3, "resolve me --salt @ --json"),
        (2, "follow @"),
        (2, "mirror @ folder"),
        (2, "mirror me none@/folder --once"),
        (2, "whereis @"),
        (2, "lookup @"),
        (2, "ping @"),
        (2, "ping @:1"),
        (2, "trace @"),
        (2, "key new @"),
        (2, "key show @"),
        (2, "network create @"),
        (2, "network admit @"),
        (2, "@"),
        (2, "put --@"),
        (4, "status --home none@"),
        (2, "pins --home none@"),
    ],
)
def test_what_is_no_text_ends_no_command_in_an_error_of_xorbit(
    xorbit: Command, node: NodeProcess, folder: Path, code: int, line: str
) -> None:
    """With a node, so that what goes to it passes its socket."""
    words = [word.replace("@", BYTES).replace("LEAF", LEAF) for word in line.split()]
    ran = xorbit(*words, *(() if "--home" in words else ("--home", node.home)))
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    if code:
        assert ran.out == b""
        assert ran.err.splitlines()[-1].startswith("xorbit: ")


def test_a_path_that_is_no_text_is_a_fact_as_any_other(node: NodeProcess, folder: Path) -> None:
    """JSON has an escape for it, by which the path is found again."""
    home = ("--home", node.home)
    xorbit_process("put", f"file{BYTES}", *home)
    done = xorbit_process("get", LEAF, "-o", f"out{BYTES}", "--json", *home)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout.decode())["path"]).read_bytes() == b"content"
    assert node.ready["home"] == str(node.home)


async def test_a_line_of_the_console_reaches_the_node_as_text(node: NodeProcess) -> None:
    client = await connect(node.home)
    try:
        with pytest.raises(MisuseError, match=r"unknown command 'none\?'"):
            [answer async for answer in client.console(f"none{BYTES}")]
    finally:
        await client.close()
