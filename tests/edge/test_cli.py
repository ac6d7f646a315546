"""The command line against real nodes: files from one to another, facts, errors, exit codes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, NodeProcess, in_terminal, xorbit_process
from tests.edge.conftest import Command
from xorbit.cli.picture import paint
from xorbit.run.control_wire import CONTROL_FILE

NOBODY = "bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(65_536), os.urandom(65_537), os.urandom(3_000_000), paint()],
    ids=["nothing", "1 byte", "65,536 bytes", "65,537 bytes", "3 MB", "a picture"],
)
def test_what_is_put_at_one_is_had_at_another(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path, data: bytes
) -> None:
    """A file of any size goes in at one node and comes out at another, to a path and to stdout."""
    file, out = tmp_path / "file", tmp_path / "out"
    file.write_bytes(data)
    put = xorbit("put", file, "--home", nodes[0].home)
    assert put.code == 0
    name = put.out.decode().removesuffix("\n")
    assert (len(name), name[0]) == (59, "b")
    assert xorbit("get", name, "--home", nodes[1].home, "-o", out).out == b""
    assert out.read_bytes() == data
    got = xorbit("get", name, "--home", nodes[2].home)
    assert (got.code, got.out, got.err) == (0, data, "")


def test_put_and_get_tell_their_facts_as_json(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Names, sizes and holders as one JSON object on stdout, nothing on stderr."""
    file, out = tmp_path / "file", tmp_path / "out"
    file.write_bytes(bytes(100_000))
    put = xorbit("put", file, "--home", nodes[0].home, "--json")
    facts = put.json
    known = {"cid", "bytes", "blocks", "holders", "holders_min", "others_min"}
    assert set(facts) == known | {"held_before", "unasked", "not_kept"}
    assert (facts["bytes"], facts["blocks"], facts["unasked"]) == (100_000, 3, 1)
    assert (facts["holders_min"], facts["others_min"]) == (3, 2)
    assert set(facts["holders"]) == {node.id for node in nodes}
    assert put.err == ""
    get = xorbit("get", facts["cid"], "-o", out, "--home", nodes[1].home, "--json")
    assert get.json == {"cid": facts["cid"], "bytes": 100_000, "path": str(out)}


def test_a_put_says_how_much_was_there_already(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Whoever puts again, or goes on with a put that was interrupted, sees what is not sent."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(100_000))
    first = xorbit("put", file, "--home", nodes[0].home)
    assert "already" not in first.err
    for node in nodes[:2]:
        said = xorbit("put", file, "--home", node.home).err
        assert "in 3 blocks, each held by 2 other nodes or more (2 were there already; " in said
        assert "; 1 of less than 1 KiB not asked about)" in said
    again = xorbit("put", file, "--home", nodes[2].home, "--json")
    assert again.json["held_before"] == 2  # not the root, which is sent as quickly as asked for


def test_cid_gives_the_name_that_put_gives(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """`cid` and `put` agree, in either hash."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(200_000))
    for hash in ("blake3-256", "sha2-256"):
        put = xorbit("put", file, "--hash", hash, "--home", nodes[0].home)
        assert xorbit("cid", file, "--hash", hash).out == put.out
        assert xorbit("get", put.out.decode().strip(), "--home", nodes[1].home).out == (
            file.read_bytes()
        )


def test_a_home_is_not_put(xorbit: Command, nodes: list[NodeProcess], tmp_path: Path) -> None:
    """A folder with a home in it is refused before anything of it leaves; the home is named."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(os.urandom(1000))
    home = ("--home", nodes[0].home)
    name = xorbit("cid", tree / "a").out.decode().strip()
    assert xorbit("key", "new", "me", "--home", tree / "home").code == 0
    assert xorbit("key", "new", "me", *home).code == 0
    for words in (
        ("put", tree),
        ("put", tree, "--encrypt"),
        ("put", tree / "home" / "keys"),
        ("put", tree / "home" / "keys" / "me.pem"),
        ("put", nodes[1].home),
        ("publish", "me", "--tree", tree),
    ):
        done = xorbit(*words, *home)
        where = nodes[1].home if nodes[1].home in words else tree / "home"
        assert (done.code, f"{where} is a home of xorbit" in done.err) == (2, True)
    assert xorbit("get", name, "--home", nodes[1].home).code == 3


def test_standard_input_and_output_are_files_too(nodes: list[NodeProcess]) -> None:
    """`put -` reads standard input to its end; `get` and `get -o -` give the same bytes back."""
    data = os.urandom(200_000)
    put = xorbit_process("put", "-", "--home", nodes[0].home, given=data)
    assert put.returncode == 0, put.stderr
    name = put.stdout.decode().strip()
    assert xorbit_process("cid", "-", given=data).stdout.decode().strip() == name
    for more in ((), ("-o", "-")):
        get = xorbit_process("get", name, "--home", nodes[1].home, *more)
        assert (get.returncode, get.stdout, get.stderr) == (0, data, b"")


@pytest.mark.parametrize("words", [("put",), ("cid",), ("import",), ("publish", "me", "--file")])
def test_standard_input_that_is_closed_is_no_empty_file(
    xorbit: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """It is refused as wrong usage, and leaves no trace in the home."""
    home = tmp_path / "home"
    xorbit("key", "new", "me", "--home", home)
    before = sorted(home.iterdir())
    command = f"exec {shlex.join((*XORBIT, *words, '-', '--home', str(home)))} <&-"
    ran = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, timeout=WITHIN_S, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr == b"xorbit: standard input is closed: there is nothing to read\n"
    assert sorted(home.iterdir()) == before


def test_a_source_that_waits_is_told_of(xorbit: Command, tmp_path: Path) -> None:
    """A terminal and a named pipe: who looks at a command that does nothing sees why."""
    code, shown = in_terminal("cid", "-", typed=b"typed\n\x04")
    name = xorbit("cid", _file(tmp_path, b"typed\n")).text.strip()
    assert (code, shown.split()[-1].decode()) == (0, name)
    assert b"reading what you type; Ctrl-D at the beginning of a line ends it" in shown
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = f"printf 'typed\\n' > {pipe} & exec {shlex.join((*XORBIT, 'cid', str(pipe)))}"
    ran = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, timeout=WITHIN_S, check=False
    )
    assert (ran.returncode, ran.stdout.decode().strip()) == (0, name)
    assert ran.stderr.decode() == f"reading the pipe {pipe} until its writer closes it\n"


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("to", [">&-", "> /dev/full"])
def test_what_could_not_be_delivered_is_no_success(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path, to: str
) -> None:
    """With standard output closed, or its disk full, commands say so and end with 1."""
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    name = xorbit("put", file, "--home", nodes[0].home).out.decode().strip()
    for words in (("get", name), ("status",), ("--help",)):
        home = () if words == ("--help",) else ("--home", str(nodes[1].home))
        command = f"exec {shlex.join((*XORBIT, *words, *home))} {to}"
        ran = subprocess.run(
            ["/bin/sh", "-c", command], stderr=subprocess.PIPE, timeout=WITHIN_S, check=False
        )
        assert ran.returncode == 1
        assert ran.stderr.startswith(b"xorbit: ")
        assert ran.stderr.count(b"\n") == 1


def test_what_only_this_node_holds_is_said(xorbit: Command, tmp_path: Path) -> None:
    """A put that nobody else took does not look like one that others hold."""
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    with NodeProcess(tmp_path / "alone", network="nobody else's") as alone:
        assert "held by this node only" in xorbit("put", file, "--home", alone.home).err


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """A get that fails leaves what was at the path, and nothing beside it."""
    out = tmp_path / "out"
    out.write_bytes(b"before")
    ran = xorbit("get", NOBODY, "-o", out, "--home", nodes[0].home)
    ran.failed(3, "nobody has it: 2 nodes asked")
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("get", NOBODY), 3, "nobody has it"),
        (("get", NOBODY, "-o", "/tmp"), 2, "is a folder"),
        (("get", NOBODY, "-o", ""), 2, "got nothing"),
        (("get", f" {NOBODY}\n"), 3, f"cannot get {NOBODY}: nobody has it"),
        (("get", NOBODY, "-o", "/nonexistent/x"), 2, "make it first"),
        (("get", "Qm" + "x" * 44), 2, "CIDv0"),
        (("put", "/nonexistent"), 2, "there is none at"),
        (("put", "/dev"), 2, "/dev/"),
        (("put", __file__, "--network", "another"), 2, "belongs to the open network"),
        (("ping", "00" * 32), 4, "cannot reach " + "00" * 32),
        (("ping", "127.0.0.1:1"), 4, "127.0.0.1:1: "),
        (("ping", "xyz"), 2, "no connected peer's id and no contact's begins with 'xyz'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    xorbit: Command, nodes: list[NodeProcess], words: tuple[str, ...], code: int, says: str
) -> None:
    """Each failure has its exit code and one line, and never a byte on stdout."""
    xorbit(*words, "--home", nodes[0].home).failed(code, says)


# --- Without a running node -----------------------------------------------------------------------


def test_a_command_joins_by_itself_and_remembers(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """With no node on the home a command joins, does its job and leaves; then it knows the way."""
    file, home = tmp_path / "file", tmp_path / "home"
    file.write_bytes(b"hello")
    here = ("--home", home, "--network", NETWORK)
    first = xorbit("put", file, *here, "--bootstrap", nodes[0].address, "--json")
    assert set(first.json["holders"]) == {node.id for node in nodes}
    again = xorbit("get", first.json["cid"], *here)
    assert (again.code, again.out, again.err) == (0, b"hello", "")
    assert not (home / CONTROL_FILE).exists()
    assert xorbit("ping", nodes[1].id, *here).code == 0


def test_a_command_that_finds_no_way_in_says_what_it_tried(xorbit: Command, tmp_path: Path) -> None:
    """Without addresses it says how to give one; with a dead one, what happened there."""
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    here = ("--home", tmp_path / "home", "--network", NETWORK)
    xorbit("put", file, *here).failed(4, "--bootstrap HOST:PORT")
    xorbit("put", file, *here, "--bootstrap", "127.0.0.1:1").failed(4, "127.0.0.1:1: ")


@pytest.mark.parametrize("command", ["status", "peers"])
def test_what_only_a_running_node_knows_needs_one(
    xorbit: Command, tmp_path: Path, command: str
) -> None:
    """`status` and `peers` of a home without a node say how to start one."""
    xorbit(command, "--home", tmp_path).failed(4, "start one with 'xorbit node'")


def test_a_network_with_a_secret(xorbit: Command, tmp_path: Path) -> None:
    """Who has the file with the secret gets in; who has not, does not."""
    secret, file = tmp_path / "secret", tmp_path / "file"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    file.write_bytes(b"hello")
    with NodeProcess(tmp_path / "a", "--network-secret", str(secret)) as node:
        way = ("--network", NETWORK, "--bootstrap", node.address)
        member = ("--home", tmp_path / "b", *way, "--network-secret", secret)
        assert xorbit("put", file, *member).code == 0
        xorbit("put", file, "--home", tmp_path / "c", *way).failed(4, node.address)


# --- Facts about nodes ----------------------------------------------------------------------------


def test_status_tells_who_and_how_the_node_is(xorbit: Command, nodes: list[NodeProcess]) -> None:
    """As JSON with every field that scripts rely on, and as text for people."""
    facts = xorbit("status", "--home", nodes[0].home, "--json").json
    assert facts["id"] == nodes[0].id
    assert facts["network"] == NETWORK
    assert facts["addresses"] == facts["listening"] == [nodes[0].address]
    assert facts["health"] == "ok"
    assert (facts["contacts"], facts["connections"]) == (2, 2)
    assert facts["quota_bytes"] == 10 * 2**30
    assert {"items", "bytes", "timeout_rate", "requests_served"} <= set(facts)
    text = xorbit("status", "--home", nodes[0].home)
    assert (text.code, text.err) == (0, "")
    assert nodes[0].id in text.out.decode()
    assert "health" in text.out.decode()


def test_peers_lists_the_connections(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Each connected node with its full id and address; nothing but talk where there is none."""
    facts = xorbit("peers", "--home", nodes[1].home, "--json").json
    assert [peer["id"] for peer in facts] == sorted([nodes[0].id, nodes[2].id])
    assert {"address", "dialled", "round_trip_s", "open_s"} <= set(facts[0])
    rows = xorbit("peers", "--home", nodes[1].home).out.decode().splitlines()
    assert [row.split()[0] for row in rows] == ["ID", *sorted([nodes[0].id, nodes[2].id])]
    code, shown = in_terminal("peers", "--home", nodes[1].home)  # too narrow for whole ids
    begins = [row.split()[0] for row in shown.decode().splitlines()]
    assert (code, begins[0]) == (0, "ID")
    assert [len(begin) for begin in begins[1:]] == [8, 8]
    assert xorbit("ping", begins[1], "--home", nodes[1].home).code == 0
    with NodeProcess(tmp_path / "alone", network="nobody else's") as alone:
        ran = xorbit("peers", "--home", alone.home)
        assert (ran.code, ran.out, ran.err) == (0, b"", "no peers\n")
        assert xorbit("peers", "--home", alone.home, "--json").json == []
        assert xorbit("status", "--home", alone.home, "--json").json["health"] == "alone"


def test_ping_by_id_by_its_beginning_and_by_address(
    xorbit: Command, nodes: list[NodeProcess]
) -> None:
    """A peer is named in full, by as much of its id as only it has, or by where it listens."""
    a, b, c = nodes
    shortest = next(end for end in range(1, 64) if b.id[:end] != c.id[:end])
    for target in (b.id, b.id[:shortest], b.address):
        facts = xorbit("ping", target, "--home", a.home, "--json").json
        assert facts["id"] == b.id
        assert facts["addresses"] == [b.address]
        assert facts["round_trip_s"] >= 0
    assert xorbit("ping", b.id, "--home", a.home).out.decode().startswith(f"{b.id}  ")
    xorbit("ping", "", "--home", a.home).failed(2, "2 known ids begin with ''")


LEAVING_UNDER_A_BAR = """
import sys
from xorbit.cli.output import ExitCode, leave, progress
with progress("put"):
    leave(ExitCode.INTERRUPTED)
"""


def test_leaving_under_a_bar_cleans_its_line() -> None:
    """Whoever ends the process while a bar shows clears that line and brings the cursor back."""
    code, shown = in_terminal("-c", LEAVING_UNDER_A_BAR, program=[sys.executable])
    assert code == 130
    assert shown.endswith(b"\r\x1b[2K\x1b[?25h")
