"""Directories through a real network of three nodes: put, listed, got, cut, moved as CARs, kept."""

import io
import signal
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, Deadline, NodeProcess, in_terminal
from tests.edge.conftest import Command
from tests.edge.test_api import address_of, client, listening, soon
from tests.edge.test_pins import names, pinned
from tests.unit.files.trees import on_disk
from xorbit import errors
from xorbit.api import Node
from xorbit.blocking import BlockingNode
from xorbit.config import LOOK_FIRST_BYTES_MIN
from xorbit.core import effect as fx
from xorbit.files.local_tree import build_source, cid_of
from xorbit.items import ItemKey, key_of
from xorbit.keys import new_key
from xorbit.wire.message import Store

LARGE = Random(5).randbytes(300_000)
EMPTY = "bafkr4ifpcne3t6putuzui3ur5jiqy2h3bkyzmfhejh6cfcswwgtoonzr6i"


def make_tree(top: Path) -> Path:
    """Make a folder with a little of everything in it."""
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "large").write_bytes(LARGE)
    (top / "sub" / "small").write_bytes(b"small")
    (top / "sub" / "deep" / "nothing").touch()
    (top / "sub" / "link").symlink_to("../large")
    (top / ".hidden").write_text("hidden")
    (top / "many").mkdir()
    for number in range(60):
        (top / "many" / f"file {number}").write_bytes(b"%d" % number * 300)
    return top


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "top")


@pytest.fixture(scope="module")
def put(tree: Path, nodes: list[NodeProcess]) -> str:
    """The name of the tree, put at the first node."""
    command = [*XORBIT, "put", str(tree), "--home", str(nodes[0].home)]
    done = subprocess.run(command, capture_output=True, timeout=WITHIN_S, check=True, text=True)
    return done.stdout.strip()


# --- Commands -----------------------------------------------------------------------------------


def test_a_tree_comes_back_as_it_was(
    xorbit: Command, nodes: list[NodeProcess], tree: Path, put: str, tmp_path: Path
) -> None:
    """It has the name that `cid` gives, and another node writes what was put, links as links."""
    assert put == str(cid_of(tree))
    home = ("--home", nodes[2].home)
    done = xorbit("get", f"xorbit://{put}", "-o", tmp_path / "out", *home)
    assert (done.code, done.out) == (0, b"")
    assert "in 64 files written to" in done.err
    assert on_disk(tmp_path / "out") == on_disk(tree)
    said = xorbit("get", f"{put}/many", "-o", tmp_path / "part", *home, "--json").json
    assert (said["files"], said["folders"], said["links"]) == (60, 1, 0)
    assert on_disk(tmp_path / "part") == on_disk(tree / "many")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "part"]


def test_links_that_lead_out_are_told_and_left_out(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """A put warns of them, a get refuses them and names the option that leaves them out."""
    source, out, home = tmp_path / "source", tmp_path / "out", ("--home", nodes[0].home)
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "python").symlink_to("/usr/bin/python3")
    (source / "z").symlink_to("../elsewhere")
    (source / "fine").symlink_to("bin/python")
    new_key(nodes[0].home, "linker")
    put = xorbit("put", source, *home)
    publish = xorbit("publish", "linker", "--tree", source, *home)
    for done in (put, publish):
        assert done.code == 0
        assert "z and others lead out of the directory (2 symbolic links)" in done.err
    name = put.text.strip()
    xorbit("get", name, "-o", out, *home).failed(1, "; --skip-links leaves such links out")
    done = xorbit("get", name, "-o", out, "--skip-links", *home)
    assert done.code == 0
    assert "2 symbolic links left out: leading out of the directory\n" in done.err
    assert on_disk(out) == {"bin": None, "fine": "bin/python"}


def test_what_is_in_it_is_listed(
    xorbit: Command, nodes: list[NodeProcess], tree: Path, put: str
) -> None:
    home = ("--home", nodes[1].home)
    found = xorbit("ls", put, *home, "--json").json
    assert [entry["name"] for entry in found] == [".hidden", "empty", "large", "many", "sub"]
    assert [entry["kind"] for entry in found if entry["name"] == "large"] == ["file"]
    lines = xorbit("ls", f"ipfs://{put}/sub/", *home).text.splitlines()
    assert [line.split()[-1] for line in lines] == ["deep/", "../large", "small"]
    assert lines[2].split()[:2] == ["file", "5"]
    assert str(cid_of(tree / "sub" / "small")) in lines[2]
    [file] = xorbit("ls", f"{put}/large", *home, "--json").json
    assert (file["name"], file["bytes"]) == ("large", len(LARGE))
    empty = xorbit("ls", f"{put}/empty", *home)
    assert (empty.code, empty.out, empty.err) == (0, b"", "an empty directory\n")


def test_blanks_at_the_end_of_a_name_are_part_of_it(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """They name another file, to all commands and in Python; a listing shows them in quotes."""
    home, top = ("--home", nodes[0].home), tmp_path / "top"
    top.mkdir()
    for name in ("trail", "trail ", "nl\n"):
        (top / name).write_text(name)
    (top / "link ").symlink_to("trail ")
    put = xorbit("put", top, *home).text.strip()
    for name in ("trail", "trail ", "nl\n"):
        for words in (("cat",), ("get",), ("get", "-o", "-")):
            assert xorbit(words[0], f" {put}/{name}", *words[1:], *home).text == name
        assert xorbit("get", f"{put}/{name}", "-o", tmp_path / "out", *home).code == 0
        assert (tmp_path / "out").read_text() == name
        assert xorbit("stat", f"{put}/{name}", *home, "--json").json["name"] == name
    assert [line.split("  ")[-1] for line in xorbit("ls", put, *home).text.splitlines()] == [
        "'link ' -> 'trail '",
        r"$'nl\n'",
        "trail",
        "'trail '",
    ]
    assert "target  'trail '\n" in xorbit("stat", f"{put}/link ", *home).text
    xorbit("cat", f"{put}/trail\n", *home).failed(3, r"has no entry 'trail\n'")
    assert xorbit("stat", f" {put}\n", *home).code == 0


def test_places_are_told_of(
    xorbit: Command, nodes: list[NodeProcess], tree: Path, put: str
) -> None:
    home = ("--home", nodes[1].home)
    said = xorbit("stat", f"{put}/many", *home, "--json").json
    assert (said["kind"], said["entries"]) == ("directory", 60)
    assert said["cid"] == str(cid_of(tree / "many"))
    lines = dict(line.split() for line in xorbit("stat", f"{put}/large", *home).text.splitlines())
    assert lines == {
        "cid": str(cid_of(tree / "large")),
        "kind": "file",
        "bytes": str(len(LARGE)),
    }
    link = xorbit("stat", f"{put}/sub/link", *home, "--json").json
    assert (link["kind"], link["target"]) == ("symlink", "../large")


def test_files_inside_come_whole_and_in_parts(
    xorbit: Command, nodes: list[NodeProcess], put: str, tmp_path: Path
) -> None:
    home = ("--home", nodes[1].home)
    assert xorbit("cat", f"{put}/large", *home).out == LARGE
    assert xorbit("get", f"{put}/sub/small", *home).out == b"small"
    for text, start, end in (
        ("0-0", 0, 1),
        ("65530-65545", 65_530, 65_546),
        ("299990-", -10, None),
    ):
        assert xorbit("get", f"{put}/large", "--range", text, *home).out == LARGE[start:end]
    part = tmp_path / "part"
    assert xorbit("get", f"{put}/large", "--range", "5-9", "-o", part, *home).code == 0
    assert part.read_bytes() == LARGE[5:10]
    assert xorbit("get", f"{put}/sub/small", "--range", "2-100", *home).out == b"all"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("get", "PUT"), 2, "is a directory: say where to write it with -o PATH"),
        (("get", "PUT", "-o", "HERE"), 2, "there is something at"),
        (("get", "PUT/large", "-o", "HERE/new/"), 2, "HERE/new/ names a folder: name the new file"),
        (("get", "PUT/large", "-o", "HERE/"), 2, "names a folder: name the new file in it"),
        (("get", "PUT", "--range", "0-1", "-o", "x"), 2, "is a directory: --range is for files"),
        (("get", "PUT", "--range", "0-", "-o", "x"), 2, "is a directory: --range is for files"),
        (("get", "PUT/large", "--range", "5"), 2, "expected a range like 0-99"),
        (("get", "PUT/large", "--range", "9-5"), 2, "ends behind its start"),
        (("get", "PUT/large", "--range", "300001-"), 2, "a file of 300,000 bytes"),
        (("get", "PUT/sub/small", "--range", "6-"), 2, "a file of 5 bytes"),
        (("get", "PUT/nowhere"), 3, "has no entry 'nowhere'"),
        (("get", "PUT/large/x"), 3, "is a file and has no entry"),
        (("get", "PUT/../x"), 2, "the one above it"),
        (("get", "PUT/sub/link"), 2, "PUT/sub/link is a symbolic link to '../large'"),
        (("get", "PUT/sub/link", "-o", "x"), 2, "PUT/sub/link is a symbolic link to '../large'"),
        (("cat", "PUT/sub/link"), 2, "PUT/sub/link is a symbolic link to '../large'"),
        (("cat", "PUT/sub"), 2, "PUT/sub is a directory: 'xorbit ls' shows it"),
        (("cat", "PUT"), 2, "PUT is a directory: 'xorbit ls' shows it"),
        (("ls", "PUT/no"), 3, "has no entry"),
        (("export", "PUT", "-o", "HERE/new/"), 2, "names a folder: name the new file in it"),
        (("export", "PUT", "-o", "-", "--json"), 2, "--json needs -o PATH"),
        (("import", "/nonexistent"), 2, "there is none at"),
        (("import", __file__), 2, "this is no CAR"),
    ],
)
def test_what_cannot_be_done_is_told(
    xorbit: Command,
    nodes: list[NodeProcess],
    put: str,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    (tmp_path / "file").touch()
    named = [word.replace("PUT", put).replace("HERE", str(tmp_path)) for word in words]
    said = says.replace("PUT", put).replace("HERE", str(tmp_path))
    xorbit(*named, "--home", nodes[0].home).failed(code, said)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_tree_travels_as_a_car(
    xorbit: Command, nodes: list[NodeProcess], tree: Path, put: str, tmp_path: Path
) -> None:
    """Exported by one network and imported into another, it is the same there, and kept."""
    car = tmp_path / "x.car"
    said = xorbit("export", put, "-o", car, "--home", nodes[2].home, "--json").json
    assert said["bytes"] == car.stat().st_size > len(LARGE)
    assert xorbit("export", put, "-o", "-", "--home", nodes[1].home).out == car.read_bytes()
    with NodeProcess(tmp_path / "other", network="another") as other:
        home = ("--home", other.home)
        done = xorbit("import", car, *home, "--json").json
        assert (done["roots"], done["not_kept"]) == ([put], "")
        assert xorbit("get", put, "-o", tmp_path / "out", *home).code == 0
        assert on_disk(tmp_path / "out") == on_disk(tree)
        [kept] = xorbit("pins", *home, "--json").json
        assert (kept["name"], kept["kind"], kept["state"]) == (put, "directory", "kept")
        assert xorbit("gc", *home, "--json").json == {"unpinned": 0}
        assert xorbit("import", car, *home).text == f"{put}\n"
        damaged = bytearray(car.read_bytes())
        damaged[-1] ^= 1
        car.write_bytes(damaged)
        xorbit("import", car, *home).failed(1, "are not those of its name")


def test_a_progress_bar_is_shown_for_trees(
    nodes: list[NodeProcess], put: str, tmp_path: Path
) -> None:
    code, shown = in_terminal("get", put, "-o", tmp_path / "out", "--home", nodes[1].home)
    assert code == 0
    assert "in 64 files" in shown.decode()


# --- Interrupted --------------------------------------------------------------------------------


def stores_sent(node: Node) -> list[ItemKey]:
    """Return what this node sends to others from now on, a key for each time."""
    sent: list[ItemKey] = []
    machine = node._started.driver.machine
    step = machine.step

    def watched(now, job):
        effects = step(now, job)
        bodies = [effect.envelope.body for effect in effects if isinstance(effect, fx.Send)]
        sent.extend(key_of(body.item) for body in bodies if isinstance(body, Store))
        return effects

    machine.step = watched  # type: ignore[method-assign]
    return sent


def test_a_put_that_is_killed_goes_on_where_it_was(xorbit: Command, tmp_path: Path) -> None:
    """Whenever it dies: the same put again ends the same, and keeps all of it."""
    rng = Random(7)
    top = tmp_path / "top"
    top.mkdir()
    for number in range(40):
        (top / f"{number:02}").write_bytes(rng.randbytes(100_000))
    with NodeProcess(tmp_path / "a") as a, NodeProcess(tmp_path / "b", bootstrap=a.address) as b:
        home = tmp_path / "client"
        words = ["put", str(top), "--home", str(home), "--network", NETWORK]
        words += ["--bootstrap", a.address]
        for items in (5, 40):
            process = subprocess.Popen([*XORBIT, *words], stdout=subprocess.PIPE)
            for _ in Deadline(WITHIN_S):
                held = xorbit("status", "--home", b.home, "--json").json["items"]
                if held >= items or process.poll() is not None:
                    break
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert xorbit("put", top, *words[2:]).text.strip() == str(cid_of(top))
        made = {cid.key for cid, _ in build_source(top)}
        found = xorbit("pins", "--home", home, "--json").json
        assert [(kept["kind"], kept["state"]) for kept in found] == [("directory", "kept")]
        assert xorbit("gc", "--home", home, "--json").json == {"unpinned": 0}
        assert xorbit("unpin", cid_of(top), "--home", home, "--json").json == {
            "unpinned": len(made)
        }
        assert xorbit("get", cid_of(top), "-o", tmp_path / "out", "--home", b.home).code == 0
    assert on_disk(tmp_path / "out") == on_disk(top)


async def test_what_is_held_is_not_sent_again(tree: Path, tmp_path: Path) -> None:
    """Of what was put as a part of something else, or by another, only what is missing moves."""
    async with listening(tmp_path / "a") as a:
        async with client(tmp_path / "b", bootstrap=await address_of(a)) as b:
            sent = stores_sent(b)
            made = build_source(tree / "large")
            large = {cid.key for cid, data in made if len(data) >= LOOK_FIRST_BYTES_MIN}

            await soon(b.put_file(tree / "large"))
            await soon(b.put_tree(tree))
            assert [sent.count(key) for key in large] == [1] * len(large)
        async with client(tmp_path / "c", bootstrap=await address_of(a)) as c:
            sent = stores_sent(c)
            done = await soon(c.put_tree(tree))
            assert large.isdisjoint(sent)
            assert done.not_kept == ""
            assert done.cid.key in await pinned(c)


# --- Kept ---------------------------------------------------------------------------------------


async def test_trees_are_kept_whole_and_let_go_of_whole(tree: Path, tmp_path: Path) -> None:
    """Of trees that share a part, each keeps all that it needs, whoever else is let go of."""
    whole = {cid.key for cid, _ in build_source(tree)}
    part = {cid.key for cid, _ in build_source(tree / "many")}
    async with listening(tmp_path / "a") as a:
        both = await soon(a.put_tree(tree))
        many = await soon(a.put_tree(tree / "many"))
        assert await pinned(a) == whole
        assert await soon(a.unpin(both.cid)) == len(whole - part)
        assert await pinned(a) == part
        async with client(tmp_path / "b", bootstrap=await address_of(a)) as b:
            root = await soon(b.pin(many.cid))
            assert (root.is_directory, await pinned(b)) == (True, part)
            again = await soon(b.pin(cid_of(tree / "large")))
            assert (again.is_directory, again.size) == (False, len(LARGE))
            assert await soon(b.gc()) == 0
            assert await soon(b.unpin(many.cid)) == len(part)
            assert await names(b) == {str(cid_of(tree / "large")): "kept"}


# --- Python -------------------------------------------------------------------------------------


async def test_files_are_read_where_one_likes(tree: Path, tmp_path: Path) -> None:
    """A node opens a file inside a tree; what is read is fetched, as far as it is needed."""
    async with listening(tmp_path) as node:
        done = await soon(node.put_tree(tree))
        async with await soon(node.open(f"{done.cid}/large")) as file:
            assert file.size == len(LARGE)
            assert await soon(file.read(10)) == LARGE[:10]
            assert file.seek(-10, io.SEEK_END) == len(LARGE) - 10
            assert await soon(file.read()) == LARGE[-10:]
        with pytest.raises(errors.MisuseError, match="was closed"):
            await file.read_at(0, 1)
        with pytest.raises(errors.NotFoundError, match="is no file"):
            await soon(node.open(done.cid))
        assert await soon(node.get_file(f"{done.cid}/sub/small")) == b"small"


def test_scripts_have_the_same(tree: Path, tmp_path: Path) -> None:
    """The blocking twin puts, lists, gets, opens and moves trees."""
    with BlockingNode(Node(tmp_path / "a", listen="127.0.0.1:0", network="trees")) as node:
        cid = node.put_tree(tree).cid
        assert [entry.name for entry in node.ls(cid)][:2] == [".hidden", "empty"]
        assert node.stat(f"{cid}/many").entries == 60
        assert node.get_tree(cid, tmp_path / "out").files == 64
        assert node.get_file(f"{cid}/large", part=(100, 200)) == LARGE[100:200]
        with node.open(f"{cid}/large") as file:
            assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
            assert file.seek(299_000) == file.tell() == 299_000
            assert file.readall() == LARGE[299_000:]
            file.seek(1)
            with io.BufferedReader(file) as buffered:
                assert buffered.read(100_000) == LARGE[1:100_001]
                assert buffered.seek(-5, io.SEEK_END) == len(LARGE) - 5
                assert buffered.read() == LARGE[-5:]
        with pytest.raises(ValueError, match="closed"):
            file.tell()
        with io.TextIOWrapper(io.BufferedReader(node.open(f"{cid}/.hidden"))) as text:
            assert text.read() == "hidden"
        node.export_car(cid, tmp_path / "x.car")
        assert node.import_car(tmp_path / "x.car").roots == (cid,)
        left_open = node.open(f"{cid}/large")
    left_open.close()
    assert on_disk(tmp_path / "out") == on_disk(tree)
